"""`lispfmc moves list|show|start|abort`: the moves of services."""

from __future__ import annotations

from typing import Annotated

import typer

from lispfmc.cli.options import DryRun, Lab, Output, Scheme, finish
from lispfmc.cli.output import Format

moves_app = typer.Typer(help="Moves of services.", no_args_is_help=True, rich_markup_mode=None)


@moves_app.command("list", short_help="The last moves, of all runs")
def moves_list(
    service: Annotated[str | None, typer.Option("--service", help="only this service's")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="so many at most")] = 20,
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """The last moves, newest first, of all runs of the controller."""
    from lispfmc.cli.moves import listed

    finish(listed(service, limit=limit, lab_name=lab, output=output))


@moves_app.command("show", short_help="One move, phase by phase")
def moves_show(
    move: Annotated[str, typer.Argument(metavar="ID", help="the move's id, as list and monitor show it")],
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """What happened in one move and when, from the decision on, as the controller heard of it."""
    from lispfmc.cli.moves import shown

    finish(shown(move, lab_name=lab, output=output))


@moves_app.command("start", short_help="Move a service to a data centre")
def moves_start(
    service: Annotated[str, typer.Argument(help="which service, for example alice-app")],
    to: Annotated[str, typer.Option("--to", metavar="DC", help="the data centre to move to")],
    scheme: Scheme = "",
    dry_run: DryRun = False,  # noqa: FBT002 - likewise
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Move a service to a data centre, whatever the policy says."""
    from lispfmc.cli.moves import started

    finish(started(service, to, scheme=scheme, dry_run=dry_run, lab_name=lab, output=output))


@moves_app.command("abort", short_help="Give a move up")
def moves_abort(
    move: Annotated[str, typer.Argument(metavar="ID", help="the move's id, as list and monitor show it")],
    dry_run: DryRun = False,  # noqa: FBT002 - likewise
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Give a move up, as long as the machine does not stand still; the service goes on where it is."""
    from lispfmc.cli.moves import aborted

    finish(aborted(move, dry_run=dry_run, lab_name=lab, output=output))
