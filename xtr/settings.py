"""What an xTR's configuration file (TOML) says, field by field.

Every prefix of the file lies in `instance_id` unless it names another one ("[7]10.0.0.0/24"). A mistake comes out as
`file:line:column: what, why, what to do` (`lispfmc.runtime.config.load`).
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
    """The key by which a Map-Server authenticates what it publishes to us (RFC 9437's PubSubKey): agreed beforehand, or
    with `lisp_sec` each subscription's own, which both sides derive from the one-time key that it was asked with."""

    key_id: int = Field(default=0, ge=0, le=255)
    secret: str = ""
    lisp_sec: bool = False
    """By one-time keys in place of a secret: `map_resolver` needs a key."""

    @model_validator(mode="after")
    def _one_key(self) -> SubscriptionKey:
        if bool(self.secret) == self.lisp_sec:
            raise Wrong("publications are signed by a secret, or with lisp_sec by keys of their own; give one of them")
        return self


class MapServerSettings(SharedKey):
    """A Map-Server to register with, and the key that both sides know; with `subscription`, it publishes to us."""

    address: IpField
    """Where it takes Map-Registers; the first one is also the Map-Resolver, unless `map_resolver` is given."""
    subscription: SubscriptionKey | None = None


class MapResolverSettings(Settings):
    """Whom to ask for mappings. With a key, questions are protected (LISP-SEC, RFC 9303), and only protected answers
    are believed."""

    address: IpField
    """Where Map-Requests go."""
    key_id: int = Field(default=0, ge=0, le=255)
    """Which key it is, with that resolver."""
    secret: str = ""
    """With one, questions are protected by LISP-SEC."""


class DynamicRange(Settings):
    """EIDs that may show up here although they are no fixed prefix of ours, or that roam from here.

    `mobility` says what makes us register one, and what we do about one that has left (`xtr.mobility`): "presence" for
    users, who are registered as soon as they show themselves; for services the way in which their moves are led.
    """

    prefix: PrefixField
    """The EIDs."""
    mobility: Literal["presence", "lossless", "fig9", "cp", "dataplane", "pubsub", "smr"]
    """How they move: users by presence, services by a [scheme](../schemes.md)."""


class PeerKey(SharedKey):
    """The key that we share with one address of another xTR."""

    peer: IpField
    """One RLOC of the other xTR."""
    key_id: int = Field(ge=0, le=255, alias="id")
    """Which key it is; what the message says."""


class AgentSettings(SharedKey):
    """This site's hypervisor agent: it tells us when a service that is being moved has stopped or runs.

    `interfaces` are those that its machines are behind, all of the site's unless it names some: only there does an
    announcement activate a move.
    """

    address: IpField
    """Where its messages come from."""
    interfaces: tuple[str, ...] = ()
    """Behind which its machines are; default: all of the site's."""


class ControllerSettings(SharedKey):
    """A Follow-Me controller, the EIDs that it may move, and the locators that it may move them to."""

    address: IpField
    """Where its messages come from."""
    ranges: tuple[PrefixField, ...] = Field(min_length=1)
    """EIDs that it may move."""
    rlocs: tuple[IpField, ...] = Field(min_length=1)
    """Locators that it may move them to."""


class SiteSettings(Settings):
    """The interfaces behind which this site's hosts are, and what we answer there for hosts that are elsewhere.

    `instances` gives an interface an Instance-ID other than the file's. A host that asks for the MAC of one of
    `gateways` gets ours at once (169.254.1.1 and fe80::1 are the interface's own), and so does one that asks for an EID
    that is not here, unless `proxy` is off.
    """

    interfaces: tuple[str, ...] = Field(default=("lan",), min_length=1)
    """Behind these are our hosts."""
    instances: dict[str, Annotated[int, Field(ge=0, lt=1 << 24)]] = Field(default_factory=dict)
    """Interfaces whose hosts are in another Instance-ID."""
    gateways: tuple[IpField, ...] = ()
    """Addresses that hosts have as gateway: answered for at once."""
    proxy: bool = True
    """Answer ARP and Neighbour Solicitations for EIDs that are elsewhere."""


class InterworkingSettings(Settings):
    """Traffic between LISP sites and everybody else (RFC 6832).

    `petrs`: Proxy-ETRs, to which Natively-Forward traffic goes in a tunnel; without one, `natively_forward` says if the
    plain routing table gets it or nobody. `pitr`: packets of any source are encapsulated for EIDs. `petr`: packets of
    other sites for destinations that are no EIDs are decapsulated and routed.
    """

    petrs: tuple[IpField, ...] = ()
    """RLOCs of Proxy-ETRs; with one, traffic for what is no EID goes there in a tunnel."""
    natively_forward: Literal["route", "drop"] = "route"
    """Without a Proxy-ETR: by the plain routing table, or not at all."""
    pitr: bool = False
    """Encapsulate for sources that are no EIDs, too."""
    petr: bool = False
    """Send on what comes by the tunnel for destinations that are no EIDs."""


class DataPlaneSettings(Settings):
    """The plane that forwards, and its bounds.

    With `map_versioning` packets carry both ends' map-versions (RFC 9302), which takes the portable plane: the kernel
    plane leaves such packets to it at the other end, too.
    """

    kind: Literal["auto", "tun", "ebpf"] = "auto"
    """In the kernel (`ebpf`), portable (`tun`), or in the kernel where this machine can (`auto`)."""
    realtime: int = Field(default=0, ge=0, le=98)
    """The process's SCHED_FIFO priority, so that packets wait for nobody's work but its own; 0: as started."""
    core_interfaces: tuple[str, ...] = ()
    """Where the tunnel's packets come in; default: the interfaces with our RLOCs."""
    device: str = Field(default="lisp0", min_length=1, max_length=DEVICE_NAME)
    """The TUN device's name."""
    table: int = Field(default=4341, ge=1, lt=1 << 31)
    """Routing table of our Instance-ID; others take the numbers after it."""
    mtu: int = Field(default=1500, ge=1280, le=65535)
    """Of the core: longer packets are split, or refused by ICMP."""
    eid_ranges: tuple[PrefixField, ...] = ()
    """What is routed into the device; all prefixes and dynamic ranges lie inside."""
    queue_packets: int = Field(default=4096, ge=1)
    """Packets held while EIDs are being resolved, all together."""
    queue_seconds: float = Field(default=3.0, gt=0)
    """And no longer than this."""
    map_versioning: bool = False
    """Packets carry map-versions (RFC 9302); the portable plane only."""
    replay_ms: float = Field(default=50.0, ge=0, le=1000)
    """Copies of a moving service's last packets, for so long before STOP."""
    hold_bytes: int = Field(default=64 << 20, ge=0)
    """What one move may hold or copy, at most 64 MiB of it."""

    @model_validator(mode="after")
    def _versions_are_sent_by_the_portable_plane(self) -> DataPlaneSettings:
        if self.map_versioning and self.kind == "ebpf":
            raise Wrong('the kernel plane sends no map-versions; give kind = "tun", or leave map_versioning out')
        return self


class TimerSettings(Settings):
    """Registration periods (RFC 9301 §5.6), and how long silence is taken for presence; 0 turns a probe off."""

    register_s: float = Field(default=60.0, gt=0)
    """How often everything is registered."""
    quick_register_s: float = Field(default=20.0, gt=0)
    """The same for `quick_period_s` after the start."""
    quick_period_s: float = Field(default=300.0, ge=0)
    """How long the start lasts."""
    rloc_probe_s: float = Field(default=30.0, ge=0)
    """How often locators in use are probed; 0: never."""
    silence_s: float = Field(default=60.0, ge=0)
    """After this a silent host is asked, three times, and given up; 0: never."""
    unused_s: float = Field(default=300.0, gt=0)
    """A subscription that nobody uses ends after this."""


class DistanceTarget(Settings):
    """A locator that is probed whether or not packets go to it, by an EID-Prefix that its router answers for."""

    rloc: IpField
    """The locator."""
    prefix: PrefixField
    """An EID-Prefix that its router answers for."""


class DistanceSettings(Settings):
    """Whom to tell how far other sites are: the API of a controller ("unix:/path", "address:port" or
    "https://name:port", whose certificate is by `authority`), and whom to probe for it."""

    controller: str = ""
    """Its API; default: nobody is told."""
    token: str | None = None
    """One of its tokens, role `report`."""
    authority: Path | None = None
    """Who its certificate must be by (PEM); default: those that the system knows."""
    report_s: float = Field(default=10.0, gt=0)
    """How often it is told."""
    probe_s: float = Field(default=10.0, ge=0.1)
    """How often targets are probed."""
    targets: tuple[DistanceTarget, ...] = Field(default=(), max_length=256)


class LimitSettings(Settings):
    """Bounds of what the network can make us keep or send.

    The kernel's tables have room for 2^18 hosts of the map-cache, those that are here among them, and for 2^17 that are
    here or were.
    """

    map_cache_entries: int = Field(default=100_000, ge=1, le=(1 << 18) - (1 << 16))
    """Beyond: negative ones leave first, then what is not in use."""
    hosts: int = Field(default=65_536, ge=1, le=1 << 16)
    """Hosts of dynamic ranges that are here."""
    map_requests_per_s: float = Field(default=100.0, gt=0)
    """All misses together; one EID is asked for once a second."""
    smr_requests_per_s: float = Field(default=20.0, gt=0)
    """Those that other xTRs' SMRs ask for."""
    rlocs_probed: int = Field(default=1024, ge=0)
    """Locators that are probed."""
    subscriptions: int = Field(default=10_000, ge=0)
    """Subscriptions that we ask for."""
    peers_informed: int = Field(default=64, ge=1)
    """xTRs that are told when an EID moves."""
    held_mib: int = Field(default=256, ge=1)
    """Packets that all moves hold together."""


class XtrSettings(Settings):
    """The whole file."""

    name: str = Field(min_length=1)
    """Its name in events and logs; the xTR-ID is its hash unless `xtr_id` is given."""
    instance_id: int = Field(default=0, ge=0, lt=1 << 24)
    """Where the file's EID-Prefixes lie that name no Instance-ID of their own."""
    rlocs: tuple[IpField, ...] = Field(min_length=1, max_length=32)
    """Our addresses in the core; IPv4 is registered with priority 1, IPv6 with 2."""
    prefixes: tuple[PrefixField, ...] = ()
    """EID-Prefixes that are registered always."""
    xtr_id: bytes = b""
    """32 hexadecimal digits; default: derived from `name`."""
    site_id: int = Field(default=0, ge=0, lt=1 << 64)
    """As it stands in our registrations."""
    state_dir: Path | None = None
    """A directory of our own, where nonces and moves outlive a restart; default: they do not."""
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
    distances: DistanceSettings = DistanceSettings()
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
    def _one_time_keys_can_be_sent(self) -> XtrSettings:
        for index, server in enumerate(self.map_servers):
            if server.subscription is not None and server.subscription.lisp_sec and not self.protects_requests:
                why = "lisp_sec needs a key for the Map-Resolver; give map_resolver a key_id and a secret"
                raise Wrong(why, "map_servers", index, "subscription", "lisp_sec")
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
