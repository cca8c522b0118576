"""The message values, named as RFC 9301 and RFC 9437 name them.

Flag words stay one integer, as on the wire, so that reserved bits survive `encode(decode(b)) == b`; the named bits
are read-only properties. `….of(…)` builds a value from its named parts and refuses what does not fit its field.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TypeAlias

import msgspec

from lispfmc.wire.address import Address, InstanceAddress, Ip, Prefix
from lispfmc.wire.errors import LocalError
from lispfmc.wire.extensions import Info, MapReferral, SharedExtension
from lispfmc.wire.moves import MoveMessage
from lispfmc.wire.ranges import fits, fits_address
from lispfmc.wire.security import EcmSecurity, MapReplySecurity

TTL_RECEIVER_DECIDES = 0xFFFFFFFF  # RFC 9301 §5.4
XTR_ID_BYTES = 16
SITE_ID_BYTES = 8


class Action(IntEnum):
    """ACT of a record without locators (RFC 9301 §5.4)."""

    NO_ACTION = 0
    NATIVELY_FORWARD = 1
    SEND_MAP_REQUEST = 2
    DROP_NO_REASON = 3
    DROP_POLICY_DENIED = 4
    DROP_AUTH_FAILURE = 5


def address_of(prefix: Prefix) -> Address:
    """How an EID is written on the wire: bare in Instance-ID 0, inside an Instance-ID LCAF otherwise."""
    return InstanceAddress(prefix.iid, prefix.ip) if prefix.iid else prefix.ip


def prefix_of(address: Address, mask_length: int) -> Prefix | None:
    """The EID-Prefix that an address field and its mask length name; None for AFI 0 and LCAFs that name none."""
    if isinstance(address, bytes):
        return Prefix.of(address, mask_length)
    if isinstance(address, InstanceAddress) and address.ip is not None:
        return Prefix.of(address.ip, mask_length, address.iid)
    return None


class Locator(msgspec.Struct, frozen=True, gc=False):
    """RLOC-record (RFC 9301 §5.4)."""

    address: Address
    priority: int
    weight: int
    multicast_priority: int
    multicast_weight: int
    flags: int

    @classmethod
    def of(
        cls,
        address: Address,
        *,
        priority: int = 1,
        weight: int = 100,
        local: bool = False,
        probed: bool = False,
        reachable: bool = True,
    ) -> Locator:
        """A unicast locator; multicast priority 255 means "not for multicast"."""
        fits(priority, 8, "locator priority")
        fits(weight, 8, "locator weight")
        fits_address(address)
        return cls(address, priority, weight, 255, 0, local << 2 | probed << 1 | reachable)

    @property
    def local(self) -> bool:
        return bool(self.flags & 4)

    @property
    def probed(self) -> bool:
        return bool(self.flags & 2)

    @property
    def reachable(self) -> bool:
        return bool(self.flags & 1)


class EidRecord(msgspec.Struct, frozen=True, gc=False):
    """EID-record with its locators (RFC 9301 §5.4)."""

    ttl_minutes: int
    mask_length: int
    flags: int  # ACT (3 bits), A, 12 reserved
    version_word: int  # 4 reserved, Map-Version (12 bits)
    eid: Address
    locators: tuple[Locator, ...]

    @classmethod
    def of(
        cls,
        prefix: Prefix,
        locators: Sequence[Locator] = (),
        *,
        ttl_minutes: int,
        action: int = Action.NO_ACTION,
        authoritative: bool = False,
        map_version: int = 0,
    ) -> EidRecord:
        """A record for `prefix`. Raises LocalError for what does not fit, or more than 255 locators."""
        fits(ttl_minutes, 32, "record TTL")
        fits(map_version, 12, "map-version")
        fits(action, 3, "action")
        fits(len(locators), 8, "locator count")
        flags = action << 13 | authoritative << 12
        return cls(ttl_minutes, prefix.length, flags, map_version, address_of(prefix), tuple(locators))

    @property
    def prefix(self) -> Prefix | None:
        """The EID-Prefix, or None where the address is one that we cannot key a table with."""
        return prefix_of(self.eid, self.mask_length)

    @property
    def action(self) -> int:
        return self.flags >> 13

    @property
    def authoritative(self) -> bool:
        return bool(self.flags & 0x1000)

    @property
    def map_version(self) -> int:
        return self.version_word & 0xFFF


class RequestRecord(msgspec.Struct, frozen=True, gc=False):
    """One EID that a Map-Request asks for."""

    flags: int
    mask_length: int
    eid: Address

    @classmethod
    def of(cls, prefix: Prefix, *, notify: bool = False) -> RequestRecord:
        """`notify` is the N-bit of RFC 9437 §5: keep me informed."""
        return cls(0x80 if notify else 0, prefix.length, address_of(prefix))

    @property
    def prefix(self) -> Prefix | None:
        return prefix_of(self.eid, self.mask_length)

    @property
    def notification_requested(self) -> bool:
        return bool(self.flags & 0x80)


class MapRequest(msgspec.Struct, frozen=True, gc=False):
    """Map-Request (RFC 9301 §5.2, RFC 9437 §5)."""

    word: int  # first 32 bits less the counts: type and flags; IRC and record count are derived
    nonce: int
    source_eid: Address
    itr_rlocs: tuple[Address, ...]
    records: tuple[RequestRecord, ...]
    reply_record: EidRecord | None = None
    xtr_id: bytes | None = None
    site_id: bytes | None = None

    @classmethod
    def of(
        cls,
        *records: RequestRecord,
        nonce: int,
        itr_rlocs: Sequence[Address],
        source_eid: Address = None,
        probe: bool = False,
        smr: bool = False,
        smr_invoked: bool = False,
        no_reply: bool = False,
        pitr: bool = False,
        xtr_id: bytes | None = None,
        site_id: bytes | None = None,
    ) -> MapRequest:
        """A request for `records`; xtr_id and site_id together set the I-bit."""
        fits(nonce, 64, "nonce")
        fits(len(records), 8, "record count")
        if not 1 <= len(itr_rlocs) <= 32:
            raise LocalError(f"a Map-Request carries 1 to 32 ITR-RLOCs, not {len(itr_rlocs)}")
        _check_ids(xtr_id, site_id)
        word = 0x1000_0000 | probe << 25 | smr << 24 | pitr << 23 | smr_invoked << 22 | no_reply << 13
        word |= (xtr_id is not None) << 20
        return cls(word, nonce, source_eid, tuple(itr_rlocs), records, None, xtr_id, site_id)

    @property
    def authoritative(self) -> bool:
        return bool(self.word & 0x0800_0000)

    @property
    def map_data_present(self) -> bool:
        return bool(self.word & 0x0400_0000)

    @property
    def probe(self) -> bool:
        return bool(self.word & 0x0200_0000)

    @property
    def smr(self) -> bool:
        return bool(self.word & 0x0100_0000)

    @property
    def pitr(self) -> bool:
        return bool(self.word & 0x0080_0000)

    @property
    def smr_invoked(self) -> bool:
        return bool(self.word & 0x0040_0000)

    @property
    def local_xtr(self) -> bool:
        return bool(self.word & 0x0000_4000)

    @property
    def no_reply(self) -> bool:
        return bool(self.word & 0x0000_2000)


class MapReply(msgspec.Struct, frozen=True, gc=False):
    """Map-Reply (RFC 9301 §5.4)."""

    word: int
    nonce: int
    records: tuple[EidRecord, ...]
    security: MapReplySecurity | None = None  # with the S-bit (RFC 9303 §6.2)

    @classmethod
    def of(
        cls,
        *records: EidRecord,
        nonce: int,
        probe: bool = False,
        echo_nonce_capable: bool = False,
        security: MapReplySecurity | None = None,
    ) -> MapReply:
        """A reply with `records`; `security` sets the S-bit."""
        fits(nonce, 64, "nonce")
        fits(len(records), 8, "record count")
        word = 0x2000_0000 | probe << 27 | echo_nonce_capable << 26 | (security is not None) << 25
        return cls(word, nonce, records, security)

    @property
    def echo_nonce_capable(self) -> bool:
        return bool(self.word & 0x0400_0000)

    @property
    def probe(self) -> bool:
        return bool(self.word & 0x0800_0000)


class MapRegister(msgspec.Struct, frozen=True, gc=False):
    """Map-Register (RFC 9301 §5.6). `auth` is filled in by `lispfmc.wire.auth.sign`."""

    word: int
    nonce: int
    records: tuple[EidRecord, ...]
    key_id: int = 0
    algorithm_id: int = 0
    auth: bytes = b""
    xtr_id: bytes | None = None
    site_id: bytes | None = None

    @classmethod
    def of(
        cls,
        *records: EidRecord,
        nonce: int,
        proxy_reply: bool = True,
        want_notify: bool = True,
        merge: bool = False,
        use_ttl: bool = False,
        xtr_id: bytes | None = None,
        site_id: bytes | None = None,
    ) -> MapRegister:
        fits(nonce, 64, "nonce")
        fits(len(records), 8, "record count")
        _check_ids(xtr_id, site_id)
        word = (
            0x3000_0000
            | proxy_reply << 27
            | (xtr_id is not None) << 25
            | use_ttl << 11
            | merge << 10
            | want_notify << 8
        )
        return cls(word, nonce, records, xtr_id=xtr_id, site_id=site_id)

    @property
    def proxy_reply(self) -> bool:
        return bool(self.word & 0x0800_0000)

    @property
    def security_capable(self) -> bool:
        return bool(self.word & 0x0400_0000)

    @property
    def eid_notify(self) -> bool:
        return bool(self.word & 0x0000_1000)

    @property
    def use_ttl(self) -> bool:
        return bool(self.word & 0x0000_0800)

    @property
    def merge(self) -> bool:
        return bool(self.word & 0x0000_0400)

    @property
    def want_notify(self) -> bool:
        return bool(self.word & 0x0000_0100)


class MapNotify(msgspec.Struct, frozen=True, gc=False):
    """Map-Notify (RFC 9301 §5.7): acknowledges a registration, tells of a move, or publishes (RFC 9437 §7)."""

    word: int
    nonce: int
    records: tuple[EidRecord, ...]
    key_id: int = 0
    algorithm_id: int = 0
    auth: bytes = b""
    xtr_id: bytes | None = None
    site_id: bytes | None = None

    @classmethod
    def of(cls, *records: EidRecord, nonce: int) -> MapNotify:
        fits(nonce, 64, "nonce")
        fits(len(records), 8, "record count")
        return cls(0x4000_0000, nonce, records)


class MapNotifyAck(msgspec.Struct, frozen=True, gc=False):
    """Map-Notify-Ack (RFC 9301 §5.7): same nonce and records as the Map-Notify."""

    word: int
    nonce: int
    records: tuple[EidRecord, ...]
    key_id: int = 0
    algorithm_id: int = 0
    auth: bytes = b""
    xtr_id: bytes | None = None
    site_id: bytes | None = None

    @classmethod
    def of(cls, notify: MapNotify) -> MapNotifyAck:
        """The acknowledgement of `notify`."""
        return cls(0x5000_0000, notify.nonce, notify.records)


class Ecm(msgspec.Struct, frozen=True, gc=False):
    """Encapsulated Control Message (RFC 9301 §5.8): a message inside IP and UDP headers of its own."""

    word: int
    source: Ip
    destination: Ip
    source_port: int
    destination_port: int
    message: Message
    security: EcmSecurity | None = None  # with the S-bit (RFC 9303 §6.1)
    header: bytes = b""  # the inner IP and UDP headers as received, for a lossless encode; b"" = build plain ones

    @classmethod
    def of(
        cls,
        message: Message,
        *,
        source: Ip,
        destination: Ip,
        source_port: int,
        ddt: bool = False,
        security: EcmSecurity | None = None,
    ) -> Ecm:
        """`message` to UDP port 4342 of `destination`; the reply comes back to `source_port`.

        `ddt` is the D-bit: a DDT node answers with a Map-Referral. `security` sets the S-bit.
        """
        if len(source) != len(destination) or len(source) not in (4, 16):
            raise LocalError("the inner header of an ECM has two addresses of one family")
        fits(source_port, 16, "source port")
        word = 0x8000_0000 | (security is not None) << 27 | ddt << 26
        return cls(word, source, destination, source_port, 4342, message, security)

    @property
    def ddt(self) -> bool:
        return bool(self.word & 0x0400_0000)


Message: TypeAlias = (
    MapRequest
    | MapReply
    | MapRegister
    | MapNotify
    | MapNotifyAck
    | MapReferral
    | Info
    | Ecm
    | SharedExtension
    | MoveMessage
)
"""Every message that `decode` can give."""

Signed: TypeAlias = MapRegister | MapNotify | MapNotifyAck | MoveMessage
"""The messages that carry authentication data."""


def _check_ids(xtr_id: bytes | None, site_id: bytes | None) -> None:
    if (xtr_id is None) != (site_id is None):
        raise LocalError("xTR-ID and Site-ID come together or not at all")
    if xtr_id is not None and site_id is not None and (len(xtr_id), len(site_id)) != (XTR_ID_BYTES, SITE_ID_BYTES):
        raise LocalError(f"xTR-ID has {XTR_ID_BYTES} bytes and Site-ID {SITE_ID_BYTES}")
