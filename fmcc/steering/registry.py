"""The schemes by name: the one table. What a scheme is and where it comes from, its module says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fmcc.steering.choosing import Make, Schemes
from fmcc.steering.lisp import Fig9
from fmcc.steering.lossless import Lossless
from fmcc.steering.unled import Unled
from fmcc.world import World

DEFAULT = "lossless"


def _lossless(world: World, nonces: Iterator[int]) -> Lossless:
    return Lossless(world.sites, world.datacenters, nonces, limits=world.limits)


def _fig9(world: World, nonces: Iterator[int]) -> Fig9:
    return Fig9(world.sites, world.datacenters, nonces)


def _unled(world: World, nonces: Iterator[int]) -> Unled:
    return Unled()


SCHEMES: Mapping[str, Make] = {
    "lossless": _lossless,
    "bicast": _lossless,
    "fig9": _fig9,
    "cp": _unled,
    "dataplane": _unled,
    "pubsub": _unled,
    "garp": _unled,
    "smr": _unled,
}


def schemes(default: str, world: World, nonces: Iterator[int]) -> Schemes:
    """All of them; `default` leads the moves that name none."""
    return Schemes(default, SCHEMES, world, nonces)
