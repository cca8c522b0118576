"""What the papers print, from `printed.toml`: values with the figure or table they stand in."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

PATH = Path(__file__).with_name("printed.toml")
NO_VALUES = "no printed values"


class Printed(msgspec.Struct, frozen=True):
    """Of one figure. `values` is empty where only curves are printed."""

    source: str
    statements: str = ""
    values: Mapping[str, Any] = {}
    cases: Mapping[str, tuple[float, float]] = {}

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def stated(self) -> str:
        """For a row of comparison that has no number."""
        return f"{self.statements} ({NO_VALUES})" if self.statements else NO_VALUES


@cache
def _all() -> dict[str, Any]:
    return tomllib.loads(PATH.read_text())


def papers() -> Mapping[str, str]:
    """The short names, and what they stand for."""
    found: dict[str, str] = _all()["papers"]
    return found


def printed(figure: str) -> Printed:
    """What is printed of a figure."""
    return msgspec.convert(_all()[figure], Printed)
