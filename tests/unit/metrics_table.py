"""What docs/metrics.md lists, and what a daemon's /metrics says, in the same form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/metrics.md"
KINDS = {"Map-Server": "mapserver", "controller": "fmcc", "xTR": "xtr"}


class Row(NamedTuple):
    type: str
    labels: frozenset[str]
    daemons: frozenset[str]


def documented() -> dict[str, Row]:
    rows = [
        [each.strip() for each in line.split("|")[1:-1]]
        for line in DOCUMENT.read_text().splitlines()
        if re.match(r"\| `(lispfmc|process)_", line)
    ]
    everybody = frozenset({*KINDS.values(), "agent"})
    return {
        name.strip("`"): Row(
            type_,
            frozenset(re.findall(r"`(\w+)`", labels)),
            everybody if daemons == "all" else frozenset(KINDS[each] for each in daemons.split(", ")),
        )
        for name, type_, _, labels, daemons, _ in rows
    }


def families(text: str) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Name as documented, type, and labels of what `/metrics` says."""
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield name, family.type, frozenset(key for each in family.samples for key in each.labels) - {"le"}
