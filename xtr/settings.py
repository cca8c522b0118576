"""What an xTR's configuration file (TOML) says, field by field.

Every prefix of the file lies in `instance_id` unless it names another one ("[7]10.0.0.0/24"). A mistake comes out as
`file:line: what, why, what to do` (`lispfmc.runtime.config.load`).
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lispfmc.runtime.config import ApiSettings, IpField, LogSettings, PrefixField, Settings, SharedKey, Wrong
from lispfmc.wire.address import Ip, Prefix, ip_text
from lispfmc.wire.messages import SITE_ID_BYTES, XTR_ID_BYTES

DEVICE_NAME = 15  # IFNAMSIZ less the final zero


class SubscriptionKey(SharedKey):
    """The key by which a Map-Server authenticates what it publishes to us (RFC 9437's PubSubKey, agreed beforehand)."""


class MapServerSettings(SharedKey):
    """A Map-Server to register with, and the key that both sides know; with `subscription`, it publishes to us."""

    address: IpField
    subscription: SubscriptionKey | None = None


class MapResolverSettings(Settings):
    """Whom to ask for mappings. With a key, questions are protected (LISP-SEC, RFC 9303), and only protected answers
    are believed."""

    address: IpField
    key_id: int = Field(default=0, ge=0, le=255)
    secret: str = ""


class DynamicRange(Settings):
    """EIDs that may show up here although they are no fixed prefix of ours, or that roam from here.

    `mobility` says what makes us register one, and what we do about one that has left (`xtr.mobility`): "presence" for
    users, who are registered as soon as they show themselves; for services the way in which their moves are led.
    """

    prefix: PrefixField
    mobility: Literal["presence", "lossless", "fig9", "cp", "dataplane", "pubsub", "smr"]


class PeerKey(SharedKey):
    """The key that we share with one address of another xTR."""

    peer: IpField
    key_id: int = Field(ge=0, le=255, alias="id")


class AgentSettings(SharedKey):
    """This site's hypervisor agent: it tells us when a service that is being moved has stopped or runs.

    `interfaces` are those that its machines are behind, all of the site's unless it names some: only there does an
    announcement activate a move.
    """

    address: IpField
    interfaces: tuple[str, ...] = ()


class ControllerSettings(SharedKey):
    """A Follow-Me controller, the EIDs that it may move, and the locators that it may move them to."""

    address: IpField
    ranges: tuple[PrefixField, ...] = Field(min_length=1)
    rlocs: tuple[IpField, ...] = Field(min_length=1)


class SiteSettings(Settings):
    """The interfaces behind which this site's hosts are, and what we answer there for hosts that are elsewhere.

    `instances` gives an interface an Instance-ID other than the file's. A host that asks for the MAC of one of
    `gateways` gets ours at once (169.254.1.1 and fe80::1 are the interface's own), and so does one that asks for an EID
    that is not here, unless `proxy` is off.
    """

    interfaces: tuple[str, ...] = Field(default=("lan",), min_length=1)
    instances: dict[str, Annotated[int, Field(ge=0, lt=1 << 24)]] = Field(default_factory=dict)
    gateways: tuple[IpField, ...] = ()
    proxy: bool = True


class InterworkingSettings(Settings):
    """Traffic between LISP sites and everybody else (RFC 6832).

    `petrs`: Proxy-ETRs, to which Natively-Forward traffic goes in a tunnel; without one, `natively_forward` says if the
    plain routing table gets it or nobody. `pitr`: packets of any source are encapsulated for EIDs. `petr`: packets of
    other sites for destinations that are no EIDs are decapsulated and routed.
    """

    petrs: tuple[IpField, ...] = ()
    natively_forward: Literal["route", "drop"] = "route"
    pitr: bool = False
    petr: bool = False


class DataPlaneSettings(Settings):
    """The plane that forwards, and its bounds.

    `realtime`: the process's SCHED_FIFO priority, so that packets wait for nobody's work but its own; 0: as started.
    """

    kind: Literal["auto", "tun", "ebpf"] = "auto"
    realtime: int = Field(default=0, ge=0, le=98)
    core_interfaces: tuple[str, ...] = ()
    device: str = Field(default="lisp0", min_length=1, max_length=DEVICE_NAME)
    table: int = Field(default=4341, ge=1, lt=1 << 31)
    mtu: int = Field(default=1500, ge=1280, le=65535)
    eid_ranges: tuple[PrefixField, ...] = ()
    queue_packets: int = Field(default=4096, ge=1)
    queue_seconds: float = Field(default=3.0, gt=0)
    replay_ms: float = Field(default=50.0, ge=0, le=1000)
    hold_bytes: int = Field(default=64 << 20, ge=0)


class TimerSettings(Settings):
    """Registration periods (RFC 9301 §5.6), and how long silence is taken for presence; 0 turns a probe off."""

    register_s: float = Field(default=60.0, gt=0)
    quick_register_s: float = Field(default=20.0, gt=0)
    quick_period_s: float = Field(default=300.0, ge=0)
    rloc_probe_s: float = Field(default=30.0, ge=0)
    silence_s: float = Field(default=60.0, ge=0)
    unused_s: float = Field(default=300.0, gt=0)


class LimitSettings(Settings):
    """Bounds of what the network can make us keep or send."""

    map_cache_entries: int = Field(default=100_000, ge=1)
    hosts: int = Field(default=65_536, ge=1)
    map_requests_per_s: float = Field(default=100.0, gt=0)
    smr_requests_per_s: float = Field(default=20.0, gt=0)
    rlocs_probed: int = Field(default=1024, ge=0)
    subscriptions: int = Field(default=10_000, ge=0)
    peers_informed: int = Field(default=64, ge=1)
    held_mib: int = Field(default=256, ge=1)


class XtrSettings(Settings):
    """The whole file."""

    name: str = Field(min_length=1)
    instance_id: int = Field(default=0, ge=0, lt=1 << 24)
    rlocs: tuple[IpField, ...] = Field(min_length=1, max_length=32)
    prefixes: tuple[PrefixField, ...] = ()
    xtr_id: bytes = b""
    site_id: int = Field(default=0, ge=0, lt=1 << 64)
    state_dir: Path | None = None
    map_servers: tuple[MapServerSettings, ...] = Field(min_length=1)
    map_resolver: MapResolverSettings | None = None
    dynamic: tuple[DynamicRange, ...] = ()
    keys: tuple[PeerKey, ...] = ()
    controllers: tuple[ControllerSettings, ...] = ()
    agent: AgentSettings | None = None
    site: SiteSettings = SiteSettings()
    dataplane: DataPlaneSettings = DataPlaneSettings()
    interworking: InterworkingSettings = InterworkingSettings()
    timers: TimerSettings = TimerSettings()
    limits: LimitSettings = LimitSettings()
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()

    @field_validator("xtr_id", mode="before")
    @classmethod
    def _xtr_id_from_hex(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            number = bytes.fromhex(value)
        except ValueError:
            number = b""
        if len(number) != XTR_ID_BYTES:
            raise Wrong(f"an xTR-ID is {2 * XTR_ID_BYTES} hexadecimal digits; leave it out to derive it from name")
        return number

    @model_validator(mode="after")
    def _one_row_per_address(self) -> XtrSettings:
        # a sender is known by its address: two roles on one address could not be told apart
        rows = (
            ("map_servers", "address", [server.address for server in self.map_servers]),
            ("keys", "peer", [key.peer for key in self.keys]),
            ("controllers", "address", [controller.address for controller in self.controllers]),
            ("agent", "address", [self.agent.address] if self.agent else []),
        )
        seen: set[Ip] = set()
        for table, field, addresses in rows:
            for index, address in enumerate(addresses):
                if address in seen:
                    where: tuple[str | int, ...] = (table, field) if table == "agent" else (table, index, field)
                    raise Wrong(f"{ip_text(address)} has a row already, one address has one key; keep one", *where)
                seen.add(address)
        return self

    @model_validator(mode="after")
    def _names_of_devices_fit(self) -> XtrSettings:
        for iid in sorted({*self.instances.values()} - {self.instance_id}):
            name = f"{self.dataplane.device}.{iid}"
            if len(name) > DEVICE_NAME:
                why = f"{name!r}, the device of Instance-ID {iid}, is longer than Linux takes; shorten device"
                raise Wrong(why, "dataplane", "device")
        unknown = set(self.site.instances) - set(self.site.interfaces)
        if unknown:
            raise Wrong(f"{sorted(unknown)[0]} is none of the interfaces; add it there", "site", "instances")
        behind = set(self.agent.interfaces if self.agent else ()) - set(self.site.interfaces)
        if behind:
            raise Wrong(f"{sorted(behind)[0]} is none of site.interfaces; add it there", "agent", "interfaces")
        return self

    @model_validator(mode="after")
    def _prefixes_reach_the_data_plane(self) -> XtrSettings:
        rows: list[tuple[Prefix, tuple[str | int, ...]]] = [
            *((prefix, ("prefixes", index)) for index, prefix in enumerate(self.prefixes)),
            *((each.prefix, ("dynamic", index, "prefix")) for index, each in enumerate(self.dynamic)),
        ]
        for prefix, path in rows if self.eid_ranges else ():
            if not any(wide.covers(self.placed(prefix)) for wide in self.eid_ranges):
                ranges = ", ".join(map(str, self.dataplane.eid_ranges))
                raise Wrong(
                    f"{prefix} is outside dataplane.eid_ranges ({ranges}), packets to it would not reach the tunnel "
                    "router; choose a prefix inside, or add it there",
                    *path,
                )
        return self

    @property
    def eid_ranges(self) -> tuple[Prefix, ...]:
        """What is routed into the data plane, each range in its Instance-ID."""
        return tuple(self.placed(prefix) for prefix in self.dataplane.eid_ranges)

    @property
    def instances(self) -> dict[str, int]:
        """The Instance-ID of each interface of the site."""
        return {name: self.site.instances.get(name, self.instance_id) for name in self.site.interfaces}

    @property
    def resolver(self) -> Ip:
        """The Map-Resolver: the first Map-Server's host unless configured otherwise."""
        return self.map_resolver.address if self.map_resolver else self.map_servers[0].address

    @property
    def protects_requests(self) -> bool:
        """Whether questions carry a one-time key (LISP-SEC)."""
        return self.map_resolver is not None and bool(self.map_resolver.secret)

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """(xTR-ID, Site-ID) as they stand in our registrations."""
        xtr_id = self.xtr_id or sha256(self.name.encode()).digest()[:XTR_ID_BYTES]
        return xtr_id, self.site_id.to_bytes(SITE_ID_BYTES, "big")

    def placed(self, prefix: Prefix) -> Prefix:
        """A prefix of the file in its Instance-ID."""
        return prefix if prefix.iid else Prefix(self.instance_id, prefix.ip, prefix.length)
