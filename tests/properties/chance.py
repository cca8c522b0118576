"""Messages by chance, from a seed: right ones, wrong ones and broken bytes. Faster than a search, so that ten thousand
of each message are affordable; a failure names its seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from lispfmc.wire import address_formats, lcaf, security
from lispfmc.wire.address import Address, InstanceAddress, OpaqueLcaf
from lispfmc.wire.dataheader import DataHeader, ShimHeader
from lispfmc.wire.extensions import Info, MapReferral, ReferralRecord, ReferralSignature, SharedExtension
from lispfmc.wire.messages import (
    Ecm,
    EidRecord,
    Locator,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    RequestRecord,
)

KNOWN_LCAFS = frozenset(address_formats.BODIES)


class Chance(random.Random):
    """Values of every kind."""

    def bits(self, size: int) -> int:
        """Mostly anything, often an edge."""
        return self.choice((0, (1 << size) - 1, self.getrandbits(size), self.getrandbits(size)))

    def some(self, make: Callable[[], Any], most: int = 3) -> tuple[Any, ...]:
        return tuple(make() for _ in range(self.randint(0, most)))

    def maybe(self, make: Callable[[], Any]) -> Any:
        return make() if self.getrandbits(1) else None

    def bytes_up_to(self, most: int) -> bytes:
        return self.randbytes(self.randint(0, most))

    def ip(self) -> bytes:
        return self.randbytes(self.choice((4, 16)))

    # --- Addresses

    def address(self, depth: int = 2, *, eid: bool = False) -> Address:
        if self.random() < 0.6:
            return self.ip()
        plain: list[Callable[[], Address]] = [lambda: None, self.name, lambda: lcaf.MacAddress(self.randbytes(6))]
        if not depth:
            return self.choice(plain)()
        rich: list[Callable[[], Address]] = [lambda: self.lcaf(depth - 1), self.instance, *plain]
        if not eid:
            rich.append(self.opaque)
        return self.choice(rich)()

    def name(self) -> lcaf.DistinguishedName:
        return lcaf.DistinguishedName(self.bytes_up_to(9).replace(b"\0", b"x"))

    def instance(self) -> InstanceAddress:
        return InstanceAddress(self.bits(32), self.maybe(self.ip), self.bits(8), self.bits(16))

    def opaque(self) -> OpaqueLcaf:
        kind = self.choice([kind for kind in range(256) if kind not in KNOWN_LCAFS])
        return OpaqueLcaf(kind, self.bytes_up_to(20), self.bits(16), self.bits(8))

    def lcaf(self, depth: int) -> Address:
        def inner() -> Address:
            return self.address(depth)

        ends = self.bits(16), self.bits(8)
        makers: list[Callable[[], Address]] = [
            lambda: lcaf.AfiList(self.some(inner), *ends),
            lambda: lcaf.NatTraversal(self.bits(16), self.bits(16), inner(), inner(), inner(), self.some(inner), *ends),
            lambda: lcaf.LocatorPath(self.some(lambda: lcaf.Hop(self.bits(16), inner())), *ends),
            lambda: lcaf.SourceDestination(self.bits(8), self.bits(8), inner(), inner(), self.bits(16), *ends),
            lambda: lcaf.ReplicationList(self.some(lambda: lcaf.ReplicationEntry(self.bits(32), inner())), *ends),
            lambda: lcaf.JsonAddress(self.bytes_up_to(12), inner(), *ends),
            lambda: lcaf.KeyValue(inner(), inner(), *ends),
            lambda: lcaf.VendorAddress(self.bits(8) << 24 | address_formats.OUI_IANA, self.bytes_up_to(8), *ends),
        ]
        return self.choice(makers)()

    def eid(self) -> tuple[int, Address]:
        """With a mask length that its family allows."""
        eid = self.address(eid=True)
        ip = eid.ip if isinstance(eid, InstanceAddress) else eid
        return self.randint(0, len(ip) * 8 if isinstance(ip, bytes) else 255), eid

    # --- Records

    def locator(self) -> Locator:
        return Locator(self.address(), self.bits(8), self.bits(8), self.bits(8), self.bits(8), self.bits(16))

    def record(self) -> EidRecord:
        mask, eid = self.eid()
        return EidRecord(self.bits(32), mask, self.bits(16), self.bits(16), eid, self.some(self.locator))

    def request_record(self) -> RequestRecord:
        mask, eid = self.eid()
        return RequestRecord(self.bits(8), mask, eid)

    def referral(self) -> ReferralRecord:
        mask, eid = self.eid()
        words = self.bits(16), self.bits(12)
        signatures = self.some(self.signature, 2)
        return ReferralRecord(self.bits(32), mask, *words, eid, self.some(self.locator, 2), signatures)

    def signature(self) -> ReferralSignature:
        fields = self.bits(32), self.bits(32), self.bits(32), self.bits(16), self.bits(8)
        return ReferralSignature(*fields, self.bytes_up_to(20), self.randbytes(3))

    def proof(self) -> security.EidProof:
        def prefix() -> security.SecuredPrefix:
            return security.SecuredPrefix(self.bits(8), *self.eid())

        return security.EidProof(self.bits(8), self.bits(16), self.some(prefix), self.bytes_up_to(20))

    def eid_authentication(self) -> security.EidAuthentication:
        return security.EidAuthentication(self.bits(16), self.maybe(self.proof))

    def ecm_security(self) -> security.EcmSecurity:
        fields = self.bits(16), self.bits(8), self.bits(8), self.bytes_up_to(24)
        return security.EcmSecurity(*fields, self.eid_authentication(), self.bits(8))

    def reply_security(self) -> security.MapReplySecurity:
        packet = security.PacketAuthentication(self.bits(16), self.bytes_up_to(20))
        return security.MapReplySecurity(self.eid_authentication(), packet, self.randbytes(3))

    # --- Messages

    def map_request(self) -> MapRequest:
        own, identity = self.maybe(self.record), self.maybe(self.identity) or (None, None)
        word = 0x1000_0000 | self.bits(24) << 8 & 0x0BEF_E000 | (own is not None) << 26
        word |= (identity[0] is not None) << 20
        rlocs = (self.address(), *self.some(self.address))
        return MapRequest(word, self.bits(64), self.address(), rlocs, self.some(self.request_record), own, *identity)

    def identity(self) -> tuple[bytes, bytes]:
        return self.randbytes(16), self.randbytes(8)

    def map_reply(self) -> MapReply:
        secured = self.maybe(self.reply_security)
        word = 0x2000_0000 | self.bits(24) << 8 & 0x0DFF_FF00 | (secured is not None) << 25
        return MapReply(word, self.bits(64), self.some(self.record), secured)

    def signed(self, kind: type, number: int, bit: int) -> Any:
        identity = self.maybe(self.identity) or (None, None)
        word = number << 28 | self.bits(20) << 8
        if identity[0] is None:
            word &= ~bit
        elif number == 3:
            word |= bit
        auth = self.bits(8), self.bits(8), self.bytes_up_to(40)
        return kind(word, self.bits(64), self.some(self.record), *auth, *identity)

    def map_referral(self) -> MapReferral:
        return MapReferral(0x6000_0000 | self.bits(20) << 8, self.bits(64), self.some(self.referral))

    def info(self) -> Info:
        fields = self.bits(64), self.bits(32), *self.eid(), self.address()
        return Info(0x7000_0000 | self.bits(28), *fields, self.bits(16), self.bytes_up_to(40), self.bits(8))

    def shared_extension(self) -> SharedExtension:
        return SharedExtension(0xF000_0000 | self.bits(28), self.bytes_up_to(60))

    def ecm(self) -> Ecm:
        size = self.choice((4, 16))
        secured = self.maybe(self.ecm_security)
        word = 0x8000_0000 | self.bits(27) | (secured is not None) << 27
        port = self.choice((4342, 4340, 61000, self.bits(16)))
        message = self.message(self.choice([kind for kind in MAKERS if kind is not Ecm and kind in INSIDE]))
        ends = self.randbytes(size), self.randbytes(size), 4342 if port == 4341 else port, 4342
        plain = Ecm(word, *ends, message, secured)
        return plain if self.random() < 0.6 else msgspec.structs.replace(plain, header=self.header(plain))

    def header(self, ecm: Ecm) -> bytes:
        """Some header as it might be received; what is derived of it is not looked at."""
        if len(ecm.source) == 16:
            return bytes([0x60 | self.getrandbits(4)]) + self.randbytes(6) + self.randbytes(41)
        options = 4 * self.randint(0, 3)
        tail = self.choice((b"\0\0", b"\1\1"))
        return bytes([0x45 + options // 4]) + self.randbytes(8) + b"\x11" + self.randbytes(10 + options + 6) + tail

    def data_header(self) -> DataHeader:
        return DataHeader(self.bits(32), self.bits(32))

    def shim_header(self) -> ShimHeader:
        fields = self.randbytes(4 * self.choice((0, 1, 5, 255)))
        return ShimHeader(self.bits(8), self.bits(8), fields, self.bits(8))

    def message(self, kind: type) -> Any:
        return MAKERS[kind](self)

    # --- What is wrong

    def broken(self, datagram: bytes) -> bytes:
        """Some bytes changed, or cut off, or added, or put in."""
        data = bytearray(datagram)
        for _ in range(self.choice((0, 1, 1, 1, 2, 4))):
            if data:
                data[self.randrange(len(data))] = self.choice((0, 1, 2, 255, self.getrandbits(8)))
        if self.random() < 0.1:
            at = self.randint(0, len(data))
            data[at:at] = self.randbytes(self.randint(1, 8))
        if self.random() < 0.3:
            del data[self.randint(0, len(data)) :]
        return bytes(data)

    def wrong(self, value: Any) -> Any:
        """The value with one field, somewhere in it, that is likely not to fit."""
        inside = [name for name in value.__struct_fields__ if _deeper(getattr(value, name))]
        if inside and self.random() < 0.7:
            name = self.choice(inside)
            one = getattr(value, name)
            if isinstance(one, tuple):
                at = self.randrange(len(one))
                changed: Any = (*one[:at], self.wrong_element(one[at]), *one[at + 1 :])
            else:
                changed = self.wrong(one)
            return msgspec.structs.replace(value, **{name: changed})
        name = self.choice(value.__struct_fields__)
        return msgspec.structs.replace(value, **{name: self.wrong_field(getattr(value, name))})

    def wrong_element(self, one: Any) -> Any:
        return self.wrong(one) if isinstance(one, msgspec.Struct) else self.wrong_field(one)

    def wrong_field(self, one: Any) -> Any:
        if isinstance(one, int):
            return self.choice((-1, 1 << 8, 1 << 12, 1 << 16, 1 << 32, 1 << 64, one ^ 1 << self.randrange(34)))
        if isinstance(one, bytes):
            return self.choice((one[:-1], one + b"\1", one + b"\0", b"", bytes(5), None, bytes(70000)))
        if isinstance(one, tuple):
            return self.choice(((), one * 90, one * 300, (*one, None)))
        return self.choice((None, b"", self.ip(), self.randbytes(3), self.address(1), self.lcaf(1)))


def _deeper(one: Any) -> bool:
    return isinstance(one, msgspec.Struct) or (isinstance(one, tuple) and bool(one))


MAKERS: dict[type, Callable[[Chance], Any]] = {
    MapRequest: Chance.map_request,
    MapReply: Chance.map_reply,
    MapRegister: lambda chance: chance.signed(MapRegister, 3, 0x0200_0000),
    MapNotify: lambda chance: chance.signed(MapNotify, 4, 0x0800_0000),
    MapNotifyAck: lambda chance: chance.signed(MapNotifyAck, 5, 0x0800_0000),
    MapReferral: Chance.map_referral,
    Info: Chance.info,
    Ecm: Chance.ecm,
    SharedExtension: Chance.shared_extension,
    DataHeader: Chance.data_header,
    ShimHeader: Chance.shim_header,
}
INSIDE = (MapRequest, MapRegister, MapReply, MapReferral)
