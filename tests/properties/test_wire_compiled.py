"""The compiled codec against interpreted construct: the same values, the same bytes, the same refusals.

Seeded, so that a failure can be had again. LISPFMC_EXAMPLES sets how many of each message (`make fuzz`: 10,000).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lispfmc.wire import LocalError, PeerError, decode, encode
from lispfmc.wire.codec import build_data_header, build_shim_header, parse_data_header, read_shim_header
from lispfmc.wire.compiler import Refused as CompiledRefused
from lispfmc.wire.dataheader import DataHeader, ShimHeader
from lispfmc.wire.messages import Ecm, Message
from tests.properties import interpreted, interpreted_build
from tests.properties.chance import MAKERS, Chance

EXAMPLES = int(os.environ.get("LISPFMC_EXAMPLES", "600"))
REFUSED = "refused"
every_kind = pytest.mark.parametrize("kind", MAKERS, ids=lambda kind: str(kind.__name__))


def compiled_decode(kind: type, datagram: bytes) -> Any:
    if kind is DataHeader:
        return data_header(datagram)
    if kind is ShimHeader:
        return shim_header(datagram)
    refused: PeerError | None = None
    try:
        return decode(datagram)
    except PeerError as error:
        refused = error
    assert "a bug of ours" not in refused.why, datagram.hex()
    assert 0 <= refused.offset <= len(datagram)
    assert refused.field
    assert refused.why
    return REFUSED


def data_header(packet: bytes) -> Any:
    try:
        return parse_data_header(packet)
    except struct.error:
        return REFUSED


def shim_header(packet: bytes) -> Any:
    try:
        value, end = read_shim_header(packet, 0)
    except struct.error:
        return REFUSED
    return value if end <= len(packet) else REFUSED


def interpreted_decode(kind: type, datagram: bytes) -> Any:
    by_kind: dict[type, Callable[[bytes], Any]] = {
        DataHeader: interpreted.decode_data_header,
        ShimHeader: interpreted.decode_shim_header,
    }
    try:
        return by_kind.get(kind, interpreted.decode)(datagram)
    except interpreted.Refused:
        return REFUSED


def compiled_encode(value: Any) -> Any:
    if isinstance(value, DataHeader | ShimHeader):
        return built(build_data_header if isinstance(value, DataHeader) else build_shim_header, value)
    try:
        return encode(value)
    except LocalError:
        return REFUSED


def built(build: Any, value: Any) -> Any:
    """The data plane's headers are built without `encode`."""
    try:
        return build(value)
    except (struct.error, TypeError, CompiledRefused):
        return REFUSED


def interpreted_encode(value: Any) -> Any:
    try:
        return interpreted_build.encode(value)
    except interpreted.Refused:
        return REFUSED


def without_derived(value: Any) -> Any:
    """Of a kept inner header, addresses, lengths and checksums are derived."""
    return msgspec.structs.replace(value, header=b"") if isinstance(value, Ecm) else value


@every_kind
def test_round_trips_are_those_of_construct(kind: type) -> None:
    for seed in range(EXAMPLES):
        value = Chance(seed).message(kind)
        datagram = compiled_encode(value)
        assert datagram == interpreted_encode(value), (seed, value)
        assert datagram != REFUSED, (seed, value)
        back = compiled_decode(kind, datagram)
        assert back == interpreted_decode(kind, datagram), seed
        assert without_derived(back) == without_derived(value), seed
        assert compiled_encode(back) == datagram, seed


@every_kind
def test_broken_bytes_are_accepted_and_refused_as_by_construct(kind: type) -> None:
    refused = 0
    for seed in range(EXAMPLES):
        chance = Chance(seed)
        datagram = chance.broken(compiled_encode(chance.message(kind)))
        value = compiled_decode(kind, datagram)
        assert value == interpreted_decode(kind, datagram), (seed, datagram.hex())
        if value == REFUSED:
            refused += 1
        elif isinstance(value, Message):
            assert encode(value) == datagram, (seed, datagram.hex())
    assert refused > 0


@every_kind
def test_values_that_do_not_fit_are_refused_as_by_construct(kind: type) -> None:
    refused = 0
    for seed in range(EXAMPLES):
        chance = Chance(seed)
        value = chance.wrong(chance.message(kind))
        datagram = compiled_encode(value)
        assert datagram == interpreted_encode(value), (seed, value)
        refused += datagram == REFUSED
    assert refused > 0
