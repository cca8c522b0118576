"""What the xTR lays out by hand for the kernel says what pyroute2 would say."""

from __future__ import annotations

import socket

import pytest
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from lispfmc.wire.address import Prefix, ip_text
from xtr.dataplane import netlink
from xtr.dataplane.netlink import MAIN_TABLE, PROTOCOL, Kind, Netlink

INTERFACE = 7
UNIVERSE_SCOPE, LINK_SCOPE = 0, 253  # linux/rtnetlink.h
MAC = bytes.fromhex("020000000077")
PREFIXES = ["100.64.101.10/32", "100.64.0.0/10", "fd00:0:0:101::10/128"]


def head(kind: int, body: bytes) -> bytes:
    return netlink._HEADER.pack(16 + len(body), kind, 5, 1, 0) + body


@pytest.mark.parametrize("prefix", [Prefix.parse(text) for text in PREFIXES], ids=str)
@pytest.mark.parametrize("table", [MAIN_TABLE, 4711])
def test_a_route_laid_out_by_hand_is_the_librarys_route(prefix: Prefix, table: int) -> None:
    theirs = netlink._base(prefix, table, Kind.UNICAST)
    theirs["scope"] = LINK_SCOPE if len(prefix.ip) == 4 else UNIVERSE_SCOPE
    theirs["attrs"].append(("RTA_OIF", INTERFACE))
    ours = rtmsg(head(netlink._NEW_ROUTE, netlink._packed_route(prefix, table, INTERFACE)))
    ours.decode()
    for field in ("family", "dst_len", "table", "proto", "scope", "type"):
        assert ours[field] == theirs[field], field
    assert dict(ours["attrs"]) == dict(theirs["attrs"])
    assert ours["proto"] == PROTOCOL


class Socket:
    """A kernel that says yes, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.asked.append(data)

    def recv(self, _: int) -> bytes:
        _, _, _, number, _ = netlink._HEADER.unpack_from(self.asked[-1])
        return netlink._HEADER.pack(20, netlink._ERROR, 0, number, 0) + netlink._CODE.pack(0)


@pytest.mark.parametrize("text", ["100.64.101.10", "fd00:0:0:101::10"])
def test_a_neighbour_laid_out_by_hand_is_the_librarys_neighbour(text: str) -> None:
    asked, kernel = Netlink(), Socket()
    asked.close()
    asked._socket = kernel  # type: ignore[assignment]
    ip = Prefix.parse(f"{text}/{32 if '.' in text else 128}").ip
    asked.add_neighbour(ip, INTERFACE, MAC)
    ours = ndmsg(kernel.asked[0])
    ours.decode()
    theirs = netlink._neighbour(ip, INTERFACE)
    for field in ("family", "ifindex", "state"):
        assert ours[field] == theirs[field], field
    assert ours.get_attr("NDA_DST") == ip_text(ip)
    assert ours.get_attr("NDA_LLADDR") == MAC.hex(":")
    assert ours["family"] == (socket.AF_INET if "." in text else socket.AF_INET6)


def test_what_the_kernel_refuses_is_raised_and_an_answer_to_something_else_is_passed_over() -> None:
    asked = Netlink()
    try:
        with pytest.raises(OSError, match="No such device"):
            asked.add_route(Prefix.parse("192.0.2.1/32"), 1 << 30)
        # of an exchange that was given up: it is read past
        asked._socket.send(netlink._HEADER.pack(16, netlink._NEW_ROUTE, 5, 99, 0))
        with pytest.raises(OSError, match="No such device"):
            asked.add_neighbour(bytes(4), 1 << 30, MAC)
    finally:
        asked.close()
