"""`lispfmc show registrations`: page after page as a Map-Server gives them, so that a million stall nobody.

What fits one page is a table or a document like any other; more than that is printed as it comes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

from lispfmc.cli.failure import DONE
from lispfmc.cli.output import Format, cell, print_items, print_text
from lispfmc.cli.show import VIEWS, asked, rlocs
from lispfmc.lab.installation import Daemon, load

Rows = list[dict[str, Any]]


async def registrations(
    *,
    at: str | None,
    eid: str | None,
    site: str | None,
    xtr: str | None,
    limit: int | None,
    lab_name: str | None,
    output: Format,
) -> int:
    """Every row carries the `daemon` that it is from."""
    view = VIEWS["registrations"]
    choice = (("eid", eid), ("site", site), ("xtr", xtr))
    wanted = {name: value for name, value in choice if value is not None}
    pages = _pages(asked(load(lab_name), view, at), wanted, limit, output)
    none: Rows = []
    first = await anext(pages, none)
    second = await anext(pages, None)
    if second is None:
        print_items(first, view.columns, output, empty="no registrations")
        return DONE
    printer = _Documents() if output is Format.json else _Lines(view.columns, first)
    printer.add(first)
    printer.add(second)
    async for page in pages:
        printer.add(page)
    printer.end()
    return DONE


async def _pages(
    daemons: list[Daemon], wanted: Mapping[str, str], limit: int | None, output: Format
) -> AsyncIterator[Rows]:
    """The pages of every daemon, none of them empty."""
    left = limit
    for daemon in daemons:
        async with daemon.client() as api:
            after: str | None = None
            while left is None or left > 0:
                query = dict(wanted)
                if after is not None:
                    query["after"] = after
                if left is not None:
                    query["limit"] = str(left)
                answer = await api.get(f"/v1/registrations?{urlencode(query)}")
                rows = [{"daemon": daemon.name, **item} for item in answer["items"]]
                if rows:
                    left = left - len(rows) if left is not None else None
                    yield rows if output is Format.json else [row | {"rlocs": rlocs(row["locators"])} for row in rows]
                after = answer.get("next")
                if after is None:
                    break


class _Documents:
    """One JSON document, written as it grows."""

    def __init__(self) -> None:
        self._between = '{"items": [\n'

    def add(self, rows: Rows) -> None:
        for row in rows:
            sys.stdout.write(self._between + json.dumps(row, ensure_ascii=False))
            self._between = ",\n"

    def end(self) -> None:
        print_text("\n]}")


class _Lines:
    """Columns as wide as the first page wants them; a longer value pushes its line to the right."""

    def __init__(self, columns: Mapping[str, str], first: Rows) -> None:
        self._columns = columns
        self._widths = [max(len(title), *(len(cell(row.get(key))) for row in first)) for title, key in columns.items()]
        self._line(list(columns))

    def add(self, rows: Rows) -> None:
        for row in rows:
            self._line([cell(row.get(key)) for key in self._columns.values()])

    def end(self) -> None:
        sys.stdout.flush()

    def _line(self, cells: list[str]) -> None:
        padded = (text.ljust(width) for text, width in zip(cells, self._widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")
