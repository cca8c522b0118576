"""The command tree as values: what `--help` says of every command, for manual pages and the reference in docs/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import typer

from lispfmc.cli.app import app

EXIT_CODES = (
    ("0", "done"),
    ("1", "the condition that was asked for is not met"),
    ("2", "cannot reach a daemon"),
    ("64", "wrong usage"),
    ("78", "wrong configuration"),
)


class Entry(NamedTuple):
    """A name and what it is."""

    name: str
    text: str


class Command(NamedTuple):
    """One command, or a group of them."""

    path: tuple[str, ...]
    usage: str
    """What follows its name."""
    short_help: str
    help: str
    arguments: list[Entry]
    options: list[Entry]
    commands: list[Entry]
    """Those inside a group, by their own names."""

    @property
    def name(self) -> str:
        return " ".join(self.path)


def commands() -> Iterator[Command]:
    """Every command, a group before what is in it."""
    for path, command in _walk(("lispfmc",), typer.main.get_command(app)):
        yield _command(path, command)


def _walk(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inside in getattr(command, "commands", {}).items():
        yield from _walk((*path, name), inside)


def _command(path: tuple[str, ...], command: Any) -> Command:
    context = command.make_context(" ".join(path), [], resilient_parsing=True)
    usage = [piece.strip("[]") if piece == "[ARGS]..." else piece for piece in command.collect_usage_pieces(context)]
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    return Command(
        path,
        " ".join(usage),
        command.get_short_help_str(limit=200),
        " ".join((command.help or "").split()),
        [Entry(one.metavar or one.name.upper(), one.help or "") for one in arguments],
        [Entry(*told) for one in command.params if one not in arguments and (told := one.get_help_record(context))],
        [Entry(name, one.get_short_help_str(limit=200)) for name, one in getattr(command, "commands", {}).items()],
    )
