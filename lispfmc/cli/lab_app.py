"""`lispfmc lab ...`: a whole network on this machine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from lispfmc.cli import completion
from lispfmc.cli.options import DryRun, Lab, Name, Output, Scheme, Topology, finish
from lispfmc.cli.output import Format

lab_app = typer.Typer(help="A whole network on this machine.", no_args_is_help=True, rich_markup_mode=None)


class Drawing(StrEnum):
    """What `lab graph` can draw."""

    mermaid = "mermaid"
    dot = "dot"
    svg = "svg"


class LabDriver(StrEnum):
    """What the lab's services are."""

    emulated = "emulated"
    qemu = "qemu"


@lab_app.command("up", short_help="Bring a network up in namespaces")
def lab_up(
    topology: Topology = "fig5",
    name: Annotated[str | None, typer.Option("--name", help="the lab's name; the topology's unless given")] = None,
    driver: Annotated[LabDriver, typer.Option("--driver", help="qemu: services are real virtual machines")] = (
        LabDriver.emulated
    ),
    scheme: Scheme = "",
    impairable: Annotated[  # noqa: FBT002 - likewise
        bool, typer.Option("--impairable", help="delay the WAN by our forwarder, so that lab impair can change it")
    ] = False,
    dry_run: DryRun = False,  # noqa: FBT002 - likewise
    output: Output = Format.table,
) -> None:
    """Bring a network up in namespaces."""
    from lispfmc.cli.lab import plan, up

    if dry_run:
        raise typer.Exit(plan(topology, name, driver=driver.value, scheme=scheme, output=output))
    asked = up(topology, name, driver=driver.value, scheme=scheme, impairable=impairable, output=output)
    raise typer.Exit(asked)


@lab_app.command("status", short_help="What of the network is there")
def lab_status(name: Name = None, output: Output = Format.table) -> None:
    """What of the network is there."""
    from lispfmc.cli.lab import status as verb

    raise typer.Exit(verb(name, output=output))


@lab_app.command("down", short_help="Remove it, or what a killed up left")
def lab_down(
    name: Name = None,
    purge: Annotated[bool, typer.Option("--purge", help="remove the daemons' logs, too")] = False,  # noqa: FBT002 - likewise
    dry_run: DryRun = False,  # noqa: FBT002 - likewise
    output: Output = Format.table,
) -> None:
    """Remove the network and whatever a killed `up` left behind; the daemons' logs stay."""
    from lispfmc.cli.lab import down

    raise typer.Exit(down(name, purge=purge, dry_run=dry_run, output=output))


@lab_app.command(
    "exec",
    short_help="Run a command inside a site",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def lab_exec(
    place: Annotated[
        str, typer.Argument(metavar="SITE", help="a site, a daemon or a node", autocompletion=completion.places)
    ],
    command: Annotated[list[str], typer.Argument(metavar="CMD...")],
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Run a command inside a site, and exit as it does."""
    from lispfmc.cli.lab import execute

    raise typer.Exit(execute(place, command, lab, output=output))


@lab_app.command("graph", short_help="Draw a network")
def lab_graph(
    topology: Topology = "fig5",
    output: Annotated[Drawing, typer.Option("-o", "--output", help="what to draw it as")] = Drawing.mermaid,
) -> None:
    """Draw a topology: its sites, who starts where, and the round-trip times."""
    from lispfmc.cli.lab import graph

    raise typer.Exit(graph(topology, output.value))


@lab_app.command("impair", short_help="Change a round-trip time, lose control packets")
def lab_impair(
    between: Annotated[
        list[str] | None, typer.Argument(metavar="[A B]", help="two members; fmcc and mapserver are some")
    ] = None,
    rtt: Annotated[float | None, typer.Option("--rtt", metavar="MS", min=0, max=10_000, help="between A and B")] = None,
    control_loss: Annotated[
        float,
        typer.Option("--control-loss", metavar="PERCENT", min=0, max=99, help="everywhere, of all but users' data"),
    ] = 0.0,
    dry_run: DryRun = False,  # noqa: FBT002 - likewise
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Change what the WAN of a running lab does: until the next time, the rest stays as it is."""
    from lispfmc.cli.lab import impair

    if (rtt is None) != (not between) or (between and len(between) != 2):
        raise typer.BadParameter("name two members and give --rtt, or neither")
    finish(impair(tuple(between or ()), rtt, control_loss, lab, dry_run=dry_run, output=output))


@lab_app.command("metrics", short_help="Serve the daemons' metrics to a Prometheus")
def lab_metrics(
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS:PORT", help="where to serve them; port 0: any that is free")
    ] = "127.0.0.1:9340",
    name: Name = None,
    output: Output = Format.table,
) -> None:
    """Serve the metrics of the labs that are up to a Prometheus on this machine, until it is interrupted."""
    from lispfmc.cli.metrics import metrics

    finish(metrics(listen, name, output=output))


@lab_app.command("demo", short_help="Build, move, measure, remove")
def lab_demo(topology: Topology = "fig5", scheme: Scheme = "", output: Output = Format.table) -> None:
    """Build the network, move a user, watch the service follow, say what it cost, remove the network."""
    from lispfmc.cli.lab import demo

    raise typer.Exit(demo(topology, scheme=scheme, output=output))
