"""What the command prints: data on stdout, talk on stderr.

Tables are for people and lose their colours in a pipe or under NO_COLOR; `-o json` prints one JSON document, or one
JSON object a line where there is no end (`monitor`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 240  # columns of a table that nobody looks at on a terminal: never cut a value in a pipe


class Format(StrEnum):
    """The choices of `-o`."""

    table = "table"
    json = "json"


def say(text: str) -> None:
    """Talk: to stderr, so that stdout stays data."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_text(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_json(document: object) -> None:
    """One document; keys keep their order, which is the order a person wants to read them in."""
    print_text(json.dumps(document, indent=2, ensure_ascii=False))


def print_json_line(document: object) -> None:
    print_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")))


def console() -> Console:
    """Rich on stdout; NO_COLOR and pipes are its own business, the width in a pipe is ours."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, soft_wrap=False)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "nothing to show") -> None:
    """Left-aligned columns, numbers to the right; `empty` is said when there are no rows."""
    if not rows:
        say(empty)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    console().print(table)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr while something takes its time, for a person at a terminal only. Call it for each step."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def cell(value: object) -> str:
    """How a value stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list | tuple):
        return " ".join(cell(item) for item in value) or "-"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={cell(item)}" for key, item in value.items())
    return str(value)


def print_items(items: Sequence[Mapping[str, Any]], columns: Mapping[str, str], output: Format, *, empty: str) -> None:
    """A list of objects: all of it as JSON, or the named columns (title -> key) as a table."""
    if output is Format.json:
        print_json({"items": list(items)})
    else:
        print_table(list(columns), [[item.get(key) for key in columns.values()] for item in items], empty=empty)
