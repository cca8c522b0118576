"""LISP-SEC (RFC 9303): one-time keys that protect a Map-Request's answer, from the ITR to the Map-Server and back.

Bytes and keys in, bytes and verdicts out; randomness is the caller's. The ITR wraps a one-time key (OTK) for the
Map-Resolver; the Map-Server vouches with it for EID-Prefixes (EID-AD), derives the MS-OTK, and whoever answers signs
the whole Map-Reply with that (PKT-AD). So neither a stranger on the path nor an ETR that claims too much is believed.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from enum import IntEnum

import msgspec
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from lispfmc.wire.address import Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.encoding import encode
from lispfmc.wire.messages import Ecm, EidRecord, MapReply, address_of, prefix_of
from lispfmc.wire.security import (
    OTK_BYTES,
    EcmSecurity,
    EidAuthentication,
    EidProof,
    MapReplySecurity,
    PacketAuthentication,
    SecuredPrefix,
)


class Hmac(IntEnum):
    """HMAC IDs (RFC 9303 §8.3)."""

    NO_PREFERENCE = 0
    SHA_1_96 = 1
    SHA_256_128 = 2


class Wrapping(IntEnum):
    """OTK wrapping IDs (RFC 9303 §8.4)."""

    NULL = 1
    AES_128_HKDF_SHA_256 = 2


class Kdf(IntEnum):
    """Key derivation IDs (RFC 9303 §8.5)."""

    NO_PREFERENCE = 0
    HKDF_SHA1_128 = 1
    HKDF_SHA256 = 2


_HASH = {Hmac.SHA_1_96: ("sha1", 12), Hmac.SHA_256_128: ("sha256", 16)}
_KDF_HASH = {Kdf.HKDF_SHA1_128: "sha1", Kdf.HKDF_SHA256: "sha256"}
_LABEL = b"OTK-Key-Wrap"  # RFC 9303 §6.5, step 4
_ECM_EID_AD = 36  # where the EID-AD begins in an ECM: after its word, the first word of the AD, the OTK-AD
_PACKET_AD_HEADER = 4


class Unsafe(Exception):  # noqa: N818 - what is wrong with a protected message; `reason` is a Reject's
    """A protected message is not to be followed."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Protection(msgspec.Struct, frozen=True, gc=False):
    """What an ITR keeps of a protected question, or a Map-Server has learned from one: the ITR-OTK, and the wishes."""

    otk: bytes
    hmac_id: int = Hmac.SHA_256_128
    kdf_id: int = Kdf.HKDF_SHA256

    def __repr__(self) -> str:
        return f"Protection(hmac_id={self.hmac_id}, kdf_id={self.kdf_id})"  # the key stays out of logs


class Sealed(msgspec.Struct, frozen=True, gc=False):
    """A one-time key as it travels: who has the secret `key_id` opens it, with the nonce that it came with."""

    key_id: int
    nonce: int
    wrapped: bytes


def wrapped(otk: bytes, nonce: int, secret: bytes) -> bytes:
    """Preamble and one-time key as they travel (RFC 9303 §6.5): AES key wrap by a key of this message's own."""
    return aes_key_wrap(_message_key(nonce, secret), otk)


def unwrapped(security: EcmSecurity, nonce: int, secrets: Iterable[bytes]) -> bytes:
    """The one-time key that one of `secrets` opens. Raises Unsafe."""
    return opened(sealed(security, nonce), secrets)


def sealed(security: EcmSecurity, nonce: int) -> Sealed:
    """The one-time key of a Map-Request, still closed. Raises Unsafe when it came open."""
    if security.otk_wrapping_id != Wrapping.AES_128_HKDF_SHA_256:
        # RFC 9303 §6.5, step 2: NULL-KEY-WRAP-128 without DTLS, which we do not have, MUST be dropped
        raise Unsafe("unwrapped-key", f"OTK wrapping {security.otk_wrapping_id}")
    return Sealed(security.key_id, nonce, security.one_time_key)


def opened(closed: Sealed, secrets: Iterable[bytes]) -> bytes:
    """The one-time key. Raises Unsafe."""
    tried = False
    for secret in secrets:
        tried = True
        try:
            return aes_key_unwrap(_message_key(closed.nonce, secret), closed.wrapped)
        except (InvalidUnwrap, ValueError):
            continue
    if not tried:
        raise Unsafe("unknown-key", f"LISP-SEC, key id {closed.key_id}")
    raise Unsafe("bad-authentication", f"the one-time key is not wrapped by key {closed.key_id}")


def pubsub_key(otk: bytes, nonce: int, key_id: int) -> Key:
    """What authenticates the publications of the subscription that was asked for with `otk` and `nonce`.

    RFC 9437 §7.1: PubSubKey = KDF(OTK + nonce), by the KDF of the OTK wrapping. Its length, the Map-Notify's algorithm
    and Key ID are left open: 128 bits, as for the other key of that KDF; HMAC-SHA-256-128; the ID of the OTK's secret.
    """
    return Key(key_id, _hkdf("sha256", otk + nonce.to_bytes(8, "big"), OTK_BYTES))


def asking(protection: Protection, nonce: int, key_id: int, secret: bytes) -> EcmSecurity:
    """The ITR's authentication data for a Map-Request (RFC 9303 §6.4)."""
    return EcmSecurity.of(
        wrapped(protection.otk, nonce, secret),
        EidAuthentication(protection.kdf_id),
        requested_hmac_id=protection.hmac_id,
        key_id=key_id,
        otk_wrapping_id=Wrapping.AES_128_HKDF_SHA_256,
    )


def asked(security: EcmSecurity, nonce: int, secrets: Iterable[bytes]) -> Protection:
    """What the Map-Server answers by: the ITR's wishes where we can grant them, else our own choice (RFC 9303 §6.7).

    Raises Unsafe.
    """
    otk = unwrapped(security, nonce, secrets)
    hmac_id, kdf_id = security.requested_hmac_id, security.eid_authentication.kdf_id
    return Protection(
        otk,
        hmac_id if hmac_id in _HASH else Hmac.SHA_256_128,
        kdf_id if kdf_id in _KDF_HASH else Kdf.HKDF_SHA256,
    )


def proxy_reply(
    reply: MapReply, protection: Protection, prefixes: Sequence[Prefix], *, etr_cant_sign: bool = False
) -> bytes:
    """The Map-Server's protected answer in the ETR's place (RFC 9303 §6.7.2)."""
    blank = _blank(protection, prefixes, etr_cant_sign=etr_cant_sign)
    size = _HASH[Hmac(protection.hmac_id)][1]
    datagram = _reply(reply, blank, protection.hmac_id)
    end = len(datagram) - _PACKET_AD_HEADER - size
    eid_ad = datagram[end - _length(blank) : end]
    datagram = datagram[: end - size] + _mac(protection.hmac_id, protection.otk, eid_ad) + datagram[end:]
    return _signed(datagram, ms_otk(protection), protection.hmac_id)


def forwarding(
    ecm: Ecm, protection: Protection, prefix: Prefix, *, nonce: int, key_id: int, secret: bytes, etr_cant_sign: bool
) -> bytes:
    """The Map-Server's protected request to an ETR: MS-OTK and vouched prefix in a new ECM (RFC 9303 §6.7.1)."""
    blank = _blank(protection, (prefix,), etr_cant_sign=etr_cant_sign)
    security = EcmSecurity.of(
        wrapped(ms_otk(protection), nonce, secret),
        blank,
        requested_hmac_id=protection.hmac_id,
        key_id=key_id,
        otk_wrapping_id=Wrapping.AES_128_HKDF_SHA_256,
    )
    datagram = encode(msgspec.structs.replace(ecm, word=ecm.word | 0x0800_0000, security=security))
    end = _ECM_EID_AD + _length(blank)
    tag = _mac(protection.hmac_id, protection.otk, datagram[_ECM_EID_AD:end])
    return datagram[: end - len(tag)] + tag + datagram[end:]


def etr_reply(reply: MapReply, security: EcmSecurity, otk: bytes) -> bytes:
    """An ETR's protected answer: the EID-AD as it came, signed with the MS-OTK that came with it (RFC 9303 §6.8)."""
    hmac_id = security.requested_hmac_id if security.requested_hmac_id in _HASH else Hmac.SHA_256_128
    return _signed(_reply(reply, security.eid_authentication, hmac_id), otk, hmac_id)


def believable(reply: MapReply, datagram: bytes, protection: Protection) -> tuple[EidRecord, ...]:
    """The records of a protected Map-Reply that the Map-Server vouches for (RFC 9303 §6.9). Raises Unsafe."""
    security = reply.security
    if security is None or security.eid_authentication.proof is None:
        raise Unsafe("unprotected-reply", "no authentication data where it was asked for")
    eid_ad, proof = security.eid_authentication, security.eid_authentication.proof
    packet = security.packet_authentication
    if (packet.hmac_id, eid_ad.kdf_id) != (protection.hmac_id, protection.kdf_id) or proof.hmac_id not in _HASH:
        raise Unsafe("unsuitable-protection", f"HMAC {packet.hmac_id} and {proof.hmac_id}, KDF {eid_ad.kdf_id}")
    end = len(datagram) - _PACKET_AD_HEADER - len(packet.hmac)
    signed = datagram[end - _length(eid_ad) : end - len(proof.hmac)] + bytes(len(proof.hmac))
    # RFC 9303 §6.9 has the HMAC *ID* zeroed here, §6.7.1 only the HMAC: what the Map-Server does is what counts
    if not hmac.compare_digest(_mac(proof.hmac_id, protection.otk, signed), proof.hmac):
        raise Unsafe("bad-authentication", "the EID-AD is not by our one-time key")
    whole = datagram[: len(datagram) - len(packet.hmac)] + bytes(len(packet.hmac))
    if not hmac.compare_digest(_mac(packet.hmac_id, ms_otk(protection), whole), packet.hmac):
        raise Unsafe("bad-authentication", "the Map-Reply is not by the key that was derived from ours")
    vouched = [prefix for each in proof.records if (prefix := prefix_of(each.eid, each.mask_length)) is not None]
    # RFC 9303 §6.9.1: a record that reaches beyond what is vouched for is discarded, not cut down
    believed = tuple(
        record
        for record in reply.records
        if (prefix := record.prefix) is not None and any(each.covers(prefix) for each in vouched)
    )
    if not believed:
        raise Unsafe("overclaimed", f"only {', '.join(map(str, vouched)) or 'nothing'} is vouched for")
    return believed


def ms_otk(protection: Protection) -> bytes:
    """The key that an ETR signs with, which tells nobody the ITR's (RFC 9303 §6.7.1)."""
    return _hkdf(_KDF_HASH[Kdf(protection.kdf_id)], protection.otk, OTK_BYTES)


def _message_key(nonce: int, secret: bytes) -> bytes:
    # RFC 9303 §6.5: KDF(nonce + s + PSK); what the KDF's salt and info are is left open: none
    return _hkdf("sha256", nonce.to_bytes(8, "big") + _LABEL + secret, OTK_BYTES)


def _hkdf(algorithm: str, secret: bytes, size: int) -> bytes:
    """HKDF without salt and info (RFC 5869 §2.2, §2.3), for at most one block of output."""
    pseudorandom = hmac.digest(b"", secret, algorithm)
    return hmac.digest(pseudorandom, b"\x01", algorithm)[:size]


def _mac(hmac_id: int, key: bytes, data: bytes) -> bytes:
    algorithm, size = _HASH[Hmac(hmac_id)]
    return hmac.digest(key, data, algorithm)[:size]


def _blank(protection: Protection, prefixes: Sequence[Prefix], *, etr_cant_sign: bool) -> EidAuthentication:
    """The EID-AD before its HMAC is known: RFC 9303 §6.7.1 has the field zero while it is computed."""
    records = [SecuredPrefix(0, each.length, address_of(each)) for each in prefixes]
    size = _HASH[Hmac(protection.hmac_id)][1]
    proof = EidProof.of(*records, hmac_id=protection.hmac_id, hmac=bytes(size), etr_cant_sign=etr_cant_sign)
    return EidAuthentication(protection.kdf_id, proof)


def _reply(reply: MapReply, eid_ad: EidAuthentication, hmac_id: int) -> bytes:
    packet = PacketAuthentication(hmac_id, bytes(_HASH[Hmac(hmac_id)][1]))
    security = MapReplySecurity(eid_ad, packet)
    return encode(msgspec.structs.replace(reply, word=reply.word | 0x0200_0000, security=security))


def _signed(datagram: bytes, otk: bytes, hmac_id: int) -> bytes:
    tag = _mac(hmac_id, otk, datagram)
    return datagram[: -len(tag)] + tag


def _length(eid_ad: EidAuthentication) -> int:
    """Bytes of an EID-AD that has a proof, its length field included."""
    proof = eid_ad.proof
    assert proof is not None
    return 8 + sum(map(_record_length, proof.records)) + len(proof.hmac)


def _record_length(record: SecuredPrefix) -> int:
    if isinstance(record.eid, bytes):
        return 4 + len(record.eid)
    # its address is as long as in a Map-Reply's record, whose first 20 bytes are other fields
    return len(encode(MapReply.of(EidRecord(0, 0, 0, 0, record.eid, ()), nonce=0))) - 20
