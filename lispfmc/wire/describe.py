"""Messages for humans: a JSON-able dict with the RFC's field names, and the same as the lines of a tree.

In: a decoded message, or a data packet; out: plain text, numbers, booleans, lists and dicts. Names are those of
`formats`; 64-bit nonces are hexadecimal text, as JSON readers round them; reserved bits show only when they are set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lispfmc.wire import encap, words
from lispfmc.wire.address import Address, InstanceAddress, OpaqueLcaf, ip_text
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

Description = dict[str, Any]

NAMES: dict[type, str] = {
    MapRequest: "Map-Request",
    MapReply: "Map-Reply",
    MapRegister: "Map-Register",
    MapNotify: "Map-Notify",
    MapNotifyAck: "Map-Notify-Ack",
    Ecm: "Encapsulated Control Message",
}
ACTIONS = {
    Action.NO_ACTION: "No-Action",
    Action.NATIVELY_FORWARD: "Natively-Forward",
    Action.SEND_MAP_REQUEST: "Send-Map-Request",
    Action.DROP_NO_REASON: "Drop/No-Reason",
    Action.DROP_POLICY_DENIED: "Drop/Policy-Denied",
    Action.DROP_AUTH_FAILURE: "Drop/Auth-Failure",
}
_DERIVED = frozenset({"type", "itr_rloc_count"})


def describe(message: Message) -> Description:
    """`message` as a dict that json can write, in the order of the wire."""
    kind = message.word >> 28
    described: Description = {"message": NAMES[type(message)], "type": kind}
    if isinstance(message, Ecm):
        return described | _bits(words.FIRST_WORD[8], message.word) | _ecm(message)
    described |= _bits(words.FIRST_WORD[kind], message.word >> 8)
    described["nonce"] = f"{message.nonce:#018x}"
    if isinstance(message, MapRequest):
        return described | _map_request(message)
    if isinstance(message, MapReply):
        described["records"] = [_record(one) for one in message.records]
        return described | _hex(security=message.security)
    described |= {"key_id": message.key_id, "algorithm_id": message.algorithm_id, "auth": message.auth.hex()}
    described["records"] = [_record(one) for one in message.records]
    return described | _hex(xtr_id=message.xtr_id, site_id=message.site_id)


def describe_data(packet: bytes) -> Description:
    """A UDP payload of port 4341: the data header and the inner packet. Raises PeerError for what is none."""
    head = encap.parse(packet)
    inner = encap.inner(packet, head)
    version = inner[0] >> 4
    source, destination = (inner[12:16], inner[16:20]) if version == 4 else (inner[8:24], inner[24:40])
    described: Description = {"message": "data", "flags": f"{head.flags:#04x}"}
    named = head._asdict()
    described |= {name: named[name] for name in named if name != "flags" and named[name]}
    return described | {
        "inner": {
            "version": version,
            "source": ip_text(source),
            "destination": ip_text(destination),
            "protocol": inner[9] if version == 4 else inner[6],
            "bytes": len(inner),
        }
    }


def tree(described: Mapping[str, Any]) -> list[str]:
    """A description as indented lines; bits that are not set are left out."""
    title = f"{described['message']} (type {described['type']})" if "type" in described else str(described["message"])
    rest = {name: value for name, value in described.items() if name not in ("message", "type")}
    return [title, *_lines(rest, "  ")]


def _lines(fields: Mapping[str, Any], indent: str) -> Iterator[str]:
    bits = [name for name, value in fields.items() if value is True]
    if bits:
        yield f"{indent}flags: {', '.join(bits)}"
    for name, value in fields.items():
        if isinstance(value, bool):
            continue
        if isinstance(value, Mapping):
            yield f"{indent}{name}: {value['message']}" if "message" in value else f"{indent}{name}"
            yield from _lines({key: one for key, one in value.items() if key not in ("message", "type")}, indent + "  ")
        elif isinstance(value, list):
            for number, one in enumerate(value, 1):
                if isinstance(one, Mapping):
                    yield f"{indent}{name} {number} of {len(value)}"
                    yield from _lines(one, indent + "  ")
                else:
                    yield f"{indent}{name} {number} of {len(value)}: {one}"
        else:
            yield f"{indent}{name}: {'none' if value is None else value}"


def _bits(word: words.BitWord, value: int) -> Description:
    described: Description = {}
    for name, shift, mask in word.fields:
        bits = value >> shift & mask
        if name in _DERIVED or (name.startswith("reserved") and not bits):
            continue
        described[name] = bool(bits) if mask == 1 and not name.startswith("reserved") else bits
    return described


def _hex(**fields: bytes | None) -> Description:
    return {name: value.hex() for name, value in fields.items() if value}


def _address(address: Address) -> str | Description | None:
    if address is None:
        return None
    if isinstance(address, bytes):
        return ip_text(address)
    if isinstance(address, OpaqueLcaf):
        return {"lcaf_type": address.lcaf_type, "body": address.body.hex()}
    return f"[{address.iid}]{ip_text(address.ip) if address.ip else 'none'}"


def _eid(address: Address, mask_length: int) -> Description:
    """The prefix as text where the address is an IP; else what there is, and the mask length beside it."""
    ip = address.ip if isinstance(address, InstanceAddress) else address
    if isinstance(ip, bytes):
        return {"eid": f"{_address(address)}/{mask_length}"}
    return {"eid": _address(address), "mask_length": mask_length}


def _record(record: EidRecord) -> Description:
    described = _eid(record.eid, record.mask_length)
    described["ttl_minutes"] = record.ttl_minutes
    described |= _bits(words.RECORD_FLAGS, record.flags)
    described["action"] = ACTIONS.get(Action(record.action), "") if record.action <= 5 else str(record.action)
    described |= _bits(words.RECORD_VERSION, record.version_word)
    described["locators"] = [_locator(one) for one in record.locators]
    return described


def _locator(locator: Locator) -> Description:
    return {
        "rloc": _address(locator.address),
        "priority": locator.priority,
        "weight": locator.weight,
        "multicast_priority": locator.multicast_priority,
        "multicast_weight": locator.multicast_weight,
        **_bits(words.LOCATOR_FLAGS, locator.flags),
    }


def _request_record(record: RequestRecord) -> Description:
    return _eid(record.eid, record.mask_length) | _bits(words.REQUEST_FLAGS, record.flags)


def _map_request(message: MapRequest) -> Description:
    described: Description = {
        "source_eid": _address(message.source_eid),
        "itr_rlocs": [_address(one) for one in message.itr_rlocs],
        "records": [_request_record(one) for one in message.records],
    }
    if message.reply_record is not None:
        described["reply_record"] = _record(message.reply_record)
    return described | _hex(xtr_id=message.xtr_id, site_id=message.site_id)


def _ecm(message: Ecm) -> Description:
    return _hex(security=message.security) | {
        "inner_source": ip_text(message.source),
        "inner_destination": ip_text(message.destination),
        "inner_source_port": message.source_port,
        "inner_destination_port": message.destination_port,
        "inner": describe(message.message),
    }
