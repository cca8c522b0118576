"""Which locators answer, and how fast: RLOC-probing (RFC 9301 §7).

A Map-Request with the P-bit goes straight to each locator of the map-cache, now and then; three in a row without an
answer mean that it is down. A locator that is down is used only when a mapping has no other, so a peer that answers no
probes is never cut off. The answer carries the peer's current mapping, and its round-trip time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_text
from lispfmc.wire.messages import MapReply, MapRequest, RequestRecord
from xtr.effects import XtrEffect
from xtr.settings import XtrSettings

CONTROL_PORT = 4342
RETRY_S = 1.0
LOST = 3  # unanswered probes that mean "down"
SMOOTHING = 0.125  # RFC 6298 §2.3: the weight of a new round-trip time


class _Target(msgspec.Struct, frozen=True, gc=False):
    """One locator that is being probed. `probes` are nonce and time of those that may still be answered."""

    probes: tuple[tuple[int, float], ...] = ()
    unanswered: int = 0
    down: bool = False
    rtt_s: float | None = None
    last_s: float | None = None
    """The last round-trip time as it was measured, and when that was."""
    at: float = 0.0


class Locators:
    """The locators in use, and those whose distance is wanted. `behind` names an EID-Prefix that has the locator, or
    None when none has it any more."""

    def __init__(self, settings: XtrSettings, nonces: Iterator[int], behind: Callable[[Ip], Prefix | None]) -> None:
        self._rlocs = settings.rlocs
        self._ours = frozenset(settings.rlocs)
        self._sizes = frozenset(len(rloc) for rloc in settings.rlocs)
        self._period_s = settings.timers.rloc_probe_s
        self._most = settings.limits.rlocs_probed if self._period_s else 0
        self._nonces = nonces
        self._behind = behind
        self._watched = {
            each.rloc: settings.placed(each.prefix)
            for each in settings.distances.targets
            if len(each.rloc) in self._sizes and each.rloc not in self._ours
        }
        self._watch_s = settings.distances.probe_s
        self._targets: dict[Ip, _Target] = {}
        self._asked: dict[int, Ip] = {}
        self._due: Deadlines[Ip] = Deadlines()
        self.down: set[Ip] = set()
        for rloc in self._watched:
            self._targets[rloc] = _Target()
            self._due.set(rloc, 0.0)

    def learned(self, rlocs: Iterable[Ip], now: float) -> None:
        """A mapping with these locators is in use."""
        for rloc in rlocs:
            known = rloc in self._targets or rloc in self._ours or len(rloc) not in self._sizes
            if not known and len(self._targets) < self._most:
                self._targets[rloc] = _Target()
                self._due.set(rloc, now + RETRY_S * _jitter(next(self._nonces)))

    def answered(self, reply: MapReply, source: Endpoint, now: float) -> tuple[Ip, list[XtrEffect]] | Reject:
        """The answer to a probe: whose it is, and what it changed."""
        rloc = self._asked.get(reply.nonce)
        if rloc is None or source.ip != rloc:
            return Reject("unasked-reply", source, f"probe {reply.nonce:016x}")
        if not reply.records or not all(record.authoritative for record in reply.records):
            return Reject("not-authoritative", source)  # RFC 9301 §5.4: silently discarded
        before = self._targets[rloc]
        took_s = now - dict(before.probes)[reply.nonce]
        self._unask(before)
        rtt_s = took_s if before.rtt_s is None else before.rtt_s + SMOOTHING * (took_s - before.rtt_s)
        self._targets[rloc] = _Target(rtt_s=rtt_s, last_s=took_s, at=now)
        self._due.set(rloc, now + self._every_s(rloc) * _jitter(reply.nonce))
        if not before.down:
            return rloc, []
        self.down.discard(rloc)
        return rloc, [Emit("locator.up", {"rloc": ip_text(rloc), "rtt_ms": round(rtt_s * 1000, 3)})]

    def next_deadline(self) -> float | None:
        return self._due.next()

    def expired(self, now: float) -> tuple[list[XtrEffect], list[Ip]]:
        """The probes that are due, and the locators that have gone down."""
        effects: list[XtrEffect] = []
        lost: list[Ip] = []
        for rloc in list(self._due.pop_expired(now)):
            target, eid = self._targets[rloc], self._behind(rloc) or self._watched.get(rloc)
            if eid is None:  # no mapping names it any more
                self._unask(target)
                del self._targets[rloc]
                self.down.discard(rloc)
                continue
            if target.unanswered >= LOST and not target.down:
                target = msgspec.structs.replace(target, down=True)
                self.down.add(rloc)
                lost.append(rloc)
                effects.append(Emit("locator.down", {"rloc": ip_text(rloc), "unanswered": target.unanswered}))
            effects.append(self._probe(rloc, eid, target, now))
        return effects, lost

    def rtt_s(self, rloc: Ip) -> float | None:
        target = self._targets.get(rloc)
        return target.rtt_s if target else None

    def measured(self) -> dict[Ip, tuple[float, float]]:
        """The last round-trip time of every locator that answers, and when it was measured."""
        return {
            rloc: (target.last_s, target.at)
            for rloc, target in self._targets.items()
            if target.last_s is not None and not target.down
        }

    def _every_s(self, rloc: Ip) -> float:
        return self._watch_s if rloc in self._watched else self._period_s

    def _probe(self, rloc: Ip, eid: Prefix, target: _Target, now: float) -> Send:
        nonce = next(self._nonces)
        unanswered = min(target.unanswered + 1, LOST + 1)
        kept = target.probes[-LOST:]
        for old, _ in target.probes[:-LOST]:
            self._asked.pop(old, None)
        self._targets[rloc] = msgspec.structs.replace(target, probes=(*kept, (nonce, now)), unanswered=unanswered)
        self._asked[nonce] = rloc
        self._due.set(rloc, now + (self._every_s(rloc) * _jitter(nonce) if unanswered > LOST else RETRY_S))
        # RFC 9301 §5.3: a probe has no Source-EID, and goes to the locator itself, not into an ECM
        request = MapRequest.of(RequestRecord.of(eid), nonce=nonce, itr_rlocs=self._rlocs, probe=True)
        return Send(request, Endpoint(rloc, CONTROL_PORT))

    def _unask(self, target: _Target) -> None:
        for nonce, _ in target.probes:
            self._asked.pop(nonce, None)


def _jitter(nonce: int) -> float:
    """0.75 to 1.25, so that xTRs that started together do not probe together."""
    return 0.75 + (nonce & 0xFFFF) / 0x1FFFF
