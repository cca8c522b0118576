"""What the controller's configuration file (TOML) says, field by field, and the world that it describes.

Besides types, everything that refers to something is checked: sites, users, data centres, distances, ranges. A mistake
comes out as `file:line:column: what, why, what to do` (`lispfmc.runtime.config.load`).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from fmcc.policy import Policy
from fmcc.policy.gauge import Curve
from fmcc.policy.models.checks import BadParameter
from fmcc.policy.registry import COST_PER_S, Parameters, check, make
from fmcc.policy.rules import ClassRules, Rules
from fmcc.steering.registry import DEFAULT, SCHEMES
from fmcc.world import DataCenter, Limits, Service, User, World
from lispfmc.runtime.config import (
    ApiSettings,
    EndpointField,
    IpField,
    Listen,
    LogSettings,
    PrefixField,
    Settings,
    SharedKey,
    Wrong,
)
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.auth import Algorithm, AuthCompat, Key
from lispfmc.wire.messages import XTR_ID_BYTES

CONTROL_PORT = 4342


class MapServerSettings(SharedKey):
    """The Map-Server that publishes to us, and the key that we share with it."""

    address: IpField
    """Where subscriptions go."""


class SiteSettings(Settings):
    """A place with a tunnel router. A data centre also has a hypervisor agent, and its router a key with us. Without
    `rlocs`, the mapping system is asked which RLOCs serve the site's own `prefix`."""

    name: str
    """As events, users and the API name it."""
    kind: Literal["access", "datacenter"]
    """Where users are, or where services run."""
    rlocs: tuple[IpField, ...] = ()
    """Its tunnel router's; default: those that the mapping system has for `prefix`."""
    prefix: PrefixField | None = None
    """The site's own EID-Prefix."""
    agent: EndpointField | None = None
    """A data centre's hypervisor agent."""
    agent_token: str | None = None
    """The token that the agent asks for."""
    key_id: int | None = Field(default=None, ge=0, le=255)
    """Which key we share with its router."""
    secret: str | None = None
    """The key that we share with its router."""
    algorithm: Algorithm = Algorithm.HMAC_SHA_256_128
    """As everywhere where there is a key."""
    auth_compat: AuthCompat = "whole-16"
    """As everywhere where there is a key."""
    capacity: int | None = Field(default=None, ge=0)
    """Services that it takes; default: no limit."""

    api: Listen | None = None
    """The HTTP API of its tunnel router ("unix:/path", "address:port"): it tells what becomes of packets in moves."""
    api_token: str | None = None
    """What that API asks for."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.rlocs and self.prefix is None:
            raise Wrong(f"the site {self.name} has neither rlocs nor prefix; add one, so that it can be found", "name")
        needed = ("agent", "agent_token", "key_id", "secret")
        if self.kind == "datacenter":
            missing = [name for name in needed if getattr(self, name) is None]
            if missing:
                raise Wrong(f"the data centre {self.name} lacks {', '.join(missing)}; add it", "name")
        elif extra := [name for name in (*needed, "capacity") if getattr(self, name) is not None]:
            raise Wrong(
                f"the access site {self.name} has {', '.join(extra)}, only a data centre has; remove it", extra[0]
            )
        return self


class RttSettings(Settings):
    """The round-trip time between two sites; between data centres also the rate at which machines are copied."""

    a: str
    """One site."""
    b: str
    """The other one."""
    ms: float = Field(ge=0)
    """The round-trip time."""
    mbit_s: float | None = Field(default=None, gt=0)
    """Between data centres: how fast machines are copied."""


class UserSettings(Settings):
    name: str
    """As events and the API name it."""
    eids: tuple[PrefixField, ...] = Field(min_length=1)
    """Its addresses, each a /32 or /128."""


class ServiceSettings(Settings):
    """`datacenter` is where it starts; `allowed` where it may go (default: everywhere). Without a `user` it moves
    only when it is told to. `size_bytes` is its state, of which a move copies `fraction` (a partial migration), and
    what that takes is reckoned until one has been timed. `scheme` leads its moves instead of the file's."""

    name: str
    """As the hypervisor agents name its machine."""
    user: str = ""
    """Whom it follows; default: nobody."""
    eids: tuple[PrefixField, ...] = Field(min_length=1)
    """Its addresses, each a /32 or /128."""
    datacenter: str
    """Where it starts."""
    allowed: tuple[str, ...] = ()
    """Where it may go; default: everywhere."""
    service_class: str = ""
    """One of `[[service_classes]]`."""
    size_bytes: int | None = Field(default=None, gt=0)
    """Its state: what a move copies."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """The part of it that a partial migration copies."""
    scheme: str | None = None
    """Leads its moves in place of the file's."""

    @property
    def copied_bytes(self) -> int | None:
        """What a move of it copies."""
        return None if self.size_bytes is None else max(1, round(self.size_bytes * self.fraction))


class ModelSettings(Settings):
    """What distance and cost are to the policies `always`, `threshold:T`, `mdp` and `learned`."""

    step_ms: float = Field(default=10.0, gt=0)
    """Milliseconds in one step of distance."""
    load_ms: float = Field(default=0.0, ge=0)
    """What a half-loaded data centre adds to its answers."""
    gamma: float = Field(default=0.95, gt=0, lt=1)
    """How much the next handover counts against this one."""
    thr: int = Field(default=10, ge=1, le=100)
    """The longest distance that the table knows."""
    cost_per_s: float = Field(default=COST_PER_S, ge=0)
    """A second of copying, in steps of distance borne for one handover."""
    link_mbit_s: float | None = Field(default=None, gt=0)
    """Between data centres that name no rate; default: not known."""
    ping_pong_s: float = Field(default=300.0, ge=0)
    """A return within this time is counted as a ping-pong."""


class ServiceClassSettings(Settings):
    """Rules for the services of a class. `always_follows` is for what must be near whatever it costs; a service that
    will have finished within `finishing_s` (default: the time of its copy) stays."""

    name: str
    """As `[[services]]` name it."""
    policy: str | None = None
    """In place of the file's."""
    always_follows: bool = False
    """Near whatever it costs."""
    finishing_s: float | None = Field(default=None, ge=0)
    """With less left it stays; default: the time of its copy."""
    hysteresis_ms: float = Field(default=0.0, ge=0)
    """A gain below this is none."""
    settle_s: float = Field(default=0.0, ge=0)
    """How long it stays after a move."""
    latency_curve: tuple[tuple[float, float], ...] = ()
    """Pairs of ms and the steps of distance that are lost there; default: by `step_ms`."""


class LimitSettings(Settings):
    """How long to wait in each state of a move, in seconds; and how many moves there may be."""

    prepare_s: float = Field(default=10.0, gt=0)
    """For hypervisors and routers to be ready."""
    copy_s: float = Field(default=600.0, gt=0)
    """For the copy."""
    resume_s: float = Field(default=30.0, gt=0)
    """From STOP to RESUMED."""
    commit_s: float = Field(default=60.0, gt=0)
    """Until the new mapping is published."""
    moves_at_once: int | None = Field(default=None, ge=1)
    """So many at a time for each data centre, there and away; further ones are `queued`. Default: no limit. Machines
    that share a link slow each other's copies down, and stand still for longer."""


class FmccSettings(Settings):
    """The whole file. A fresh configuration observes: it decides and logs, and moves nothing."""

    name: str = "fmcc"
    """Its name in events and logs."""
    mode: Literal["act", "observe"] = "observe"
    """`observe`: decide, tell, move nothing."""
    policy: str = "nearest"
    """When services move: one of the [policies](../policies.md)."""
    scheme: str = DEFAULT
    """How they move: one of the [schemes](../schemes.md)."""
    instance_id: int = Field(default=0, ge=0, lt=1 << 24)
    """Where the file's EID-Prefixes lie that name no Instance-ID of their own."""
    rlocs: tuple[IpField, ...] = Field(min_length=1)
    """Our addresses, where publications and answers come in."""
    xtr_id: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{32}$")
    """32 hexadecimal digits by which we subscribe; default: derived from `name`."""
    state_dir: Path | None = None
    """A directory of our own for history and moves; default: all is forgotten at the end."""
    map_server: MapServerSettings
    sites: tuple[SiteSettings, ...] = ()
    rtts: tuple[RttSettings, ...] = ()
    users: tuple[UserSettings, ...] = ()
    services: tuple[ServiceSettings, ...] = ()
    model: ModelSettings = ModelSettings()
    service_classes: tuple[ServiceClassSettings, ...] = ()
    ranges: tuple[PrefixField, ...] = Field(min_length=1)
    """What we subscribe to."""
    limits: LimitSettings = LimitSettings()
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _refers_to_what_is_there(self) -> Self:
        self._check_policies()
        self._check_schemes()
        if all(len(rloc) != len(self.map_server.address) for rloc in self.rlocs):
            raise Wrong("no address of ours has the Map-Server's family; add one to rlocs", "rlocs")
        for table in ("sites", "users", "services", "service_classes"):
            _unique(table, [item.name for item in getattr(self, table)])
        sites = {site.name for site in self.sites}
        for index, rtt in enumerate(self.rtts):
            for end in ("a", "b"):
                if getattr(rtt, end) not in sites:
                    raise Wrong(
                        f"no site {getattr(rtt, end)!r}, known are {_list(sites)}; correct it", "rtts", index, end
                    )
        self._check_eids()
        self._check_services()
        return self

    def _check_policies(self) -> None:
        _check_policy(self.policy, "policy")
        for index, each in enumerate(self.service_classes):
            if each.policy is not None:
                _check_policy(each.policy, "service_classes", index, "policy")
            if each.latency_curve:
                try:
                    Curve(each.latency_curve)
                except BadParameter as error:
                    raise Wrong(str(error), "service_classes", index, "latency_curve") from error

    def _check_schemes(self) -> None:
        named: list[tuple[str | None, tuple[str | int, ...]]] = [(self.scheme, ("scheme",))]
        named += [(each.scheme, ("services", index, "scheme")) for index, each in enumerate(self.services)]
        for scheme, path in named:
            if scheme is not None and scheme not in SCHEMES:
                raise Wrong(f"no scheme {scheme!r}, known are {_list(SCHEMES)}; correct it", *path)

    def _check_eids(self) -> None:
        owners: dict[Prefix, str] = {}
        for table in ("users", "services"):
            for index, item in enumerate(getattr(self, table)):
                for eid in item.eids:
                    placed = self._placed(eid)
                    if not placed.is_host:
                        raise Wrong(f"{eid} is no single address; give a /32 or /128", table, index, "eids")
                    if not any(self._placed(prefix).covers(placed) for prefix in self.ranges):
                        raise Wrong(f"{eid} is in no subscribed range; add its range to ranges", table, index, "eids")
                    if placed in owners:
                        raise Wrong(
                            f"{eid} belongs to {owners[placed]} already; give each its own", table, index, "eids"
                        )
                    owners[placed] = item.name

    def _check_services(self) -> None:
        users = {user.name for user in self.users}
        datacenters = {site.name for site in self.sites if site.kind == "datacenter"}
        classes = {each.name for each in self.service_classes}
        for index, service in enumerate(self.services):
            if service.user and service.user not in users:
                why = f"no user {service.user!r}, known are {_list(users)}; correct it"
                raise Wrong(why, "services", index, "user")
            if service.service_class and service.service_class not in classes:
                why = f"no service class {service.service_class!r}, known are {_list(classes)}; correct it"
                raise Wrong(why, "services", index, "service_class")
            for key, names in (("datacenter", (service.datacenter,)), ("allowed", service.allowed)):
                for name in names:
                    if name not in datacenters:
                        why = f"no data centre {name!r}, known are {_list(datacenters)}; correct it"
                        raise Wrong(why, "services", index, key)

    def _placed(self, prefix: Prefix) -> Prefix:
        """The prefix in our Instance-ID, unless the file names one."""
        return prefix if prefix.iid else Prefix(self.instance_id, prefix.ip, prefix.length)

    def world(self) -> World:
        """The settings as the values that the cores read."""
        datacenters = [site for site in self.sites if site.kind == "datacenter"]
        everywhere = tuple(site.name for site in datacenters)
        site_prefixes = {
            self._placed(site.prefix): site.name for site in self.sites if site.prefix is not None and not site.rlocs
        }
        return World(
            rlocs=self.rlocs,
            xtr_id=bytes.fromhex(self.xtr_id) if self.xtr_id else sha256(self.name.encode()).digest()[:XTR_ID_BYTES],
            map_server=Endpoint(self.map_server.address, CONTROL_PORT),
            map_server_key=self.map_server.key,
            sites={site.name: site.rlocs for site in self.sites},
            datacenters={site.name: self._datacenter(site) for site in datacenters},
            users={user.name: User(user.name, self._all_placed(user.eids)) for user in self.users},
            services={
                each.name: Service(
                    each.name,
                    each.user,
                    self._all_placed(each.eids),
                    each.datacenter,
                    each.allowed or everywhere,
                    each.service_class,
                    each.copied_bytes,
                    each.scheme or self.scheme,
                )
                for each in self.services
            },
            ranges=self._ranges_and(site_prefixes),
            rtts_ms={frozenset((rtt.a, rtt.b)): rtt.ms for rtt in self.rtts},
            acts=self.mode == "act",
            limits=Limits(**self.limits.model_dump()),
            rates_bit_s={frozenset((rtt.a, rtt.b)): rtt.mbit_s * 1e6 for rtt in self.rtts if rtt.mbit_s is not None},
            link_bit_s=None if self.model.link_mbit_s is None else self.model.link_mbit_s * 1e6,
            ping_pong_s=self.model.ping_pong_s,
            site_prefixes=site_prefixes,
        )

    def _ranges_and(self, prefixes: Iterable[Prefix]) -> tuple[Prefix, ...]:
        """What is subscribed to: the ranges, and those of these prefixes that are in none of them."""
        ranges = self._all_placed(self.ranges)
        return (*ranges, *(each for each in prefixes if not any(prefix.covers(each) for prefix in ranges)))

    def _datacenter(self, site: SiteSettings) -> DataCenter:
        assert site.key_id is not None, "checked for data centres"
        assert site.secret is not None, "checked for data centres"
        key = Key(site.key_id, site.secret.encode(), site.algorithm, site.auth_compat)
        prefix = None if site.prefix is None else self._placed(site.prefix)
        return DataCenter(site.name, key, site.capacity, prefix, located=not site.rlocs)

    def make_policy(self) -> Policy:
        """The configured policy with the rules of the service classes around it."""
        classes = {each.name: self._rules(each) for each in self.service_classes}
        return Rules(ClassRules(make(self.policy, self._parameters())), classes)

    def _rules(self, each: ServiceClassSettings) -> ClassRules:
        parameters = self._parameters(each.latency_curve)
        return ClassRules(
            policy=make(each.policy or self.policy, parameters),
            follow=make("always", parameters) if each.always_follows else None,
            finishing_s=each.finishing_s,
            hysteresis_ms=each.hysteresis_ms,
            settle_s=each.settle_s,
        )

    def _parameters(self, curve: tuple[tuple[float, float], ...] = ()) -> Parameters:
        model = self.model
        return Parameters(model.step_ms, curve, model.load_ms, model.gamma, model.thr, model.cost_per_s)

    def _all_placed(self, prefixes: Iterable[Prefix]) -> tuple[Prefix, ...]:
        return tuple(self._placed(prefix) for prefix in prefixes)


def _check_policy(name: str, *where: str | int) -> None:
    try:
        check(name)
    except BadParameter as error:
        raise Wrong(str(error), *where) from error


def _unique(table: str, names: list[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise Wrong(f"{name!r} is there twice; give each its own name", table, index, "name")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
