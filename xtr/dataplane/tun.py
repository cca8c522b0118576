"""The portable data plane: a TUN device on the site's side, UDP port 4341 on the core's (RFC 9300 §5).

Site to core: source check, map-cache, encapsulate; without a mapping the packet waits and the miss is reported. Core to
site: header, Instance-ID and inner packet checked, then delivered if its destination is here, passed on if that has
moved away, else dropped. Every packet ends in exactly one counter.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import Counter, deque
from typing import NamedTuple

from lispfmc.wire.address import Ip, Prefix, ip_of
from lispfmc.wire.encap import decapsulated, flow_hash, header, inner, parse
from lispfmc.wire.errors import PeerError
from xtr.dataplane import Evidence
from xtr.dataplane.device import Device
from xtr.dataplane.netlink import Netlink
from xtr.dataplane.outer import ANCILLARY_BYTES, SENDERS, Outer
from xtr.dataplane.tables import ForwardingTable, Held, OnceInAWhile, Talkers, Waiting
from xtr.effects import Drop, Forwarding, Native
from xtr.settings import XtrSettings

DRAIN = 64  # packets a wake-up, so that one direction does not starve the other
SLOTS = 32  # a mapping's locators, each as often as its weight says
SWEEP_SECONDS = 0.25
EVIDENCE_SECONDS = 1.0  # one report a second for each source or sender is evidence enough

_FLOW_BITS = SENDERS.bit_length() - 1


class Path(NamedTuple):
    """One locator of a mapping, ready to be sent to."""

    rloc: Ip
    outer: Outer
    address: tuple[str, int]


class Entry(NamedTuple):
    """What happens to a destination's packets: paths by flow hash, or a reason to drop them."""

    paths: tuple[Path, ...]
    away: bool = False
    dropped: str = ""
    local: bool = False
    """The mapping names us: the host is to be delivered here, as soon as it shows itself."""


class TunPlane:
    """The plane of one Instance-ID. `xtr.dataplane.DataPlane` says what the calls mean."""

    def __init__(self, settings: XtrSettings) -> None:
        self._settings = settings.dataplane
        self._rlocs = settings.rlocs
        self._iid = iid = settings.instance_id
        self._interface_names = settings.site.interfaces
        self._fixed = tuple(settings.placed(prefix) for prefix in settings.prefixes)
        self._dynamic = tuple(settings.placed(each.prefix) for each in settings.dynamic)
        self._header = header(iid)
        self._table: ForwardingTable[Entry] = ForwardingTable(iid)
        self._waiting = Waiting(self._settings.queue_packets, self._settings.queue_seconds)
        self._talkers = Talkers()
        self._evidence_limit = OnceInAWhile(EVIDENCE_SECONDS)
        self._here: dict[Ip, int] = {}  # delivered hosts, and the interface behind which each is
        self._count: Counter[str] = Counter()
        self._buffer = bytearray(65536)
        self._view = memoryview(self._buffer)
        self._sweep: asyncio.TimerHandle | None = None
        self._device: Device | None = None
        self._outers: list[Outer] = []
        self._started = False

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self, evidence: Evidence) -> None:
        """Everything that depends on the current network namespace happens here."""
        self._evidence = evidence
        self._loop = asyncio.get_running_loop()
        self._netlink = Netlink()
        self._started = True
        try:
            self._interfaces = {name: socket.if_nametoindex(name) for name in self._interface_names}
            self._remove_leftovers()
            for rloc in self._rlocs:
                self._outers.append(Outer(rloc))
            self._device = Device(self._settings.device, self._settings.mtu, self._netlink)
            for prefix in self._settings.eid_ranges:
                self._netlink.add_blackhole(prefix)
                self._netlink.add_route(prefix, self._device.index)
        except OSError:
            self.close()
            raise
        self._outer_by_size = {len(outer.rloc): outer for outer in reversed(self._outers)}
        self._loop.add_reader(self._device.fd, self._from_site)
        for outer in self._outers:
            self._loop.add_reader(outer.receiver.fileno(), self._from_core, outer)

    def close(self) -> None:
        if not self._started:
            return
        self._started = False
        if self._sweep is not None:
            self._sweep.cancel()
        for eid in list(self._here):
            self.undeliver(Prefix.host(eid, self._iid))
        for outer in self._outers:
            self._loop.remove_reader(outer.receiver.fileno())
            outer.close()
        if self._device is not None:
            self._loop.remove_reader(self._device.fd)
            self._device.close()  # its routes go with it
            self._device = None
        for prefix in self._settings.eid_ranges:
            self._netlink.remove_blackhole(prefix)
        self._netlink.close()

    def _remove_leftovers(self) -> None:
        """Deliveries of a run that was killed: those hosts may be elsewhere by now."""
        for route in self._netlink.host_routes():
            self._netlink.remove_route(Prefix.host(route.ip), route.interface)
            self._netlink.remove_neighbour(route.ip, route.interface)

    # --- tables --------------------------------------------------------------------------------------------------

    def install(self, eid: Prefix, forwarding: Forwarding) -> None:
        entry = self._entry(forwarding)
        self._table.install(eid, entry)
        if entry.local:
            return  # what waits goes out when the host is delivered
        now = self._loop.time()
        for ip, queue in self._waiting.release(eid):
            if ip not in self._here:
                self._forward_held(ip, queue, now)

    def remove(self, eid: Prefix) -> None:
        self._table.remove(eid)

    def deliver(self, eid: Prefix, interface: str, mac: bytes) -> None:
        index = self._interfaces[interface]
        before = self._here.get(eid.ip)
        if before is not None and before != index:
            self._netlink.remove_neighbour(eid.ip, before)
        self._netlink.add_neighbour(eid.ip, index, mac)
        self._netlink.add_route(eid, index)
        self._here[eid.ip] = index
        for _, queue in self._waiting.release(eid):
            for held in queue:
                self._to_site(held.packet)

    def undeliver(self, eid: Prefix) -> None:
        index = self._here.pop(eid.ip, None)
        if index is not None:
            self._netlink.remove_route(eid, index)
            self._netlink.remove_neighbour(eid.ip, index)

    def peers(self, eid: Prefix) -> list[Ip]:
        return self._talkers.peers(eid.ip, self._loop.time())

    def heard(self, eid: Prefix) -> float | None:
        return None

    def used(self, eid: Prefix) -> float | None:
        return None

    def counters(self) -> dict[str, int]:
        return dict(sorted(self._count.items()))

    def _entry(self, forwarding: Forwarding) -> Entry:
        if isinstance(forwarding, Native):
            return Entry((), dropped="dropped.native")
        if isinstance(forwarding, Drop):
            return Entry((), dropped="dropped.native" if forwarding.native else "dropped.negative")
        if any(hop.rloc in self._rlocs for hop in forwarding.hops):
            return Entry((), local=True)  # encapsulating to ourselves would go round in circles
        usable = [hop for hop in forwarding.hops if len(hop.rloc) in self._outer_by_size]
        total = sum(hop.weight for hop in usable)
        paths: list[Path] = []
        for hop in usable:
            outer = self._outer_by_size[len(hop.rloc)]
            # RFC 9301 §5.4: with all weights 0 the sender spreads as it likes
            share = max(1, round(SLOTS * hop.weight / total)) if total and len(usable) > 1 else 1
            if hop.weight or not total:
                paths += [Path(hop.rloc, outer, outer.address(hop.rloc))] * share
        return Entry(tuple(paths), forwarding.away, dropped="dropped.no-locator")

    # --- site to core --------------------------------------------------------------------------------------------

    def _from_site(self) -> None:
        assert self._device is not None
        now = self._loop.time()
        read, fd, size = os.read, self._device.fd, self._settings.mtu + 64
        for _ in range(DRAIN):
            try:
                packet = read(fd, size)
            except BlockingIOError:
                return
            except OSError:  # the device was taken down; what it held is lost
                self._count["dropped.tun-read"] += 1
                return
            self._outbound(packet, now)
            if self._device is None:
                return

    def _outbound(self, packet: bytes, now: float) -> None:
        if packet[0] >> 4 == 4:
            source, destination, ttl, tos = packet[12:16], packet[16:20], packet[8], packet[1]
            unicast = destination[0] < 224
        else:
            source, destination, ttl = packet[8:24], packet[24:40], packet[7]
            tos = (packet[0] << 4 | packet[1] >> 4) & 0xFF
            unicast = destination[0] != 0xFF and source[0] != 0xFE
        if not unicast:
            self._count["dropped.not-unicast"] += 1
            return
        if source not in self._here and not self._may_send(source, now):
            self._count["dropped.foreign-source"] += 1
            return
        entry = self._table.hosts.get(destination) or self._table.find(destination)
        if entry is None or entry.local:
            if destination in self._here:  # it came while this packet was on its way to us
                self._to_site(packet)
            else:
                self._hold(destination, packet, None, now)
        elif entry.paths:
            flow = flow_hash(packet)
            path = entry.paths[(flow >> _FLOW_BITS) % len(entry.paths)]
            if self._encapsulate(packet, path, ttl, tos, flow, "encapsulated"):
                self._talkers.note(source, path.rloc, now)
        else:
            self._count[entry.dropped] += 1

    def _may_send(self, source: Ip, now: float) -> bool:
        """A source that is not delivered here: in our own prefixes it may; in a dynamic range it is news besides."""
        known = any(prefix.contains(source) for prefix in self._fixed)
        arriving = any(prefix.contains(source) for prefix in self._dynamic)
        if self._evidence_limit.allows(source, now):
            self._evidence.unknown_source(Prefix.host(source, self._iid))
        return known or arriving

    def _encapsulate(self, packet: bytes, path: Path, ttl: int, tos: int, flow: int, counted: str) -> bool:
        """RFC 9300 §5.3: TTL and DSCP copied; RFC 6040 §4.1: ECN copied."""
        sender = path.outer.senders[flow & SENDERS - 1]
        try:
            sender.sendmsg((self._header, packet), path.outer.ancillary(ttl or 1, tos), 0, path.address)
        except BlockingIOError:
            self._count["dropped.send-buffer"] += 1
        except OSError as error:
            too_big = error.errno == errno.EMSGSIZE
            self._count["dropped.too-big" if too_big else "dropped.no-route"] += 1
        else:
            self._count[counted] += 1
            return True
        return False

    # --- core to site --------------------------------------------------------------------------------------------

    def _from_core(self, outer: Outer) -> None:
        now = self._loop.time()
        receive, buffers, view = outer.receiver.recvmsg_into, (self._buffer,), self._view
        for _ in range(DRAIN):
            try:
                size, ancillary, _, sender = receive(buffers, ANCILLARY_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self._count["dropped.socket"] += 1
                continue
            ttl, tos = outer.ttl_and_tos(ancillary)
            self._inbound(bytes(view[:size]), ttl, tos, ip_of(sender[0]), now)
            if self._device is None:
                return

    def _inbound(self, datagram: bytes, outer_ttl: int, outer_tos: int, sender: Ip, now: float) -> None:
        try:
            data_header = parse(datagram)
            if data_header.iid != self._iid:
                self._count["dropped.instance"] += 1
                return
            packet = inner(datagram, data_header)
        except PeerError:
            self._count["dropped.malformed"] += 1
            return
        destination = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
        entry = None
        if destination not in self._here:
            entry = self._table.hosts.get(destination) or self._table.find(destination)
            if not (entry is not None and entry.away) and not self._belongs(destination):
                self._count["dropped.foreign-destination"] += 1
                return
        changed = decapsulated(packet, outer_ttl, outer_tos)
        if changed is None:
            self._count["dropped.congestion"] += 1  # RFC 6040 §4.2: CE outside, Not-ECT inside
            return
        self._talkers.note(destination, sender, now)
        if entry is not None and not entry.local:  # one of ours, and the mapping system says that it is elsewhere
            if self._evidence_limit.allows((destination, sender), now):
                self._evidence.moved_away(Prefix.host(destination, self._iid), sender)
            self._reencapsulate(changed, entry, outer_ttl)
        elif destination in self._here:
            self._to_site(changed)
        else:
            self._hold(destination, changed, outer_ttl, now)

    def _belongs(self, destination: Ip) -> bool:
        """In our own prefixes or in a range whose hosts may come here: about to be delivered, perhaps."""
        return any(prefix.contains(destination) for prefix in self._fixed + self._dynamic)

    def _to_site(self, packet: bytes) -> None:
        assert self._device is not None
        try:
            os.write(self._device.fd, packet)
        except OSError:
            self._count["dropped.tun-write"] += 1
        else:
            self._count["decapsulated"] += 1

    def _reencapsulate(self, packet: bytes, entry: Entry, outer_ttl: int) -> None:
        """RFC 9300 §5.3: the new outer TTL is the old one less one, which ends loops between xTRs."""
        if outer_ttl <= 1:
            self._count["dropped.ttl"] += 1
            return
        if not entry.paths:
            self._count[entry.dropped] += 1
            return
        tos = packet[1] if packet[0] >> 4 == 4 else (packet[0] << 4 | packet[1] >> 4) & 0xFF
        flow = flow_hash(packet)
        path = entry.paths[(flow >> _FLOW_BITS) % len(entry.paths)]
        self._encapsulate(packet, path, outer_ttl - 1, tos, flow, "reencapsulated")

    # --- packets that wait ---------------------------------------------------------------------------------------

    def _hold(self, destination: Ip, packet: bytes, outer_ttl: int | None, now: float) -> None:
        first = destination not in self._waiting
        if not self._waiting.hold(destination, packet, outer_ttl, now):
            self._count["dropped.queue-full"] += 1
            return
        self._count["queued"] += 1
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_SECONDS, self._sweep_waiting)
        if first:
            self._evidence.missed(Prefix.host(destination, self._iid))

    def _forward_held(self, ip: Ip, queue: deque[Held], now: float) -> None:
        entry = self._table.find(ip)
        for held in queue:
            if held.outer_ttl is None:
                self._outbound(held.packet, now)
            elif entry is not None:
                self._reencapsulate(held.packet, entry, held.outer_ttl)

    def _sweep_waiting(self) -> None:
        dropped = self._waiting.expire(self._loop.time())
        if dropped:
            self._count["dropped.unresolved"] += dropped
        more = len(self._waiting) > 0
        self._sweep = self._loop.call_later(SWEEP_SECONDS, self._sweep_waiting) if more else None
