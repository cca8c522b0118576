"""Options that several verbs have, each declared once; and how a verb that talks to daemons is run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from lispfmc.cli import completion
from lispfmc.cli.output import Format

Scheme = Annotated[str, typer.Option("--scheme", help="how services move, for example fig9")]
Output = Annotated[Format, typer.Option("-o", "--output", help="table for people, json for programs")]
Lab = Annotated[
    str | None,
    typer.Option("--lab", envvar="LISPFMC_LAB", help="which lab, when several are up", autocompletion=completion.labs),
]
Name = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="which lab, when several are up", autocompletion=completion.labs),
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="S", min=0.1, help="seconds to wait at most")]
Topology = Annotated[
    str, typer.Option("--topology", help="fig5, metro, mobiscud, or a TOML file", autocompletion=completion.topologies)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and do nothing")]


def finish(verb: Coroutine[Any, Any, int]) -> None:
    """Run it, and exit as it says."""
    raise typer.Exit(asyncio.run(verb))
