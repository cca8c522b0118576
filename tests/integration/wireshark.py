"""Wireshark as an independent reader of control messages: one batched run, nothing malformed, nothing undecoded.

Its blind spots are stepped around: type 5 is shown to it as type 4, and RFC 9437's N- and I-bits of a Map-Request,
with the trailer, are left out.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec

from lispfmc.wire import decode, encode
from lispfmc.wire.address import ip_of
from lispfmc.wire.checksum import internet_checksum, udp_checksum
from lispfmc.wire.messages import Ecm, MapRequest, Message

MARKS = ("lisp.undecoded", "lisp.unexpected_field", "lisp.invalid_field", "lisp.expected_field", "_ws.malformed")
I_BIT = 0x0010_0000


def visible(datagram: bytes) -> bytes:
    """The message as Wireshark can read it."""
    if datagram[0] >> 4 == 5:
        return bytes([datagram[0] & 0x0F | 0x40]) + datagram[1:]
    message = decode(datagram)
    plain = _without_rfc9437(message)
    return datagram if plain is message else encode(plain)


def _without_rfc9437(message: Message) -> Message:
    match message:
        case MapRequest(xtr_id=None):
            return message
        case MapRequest():
            records = tuple(msgspec.structs.replace(record, flags=record.flags & 0x7F) for record in message.records)
            return msgspec.structs.replace(
                message, word=message.word & ~I_BIT, records=records, xtr_id=None, site_id=None
            )
        case Ecm():
            inner = _without_rfc9437(message.message)
            return message if inner is message.message else msgspec.structs.replace(message, message=inner)
        case _:
            return message


def assert_read_whole(datagrams: Iterable[bytes], file: Path) -> int:
    """Wireshark reads every datagram (UDP 4342) to its end; returns how many there were."""
    count = write(file, datagrams)
    command = ["tshark", "-r", str(file), "-T", "json", "--no-duplicate-keys", "-o", "udp.check_checksum:TRUE"]
    command += ["-o", "ip.check_checksum:TRUE"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    frames = json.loads(run.stdout)
    assert len(frames) == count
    for number, frame in enumerate(frames, 1):
        text = json.dumps(frame)
        assert '"lisp"' in text, number
        assert '"lisp.data"' not in text
        assert '"data.data"' not in text, f"frame {number}: bytes left over"
        for mark in MARKS:
            assert mark not in text, f"frame {number}: {mark}"
        assert '"udp.checksum.status": "0"' not in text, f"frame {number}: bad UDP checksum"
        assert '"ip.checksum.status": "0"' not in text, f"frame {number}: bad IP checksum"
    return count


def write(file: Path, datagrams: Iterable[bytes]) -> int:
    """A pcap of raw IP packets, UDP port 4342 to 4342."""
    source, destination = ip_of("198.18.0.1"), ip_of("198.18.0.2")
    whole = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)]
    for payload in datagrams:
        segment = struct.pack(">HHHH", 4342, 4342, 8 + len(payload), 0) + payload
        segment = segment[:6] + udp_checksum(source, destination, segment).to_bytes(2, "big") + payload
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 17, 0) + source + destination
        packet = head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + segment
        whole.append(struct.pack("<IIII", 1, 0, len(packet), len(packet)) + packet)
    file.write_bytes(b"".join(whole))
    return len(whole) - 1
