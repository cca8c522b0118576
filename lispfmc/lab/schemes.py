"""What the lab configures for each scheme of moves (docs/schemes.md), beside the controller's own `scheme`."""

from __future__ import annotations

from collections.abc import Mapping

_MOBILITY: Mapping[str, str] = {"garp": "presence", "bicast": "lossless"}
"""What tunnel routers call it where they make no difference to another way of moving (`xtr.mobility`)."""

_PUBLISHED = frozenset({"pubsub"})
"""The schemes that consist of publications to the routers (RFC 9437)."""


def mobility_of(scheme: str) -> str:
    """How the data centres' routers take part in moves of services."""
    return _MOBILITY.get(scheme, scheme)


def subscribes(scheme: str) -> bool:
    """Whether the routers subscribe to what they send to, wherever the topology leaves that open."""
    return scheme in _PUBLISHED
