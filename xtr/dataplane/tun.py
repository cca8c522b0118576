"""The portable data plane: TUN devices on the site's side, UDP port 4341 on the core's (RFC 9300 §5).

Site to core (`outbound`): source check, map-cache, encapsulate; without a mapping the packet waits and the miss is
reported. Core to site (`inbound`): header, Instance-ID and inner packet checked, then delivered if its destination is
here, passed on if that has moved away, else dropped. Every packet ends in exactly one counter.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterable

from lispfmc.core.plans import Plan
from lispfmc.wire.address import Ip, Prefix
from xtr.dataplane import Evidence
from xtr.dataplane.device import Device
from xtr.dataplane.inbound import Inbound
from xtr.dataplane.instance import Instance, Shared
from xtr.dataplane.moving import Moving, Tell
from xtr.dataplane.netlink import Kind, Netlink, Route
from xtr.dataplane.outbound import Outbound
from xtr.dataplane.outer import Outer, Told
from xtr.dataplane.routing import Routing
from xtr.dataplane.stack import Stack
from xtr.effects import Forwarding
from xtr.roles.peer import Await, Mark
from xtr.roles.state import Switch
from xtr.settings import XtrSettings

BATCH = 64  # packets a wake-up, so that one direction does not starve the other
DRAIN_S = 0.05  # an end to draining under a flood: what comes faster than we work must not keep us from the rest
SWEEP_SECONDS = 0.25


class TunPlane:
    """All Instance-IDs of a tunnel router. `xtr.dataplane.DataPlane` says what the calls mean."""

    def __init__(
        self,
        settings: XtrSettings,
        *,
        batch: int = BATCH,
        persistent: bool = False,
        punted: Callable[[bytes], None] | None = None,
        tell: Tell | None = None,
    ) -> None:
        """`batch` = 1: one packet a call, which is what the benchmark compares with. `persistent`: the devices stay
        when the process is killed. `punted` gets packets for our own RLOCs that somebody put into a device; `tell` is
        told which EIDs of a move a faster plane may deliver."""
        self._settings = settings
        self._batch = batch
        self._persistent = persistent
        self._shared = Shared(settings, time.monotonic, punted)
        iids = {settings.instance_id, *settings.instances.values()}
        self._instances = {iid: Instance(iid, settings, self._shared) for iid in sorted(iids)}
        self._devices: dict[int, Device] = {}
        self._routing: dict[int, Routing] = {}
        self._outbounds: dict[int, Outbound] = {}
        self._descriptors: dict[int, int] = {}
        self.moving = self._shared.moving = Moving(
            self._shared, self._instances, self._outbounds, self._routing, self._forget_ways, tell
        )
        self._inbound = Inbound(self._shared, self._instances, self._outbounds, self._descriptors, batch)
        self._outers: list[Outer] = []
        self._stack: Stack | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._kept: list[Route] = []
        self._keeping: frozenset[Ip] = frozenset()
        self._started = False

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self, evidence: Evidence) -> None:
        """Everything that depends on the current network namespace happens here."""
        self._shared.evidence = evidence
        self._loop = asyncio.get_running_loop()
        self._netlink = Netlink()
        self._started = True
        try:
            for rloc in self._settings.rlocs:
                self._outers.append(Outer(rloc, runs=self._batch > 1))
            self._shared.outers.update({len(outer.rloc): outer for outer in reversed(self._outers)})
            for place, iid in enumerate(self._instances):
                self._open(iid, self._settings.dataplane.table + place)
            self._remove_leftovers()
            for routing in self._routing.values():
                routing.open()
            self._stack = Stack()
        except OSError:
            self.close()
            raise
        for iid, device in self._devices.items():
            self._loop.add_reader(device.fd, self._outbounds[iid].readable)
        for outer in self._outers:
            self._loop.add_reader(outer.receiver.fileno(), self._inbound.readable, outer)
        self._sweep_waiting()

    def close(self) -> None:
        if not self._started:
            return
        self._started = False
        if self._sweep is not None:
            self._sweep.cancel()
        for outer in self._outers:
            self._loop.remove_reader(outer.receiver.fileno())
            outer.close()
        for routing in self._routing.values():
            routing.close()
        self.moving.close()
        for device in self._devices.values():
            self._loop.remove_reader(device.fd)
            device.close()
        if self._stack is not None:
            self._stack.close()
        self._netlink.close()

    def device_index(self, iid: int) -> int:
        """The kernel's number of the TUN device of an Instance-ID."""
        return self._devices[iid].index

    def _open(self, iid: int, table: int) -> None:
        own = iid == self._settings.instance_id
        name = self._settings.dataplane.device if own else f"{self._settings.dataplane.device}.{iid}"
        mtu = self._settings.dataplane.mtu
        device = self._devices[iid] = Device(name, mtu, self._netlink, persistent=self._persistent)
        self._descriptors[iid] = device.fd
        self._outbounds[iid] = Outbound(self._instances[iid], device, mtu, self._batch)
        self._routing[iid] = Routing(
            self._netlink,
            table=table,
            watched_table=table + len(self._instances),
            isolated=not own,
            device=(name, device.index),
            interfaces={
                each: socket.if_nametoindex(each) for each, of in self._settings.instances.items() if of == iid
            },
            ranges=[prefix for prefix in self._settings.eid_ranges if prefix.iid == iid],
        )

    def _remove_leftovers(self) -> None:
        """What a run that was killed left, but for what keeps its packets in: its hosts may be elsewhere by now."""
        wanted = {rule for routing in self._routing.values() for rule in routing.rules}
        for rule in self._netlink.rules() - wanted:
            self._netlink.remove_rule(rule)
        for route in self._netlink.routes():
            if any(routing.wants(route) for routing in self._routing.values()):
                continue
            if route.kind is Kind.UNICAST and route.prefix.is_host and route.prefix.ip in self._keeping:
                self._kept.append(route)
            else:
                self._remove_route(route)

    def _remove_route(self, route: Route) -> None:
        if route.kind is not Kind.UNICAST:
            self._netlink.remove_special(route.prefix, route.kind, route.table)
            return
        self._netlink.remove_route(route.prefix, route.interface, route.table)
        if route.prefix.is_host:
            self._netlink.remove_neighbour(route.prefix.ip, route.interface)

    # --- beside a faster plane -----------------------------------------------------------------------------------

    def keep(self, hosts: Iterable[Ip]) -> None:
        """Before `start`: host routes that a killed run left and that go on until `remove_kept`."""
        self._keeping = frozenset(hosts)

    def remove_kept(self) -> None:
        """Whoever has not been delivered anew is not here."""
        here = set().union(*(instance.here for instance in self._instances.values()))
        for route in self._kept:
            if route.prefix.ip not in here:
                self._remove_route(route)
        self._kept.clear()

    def has(self, eid: Prefix) -> bool:
        """Whether there is an entry for exactly this prefix."""
        instance = self._instances.get(eid.iid)
        return instance is not None and instance.table.exactly(eid) is not None

    def drain(self) -> None:
        """Work off what the devices hold now."""
        until = self._shared.now() + DRAIN_S
        for outbound in self._outbounds.values():
            while outbound.readable() and self._shared.now() < until:
                pass

    def tunnelled(self, datagram: bytes, ttl: int, tos: int, sender: Ip) -> None:
        """A datagram of port 4341 that did not come by our sockets."""
        self._inbound.datagrams(datagram, Told(ttl, tos, 0), sender, self._shared.now())
        self._inbound.flush()

    # --- tables --------------------------------------------------------------------------------------------------

    def install(self, eid: Prefix, forwarding: Forwarding) -> None:
        instance = self._instances.get(eid.iid)
        if instance is None:
            return  # a mapping of an Instance-ID that no interface of ours is in
        entry, routing = self._shared.entry(forwarding), self._routing[eid.iid]
        before = instance.table.exactly(eid)
        entry.used = before.used if before else None
        self._forget_ways(eid.iid)
        instance.table.install(eid, entry)
        if entry.native and eid.iid == self._settings.instance_id:
            routing.leave(eid, [prefix for prefix, each in instance.table.inside(eid) if not each.native])
        else:
            routing.take(eid)
        if entry.local:
            return  # what waits goes out when the host is delivered
        for ip, queue in instance.release(eid):
            if ip not in instance.here:
                self._outbounds[eid.iid].again(ip, queue, self._shared.now())

    def remove(self, eid: Prefix) -> None:
        instance = self._instances.get(eid.iid)
        if instance is not None:
            self._forget_ways(eid.iid)
            instance.table.remove(eid)
            self._routing[eid.iid].forget(eid)

    def deliver(self, eid: Prefix, interface: str, mac: bytes) -> None:
        if self.moving.placed(eid, interface, mac):
            return
        instance = self._instances[eid.iid]
        self._forget_ways(eid.iid)
        self._routing[eid.iid].deliver(eid.ip, interface, mac)
        instance.here.add(eid.ip)
        for _, queue in instance.release(eid):
            for held in queue:
                if self._outbounds[eid.iid].to_site(held.packet):
                    self._shared.count["decapsulated" if held.outer_ttl is not None else "delivered"] += 1

    def undeliver(self, eid: Prefix) -> None:
        instance = self._instances[eid.iid]
        instance.heard.pop(eid.ip, None)
        if self.moving.displaced(eid):
            return
        self._forget_ways(eid.iid)
        instance.here.discard(eid.ip)
        self._routing[eid.iid].undeliver(eid.ip)

    def switch(self, switch: Switch) -> None:
        self.moving.switch(switch)

    def release(self, plan: Plan) -> None:
        self.moving.release(plan)

    def mark(self, mark: Mark) -> None:
        self.moving.mark(mark)

    def await_markers(self, waited: Await) -> None:
        self.moving.await_markers(waited)

    def moved(self, eids: tuple[Prefix, ...]) -> dict[str, int]:
        return self.moving.moved(eids)

    def _forget_ways(self, iid: int) -> None:
        self._outbounds[iid].forget()
        self._inbound.forget()

    # --- views ---------------------------------------------------------------------------------------------------

    def peers(self, eid: Prefix) -> list[Ip]:
        instance = self._instances.get(eid.iid)
        return instance.talkers.peers(eid.ip, self._shared.now()) if instance else []

    def heard(self, eid: Prefix) -> float | None:
        instance = self._instances.get(eid.iid)
        return instance.heard.get(eid.ip) if instance else None

    def used(self, eid: Prefix) -> float | None:
        instance = self._instances.get(eid.iid)
        entry = instance.table.exactly(eid) if instance else None
        return entry.used if entry else None

    def counters(self) -> dict[str, int]:
        self.moving.account()
        return dict(sorted((self._shared.count | self._lost_before_us()).items()))

    def _lost_before_us(self) -> dict[str, int]:
        """What the kernel could not give us: it came while we were not scheduled, or was no whole packet."""
        if not self._started or self._stack is None:
            return {}
        found = {**self._stack.dropped(), "dropped.socket-full": sum(outer.full() for outer in self._outers)}
        with contextlib.suppress(OSError):  # the device was taken away
            found["dropped.device-full"] = sum(device.full(self._netlink) for device in self._devices.values())
        return {name: count for name, count in found.items() if count}

    # --- time ----------------------------------------------------------------------------------------------------

    def _sweep_waiting(self) -> None:
        now = self._shared.now()
        for instance in self._instances.values():
            dropped = instance.waiting.expire(now)
            if dropped:
                self._shared.count["dropped.unresolved"] += dropped
        self.moving.sweep(now)
        self._sweep = self._loop.call_later(SWEEP_SECONDS, self._sweep_waiting)
