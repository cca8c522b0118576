"""The codec: parse and build of each message against interpreted construct, the check of a tag, UDP endpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from lispfmc.wire import decode, encode, formats
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import Key, sign, verify
from lispfmc.wire.codec import build_data_header, parse_data_header
from lispfmc.wire.dataheader import DataHeader
from lispfmc.wire.messages import (
    Ecm,
    EidRecord,
    Locator,
    MapNotify,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    RequestRecord,
)
from tests.bench import udp
from tests.bench.harness import Call, timed

KEY = Key(1, b"a secret of thirty-two characters", compat="full-length")  # the 32-byte tag of deployed systems


def _eid(number: int) -> Prefix:
    return Prefix.host(bytes((10, 1, number >> 8, number & 0xFF)))


def _record(number: int, *rlocs: str) -> EidRecord:
    return EidRecord.of(_eid(number), [Locator.of(ip_of(each)) for each in rlocs], ttl_minutes=1440)


def _register(records: int) -> bytes:
    message = MapRegister.of(
        *(_record(number, "192.0.2.2") for number in range(records)),
        nonce=7,
        xtr_id=bytes(range(16)),
        site_id=bytes(8),
    )
    return sign(message, KEY)


def samples() -> dict[str, bytes]:
    """The control messages, in the sizes that daemons send."""
    request = MapRequest.of(
        RequestRecord.of(_eid(5)), nonce=7, source_eid=ip_of("10.2.0.9"), itr_rlocs=[ip_of("192.0.2.3")]
    )
    ecm = Ecm.of(request, source=ip_of("10.2.0.9"), destination=ip_of("10.1.0.5"), source_port=61000)
    return {
        "map_request": encode(request),
        "map_reply": encode(MapReply.of(_record(5, "192.0.2.2", "2001:db8::2"), nonce=7)),
        "map_register_1": _register(1),
        "map_register_20": _register(20),
        "map_notify": sign(MapNotify.of(_record(5, "192.0.2.2"), nonce=7), KEY),
        "ecm": encode(ecm),
    }


class Codec(NamedTuple):
    """One of the two that are compared."""

    parse: Callable[[bytes], Any]
    build: Callable[[Any], bytes]


def _interpreted_ecm() -> Codec:
    """The declaration leaves the message inside an ECM as bytes; our codec does not."""
    outer, inner = formats.MESSAGES[8], formats.MESSAGES[1]

    def parse(datagram: bytes) -> tuple[Any, Any]:
        fields = outer.parse(datagram)
        return fields, inner.parse(fields.payload)

    def build(fields: tuple[Any, Any]) -> bytes:
        fields[0].payload = inner.build(fields[1])
        return bytes(outer.build(fields[0]))

    return Codec(parse, build)


def messages(*, rounds: int) -> dict[str, dict[str, float]]:
    """Parse and build: ours gives and takes values, construct its containers."""
    interpreted = Codec(formats.DataHeader.parse, formats.DataHeader.build)
    ours = Codec(parse_data_header, build_data_header)
    header = build_data_header(DataHeader.of(iid=7, nonce=0x123456, locator_status=3))
    results = {"data_header": _compared(header, ours, interpreted, rounds=rounds)}
    for name, datagram in samples().items():
        declared = formats.MESSAGES[datagram[0] >> 4]
        interpreted = _interpreted_ecm() if name == "ecm" else Codec(declared.parse, declared.build)
        results[name] = _compared(datagram, Codec(decode, encode), interpreted, rounds=rounds)
    return results


def _compared(datagram: bytes, ours: Codec, interpreted: Codec, *, rounds: int) -> dict[str, float]:
    value, fields = ours.parse(datagram), interpreted.parse(datagram)
    assert ours.build(value) == interpreted.build(fields) == datagram
    timings = timed(
        {
            "parse": Call(ours.parse, datagram),
            "construct parses": Call(interpreted.parse, datagram),
            "build": Call(ours.build, value),
            "construct builds": Call(interpreted.build, fields),
        },
        rounds=rounds,
    )
    return {
        "parse_us": timings.us("parse"),
        "build_us": timings.us("build"),
        "parse_vs_construct": timings.ratio("construct parses", "parse"),
        "build_vs_construct": timings.ratio("construct builds", "build"),
    }


def authentication(*, rounds: int) -> dict[str, float]:
    """HMAC-SHA-256 of the 100-byte Map-Register."""
    datagram = samples()["map_register_1"]
    message: Message = decode(datagram)
    assert isinstance(message, MapRegister)
    assert len(datagram) == 100
    register: MapRegister = message
    assert verify(register, datagram, KEY)
    timings = timed({"verify": Call(lambda _: verify(register, datagram, KEY), None)}, rounds=rounds)
    return {"verify_us": timings.us("verify")}


def run(*, rounds: int = 15) -> dict[str, object]:
    """The whole of build/bench/codec.json but its environment."""
    return {
        "messages": messages(rounds=rounds),
        "auth": authentication(rounds=2 * rounds),
        "udp": udp.run(rounds=rounds // 3),
    }
