"""What an agent tells its own data centre's tunnel router of a move: stopped, resumed, taken back. Pure.

A move message without records (the router knows the plan by the move's id), signed with the key that the two share, and
sent again by the round-trip time until it is answered. So the switch-over waits for no controller.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from fmcc.hypervisor import Happened, Kind
from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.core.exchanges import LONGEST_WAIT_S, RoundTrips
from lispfmc.core.retransmission import Retransmissions, Schedule
from lispfmc.wire.address import Endpoint
from lispfmc.wire.auth import Key, verify
from lispfmc.wire.messages import Message
from lispfmc.wire.moves import MoveMessage, MovePhase, Verdict

LED_BY_ROUTERS = frozenset({"lossless", "bicast"})
"""The schemes whose routers want to hear it from the hypervisor."""
MOST_MOVES = 1024  # a router that never answers must not fill the memory: the oldest is given up

TelEffect = Send | Emit | Reject


class _Told(msgspec.Struct, frozen=True, gc=False):
    move: str
    phase: MovePhase
    at: float


class Telling:
    """See the module. Of each move the newest phase alone is told."""

    def __init__(self, router: Endpoint, key: Key, nonces: Iterator[int]) -> None:
        self._router = router
        self._key = key
        self._nonces = nonces
        self._told: dict[int, _Told] = {}
        self._again: set[int] = set()
        self._sent: Retransmissions[int] = Retransmissions()
        self._round_trips = RoundTrips()

    def tell(self, happened: Happened, now: float) -> list[TelEffect]:
        """Say it, if the router has to know."""
        phase = phase_of(happened)
        if phase is None or happened.migration.scheme not in LED_BY_ROUTERS:
            return []
        move = happened.migration.move
        past = [nonce for nonce, one in self._told.items() if one.move == move]
        for nonce in past if len(self._told) < MOST_MOVES else [next(iter(self._told)), *past]:
            self._forget(nonce)
        nonce = next(self._nonces)
        self._told[nonce] = _Told(move, phase, now)
        message = MoveMessage.of(phase, nonce=nonce, move=int(move, 16), epoch=0)
        schedule = Schedule(first_s=self._round_trips.first_wait_s(self._router.ip), longest_s=LONGEST_WAIT_S)
        return [*self._sent.start(nonce, [Send(message, self._router, self._key)], schedule, now)]

    # --- as the driver runs it ----------------------------------------------------------------------------------------

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[TelEffect]:
        if not isinstance(message, MoveMessage) or not message.is_acknowledgement or source != self._router:
            return [Reject("unexpected-message", source, type(message).__name__)]
        if not verify(message, datagram, self._key):
            return [Reject("bad-authentication", source, "a move message")]
        told = self._told.get(message.nonce)
        if told is None or message.verdict == Verdict.BUSY or message.phase != told.phase:
            return []
        if message.nonce not in self._again:  # Karn: a repeated message does not say which copy was answered
            self._round_trips.learn(source.ip, now - told.at)
        self._forget(message.nonce)
        verdict = Verdict(message.verdict).name.lower() if message.verdict in list(Verdict) else str(message.verdict)
        fields = {"move": told.move, "phase": told.phase.name, "verdict": verdict}
        return [Emit("router.told", {**fields, "after_ms": round((now - told.at) * 1000, 3)})]

    def next_deadline(self) -> float | None:
        return self._sent.next()

    def expired(self, now: float) -> list[TelEffect]:
        due, _ = self._sent.expired(now)
        self._again.update(send.message.nonce for send in due if isinstance(send.message, MoveMessage))
        return [*due]

    def _forget(self, nonce: int) -> None:
        self._told.pop(nonce, None)
        self._again.discard(nonce)
        self._sent.acknowledged(nonce)


def phase_of(happened: Happened) -> MovePhase | None:
    """The phase that an event of the hypervisor means to the router where it happened."""
    match happened.kind:
        case Kind.STOPPED:
            return MovePhase.FREEZE
        case Kind.RESUMED:
            return MovePhase.ACTIVATE
        case Kind.FAILED if happened.runs_here:
            return MovePhase.ABORT
    return None
