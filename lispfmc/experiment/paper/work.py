"""What a part is, what it is asked with, and whom it tells how far it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import msgspec

from lispfmc.experiment.paper.result import Result
from lispfmc.lab.virtual import find_engine
from lispfmc.wire.errors import LocalError


class Settings(msgspec.Struct, frozen=True):
    """What was asked for. A result that was made with other settings is made anew."""

    quick: bool = False
    seed: int = 1
    trace: str | None = None
    """Recorded positions for the part `policy`, instead of made ones."""


class Telling(Protocol):
    """Who is told."""

    def steps(self, total: int) -> None: ...

    def step(self, what: str = "") -> None: ...

    def say(self, text: str) -> None: ...


class Work(msgspec.Struct, frozen=True):
    """One part's work: `folder` is its own, for raw data that an interrupted run goes on with."""

    settings: Settings
    folder: Path
    tell: Telling

    @property
    def quick(self) -> bool:
        return self.settings.quick


class Part(msgspec.Struct, frozen=True):
    """`needs` say why the part cannot be made here, or None; what it can do without is the part's own business."""

    name: str
    title: str
    make: Callable[[Work], Result]
    needs: tuple[Callable[[], str | None], ...] = ()
    quick_s: float = 0.0
    full_s: float = 0.0
    """How long it takes on two quiet cores."""

    def why_not(self) -> str | None:
        return next((why for why in (need() for need in self.needs) if why), None)


def root() -> str | None:
    if os.geteuid() == 0:
        return None
    return "its lab is made of network namespaces, which only root may build; run it with sudo"


def machines() -> str | None:
    """Virtual machines."""
    try:
        find_engine()
    except LocalError as error:
        return f"it needs real virtual machines: {error}"
    return None


def pictures() -> str | None:
    if find_spec("matplotlib") is None:
        return "matplotlib is not installed, so figures are tables only; pip install 'lispfmc[plot]'"
    return None
