"""The lab's network in Linux network namespaces: a core bridge, a namespace for each member, site network and node.

    core:  br0 -- a port for each member            member: wan0 (RLOCs), and at a site
                                                            lan (bridge, the gateway's address) -- a port for each node
    node:  one interface for each candidate site, all down; the node's agent does the rest

Netlink sockets and /proc/sys belong to the namespace of the thread that opens them, so each namespace is set up by a
thread that has entered it.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from array import array
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError, netns

from lispfmc.lab.configs import Choices, mac_of
from lispfmc.lab.entrance import WHERE, inside
from lispfmc.lab.topology import Site, Topology, User
from lispfmc.wire.address import ip_of

GATEWAY_MAC = "02:00:5e:00:00:01"  # the same at every site: nothing changes for a host that moves
GATEWAY4, GATEWAY6 = "169.254.1.1", "fe80::1"
CORE_MTU = 1600  # a 1500-byte packet of an EID with the outer IPv6, UDP and LISP headers (56 bytes)

_IFA_F_NODAD = 0x02
_SIOCETHTOOL, _ETHTOOL_STSO = 0x8946, 0x1F
_NUD_PERMANENT = 0x80
# Far from the numbers that the kernel gives out. A veth end whose number equals its peer's is taken for a device
# without a peer, and its change of carrier may then be told up to a second late.
_NODE_INDEX = 1000

_EVERYWHERE = {
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv6/conf/all/disable_ipv6": "0",
    "ipv6/conf/default/disable_ipv6": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/router_solicitations": "0",
}
_ROUTER = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    "ipv6/conf/all/forwarding": "1",
}


def prefix_of(lab: str) -> str:
    """What the names of all namespaces of a lab begin with."""
    return f"lfmc-{lab}-"


def namespace_of(lab: str, member: str) -> str:
    return prefix_of(lab) + member


def existing(lab: str) -> list[str]:
    """The namespaces of a lab that are there now."""
    return sorted(path.name for path in WHERE.glob(f"{prefix_of(lab)}*"))


def create(topology: Topology, lab: str, choices: Choices) -> None:
    """Create the namespaces, still without links."""
    for name in ("core", *topology.members, *(node.name for node in choices.nodes(topology))):
        netns.create(namespace_of(lab, name))


def wire(topology: Topology, lab: str, choices: Choices, *, forwarder: bool) -> None:
    """Link them. `forwarder`: packets between members go to the forwarder's MAC, else straight (netem)."""
    inside(namespace_of(lab, "core"), lambda: _core(topology, lab))
    for member in topology.members:
        inside(namespace_of(lab, member), lambda m=member: _member(topology, m, choices, forwarder=forwarder))  # type: ignore[misc]
    for site in topology.sites:
        inside(namespace_of(lab, site.name), lambda s=site: _site(topology, s, lab, choices))  # type: ignore[misc]
    for node in choices.nodes(topology):
        inside(namespace_of(lab, node.name), lambda n=node: _node(topology, n))  # type: ignore[misc]


def remove(lab: str) -> list[str]:
    """Delete the lab's namespaces, and with them their interfaces. Returns their names."""
    names = existing(lab)
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            netns.remove(name)
    return names


def set_sysctls(values: dict[str, str]) -> None:
    for name, value in values.items():
        path = Path("/proc/sys/net") / name
        if path.exists():  # a kernel without IPv6 has no such file
            path.write_text(value)


def _core(topology: Topology, lab: str) -> None:
    """The bridge, and a veth from it into each member's namespace."""
    set_sysctls(_EVERYWHERE)
    with IPRoute() as netlink:
        netlink.link("set", index=1, state="up")
        netlink.link("add", ifname="br0", kind="bridge", address=mac_of(topology.wan.forwarder), mtu=CORE_MTU)
        (bridge,) = netlink.link_lookup(ifname="br0")
        netlink.link("set", index=bridge, state="up")
        for at, (member, rlocs) in enumerate(topology.members.items()):
            with open(WHERE / namespace_of(lab, member), "rb") as entrance:  # noqa: PTH123 - only its descriptor is used
                peer = {
                    "ifname": "wan0",
                    "net_ns_fd": entrance.fileno(),
                    "address": mac_of(rlocs[0]),
                    "mtu": CORE_MTU,
                    "index": _NODE_INDEX + at,
                }
                netlink.link("add", ifname=member, kind="veth", mtu=CORE_MTU, peer=peer)
            (port,) = netlink.link_lookup(ifname=member)
            netlink.link("set", index=port, master=bridge, state="up")
            # The forwarder's first packet to a member that has not sent yet must not be flooded to all.
            netlink.fdb("add", ifindex=port, lladdr=mac_of(rlocs[0]))


def _member(topology: Topology, member: str, choices: Choices, *, forwarder: bool) -> None:
    set_sysctls(_EVERYWHERE)
    with IPRoute() as netlink:
        netlink.link("set", index=1, state="up")
        (wan,) = netlink.link_lookup(ifname="wan0")
        netlink.link("set", index=wan, state="up")
        if forwarder:
            _segment_in_software("wan0")
        lengths = {4: 24, 16: 64}
        for prefix in topology.wan.prefixes:
            lengths[len(prefix.ip)] = prefix.length
        for rloc in choices.rlocs(topology, member):
            netlink.addr("replace", index=wan, address=rloc, prefixlen=lengths[len(ip_of(rloc))], flags=_IFA_F_NODAD)
        add_neighbours(netlink, wan, topology, member, choices, forwarder=forwarder)


def _segment_in_software(interface: str) -> None:
    """TCP packets leave in the size of the wire. The forwarder reads them by a packet socket, which can describe a
    large TCP packet that is yet to be segmented, but not one inside a tunnel, as the kernel plane sends it."""
    value = array("I", [_ETHTOOL_STSO, 0])
    address, _ = value.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), address))


def add_neighbours(
    netlink: Any, index: int, topology: Topology, member: str, choices: Choices, *, forwarder: bool
) -> None:
    """Permanent entries for all other members, so that no address resolution is inside a measurement."""
    for other, rlocs in topology.members.items():
        if other == member:
            continue
        mac = mac_of(topology.wan.forwarder if forwarder else rlocs[0])
        for rloc in choices.rlocs(topology, other):
            netlink.neigh("replace", dst=rloc, lladdr=mac, ifindex=index, state=_NUD_PERMANENT)


def add_gateway(netlink: Any, index: int) -> None:
    """The addresses that every host of a site uses as its gateway."""
    netlink.addr("replace", index=index, address=GATEWAY4, prefixlen=32)
    with contextlib.suppress(NetlinkError):  # IPv6 may be switched off in a container
        netlink.addr("replace", index=index, address=GATEWAY6, prefixlen=64, flags=_IFA_F_NODAD)


def _site(topology: Topology, site: Site, lab: str, choices: Choices) -> None:
    """The network behind a tunnel router: a bridge with a port for each node that may come."""
    set_sysctls(_ROUTER)
    with IPRoute() as netlink:
        netlink.link("add", ifname="lan", kind="bridge", address=GATEWAY_MAC)
        (bridge,) = netlink.link_lookup(ifname="lan")
        netlink.link("set", index=bridge, state="up")
        add_gateway(netlink, bridge)
        for node in choices.nodes(topology):
            candidates = [each.name for each in topology.candidates(node)]
            if site.name not in candidates:
                continue
            with open(WHERE / namespace_of(lab, node.name), "rb") as entrance:  # noqa: PTH123 - only its descriptor
                peer = {
                    "ifname": site.name,
                    "net_ns_fd": entrance.fileno(),
                    "address": mac_of(node.eids[0]),
                    "index": _NODE_INDEX + candidates.index(site.name),
                }
                netlink.link("add", ifname=node.name, kind="veth", peer=peer)
            (port,) = netlink.link_lookup(ifname=node.name)
            netlink.link("set", index=port, master=bridge, state="up")


def _node(topology: Topology, node: User) -> None:
    set_sysctls(_EVERYWHERE)
    for site in topology.candidates(node):
        socket.if_nametoindex(site.name)  # wired to all of them
