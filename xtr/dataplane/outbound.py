"""Site to core: packets read from an Instance-ID's TUN device, encapsulated to the locators of their destinations.

A flow's way is looked up once and remembered until a table changes. Packets of a wake-up that take the same way and
have the same size leave by one call. A packet without a mapping waits; one that is too big is split or refused by ICMP.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from typing import TypeAlias

from lispfmc.wire.address import Ip, Prefix
from lispfmc.wire.encap import flow_hash, versioned_header
from xtr.dataplane import mtu
from xtr.dataplane.device import PLAIN, VNET_BYTES, Device
from xtr.dataplane.instance import Entry, Instance, Path
from xtr.dataplane.outer import SENDERS, run_ancillary
from xtr.dataplane.tables import Held, OnceInAWhile

RUN_PACKETS = 64  # UDP_MAX_SEGMENTS of Linux before 6.9
RUN_BYTES = 65_000  # a UDP datagram's payload is at most 65 507 bytes, and with IP options less
FLOWS = 65_536  # remembered ways; made-up ports start it anew
FLOW_SECONDS = 30.0  # ... and so does time, so that a path MTU that has grown is used
REFUSALS_SECONDS = 0.1  # RFC 1812 §4.3.2.8: ICMP errors are rate limited

LaneKey: TypeAlias = tuple[Ip, int, int, int, str, bytes]
"""Locator, sender, TTL, TOS, counter, data header."""

_FLOW_BITS = SENDERS.bit_length() - 1
_WITH_PORTS = frozenset({6, 17})


class Lane:
    """A way through the core: one locator, one source port, one outer TTL and TOS, one data header; and the run that is
    being made."""

    __slots__ = ("address", "ancillary", "counted", "header", "limit", "path", "room", "run", "sender", "size")

    def __init__(self, path: Path, sender: int, ttl: int, tos: int, counted: str, header: bytes, now: float) -> None:
        self.path = path
        self.header = header
        self.address = path.outer.address(path.rloc)
        self.sender = path.outer.senders[sender]
        self.ancillary = path.outer.ancillary(ttl, tos)
        self.limit = path.outer.limit(path.rloc, now)
        self.counted = counted
        self.run: list[bytes] = []
        self.size = 0
        self.room = 0  # packets of this size that the run can still take


class Flow:
    """What is known of packets that look alike up to their ports."""

    __slots__ = ("copies", "entry", "lane", "noted", "source")

    def __init__(self, lane: Lane, copies: tuple[Lane, ...], entry: Entry, source: Ip) -> None:
        self.lane = lane
        self.copies = copies
        self.entry = entry
        self.source = source
        self.noted = 0.0


class Outbound:
    """The readers and writers of one Instance-ID's device."""

    def __init__(self, instance: Instance, device: Device, mtu: int, batch: int) -> None:
        """`batch`: packets a wake-up, so that one direction does not starve the other."""
        self._instance = instance
        self._shared = instance.shared
        self._count = instance.shared.count
        self._device = device
        self._size = mtu + 64 + VNET_BYTES
        self._batch = batch
        # Few packets come here beside a kernel plane. A peer's kernel takes them one by one; a run would go by its
        # daemon, and arrive behind what was sent later.
        self._run_packets = RUN_PACKETS if self._shared.punted is None else 1
        self._flows: dict[bytes, Flow] = {}
        self._flows_since = 0.0
        self._lanes: dict[LaneKey, Lane] = {}
        self._pending: list[Lane] = []
        self._refusals = OnceInAWhile(REFUSALS_SECONDS)

    def forget(self) -> None:
        """A table has changed: what is under way leaves by the old one, and everything later by the new one."""
        self.flush()
        self._flows.clear()
        self._lanes.clear()

    def readable(self) -> bool:
        """True when there may be more."""
        now = self._shared.now()
        if now - self._flows_since > FLOW_SECONDS:
            self.forget()
            self._flows_since = now
        read, fd, size, known = os.read, self._device.fd, self._size, self._flows.get
        versioned = self._shared.versioned
        more = True
        for _ in range(self._batch):
            try:
                frame = read(fd, size)
            except BlockingIOError:
                more = False
                break
            except OSError:  # the device was taken down; what it held is lost
                self._count["dropped.tun-read"] += 1
                break
            # everything that the way depends on: TOS, fragment, TTL, protocol, addresses, ports (and IPv6's flow label)
            ipv4 = frame[10] < 0x50
            key = frame[10:12] + frame[16:20] + frame[22:34] if ipv4 else frame[10:14] + frame[16:54]
            flow = known(key)
            if flow is not None and flow.noted == now:
                lane = flow.lane
                if lane.room > 0 and len(frame) == lane.size + VNET_BYTES and not flow.copies:
                    lane.run.append(lane.header + frame[VNET_BYTES:])  # the usual packet: it follows one like itself
                    lane.room -= 1
                    continue
            packet = frame[VNET_BYTES:]
            if flow is None or (versioned and flow.lane.header != self._header(packet)):
                flow = self._admit(packet, now)
                if flow is None:
                    continue
                if _repeats(packet):
                    self._remember(key, flow)
            self._take(flow, packet, now)
        self._shared.moving.flush()
        if self._pending:
            self.flush()
        return more

    def again(self, ip: Ip, queue: deque[Held], now: float) -> None:
        """Packets that waited for `ip` go where the table says now."""
        for held in queue:
            if held.outer_ttl is None:
                flow = self._admit(held.packet, now)
                if flow is not None:
                    self._take(flow, held.packet, now)
                continue
            entry = self._instance.find(ip)
            if entry is not None:
                self.pass_on(held.packet, entry, held.outer_ttl, now)
        self.flush()

    def pass_on(self, packet: bytes, entry: Entry, outer_ttl: int, now: float) -> None:
        """RFC 9300 §5.3: the new outer TTL is the old one less one, which ends loops between xTRs."""
        if outer_ttl <= 1:
            self._count["dropped.ttl"] += 1
        elif entry.sink:
            self._count["dropped.moved"] += 1
        elif entry.native:
            self.to_site(packet)
        elif not entry.paths:
            self._count[entry.dropped] += 1
        else:
            flow = self._flow(packet, entry, outer_ttl - 1, "reencapsulated", now)
            self._take(flow, packet, now)

    def to_site(self, packet: bytes) -> bool:
        """Give a packet to the kernel, which knows where the host is."""
        try:
            os.writev(self._device.fd, (PLAIN, packet))
        except OSError:
            self._count["dropped.tun-write"] += 1
            return False
        return True

    # --- the way of a packet -------------------------------------------------------------------------------------

    def _admit(self, packet: bytes, now: float) -> Flow | None:
        """The way of a packet from the site; None when it was dropped, delivered or held."""
        instance = self._instance
        if packet[0] >> 4 == 4:
            source, destination, ttl = packet[12:16], packet[16:20], packet[8]
            unicast = destination[0] < 224
        else:
            source, destination, ttl = packet[8:24], packet[24:40], packet[7]
            unicast = destination[0] != 0xFF and source[0] != 0xFE
        if destination in self._shared.rlocs and self._shared.punted is not None:
            self._shared.punted(packet)
            return None
        if not unicast:
            self._count["dropped.not-unicast"] += 1
            return None
        if source not in instance.here and not instance.may_send(source, now):
            self._count["dropped.foreign-source"] += 1
            return None
        led = instance.led.get(destination)
        if led is not None:
            self._shared.moving.packet(led, packet, None, ttl or 1)
            return None
        entry = instance.find(destination)
        if entry is None or entry.local:
            if destination not in instance.here:
                instance.hold(destination, packet, None, now)
            elif self.to_site(packet):  # it came while this packet was on its way to us
                self._count["delivered"] += 1
            return None
        if entry.native:
            if self.to_site(packet):  # it was read before the kernel knew that this is the plain table's business
                self._count["native"] += 1
            return None
        if not entry.paths:
            self._count[entry.dropped] += 1
            return None
        return self._flow(packet, entry, ttl or 1, "encapsulated", now)

    def _flow(self, packet: bytes, entry: Entry, ttl: int, counted: str, now: float) -> Flow:
        """RFC 9300 §5.3: TTL and DSCP copied; RFC 6040 §4.1: ECN copied."""
        ipv4 = packet[0] >> 4 == 4
        tos = packet[1] if ipv4 else (packet[0] << 4 | packet[1] >> 4) & 0xFF
        hashed = flow_hash(packet)
        paths = entry.replicas or (entry.paths[(hashed >> _FLOW_BITS) % len(entry.paths)],)
        # what is passed on has come from elsewhere: of its source's version the sender may know more than we
        header = self._header(packet) if counted == "encapsulated" else self._instance.header
        keys = [(path, (path.rloc, hashed & SENDERS - 1, ttl, tos, counted, header)) for path in paths]
        lanes = [self._lanes.get(key) or self._lane(path, key, now) for path, key in keys]
        return Flow(lanes[0], tuple(lanes[1:]), entry, packet[12:16] if ipv4 else packet[8:24])

    def _header(self, packet: bytes) -> bytes:
        """RFC 9302 §5: with both mappings' versions, where they are wanted and the destination's has one."""
        instance = self._instance
        if not self._shared.versioned:
            return instance.header
        ipv4 = packet[0] >> 4 == 4
        source, destination = (packet[12:16], packet[16:20]) if ipv4 else (packet[8:24], packet[24:40])
        version = self._shared.evidence.version
        theirs = version(Prefix.host(destination, instance.iid))
        if not theirs:
            return instance.header
        return versioned_header(instance.iid, version(Prefix.host(source, instance.iid)) or 0, theirs)

    def _lane(self, path: Path, key: LaneKey, now: float) -> Lane:
        if len(self._lanes) >= FLOWS:
            self.forget()
        _, sender, ttl, tos, counted, header = key
        made = self._lanes[key] = Lane(path, sender, ttl, tos, counted, header, now)
        return made

    def _remember(self, key: bytes, flow: Flow) -> None:
        if len(self._flows) >= FLOWS:
            self._flows.clear()
        self._flows[key] = flow

    def _take(self, flow: Flow, packet: bytes, now: float) -> None:
        if flow.noted != now:
            self._note(flow, now)
        self._put(flow.lane, packet, now)
        for lane in flow.copies:
            self._put(lane, packet, now)

    def _put(self, lane: Lane, packet: bytes, now: float) -> None:
        size = len(packet)
        if size > lane.limit:
            self._too_big(lane, packet, now)
            return
        if not lane.run:
            self._pending.append(lane)
            self._begin(lane, size)
        elif size > lane.size or lane.room <= 0:
            self._flush(lane)
            self._begin(lane, size)
        lane.run.append(lane.header + packet)
        lane.room -= 1
        if size < lane.size:  # only the last one of a run may be shorter
            self._flush(lane)

    def _begin(self, lane: Lane, size: int) -> None:
        lane.size = size
        lane.room = min(self._run_packets, RUN_BYTES // (size + 8))

    def _note(self, flow: Flow, now: float) -> None:
        flow.noted = flow.entry.used = now
        if flow.source in self._instance.here:
            self._instance.heard[flow.source] = now
            self._instance.talkers.note(flow.source, flow.lane.path.rloc, now)

    # --- sending -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Everything that was taken leaves."""
        pending, self._pending = self._pending, []
        for lane in pending:
            if lane.run:
                self._flush(lane)

    def _flush(self, lane: Lane) -> None:
        run, lane.run = lane.run, []
        lane.room = 0
        try:
            if len(run) == 1:
                lane.sender.plain.sendmsg(run, lane.ancillary, 0, lane.address)
            else:
                lane.sender.runs.sendmsg(run, run_ancillary(lane.ancillary, len(run[0])), 0, lane.address)
        except BlockingIOError:
            self._count["dropped.send-buffer"] += len(run)
        except OSError as error:
            self._unsent(lane, run, error)
        else:
            self._count[lane.counted] += len(run)

    def _unsent(self, lane: Lane, run: list[bytes], error: OSError) -> None:
        if error.errno not in (errno.EMSGSIZE, errno.EINVAL, errno.EIO):
            self._count["dropped.no-route"] += len(run)
            return
        now = self._shared.now()
        outer, rloc = lane.path.outer, lane.path.rloc
        outer.forget_mtu(rloc)
        limit = outer.limit(rloc, now)
        if limit < lane.limit:
            for each in self._lanes.values():
                if each.path.rloc == rloc:
                    each.limit = limit
        elif len(run) == 1:
            self._count["dropped.too-big"] += 1
            return
        for datagram in run:  # one by one: a kernel or a device that takes no runs, or packets that are too big now
            packet = datagram[8:]
            if len(packet) > limit:
                self._too_big(lane, packet, now)
            else:
                lane.run = [datagram]
                self._flush(lane)

    def _too_big(self, lane: Lane, packet: bytes, now: float) -> None:
        """RFC 9300 §7.1: split, or tell the sender."""
        if mtu.may_split(packet):
            pieces = mtu.split(packet, lane.limit)
            if pieces:
                self._count["split"] += 1
                self._flush_before(lane)
                for piece in pieces:
                    lane.run = [lane.header + piece]
                    self._flush(lane)
                return
        self._count["dropped.too-big"] += 1
        source = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
        if not self._refusals.allows(source, now):
            return
        message = mtu.refusal(packet, lane.limit)
        if message is None:
            return
        self._count["refused"] += 1
        if source in self._instance.here or self._instance.belongs(source):
            self.to_site(message)
            return
        entry = self._instance.find(source)  # the packet came by a tunnel, and was to be passed on
        if entry is not None and entry.paths:
            self._take(self._flow(message, entry, 64, "encapsulated", now), message, now)

    def _flush_before(self, lane: Lane) -> None:
        if lane.run:
            self._flush(lane)


def _repeats(packet: bytes) -> bool:
    """Packets like this one follow: whole ones of a protocol with ports."""
    if packet[0] == 0x45:
        return packet[9] in _WITH_PORTS and not (packet[6] & 0x3F or packet[7]) and len(packet) >= 24
    return packet[0] >> 4 == 6 and packet[6] in _WITH_PORTS and len(packet) >= 44
