"""Map-Notifies that wait for a Map-Notify-Ack: moves told to displaced xTRs, publications told to subscribers.

An acknowledgement is found by its nonce and counts only when the key of that very exchange signed it (RFC 9301 §5.7).
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from lispfmc.core.effects import Send
from lispfmc.core.registry import Owner
from lispfmc.core.retransmission import Retransmissions, Schedule
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.auth import verify
from lispfmc.wire.messages import MapNotifyAck

WAITING = 262_144  # a storm of moves while xTRs do not answer; beyond it a notice is sent once and not again


class Move(msgspec.Struct, frozen=True, gc=False):
    """The xTR `owner` is told that `eid` moved away from it."""

    eid: Prefix
    owner: Owner


class Publication(msgspec.Struct, frozen=True, gc=False):
    """The subscriber's last Map-Notify about its subscription to `eid`."""

    eid: Prefix
    xtr_id: bytes


Notice: TypeAlias = Move | Publication


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """What an acknowledgement ends, and how long that took."""

    notice: Notice
    after_s: float


class Notices:
    """The exchanges by notice and by nonce."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._waiting: Retransmissions[Notice] = Retransmissions()
        self._by_nonce: dict[int, list[Notice]] = {}
        self._started: dict[Notice, tuple[int, float]] = {}  # nonce, time of the first transmission
        self._left: dict[Prefix, set[Owner]] = {}  # who is being told of a move

    def start(self, notice: Notice, send: Send, now: float) -> list[Send]:
        """Begin, in place of what was told before; returns what to send now."""
        self.cancel(notice)
        if len(self._started) >= WAITING:
            return [send]
        nonce = _nonce(send)
        self._by_nonce.setdefault(nonce, []).append(notice)
        self._started[notice] = nonce, now
        if isinstance(notice, Move):
            self._left.setdefault(notice.eid, set()).add(notice.owner)
        return self._waiting.start(notice, [send], self._schedule, now)

    def pending(self, notice: Notice) -> Send | None:
        """What is being told, if it is."""
        return next(iter(self._waiting.sends(notice)), None)

    def acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint, now: float) -> Delivered | str | None:
        """What `ack` ended; the reason why it is refused; None when nothing waits for it (a repeated one)."""
        waiting = self._by_nonce.get(ack.nonce)
        if waiting is None:
            return None
        # two exchanges may share a nonce, each subscriber brings its own: the addressee's comes first
        for notice in sorted(waiting, key=lambda notice: self._to(notice) != source.ip):
            send = self.pending(notice)
            if send is not None and send.key is not None and verify(ack, datagram, send.key):
                started = self._started[notice][1]
                self.cancel(notice)
                return Delivered(notice, now - started)
        return "bad-authentication"

    def cancel(self, notice: Notice) -> None:
        """Stop telling it; no error when it was not told."""
        self._waiting.acknowledged(notice)
        self._forget(notice)

    def settle(self, eid: Prefix, owner: Owner | None) -> None:
        """Nobody tells an xTR that the EID moved away once it is back there; and nobody anybody once it is gone."""
        left = self._left.get(eid, ())
        for each in [each for each in left if owner in (None, each)]:
            self.cancel(Move(eid, each))

    def next_deadline(self) -> float | None:
        return self._waiting.next()

    def expired(self, now: float) -> tuple[list[Send], list[Notice]]:
        """What to send again, and what was never acknowledged."""
        due, given_up = self._waiting.expired(now)
        for notice in given_up:
            self._forget(notice)
        return due, given_up

    def __contains__(self, notice: Notice) -> bool:
        return notice in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def _to(self, notice: Notice) -> bytes:
        send = self.pending(notice)
        return send.to.ip if send else b""

    def _forget(self, notice: Notice) -> None:
        started = self._started.pop(notice, None)
        if started is None:
            return
        same = self._by_nonce[started[0]]
        same.remove(notice)
        if not same:
            del self._by_nonce[started[0]]
        if isinstance(notice, Move):
            left = self._left[notice.eid]
            left.discard(notice.owner)
            if not left:
                del self._left[notice.eid]


def _nonce(send: Send) -> int:
    nonce: int = getattr(send.message, "nonce", 0)
    return nonce
