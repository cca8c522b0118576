"""LISP-SEC (RFC 9303) from end to end in bytes: ITR, Map-Server as proxy or with an ETR, and those who meddle."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from hypothesis import given
from hypothesis import strategies as st

from lispfmc.core import lispsec
from lispfmc.core.lispsec import Hmac, Kdf, Protection, Unsafe, Wrapping
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.errors import PeerError
from lispfmc.wire.messages import Ecm, EidRecord, Locator, MapReply, MapRequest, RequestRecord
from lispfmc.wire.security import EcmSecurity, EidAuthentication

OTK, SECRET, NONCE = bytes(range(16)), b"between ITR and MR", 0x1122334455667788
ETR_SECRET = b"between MS and ETR"
HOME = Prefix.parse("100.64.1.0/24")
ALICE = Prefix.parse("100.64.1.10/32")
RLOC = [Locator.of(ip_of("198.18.0.11"))]


def question(protection: Protection) -> Ecm:
    request = MapRequest.of(RequestRecord.of(ALICE), nonce=NONCE, itr_rlocs=[ip_of("198.18.0.12")])
    security = lispsec.asking(protection, NONCE, 7, SECRET)
    ecm = Ecm.of(request, source=ip_of("198.18.0.12"), destination=ALICE.ip, source_port=4342, security=security)
    received = decode(encode(ecm))
    assert isinstance(received, Ecm)
    return received


def answer(*prefixes: Prefix) -> MapReply:
    return MapReply.of(*(EidRecord.of(each, RLOC, ttl_minutes=5) for each in prefixes), nonce=NONCE)


def heard(datagram: bytes) -> MapReply:
    reply = decode(datagram)
    assert isinstance(reply, MapReply)
    assert encode(reply) == datagram
    return reply


def proxied(ecm: Ecm, reply: MapReply, *vouched: Prefix) -> bytes:
    """What a Map-Server that knows the ITR's secret makes of it."""
    assert ecm.security is not None
    return lispsec.proxy_reply(reply, lispsec.asked(ecm.security, NONCE, [b"another", SECRET]), vouched)


@pytest.mark.parametrize("hmac_id", [Hmac.SHA_1_96, Hmac.SHA_256_128])
@pytest.mark.parametrize("kdf_id", [Kdf.HKDF_SHA1_128, Kdf.HKDF_SHA256])
@pytest.mark.parametrize("prefix", ["100.64.1.0/24", "fd00:0:0:1::/64", "[7]100.64.1.0/24", "[7]fd00::/8"])
def test_a_proxy_reply_is_believed_whatever_the_algorithms_and_addresses(
    hmac_id: Hmac, kdf_id: Kdf, prefix: str
) -> None:
    protection = Protection(OTK, hmac_id, kdf_id)
    eid = Prefix.parse(prefix)
    datagram = proxied(question(protection), answer(eid), eid)
    assert [str(each.prefix) for each in lispsec.believable(heard(datagram), datagram, protection)] == [prefix]


def test_wishes_that_nobody_knows_are_replaced_by_ours() -> None:
    security = lispsec.asking(Protection(OTK, 99, 99), NONCE, 7, SECRET)
    assert lispsec.asked(security, NONCE, [SECRET]) == Protection(OTK, Hmac.SHA_256_128, Kdf.HKDF_SHA256)


def test_the_one_time_key_travels_as_rfc_3394_wraps_it_with_a_key_of_this_message() -> None:
    """RFC 9303 §6.5: per-msg-key = KDF(nonce + "OTK-Key-Wrap" + PSK), 128 bits; HKDF without salt and info."""
    extracted = hmac.digest(bytes(32), NONCE.to_bytes(8, "big") + b"OTK-Key-Wrap" + SECRET, sha256)
    key = hmac.digest(extracted, b"\x01", sha256)[:16]
    travelling = lispsec.wrapped(OTK, NONCE, SECRET)
    assert len(travelling) == 24
    assert aes_key_unwrap(key, travelling) == OTK
    assert travelling != lispsec.wrapped(OTK, NONCE + 1, SECRET)


def test_a_null_wrapped_key_is_refused_as_there_is_no_dtls() -> None:
    bare = EcmSecurity.of(
        bytes(8) + OTK,
        EidAuthentication(Kdf.HKDF_SHA256),
        requested_hmac_id=Hmac.SHA_256_128,
        key_id=0,
        otk_wrapping_id=Wrapping.NULL,
    )
    with pytest.raises(Unsafe) as refused:
        lispsec.asked(bare, NONCE, [SECRET])
    assert refused.value.reason == "unwrapped-key"


@pytest.mark.parametrize(
    ("nonce", "secrets", "reason"),
    [
        (NONCE, [], "unknown-key"),
        (NONCE, [b"guessed"], "bad-authentication"),
        (NONCE + 1, [SECRET], "bad-authentication"),  # a key that was taken from another message
    ],
)
def test_a_key_that_does_not_open_is_refused(nonce: int, secrets: list[bytes], reason: str) -> None:
    security = lispsec.asking(Protection(OTK), NONCE, 7, SECRET)
    with pytest.raises(Unsafe) as refused:
        lispsec.asked(security, nonce, secrets)
    assert refused.value.reason == reason


def forwarded(protection: Protection, *, cant_sign: bool = False) -> Ecm:
    """The question as the Map-Server passes it on to an ETR."""
    ecm = question(protection)
    assert ecm.security is not None
    known = lispsec.asked(ecm.security, NONCE, [SECRET])
    datagram = lispsec.forwarding(ecm, known, HOME, nonce=NONCE, key_id=1, secret=ETR_SECRET, etr_cant_sign=cant_sign)
    onward = decode(datagram)
    assert isinstance(onward, Ecm)
    assert encode(onward) == datagram
    assert onward.message == ecm.message
    return onward


def test_an_etr_signs_with_a_key_that_does_not_tell_the_itrs() -> None:
    protection = Protection(OTK)
    onward = forwarded(protection)
    assert onward.security is not None
    otk = lispsec.unwrapped(onward.security, NONCE, [ETR_SECRET])
    assert otk != OTK
    datagram = lispsec.etr_reply(answer(HOME, ALICE), onward.security, otk)
    assert len(lispsec.believable(heard(datagram), datagram, protection)) == 2


def test_the_e_bit_says_that_another_etr_cannot_sign() -> None:
    onward = forwarded(Protection(OTK), cant_sign=True)
    assert onward.security is not None
    proof = onward.security.eid_authentication.proof
    assert proof is not None
    assert proof.etr_cant_sign


def test_an_etr_that_claims_more_than_is_vouched_for_is_not_believed() -> None:
    """The example of RFC 9303 §6.9.1."""
    protection = Protection(OTK)
    claims = [Prefix.parse(each) for each in ("2001:db8:102::/48", "2001:db8:103::/48", "2001:db8:200::/40")]
    vouched = [Prefix.parse(each) for each in ("2001:db8:103::/48", "2001:db8:203::/48")]
    datagram = proxied(question(protection), answer(*claims), *vouched)
    assert [each.prefix for each in lispsec.believable(heard(datagram), datagram, protection)] == [claims[1]]
    datagram = proxied(question(protection), answer(claims[2]), *vouched)
    with pytest.raises(Unsafe) as refused:
        lispsec.believable(heard(datagram), datagram, protection)
    assert refused.value.reason == "overclaimed"


def test_a_reply_without_protection_is_not_believed() -> None:
    datagram = encode(answer(HOME))
    with pytest.raises(Unsafe) as refused:
        lispsec.believable(heard(datagram), datagram, Protection(OTK))
    assert refused.value.reason == "unprotected-reply"


def test_another_algorithm_than_was_asked_for_is_not_believed() -> None:
    asked_for, weaker = Protection(OTK), Protection(OTK, Hmac.SHA_1_96)
    datagram = proxied(question(weaker), answer(HOME), HOME)
    with pytest.raises(Unsafe) as refused:
        lispsec.believable(heard(datagram), datagram, asked_for)
    assert refused.value.reason == "unsuitable-protection"


@given(st.data())
def test_not_one_bit_can_be_changed_on_the_way(data: st.DataObject) -> None:
    protection = Protection(OTK)
    datagram = proxied(question(protection), answer(HOME, ALICE), HOME)
    at = data.draw(st.integers(0, len(datagram) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = datagram[:at] + bytes([datagram[at] ^ 1 << bit]) + datagram[at + 1 :]
    try:
        reply = decode(changed)
    except PeerError:
        return
    if isinstance(reply, MapReply):
        with pytest.raises(Unsafe):
            lispsec.believable(reply, changed, protection)
