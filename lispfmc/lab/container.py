"""Entry point of the compose lab's containers: `python -m lispfmc.lab.container ROLE NAME`.

A container has interfaces in any order and Docker's addresses on them. This gives it the shape of the same member in
the namespace lab (interface names, MACs, permanent neighbours, gateway address), writes its configuration into the
shared run directory and becomes the daemon. EIDs are never Docker's: only the node agents add them, so they can roam.

Addresses that docker-compose.yml and this file agree on: RLOCs and the forwarder as in the topology; a site's own
network is 198.18.N.0/24 with N = 100 + the last number of the site's IPv4 RLOC (dc1, 198.18.0.21: 198.18.121.0/24).
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from lispfmc.lab.configs import (
    Choices,
    Keys,
    daemon_plans,
    mac_of,
    node_arguments,
    wan_config,
    write_config,
    write_private,
)
from lispfmc.lab.installation import FILE, Installation, run_directory
from lispfmc.lab.lifecycle import attach_nodes, installation_of, write_installation
from lispfmc.lab.namespaces import GATEWAY_MAC, add_gateway, add_neighbours
from lispfmc.lab.readiness import wait_until_ready
from lispfmc.lab.relay import Relay, tokens
from lispfmc.lab.topology import Site, Topology, load_topology
from lispfmc.wire.address import Ip
from lispfmc.wire.errors import LocalError

EID_MTU = 1400  # leaves room for the outer headers inside Docker's 1500
ROLES = ("wan", "mapserver", "fmcc", "xtr", "agent", "node", "cli")
PAGE_PORT = 8080  # inside the container
_READY_SECONDS = 120.0  # the containers of a busy machine start one after the other


class Container:
    """One container of the lab, before it becomes its daemon."""

    def __init__(self, topology: Topology, name: str, choices: Choices) -> None:
        self._topology, self._name, self._choices = topology, name, choices

    def arguments(self, role: str) -> list[str]:
        """Shape the network for `role`, write its configuration, and return the `-m` arguments of its daemon."""
        match role:
            case "wan":
                return self._wan()
            case "node":
                return self._node()
            case "xtr":
                self._member()
                self._lan()
            case "mapserver" | "fmcc":
                self._member()
            case _:  # an agent lives in its data centre's network, which that container shapes
                pass
        plans = daemon_plans(self._topology, Keys(self._choices.folder), self._choices)
        plan = next((plan for plan in plans if (plan.role, plan.name) == (role, self._name)), None)
        if plan is None:
            known = ", ".join(f"{plan.role} {plan.name}" for plan in plans)
            raise LocalError(f"{self._topology.name} has no {role} {self._name}; it has: {known}")
        return [plan.module, "--config", str(write_config(plan, self._choices.folder))]

    def _wan(self) -> list[str]:
        with IPRoute() as netlink:
            _shape(
                netlink, _having(netlink, self._topology.wan.forwarder), "wan0", mac_of(self._topology.wan.forwarder)
            )
        path = self._choices.folder / "wan.json"
        write_private(path, wan_config(self._topology, self._choices, "wan0"))
        return ["lispfmc.lab.wan", "--config", str(path)]

    def _member(self) -> None:
        rlocs = self._topology.members.get(self._name)
        if rlocs is None:
            known = ", ".join(self._topology.members)
            raise LocalError(f"{self._topology.name} has no member {self._name}; it has: {known}")
        with IPRoute() as netlink:
            index = _having(netlink, rlocs[0])
            _shape(netlink, index, "wan0", mac_of(rlocs[0]))
            add_neighbours(netlink, index, self._topology, self._name, self._choices, forwarder=True)

    def _lan(self) -> None:
        site = next(site for site in self._topology.sites if site.name == self._name)
        with IPRoute() as netlink:
            index = _inside(netlink, lan_of(site))
            netlink.flush_addr(index=index)
            _shape(netlink, index, "lan", GATEWAY_MAC, EID_MTU)
            add_gateway(netlink, index)

    def _node(self) -> list[str]:
        node = next((node for node in self._topology.nodes if node.name == self._name), None)
        if node is None:
            known = ", ".join(node.name for node in self._topology.nodes)
            raise LocalError(f"{self._topology.name} has no node {self._name}; it has: {known}")
        with IPRoute() as netlink:
            for site in self._topology.candidates(node):
                index = _inside(netlink, lan_of(site))
                netlink.flush_addr(index=index)
                _shape(netlink, index, site.name, mac_of(node.eids[0]), EID_MTU)
        return ["lispfmc.lab.node", *node_arguments(self._topology, node, self._choices)]


def lan_of(site: Site) -> ipaddress.IPv4Network:
    """The Docker network of a site (see the top of the file)."""
    rloc = next(rloc for rloc in site.rlocs if len(rloc) == 4)
    return ipaddress.IPv4Network((bytes([rloc[0], rloc[1], 100 + rloc[3], 0]), 24))


def _having(netlink: Any, address: Ip) -> int:
    return _inside(netlink, ipaddress.IPv4Network((address, 32)))


def _inside(netlink: Any, network: ipaddress.IPv4Network) -> int:
    """The index of the interface that has an address in `network`."""
    for entry in netlink.get_addr(family=socket.AF_INET):
        if ipaddress.IPv4Address(entry.get_attr("IFA_ADDRESS")) in network:
            return int(entry["index"])
    raise LocalError(
        f"no interface has an address in {network}; correct this container's networks in docker-compose.yml"
    )


def _shape(netlink: Any, index: int, name: str, mac: str, mtu: int | None = None) -> None:
    """Name and MAC of the same interface in the namespace lab. Docker's routes go with the link's state."""
    netlink.link("set", index=index, state="down")
    netlink.link("set", index=index, ifname=name, address=mac)
    if mtu is not None:
        netlink.link("set", index=index, mtu=mtu)
    netlink.link("set", index=index, state="up")


def attend(topology: Topology, choices: Choices) -> None:
    """The `cli` container: attach the nodes when everything is ready, say so in `lab.json`, and stay for `exec`."""
    (choices.folder / FILE).unlink(missing_ok=True)
    plans = daemon_plans(topology, Keys(choices.folder), choices)
    lab = installation_of(topology, topology.name, "compose", plans, choices)
    wait_until_ready(lab, _READY_SECONDS)
    attach_nodes(topology, lab)
    write_installation(lab)
    asyncio.run(_serve(lab))


async def _serve(lab: Installation) -> None:
    """The live page, until the container is stopped; docker-compose.yml publishes its port on the host's loopback."""
    known = tokens(lab.folder)
    relay = Relay(Path(lab.the("fmcc").api.removeprefix("unix:")), known)
    await relay.start(f"0.0.0.0:{PAGE_PORT}")
    stopped = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    published = os.environ.get("LISPFMC_PAGE", f"127.0.0.1:{PAGE_PORT}")
    user = lab.users()[0]
    sys.stdout.write(
        f"lab {lab.name} is up. Look: http://{published}/#token={known['operate']}\n"
        f"Then: docker compose exec cli lispfmc move {user.name} --to {user.sites[-1]} --wait --measure\n"
    )
    sys.stdout.flush()
    try:
        await stopped.wait()
    finally:
        await relay.close()


def main(arguments: list[str] | None = None) -> int:
    """Become what the arguments say. Exit code 78: the container does not fit the topology."""
    parser = argparse.ArgumentParser(prog="python -m lispfmc.lab.container", description=__doc__.splitlines()[0])
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("name")
    options = parser.parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM} if options.role == "cli" else set())
    try:
        topology = load_topology(os.environ.get("LISPFMC_TOPOLOGY", "fig5"))
        folder = run_directory() / topology.name
        (folder / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
        choices = Choices(folder, mtu=EID_MTU, ipv6_rlocs=False, dataplane="tun")
        if options.role == "cli":
            attend(topology, choices)
            return 0
        command = [sys.executable, "-m", *Container(topology, options.name, choices).arguments(options.role)]
    except LocalError as error:
        sys.stderr.write(f"{options.role} {options.name}: {error}\n")
        return 78
    os.execv(sys.executable, command)  # noqa: S606 - the daemon takes this process's place
    raise AssertionError("execv does not return")


if __name__ == "__main__":
    sys.exit(main())
