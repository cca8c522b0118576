"""Core to site: datagrams of port 4341, checked, decapsulated and given to the kernel, which knows where the host is.

What may be delivered is judged once for packets that look alike up to their ports, and remembered until a table
changes. Everything refused has a reason of its own in the counters (RFC 9300 §5.3; RFC 6040; RFC 9302 §7).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from lispfmc.core.versions import newer
from lispfmc.wire.address import Ip, Prefix, ip_of
from lispfmc.wire.dataheader import MAP_VERSION_PRESENT, NONCE_PRESENT, DataHeader
from lispfmc.wire.encap import HEADER_BYTES, decapsulated, header, inner, parse
from lispfmc.wire.encap import rewritten as rewrite
from lispfmc.wire.errors import PeerError
from lispfmc.wire.moveformat import NEXT_MOVE_SHIM
from xtr.dataplane.device import PLAIN
from xtr.dataplane.instance import Instance, Shared
from xtr.dataplane.outbound import Outbound
from xtr.dataplane.outer import ANCILLARY_BYTES, Outer, Told
from xtr.dataplane.segments import joinable, joined, run_length

JUDGED = 16_384  # remembered judgements; forged packets start it anew
LIKE_PLAIN = 0xFF ^ (NONCE_PRESENT | MAP_VERSION_PRESENT)

# Why a packet was refused, by the field that `lispfmc.wire.encap` names.
_REASONS = {
    "data header": "dropped.truncated",
    "KK": "dropped.encrypted",
    "next protocol": "dropped.next-protocol",
    "inner packet": "dropped.inner-version",
    "inner packet length": "dropped.inner-length",
}


class Judgement:
    """Packets like this are delivered, with this TTL and TOS."""

    __slots__ = ("destination", "noted", "outbound", "sender", "tos", "ttl", "unchanged")

    def __init__(self, outbound: Outbound, destination: Ip, sender: Ip, before: tuple[int, int], after: bytes) -> None:
        self.outbound = outbound
        self.destination = destination
        self.sender = sender
        self.ttl, self.tos = _ttl_and_tos(after)
        self.unchanged = before == (self.ttl, self.tos)
        self.noted = 0.0


class Inbound:
    """The reader of all local RLOCs."""

    def __init__(
        self,
        shared: Shared,
        instances: Mapping[int, Instance],
        outbounds: Mapping[int, Outbound],
        devices: Mapping[int, int],
        batch: int,
    ) -> None:
        """`devices` are the descriptors of the TUN devices, by Instance-ID."""
        self._shared = shared
        self._count = shared.count
        self._instances = instances
        self._outbounds = outbounds
        self._devices = devices
        self._datagrams = max(batch // 4, 1)  # several packets may come in each
        self._judged: dict[bytes, tuple[Judgement, int, Instance]] = {}
        self._buffer = bytearray(65536)
        self._view = memoryview(self._buffer)

    def forget(self) -> None:
        """A table has changed."""
        self._judged.clear()

    def readable(self, outer: Outer) -> None:
        now = self._shared.now()
        receive, buffers, view = outer.receiver.recvmsg_into, (self._buffer,), self._view
        for _ in range(self._datagrams):
            try:
                size, ancillary, _, sender = receive(buffers, ANCILLARY_BYTES)
            except BlockingIOError:
                break
            except OSError:
                if outer.receiver.fileno() < 0:
                    return
                self._count["dropped.socket"] += 1
                continue
            self.datagrams(bytes(view[:size]), outer.told(ancillary), ip_of(sender[0]), now)
        self.flush()

    def flush(self) -> None:
        """What was passed on leaves."""
        self._shared.moving.flush()
        for outbound in self._outbounds.values():
            outbound.flush()

    def datagrams(self, data: bytes, told: Told, sender: Ip, now: float) -> None:
        """One datagram, or several of one sender and size that the kernel has put together."""
        size = len(data)
        step = told.segment or size or 1
        context = sender + bytes((told.ttl, told.tos))
        together: list[bytes] = []
        last: tuple[Judgement, int, Instance] | None = None
        looks = b""
        for at in range(0, max(size, 1), step):
            # the usual packet of a run: like the one before it, and as long as it says
            if looks and size - at >= step and data[at + 8] == 0x45:
                seen = data[at : at + 10] + data[at + 14 : at + 18] + data[at + 20 : at + 28]
                if seen == looks and data[at + 10] << 8 | data[at + 11] == step - HEADER_BYTES:
                    together.append(data[at + HEADER_BYTES : at + step])
                    continue
            datagram = data[at : at + step]
            found = self._judged.get(context + _looks(datagram)) if len(datagram) >= 28 else None
            if found is None or not _whole(datagram):
                found = self._judge(datagram, told, sender, context, now)
                if found is None:
                    continue
            if found is not last and together and last is not None:
                self._deliver(last, together, now)
                together = []
            last = found
            together.append(datagram[HEADER_BYTES:])
            if told.segment and datagram[8] == 0x45:
                looks = _looks(datagram) if context + _looks(datagram) in self._judged else b""
        if together and last is not None:
            self._deliver(last, together, now)

    # --- judging -------------------------------------------------------------------------------------------------

    def _judge(
        self, datagram: bytes, told: Told, sender: Ip, context: bytes, now: float
    ) -> tuple[Judgement, int, Instance] | None:
        """The long way: every check. None when the packet was refused, passed on, held or delivered already."""
        try:
            data_header = parse(datagram)
            if data_header.next_protocol == NEXT_MOVE_SHIM:
                plain = self._shared.moving.shimmed(datagram, data_header, told, sender)
                if plain is None:
                    return None
                datagram = header(data_header.iid) + plain
                data_header = parse(datagram)
            packet = inner(datagram, data_header)
        except PeerError as error:
            self._count[_REASONS.get(error.field, "dropped.malformed")] += 1
            return None
        instance = self._instances.get(data_header.iid)
        if instance is None:
            self._count["dropped.instance"] += 1
            return None
        source, destination = _addresses(packet)
        reason = self._refusal(instance, data_header, source, destination, sender, now)
        changed = None if reason else decapsulated(packet, told.ttl, told.tos)
        if changed is None:
            # RFC 6040 §4.2: CE outside, Not-ECT inside
            self._count[reason or "dropped.congestion"] += 1
            return None
        led = instance.led.get(destination)
        if led is not None:
            instance.talkers.note(destination, sender, now)
            self._shared.moving.packet(led, changed, sender, told.ttl)
            return None
        if destination in instance.here or instance.leaves(destination):
            outbound = self._outbounds[instance.iid]
            made = Judgement(outbound, destination, sender, _ttl_and_tos(packet), changed)
            found = (made, self._devices[instance.iid], instance)
            if len(packet) == len(datagram) - HEADER_BYTES:
                if data_header.flags & LIKE_PLAIN == data_header.flags:
                    self._remember(context + _looks(datagram), found)
                return found
            self._deliver(found, [packet], now)  # there was padding behind it
            return None
        self._elsewhere(instance, changed, destination, told.ttl, sender, now)
        return None

    def _refusal(
        self, instance: Instance, data_header: DataHeader, source: Ip, destination: Ip, sender: Ip, now: float
    ) -> str:
        """Why a packet is dropped, or ""."""
        if sender in self._shared.rlocs:
            return "dropped.own-source"
        if not _unicast(source) or not _unicast(destination):
            return "dropped.not-unicast"
        if destination not in instance.here:
            entry = instance.find(destination)
            ours = (entry is not None and entry.away) or instance.belongs(destination)
            if not ours and not instance.leaves(destination):
                return "dropped.foreign-destination"
        if data_header.flags & (MAP_VERSION_PRESENT | NONCE_PRESENT) == MAP_VERSION_PRESENT:
            return self._versions(instance, data_header, source, destination, sender, now)
        return ""

    def _versions(
        self, instance: Instance, data_header: DataHeader, source: Ip, destination: Ip, sender: Ip, now: float
    ) -> str:
        """RFC 9302 §7: what the packet's sender believes of our mapping, and of its own."""
        evidence, limit = self._shared.evidence, self._shared.limit
        eid, peer = Prefix.host(destination, instance.iid), Prefix.host(source, instance.iid)
        ours, theirs = evidence.version(eid) or 0, evidence.version(peer) or 0
        said = data_header.destination_version
        if said == 0 or ours == 0 or newer(said, ours):
            return "dropped.version"  # §7.1: a version that we never gave out
        if newer(ours, said) and limit.allows(("outdated", eid, sender), now):
            evidence.outdated(eid, sender)
        if data_header.source_version and newer(theirs, data_header.source_version):
            return "dropped.source-version"
        if theirs and newer(data_header.source_version, theirs) and limit.allows(("newer", peer), now):
            evidence.newer_source(peer)
        return ""

    def _elsewhere(
        self, instance: Instance, packet: bytes, destination: Ip, outer_ttl: int, sender: Ip, now: float
    ) -> None:
        """One of ours that is not delivered here: moved away, or not here yet."""
        instance.talkers.note(destination, sender, now)
        entry = instance.find(destination)
        if entry is None or entry.local:
            instance.hold(destination, packet, outer_ttl, now)
            return
        if self._shared.limit.allows((instance.iid, destination, sender), now):
            self._shared.evidence.moved_away(Prefix.host(destination, instance.iid), sender)
        self._outbounds[instance.iid].pass_on(packet, instance.find(destination) or entry, outer_ttl, now)

    def _remember(self, key: bytes, found: tuple[Judgement, int, Instance]) -> None:
        if len(self._judged) >= JUDGED:
            self._judged.clear()
        self._judged[key] = found

    # --- delivering ----------------------------------------------------------------------------------------------

    def _deliver(self, found: tuple[Judgement, int, Instance], packets: list[bytes], now: float) -> None:
        judgement, fd, instance = found
        if judgement.noted != now:
            judgement.noted = now
            instance.talkers.note(judgement.destination, judgement.sender, now)
        index, count = 0, len(packets)
        while index < count:
            packet = packets[index]
            payload_at = joinable(packet) if count - index > 1 else 0
            length = run_length(packets, index, payload_at) if payload_at else 1
            if length > 1:
                run = packets[index : index + length]
                pieces = joined(run, payload_at, judgement.ttl, judgement.tos)
            elif judgement.unchanged:
                pieces = [PLAIN, packet]
            else:
                pieces = [PLAIN, rewrite(packet, ttl=judgement.ttl, tos=judgement.tos)]
            try:
                os.writev(fd, pieces)
            except OSError:
                self._count["dropped.tun-write"] += length
            else:
                self._count["decapsulated"] += length
            index += length


def _looks(datagram: bytes) -> bytes:
    """Everything of a datagram that decides what happens to it, but its lengths."""
    if datagram[8] < 0x50:
        return datagram[:10] + datagram[14:18] + datagram[20:28]
    return datagram[:12] + datagram[14:48]


def _whole(datagram: bytes) -> bool:
    """The inner packet is exactly as long as it says."""
    if datagram[8] < 0x50:
        return datagram[10] << 8 | datagram[11] == len(datagram) - HEADER_BYTES
    return (datagram[12] << 8 | datagram[13]) + 40 == len(datagram) - HEADER_BYTES


def _addresses(packet: bytes) -> tuple[Ip, Ip]:
    return (packet[12:16], packet[16:20]) if packet[0] >> 4 == 4 else (packet[8:24], packet[24:40])


def _ttl_and_tos(packet: bytes) -> tuple[int, int]:
    if packet[0] >> 4 == 4:
        return packet[8], packet[1]
    return packet[7], (packet[0] << 4 | packet[1] >> 4) & 0xFF


def _unicast(ip: Ip) -> bool:
    """An address that a packet can have beyond one link."""
    if len(ip) == 4:
        return 0 < ip[0] < 224 and ip[0] != 127
    return ip[0] != 0xFF and any(ip[:15]) and not (ip[0] == 0xFE and ip[1] & 0xC0 == 0x80)
