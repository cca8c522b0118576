"""The Map-Server's configuration file: where it listens, which site may register what, who may subscribe to what."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from lispfmc.runtime.config import ApiSettings, IpField, LogSettings, PrefixField, Settings, Wrong
from lispfmc.wire.address import Ip, Prefix
from lispfmc.wire.auth import Algorithm, AuthCompat, Key
from lispfmc.wire.messages import XTR_ID_BYTES

SITES_PER_KEY_ID = 64
"""Sites that may share a key id: an unknown sender's message is checked against each of their secrets."""


class SiteSettings(Settings):
    """A LISP site: its key and the EIDs that its xTRs may register.

    `prefixes` may be registered as they stand and, unless `accept_more_specifics` is off, in parts; inside `roaming`
    ranges only host routes. `xtrs` are the RLOCs of its xTRs, if they are to be checked.
    """

    name: str = Field(min_length=1)
    key_id: int = Field(ge=0, le=255)
    secret: str = Field(min_length=1)
    algorithm: Algorithm = Algorithm.HMAC_SHA_256_128
    auth_compat: AuthCompat = "whole-16"
    instance_id: int = Field(default=0, ge=0, lt=1 << 24)
    prefixes: tuple[PrefixField, ...] = ()
    roaming: tuple[PrefixField, ...] = ()
    accept_more_specifics: bool = True
    xtrs: tuple[IpField, ...] = ()

    @cached_property
    def key(self) -> Key:
        return Key(self.key_id, self.secret.encode(), self.algorithm, self.auth_compat)

    def placed(self, prefix: Prefix) -> Prefix:
        """A prefix of the file in the site's Instance-ID."""
        return prefix if prefix.iid else Prefix(self.instance_id, prefix.ip, prefix.length)


class SubscriberSettings(Settings):
    """Who may ask to be kept informed (RFC 9437 §4): the EIDs, the key, and where publications may go.

    Known by `xtr_id` when that is given, else by its address. `address` is one address or several.
    """

    name: str = Field(min_length=1)
    key_id: int = Field(ge=0, le=255)
    secret: str = Field(min_length=1)
    algorithm: Algorithm = Algorithm.HMAC_SHA_256_128
    auth_compat: AuthCompat = "whole-16"
    instance_id: int = Field(default=0, ge=0, lt=1 << 24)
    ranges: tuple[PrefixField, ...] = Field(min_length=1)
    address: tuple[IpField, ...] = Field(min_length=1)
    xtr_id: bytes = b""

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

    @cached_property
    def key(self) -> Key:
        return Key(self.key_id, self.secret.encode(), self.algorithm, self.auth_compat)

    def may_subscribe(self, eid: Prefix) -> bool:
        return any(self.placed(each).covers(eid) for each in self.ranges)

    def placed(self, prefix: Prefix) -> Prefix:
        return prefix if prefix.iid else Prefix(self.instance_id, prefix.ip, prefix.length)


class MobilityRange(Settings):
    """EIDs that come and go: a negative answer about them lasts one minute, not fifteen (RFC 9301 §8.1)."""

    prefix: PrefixField


class TimerSettings(Settings):
    """`expiry_s`: how long a registration lasts (RFC 9301 §5.6). A Map-Notify to a displaced xTR or a subscriber is
    sent again after `notify_first_s`, then after twice as long each time, `notify_tries` times in all."""

    expiry_s: float = Field(default=180.0, gt=0)
    notify_first_s: float = Field(default=0.2, gt=0)
    notify_tries: int = Field(default=6, ge=1)


class LimitSettings(Settings):
    """Bounds of what the network can make us keep; holders of a key can reach them, nobody else."""

    registrations: int = Field(default=1_000_000, ge=1)
    xtrs: int = Field(default=65_536, ge=1)
    subscriptions_per_subscriber: int = Field(default=4096, ge=1)


class MapServerSettings(Settings):
    """The whole file."""

    name: str = Field(min_length=1)
    listen: tuple[IpField, ...] = Field(min_length=1)
    port: int = Field(default=4342, ge=1, le=65535)
    state_dir: Path | None = None
    sites: tuple[SiteSettings, ...] = ()
    subscribers: tuple[SubscriberSettings, ...] = ()
    mobility_ranges: tuple[MobilityRange, ...] = ()
    timers: TimerSettings = TimerSettings()
    limits: LimitSettings = LimitSettings()
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _senders_can_be_told_apart(self) -> MapServerSettings:
        names = Counter(site.name for site in self.sites)
        secrets = Counter((site.key_id, site.secret) for site in self.sites)
        anonymous = Counter(site.key_id for site in self.sites if not site.xtrs)
        seen: set[Ip] = set()
        for index, site in enumerate(self.sites):
            if names[site.name] > 1:
                raise Wrong(f'two sites are called "{site.name}"; give each its own name', "sites", index, "name")
            if secrets[site.key_id, site.secret] > 1:
                # RFC 9301 §5.6 wants a key per site: with a shared one a site could speak for another
                raise Wrong("another site has the same key; give each its own secret", "sites", index, "secret")
            if not site.xtrs and anonymous[site.key_id] > SITES_PER_KEY_ID:
                why = f"more than {SITES_PER_KEY_ID} sites share key id {site.key_id}; name their xtrs or use more ids"
                raise Wrong(why, "sites", index, "key_id")
            for address in site.xtrs:
                if address in seen:
                    raise Wrong("that address is another site's xTR; keep one of them", "sites", index, "xtrs")
                seen.add(address)
        return self
