"""Programs on the ingress hook of interfaces: tc's clsact queueing discipline with a filter that runs one.

A filter outlives the process that made it and keeps its program and the program's maps; `running` finds them again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
import sys
from typing import Any

from pyroute2.netlink.rtnl.tcmsg import tcmsg

from xtr.dataplane.netlink import Netlink

PRIORITY = 4341  # one of tc's numbers of ours, so that other filters may stand before or behind
HANDLE = 1

_NEW_QDISC, _DELETE_QDISC = 36, 37
_NEW_FILTER, _DELETE_FILTER, _GET_FILTER = 44, 45, 46
_CLSACT, _CLSACT_HANDLE, _INGRESS, _EGRESS = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2, 0xFFFFFFF3
_EVERY_PROTOCOL = 0x0300  # ETH_P_ALL in network byte order
_DIRECT_ACTION = 1
_PROGRAM_ID = 11  # TCA_BPF_ID
_CREATE_NEW, _CREATE_OR_REPLACE = 0x600, 0x500
_SIOCGIFHWADDR, _ARPHRD_ETHER = 0x8927, 1


def attach(netlink: Netlink, interface: int, name: str, program: int) -> None:
    """Run the program from now on; one of ours that ran before is replaced without a gap. Raises OSError."""
    try:
        netlink.change(_clsact(interface), _NEW_QDISC, _CREATE_NEW)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise OSError(error.errno, f"tc clsact: {error.strerror}") from error
    message = _filter(interface)
    options = [("TCA_BPF_FD", program), ("TCA_BPF_NAME", name), ("TCA_BPF_FLAGS", _DIRECT_ACTION)]
    message["attrs"] = [("TCA_KIND", "bpf"), ("TCA_OPTIONS", {"attrs": options})]
    try:
        netlink.change(message, _NEW_FILTER, _CREATE_OR_REPLACE)
    except OSError as error:
        raise OSError(error.errno, f"tc filter: {error.strerror}") from error


def detach(netlink: Netlink, interface: int) -> None:
    """Take our filter away, and the clsact when nobody else has a filter there. What is not there is gone already."""
    _gone(netlink, _filter(interface), _DELETE_FILTER)
    with contextlib.suppress(OSError):
        if not any(_filters(netlink, interface, parent) for parent in (_INGRESS, _EGRESS)):
            _gone(netlink, _clsact(interface), _DELETE_QDISC)


def running(netlink: Netlink, interface: int) -> int | None:
    """The id of the program that our filter on this interface runs."""
    for found in _filters(netlink, interface, _INGRESS):
        options = found.get_attr("TCA_OPTIONS")
        if found["info"] >> 16 == PRIORITY:
            for name, value in options["attrs"]:
                # pyroute2 does not know this attribute and leaves its bytes where they are
                if name == "UNKNOWN" and value["header"]["type"] == _PROGRAM_ID:
                    return int.from_bytes(bytes(value.data[value.offset + 4 : value.offset + 8]), sys.byteorder)
    return None


def ethernet_address(name: str) -> bytes | None:
    """The interface's MAC address; None when its frames are not Ethernet's. Raises OSError when it is not there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))
    kind, mac = struct.unpack_from("=H6s", answer, 16)
    return mac if kind == _ARPHRD_ETHER else None


def _clsact(interface: int) -> Any:
    message = tcmsg()
    message.update({"index": interface, "handle": _CLSACT_HANDLE, "parent": _CLSACT})
    message["attrs"] = [("TCA_KIND", "clsact")]
    return message


def _filter(interface: int) -> Any:
    message = tcmsg()
    message.update({"index": interface, "handle": HANDLE, "parent": _INGRESS})
    message["info"] = PRIORITY << 16 | _EVERY_PROTOCOL
    message["attrs"] = [("TCA_KIND", "bpf")]
    return message


def _filters(netlink: Netlink, interface: int, parent: int) -> list[Any]:
    query = tcmsg()
    query.update({"index": interface, "parent": parent})
    try:
        return [each for each in netlink.listed(query, _GET_FILTER) if each.get_attr("TCA_OPTIONS") is not None]
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENODEV):  # no clsact there
            return []
        raise


def _gone(netlink: Netlink, message: Any, kind: int) -> None:
    try:
        netlink.change(message, kind)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENODEV):
            raise
