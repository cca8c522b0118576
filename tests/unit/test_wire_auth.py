"""A signed message verifies with its key alone, by the key's algorithm, over what the RFC or deployed systems cover."""

from __future__ import annotations

import hashlib
import hmac
from typing import get_args

import msgspec
import pytest

from lispfmc.wire import PeerError, decode, encode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import AUTH_OFFSET, Algorithm, AuthCompat, Key, sign, verify
from lispfmc.wire.messages import EidRecord, Locator, MapNotify, MapNotifyAck, MapRegister, Signed

KEY = Key(1, b"fmc-lab-secret")
RECORD = EidRecord.of(
    Prefix.parse("10.1.0.5/32"), [Locator.of(ip_of("192.0.2.2"), local=True)], ttl_minutes=1440, authoritative=True
)
REGISTER = MapRegister.of(RECORD, nonce=0x0000018C00000001, xtr_id=bytes(range(16)), site_id=bytes(7) + b"\xaa")


def received(datagram: bytes) -> MapRegister:
    message = decode(datagram)
    assert isinstance(message, MapRegister)
    return message


def with_tag(message: MapRegister, secret: bytes, hash_name: str, size: int) -> bytes:
    """What another implementation sends: an independent HMAC over the whole message, cut to `size`."""
    blank = encode(msgspec.structs.replace(message, auth=bytes(size)))
    tag = hmac.digest(secret, blank, hash_name)[:size].ljust(size, b"\0")
    return blank[:AUTH_OFFSET] + tag + blank[AUTH_OFFSET + size :]


def test_register_is_signed_over_the_whole_message_with_16_bytes() -> None:
    datagram = sign(REGISTER, KEY)
    assert received(datagram).auth.hex() == "a4cb589de4428be59229783dcb5816c8"
    assert (received(datagram).key_id, received(datagram).algorithm_id) == (1, 2)
    assert verify(received(datagram), datagram, KEY)


@pytest.mark.parametrize(
    ("algorithm", "hash_name", "sizes"),
    [(Algorithm.HMAC_SHA_1_96, "sha1", (12, 20)), (Algorithm.HMAC_SHA_256_128, "sha256", (16, 32))],
)
@pytest.mark.parametrize("secret", [b"", b"password", b"long" * 40])
def test_tags_of_both_deployed_lengths_verify(
    algorithm: Algorithm, hash_name: str, sizes: tuple[int, int], secret: bytes
) -> None:
    key = Key(3, secret, algorithm)
    unsigned = msgspec.structs.replace(REGISTER, key_id=3, algorithm_id=int(algorithm))
    assert sign(REGISTER, key) == with_tag(unsigned, secret, hash_name, sizes[0])
    for size in sizes:
        datagram = with_tag(unsigned, secret, hash_name, size)
        assert verify(received(datagram), datagram, key)
    for size in {0, 4, 12, 16, 20, 32} - set(sizes):
        datagram = with_tag(unsigned, secret, hash_name, size)
        assert not verify(received(datagram), datagram, key)


def test_another_key_id_or_algorithm_or_secret_does_not_verify() -> None:
    datagram = sign(REGISTER, KEY)
    for key in (Key(2, KEY.secret), Key(1, b"other"), Key(1, KEY.secret, Algorithm.HMAC_SHA_1_96)):
        assert not verify(received(datagram), datagram, key)
    weaker = sign(REGISTER, Key(1, KEY.secret, Algorithm.HMAC_SHA_1_96))
    assert not verify(received(weaker), weaker, KEY)


def test_a_message_that_names_another_algorithm_than_made_its_tag_does_not_verify() -> None:
    lying = with_tag(msgspec.structs.replace(REGISTER, key_id=1, algorithm_id=1), KEY.secret, "sha256", 16)
    assert not verify(received(lying), lying, KEY)


def test_a_moved_xtr_id_does_not_verify() -> None:
    datagram = sign(REGISTER, KEY)
    moved = datagram[:-24] + bytes(16) + datagram[-8:]
    assert not verify(received(moved), moved, KEY)


def test_a_message_without_authentication_verifies_only_where_a_key_says_that_there_is_none() -> None:
    nobody = Key(0, b"", Algorithm.NONE)
    datagram = sign(REGISTER, nobody)
    assert datagram == encode(REGISTER)
    assert verify(received(datagram), datagram, nobody)
    for algorithm in set(Algorithm) - {Algorithm.NONE}:
        assert not verify(received(datagram), datagram, Key(0, b"", algorithm))
    tagged = encode(msgspec.structs.replace(REGISTER, auth=bytes(16)))  # says "none", and yet carries something
    assert not verify(received(tagged), tagged, nobody)


# Tags over the same Map-Register, computed from the RFC's text with another program.
@pytest.mark.parametrize(
    ("algorithm", "compat", "tag"),
    [
        (2, "rfc", "2fe091fe3ab3c9d42285eedec5816215"),
        (2, "whole-16", "a4cb589de4428be59229783dcb5816c8"),
        (2, "full-length", "0b62cbf89e359164609b5147520e8ea418f4ab7724e8b7e4a34f21e22843a52a"),
        (3, "rfc", "3986aabfc92b786d5346b2ef80e7e361"),
        (3, "whole-16", "189f5b1e32ab153cba56e38c58d2e444"),
    ],
)
def test_a_key_speaks_as_its_peer_wants_and_understands_every_way(algorithm: int, compat: AuthCompat, tag: str) -> None:
    datagram = sign(REGISTER, Key(1, KEY.secret, Algorithm(algorithm), compat))
    assert received(datagram).auth.hex() == tag
    for any_compat in get_args(AuthCompat):
        assert verify(received(datagram), datagram, Key(1, KEY.secret, Algorithm(algorithm), any_compat))


@pytest.mark.parametrize("name", ["Map-Register", "Map-Notify", "Map-Notify-Ack"])
@pytest.mark.parametrize("secret", [b"", b"password", b"long" * 40])
def test_hkdf_derives_a_key_for_every_message(name: str, secret: bytes) -> None:
    for nonce in (0, 1, 2**64 - 1):
        notify = MapNotify.of(RECORD, nonce=nonce)
        kinds: dict[str, Signed] = {
            "Map-Register": MapRegister.of(RECORD, nonce=nonce),
            "Map-Notify": notify,
            "Map-Notify-Ack": MapNotifyAck.of(notify),
        }
        message = msgspec.structs.replace(kinds[name], key_id=1, algorithm_id=3, auth=bytes(16))
        extracted = hmac.digest(f"{name} Authentication".encode(), nonce.to_bytes(8, "big") + secret, "sha256")
        message_key = hmac.digest(extracted, b"\x01", "sha256")  # RFC 5869 §2.3
        expected = hmac.digest(message_key, encode(message), "sha256")[:16]
        datagram = sign(message, Key(1, secret, Algorithm.HMAC_SHA_256_128_HKDF))
        assert datagram[AUTH_OFFSET : AUTH_OFFSET + 16] == expected


def test_what_the_rfc_leaves_uncovered_is_the_trailer_and_no_more() -> None:
    by_the_letter = sign(REGISTER, Key(1, KEY.secret, compat="rfc"))
    for position in range(len(by_the_letter)):
        changed = bytearray(by_the_letter)
        changed[position] ^= 1
        try:
            message = decode(bytes(changed))
        except PeerError:
            continue
        assert isinstance(message, MapRegister | MapNotify)
        in_trailer = position >= len(by_the_letter) - 24
        assert verify(message, bytes(changed), KEY) == in_trailer, position


def test_a_trailer_cannot_be_appended_to_a_message_that_had_none() -> None:
    datagram = sign(MapNotify.of(RECORD, nonce=5), KEY)
    longer = datagram + bytes(24)
    message = decode(longer)
    assert isinstance(message, MapNotify)
    assert message.xtr_id == bytes(16)
    assert not verify(message, longer, KEY)


def test_notify_and_acknowledgement_are_signed_too() -> None:
    notify = MapNotify.of(RECORD, nonce=5)
    for message in (notify, MapNotifyAck.of(notify)):
        datagram = sign(message, KEY)
        back = decode(datagram)
        assert isinstance(back, MapNotify | MapNotifyAck)
        assert verify(back, datagram, KEY)
        assert (
            back.auth
            == hmac.new(KEY.secret, encode(msgspec.structs.replace(back, auth=bytes(16))), hashlib.sha256).digest()[:16]
        )


def test_a_key_does_not_show_its_secret() -> None:
    assert "secret" not in repr(KEY)
