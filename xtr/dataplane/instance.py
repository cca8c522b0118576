"""One Instance-ID of the TUN plane: its tables, what waits in it, and the rules of whose packets it takes.

Instances share sockets, counters and limits (`Shared`) and nothing else: a destination is looked up among the entries
of the Instance-ID that the packet belongs to, by the interface that it came in by or by the data header.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from lispfmc.wire.address import Ip, Prefix
from lispfmc.wire.encap import header
from xtr.dataplane import Evidence
from xtr.dataplane.holding import Room
from xtr.dataplane.outer import Outer
from xtr.dataplane.tables import Budget, ForwardingTable, Held, OnceInAWhile, Talkers, Waiting
from xtr.effects import Drop, Forward, Forwarding, Hop, Native
from xtr.settings import XtrSettings

if TYPE_CHECKING:
    from xtr.dataplane.handover import Handover
    from xtr.dataplane.moving import Moving

SLOTS = 32  # a mapping's locators, each as often as its weight says
SHARED_PATHS = 4096  # locator sets that mappings share; the network fills it, and starts it anew
EVIDENCE_SECONDS = 1.0  # one report a second for each source or sender is evidence enough
MISSES_PER_S = 1000.0  # destinations reported as missing; the rest of a flood is dropped before it costs more


class Path:
    """One locator of a mapping, and the local RLOC that leads to it."""

    __slots__ = ("outer", "rloc")

    def __init__(self, rloc: Ip, outer: Outer) -> None:
        self.rloc = rloc
        self.outer = outer


class Entry:
    """What happens to a destination's packets: paths by flow hash, or a reason to drop them."""

    __slots__ = ("away", "dropped", "local", "native", "paths", "replicas", "sink", "used")

    def __init__(
        self,
        paths: tuple[Path, ...] = (),
        *,
        away: bool = False,
        dropped: str = "",
        local: bool = False,
        native: bool = False,
    ) -> None:
        """`local`: the mapping names us, so the host is to be delivered here as soon as it shows itself."""
        self.paths = paths
        self.away = away
        self.dropped = dropped
        self.local = local
        self.native = native
        self.sink = False
        """What comes for it by a tunnel is dropped."""
        self.replicas: tuple[Path, ...] = ()
        """Each packet goes to all of these, and `paths` is not looked at."""
        self.used: float | None = None


class Shared:
    """What the Instance-IDs of one plane have in common."""

    def __init__(
        self, settings: XtrSettings, now: Callable[[], float], punted: Callable[[bytes], None] | None = None
    ) -> None:
        self.now = now
        self.punted = punted
        self.rlocs = frozenset(settings.rlocs)
        self.versioned = settings.dataplane.map_versioning
        self.replay_s = settings.dataplane.replay_ms / 1000
        self.hold_bytes = settings.dataplane.hold_bytes
        self.room = Room(settings.limits.held_mib << 20)
        self.count: Counter[str] = Counter()
        self.outers: dict[int, Outer] = {}
        """The one to send by, for each address size."""
        self.misses = Budget(MISSES_PER_S)
        self.limit = OnceInAWhile(EVIDENCE_SECONDS)
        self.evidence: Evidence
        self.moving: Moving
        self._shared_entries: dict[Forwarding, Entry] = {}
        self._shared_paths: dict[tuple[Hop, ...], tuple[Path, ...]] = {}

    def entry(self, forwarding: Forwarding) -> Entry:
        """What the packet path reads for it. Beside a kernel plane, which knows when entries are used, all that are
        alike share one."""
        if self.punted is None:
            return self._entry(forwarding)
        known = self._shared_entries.get(forwarding)
        if known is None:
            if len(self._shared_entries) >= SHARED_PATHS:
                self._shared_entries.clear()
            known = self._shared_entries[forwarding] = self._entry(forwarding)
        return known

    def _entry(self, forwarding: Forwarding) -> Entry:
        match forwarding:
            case Native():
                return Entry(native=True)
            case Drop(native=native):
                return Entry(dropped="dropped.native" if native else "dropped.negative")
            case Forward(hops=hops, away=away, replicate=replicate, sink=sink):
                if any(hop.rloc in self.rlocs for hop in hops):
                    return Entry(local=True)  # encapsulating to ourselves would go round in circles
                usable = [hop for hop in hops if len(hop.rloc) in self.outers]
        entry = Entry(self._paths(tuple(usable)), away=away, dropped="dropped.no-locator")
        entry.sink = sink
        if replicate and len(usable) > 1:
            entry.replicas = tuple(Path(hop.rloc, self.outers[len(hop.rloc)]) for hop in usable)
        return entry

    def _paths(self, usable: tuple[Hop, ...]) -> tuple[Path, ...]:
        """One for each slot of the flow hash. Mappings with the same locators share them."""
        known = self._shared_paths.get(usable)
        if known is not None:
            return known
        total = sum(hop.weight for hop in usable)
        paths: list[Path] = []
        for hop in usable:
            # RFC 9301 §5.4: with all weights 0 the sender spreads as it likes
            share = max(1, round(SLOTS * hop.weight / total)) if total and len(usable) > 1 else 1
            if hop.weight or not total:
                paths += [Path(hop.rloc, self.outers[len(hop.rloc)])] * share
        if len(self._shared_paths) >= SHARED_PATHS:
            self._shared_paths.clear()
        made = self._shared_paths[usable] = tuple(paths)
        return made


class Instance:
    """The tables of one Instance-ID."""

    def __init__(self, iid: int, settings: XtrSettings, shared: Shared) -> None:
        self.iid = iid
        self.shared = shared
        self.header = header(iid)
        placed = [settings.placed(prefix) for prefix in settings.prefixes]
        self._fixed = tuple(prefix for prefix in placed if prefix.iid == iid)
        dynamic = [settings.placed(each.prefix) for each in settings.dynamic]
        self._dynamic = tuple(prefix for prefix in dynamic if prefix.iid == iid)
        self._ranges = tuple(prefix for prefix in settings.eid_ranges if prefix.iid == iid)
        own = iid == settings.instance_id  # the plain routing table is this one's, see `routing.py`
        self._pitr = own and settings.interworking.pitr
        self._petr = own and settings.interworking.petr
        self.table: ForwardingTable[Entry] = ForwardingTable(iid)
        self.waiting = Waiting(settings.dataplane.queue_packets, settings.dataplane.queue_seconds)
        self.talkers = Talkers()
        self.here: set[Ip] = set()
        self.heard: dict[Ip, float] = {}
        self.led: dict[Ip, Handover] = {}
        """EIDs that move: their packets go by it, whatever the other tables say."""

    def find(self, destination: Ip) -> Entry | None:
        return self.table.hosts.get(destination) or self.table.find(destination)

    def may_send(self, source: Ip, now: float) -> bool:
        """A source that is not delivered here: in our own prefixes it may; in a dynamic range it is news besides."""
        known = _within(source, self._fixed) or _within(source, self._dynamic)
        if not known and self._pitr and not _within(source, self._ranges):
            return True  # RFC 6832 §5: a Proxy-ITR encapsulates for sources that are no EIDs
        if self.shared.limit.allows((self.iid, source), now):
            self.shared.evidence.unknown_source(Prefix.host(source, self.iid))
        return known

    def belongs(self, destination: Ip) -> bool:
        """In our own prefixes or in a range whose hosts may come here: about to be delivered, perhaps."""
        return _within(destination, self._fixed) or _within(destination, self._dynamic)

    def leaves(self, destination: Ip) -> bool:
        """As a Proxy-ETR: a destination that is no EID, which the plain routing table knows (RFC 6832 §6)."""
        return self._petr and not _within(destination, self._ranges) and not self.belongs(destination)

    def hold(self, destination: Ip, packet: bytes, outer_ttl: int | None, now: float) -> None:
        """Keep a packet until its destination has an entry; the first one is reported."""
        count, first = self.shared.count, destination not in self.waiting
        if first and not self.shared.misses.allows(now):
            count["dropped.too-many-misses"] += 1
            return
        if not self.waiting.hold(destination, packet, outer_ttl, now):
            count["dropped.queue-full"] += 1
            return
        count["queued"] += 1
        if first:
            self.shared.evidence.missed(Prefix.host(destination, self.iid))

    def release(self, eid: Prefix) -> list[tuple[Ip, deque[Held]]]:
        """Take out what waits for destinations within `eid`."""
        return self.waiting.release(eid)


def _within(ip: Ip, prefixes: tuple[Prefix, ...]) -> bool:
    return any(prefix.contains(ip) for prefix in prefixes)
