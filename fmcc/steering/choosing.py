"""Several schemes side by side: each move is led by the one that it names.

To the controller they are one `Steering`. A scheme is made when a move first names it; an acknowledgement belongs to
the scheme that awaits it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from fmcc.steering import News, Outcome, Redirect, Repeated, Steering
from fmcc.steering.lead import Lead
from fmcc.world import World
from lispfmc.core.effects import Reject, Send
from lispfmc.wire.address import Endpoint
from lispfmc.wire.messages import MapNotifyAck
from lispfmc.wire.moves import MoveMessage

Make: TypeAlias = Callable[[World, Iterator[int]], Steering]

LEADING = "lossless"
"""The scheme whose leads outlive a restart: no other remembers anything."""


class Schemes:
    """See the module. Bounded by the table of schemes."""

    def __init__(self, default: str, schemes: Mapping[str, Make], world: World, nonces: Iterator[int]) -> None:
        self.scheme = default
        self._schemes = schemes
        self._world = world
        self._nonces = nonces
        self._made: dict[Make, Steering] = {}  # names that share a factory share the scheme

    def prepare(self, redirect: Redirect, now: float) -> list[Send]:
        return self._of(redirect).prepare(redirect, now)

    def freeze(self, redirect: Redirect, now: float) -> list[Send]:
        return self._of(redirect).freeze(redirect, now)

    def activate(self, redirect: Redirect, now: float) -> list[Send]:
        return self._of(redirect).activate(redirect, now)

    def commit(self, redirect: Redirect, now: float) -> list[Send]:
        return self._of(redirect).commit(redirect, now)

    def abort(self, redirect: Redirect, now: float) -> list[Send]:
        return self._of(redirect).abort(redirect, now)

    def acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint) -> Outcome:
        outcomes = [scheme.acknowledged(ack, datagram, source) for scheme in self._made.values()]
        none: Outcome = Reject("unexpected-ack", source, "no scheme in use sends Map-Notifies")
        wanted = (each for each in outcomes if not isinstance(each, Reject | Repeated))
        return next(wanted, next((each for each in outcomes if isinstance(each, Repeated)), (outcomes or [none])[0]))

    def answered(self, message: MoveMessage, datagram: bytes, source: Endpoint, now: float) -> list[Send] | Reject:
        sends: list[Send] = []
        refused: Reject | None = Reject("unexpected-message", source, "a move message")
        for scheme in self._made.values():
            answer = scheme.answered(message, datagram, source, now)
            if isinstance(answer, Reject):
                refused = answer if refused is not None else None
            else:
                refused = None
                sends += answer
        return refused if refused is not None else sends

    def drained(self) -> list[News]:
        return [news for scheme in self._made.values() for news in scheme.drained()]

    def busy(self, service: str) -> str:
        return next((why for scheme in self._made.values() if (why := scheme.busy(service))), "")

    def lead(self, service: str) -> Lead | None:
        """Also after a move by another scheme: its epoch is never used again."""
        leads = (scheme.lead(service) for scheme in self._made.values())
        return next((lead for lead in leads if lead is not None), None)

    def restored(self, leads: Mapping[str, Lead], now: float) -> list[Send]:
        return self._named(LEADING).restored(leads, now)

    def next_deadline(self) -> float | None:
        deadlines = (scheme.next_deadline() for scheme in self._made.values())
        return min((at for at in deadlines if at is not None), default=None)

    def expired(self, now: float) -> list[Send]:
        return [send for scheme in self._made.values() for send in scheme.expired(now)]

    def _of(self, redirect: Redirect) -> Steering:
        return self._named(redirect.scheme or self.scheme)

    def _named(self, name: str) -> Steering:
        make = self._schemes[name]
        if make not in self._made:
            self._made[make] = make(self._world, self._nonces)
        return self._made[make]
