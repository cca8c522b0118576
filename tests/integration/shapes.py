"""Which keys the command's JSON has, as dotted paths: what scripts rely on, and what may only ever be added to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Their keys are names of the network (sites, prefixes, reasons), not of the format.
NAMED_BY_THE_NETWORK = {"agents", "subscriptions", "services", "counts", "counters", "status.subscriptions"}


def paths(value: Any, at: str = "") -> Iterator[str]:
    """Every key of every object in `value`; the elements of a list share one path."""
    if isinstance(value, dict):
        named = at.rsplit(".", 1)[-1].removesuffix("[]") in NAMED_BY_THE_NETWORK
        for key, inside in value.items():
            path = f"{at}.{'*' if named else key}".removeprefix(".")
            yield path
            yield from paths(inside, path)
    elif isinstance(value, list):
        for inside in value:
            yield from paths(inside, f"{at}[]")
