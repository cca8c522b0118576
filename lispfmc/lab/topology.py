"""The lab's network as a value: a TOML file in, a checked, frozen `Topology` out.

Everything that could fail later as a puzzle (a pair without RTT, an EID outside its home, an address given twice) is
refused here as `file:line:column: what, why, what to do`. Members of the WAN are the sites, `mapserver` and `fmcc`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from fmcc.policy.models.checks import BadParameter
from fmcc.policy.registry import check as check_policy
from fmcc.steering.registry import DEFAULT, SCHEMES
from lispfmc.runtime.config import ConfigError, IpField, PrefixField, Settings, Wrong, load
from lispfmc.wire.address import Ip, Prefix, ip_text

MAPSERVER = "mapserver"
FMCC = "fmcc"
SHIPPED = Path(__file__).parent / "topologies"

# Names become interface names (15 characters at most in Linux) and parts of file and namespace names.
MemberName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,12}$")]
NodeName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,12}$")]

_WIRING = {"core", "wan", "lan", "lo", "br0", "wan0", "lisp0"}


class Pair(Settings):
    """What the WAN does to packets between two members, half of the RTT each way."""

    between: tuple[MemberName, MemberName]
    """Two members: sites, `mapserver`, `fmcc`."""
    rtt_ms: float = Field(ge=0, le=10_000)
    """Half of it each way."""
    loss_percent: float = Field(default=0.0, ge=0, lt=100)
    """Of the packets, each way."""

    @property
    def members(self) -> frozenset[str]:
        return frozenset(self.between)


class Wan(Settings):
    """The core network: its addresses, and the address of the forwarder that adds the delays."""

    prefixes: tuple[PrefixField, ...] = Field(min_length=1)
    """Of the core network; all RLOCs lie inside."""
    forwarder: IpField
    """The address of the forwarder."""
    pairs: tuple[Pair, ...]


class Site(Settings):
    name: MemberName
    """At most 13 characters: it is part of interface names."""
    kind: Literal["access", "datacenter"]
    """Where users are, or where services run."""
    rlocs: tuple[IpField, ...] = Field(min_length=1)
    """Its tunnel router's."""
    prefixes: tuple[PrefixField, ...] = Field(min_length=1)
    """Its own EID-Prefixes."""


class MapServer(Settings):
    rlocs: tuple[IpField, ...] = Field(min_length=1)
    """Its addresses."""


class Fmcc(Settings):
    rlocs: tuple[IpField, ...] = Field(min_length=1)
    """Its addresses."""
    mode: Literal["act", "observe"] = "act"
    """`observe`: decide, tell, move nothing."""
    policy: str = "nearest"
    """When services move: one of the [policies](../policies.md)."""
    measured: bool = False
    """Access networks measure how far the data centres are, and tell the controller."""
    scheme: str = DEFAULT
    """How services move (docs/schemes.md): the routers are configured for it as well."""
    moves_at_once: int | None = Field(default=None, ge=1)
    """So many at a time for each data centre; default: no limit."""

    @model_validator(mode="after")
    def _known_policy(self) -> Self:
        try:
            check_policy(self.policy)
        except BadParameter as error:
            raise Wrong(str(error), "policy") from error
        if self.scheme not in SCHEMES:
            raise Wrong(f"no scheme {self.scheme!r}; name one of {', '.join(SCHEMES)}", "scheme")
        return self


class Emulation(Settings):
    """How long the emulated virtual machine copies and pauses."""

    copy_s: float = Field(default=5.0, ge=0)
    """How long a copy takes."""
    pause_ms: float = Field(default=60.0, ge=0)
    """How long a service stands still."""


class Virtual(Settings):
    """What real virtual machines are, with `--driver qemu`."""

    memory_mb: int = Field(default=96, ge=96)
    """Of each machine."""
    filled_mb: int = Field(default=0, ge=0)
    """Of it, what does not compress; a machine has to be written to before it has anything to copy."""
    bandwidth_mbit: float = Field(default=1000.0, gt=0)
    """Of the link between the data centres."""
    boot_s: float = Field(default=60.0, gt=0)
    """How long a machine may take to answer."""


class User(Settings):
    name: NodeName
    """As commands name it."""
    home: MemberName
    """The site whose prefix its EIDs lie in."""
    start: MemberName
    """The site where it is at first."""
    eids: tuple[IpField, ...] = Field(min_length=1)
    """Its addresses."""


class Service(User):
    user: NodeName
    """Whom it follows."""
    scheme: str = ""
    """Leads its moves instead of the controller's."""

    @model_validator(mode="after")
    def _known_scheme(self) -> Self:
        if self.scheme and self.scheme not in SCHEMES:
            raise Wrong(f"no scheme {self.scheme!r}; name one of {', '.join(SCHEMES)}", "scheme")
        return self


class Topology(Settings):
    """The whole network."""

    name: MemberName
    """The lab's name, unless `lab up --name` gives one."""
    eid_ranges: tuple[PrefixField, ...] = Field(min_length=1)
    """Routed into the tunnel routers."""
    dataplane: Literal["auto", "tun", "ebpf"] = "auto"
    """Which plane the routers run; `LISPFMC_DATAPLANE` overrides it."""
    subscribe: bool = False
    """The routers subscribe to the EIDs that they send to (RFC 9437); the papers' routers do not."""
    without: tuple[Literal["replay", "hold"], ...] = ()
    """What lossless moves do without, to see what it is for."""
    wan: Wan
    mapserver: MapServer
    fmcc: Fmcc
    emulation: Emulation = Emulation()
    virtual: Virtual = Virtual()
    sites: tuple[Site, ...]
    users: tuple[User, ...] = Field(min_length=1)
    services: tuple[Service, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Topology:
        for check in (_check_names, _check_rlocs, _check_prefixes, _check_nodes, _check_pairs):
            check(self)
        return self

    @property
    def members(self) -> dict[str, tuple[Ip, ...]]:
        """RLOCs of every member of the WAN."""
        servers = {MAPSERVER: self.mapserver.rlocs, FMCC: self.fmcc.rlocs}
        return {site.name: site.rlocs for site in self.sites} | servers

    @property
    def access(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if site.kind == "access")

    @property
    def datacenters(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if site.kind == "datacenter")

    @property
    def nodes(self) -> tuple[User, ...]:
        """Users and services."""
        return (*self.users, *self.services)

    def candidates(self, node: User) -> tuple[Site, ...]:
        """The sites that the node is wired to."""
        return self.datacenters if isinstance(node, Service) else self.access

    def led_by(self, scheme: str) -> Topology:
        """The same network with another scheme of moves. Raises ConfigError."""
        if scheme not in SCHEMES:
            raise ConfigError(f"no scheme {scheme!r}; name one of {', '.join(SCHEMES)}")
        return self.model_copy(update={"fmcc": self.fmcc.model_copy(update={"scheme": scheme})})

    def pair(self, one: str, other: str) -> Pair:
        return next(pair for pair in self.wan.pairs if pair.members == {one, other})


def shipped() -> list[str]:
    """Names of the topologies that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load_topology(name_or_path: str, scheme: str = "") -> Topology:
    """A shipped topology by its name, or a TOML file by its path; with `scheme` in place of the file's. Raises
    ConfigError."""
    path = SHIPPED / f"{name_or_path}.toml"
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        path = Path(name_or_path)
    elif not path.exists():
        raise ConfigError(
            f"{name_or_path}: no such topology, {', '.join(shipped())} come with lispfmc; "
            "name one of them or the path of a TOML file"
        )
    topology = load(path, Topology)
    return topology.led_by(scheme) if scheme else topology


def _named(topology: Topology) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    for kind in ("sites", "users", "services"):
        for at, item in enumerate(getattr(topology, kind)):
            yield item.name, (kind, at, "name")


def _check_names(topology: Topology) -> None:
    taken = {MAPSERVER, FMCC} | _WIRING
    for name, path in _named(topology):
        if name in taken:
            raise Wrong(f'the name "{name}" is taken, names are unique in the whole lab; choose another', *path)
        taken.add(name)
    for kind, sites in (("access", topology.access), ("datacenter", topology.datacenters)):
        if not sites:
            raise Wrong(f'no site of kind "{kind}", users need a place to be and services too; add one', "sites")


def _check_rlocs(topology: Topology) -> None:
    taken = {topology.wan.forwarder}
    places: list[tuple[tuple[Ip, ...], tuple[str | int, ...]]] = [
        (topology.mapserver.rlocs, (MAPSERVER, "rlocs")),
        (topology.fmcc.rlocs, (FMCC, "rlocs")),
        *((site.rlocs, ("sites", at, "rlocs")) for at, site in enumerate(topology.sites)),
    ]
    for rlocs, path in places:
        for rloc in rlocs:
            if rloc in taken:
                raise Wrong(f"{ip_text(rloc)} is given twice, an RLOC belongs to one member; change one of them", *path)
            taken.add(rloc)
            if not _within(rloc, topology.wan.prefixes):
                where = ", ".join(map(str, topology.wan.prefixes))
                raise Wrong(f"{ip_text(rloc)} is outside the WAN's prefixes {where}; choose an address inside", *path)


def _check_prefixes(topology: Topology) -> None:
    taken: list[tuple[Prefix, str]] = []
    for at, site in enumerate(topology.sites):
        for prefix in site.prefixes:
            if not any(each.covers(prefix) for each in topology.eid_ranges):
                where = ", ".join(map(str, topology.eid_ranges))
                raise Wrong(
                    f"{prefix} is outside eid_ranges ({where}), packets to it would not reach the tunnel router; "
                    "choose a prefix inside, or widen eid_ranges",
                    *("sites", at, "prefixes"),
                )
            for other, owner in taken:
                if other.covers(prefix) or prefix.covers(other):
                    raise Wrong(
                        f"{prefix} overlaps {other} of {owner}, an EID has one home; choose another",
                        *("sites", at, "prefixes"),
                    )
            taken.append((prefix, site.name))


def _check_nodes(topology: Topology) -> None:
    taken: set[Ip] = set()
    users = {user.name for user in topology.users}
    for kind in ("users", "services"):
        for at, node in enumerate(getattr(topology, kind)):
            if isinstance(node, Service) and node.user not in users:
                known = ", ".join(sorted(users))
                raise Wrong(f'no user "{node.user}"; name one of {known}', kind, at, "user")
            candidates = {site.name: site for site in topology.candidates(node)}
            for key in ("home", "start"):
                if getattr(node, key) not in candidates:
                    wanted = "a data centre" if isinstance(node, Service) else "an access site"
                    why = f'"{getattr(node, key)}" is not {wanted}; name one of {", ".join(candidates)}'
                    raise Wrong(why, kind, at, key)
            for eid in node.eids:
                _check_eid(eid, candidates[node.home], taken, (kind, at, "eids"))


def _check_eid(eid: Ip, home: Site, taken: set[Ip], path: tuple[str | int, ...]) -> None:
    if eid in taken:
        raise Wrong(f"{ip_text(eid)} is given twice, an EID belongs to one node; change one of them", *path)
    taken.add(eid)
    if not _within(eid, home.prefixes):
        where = ", ".join(map(str, home.prefixes))
        raise Wrong(
            f"{ip_text(eid)} is outside {where}, the prefixes of its home {home.name}; choose an address inside", *path
        )


def _check_pairs(topology: Topology) -> None:
    members = topology.members
    seen: set[frozenset[str]] = set()
    for at, pair in enumerate(topology.wan.pairs):
        for name in pair.between:
            if name not in members:
                why = f'"{name}" is no member of the WAN; name two of {", ".join(members)}'
                raise Wrong(why, "wan", "pairs", at, "between")
        one, other = pair.between
        if one == other or pair.members in seen:
            raise Wrong(f"the pair {one}-{other} is given twice or with itself; remove it", "wan", "pairs", at)
        seen.add(pair.members)
    missing = [f"{one}-{other}" for one, other in combinations(members, 2) if frozenset((one, other)) not in seen]
    if missing:
        raise Wrong(
            f"no RTT for {', '.join(missing)}, the matrix has to be complete; add "
            '{ between = ["a", "b"], rtt_ms = ... } for each',
            *("wan", "pairs"),
        )


def _within(ip: Ip, prefixes: tuple[Prefix, ...]) -> bool:
    return any(prefix.contains(ip) for prefix in prefixes)
