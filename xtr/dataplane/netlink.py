"""Routes, neighbours and links, set synchronously: a delivery takes effect before the call returns.

pyroute2 lays the messages out and reads the answers; its own sockets run an event loop inside, which a daemon that
already runs one cannot use, so the socket is ours. A route and its neighbour cost 0.1 ms together.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any, NamedTuple

from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from lispfmc.wire.address import Ip, Prefix, ip_of, ip_text

PROTOCOL = 143  # rtnetlink's "who made this route": ours, to be found again after a crash
BLACKHOLE_METRIC = 4096  # behind the route to the TUN, so that nothing leaks out unencapsulated when that is gone

MAIN_TABLE = 254

_REQUEST, _ACK, _DUMP, _REPLACE_OR_CREATE, _EXCLUSIVE_CREATE = 0x1, 0x4, 0x300, 0x500, 0x600
_NEW_LINK, _NEW_ROUTE, _DELETE_ROUTE, _NEW_NEIGHBOUR, _DELETE_NEIGHBOUR = 16, 24, 25, 28, 29
_NEW_RULE, _DELETE_RULE, _GET_RULE = 32, 33, 34
_TABLE_IN_ATTRIBUTE = 252  # a table number that needs more than a byte stands in an attribute
_TO_TABLE, _UNREACHABLE_RULE = 1, 7
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_PERMANENT = 0x80
_DONE, _ERROR = 3, 2


class Kind(IntEnum):
    """What a route does: send by an interface, drop, or go on with the next rule's table."""

    UNICAST = 1
    BLACKHOLE = 6
    THROW = 9


class Route(NamedTuple):
    """A route of ours as the kernel has it."""

    prefix: Prefix
    table: int
    interface: int
    kind: Kind


class Rule(NamedTuple):
    """Packets that came in by `interface` are looked up in `table`; 0: they are unreachable."""

    interface: str
    table: int
    priority: int


# linux/netlink.h, linux/rtnetlink.h, linux/neighbour.h
_HEADER, _CODE, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=i"), struct.Struct("=HH")
_NOT_THERE = frozenset({errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.EINVAL})
_RTMSG, _NDMSG = struct.Struct("=BBxxBBBBxxxx"), struct.Struct("=BxxxiHxx")
_RTA_DST, _RTA_OIF, _RTA_TABLE, _NDA_DST, _NDA_LLADDR = 1, 4, 15, 1, 2


class Netlink:
    """One NETLINK_ROUTE socket in the network namespace in which it was opened. Every call raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(2.0)
        self._marshal = MarshalRtnl()
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def set_link_up(self, interface: int, *, mtu: int, queue_length: int) -> None:
        link = ifinfmsg()
        link["index"] = interface
        link["flags"] = link["change"] = 1  # IFF_UP
        link["attrs"] = [("IFLA_MTU", mtu), ("IFLA_TXQLEN", queue_length)]
        self._do(link, _NEW_LINK, 0)

    def sending_dropped(self, interface: int) -> int:
        """Packets that an interface could not send since it was made."""
        link = ifinfmsg()
        link["index"] = interface
        sequence = self._send(link, RTM_GETLINK, _REQUEST)
        counted = next(self._answers(sequence)).get_attr("IFLA_STATS64")
        return int(counted["tx_dropped"]) if counted else 0

    def add_route(self, prefix: Prefix, interface: int, table: int = MAIN_TABLE) -> None:
        """`prefix` is reached by `interface`, whatever was there before."""
        self._ask(_packed_route(prefix, table, interface), _NEW_ROUTE, _REPLACE_OR_CREATE)

    def remove_route(self, prefix: Prefix, interface: int, table: int = MAIN_TABLE) -> None:
        try:
            self._ask(_packed_route(prefix, table, interface), _DELETE_ROUTE, 0)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise

    def add_special(self, prefix: Prefix, kind: Kind, table: int) -> None:
        """A route without an interface."""
        self._do(_special(prefix, kind, table), _NEW_ROUTE, _REPLACE_OR_CREATE)

    def remove_special(self, prefix: Prefix, kind: Kind, table: int) -> None:
        self._gone(_special(prefix, kind, table), _DELETE_ROUTE)

    def add_rule(self, rule: Rule) -> None:
        """Both families; it may be there already."""
        for family in _FAMILIES:
            try:
                self._do(_rule(rule, family), _NEW_RULE, _EXCLUSIVE_CREATE)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.EAFNOSUPPORT):
                    raise

    def remove_rule(self, rule: Rule) -> None:
        for family in _FAMILIES:
            self._gone(_rule(rule, family), _DELETE_RULE)

    def rules(self) -> set[Rule]:
        """The rules that we made, in this run or in one that was killed."""
        found = set()
        for family in _FAMILIES:
            query = fibmsg()
            query["family"] = family
            for rule in self._dump(query, _GET_RULE):
                if rule.get_attr("FRA_PROTOCOL") == PROTOCOL:
                    interface, table = rule.get_attr("FRA_IIFNAME") or "", rule.get_attr("FRA_TABLE") or 0
                    unreachable = rule["action"] == _UNREACHABLE_RULE
                    found.add(Rule(interface, 0 if unreachable else table, rule.get_attr("FRA_PRIORITY") or 0))
        return found

    def add_neighbour(self, ip: Ip, interface: int, mac: bytes) -> None:
        """`ip` has `mac` for good: nothing is asked on the link before its packets go out."""
        body = _NDMSG.pack(_family(ip), interface, _PERMANENT) + _attribute(_NDA_DST, ip) + _attribute(_NDA_LLADDR, mac)
        self._ask(body, _NEW_NEIGHBOUR, _REPLACE_OR_CREATE)

    def remove_neighbour(self, ip: Ip, interface: int) -> None:
        self._gone(_neighbour(ip, interface), _DELETE_NEIGHBOUR)

    def routes(self) -> list[Route]:
        """The routes that we made, in this run or in one that was killed."""
        found = []
        for family in _FAMILIES:
            query = rtmsg()
            query["family"] = family
            for route in self._dump(query, RTM_GETROUTE):
                if route["proto"] != PROTOCOL:
                    continue
                ip = ip_of(route.get_attr("RTA_DST") or ("0.0.0.0" if family == socket.AF_INET else "::"))  # noqa: S104
                prefix = Prefix.of(ip, route["dst_len"])
                table = route.get_attr("RTA_TABLE") or route["table"]
                special = route["type"] in (Kind.BLACKHOLE, Kind.THROW)
                interface = 0 if special else route.get_attr("RTA_OIF") or 0
                found.append(Route(prefix, table, interface, Kind(route["type"]) if special else Kind.UNICAST))
        return found

    def addresses(self, interface: int) -> list[Ip]:
        """The interface's own addresses."""
        return [
            ip_of(each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"))
            for each in self._dump(ifaddrmsg(), RTM_GETADDR)
            if each["index"] == interface
        ]

    def change(self, message: Any, kind: int, flags: int = 0) -> None:
        """Send a request of another kind than those above."""
        self._do(message, kind, flags)

    def listed(self, message: Any, kind: int) -> list[Any]:
        """Dump a table of another kind than those above."""
        return self._dump(message, kind)

    def holders(self, ips: Iterable[Ip]) -> set[int]:
        """The interfaces that have one of these addresses."""
        wanted = set(ips)
        return {
            each["index"]
            for each in self._dump(ifaddrmsg(), RTM_GETADDR)
            if ip_of(each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS")) in wanted
        }

    def _do(self, message: Any, kind: int, flags: int) -> None:
        self._acknowledged(self._send(message, kind, _REQUEST | _ACK | flags))

    def _ask(self, body: bytes, kind: int, flags: int) -> None:
        """What packets wait for is laid out by hand: a tenth of the time."""
        self._sequence += 1
        self._socket.send(_HEADER.pack(16 + len(body), kind, _REQUEST | _ACK | flags, self._sequence, 0) + body)
        self._acknowledged(self._sequence)

    def _acknowledged(self, sequence: int) -> None:
        while True:
            answer = self._socket.recv(1 << 16)
            at = 0
            while at < len(answer):
                length, kind, _, number, _ = _HEADER.unpack_from(answer, at)
                if number == sequence and kind == _ERROR:
                    (code,) = _CODE.unpack_from(answer, at + _HEADER.size)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                at += (length + 3) & ~3

    def _gone(self, message: Any, kind: int) -> None:
        """Delete; what is not there is deleted already."""
        try:
            self._do(message, kind, 0)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise

    def _dump(self, message: Any, kind: int) -> list[Any]:
        sequence = self._send(message, kind, _REQUEST | _DUMP)
        found = []
        for answer in self._answers(sequence):
            if answer["header"]["type"] == _DONE:
                break
            found.append(answer)
        return found

    def _send(self, message: Any, kind: int, flags: int) -> int:
        self._sequence += 1
        message["header"] = {"type": kind, "flags": flags, "sequence_number": self._sequence, "pid": 0}
        message.encode()
        self._socket.send(bytes(message.data))
        return self._sequence

    def _answers(self, sequence: int) -> Iterator[Any]:
        while True:
            for answer in self._marshal.parse(self._socket.recv(1 << 16)):
                if answer["header"]["sequence_number"] != sequence:
                    continue  # the tail of an exchange that was given up
                error = answer["header"].get("error")
                if error is not None and error.code:
                    raise OSError(error.code, os.strerror(error.code))
                yield answer


def _family(ip: Ip) -> int:
    return socket.AF_INET6 if len(ip) == 16 else socket.AF_INET


def _packed_route(prefix: Prefix, table: int, interface: int) -> bytes:
    head = _RTMSG.pack(
        _family(prefix.ip),
        prefix.length,
        table if table < 256 else _TABLE_IN_ATTRIBUTE,
        PROTOCOL,
        _SCOPE_LINK if len(prefix.ip) == 4 else _SCOPE_UNIVERSE,
        int(Kind.UNICAST),
    )
    numbers = ((_RTA_TABLE, table), (_RTA_OIF, interface))
    return head + _attribute(_RTA_DST, prefix.ip) + b"".join(_attribute(name, _CODE.pack(n)) for name, n in numbers)


def _attribute(name: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), name) + value + bytes(-len(value) % 4)


def _special(prefix: Prefix, kind: Kind, table: int) -> Any:
    route = _base(prefix, table, kind)
    if kind is Kind.BLACKHOLE:
        route["attrs"].append(("RTA_PRIORITY", BLACKHOLE_METRIC))
    return route


def _base(prefix: Prefix, table: int, kind: Kind) -> Any:
    route = rtmsg()
    route.update({"family": _family(prefix.ip), "dst_len": prefix.length, "proto": PROTOCOL, "type": int(kind)})
    route["table"] = table if table < 256 else _TABLE_IN_ATTRIBUTE
    route["scope"] = _SCOPE_UNIVERSE
    route["attrs"] = [("RTA_DST", ip_text(prefix.ip)), ("RTA_TABLE", table)]
    return route


def _rule(rule: Rule, family: int) -> Any:
    message = fibmsg()
    message["family"] = family
    message["action"] = _TO_TABLE if rule.table else _UNREACHABLE_RULE
    message["table"] = rule.table if rule.table < 256 else _TABLE_IN_ATTRIBUTE
    message["attrs"] = [
        ("FRA_IIFNAME", rule.interface),
        ("FRA_PRIORITY", rule.priority),
        ("FRA_PROTOCOL", PROTOCOL),
    ]
    if rule.table:
        message["attrs"].append(("FRA_TABLE", rule.table))
    return message


def _neighbour(ip: Ip, interface: int) -> Any:
    neighbour = ndmsg()
    neighbour.update({"family": _family(ip), "ifindex": interface, "state": _PERMANENT})
    neighbour["attrs"] = [("NDA_DST", ip_text(ip))]
    return neighbour
