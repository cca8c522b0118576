"""Routes, neighbours and links, set synchronously: a delivery takes effect before the call returns.

pyroute2 lays the messages out and reads the answers; its own sockets run an event loop inside, which a daemon that
already runs one cannot use, so the socket is ours. A route and its neighbour cost 0.1 ms together.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETROUTE
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from lispfmc.wire.address import Ip, Prefix, ip_of, ip_text

PROTOCOL = 143  # rtnetlink's "who made this route": ours, to be found again after a crash
BLACKHOLE_METRIC = 4096  # behind the route to the TUN, so that nothing leaks out unencapsulated when that is gone

_REQUEST, _ACK, _DUMP, _REPLACE_OR_CREATE = 0x1, 0x4, 0x300, 0x500
_NEW_LINK, _NEW_ROUTE, _DELETE_ROUTE, _NEW_NEIGHBOUR, _DELETE_NEIGHBOUR = 16, 24, 25, 28, 29
_MAIN_TABLE, _UNICAST, _BLACKHOLE = 254, 1, 6
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_NOWHERE = 0, 253, 255
_PERMANENT = 0x80
_DONE, _ERROR = 3, 2


class HostRoute(NamedTuple):
    """A host route of ours as the kernel has it."""

    ip: Ip
    interface: int


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

    def add_route(self, prefix: Prefix, interface: int) -> None:
        """`prefix` is reached by `interface`, whatever was there before."""
        self._do(_route(prefix, interface), _NEW_ROUTE, _REPLACE_OR_CREATE)

    def remove_route(self, prefix: Prefix, interface: int) -> None:
        self._gone(_route(prefix, interface), _DELETE_ROUTE)

    def add_blackhole(self, prefix: Prefix) -> None:
        self._do(_blackhole(prefix), _NEW_ROUTE, _REPLACE_OR_CREATE)

    def remove_blackhole(self, prefix: Prefix) -> None:
        self._gone(_blackhole(prefix), _DELETE_ROUTE)

    def add_neighbour(self, ip: Ip, interface: int, mac: bytes) -> None:
        """`ip` has `mac` for good: nothing is asked on the link before its packets go out."""
        neighbour = _neighbour(ip, interface)
        neighbour["attrs"].append(("NDA_LLADDR", mac.hex(":")))
        self._do(neighbour, _NEW_NEIGHBOUR, _REPLACE_OR_CREATE)

    def remove_neighbour(self, ip: Ip, interface: int) -> None:
        self._gone(_neighbour(ip, interface), _DELETE_NEIGHBOUR)

    def host_routes(self) -> list[HostRoute]:
        """The host routes that we made, in this run or in one that crashed."""
        found = []
        for family, bits in ((socket.AF_INET, 32), (socket.AF_INET6, 128)):
            query = rtmsg()
            query["family"] = family
            for route in self._dump(query, RTM_GETROUTE):
                interface = route.get_attr("RTA_OIF")
                if route["proto"] == PROTOCOL and route["dst_len"] == bits and route["type"] == _UNICAST and interface:
                    found.append(HostRoute(ip_of(route.get_attr("RTA_DST")), interface))
        return found

    def addresses(self, interface: int) -> list[Ip]:
        """The interface's own addresses."""
        return [
            ip_of(each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"))
            for each in self._dump(ifaddrmsg(), RTM_GETADDR)
            if each["index"] == interface
        ]

    def _do(self, message: Any, kind: int, flags: int) -> None:
        sequence = self._send(message, kind, _REQUEST | _ACK | flags)
        for answer in self._answers(sequence):
            if answer["header"]["type"] == _ERROR:
                return

    def _gone(self, message: Any, kind: int) -> None:
        """Delete; what is not there is deleted already."""
        try:
            self._do(message, kind, 0)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.EINVAL):
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


def _route(prefix: Prefix, interface: int) -> Any:
    route = rtmsg()
    route.update({"family": _family(prefix.ip), "dst_len": prefix.length, "table": _MAIN_TABLE, "proto": PROTOCOL})
    route["type"] = _UNICAST
    route["scope"] = _SCOPE_LINK if len(prefix.ip) == 4 else _SCOPE_UNIVERSE
    route["attrs"] = [("RTA_DST", ip_text(prefix.ip)), ("RTA_OIF", interface)]
    return route


def _blackhole(prefix: Prefix) -> Any:
    route = rtmsg()
    route.update({"family": _family(prefix.ip), "dst_len": prefix.length, "table": _MAIN_TABLE, "proto": PROTOCOL})
    route["type"] = _BLACKHOLE
    route["scope"] = _SCOPE_UNIVERSE
    route["attrs"] = [("RTA_DST", ip_text(prefix.ip)), ("RTA_PRIORITY", BLACKHOLE_METRIC)]
    return route


def _neighbour(ip: Ip, interface: int) -> Any:
    neighbour = ndmsg()
    neighbour.update({"family": _family(ip), "ifindex": interface, "state": _PERMANENT})
    neighbour["attrs"] = [("NDA_DST", ip_text(ip))]
    return neighbour
