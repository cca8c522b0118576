"""Bytes of other implementations and of the RFCs decode, come back unchanged, verify, and never decode when cut."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lispfmc.wire import PeerError, decode, encode
from lispfmc.wire.auth import Algorithm, Key, verify
from lispfmc.wire.describe import describe, describe_data
from lispfmc.wire.messages import MapNotify, MapRegister
from lispfmc.wire.pcap import Packet, packets
from lispfmc.wire.tree import tree

HERE = Path(__file__).parent
VECTORS: list[dict[str, Any]] = tomllib.loads((HERE / "messages.toml").read_text())["vector"]
CAPTURES = ("openoverlayrouter.pcap", "lispers-net.pcap")
every_vector = pytest.mark.parametrize("vector", VECTORS, ids=[one["name"] for one in VECTORS])


def bytes_of(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["hex"])


def captured(name: str) -> list[Packet]:
    with (HERE / name).open("rb") as stream:
        return list(packets(stream))


@every_vector
def test_decodes_to_its_message_and_encodes_to_the_same_bytes(vector: dict[str, Any]) -> None:
    message = decode(bytes_of(vector))
    assert describe(message)["message"] == vector["message"]
    assert encode(message) == bytes_of(vector)


@every_vector
def test_every_truncation_is_refused_with_an_offset_inside_the_datagram(vector: dict[str, Any]) -> None:
    whole = bytes_of(vector)
    for size in range(vector.get("shortest", len(whole))):
        with pytest.raises(PeerError) as refused:
            decode(whole[:size])
        assert 0 <= refused.value.offset <= size


@pytest.mark.parametrize("vector", [one for one in VECTORS if "shortest" not in one], ids=lambda one: str(one["name"]))
def test_trailing_bytes_are_refused(vector: dict[str, Any]) -> None:
    for tail in (b"\0", bytes(23), bytes(25)):
        with pytest.raises(PeerError):
            decode(bytes_of(vector) + tail)


@every_vector
def test_any_json_writer_and_any_reader_can_show_it(vector: dict[str, Any]) -> None:
    described = describe(decode(bytes_of(vector)))
    assert msgspec.json.decode(msgspec.json.encode(described)) == described
    lines = tree(bytes_of(vector))
    offsets = [int(line.split()[0]) for line in lines]
    assert offsets == sorted(offsets)
    assert offsets[-1] <= len(bytes_of(vector))


@pytest.mark.parametrize("vector", [one for one in VECTORS if "key" in one], ids=lambda one: str(one["name"]))
def test_tag_verifies_with_its_key_and_only_with_it(vector: dict[str, Any]) -> None:
    datagram = bytes_of(vector)
    message = decode(datagram)
    assert isinstance(message, MapRegister | MapNotify)
    key = Key(vector["key_id"], vector["key"].encode(), Algorithm(vector["algorithm"]))
    assert verify(message, datagram, key)
    assert not verify(message, datagram, msgspec.structs.replace(key, secret=b"another"))


@pytest.mark.parametrize("name", CAPTURES)
def test_every_captured_control_message_decodes_losslessly(name: str) -> None:
    control = [one for one in captured(name) if 4342 in (one.source.port, one.destination.port)]
    assert len(control) > 50
    for packet in control:
        assert encode(decode(packet.payload)) == packet.payload


@pytest.mark.parametrize("name", CAPTURES)
def test_every_captured_tag_verifies(name: str) -> None:
    algorithm = Algorithm.HMAC_SHA_1_96 if name.startswith("open") else Algorithm.HMAC_SHA_256_128
    key = Key(0, b"password", algorithm)
    verified = 0
    for packet in captured(name):
        if packet.destination.port == 4341:
            continue
        message = decode(packet.payload)
        if isinstance(message, MapRegister | MapNotify):
            assert verify(message, packet.payload, key), packet.number
            verified += 1
    assert verified >= 6


def test_captured_data_packets_are_described() -> None:
    data = [one for one in captured("lispers-net.pcap") if one.destination.port == 4341]
    assert data
    for packet in data:
        assert describe_data(packet.payload)["inner"]["version"] == 4
