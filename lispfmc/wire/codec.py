"""The declarations and the values put together: what runs for every message is compiled here, once, at import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lispfmc.wire import (
    address_formats,
    dataheader,
    extensions,
    formats,
    inner,
    lcaf,
    messages,
    moveformat,
    moves,
    security,
)
from lispfmc.wire.address import InstanceAddress, OpaqueLcaf
from lispfmc.wire.compiler import Compiler
from lispfmc.wire.words import bare

LCAFS = {
    address_formats.LCAF_AFI_LIST: lcaf.AfiList,
    address_formats.LCAF_INSTANCE_ID: InstanceAddress,
    address_formats.LCAF_NAT: lcaf.NatTraversal,
    address_formats.LCAF_PATH: lcaf.LocatorPath,
    address_formats.LCAF_SOURCE_DEST: lcaf.SourceDestination,
    address_formats.LCAF_REPLICATION: lcaf.ReplicationList,
    address_formats.LCAF_JSON: lcaf.JsonAddress,
    address_formats.LCAF_KEY_VALUE: lcaf.KeyValue,
    address_formats.LCAF_VENDOR: lcaf.VendorAddress,
}
VALUES: dict[Any, type] = {
    address_formats.Name: lcaf.DistinguishedName,
    address_formats.Mac: lcaf.MacAddress,
    address_formats.INNER_LCAF: OpaqueLcaf,
    address_formats.LCAF: OpaqueLcaf,
    address_formats.EID_INSTANCE: InstanceAddress,
    formats.Locator: messages.Locator,
    formats.EidRecord: messages.EidRecord,
    formats.RequestRecord: messages.RequestRecord,
    formats.SecuredPrefix: security.SecuredPrefix,
    formats.EidProof: security.EidProof,
    formats.EidAuthentication: security.EidAuthentication,
    formats.PacketAuthentication: security.PacketAuthentication,
    formats.EcmSecurity: security.EcmSecurity,
    formats.MapReplySecurity: security.MapReplySecurity,
    formats.ReferralSignature: extensions.ReferralSignature,
    formats.ReferralRecord: extensions.ReferralRecord,
    formats.InnerIpv4: inner.InnerIpv4,
    formats.InnerIpv6: inner.InnerIpv6,
    formats.DataHeader: dataheader.DataHeader,
    formats.ShimHeader: dataheader.ShimHeader,
    moveformat.Move: moves.MoveMessage,
    moveformat.MoveShim: moves.MoveShim,
}
ECM, SHARED = 8, 15
MESSAGES: dict[int, type] = {
    1: messages.MapRequest,
    2: messages.MapReply,
    3: messages.MapRegister,
    4: messages.MapNotify,
    5: messages.MapNotifyAck,
    6: extensions.MapReferral,
    7: extensions.Info,
    ECM: inner.Encapsulated,
    SHARED: extensions.SharedExtension,
}


def _values() -> dict[int, type]:
    """Every Struct's value class, by the identity of the Struct."""
    values = {id(declared): value for declared, value in VALUES.items()}
    for bodies in (address_formats.INNER_BODIES, address_formats.BODIES):
        values |= {id(body): LCAFS[kind] for kind, body in bodies.items()}
        values[id(element(bodies[address_formats.LCAF_PATH]))] = lcaf.Hop
        values[id(element(bodies[address_formats.LCAF_REPLICATION]))] = lcaf.ReplicationEntry
    return values | {id(formats.MESSAGES[kind]): value for kind, value in MESSAGES.items()}


def element(body: Any) -> Any:
    """What a body of repeated elements repeats."""
    return bare(bare(body.subcons[0]).subcon)


ALIASES: dict[tuple[type, str], str] = {
    (InstanceAddress, "reserved2"): "iid_mask_length",
    (OpaqueLcaf, "content"): "body",
}
_compiler = Compiler(_values(), ALIASES, {inner.Encapsulated: inner.checked})

_MESSAGE = {kind: _compiler.both(declared) for kind, declared in formats.MESSAGES.items()}
_DATA, _SHIM = _compiler.both(formats.DataHeader), _compiler.both(formats.ShimHeader, whole=False)
_MOVE, _MOVE_SHIM = _compiler.both(moveformat.Move), _compiler.both(moveformat.MoveShim)
_space = _compiler.load()
_EXTENSIONS: dict[int, Callable[[bytes], Any]] = {moveformat.MOVE_SUB_TYPE: _space[_MOVE[0]]}
_parse_shared: Callable[[bytes], Any] = _space[_MESSAGE[SHARED][0]]


def _parse_extension(datagram: bytes) -> Any:
    """RFC 9304 §3: the 12 bits after the type say whose message it is; of those that nobody claims, the bytes."""
    return _EXTENSIONS.get((datagram[0] & 15) << 8 | datagram[1], _parse_shared)(datagram)


PARSERS: dict[int, Callable[[bytes], Any]] = {kind: _space[parse] for kind, (parse, _) in _MESSAGE.items()}
PARSERS[SHARED] = _parse_extension
"""By message type: the value of one whole message; raises Refused or struct.error."""
BUILDERS: dict[type, Callable[[Any], bytes]] = {MESSAGES[kind]: _space[build] for kind, (_, build) in _MESSAGE.items()}
BUILDERS[moves.MoveMessage] = _space[_MOVE[1]]
"""By class: the bytes of a value; raises Refused, or what a wrong type or number raises."""
parse_data_header: Callable[[bytes], dataheader.DataHeader] = _space[_DATA[0]]
build_data_header: Callable[[dataheader.DataHeader], bytes] = _space[_DATA[1]]
read_shim_header: Callable[[bytes, int], tuple[dataheader.ShimHeader, int]] = _space[_SHIM[0]]
build_shim_header: Callable[[dataheader.ShimHeader], bytes] = _space[_SHIM[1]]
parse_move_shim: Callable[[bytes], moves.MoveShim] = _space[_MOVE_SHIM[0]]
build_move_shim: Callable[[moves.MoveShim], bytes] = _space[_MOVE_SHIM[1]]

SOURCES: dict[str, tuple[str, str]] = {
    **{MESSAGES[kind].__name__: names for kind, names in _MESSAGE.items() if kind != ECM},
    "Ecm": _MESSAGE[ECM],
    "DataHeader": _DATA,
    "ShimHeader": _SHIM,
    "MoveMessage": _MOVE,
    "MoveShim": _MOVE_SHIM,
}
"""The functions of each message, for review."""


def source(*messages: str) -> str:
    """The generated code of some messages, with all that it calls."""
    return _compiler.source_of(*(name for message in messages for name in SOURCES[message]))
