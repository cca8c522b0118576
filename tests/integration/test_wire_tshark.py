"""An independent decoder reads what we emit: one batch of every message, nothing malformed, nothing undecoded.

Wireshark's blind spots are stepped around: type 5 is shown to it as type 4, and RFC 9437's N- and I-bits of a
Map-Request, with the trailer, are left out.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lispfmc.wire import encode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import Algorithm, Key, sign
from lispfmc.wire.checksum import internet_checksum, udp_checksum
from lispfmc.wire.messages import (
    Action,
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

pytestmark = pytest.mark.tshark
MARKS = ("lisp.undecoded", "lisp.unexpected_field", "lisp.invalid_field", "lisp.expected_field", "_ws.malformed")
RLOCS = [Locator.of(ip_of("198.18.0.11"), local=True), Locator.of(ip_of("2001:2::11"), priority=2, reachable=False)]
XTR_ID, SITE_ID = bytes(range(16)), bytes(7) + b"\x07"
PREFIXES = [Prefix.parse(text) for text in ("100.64.1.10/32", "100.64.1.0/24", "fd00:0:0:1::10/128", "[7]10.0.0.0/8")]


def record(prefix: Prefix, *locators: Locator, action: Action = Action.NO_ACTION) -> EidRecord:
    return EidRecord.of(prefix, locators, ttl_minutes=1440, action=action, authoritative=True, map_version=5)


def emitted() -> Iterator[bytes]:
    """Every kind of message, over prefixes of both families and of an Instance-ID."""
    key = Key(1, b"secret")
    for prefix in PREFIXES:
        positive, negative = record(prefix, *RLOCS), record(prefix, action=Action.NATIVELY_FORWARD)
        rlocs = [one.address for one in RLOCS]
        asked = RequestRecord.of(prefix)
        request = MapRequest.of(asked, nonce=9, itr_rlocs=rlocs, source_eid=prefix.ip)
        yield encode(request)
        yield encode(MapRequest.of(asked, nonce=9, itr_rlocs=rlocs, smr=True, no_reply=True, source_eid=prefix.ip))
        yield encode(MapReply.of(positive, negative, nonce=9))
        yield encode(MapReply.of(nonce=9))
        yield sign(MapRegister.of(positive, nonce=9, xtr_id=XTR_ID, site_id=SITE_ID), key)
        yield sign(MapRegister.of(positive, negative, nonce=9, use_ttl=True), Key(1, b"s", Algorithm.HMAC_SHA_1_96))
        notify = MapNotify.of(positive, negative, nonce=9)
        yield sign(notify, key)
        acknowledgement = sign(MapNotifyAck.of(notify), key)
        yield bytes([acknowledgement[0] & 0x0F | 0x40]) + acknowledgement[1:]
        for source, destination in (("100.64.2.10", "100.64.1.10"), ("fd00::1", "fd00::2")):
            inner = {"source": ip_of(source), "destination": ip_of(destination)}
            yield encode(Ecm.of(request, source_port=50000, **inner))


def capture(path: Path) -> int:
    """A pcap of raw IP packets, UDP port 4342 to 4342."""
    source, destination = ip_of("198.18.0.1"), ip_of("198.18.0.2")
    whole = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    count = 0
    for payload in emitted():
        count += 1
        segment = struct.pack(">HHHH", 4342, 4342, 8 + len(payload), 0) + payload
        segment = segment[:6] + udp_checksum(source, destination, segment).to_bytes(2, "big") + payload
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 17, 0) + source + destination
        packet = head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + segment
        whole += struct.pack("<IIII", 1, 0, len(packet), len(packet)) + packet
    path.write_bytes(whole)
    return count


def test_tshark_reads_every_emitted_message_whole(tmp_path: Path) -> None:
    file = tmp_path / "emitted.pcap"
    count = capture(file)
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
