"""`lispfmc decode`: messages and captures for people and for programs, malformed ones with the place and the reason."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from lispfmc.cli.app import run
from lispfmc.wire import encode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.messages import Ecm, EidRecord, Locator, MapReply

REPLY = encode(
    MapReply.of(
        EidRecord.of(Prefix.parse("100.64.1.10/32"), [Locator.of(ip_of("198.18.0.11"))], ttl_minutes=1440), nonce=7
    )
)


def capture(path: Path, *payloads: bytes, port: int = 4342) -> Path:
    """A classic pcap of raw IPv4 with one UDP packet a payload."""
    frames = b""
    for payload in payloads:
        udp = struct.pack("!HHHH", 4342, port, 8 + len(payload), 0) + payload
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
        packet = head + ip_of("198.18.0.1") + ip_of("198.18.0.11") + udp
        frames += struct.pack("<IIII", 1_700_000_000, 0, len(packet), len(packet)) + packet
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101) + frames)
    return path


def test_a_message_in_hex_is_shown_by_the_names_of_the_rfc(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", REPLY.hex()]) == 0
    out = capsys.readouterr().out
    assert "Map-Reply" in out
    assert "100.64.1.10/32" in out
    assert "198.18.0.11" in out


def test_hex_may_be_written_as_tools_print_it(capsys: pytest.CaptureFixture[str]) -> None:
    spaced = "0x" + REPLY.hex(" ", 2)
    assert run(["decode", spaced, "-o", "json"]) == 0
    (message,) = json.loads(capsys.readouterr().out)["messages"]
    assert message["message"] == "Map-Reply"


def test_a_malformed_message_is_1_with_offset_field_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", REPLY[:-3].hex(), "-o", "json"]) == 1
    (message,) = json.loads(capsys.readouterr().out)["messages"]
    assert set(message["error"]) == {"offset", "field", "reason"}
    assert run(["decode", REPLY[:-3].hex()]) == 1
    out = capsys.readouterr().out
    assert f"at byte {message['error']['offset']}" in out
    assert message["error"]["reason"] in out


def test_a_capture_is_shown_packet_by_packet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = capture(tmp_path / "two.pcap", REPLY, REPLY)
    assert run(["decode", str(path), "-o", "json"]) == 0
    messages = json.loads(capsys.readouterr().out)["messages"]
    assert [one["packet"] for one in messages] == [1, 2]
    assert messages[0]["destination"] == "198.18.0.11:4342"
    assert run(["decode", str(path)]) == 0
    assert capsys.readouterr().out.count("Map-Reply") == 2


def test_one_malformed_packet_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = capture(tmp_path / "mixed.pcap", REPLY[:9], REPLY)
    assert run(["decode", str(path), "-o", "json"]) == 1
    messages = json.loads(capsys.readouterr().out)["messages"]
    assert [one["message"] for one in messages] == ["malformed", "Map-Reply"]


def test_a_broken_capture_says_where_it_breaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = capture(tmp_path / "cut.pcap", REPLY)
    path.write_bytes(path.read_bytes()[:-5])
    assert run(["decode", str(path)]) == 1
    assert "byte " in capsys.readouterr().err


def test_a_tree_has_the_byte_of_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", REPLY.hex()]) == 0
    lines = {tuple(line.split()[:2]) for line in capsys.readouterr().out.splitlines()[1:]}
    assert {("4", "nonce:"), ("12", "ttl_minutes:"), ("24", "eid:"), ("36", "address:")} <= lines


def test_a_malformed_message_is_shown_up_to_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = REPLY[:34] + b"\x00\x63" + REPLY[36:]  # an AFI that nobody knows
    assert run(["decode", wrong.hex()]) == 1
    *shown, last, _ = capsys.readouterr().out.splitlines()
    assert last.startswith("   34  malformed: records locators address at byte 34: value 99")
    assert any(line.endswith("weight: 100") for line in shown)
    assert run(["decode", wrong.hex(), "-o", "json"]) == 1
    (message,) = json.loads(capsys.readouterr().out)["messages"]
    assert message["read"] == [line.strip() for line in shown[1:]]


def test_what_is_inside_an_ecm_is_shown_where_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    reply, here, there = MapReply.of(nonce=7), ip_of("198.18.0.1"), ip_of("100.64.1.10")
    ecm = encode(Ecm.of(reply, source=here, destination=there, source_port=4342))
    assert run(["decode", ecm.hex()]) == 0
    assert "   36    nonce: 0x0000000000000007" in capsys.readouterr().out.splitlines()
    assert run(["decode", (ecm[:-1] + b"\x08").hex()]) == 1  # only the UDP checksum tells
    assert "inner UDP checksum at byte 30" in capsys.readouterr().out
