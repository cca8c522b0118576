"""Messages for programs: a JSON-able dict with the RFC's field names.

In: a decoded message, or a data packet; out: text, numbers, booleans, lists and dicts. Names are those of `formats`
and the values; 64-bit nonces are hexadecimal text, as JSON readers round them; what is reserved shows only when it is
set, and what is empty or missing does not show.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lispfmc.wire import address_formats, encap, formats, lcaf, moveformat
from lispfmc.wire.address import Address, InstanceAddress, OpaqueLcaf, ip_text
from lispfmc.wire.codec import LCAFS
from lispfmc.wire.extensions import Info, MapReferral, ReferralAction, ReferralRecord, SharedExtension
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
    Message,
    RequestRecord,
)
from lispfmc.wire.moves import MoveMessage
from lispfmc.wire.security import EidProof
from lispfmc.wire.words import BitWord

Description = dict[str, Any]

NAMES: dict[type, str] = {
    MapRequest: "Map-Request",
    MapReply: "Map-Reply",
    MapRegister: "Map-Register",
    MapNotify: "Map-Notify",
    MapNotifyAck: "Map-Notify-Ack",
    MapReferral: "Map-Referral",
    Info: "Info-Request",
    Ecm: "Encapsulated Control Message",
    SharedExtension: "Shared Extension",
    MoveMessage: "Move",
}
INFO_REPLY = "Info-Reply"
ACTIONS: dict[type, tuple[str, ...]] = {
    EidRecord: (
        "No-Action",
        "Natively-Forward",
        "Send-Map-Request",
        "Drop/No-Reason",
        "Drop/Policy-Denied",
        "Drop/Auth-Failure",
    ),
    ReferralRecord: (
        "NODE-REFERRAL",
        "MS-REFERRAL",
        "MS-ACK",
        "MS-NOT-REGISTERED",
        "DELEGATION-HOLE",
        "NOT-AUTHORITATIVE",
    ),
}
assert [len(names) for names in ACTIONS.values()] == [len(Action), len(ReferralAction)]
DATA_FIELDS = ("nonce", "source_version", "destination_version", "next_protocol", "iid", "locator_status")

_WORDS: dict[tuple[type, str], BitWord] = {
    **{(kind, "word"): BitWord(formats.MESSAGES[number].word) for number, kind in enumerate(NAMES, 1) if number < 9},
    (SharedExtension, "word"): BitWord(formats.SharedExtension.word),
    **{(MoveMessage, name): BitWord(getattr(moveformat.Move, name)) for name in ("word", "epoch_word", "rules")},
    (Locator, "flags"): BitWord(formats.Locator.flags),
    (EidRecord, "flags"): BitWord(formats.EidRecord.flags),
    (EidRecord, "version_word"): BitWord(formats.EidRecord.version_word),
    (ReferralRecord, "flags"): BitWord(formats.ReferralRecord.flags),
    (ReferralRecord, "version_word"): BitWord(formats.ReferralRecord.version_word),
    (RequestRecord, "flags"): BitWord(formats.RequestRecord.flags),
    (EidProof, "flags"): BitWord(formats.EidProof.flags),
    (lcaf.Hop, "flags"): BitWord(address_formats.hop({}).flags),
    (lcaf.ReplicationEntry, "level_word"): BitWord(address_formats.replication_entry({}).level_word),
    (lcaf.VendorAddress, "vendor"): BitWord(address_formats.BODIES[address_formats.LCAF_VENDOR].vendor),
}
_ADDRESSES = frozenset(
    {"address", "addresses", "eid", "source_eid", "source", "destination", "key", "value", "nat"}
    | {"itr_rlocs", "rtr_rlocs", "global_etr_rloc", "ms_rloc", "private_etr_rloc"}
)
_LCAF_TYPES = {kind: number for number, kind in LCAFS.items()}


def describe(message: Message) -> Description:
    """`message` as a dict that json can write, in the order of the wire."""
    kind = message.word >> 28
    name = INFO_REPLY if isinstance(message, Info) and message.reply else NAMES[type(message)]
    described: Description = {"message": name, "type": kind}
    if not isinstance(message, Ecm):
        return described | _fields(message)
    described |= _bits(_WORDS[Ecm, "word"], message.word)
    if message.security is not None:
        described["security"] = _fields(message.security)
    return described | {
        "inner_source": ip_text(message.source),
        "inner_destination": ip_text(message.destination),
        "inner_source_port": message.source_port,
        "inner_destination_port": message.destination_port,
        "inner": describe(message.message),
    }


def describe_data(packet: bytes) -> Description:
    """A UDP payload of port 4341: the data header and the inner packet. Raises PeerError for what is none."""
    head = encap.parse(packet)
    described: Description = {"message": "data", "flags": f"{head.flags:#04x}"}
    described |= {name: value for name in DATA_FIELDS if (value := getattr(head, name))}
    shims, protocol, at = encap.shims(packet, head.next_protocol)
    if shims:
        described["shim_headers"] = [_fields(one) for one in shims]
    if protocol not in (encap.IP_BY_NIBBLE, encap.NEXT_IPV4, encap.NEXT_IPV6):
        return described | {"payload": {"protocol": protocol, "bytes": len(packet) - at}}
    inner = encap.ip_packet(packet, at, protocol)
    version = inner[0] >> 4
    source, destination = (inner[12:16], inner[16:20]) if version == 4 else (inner[8:24], inner[24:40])
    return described | {
        "inner": {
            "version": version,
            "source": ip_text(source),
            "destination": ip_text(destination),
            "protocol": inner[9] if version == 4 else inner[6],
            "bytes": len(inner),
        }
    }


def _fields(value: Any) -> Description:
    """The fields of a value, the values in it described likewise."""
    described: Description = {}
    kind = type(value)
    names = list(value.__struct_fields__)
    if "auth" in names and "records" in names:  # the authentication data comes before the records, and is not needed
        names.append(names.pop(names.index("records")))  # to make a value: hence another order in it
        names += [names.pop(names.index(late)) for late in ("xtr_id", "site_id") if late in names]
    if "eid" in names and "mask_length" in names:
        described |= _eid(value.eid, value.mask_length)
        names = [name for name in names if name not in ("eid", "mask_length")]
    for name in names:
        one = getattr(value, name)
        if (kind, name) in _WORDS:
            described |= _bits(_WORDS[kind, name], one)
        elif name in _ADDRESSES:
            shown = [address_of(each) for each in one] if isinstance(one, tuple) else address_of(one)
            described["rloc" if kind is Locator else name] = shown
        elif not (name.startswith("reserved") and not any(one if isinstance(one, bytes) else (one,))):
            described |= _plain(name, one)
    if kind in ACTIONS:
        names_of_action = ACTIONS[kind]
        described["action"] = (
            names_of_action[value.action] if value.action < len(names_of_action) else str(value.action)
        )
    return described


def _plain(name: str, one: Any) -> Description:
    if one is None or (one == b"" and name != "auth"):
        return {}
    if name == "nonce":
        return {name: f"{one:#018x}"}
    if isinstance(one, bytes):
        return {name: one.hex()}
    if isinstance(one, tuple):
        return {name: [_fields(each) for each in one]}
    return {name: _fields(one) if isinstance(one, msgspec.Struct) else one}


def _bits(word: BitWord, value: int) -> Description:
    described: Description = {}
    for one in word.fields:
        bits = value >> one.shift & one.mask
        reserved = one.name.startswith("reserved")
        if one.const is not None or one.derived is not None or (reserved and not bits):
            continue
        described[one.name] = bool(bits) if one.width == 1 and not reserved else bits
    return described


def address_of(address: Address) -> str | Description | None:
    """An address as text where it has one; an LCAF as its fields, with its type."""
    if address is None:
        return None
    if isinstance(address, bytes):
        return ip_text(address)
    if isinstance(address, InstanceAddress):
        return f"[{address.iid}]{ip_text(address.ip) if address.ip else 'none'}"
    if isinstance(address, lcaf.DistinguishedName):
        return f'"{address.name.decode("ascii", "backslashreplace")}"'
    if isinstance(address, lcaf.MacAddress):
        return address.octets.hex(":")
    if isinstance(address, OpaqueLcaf):
        return {"lcaf_type": address.lcaf_type, "body": address.body.hex()}
    return {"lcaf_type": _LCAF_TYPES[type(address)]} | _fields(address)


def _eid(address: Address, mask_length: int) -> Description:
    """The prefix as text where the address is an IP; else what there is, and the mask length beside it."""
    ip = address.ip if isinstance(address, InstanceAddress) else address
    if isinstance(ip, bytes):
        return {"eid": f"{address_of(address)}/{mask_length}"}
    return {"eid": address_of(address), "mask_length": mask_length}
