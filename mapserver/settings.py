"""The Map-Server's configuration file: where it listens, which site may register what, who may subscribe to what."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from lispfmc.runtime.config import ApiSettings, IpField, LogSettings, PrefixField, Settings, SharedKey, Wrong
from lispfmc.wire.address import Ip, Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import XTR_ID_BYTES, Action, EidRecord, Locator

KEYS_PER_SITE = 8  # enough to roll over; each one more is one more check of an unknown sender's message
SITES_PER_KEY_ID = 64
"""Sites that may share a key id: an unknown sender's message is checked against each of their secrets."""


class KeySettings(SharedKey):
    """One more key of a site: to roll over, add the new one, change the xTRs, then make it the site's own key."""


class SiteSettings(SharedKey):
    """A LISP site: its keys and the EIDs that its xTRs may register.

    `keys` are accepted beside the site's own key, each with nonces of its own (RFC 9301 §5.6). `prefixes` may be
    registered as they stand and, unless `accept_more_specifics` is off, in parts; inside `roaming` ranges only host
    routes. `xtrs` are the RLOCs of its xTRs, if they are to be checked.
    """

    name: str = Field(min_length=1)
    """As events and `show registrations` name it."""
    instance_id: int = Field(default=0, ge=0, lt=1 << 24)
    """Where its EID-Prefixes lie that name no Instance-ID of their own."""
    prefixes: tuple[PrefixField, ...] = ()
    """EID-Prefixes that it may register."""
    roaming: tuple[PrefixField, ...] = ()
    """Ranges of which it may register single hosts."""
    accept_more_specifics: bool = True
    """Parts of `prefixes` may be registered as well."""
    xtrs: tuple[IpField, ...] = ()
    """RLOCs from which its Map-Registers must come; default: any."""
    keys: tuple[KeySettings, ...] = Field(default=(), max_length=KEYS_PER_SITE - 1)

    @cached_property
    def all_keys(self) -> tuple[Key, ...]:
        return (self.key, *(each.key for each in self.keys))

    def placed(self, prefix: Prefix) -> Prefix:
        """A prefix of the file in the site's Instance-ID."""
        return prefix if prefix.iid else Prefix(self.instance_id, prefix.ip, prefix.length)


class ItrSettings(Settings):
    """A key by which an ITR protects its Map-Requests (LISP-SEC, RFC 9303): what it shares with the Map-Resolver."""

    name: str = Field(min_length=1)
    """As `[[subscribers]]` name it."""
    key_id: int = Field(ge=0, le=255)
    """Which key it is, with that ITR."""
    secret: str = Field(min_length=1)
    """No site's secret (RFC 9303 §6.5)."""


class SubscriberSettings(SharedKey):
    """Who may ask to be kept informed (RFC 9437 §4): the EIDs, the key, and where publications may go.

    Known by `xtr_id` when that is given, else by its address. `address` is one address or several. With `site_id`, that
    must be its Site-ID. Publications go to `port`, the control port unless it is given. In place of a `secret`, `itr`
    names the row of `itrs` by which it protects its requests: each subscription has a key of its own then.
    """

    name: str = Field(min_length=1)
    """As events name it."""
    key_id: int = Field(default=0, ge=0, le=255)
    secret: str = ""
    itr: str = ""
    """In place of a secret: the row of `[[itrs]]` by which it protects its requests."""
    instance_id: int = Field(default=0, ge=0, lt=1 << 24)
    """Where its ranges lie that name no Instance-ID of their own."""
    ranges: tuple[PrefixField, ...] = Field(min_length=1)
    """What it may subscribe to."""
    address: tuple[IpField, ...] = Field(min_length=1)
    """Where publications may go: one address or several."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """UDP port of publications; default: 4342."""
    xtr_id: bytes = b""
    """32 hexadecimal digits by which it is known; default: its address."""
    site_id: int | None = Field(default=None, ge=0, lt=1 << 64)
    """Must be its Site-ID; default: any."""

    @model_validator(mode="after")
    def _has_a_key(self) -> SubscriberSettings:
        if bool(self.secret) == bool(self.itr):
            raise Wrong("publications are signed by a secret, or by LISP-SEC with an itr's key; give one of them")
        return self

    @field_validator("address", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str | bytes) else value

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
            raise ValueError(f"an xTR-ID is {2 * XTR_ID_BYTES} hexadecimal digits; leave it out to go by the address")
        return number

    def may_subscribe(self, eid: Prefix) -> bool:
        return any(self.placed(each).covers(eid) for each in self.ranges)

    def placed(self, prefix: Prefix) -> Prefix:
        return prefix if prefix.iid else Prefix(self.instance_id, prefix.ip, prefix.length)


class MobilityRange(Settings):
    """EIDs that come and go: a negative answer about them lasts one minute, not fifteen (RFC 9301 §8.1)."""

    prefix: PrefixField
    """The EIDs."""


class StaticSettings(Settings):
    """What the configuration says about an EID-Prefix; no xTR can register it.

    `rlocs` in order of preference, or an `action` for the map-caches: "drop", "policy-denied" or "native".
    """

    prefix: PrefixField
    """The EID-Prefix."""
    rlocs: tuple[IpField, ...] = Field(default=(), max_length=32)
    """Locators in order of preference."""
    action: Literal["drop", "policy-denied", "native"] | None = None
    """In place of locators: what map-caches do with it."""
    ttl_minutes: int = Field(default=1440, ge=1, lt=1 << 31)
    """How long an answer may be kept."""

    @model_validator(mode="after")
    def _either(self) -> StaticSettings:
        if bool(self.rlocs) == bool(self.action):
            raise Wrong("a static mapping has either rlocs or an action; give one of them")
        return self

    @property
    def record(self) -> EidRecord:
        locators = [Locator.of(rloc, priority=rank) for rank, rloc in enumerate(self.rlocs, 1)]
        action = _ACTIONS[self.action] if self.action is not None else Action.NO_ACTION
        return EidRecord.of(self.prefix, locators, ttl_minutes=self.ttl_minutes, action=action)


_ACTIONS = {
    "drop": Action.DROP_NO_REASON,
    "policy-denied": Action.DROP_POLICY_DENIED,
    "native": Action.NATIVELY_FORWARD,
}


class DampingSettings(Settings):
    """An EID that changes hands more than `alarm_after` times in `period_s` raises an alarm; after `damp_after` it
    stays where it is for `hold_s`, unless a controller moves it with a higher map-version: which cuts off a host that
    has moved once more, so that is for what no host does. One that is back within `contest_s` seems to be at two
    sites.
    """

    alarm_after: int = Field(default=6, ge=1)
    """Changes of hands in `period_s` that raise an alarm."""
    damp_after: int = Field(default=30, ge=1)
    """Changes in `period_s` after which it stays where it is."""
    period_s: float = Field(default=60.0, gt=0)
    """In which changes are counted."""
    hold_s: float = Field(default=60.0, gt=0)
    """For how long it stays."""
    contest_s: float = Field(default=5.0, ge=0)
    """Back within this, it seems to be at two sites."""


class StoreSettings(Settings):
    """`memory` forgets everything at the end, replay protection too. `sqlite` keeps it in `path`: a journal, which is
    brought to the disk by the kernel (`never`), every second (`interval`) or before every answer (`always`), and
    a snapshot when the journal has grown to `journal_mib`."""

    kind: Literal["memory", "sqlite"] = "memory"
    """`memory` forgets, `sqlite` survives a kill."""
    path: Path | None = None
    """A directory for `sqlite`."""
    fsync: Literal["never", "interval", "always"] = "never"
    """When the journal is brought to the disk: by the kernel, every second, or before every answer."""
    journal_mib: int = Field(default=256, ge=1)
    """The journal's size at which a snapshot is written."""

    @model_validator(mode="after")
    def _has_a_place(self) -> StoreSettings:
        if self.kind == "sqlite" and self.path is None:
            raise Wrong("the sqlite store needs a directory; give it a path")
        return self


class TimerSettings(Settings):
    """`expiry_s`: how long a registration lasts (RFC 9301 §5.6). A Map-Notify to a displaced xTR or a subscriber is
    sent again after its round-trip time, but not before `notify_least_s`, and after `notify_first_s` at the latest and
    while that time is not known; then after twice as long each time, `notify_tries` times in all.
    `temporary_subscription_s`: how long somebody may wait for an EID that no site may register (RFC 9437 §5)."""

    expiry_s: float = Field(default=180.0, gt=0)
    """How long a registration lasts."""
    notify_first_s: float = Field(default=0.2, gt=0)
    """First repetition of a Map-Notify whose round-trip time is not known."""
    notify_least_s: float = Field(default=0.05, gt=0)
    """First repetition at the earliest."""
    notify_tries: int = Field(default=8, ge=1)
    """How often it is sent in all."""
    temporary_subscription_s: float = Field(default=900.0, gt=0)
    """Waiting for an EID that no site may register."""


class LimitSettings(Settings):
    """Bounds of what the network can make us keep or send. Holders of a key can reach those of the tables, nobody else.

    Token buckets, so many at once (`burst`) and so many a second after that (`rate`): answers for one RLOC about one
    EID-Prefix (`reply`), answers for one RLOC about anything (`rloc`), requests of one subscriber about one EID-Prefix
    (`subscribe`), publications altogether (`publications`; these wait, they are not dropped).
    """

    registrations: int = Field(default=1_000_000, ge=1)
    """In all."""
    xtrs: int = Field(default=65_536, ge=1)
    """xTR-IDs whose nonces are kept."""
    subscriptions_per_subscriber: int = Field(default=4096, ge=1)
    """Of one subscriber."""
    records_per_subscription: int = Field(default=65_536, ge=1)
    """Registrations within the range that is subscribed to."""
    reply_rate: float = Field(default=1.0, gt=0)
    """Answers to one RLOC about one EID-Prefix,"""
    reply_burst: float = Field(default=5.0, ge=1)
    """and so many at once."""
    rloc_rate: float = Field(default=1000.0, gt=0)
    """Answers to one RLOC,"""
    rloc_burst: float = Field(default=4000.0, ge=1)
    """and so many at once."""
    subscribe_rate: float = Field(default=1.0, gt=0)
    """Requests of one subscriber about one EID-Prefix,"""
    subscribe_burst: float = Field(default=5.0, ge=1)
    """and so many at once."""
    publications_rate: float = Field(default=20_000.0, gt=0)
    """Publications altogether,"""
    publications_burst: float = Field(default=1000.0, ge=1)
    """and so many at once; the others wait."""


class MapServerSettings(Settings):
    """The whole file."""

    name: str = Field(min_length=1)
    """Its name in events and logs."""
    listen: tuple[IpField, ...] = Field(min_length=1)
    """Addresses for control messages."""
    port: int = Field(default=4342, ge=1, le=65535)
    """UDP port for control messages."""
    state_dir: Path | None = None
    """A directory of our own, where nonces outlive a restart."""
    sites: tuple[SiteSettings, ...] = ()
    subscribers: tuple[SubscriberSettings, ...] = ()
    itrs: tuple[ItrSettings, ...] = ()
    mobility_ranges: tuple[MobilityRange, ...] = ()
    static: tuple[StaticSettings, ...] = ()
    timers: TimerSettings = TimerSettings()
    limits: LimitSettings = LimitSettings()
    damping: DampingSettings = DampingSettings()
    store: StoreSettings = StoreSettings()
    workers: int = Field(default=1, ge=1, le=64)
    """Processes at that port: one takes registrations, all answer."""
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _itrs_keys_are_their_own(self) -> MapServerSettings:
        registering = {site.secret for site in self.sites}
        shared = Counter(itr.key_id for itr in self.itrs)
        for index, itr in enumerate(self.itrs):
            if itr.secret in registering:
                # RFC 9303 §6.5: with one secret for both an ETR could make the keys that are to convict it
                raise Wrong("a site registers with that secret; give the ITR one of its own", "itrs", index, "secret")
            if shared[itr.key_id] > SITES_PER_KEY_ID:
                why = f"more than {SITES_PER_KEY_ID} ITRs share key id {itr.key_id}; use more ids"
                raise Wrong(why, "itrs", index, "key_id")
        return self

    @model_validator(mode="after")
    def _subscribers_itrs_exist(self) -> MapServerSettings:
        itrs = Counter(itr.name for itr in self.itrs)
        for index, subscriber in enumerate(self.subscribers):
            if subscriber.itr and itrs[subscriber.itr] != 1:
                why = f'{itrs[subscriber.itr]} rows of itrs are called "{subscriber.itr}"; name one'
                raise Wrong(why, "subscribers", index, "itr")
        return self

    @model_validator(mode="after")
    def _senders_can_be_told_apart(self) -> MapServerSettings:
        names = Counter(site.name for site in self.sites)
        secrets = Counter((key.id, key.secret) for site in self.sites for key in site.all_keys)
        anonymous = Counter(key.id for site in self.sites if not site.xtrs for key in site.all_keys)
        seen: set[Ip] = set()
        static = Counter(each.prefix for each in self.static)
        for index, mapping in enumerate(self.static):
            if static[mapping.prefix] > 1:
                raise Wrong("another static mapping has the same prefix; keep one", "static", index, "prefix")
        for index, site in enumerate(self.sites):
            if names[site.name] > 1:
                raise Wrong(f'two sites are called "{site.name}"; give each its own name', "sites", index, "name")
            if any(secrets[key.id, key.secret] > 1 for key in site.all_keys):
                # RFC 9301 §5.6 wants a key per site: with a shared one a site could speak for another
                raise Wrong("another site has the same key; give each its own secret", "sites", index, "secret")
            if len({key.id for key in site.all_keys}) <= len(site.keys):
                # replay protection is per key id: two keys of one id would share their nonces
                raise Wrong("two keys of the site have the same key_id; give each its own", "sites", index, "keys")
            if not site.xtrs and any(anonymous[key.id] > SITES_PER_KEY_ID for key in site.all_keys):
                why = f"more than {SITES_PER_KEY_ID} sites share key id {site.key_id}; name their xtrs or use more ids"
                raise Wrong(why, "sites", index, "key_id")
            for address in site.xtrs:
                if address in seen:
                    raise Wrong("that address is another site's xTR; keep one of them", "sites", index, "xtrs")
                seen.add(address)
        return self
