"""An independent decoder reads what we emit: one batch of every message over every kind of EID-Prefix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lispfmc.wire import encode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import Algorithm, Key, sign
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
from tests.integration.wireshark import assert_read_whole, visible

pytestmark = pytest.mark.tshark
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
        yield sign(MapNotifyAck.of(notify), key)
        for source, destination in (("100.64.2.10", "100.64.1.10"), ("fd00::1", "fd00::2")):
            yield encode(Ecm.of(request, source=ip_of(source), destination=ip_of(destination), source_port=50000))


def test_tshark_reads_every_emitted_message_whole(tmp_path: Path) -> None:
    assert assert_read_whole((visible(datagram) for datagram in emitted()), tmp_path / "emitted.pcap") > 20
