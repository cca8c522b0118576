"""What a core wants done, as values. A core returns a list of them; the driver performs them in order.

Four effects are every daemon's; each daemon adds its own to the union that it returns (`xtr/effects.py` and the like).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from lispfmc.wire.address import Endpoint
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import Message

FieldValue: TypeAlias = "str | int | float | bool | list[str] | None"


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send one control message; with a key, authenticated by it (RFC 9301 §5.6)."""

    message: Message
    to: Endpoint
    key: Key | None = None


class Transmit(msgspec.Struct, frozen=True, gc=False):
    """Send a datagram as it stands: what was encoded before, and signed if need be. The way of the busy paths."""

    datagram: bytes
    to: Endpoint


class Lazy(Mapping[str, "FieldValue"]):
    """An event's fields that are built when somebody looks: of a storm of events few are read."""

    __slots__ = ("_build", "_built", "_of")

    def __init__(self, build: Callable[..., Mapping[str, FieldValue]], *of: object) -> None:
        self._build = build
        self._of = of
        self._built: Mapping[str, FieldValue] | None = None

    def _fields(self) -> Mapping[str, FieldValue]:
        if self._built is None:
            self._built = self._build(*self._of)
        return self._built

    def __getitem__(self, name: str) -> FieldValue:
        return self._fields()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields())

    def __len__(self) -> int:
        return len(self._fields())


class Emit(msgspec.Struct, frozen=True, gc=False):
    """State changed: one event, which the log, the event stream and the metrics all show.

    `name` is an API (docs/events.md), as are the names of the fields. Values are text, numbers or lists of text.
    """

    name: str
    fields: Mapping[str, FieldValue]


class EmitEach(msgspec.Struct, frozen=True, gc=False):
    """One event of a name for each of several things that happened; `build` makes its fields when somebody looks."""

    name: str
    build: Callable[[Any], Mapping[str, FieldValue]]
    of: Sequence[object]

    def apart(self) -> Iterator[Emit]:
        return (Emit(self.name, self.build(each)) for each in self.of)


class Reject(msgspec.Struct, frozen=True, gc=False):
    """A packet was refused: counted by `reason`, logged once per reason and source in a while.

    `reason` is one of a fixed set of words ("bad-authentication", "replayed-nonce", "foreign-prefix", ...).
    """

    reason: str
    source: Endpoint
    detail: str = ""


Effect: TypeAlias = Send | Transmit | Emit | EmitEach | Reject
"""The effects that every daemon's driver performs."""
