"""The kernel data plane: tc programs (`lisp.bpf.c`) forward what is usual, the TUN plane everything else.

Every call goes to both, in the order that loses and reorders nothing: a new mapping first sends what waits in the slow
path, then opens the kernel's; a changed one changes the kernel's first. A killed daemon leaves the kernel forwarding;
the next one takes over, and keeps for a while what it has not been told anew.
"""

from __future__ import annotations

import asyncio
import socket

from lispfmc.core.plans import Plan
from lispfmc.wire.address import Ip, Prefix
from xtr.dataplane import Evidence
from xtr.dataplane import kernel_tables as tables
from xtr.dataplane.kernel import Kernel
from xtr.dataplane.kernel_tables import Delivery, Local
from xtr.dataplane.libbpf import Events
from xtr.dataplane.netlink import Netlink
from xtr.dataplane.tun import TunPlane
from xtr.effects import Forward, Forwarding
from xtr.roles.peer import Await, Mark
from xtr.roles.state import Mode, Switch
from xtr.settings import XtrSettings

PROBE_SECONDS = 0.2  # after a take-over: the hosts that were here are asked
TRUST_SECONDS = 30.0  # after a take-over: what nobody has confirmed goes

_OUTER = {4: 20 + 8, 6: 40 + 8}  # bytes before the LISP header


class EbpfPlane:
    """The accelerated plane. `xtr.dataplane.DataPlane` says what the calls mean."""

    def __init__(self, settings: XtrSettings) -> None:
        self._settings = settings
        self._families = frozenset(len(rloc) for rloc in settings.rlocs)
        self._own = frozenset(settings.rlocs)
        self._slow = TunPlane(settings, persistent=True, punted=self._punted, tell=self._opened)
        self._kernel: Kernel | None = None
        self._netlink: Netlink | None = None
        self._events: Events | None = None
        self._hosts: dict[Prefix, tuple[str, bytes]] = {}
        # mappings of hosts that are here, and whether they are away entries: they count again when those leave
        self._shadowed: dict[Prefix, tuple[bytes, bool]] = {}
        self._away: set[Prefix] = set()
        self._turned: dict[Prefix, Delivery] = {}
        """EIDs of moves: what the kernel does with their packets. It delivers other hosts' that are here."""
        self._opening: set[Prefix] = set()
        self._unconfirmed_hosts: set[Prefix] = set()
        self._unconfirmed: set[Prefix] = set()
        self._timers: list[asyncio.TimerHandle] = []

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._loop = asyncio.get_running_loop()
        self._netlink = netlink = Netlink()
        try:
            self._kernel = kernel = Kernel(netlink, self._settings.instances, self._core_interfaces(netlink))
            if kernel.took_over:
                self._remember()
            self._slow.keep({eid.ip for eid in self._unconfirmed_hosts})
            self._slow.start(evidence)
            kernel.configure(
                tun=self._slow.device_index(self._settings.instance_id),
                rlocs=self._settings.rlocs,
                petr=self._settings.interworking.petr,
            )
            ranges = [*self._settings.prefixes, *(each.prefix for each in self._settings.dynamic)]
            for prefix in ranges:
                kernel.local_eids.update(self._settings.placed(prefix), tables.local(Local(Delivery.PUNT)))
            kernel.attach()
            self._events = events = Events(kernel.events, self._moved)
        except OSError:
            self.close()
            raise
        self._loop.add_reader(events.fd, events.consume)
        if kernel.took_over:
            self._timers = [
                self._loop.call_later(PROBE_SECONDS, self._probe),
                self._loop.call_later(TRUST_SECONDS, self._forget_unconfirmed),
            ]

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._kernel is not None:
            self._kernel.detach()  # from here on the slow path has everything
        if self._events is not None:
            self._loop.remove_reader(self._events.fd)
            self._events.close()
            self._events = None
        self._slow.close()
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _core_interfaces(self, netlink: Netlink) -> list[str]:
        if self._settings.dataplane.core_interfaces:
            return list(self._settings.dataplane.core_interfaces)
        found = [socket.if_indextoname(index) for index in sorted(netlink.holders(self._own))]
        if not found or "lo" in found:
            raise OSError(
                99, "which interfaces lead to the core? The RLOCs do not tell; name them in dataplane.core_interfaces"
            )
        return found

    # --- taking over -----------------------------------------------------------------------------------------------

    def _remember(self) -> None:
        """What the last run left. Prefixes that punt are written anew; those of another configuration go now."""
        assert self._kernel is not None
        self._unconfirmed = set(self._kernel.map_cache)
        for eid in list(self._kernel.local_eids):
            data = self._kernel.local_eids.get(eid)
            if data is not None and tables.local_of(data).delivery is not Delivery.PUNT:
                self._unconfirmed_hosts.add(eid)
            else:
                self._kernel.local_eids.delete(eid)

    def _probe(self) -> None:
        for eid in self._unconfirmed_hosts:
            self._evidence.unknown_source(eid)

    def _forget_unconfirmed(self) -> None:
        """Hosts that did not answer, mappings that nobody asked for: the next packet for them is news."""
        kernel = self._running()
        for eid in self._unconfirmed_hosts - set(self._hosts):
            if eid not in self._away:
                kernel.local_eids.delete(eid)
        for eid in self._unconfirmed:
            kernel.map_cache.delete(eid)
        self._unconfirmed_hosts.clear()
        self._unconfirmed.clear()
        self._slow.remove_kept()

    # --- tables --------------------------------------------------------------------------------------------------

    def install(self, eid: Prefix, forwarding: Forwarding) -> None:
        kernel = self._running()
        entry = tables.mapping(forwarding, self._families, self._own)
        away = isinstance(forwarding, Forward) and forwarding.away
        if eid in self._hosts or self._slow.moving.leads(eid):
            self._shadowed[eid] = entry, away
            self._slow.install(eid, forwarding)
            return
        if self._slow.has(eid):
            kernel.map_cache.update(eid, entry)
            self._slow.install(eid, forwarding)
        else:
            self._slow.install(eid, forwarding)
            self._slow.drain()
            kernel.map_cache.update(eid, entry)
            self._slow.drain()
            self._unconfirmed.discard(eid)
        self._send_on(eid, away=away)

    def _send_on(self, eid: Prefix, *, away: bool) -> None:
        """Packets from the core for an EID that has left go on in the kernel, too."""
        if away and eid not in self._away:
            self._running().local_eids.update(eid, tables.local(Local(Delivery.FORWARD)))
            self._away.add(eid)
        elif not away and eid in self._away:
            self._away.discard(eid)
            self._running().local_eids.delete(eid)

    def remove(self, eid: Prefix) -> None:
        if eid in self._hosts or self._slow.moving.leads(eid):
            self._shadowed.pop(eid, None)
        else:
            self._running().map_cache.delete(eid)
            self._unconfirmed.discard(eid)
            self._send_on(eid, away=False)
        self._slow.remove(eid)

    def deliver(self, eid: Prefix, interface: str, mac: bytes) -> None:
        kernel = self._running()
        if self._slow.moving.leads(eid):
            self._hosts[eid] = (interface, mac)
            self._unconfirmed_hosts.discard(eid)
            self._slow.deliver(eid, interface, mac)
            return
        self._slow.deliver(eid, interface, mac)
        self._slow.drain()
        before = kernel.map_cache.get(eid) if eid not in self._hosts and eid not in self._unconfirmed else None
        if before is not None:
            self._shadowed[eid] = before, eid in self._away
        self._hosts[eid] = (interface, mac)
        self._unconfirmed_hosts.discard(eid)
        self._unconfirmed.discard(eid)
        self._away.discard(eid)
        kernel.local_eids.update(eid, tables.local(self._entry(eid, Delivery.DELIVER)))
        # within the site the kernel's own host route is the way, whatever the mapping of a wider prefix says
        kernel.map_cache.update(eid, tables.STACK)
        self._slow.drain()

    def undeliver(self, eid: Prefix) -> None:
        if self._hosts.pop(eid, None) is not None:
            if self._slow.moving.leads(eid):
                self._turn(eid, Delivery.PUNT)
            else:
                self._unshadow(eid)
        self._slow.undeliver(eid)

    def _unshadow(self, eid: Prefix) -> None:
        """The host is not here: its mapping counts again."""
        kernel = self._running()
        kernel.local_eids.delete(eid)
        shadowed = self._shadowed.pop(eid, None)
        if shadowed is None:
            kernel.map_cache.delete(eid)
        else:
            kernel.map_cache.update(eid, shadowed[0])
            self._send_on(eid, away=shadowed[1])

    # --- moves -----------------------------------------------------------------------------------------------------

    def switch(self, switch: Switch) -> None:
        """The kernel gives everything to the slow path, and has it back when that has nothing left to do.

        Where it delivers and goes on delivering, with or without copies, it keeps everything: its services can be many
        times faster than the slow path is, which would only come to an end when they pause.
        """
        self._opening.update(switch.plan.eids)  # what is drained here must not open again what has just been closed
        for eid in switch.plan.eids:
            if switch.mode is Mode.DELIVER and eid in self._unconfirmed_hosts and not self._slow.moving.leads(eid):
                continue  # a killed run left it delivered, and so it is to be
            if not (switch.mode in _HERE and self._delivers(eid)):
                self._close(eid)
        self._opening.difference_update(switch.plan.eids)
        self._slow.switch(switch)

    def _delivers(self, eid: Prefix) -> bool:
        return eid in self._hosts and self._turned.get(eid, Delivery.DELIVER) is not Delivery.PUNT

    def _close(self, eid: Prefix) -> None:
        """From here on the slow path has everything; what it was given before comes first."""
        kernel = self._running()
        before = kernel.map_cache.get(eid)
        if before is not None and eid not in self._hosts and not self._slow.moving.leads(eid):
            self._shadowed[eid] = before, eid in self._away
        self._away.discard(eid)
        self._slow.drain()  # a host's own packets leave by the kernel as soon as it knows where the host is
        self._turn(eid, Delivery.PUNT)
        kernel.map_cache.update(eid, tables.STACK)  # the site's own packets go by the slow path as well

    def _turn(self, eid: Prefix, delivery: Delivery) -> None:
        self._turned[eid] = delivery
        entry = self._entry(eid, delivery) if eid in self._hosts else Local(delivery)
        self._running().local_eids.update(eid, tables.local(entry))

    def _opened(self, eid: Prefix, mode: Mode) -> None:
        """The slow path has nothing left to do for an EID that it delivers."""
        delivery = Delivery.DELIVER_AND_MIRROR if mode is Mode.MIRROR else Delivery.DELIVER
        if eid not in self._hosts or eid in self._opening or self._turned.get(eid) is delivery:
            return
        if self._delivers(eid):
            self._turn(eid, delivery)
            self._running().map_cache.update(eid, tables.STACK)
            return
        self._opening.add(eid)  # what is drained here brings us here again
        self._slow.drain()
        self._turn(eid, delivery)
        self._running().map_cache.update(eid, tables.STACK)
        self._slow.drain()  # what came between the two
        self._opening.discard(eid)

    def release(self, plan: Plan) -> None:
        for eid in plan.eids:
            if eid in self._hosts:
                self._turn(eid, Delivery.DELIVER)
            else:
                self._slow.drain()
                self._unshadow(eid)
            self._turned.pop(eid, None)
        self._slow.release(plan)

    def mark(self, mark: Mark) -> None:
        self._slow.drain()
        self._slow.mark(mark)

    def await_markers(self, waited: Await) -> None:
        self._slow.await_markers(waited)
        for eid in waited.plan.eids:  # until they have come, in order
            if eid in self._hosts and self._slow.moving.waits(eid) and self._delivers(eid):
                self._turn(eid, Delivery.PUNT)

    def moved(self, eids: tuple[Prefix, ...]) -> dict[str, int]:
        return self._slow.moved(eids)

    def _entry(self, eid: Prefix, delivery: Delivery) -> Local:
        """The host's entry, its statistics going on."""
        kernel = self._running()
        interface, mac = self._hosts[eid]
        entry = kernel.entry(delivery, interface, mac)
        before = self.traffic(eid)
        return entry if before is None else before._replace(**{name: getattr(entry, name) for name in _PLACE})

    # --- questions -----------------------------------------------------------------------------------------------

    def peers(self, eid: Prefix) -> list[Ip]:
        found = self._running().peers(eid, self._loop.time())
        return [*found, *(rloc for rloc in self._slow.peers(eid) if rloc not in found)]

    def heard(self, eid: Prefix) -> float | None:
        traffic = self.traffic(eid)
        return _later(traffic.heard if traffic is not None else None, self._slow.heard(eid))

    def used(self, eid: Prefix) -> float | None:
        data = self._running().map_cache.get(eid) if self._slow.has(eid) else None
        return tables.used(data) if data is not None else None  # the kernel sees what the slow path gets, too

    def traffic(self, eid: Prefix) -> Local | None:
        """What the kernel has forwarded from and to a host that is here."""
        data = self._running().local_eids.get(eid)
        entry = tables.local_of(data) if data is not None else None
        return entry if entry is not None and entry.interface else None

    def counters(self) -> dict[str, int]:
        found = {} if self._kernel is None else self._kernel.counters()  # metrics are read before the start, too
        found.update(self._slow.counters())
        return {name: count for name, count in sorted(found.items()) if count}

    # --- what comes up -------------------------------------------------------------------------------------------

    def _moved(self, sample: bytes) -> None:
        talk = tables.talk_of(sample)
        self._evidence.moved_away(talk.eid, talk.rloc)

    def _punted(self, packet: bytes) -> None:
        """A packet in its outer headers: the kernel gave it up, or it is a copy of one that it delivered."""
        size = _OUTER[packet[0] >> 4]
        datagram = packet[size:]
        if packet[size - 6 : size - 4] == tables.COPY_PORT:
            inner = datagram[8:]
            destination = inner[16:20] if inner[0] >> 4 == 4 else inner[24:40]
            iid = int.from_bytes(datagram[4:7], "big") if datagram[0] & 8 else 0
            self._slow.moving.copied(Prefix.host(destination, iid), inner)
            return
        if packet[0] >> 4 == 4:
            self._slow.tunnelled(datagram, packet[8], packet[1], packet[12:16])
        else:
            traffic_class = (packet[0] << 4 | packet[1] >> 4) & 0xFF
            self._slow.tunnelled(datagram, packet[7], traffic_class, packet[8:24])

    def _running(self) -> Kernel:
        assert self._kernel is not None, "started"
        return self._kernel


def _later(one: float | None, other: float | None) -> float | None:
    return max(one or 0.0, other or 0.0) or None


_HERE = frozenset({Mode.DELIVER, Mode.MIRROR})
_PLACE = ("delivery", "interface", "mac", "gateway_mac")
