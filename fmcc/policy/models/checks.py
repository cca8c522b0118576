"""What parameters a model takes: everything else is refused with a reason before any arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lispfmc.wire.errors import LocalError

SUM_TOLERANCE = 1e-9
"""How far probabilities may be from 1 in sum: rounding, not carelessness."""


class BadParameter(LocalError):  # noqa: N818 - reads as what it is
    """A model or policy was asked for something that has no meaning."""


def probability(name: str, value: float) -> float:
    if not (math.isfinite(value) and 0.0 <= value <= 1.0):
        raise BadParameter(f"{name} is {value}: a probability lies between 0 and 1; correct it")
    return value


def summing(names: str, values: Sequence[float]) -> None:
    """The probabilities of everything that can happen."""
    for value in values:
        probability(names, value)
    total = math.fsum(values)
    if abs(total - 1.0) > SUM_TOLERANCE:
        raise BadParameter(f"{names} sum to {total:.12g}: the probabilities of all outcomes sum to 1; correct one")


def discount(gamma: float) -> float:
    if not 0.0 < gamma < 1.0:
        raise BadParameter(f"gamma is {gamma}: a discount lies strictly between 0 and 1; use 0.95, for example")
    return gamma


def whole(name: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise BadParameter(f"{name} is {value}: it must be from {least} to {most}; choose one of these")
    return value


def amount(name: str, value: float, *, positive: bool = False) -> float:
    """A finite number that is not negative, or, with `positive`, not zero either."""
    if not math.isfinite(value) or value < 0.0 or (positive and value == 0.0):
        raise BadParameter(
            f"{name} is {value}: it must be a number {'above' if positive else 'not below'} 0; correct it"
        )
    return value
