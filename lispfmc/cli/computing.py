"""The verbs that compute: `model` and `simulate`. No lab is needed; numpy is loaded only when one of them runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lispfmc.cli.output import Format

model_app = typer.Typer(help="The papers' analytic models.", no_args_is_help=True, rich_markup_mode=None)

Output = Annotated[Format, typer.Option("-o", "--output", help="table for people, json for programs")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="draw it too (.svg, .png, .pdf)")]
Rings = Annotated[int, typer.Option("--rings", "-k", metavar="K", help="the ring at which the service moves")]
ObjectBits = Annotated[float, typer.Option("--size", metavar="BITS", help="what a migration copies")]
Fraction = Annotated[float, typer.Option("--fraction", min=0.0, max=1.0, help="the share of it that is copied")]
MoveCost = Annotated[float, typer.Option("--cost", "--cm", metavar="CM", help="what a migration costs")]
Quality = Annotated[float, typer.Option("--quality", metavar="K", help="what one step of distance costs a handover")]
Gamma = Annotated[float, typer.Option("--gamma", help="how much the next handover counts against this one")]
Outward = Annotated[float, typer.Option("--p", help="probability that a handover leads outward")]
Keeping = Annotated[float, typer.Option("--stay", help="probability that a handover keeps the distance")]


class Method(StrEnum):
    """How `model policy` solves."""

    closed = "closed-form"
    policy = "policy-iteration"
    value = "value-iteration"


def simulate(
    mobility: Annotated[
        str, typer.Option("--mobility", metavar="walk1d|hex|trace:FILE", help="where users go")
    ] = "walk1d",
    policy: Annotated[list[str] | None, typer.Option("--policy", help="whom to score; may be repeated")] = None,
    users: Annotated[int, typer.Option("--users", min=1, help="of a walk")] = 100,
    handovers: Annotated[int, typer.Option("--handovers", min=2, help="of each user of a walk")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="the same seed gives the same walk")] = 1,
    p: Outward = 0.5,
    stay: Keeping = 0.0,
    cost: MoveCost = 5.0,
    quality: Quality = 1.0,
    gamma: Gamma = 0.95,
    thr: Annotated[int, typer.Option("--thr", min=1, max=100, help="the longest distance that tables know")] = 10,
    hexagon: Annotated[float, typer.Option("--hexagon", metavar="M", help="metres between cells of a trace")] = 500.0,
    session_gap: Annotated[
        float, typer.Option("--session-gap", metavar="S", help="a silence that ends a session of a trace")
    ] = 900.0,
    refuse_gaps: Annotated[bool, typer.Option("--refuse-gaps", help="a silence is an error")] = False,  # noqa: FBT002 - likewise
    plot: Plot = None,
    output: Output = Format.table,
) -> None:
    """Score policies on walks or on a GPS trace: the first half teaches, the second half counts."""
    from lispfmc.cli.simulate import Mobility
    from lispfmc.cli.simulate import simulate as verb

    where = Mobility(mobility, users, handovers, seed, p, stay, hexagon, session_gap, refuse_gaps)
    policies = policy or ["mdp", "learned"]
    raise typer.Exit(verb(policies, where, cost=cost, quality=quality, gamma=gamma, thr=thr, output=output, to=plot))


@model_app.command("ctmc", short_help="Where users are, how often services move")
def model_ctmc(
    rings: Rings,
    size: ObjectBits = 1e9,
    fraction: Fraction = 1.0,
    signal: Annotated[float, typer.Option("--signal", metavar="BITS", help="a signalling message's size")] = 0.0,
    full: Annotated[bool, typer.Option("--full", help="the chain over single cells, as a check")] = False,  # noqa: FBT002 - likewise
    plot: Plot = None,
    output: Output = Format.table,
) -> None:
    """Where users are relative to their data centre, and how often services move."""
    from lispfmc.cli.model import position as verb

    raise typer.Exit(
        verb(rings, object_bits=size, fraction=fraction, signal_bits=signal, whole=full, output=output, to=plot)
    )


@model_app.command("sdt", short_help="How long a migration disturbs")
def model_sdt(
    rings: Annotated[
        int | None, typer.Option("--rings", "-k", metavar="K", help="rings apart: 0.01 K^2 seconds")
    ] = None,
    rtt: Annotated[
        float | None, typer.Option("--rtt", metavar="S", help="round-trip time, in place of --rings")
    ] = None,
    size: ObjectBits = 1e9,
    fraction: Fraction = 1.0,
    loss: Annotated[float, typer.Option("--loss", help="probability that a segment is lost")] = 0.0,
    mss: Annotated[int, typer.Option("--mss", metavar="BYTES", help="of a segment")] = 1460,
    window: Annotated[int, typer.Option("--window", metavar="SEGMENTS", help="the largest window")] = 44,
    plot: Plot = None,
    output: Output = Format.table,
) -> None:
    """How long a migration disturbs its service, by the paper's equation (11)."""
    from lispfmc.cli.model import sdt as verb

    raise typer.Exit(
        verb(
            rings,
            rtt_s=rtt,
            object_bits=size,
            fraction=fraction,
            loss=loss,
            mss=mss,
            window=window,
            output=output,
            to=plot,
        )
    )


@model_app.command("policy", short_help="From which distance on to follow")
def model_policy(
    p: Outward = 0.5,
    stay: Keeping = 0.0,
    cost: MoveCost = 5.0,
    gamma: Gamma = 0.95,
    thr: Annotated[int, typer.Option("--thr", help="the distance at which the service must move")] = 50,
    quality: Quality = 1.0,
    dimension: Annotated[int, typer.Option("--dimension", min=1, max=2, help="1: a line, 2: hexagons")] = 1,
    method: Annotated[Method, typer.Option("--method", help="how it is solved")] = Method.closed,
    plot: Plot = None,
    output: Output = Format.table,
) -> None:
    """The distance from which on a service should follow its user."""
    from lispfmc.cli.model import policy as verb

    raise typer.Exit(
        verb(
            p=p, stay=stay, cost=cost, gamma=gamma, thr=thr, quality=quality, dimension=dimension, method=method.value,
            output=output, to=plot,
        )
    )  # fmt: skip


@model_app.command("fig14", short_help="The paper's tables, reconstructed")
def model_fig14(
    reconstruction: Annotated[str, typer.Option("--reconstruction", metavar="F|L", help="which model")] = "F",
    table: Annotated[str, typer.Option("--table", metavar="a|b", help="which of the paper's two tables")] = "a",
    plot: Plot = None,
    output: Output = Format.table,
) -> None:
    """The paper's policy tables, by models that are reconstructions."""
    from lispfmc.cli.model import tables as verb

    raise typer.Exit(verb(reconstruction, table, output=output, to=plot))
