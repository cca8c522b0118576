"""A second port for the service on its site's bridge: the control "same bridge" moves it from one port to the other.

Nothing of LISP is in such a move: the same machine stops at one port and resumes at the other of one Ethernet bridge,
and its RARP alone tells the bridge. What it adds is what any move of a machine costs where no network has to be told.
"""

from __future__ import annotations

import ipaddress

from pyroute2 import IPRoute

from lispfmc.lab.configs import mac_of
from lispfmc.lab.entrance import WHERE, inside
from lispfmc.lab.installation import Installation, NodeEntry
from lispfmc.lab.namespaces import namespace_of
from lispfmc.runtime.node_client import call

SUFFIX = "-port2"
PORT = "port2"  # the end that is on the bridge: an experiment's lab has one service


class SecondPorts:
    """Adds the ports of one lab's service, each when it is first asked for. They go with the lab's namespaces."""

    def __init__(self, lab: Installation, service: NodeEntry) -> None:
        self._lab, self._service = lab, service
        self._mac = mac_of(ipaddress.ip_interface(service.eids[0]).packed)
        self._there: set[str] = set()

    async def at(self, site: str) -> str:
        """The name by which the node knows its second port at `site`; it stays down until the node moves there."""
        name = f"{site}{SUFFIX}"
        if name not in self._there:
            inside(namespace_of(self._lab.name, site), lambda: self._plug(name))
            await call(self._service.socket, {"do": "wire", "site": name})
            self._there.add(name)
        return name

    def _plug(self, name: str) -> None:
        with IPRoute() as netlink, (WHERE / namespace_of(self._lab.name, self._service.name)).open("rb") as entrance:
            # the same machine: its MAC address does not change with the port
            peer = {"ifname": name, "net_ns_fd": entrance.fileno(), "address": self._mac}
            netlink.link("add", ifname=PORT, kind="veth", peer=peer)
            (port,), (bridge,) = netlink.link_lookup(ifname=PORT), netlink.link_lookup(ifname="lan")
            netlink.link("set", index=port, master=bridge, state="up")
