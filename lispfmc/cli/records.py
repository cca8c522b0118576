"""EID-records as a table: what a Map-Reply or a Map-Notify says, a line for each locator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lispfmc.cli.output import print_table


def print_records(records: Sequence[dict[str, Any]]) -> None:
    """`records` as `lispfmc.wire.describe` gives them."""
    rows: list[list[object]] = []
    for record in records:
        locators = record["locators"] or [{}]
        for index, locator in enumerate(locators):
            first = index == 0
            rows.append(
                [
                    record["eid"] if first else "",
                    record["ttl_minutes"] if first else "",
                    record.get("map_version", 0) if first else "",
                    locator.get("rloc") or ("withdrawn" if not record["ttl_minutes"] else record["action"]),
                    locator.get("priority"),
                    locator.get("weight"),
                    locator and ("up" if locator.get("reachable", True) else "down"),
                ]
            )
    print_table(["EID-PREFIX", "TTL MIN", "VERSION", "LOCATOR", "PRIORITY", "WEIGHT", "STATE"], rows)
