"""Map-Notifies that wait for a Map-Notify-Ack: moves told to displaced xTRs, publications told to subscribers.

An acknowledgement is found by its nonce and counts only when the key of that very exchange signed it (RFC 9301 §5.7).
The first repetition waits for the addressee's round-trip time, not for the 3 s of RFC 9301: a lost one costs no more.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import TypeAlias

import msgspec

from lispfmc.core.effects import Send
from lispfmc.core.registry import Owner
from lispfmc.core.retransmission import Retransmissions, Schedule
from lispfmc.core.roundtrips import RoundTrips
from lispfmc.core.subscriptions import Subscription
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.auth import verify
from lispfmc.wire.messages import MapNotifyAck

WAITING = 262_144  # a storm of moves while xTRs do not answer; beyond it a notice is sent once and not again
SAME_NONCE = 16  # exchanges with one nonce whose keys an acknowledgement from an unexpected address is tried with


class Move(msgspec.Struct, frozen=True, gc=False):
    """The xTR `owner` is told that `eid` moved away from it."""

    eid: Prefix
    owner: Owner


Notice: TypeAlias = Move | Subscription
"""What is told: a move, or a subscription's last Map-Notify."""


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """What an acknowledgement ends, and how long that took."""

    notice: Notice
    after_s: float


class _Told(msgspec.Struct, frozen=True, gc=False):
    nonce: int
    to: Ip
    at: float


class Notices:
    """The exchanges by notice, and by nonce and addressee."""

    def __init__(self, schedule: Schedule, roundtrips: RoundTrips) -> None:
        self._schedule = schedule
        self._roundtrips = roundtrips
        self._waiting: Retransmissions[Notice] = Retransmissions()
        self._by_nonce: dict[int, dict[Ip, list[Notice]]] = {}
        self._told: dict[Notice, _Told] = {}
        self._left: dict[Prefix, set[Owner]] = {}  # who is being told of a move

    def start(self, notice: Notice, send: Send, now: float) -> list[Send]:
        """Begin, in place of what was told before; returns what to send now."""
        if notice in self._told:
            self.cancel(notice)
        if len(self._told) >= WAITING:
            return [send]
        told = self._told[notice] = _Told(_nonce(send), send.to.ip, now)
        self._by_nonce.setdefault(told.nonce, {}).setdefault(told.to, []).append(notice)
        if isinstance(notice, Move):
            self._left.setdefault(notice.eid, set()).add(notice.owner)
        first_s = self._roundtrips.timeout_s(told.to)
        schedule = Schedule(first_s, self._schedule.longest_s, self._schedule.tries)
        return self._waiting.start(notice, [send], schedule, now)

    def pending(self, notice: Notice) -> Send | None:
        """What is being told, if it is."""
        return next(iter(self._waiting.sends(notice)), None)

    def acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint, now: float) -> Delivered | str | None:
        """What `ack` ended; the reason why it is refused; None when nothing waits for it (a repeated one)."""
        by_addressee = self._by_nonce.get(ack.nonce)
        if by_addressee is None:
            return None
        # two exchanges may share a nonce, each subscriber brings its own: the addressee's comes first
        others = (each for ip, waiting in by_addressee.items() if ip != source.ip for each in waiting)
        for notice in (*by_addressee.get(source.ip, ()), *islice(others, SAME_NONCE)):
            send = self.pending(notice)
            if send is not None and send.key is not None and verify(ack, datagram, send.key):
                return self._delivered(notice, now)
        return "bad-authentication"

    def _delivered(self, notice: Notice, now: float) -> Delivered:
        told = self._told[notice]
        if self._waiting.transmissions(notice) == 1:
            self._roundtrips.measured(told.to, now - told.at)
        self.cancel(notice)
        return Delivered(notice, now - told.at)

    def cancel(self, notice: Notice) -> None:
        """Stop telling it; no error when it was not told."""
        self._waiting.acknowledged(notice)
        self._forget(notice)

    def settle(self, eid: Prefix, owner: Owner | None) -> None:
        """Nobody tells an xTR that the EID moved away once it is back there; and nobody anybody once it is gone."""
        left = self._left.get(eid, ())
        for each in [each for each in left if owner in (None, each)]:
            self.cancel(Move(eid, each))

    @property
    def moved(self) -> Collection[Prefix]:
        """The EIDs of which xTRs are being told that they moved."""
        return self._left.keys()

    @property
    def oldest(self) -> float | None:
        """Since when the oldest of them has waited; None when none does."""
        told = next(iter(self._told.values()), None)
        return None if told is None else told.at

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

    def _forget(self, notice: Notice) -> None:
        told = self._told.pop(notice, None)
        if told is None:
            return
        by_addressee = self._by_nonce[told.nonce]
        same = by_addressee[told.to]
        same.remove(notice)
        if not same:
            del by_addressee[told.to]
            if not by_addressee:
                del self._by_nonce[told.nonce]
        if isinstance(notice, Move):
            left = self._left[notice.eid]
            left.discard(notice.owner)
            if not left:
                del self._left[notice.eid]


def _nonce(send: Send) -> int:
    nonce: int = getattr(send.message, "nonce", 0)
    return nonce
