"""The command tree as values: what `--help` says of every command, for manual pages and the reference in docs/."""

from __future__ import annotations

import re
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
_NAMES = re.compile(r"(--?[\w-]+(?:, --?[\w-]+)*) ?(.*)")
_VALUES = {"text": "TEXT", "str": "TEXT", "int": "NUMBER", "float": "NUMBER", "path": "FILE"}


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
    """In words of our own: those of the library that parses differ between its versions."""
    context = command.make_context(" ".join(path), [], resilient_parsing=True)
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    inside = getattr(command, "commands", {})
    usage = ["[OPTIONS]", *map(_usage, arguments), *(["COMMAND [ARGS]..."] if inside else [])]
    return Command(
        path,
        " ".join(usage),
        command.get_short_help_str(limit=200),
        " ".join((command.help or "").split()),
        [Entry(_named(one), one.help or "") for one in arguments],
        [_option(one, context) for one in command.params if one not in arguments and not one.hidden],
        [Entry(name, one.get_short_help_str(limit=200)) for name, one in inside.items()],
    )


def _named(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper()).strip("[]")


def _usage(argument: Any) -> str:
    return _named(argument) if argument.required else f"[{_named(argument)}]"


def _option(option: Any, context: Any) -> Entry:
    found = _NAMES.match(option.get_help_record(context)[0])
    assert found is not None
    names, value = found.groups()
    told = [option.help or ""]
    default = getattr(option.default, "value", option.default)
    if default not in {None, "", ()} and not option.is_flag:
        told.append(f"[default: {default}]")
    if option.envvar:
        told.append(f"[in the environment: {option.envvar}]")
    return Entry(f"{names} {_value(value)}".strip(), " ".join(told))


def _value(metavar: str) -> str:
    """TEXT and <str>, INTEGER RANGE and <int>, [a|b] and <a|b> are the same to a reader."""
    bare = metavar.strip("<>").removeprefix("list").strip("[]")
    return next((ours for start, ours in _VALUES.items() if bare.lower().startswith(start)), bare)
