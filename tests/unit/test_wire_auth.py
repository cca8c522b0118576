"""A signed message verifies with its key alone, over every byte, with the key's algorithm and known tag lengths."""

from __future__ import annotations

import hashlib
import hmac

import msgspec
import pytest

from lispfmc.wire import LocalError, decode, encode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import AUTH_OFFSET, Algorithm, Key, sign, verify
from lispfmc.wire.messages import EidRecord, Locator, MapNotify, MapNotifyAck, MapRegister

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


def test_a_message_without_authentication_never_verifies() -> None:
    nobody = Key(0, b"", Algorithm.NONE)
    assert not verify(REGISTER, encode(REGISTER), nobody)
    with pytest.raises(LocalError):
        sign(REGISTER, nobody)


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
