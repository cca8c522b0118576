"""What an agent tells its own data centre's tunnel router of a move: stopped, resumed, taken back. Pure.

A move message, signed with the key that the two share, and sent again by the round-trip time until it is answered. So
the switch-over waits for no controller. Where the routers have been prepared it has no records, they know the plan by
the move's id; in change priority they have not, and it names the machine's EIDs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from fmcc.hypervisor import Happened, Kind
from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.core.exchanges import LONGEST_WAIT_S, RoundTrips
from lispfmc.core.plans import TTL_MINUTES
from lispfmc.core.retransmission import Retransmissions, Schedule
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.auth import Key, verify
from lispfmc.wire.messages import EidRecord, Message
from lispfmc.wire.moves import MoveMessage, MovePhase, Verdict

TOLD: Mapping[str, frozenset[MovePhase]] = {
    "lossless": frozenset({MovePhase.FREEZE, MovePhase.ACTIVATE, MovePhase.ABORT}),
    "bicast": frozenset({MovePhase.ACTIVATE, MovePhase.ABORT}),  # it needs no word of STOP, and shows so
    "cp": frozenset({MovePhase.ACTIVATE}),
}
"""What the routers want to hear from the hypervisor, by scheme."""
NAMES_EIDS = frozenset({"cp"})
"""The schemes in which the router has not heard of the move before."""
UNREAD_NS = 40_000_000
"""Of a real machine: packets lie in its tap's queue until the guest, busy with its own migration, takes them, and
stay behind. 35 ms were seen with QEMU under emulation; what is sent again needlessly comes twice."""
MOST_MOVES = 1024  # a router that never answers must not fill the memory: the oldest is given up

TelEffect = Send | Emit | Reject


class _Told(msgspec.Struct, frozen=True, gc=False):
    move: str
    phase: MovePhase
    at: float


class Telling:
    """See the module. Of each move the newest phase alone is told."""

    def __init__(
        self,
        router: Endpoint,
        key: Key,
        nonces: Iterator[int],
        eids: Mapping[str, tuple[Prefix, ...]] | None = None,
        *,
        emulated: bool = True,
    ) -> None:
        """`eids`: those of each machine. One that is not `emulated` may not have read all before its STOP."""
        self._eids = eids or {}
        self._unread_ns = 0 if emulated else UNREAD_NS
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
        scheme = happened.migration.scheme
        if phase is None or phase not in TOLD.get(scheme, ()):
            return []
        move = happened.migration.move
        past = [nonce for nonce, one in self._told.items() if one.move == move]
        for nonce in past if len(self._told) < MOST_MOVES else [next(iter(self._told)), *past]:
            self._forget(nonce)
        nonce = next(self._nonces)
        self._told[nonce] = _Told(move, phase, now)
        eids = self._eids.get(happened.migration.machine, ()) if scheme in NAMES_EIDS else ()
        records = [EidRecord.of(eid, ttl_minutes=TTL_MINUTES) for eid in eids]
        # the instant, not how long ago: it holds for every copy, and the router is on this host
        stopped_ns = happened.at_ns - self._unread_ns if phase is MovePhase.FREEZE else 0
        message = MoveMessage.of(phase, *records, nonce=nonce, move=int(move, 16), epoch=0, stopped_ns=stopped_ns)
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
