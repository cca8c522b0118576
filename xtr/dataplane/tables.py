"""The tables of the packet path: forwarding by longest match, packets that wait for a mapping, who talked to whom.

Plain dictionaries keyed by packed addresses, within one Instance-ID. Each is bounded: the network fills them.
"""

from __future__ import annotations

from collections import Counter, deque
from heapq import nsmallest
from typing import Generic, NamedTuple, TypeVar

from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire.address import Ip, Prefix

V = TypeVar("V")

CACHED_HOSTS = 65536  # destinations whose longest match is remembered; a scan of addresses starts it anew
WAITING_HOSTS = 4096  # destinations with packets waiting
TALKING_EIDS = 16384  # local EIDs whose peers are remembered
PEERS_PER_EID = 256  # RLOCs remembered for each; forged outer sources push out the oldest
PEER_SECONDS = 60.0


class ForwardingTable(Generic[V]):
    """Longest match with a cache of exact hosts in front of it."""

    def __init__(self, iid: int) -> None:
        self._iid = iid
        self._table: PrefixTable[V] = PrefixTable()
        self.hosts: dict[Ip, V] = {}
        """The packet path looks here first, and calls `find` when there is nothing."""

    def install(self, prefix: Prefix, value: V) -> None:
        self._table.set(prefix, value)
        self._forget(prefix)

    def remove(self, prefix: Prefix) -> None:
        self._table.remove(prefix)
        self._forget(prefix)

    def exactly(self, prefix: Prefix) -> V | None:
        """The value of exactly this prefix."""
        return self._table.get(prefix)

    def inside(self, prefix: Prefix) -> list[tuple[Prefix, V]]:
        """The entries within a prefix, itself included."""
        return list(self._table.covered_by(prefix))

    def find(self, ip: Ip) -> V | None:
        """The value of the most specific prefix that covers `ip`; remembered for the next packet."""
        match = self._table.longest(Prefix.host(ip, self._iid))
        if match is None:
            return None
        if len(self.hosts) >= CACHED_HOSTS:
            self.hosts.clear()
        self.hosts[ip] = match[1]
        return match[1]

    def _forget(self, prefix: Prefix) -> None:
        if prefix.is_host:
            self.hosts.pop(prefix.ip, None)
        else:
            self.hosts.clear()


class Held(NamedTuple):
    """A waiting packet. `outer_ttl` is that of the tunnel that it came by; None when it came from this site."""

    packet: bytes
    outer_ttl: int | None
    until: float
    source: Ip


class Waiting:
    """Packets whose destination is being resolved, in order, bounded in number and in time."""

    def __init__(self, packets: int, seconds: float) -> None:
        """A quarter of `packets` for one destination, so that a dead one leaves room for the others; half for one
        source, so that a host that scans addresses does not take away everybody's."""
        self._limit = packets
        self._limit_each = max(packets // 4, 1)
        self._limit_source = max(packets // 2, 1)
        self._seconds = seconds
        self._held: dict[Ip, deque[Held]] = {}
        self._by_source: Counter[Ip] = Counter()
        self._count = 0

    def hold(self, ip: Ip, packet: bytes, outer_ttl: int | None, now: float) -> bool:
        """Keep a packet for `ip`; False when there is no room."""
        source = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
        if self._count >= self._limit or self._by_source[source] >= self._limit_source:
            return False
        queue = self._held.get(ip)
        if queue is None:
            if len(self._held) >= WAITING_HOSTS:
                return False
            queue = self._held[ip] = deque()
        elif len(queue) >= self._limit_each:
            return False
        queue.append(Held(packet, outer_ttl, now + self._seconds, source))
        self._by_source[source] += 1
        self._count += 1
        return True

    def release(self, prefix: Prefix) -> list[tuple[Ip, deque[Held]]]:
        """Take out what waits for destinations within `prefix`, each queue in order."""
        if prefix.is_host:
            found = [prefix.ip] if prefix.ip in self._held else []
        else:
            found = [ip for ip in self._held if prefix.contains(ip)]
        released = [(ip, self._held.pop(ip)) for ip in found]
        for _, queue in released:
            for held in queue:
                self._left(held)
        return released

    def expire(self, now: float) -> int:
        """Drop what has waited too long; returns how many. A destination without packets is forgotten."""
        dropped = 0
        for ip, queue in list(self._held.items()):
            while queue and queue[0].until <= now:
                self._left(queue.popleft())
                dropped += 1
            if not queue:
                del self._held[ip]
        return dropped

    def _left(self, held: Held) -> None:
        self._count -= 1
        self._by_source[held.source] -= 1
        if not self._by_source[held.source]:
            del self._by_source[held.source]

    def __contains__(self, ip: Ip) -> bool:
        return ip in self._held

    def __len__(self) -> int:
        return self._count


class Budget:
    """So many a second, and as many at once after a quiet second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = rate
        self._at = 0.0

    def allows(self, now: float) -> bool:
        self._left = min(self._left + (now - self._at) * self._rate, self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Talkers:
    """For each local EID, the RLOCs that sent to it or received from it in the last minute."""

    def __init__(self) -> None:
        self._seen: dict[Ip, dict[Ip, float]] = {}

    def note(self, eid: Ip, rloc: Ip, now: float) -> None:
        peers = self._seen.get(eid)
        if peers is None:
            if len(self._seen) >= TALKING_EIDS:
                self._prune(now)
            peers = self._seen[eid] = {}
        elif len(peers) >= PEERS_PER_EID and rloc not in peers:
            del peers[min(peers, key=peers.__getitem__)]
        peers[rloc] = now

    def peers(self, eid: Ip, now: float) -> list[Ip]:
        """Newest first."""
        recent = [(at, rloc) for rloc, at in self._seen.get(eid, {}).items() if now - at <= PEER_SECONDS]
        return [rloc for _, rloc in sorted(recent, reverse=True)]

    def _prune(self, now: float) -> None:
        """Make room: EIDs silent for a minute go, and an eighth of all besides when these are fewer, the longest silent
        first. It costs a look at each, so that it must not be due again for every packet to one more EID."""
        last = {eid: max(peers.values()) for eid, peers in self._seen.items()}
        silent = [eid for eid, at in last.items() if now - at > PEER_SECONDS]
        room = max(TALKING_EIDS // 8, 1)
        for eid in silent if len(silent) >= room else nsmallest(room, last, key=last.__getitem__):
            del self._seen[eid]


class OnceInAWhile:
    """True the first time in a while for each key; bounded, and when it is full nothing more is allowed meanwhile.

    Room is made a few times in that while: forged packets with ever other keys must not cost a look at all each.
    """

    def __init__(self, seconds: float, keys: int = 4096) -> None:
        self._seconds = seconds
        self._limit = keys
        self._last: dict[object, float] = {}
        self._pruned = float("-inf")

    def allows(self, key: object, now: float) -> bool:
        last = self._last.get(key)
        if last is not None and now - last < self._seconds:
            return False
        if last is None and len(self._last) >= self._limit:
            if now - self._pruned < self._seconds / 8:
                return False
            self._pruned = now
            self._last = {each: at for each, at in self._last.items() if now - at < self._seconds}
            if len(self._last) >= self._limit:
                return False
        self._last[key] = now
        return True
