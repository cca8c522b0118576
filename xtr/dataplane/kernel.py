"""The kernel's half of the eBPF plane: programs on interfaces, and their tables.

`open` takes over what a daemon that was killed has left running: the new programs get the old ones' maps and replace
them on their interfaces in one step each, so no packet notices. `close` takes everything away.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lispfmc.wire.address import Ip, Prefix
from xtr.dataplane import kernel_tables as tables
from xtr.dataplane import traffic_control
from xtr.dataplane.libbpf import Loaded, Table, cpus, maps_of_program
from xtr.dataplane.netlink import Netlink

TALK_SECONDS = 60.0


class Interface(NamedTuple):
    """An Ethernet interface."""

    number: int
    mac: bytes


class Eids:
    """Prefixes and hosts, which the kernel keeps apart: prefixes in a trie, hosts in a hash table."""

    def __init__(self, prefixes: Table, hosts: Table) -> None:
        self._prefixes, self._hosts = prefixes, hosts

    def update(self, eid: Prefix, value: bytes) -> None:
        if eid.is_host:
            self._hosts.update(tables.host_key(eid), value)
        else:
            self._prefixes.update(tables.key(eid), value)

    def delete(self, eid: Prefix) -> None:
        if eid.is_host:
            self._hosts.delete(tables.host_key(eid))
        else:
            self._prefixes.delete(tables.key(eid))

    def get(self, eid: Prefix) -> bytes | None:
        """A host's entry. A prefix's is that of the longest one that covers it: its own, when it has one."""
        if eid.is_host:
            return self._hosts.lookup(tables.host_key(eid))
        return self._prefixes.lookup(tables.key(eid))

    def __iter__(self) -> Iterator[Prefix]:
        yield from map(tables.prefix_of, list(self._prefixes.keys()))
        yield from map(tables.host_of, list(self._hosts.keys()))


class Kernel:
    """The loaded programs. Every call raises OSError."""

    def __init__(self, netlink: Netlink, site: Mapping[str, int], core: Iterable[str]) -> None:
        """`site`: interfaces with their Instance-IDs. Nothing is in force before `attach`."""
        self._netlink = netlink
        self._instances = dict(site)
        self._site = {name: _interface(name) for name in site}
        self._core = {name: _interface(name) for name in core}
        self._attached: list[int] = []
        left = self._left_running()
        try:
            self._loaded = Loaded(adopt=left)
            self.took_over = bool(left)
        except OSError:
            if not left:
                raise
            self._loaded = Loaded()  # another version's maps: start anew
            self.took_over = False
        finally:
            for fd in left.values():
                os.close(fd)
        self.map_cache = Eids(self._loaded.table("map_cache"), self._loaded.table("map_cache_hosts"))
        self.local_eids = Eids(self._loaded.table("local_eids"), self._loaded.table("local_hosts"))
        self.events: Table = self._loaded.table("events")
        self._counters = self._loaded.table("counters")
        self._talkers = self._loaded.table("talkers")
        self._cpus = cpus()

    def _left_running(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for interface in (*self._site.values(), *self._core.values()):
            program = traffic_control.running(self._netlink, interface.number)
            if program is None:
                continue
            with contextlib.suppress(OSError):  # without CAP_SYS_ADMIN ids say nothing: start anew
                for name, fd in maps_of_program(program).items():
                    if name in found:
                        os.close(fd)
                    else:
                        found[name] = fd
        return found

    def configure(self, *, tun: int, rlocs: tuple[Ip, ...], petr: bool) -> None:
        """Who we are. What an earlier run wrote, and is no more, goes."""
        self._loaded.table("settings").update(tables.number(0), tables.configuration(tun=tun, rlocs=rlocs, petr=petr))
        one = tables.number(1)
        _fill(self._loaded.table("rlocs"), {tables.mapped(rloc): one for rloc in rlocs})
        _fill(self._loaded.table("instances"), {tables.instance(iid): one for iid in self._instances.values()})
        interfaces = {
            tables.number(interface.number): tables.instance(self._instances[name])
            for name, interface in self._site.items()
        }
        _fill(self._loaded.table("site_interfaces"), interfaces)

    def attach(self) -> None:
        """From here on the kernel forwards: first what comes, then what goes."""
        for program, interfaces in (("lisp_decap", self._core), ("lisp_encap", self._site)):
            for interface in interfaces.values():
                traffic_control.attach(self._netlink, interface.number, program, self._loaded.program(program))
                self._attached.append(interface.number)

    def detach(self) -> None:
        for index in (*self._attached, *(each.number for each in (*self._site.values(), *self._core.values()))):
            with contextlib.suppress(OSError):  # the interface is gone, and the filter with it
                traffic_control.detach(self._netlink, index)
        self._attached.clear()

    def close(self) -> None:
        self._loaded.close()

    def entry(self, delivery: tables.Delivery, interface: str, mac: bytes) -> tables.Local:
        """A local EID behind an interface of the site."""
        found = self._site[interface]
        return tables.Local(delivery, found.number, mac, found.mac)

    def counters(self) -> Counter[str]:
        """Packets by what happened to them."""
        found: Counter[str] = Counter()
        for index, name in enumerate(tables.COUNTERS):
            values = self._counters.lookup(tables.number(index), 8 * self._cpus) or b""
            found[name] = sum(memoryview(values).cast("Q"))
        return found

    def peers(self, eid: Prefix, now: float) -> list[Ip]:
        """RLOCs that talked to a local EID in the last minute, newest first."""
        wanted = tables.talk_prefix(eid)
        found = [
            (tables.seen(value), tables.talk_of(key).rloc)
            for key, value in self._talkers.items()
            if key.startswith(wanted)
        ]
        return [rloc for at, rloc in sorted(found, reverse=True) if now - at <= TALK_SECONDS]


def _interface(name: str) -> Interface:
    mac = traffic_control.ethernet_address(name)
    if mac is None:
        raise OSError(95, f"{name} has no Ethernet frames")
    return Interface(socket.if_nametoindex(name), mac)


def _fill(table: Table, wanted: Mapping[bytes, bytes]) -> None:
    for key, value in wanted.items():
        table.update(key, value)
    for key in set(table.keys()) - set(wanted):
        table.delete(key)
