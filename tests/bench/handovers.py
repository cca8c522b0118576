"""Handovers through the whole controller but its socket: a signed publication in; an acknowledgement, a decision and,
where the service follows, the work for the agents out.

Run in a process of its own (`python -m tests.bench.handovers USERS`): it also says what a known user costs in memory.
"""

from __future__ import annotations

import gc
import itertools
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence

from fmcc.controller import Controller
from fmcc.effects import FmccEffect, PrepareMigration
from fmcc.policy.registry import make
from fmcc.policy.rules import ClassRules, Rules
from fmcc.steering.lisp import Fig9
from fmcc.world import DataCenter, Service, User, World
from lispfmc.runtime import logs
from lispfmc.runtime.config import LogSettings
from lispfmc.runtime.driver import Driver
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.rejects import Rejects
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import EidRecord, Locator, MapNotify

KEY = Key(4, b"pubsub")
MAPSERVER = Endpoint(ip_of("198.18.0.1"), 4342)
ACCESS, CENTRES = ("access1", "access2"), ("dc1", "dc2", "dc3")
SITES = {name: (ip_of(f"198.18.0.{11 + number}"),) for number, name in enumerate((*ACCESS, *CENTRES))}
RANGES = (Prefix.parse("100.64.0.0/10"), Prefix.parse("10.0.0.0/8"))
NEAR_MS, FAR_MS = 5.0, 100.0
BATCH = 20_000


def world(users: int, *, acts: bool, services: bool = True) -> World:
    """Every user has a service; where access1's user is served best by dc1, access2's is by dc2."""
    names = [f"user{number}" for number in range(users)]
    rtts = {frozenset((access, centre)): FAR_MS for access in ACCESS for centre in CENTRES}
    rtts |= {frozenset(("access1", "dc1")): NEAR_MS, frozenset(("access2", "dc2")): NEAR_MS}
    return World(
        rlocs=(ip_of("198.18.0.2"),),
        xtr_id=bytes(16),
        map_server=MAPSERVER,
        map_server_key=KEY,
        sites=dict(SITES),
        datacenters={name: DataCenter(name, Key(3, name.encode())) for name in CENTRES},
        users={name: User(name, (user_eid(number),)) for number, name in enumerate(names)},
        services={
            f"app{number}": Service(f"app{number}", name, (service_eid(number),), "dc1", CENTRES)
            for number, name in enumerate(names)
            if services
        },
        ranges=RANGES,
        rtts_ms=rtts,
        acts=acts,
    )


def user_eid(number: int) -> Prefix:
    return Prefix(0, (0x64400000 + number).to_bytes(4, "big"), 32)


def service_eid(number: int) -> Prefix:
    return Prefix(0, (0x0A000000 + number).to_bytes(4, "big"), 32)


class Rig:
    """The controller with its driver; what it sends is counted, what it asks of the agents is kept."""

    def __init__(self, described: World, policy: str) -> None:
        self.nonces = itertools.count(1 << 40)
        steering = Fig9(described.sites, described.datacenters, self.nonces)
        rules = Rules(ClassRules(make(policy)))
        self.controller = Controller(described, rules, steering, self.nonces)
        self.events = EventLog()
        self.asked: list[FmccEffect] = []
        self.sent = 0
        self.driver: Driver[FmccEffect] = Driver(
            self.controller,
            perform=self.asked.append,
            send=self._send,
            events=self.events,
            rejects=Rejects(),
            strict=True,
        )
        self._subscribe()

    def _send(self, data: bytes, to: Endpoint) -> None:
        self.sent += 1

    def _subscribe(self) -> None:
        """The Map-Server confirms every subscription."""
        for send in self.controller.subscriber.expired(0.0):
            request = send.message.message  # type: ignore[union-attr]
            (asked,) = request.records  # type: ignore[union-attr]
            record = EidRecord(1, asked.mask_length, 0, 0, asked.eid, ())
            self.driver.datagram(sign(MapNotify.of(record, nonce=request.nonce), KEY), MAPSERVER)  # type: ignore[union-attr]

    def forget_changes(self) -> None:
        """As if they had been written down."""
        changes = self.controller.changes
        changes.users, changes.services = {}, {}
        changes.moves.clear()
        changes.decisions.clear()

    def publications(self, users: Sequence[int], site: str) -> list[bytes]:
        """Those that say that these users are at `site` now."""
        return [self._publication(user_eid(number), site) for number in users]

    def placements(self, users: Sequence[int]) -> Iterator[bytes]:
        for number in users:
            yield self._publication(service_eid(number), "dc1")

    def _publication(self, eid: Prefix, site: str) -> bytes:
        record = EidRecord.of(eid, [Locator.of(SITES[site][0])], ttl_minutes=1440)
        return sign(MapNotify.of(record, nonce=next(self.nonces)), KEY)

    def take(self, datagrams: Sequence[bytes]) -> float:
        """CPU seconds for all of them."""
        take, source = self.driver.datagram, MAPSERVER
        began = time.process_time()
        for datagram in datagrams:
            take(datagram, source)
        return time.process_time() - began

    def each(self, datagrams: Sequence[bytes]) -> tuple[list[float], list[float]]:
        """Milliseconds of each, by the clock and of CPU, from the socket's callback to the last effect performed; both
        in order. What a neighbour takes of the processor is in the first only."""
        took, used = [], []
        for datagram in datagrams:
            began, cpu = time.perf_counter(), time.thread_time()
            self.driver.datagram(datagram, MAPSERVER)
            used.append((time.thread_time() - cpu) * 1e3)
            took.append((time.perf_counter() - began) * 1e3)
        return sorted(took), sorted(used)


def run(users: int = 100_000, *, policy: str = "mdp") -> dict[str, object]:
    """What a keeper of history would take is let go, as it would."""
    logs.configure(LogSettings(level="error"))
    rig, whole = _known(users, policy, services=True)
    _, alone = _known(users, policy, services=False)
    gc.collect()
    gc.freeze()  # as the daemon does once it is up
    size = min(BATCH, users // 4)
    batches = [range(start, start + size) for start in range(0, users, size)]
    took, used = rig.each(rig.publications(batches[0], "access2"))
    prepared = sum(isinstance(effect, PrepareMigration) for effect in rig.asked)
    following = [rig.take(rig.publications(batch, "access2")) for batch in batches[1:]]
    rig.asked.clear()
    rig = _known(users, policy, services=True, acts=False)[0]
    staying = [rig.take(rig.publications(batch, "access2")) for batch in batches]
    return {
        "users": users,
        "policy": policy,
        "decision_p50_ms": round(took[len(took) // 2], 4),
        "decision_p99_ms": round(took[int(len(took) * 0.99)], 4),
        "decision_max_ms": round(took[-1], 4),
        "decision_p99_cpu_ms": round(used[int(len(used) * 0.99)], 4),
        "decision_max_cpu_ms": round(used[-1], 4),
        "prepared": prepared,
        "handovers_per_s": round(size / min(staying)),
        "handovers_followed_per_s": round(size / min(following)),
        "bytes_per_user": round(alone),
        "bytes_per_user_with_service": round(whole),
    }


def _known(users: int, policy: str, *, services: bool, acts: bool = True) -> tuple[Rig, float]:
    """A controller that has heard of everybody, and what each takes in memory."""
    gc.collect()
    before = _resident()
    rig = Rig(world(users, acts=acts, services=services), policy)
    for start in range(0, users, 1000):
        some = range(start, min(start + 1000, users))
        rig.take([*(rig.placements(some) if services else ()), *rig.publications(some, "access1")])
        rig.forget_changes()
    gc.collect()
    return rig, (_resident() - before) / users


def _resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - no file to speak of
        return int(statm.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(int(sys.argv[1]))) + "\n")
