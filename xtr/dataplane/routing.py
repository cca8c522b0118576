"""What the kernel's routing says for one Instance-ID: a table of its own, for packets of its own interfaces.

In it: EID ranges to the TUN device, the hosts that are here, blackholes under the ranges so that nothing goes out
unencapsulated when the device is gone, and `throw` routes for what is the plain table's business (Natively-Forward).
The file's own Instance-ID shares the rest of the world with everybody; any other one ends at its own table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire.address import Ip, Prefix
from xtr.dataplane.netlink import MAIN_TABLE, Kind, Netlink, Route, Rule

RULE_PRIORITY = 4341  # before the main table's 32 766, after the local table's 0


class Routing:
    """One Instance-ID's part of the kernel. Every call raises OSError."""

    def __init__(
        self,
        netlink: Netlink,
        *,
        table: int,
        watched_table: int,
        isolated: bool,
        device: tuple[str, int],
        interfaces: Mapping[str, int],
        ranges: Iterable[Prefix],
    ) -> None:
        """`device` and `interfaces`: names and kernel numbers; `ranges` are routed into the device. `watched_table` is
        for what the device gives to hosts whose packets from the site's own interfaces go by the device as well."""
        self._netlink = netlink
        self._table = table
        self._watched_table = watched_table
        self._isolated = isolated
        self._device = device[1]
        self._interfaces = dict(interfaces)
        self._ranges = tuple(ranges)
        self._hosts: dict[Ip, tuple[str, bytes]] = {}
        self._watched: set[Ip] = set()
        self._native: PrefixTable[None] = PrefixTable()
        self._shadowing: set[Prefix] = set()
        names = (*interfaces, device[0])
        self.rules = frozenset(Rule(name, table, RULE_PRIORITY) for name in names)
        self.rules |= {Rule(device[0], watched_table, RULE_PRIORITY - 1)}
        if isolated:
            self.rules |= {Rule(name, 0, RULE_PRIORITY + 1) for name in names}

    def open(self) -> None:
        """First what the table says, then the rules that make it count."""
        for prefix in self._ranges:
            self._netlink.add_special(prefix, Kind.BLACKHOLE, self._table)
            self._netlink.add_route(prefix, self._device, self._table)
        for rule in self.rules:
            self._netlink.add_rule(rule)

    def close(self) -> None:
        """First the rules: what is left in the table counts for nobody."""
        for rule in self.rules:
            self._netlink.remove_rule(rule)
        for prefix in self._ranges:
            self._netlink.remove_special(prefix, Kind.BLACKHOLE, self._table)
            self._netlink.remove_route(prefix, self._device, self._table)
        for prefix, _ in list(self._native.items()):
            self._netlink.remove_special(prefix, Kind.THROW, self._table)
        for ip in list(self._hosts):
            self.undeliver(ip)

    def wants(self, route: Route) -> bool:
        """Whether a route that is there already is one that `open` sets again: it need not be taken out meanwhile."""
        return route.table == self._table and route.prefix in self._bare_ranges() and route.kind is not Kind.THROW

    def _bare_ranges(self) -> set[Prefix]:
        return {Prefix(0, prefix.ip, prefix.length) for prefix in self._ranges}

    # --- hosts ---------------------------------------------------------------------------------------------------

    def deliver(self, ip: Ip, interface: str, mac: bytes, *, watched: bool = False) -> None:
        """The host `ip` is behind `interface`. `watched`: whatever the site sends to it comes to the device first."""
        index = self._interfaces[interface]
        before = self._index_of(ip)
        if before is not None and before != index:
            self._netlink.remove_neighbour(ip, before)
        if self._hosts.get(ip) != (interface, mac):
            self._netlink.add_neighbour(ip, index, mac)
        old = self._host_tables(ip) if ip in self._hosts else ()
        self._hosts[ip] = (interface, mac)
        (self._watched.add if watched else self._watched.discard)(ip)
        for table in self._host_tables(ip):
            self._netlink.add_route(Prefix.host(ip), index, table)
        for table in set(old) - set(self._host_tables(ip)):
            self._netlink.remove_route(Prefix.host(ip), before or index, table)

    def undeliver(self, ip: Ip) -> None:
        index = self._index_of(ip)
        if index is not None:
            for table in self._host_tables(ip):
                self._netlink.remove_route(Prefix.host(ip), index, table)
            self._netlink.remove_neighbour(ip, index)
            self._watched.discard(ip)
            del self._hosts[ip]

    def place(self, ip: Ip) -> tuple[str, bytes]:
        """Where a host is that is delivered."""
        return self._hosts[ip]

    def _index_of(self, ip: Ip) -> int | None:
        host = self._hosts.get(ip)
        return self._interfaces[host[0]] if host else None

    def _host_tables(self, ip: Ip) -> tuple[int, ...]:
        # this machine's own packets, ICMP errors above all, go by the main table
        table = self._watched_table if ip in self._watched else self._table
        return (table,) if self._isolated else (table, MAIN_TABLE)

    # --- Natively-Forward ----------------------------------------------------------------------------------------

    def leave(self, prefix: Prefix, inside: Iterable[Prefix]) -> None:
        """The plain routing table has `prefix`, except the entries `inside` it that are ours."""
        for ours in inside:
            self._shadow(ours)
        self._shadowing.discard(prefix)
        self._netlink.add_special(prefix, Kind.THROW, self._table)
        self._native.set(prefix, None)

    def take(self, prefix: Prefix) -> None:
        """`prefix` is ours again, or has an entry of its own."""
        self.forget(prefix)
        if len(self._native) and self._native.longest(prefix) is not None:
            self._shadow(prefix)

    def forget(self, prefix: Prefix) -> None:
        """There is no entry for `prefix` any more."""
        if prefix in self._shadowing:
            self._shadowing.discard(prefix)
            self._netlink.remove_route(prefix, self._device, self._table)
        if prefix in self._native:
            self._native.remove(prefix)
            if prefix in self._ranges:
                self._netlink.add_route(prefix, self._device, self._table)
            else:
                self._netlink.remove_special(prefix, Kind.THROW, self._table)

    def _shadow(self, prefix: Prefix) -> None:
        if prefix.is_host and prefix.ip in self._hosts:
            return
        self._netlink.add_route(prefix, self._device, self._table)
        self._shadowing.add(prefix)
