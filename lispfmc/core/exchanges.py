"""Move messages that are sent again until they are answered, by the round-trip time of each peer.

What a role asks becomes messages with nonces and keys; answers become events. Pure: the time and the nonces come in.
An answer is found by its nonce, and counts only from the router that was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from lispfmc.core.effects import Send
from lispfmc.core.plans import Answered, Ask, Party, Plan
from lispfmc.core.retransmission import Retransmissions, Schedule
from lispfmc.wire.address import Endpoint, Ip
from lispfmc.wire.auth import Key
from lispfmc.wire.moves import MoveMessage, MovePhase, Verdict

LEAST_WAIT_S = 0.02
"""Before the first copy: twice the round-trip time, and at least this (a busy host answers late)."""
UNKNOWN_RTT_S = 0.1
LONGEST_WAIT_S = 5.0  # a router that was away is told within seconds of its return
MOST_RTTS = 1024  # peers whose round-trip time is remembered
MOST_OPEN = 65_536
PEER_TRIES = 20
"""Some 80 s. A peer that has not answered until then is told by the source's away entry, or asks the mapping system."""


class Open(msgspec.Struct, frozen=True, gc=False):
    """One exchange: whom we asked what, in which part of how many."""

    to: Party
    rloc: Ip
    phase: MovePhase
    plan: Plan
    part: int
    sent: float


class RoundTrips:
    """The smoothed round-trip time of each peer (RFC 6298 §2), from answers to first copies only (Karn)."""

    def __init__(self) -> None:
        self._known: dict[Ip, float] = {}

    def learn(self, rloc: Ip, rtt_s: float) -> None:
        before = self._known.pop(rloc, rtt_s)
        self._known[rloc] = before + (rtt_s - before) / 8
        if len(self._known) > MOST_RTTS:
            del self._known[next(iter(self._known))]

    def first_wait_s(self, rloc: Ip) -> float:
        return max(2 * self._known.get(rloc, UNKNOWN_RTT_S), LEAST_WAIT_S)


class Exchanges:
    """The open exchanges of one daemon."""

    def __init__(self, nonces: Iterator[int], key_of: Callable[[Ip], Key | None], port: int = 4342) -> None:
        self._nonces = nonces
        self._key_of = key_of
        self._port = port
        self._open: dict[int, Open] = {}
        self._again: set[int] = set()
        self._sent: Retransmissions[int] = Retransmissions()
        self.round_trips = RoundTrips()

    def ask(self, ask: Ask, rlocs: Sequence[Ip], now: float) -> list[Send]:
        """Tell each of `rlocs`; whoever shares no key with us is left out."""
        return [
            send
            for rloc in rlocs
            for send in self._start(ask, rloc, 1, lambda nonce: ask.plan.message(ask.phase, nonce), now)
        ]

    def tell_parts(self, ask: Ask, rloc: Ip, parts: Sequence[Callable[[int], MoveMessage]], now: float) -> list[Send]:
        """Tell `rloc` in several messages, each acknowledged for itself."""
        return [send for number, make in enumerate(parts, 1) for send in self._start(ask, rloc, number, make, now)]

    def settle(self, plan: Plan) -> None:
        """Nobody needs to answer about this move any more; who talks to its EIDs, the target must still learn."""
        past = [nonce for nonce, one in self._open.items() if one.plan.move == plan.move]
        for nonce in [nonce for nonce in past if self._open[nonce].phase is not MovePhase.PEERS]:
            self._forget(nonce)

    def answered(self, message: MoveMessage, source: Ip, now: float) -> Answered | None:
        """An authenticated acknowledgement: the event that it is, or None when it says nothing new."""
        one = self._open.get(message.nonce)
        if one is None or one.rloc != source or (one.phase, one.plan.epoch) != (message.phase, message.epoch):
            return None
        try:
            verdict = Verdict(message.verdict)
        except ValueError:
            return None
        if verdict is Verdict.BUSY:
            return None  # asked again later
        again = message.nonce in self._again
        if not again:
            self.round_trips.learn(source, now - one.sent)
        self._forget(message.nonce)
        return Answered(one.to, one.phase, one.plan, verdict, again)

    def next_deadline(self) -> float | None:
        return self._sent.next()

    def expired(self, now: float) -> list[Send]:
        """What to send again."""
        due, given_up = self._sent.expired(now)
        self._again.update(send.message.nonce for send in due if isinstance(send.message, MoveMessage))
        for nonce in given_up:
            self._forget(nonce)
        return due

    def __len__(self) -> int:
        return len(self._open)

    def _start(self, ask: Ask, rloc: Ip, part: int, make: Callable[[int], MoveMessage], now: float) -> list[Send]:
        key = self._key_of(rloc)
        if key is None or len(self._open) >= MOST_OPEN:
            return []
        for nonce, one in list(self._open.items()):
            if (one.rloc, one.phase, one.plan, one.part) == (rloc, ask.phase, ask.plan, part):
                self._forget(nonce)  # the newest copy alone is repeated
        nonce = next(self._nonces)
        self._open[nonce] = Open(ask.to, rloc, ask.phase, ask.plan, part, now)
        # the two sites decide about the service: they are asked until they answer; peers only take the longer way
        tries = PEER_TRIES if Party.PEERS is ask.to or ask.phase is MovePhase.PEERS else None
        schedule = Schedule(first_s=self.round_trips.first_wait_s(rloc), longest_s=LONGEST_WAIT_S, tries=tries)
        return self._sent.start(nonce, [Send(make(nonce), Endpoint(rloc, self._port), key)], schedule, now)

    def _forget(self, nonce: int) -> None:
        self._open.pop(nonce, None)
        self._again.discard(nonce)
        self._sent.acknowledged(nonce)
