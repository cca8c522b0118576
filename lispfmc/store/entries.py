"""What the journal's entries say: values to bytes and back. The other items are entries as they stand."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from lispfmc.core.subscriptions import Subscribed
from lispfmc.store import Dropped, Released, StoreError


class Registered(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An accepted Map-Register: the datagram, and what was found out about it.

    `refused` are indexes of claims that changed nothing; `lease` is 0 when nothing belongs to it.
    """

    site: str
    ip: bytes
    port: int
    lifetime_s: float
    lease: int
    refused: tuple[int, ...]
    datagram: bytes


class Renewed(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A Map-Register that said what the lease's had said."""

    lease: int
    nonce: int
    lifetime_s: float


class Over(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Leases that ended, in this order."""

    leases: tuple[int, ...]


Said: TypeAlias = Registered | Renewed | Over | Released | Subscribed | Dropped

KINDS: dict[int, type[Said]] = {1: Registered, 2: Renewed, 3: Over, 4: Released, 5: Subscribed, 6: Dropped}
_NUMBERS = {said: number for number, said in KINDS.items()}
_DECODERS: dict[int, msgspec.msgpack.Decoder[Any]] = {
    number: msgspec.msgpack.Decoder(said) for number, said in KINDS.items()
}
_encode = msgspec.msgpack.Encoder().encode


def encoded(said: Said) -> tuple[int, bytes]:
    """The kind and the body of an entry."""
    return _NUMBERS[type(said)], _encode(said)


def decoded(kind: int, body: bytes) -> Said:
    """Raises StoreError for what this version does not understand."""
    try:
        said: Said = _DECODERS[kind].decode(body)
    except (KeyError, msgspec.MsgspecError) as error:
        raise StoreError(f"the journal has an entry of kind {kind} that cannot be read: {error}") from error
    return said
