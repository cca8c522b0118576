"""From a topology to what every process of the lab reads: the daemons' TOML files and the WAN's JSON file.

Namespaces and containers use the same files. Every secret is derived from one random key of the run directory, so the
containers, which start in any order, agree without talking to one another.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lispfmc.lab.schemes import mobility_of, subscribes
from lispfmc.lab.toml_text import toml_text
from lispfmc.lab.topology import FMCC, MAPSERVER, Service, Site, Topology, User
from lispfmc.lab.virtual import Engine, driver_settings, machine_settings
from lispfmc.wire.address import Ip, ip_text
from lispfmc.wire.errors import LocalError

AGENT_PORT = 9350
# Key-ID per kind of relation: a capture shows by which key a message was signed.
REGISTRATION_KEY, PEER_KEY, CONTROLLER_KEY, SUBSCRIPTION_KEY, LOOKUP_KEY, AGENT_KEY = 1, 2, 3, 4, 5, 6
# Who `lispfmc lookup --subscribe` is: at the first access network, beside its tunnel router.
LOOKUP, LOOKUP_PORT = "lookup", 4344

_LOOKUP_XTR_ID = LOOKUP.encode().hex().ljust(32, "0")
_PARTS = {"replay": "replay_ms", "hold": "hold_bytes"}
# Routers are machines of their own: what users' machines and controllers do on this one does not make them wait. The
# WAN has 20, since a delay is a delay; the probes have 10, and report how late they were.
ROUTER_PRIORITY = 15
_SOCKET_PATH_BYTES = 107  # sun_path of a unix socket, without the final zero


@dataclass(frozen=True)
class DaemonPlan:
    """One daemon: what it is, in whose network it runs, and its configuration."""

    name: str
    role: str
    member: str
    module: str
    api: str
    config: dict[str, Any]


@dataclass(frozen=True)
class Choices:
    """What differs between the kinds of lab."""

    folder: Path
    mtu: int = 1500
    ipv6_rlocs: bool = True
    log_format: str = "console"
    dataplane: str = ""
    """Which plane the tunnel routers run, instead of the topology's."""
    driver: str = "emulated"
    """By which driver the hypervisor agents move services: `emulated` moves lab nodes, `qemu` virtual machines."""
    engine: Engine | None = None
    """What the driver `qemu` needs."""

    def nodes(self, topology: Topology) -> tuple[User, ...]:
        """Who is a lab node: services are virtual machines under QEMU."""
        return topology.nodes if self.driver == "emulated" else topology.users

    def rlocs(self, topology: Topology, member: str) -> list[str]:
        """The member's RLOCs that exist in this kind of lab."""
        return [ip_text(ip) for ip in topology.members[member] if self.ipv6_rlocs or len(ip) == 4]

    def socket(self, name: str) -> Path:
        """The unix socket of a daemon's API or of a node's agent. Raises LocalError when Linux would not take it."""
        path = self.folder / f"{name}.sock"
        if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
            raise LocalError(
                f"{path}: longer than {_SOCKET_PATH_BYTES} bytes, the most for a unix socket; "
                "set LISPFMC_RUN to a shorter folder"
            )
        return path


class Keys:
    """All shared secrets, derived from the run directory's random key."""

    def __init__(self, folder: Path) -> None:
        path = folder / "key"
        if not path.exists():
            draft = folder / f".key.{os.getpid()}.{secrets.token_hex(4)}"
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                out.write(secrets.token_hex(32))
            with contextlib.suppress(FileExistsError):  # another container was first: its key is the key
                os.link(draft, path)
            draft.unlink()
        self._key = bytes.fromhex(path.read_text())

    def secret(self, *relation: str) -> str:
        """The secret of a relation between the named parties, in whichever order they are named."""
        return hmac.digest(self._key, "|".join(sorted(relation)).encode(), "sha256").hex()


def write_private(path: Path, text: str) -> None:
    """A file that only its owner can read, complete or not there: it may hold secrets."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    draft.replace(path)


def write_config(plan: DaemonPlan, folder: Path) -> Path:
    path = folder / f"{plan.name}.toml"
    write_private(path, toml_text(plan.config))
    return path


def write_identity(keys: Keys, folder: Path) -> None:
    """As whom `lispfmc lookup --subscribe` subscribes."""
    identity = {
        "key_id": LOOKUP_KEY,
        "secret": keys.secret(LOOKUP, MAPSERVER),
        "xtr_id": _LOOKUP_XTR_ID,
        "port": LOOKUP_PORT,
    }
    write_private(folder / f"{LOOKUP}.toml", toml_text(identity))


def daemon_plans(topology: Topology, keys: Keys, choices: Choices) -> list[DaemonPlan]:
    """Every daemon of the lab."""
    writer = _Writer(topology, keys, choices)
    plans = [writer.mapserver(), writer.fmcc()]
    plans += [writer.xtr(site) for site in topology.sites]
    plans += [writer.agent(site) for site in topology.datacenters]
    return plans


def mac_of(ip: Ip) -> str:
    """The MAC that the lab gives to the owner of an address: locally administered, readable in captures."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x00" + ip[-4:])


def wan_config(topology: Topology, choices: Choices, interface: str, seed: int = 1) -> str:
    """The forwarder's configuration (`lispfmc.lab.wan`): each pair in both directions, half of the RTT each."""
    pairs = [
        {"from": source, "to": target, "delay_ms": pair.rtt_ms / 2, "loss_percent": pair.loss_percent}
        for pair in topology.wan.pairs
        for source, target in (pair.between, pair.between[::-1])
    ]
    members = {
        name: {"mac": mac_of(rlocs[0]), "rlocs": choices.rlocs(topology, name)}
        for name, rlocs in topology.members.items()
    }
    mac = mac_of(topology.wan.forwarder)
    return json.dumps({"interface": interface, "mac": mac, "seed": seed, "members": members, "pairs": pairs}, indent=1)


def node_arguments(topology: Topology, node: User, choices: Choices) -> list[str]:
    """Arguments of `python -m lispfmc.lab.node`; the node's interfaces are named like its sites."""
    role = "user" if node in topology.users else "service"
    arguments = ["--name", node.name, "--role", role, "--socket", str(choices.socket(node.name))]
    arguments += ["--logs", str(choices.folder / "logs")]
    for eid in node.eids:
        arguments += ["--eid", ip_text(eid)]
    for site in topology.candidates(node):
        arguments += ["--site", site.name]
    return arguments


class _Writer:
    """The daemons' settings: one method per kind of daemon."""

    def __init__(self, topology: Topology, keys: Keys, choices: Choices) -> None:
        self._topology, self._keys, self._choices = topology, keys, choices
        self._access = [str(prefix) for site in topology.access for prefix in site.prefixes]
        self._services = [str(prefix) for site in topology.datacenters for prefix in site.prefixes]
        schemes = {topology.fmcc.scheme, *(each.scheme for each in topology.services)}
        self._subscribe = topology.subscribe or any(map(subscribes, schemes))

    def _rlocs(self, member: str) -> list[str]:
        return self._choices.rlocs(self._topology, member)

    def _plan(self, name: str, role: str, member: str, module: str, config: dict[str, Any]) -> DaemonPlan:
        api = f"unix:{self._choices.socket(name)}"
        config = {"name": name} | config | {"log": {"level": "info", "format": self._choices.log_format}}
        config["api"] = {"listen": api}
        if role != "agent":
            config["state_dir"] = str(self._choices.folder / "state" / name)
        return DaemonPlan(name, role, member, module, api, config)

    def xtr(self, site: Site) -> DaemonPlan:
        topology, keys = self._topology, self._keys
        controlled = site.kind == "datacenter"
        config: dict[str, Any] = {
            "rlocs": self._rlocs(site.name),
            "prefixes": [str(prefix) for prefix in site.prefixes],
            "map_servers": [
                {
                    "address": self._rlocs(MAPSERVER)[0],
                    "key_id": REGISTRATION_KEY,
                    "secret": keys.secret(site.name, MAPSERVER),
                }
            ],
            "map_resolver": {"address": self._rlocs(MAPSERVER)[0]},
            "dynamic": self._service_ranges() if controlled else [_range(each, "presence") for each in self._access],
            "keys": [
                {"peer": rloc, "id": PEER_KEY, "secret": keys.secret(site.name, peer.name)}
                for peer in topology.sites
                if peer is not site
                for rloc in self._rlocs(peer.name)
            ],
            "site": {"interfaces": ["lan"]},
            "dataplane": {
                "kind": self._choices.dataplane or topology.dataplane,
                "device": "lisp0",
                "realtime": ROUTER_PRIORITY,
                "mtu": self._choices.mtu,
                "eid_ranges": [str(prefix) for prefix in topology.eid_ranges],
            },
        }
        config["dataplane"] |= {_PARTS[part]: 0 for part in topology.without}
        if self._subscribe:
            secret = keys.secret("publications", site.name)
            config["map_servers"][0]["subscription"] = {"key_id": SUBSCRIPTION_KEY, "secret": secret}
        if topology.fmcc.measured and not controlled:
            config["distances"] = {
                "controller": f"unix:{self._choices.socket(FMCC)}",
                "report_s": 1.0,
                "probe_s": 1.0,
                "targets": [
                    {"rloc": self._rlocs(each.name)[0], "prefix": str(each.prefixes[0])}
                    for each in topology.datacenters
                ],
            }
        if controlled:
            config["controllers"] = [self._controller(site, address) for address in self._rlocs(FMCC)]
            config["agent"] = self._agent_key(site)
        return self._plan(site.name, "xtr", site.name, "xtr", config)

    def _service_ranges(self) -> list[dict[str, str]]:
        """How services move, and those that move in another way."""
        topology = self._topology
        ranges = [_range(prefix, mobility_of(topology.fmcc.scheme)) for prefix in self._services]
        apart = [each for each in topology.services if each.scheme]
        return ranges + [_range(eid, mobility_of(each.scheme)) for each in apart for eid in _hosts(each)]

    def _controller(self, site: Site, address: str) -> dict[str, Any]:
        return {
            "address": address,
            "key_id": CONTROLLER_KEY,
            "secret": self._keys.secret(site.name, FMCC),
            "ranges": self._services,
            "rlocs": [rloc for each in self._topology.datacenters for rloc in self._rlocs(each.name)],
        }

    def _agent_key(self, site: Site) -> dict[str, Any]:
        """What a data centre's router and its hypervisor agent, on the same host, share."""
        secret = self._keys.secret("hypervisor", site.name)
        return {"address": self._rlocs(site.name)[0], "key_id": AGENT_KEY, "secret": secret}

    def mapserver(self) -> DaemonPlan:
        sites = [
            {
                "name": site.name,
                "key_id": REGISTRATION_KEY,
                "secret": self._keys.secret(site.name, MAPSERVER),
                "prefixes": [str(prefix) for prefix in site.prefixes],
                "xtrs": self._rlocs(site.name),
                "roaming": self._services if site.kind == "datacenter" else self._access,
            }
            for site in self._topology.sites
        ]
        subscriber = {
            "name": FMCC,
            "key_id": SUBSCRIPTION_KEY,
            "secret": self._keys.secret(FMCC, MAPSERVER),
            "ranges": self._access + self._services,
            "address": self._rlocs(FMCC),
        }
        lookup = {
            "name": LOOKUP,
            "key_id": LOOKUP_KEY,
            "secret": self._keys.secret(LOOKUP, MAPSERVER),
            "ranges": self._access + self._services,
            "address": self._rlocs(self._topology.access[0].name),
            "port": LOOKUP_PORT,
            "xtr_id": _LOOKUP_XTR_ID,
        }
        ranges = [{"prefix": prefix} for prefix in self._access + self._services]
        subscribing = self._topology.sites if self._subscribe else ()
        config = {
            "listen": self._rlocs(MAPSERVER),
            "sites": sites,
            "subscribers": [subscriber, lookup, *(self._subscriber(site) for site in subscribing)],
            "mobility_ranges": ranges,
        }
        return self._plan(MAPSERVER, "mapserver", MAPSERVER, "mapserver", config)

    def _subscriber(self, site: Site) -> dict[str, Any]:
        return {
            "name": site.name,
            "key_id": SUBSCRIPTION_KEY,
            "secret": self._keys.secret("publications", site.name),
            "ranges": self._access + self._services,
            "address": self._rlocs(site.name),
        }

    def fmcc(self) -> DaemonPlan:
        topology = self._topology
        names = {site.name for site in topology.sites}
        config: dict[str, Any] = {
            "mode": topology.fmcc.mode,
            "policy": topology.fmcc.policy,
            "scheme": topology.fmcc.scheme,
            "rlocs": self._rlocs(FMCC),
            "ranges": self._access + self._services,
            "map_server": {
                "address": self._rlocs(MAPSERVER)[0],
                "key_id": SUBSCRIPTION_KEY,
                "secret": self._keys.secret(FMCC, MAPSERVER),
            },
            "sites": [self._fmcc_site(site) for site in topology.sites],
            "rtts": [
                {"a": pair.between[0], "b": pair.between[1], "ms": pair.rtt_ms}
                for pair in topology.wan.pairs
                if pair.members <= names
            ],
            "users": [{"name": user.name, "eids": _hosts(user)} for user in topology.users],
            "services": [
                {"name": each.name, "user": each.user, "eids": _hosts(each), "datacenter": each.start}
                | ({"scheme": each.scheme} if each.scheme else {})
                for each in topology.services
            ],
        }
        if topology.fmcc.moves_at_once is not None:
            config["limits"] = {"moves_at_once": topology.fmcc.moves_at_once}
        return self._plan(FMCC, "fmcc", FMCC, "fmcc", config)

    def _fmcc_site(self, site: Site) -> dict[str, Any]:
        described: dict[str, Any] = {"name": site.name, "kind": site.kind, "rlocs": self._rlocs(site.name)}
        described["api"] = f"unix:{self._choices.socket(site.name)}"
        if site.kind == "datacenter":
            described |= {
                "agent": self._agent_address(site),
                "agent_token": self._keys.secret("agent", site.name),
                "key_id": CONTROLLER_KEY,
                "secret": self._keys.secret(site.name, FMCC),
            }
        return described

    def agent(self, site: Site) -> DaemonPlan:
        topology = self._topology
        config: dict[str, Any] = {
            "datacenter": site.name,
            "listen": self._agent_address(site),
            "token": self._keys.secret("agent", site.name),
            "driver": self._choices.driver,
            "xtr": self._agent_key(site),
            "peers": [
                {
                    "datacenter": peer.name,
                    "address": self._agent_address(peer),
                    "token": self._keys.secret("agent", peer.name),
                }
                for peer in topology.datacenters
                if peer is not site
            ],
            "machines": [self._machine(service) for service in topology.services],
        }
        if self._choices.engine is not None:
            folder = self._choices.folder / "vm" / site.name
            config["qemu"] = driver_settings(self._choices.engine, topology.virtual, self._rlocs(site.name)[0], folder)
        return self._plan(f"hypervisor-{site.name}", "agent", site.name, "fmcc.hypervisor.agent", config)

    def _machine(self, service: Service) -> dict[str, Any]:
        if self._choices.engine is not None:
            return machine_settings(self._topology.virtual, service, mac_of(service.eids[0])) | {
                "eids": _hosts(service)
            }
        emulation = self._topology.emulation
        return {
            "name": service.name,
            "eids": _hosts(service),
            "node_socket": str(self._choices.socket(service.name)),
            "copy_s": emulation.copy_s,
            "pause_ms": emulation.pause_ms,
        }

    def _agent_address(self, site: Site) -> str:
        return f"{self._rlocs(site.name)[0]}:{AGENT_PORT}"


def _range(prefix: str, mobility: str) -> dict[str, str]:
    return {"prefix": prefix, "mobility": mobility}


def _hosts(node: User) -> list[str]:
    return [f"{ip_text(eid)}/{len(eid) * 8}" for eid in node.eids]
