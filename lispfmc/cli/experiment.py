"""The options of `lispfmc experiment`. What they ask for does `experimenting`, which is loaded when it is called."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lispfmc.cli.output import Format

experiment_app = typer.Typer(help="Many moves, measured and compared.", no_args_is_help=True, rich_markup_mode=None)

Runs = Annotated[int | None, typer.Option("--runs", min=1, help="moves at each point; 50 unless given")]
Sweep = Annotated[
    str | None, typer.Option("--sweep", metavar="fmcc-rtt=MS,...", help="round-trip times of the controller")
]
Loss = Annotated[str | None, typer.Option("--loss", metavar="PERCENT,...", help="on control paths; 0: also without")]
Interval = Annotated[int | None, typer.Option("--interval", metavar="US", help="between probes; 250 unless given")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="for results; an interrupted experiment goes on")
]


class Preset(StrEnum):
    """The experiments that have a name."""

    headline = "headline"


class Plane(StrEnum):
    """Which data plane the tunnel routers run."""

    auto = "auto"
    ebpf = "ebpf"
    tun = "tun"


@experiment_app.callback()
def experiment() -> None:
    """Many moves, measured and compared; the papers' evaluation, repeated."""


@experiment_app.command("moves", short_help="Services' moves, by one scheme and another")
def moves(
    preset: Annotated[Preset | None, typer.Option("--preset", help="the figures that docs/measuring.md shows")] = None,
    schemes: Annotated[str | None, typer.Option("--schemes", help="for example lossless,fig9")] = None,
    sweep: Sweep = None,
    runs: Runs = None,
    loss: Loss = None,
    tcp: Annotated[bool, typer.Option("--tcp", help="also moves under TCP connections")] = False,  # noqa: FBT002 - typer's way to declare a flag
    users: Annotated[bool, typer.Option("--users", help="also users' moves")] = False,  # noqa: FBT002 - likewise
    services: Annotated[int | None, typer.Option("--services", min=2, help="also so many services at once")] = None,
    at_once: Annotated[
        int | None, typer.Option("--at-once", min=1, help="... and again, so many of them under way at a time")
    ] = None,
    plane: Annotated[Plane | None, typer.Option("--plane", help="the tunnel routers' data plane")] = None,
    topology: Annotated[str | None, typer.Option("--topology", help="metro unless given")] = None,
    interval_us: Interval = None,
    seed: Annotated[int | None, typer.Option("--seed", help="of the order and the losses")] = None,
    out: Out = None,
    published: Annotated[
        Path | None, typer.Option("--publish", metavar="DIR", help="also a page, tables and pictures to be kept")
    ] = None,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="no pictures (they need matplotlib)")] = False,  # noqa: FBT002 - likewise
    output: Annotated[
        Format, typer.Option("-o", "--output", help="table for people, json for programs")
    ] = Format.table,
) -> None:
    """Move a service back and forth, some hundred times, by each scheme and at each distance of the controller; measure
    what users feel. Builds its own lab, as root; docs/measuring.md says what the figures mean."""
    from lispfmc.cli.experimenting import design_of
    from lispfmc.cli.experimenting import moves as verb

    design = design_of(
        preset and preset.value,
        schemes=schemes,
        sweep=sweep,
        runs=runs,
        loss=loss,
        plane=plane and plane.value,
        topology=topology,
        interval_us=interval_us,
        seed=seed,
        tcp=tcp,
        users=users,
        services=services,
        at_once=at_once,
    )
    raise typer.Exit(verb(design, out, published=published, plot=not no_plot, output=output))


@experiment_app.command("paper", short_help="The papers' evaluation, repeated, beside what they report")
def paper(
    only: Annotated[
        str | None, typer.Option("--only", metavar="PART,...", help="for example fig16,model; all unless given")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="few repetitions, short copies: ten minutes at most")] = False,  # noqa: FBT002 - likewise
    seed: Annotated[int, typer.Option("--seed", min=0, help="of walks, of the order and the losses")] = 1,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE", help="recorded positions, for the part policy")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="for the report; build/report unless given")
    ] = None,
    publish: Annotated[
        Path | None,
        typer.Option("--publish", metavar="DIR", help="measure nothing: write the report that is there for committing"),
    ] = None,
    output: Annotated[
        Format, typer.Option("-o", "--output", help="table for people, json for programs")
    ] = Format.table,
) -> None:
    """Repeat what the papers measured and computed, on the lab's network, and write a page with figures, tables and raw
    values. Parts that cannot be made here say why; docs/experiments.md says what each needs."""
    from lispfmc.cli.reporting import paper as verb
    from lispfmc.cli.reporting import published
    from lispfmc.experiment.paper.work import Settings

    if publish is not None:
        raise typer.Exit(published(out, publish, output=output))
    settings = Settings(quick=quick, seed=seed, trace=None if trace is None else str(trace))
    raise typer.Exit(verb(only, settings, out, output=output))
