"""Wireshark as an oracle, field by field: every vector that it knows, and messages by chance, in one run.

What it does not know is left out: types 5 and 15, LISP-SEC data, the I- and N-bits of RFC 9437, MAC addresses by AFI
16389, JSON, and signatures of a Map-Referral. It reads names and LCAFs nowhere but in locators and EIDs.
"""

from __future__ import annotations

import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lispfmc.wire import decode, encode, lcaf
from lispfmc.wire.address import Address, InstanceAddress, ip_text
from lispfmc.wire.extensions import Info, MapReferral, ReferralRecord, SharedExtension
from lispfmc.wire.messages import (
    Ecm,
    EidRecord,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
)
from tests.integration.wireshark import write
from tests.properties.chance import Chance

pytestmark = pytest.mark.tshark
VECTORS = tomllib.loads((Path(__file__).parent.parent / "vectors" / "messages.toml").read_text())["vector"]
BY_CHANCE = 40
Found = defaultdict[str, list[Any]]


def test_tshark_agrees_on_every_field_that_it_knows(tmp_path: Path) -> None:
    messages = list(known())
    file = tmp_path / "fields.pcap"
    write(file, [encode(one) for one in messages])
    wanted = [expected(one) for one in messages]
    names = sorted(set().union(*wanted))
    assert len(names) > 50
    command = ["tshark", "-r", str(file), "-T", "fields", "-E", "separator=|", "-E", "aggregator=;"]
    for name in names:
        command += ["-e", name]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    lines = run.stdout.splitlines()
    assert len(lines) == len(messages)
    for message, line, fields in zip(messages, lines, wanted, strict=True):
        read = dict(zip(names, line.split("|"), strict=True))
        for name, values in fields.items():
            there = [plain(one) for one in read[name].split(";")] if read[name] else []
            assert there == values, (name, encode(message).hex())


def plain(text: str) -> int | str:
    """A number whatever its base, and text otherwise."""
    try:
        return int(text, 0)
    except ValueError:
        return text


def known() -> Iterator[Message]:
    for vector in VECTORS:
        message = decode(bytes.fromhex(vector["hex"]))
        if shown(message):
            yield message
    for seed in range(BY_CHANCE):
        for kind in (MapRequest, MapReply, MapRegister, MapNotify, MapReferral, Ecm):
            message = Chance(seed).message(kind)
            if shown(message):
                yield message


def shown(message: Any) -> bool:
    """True for what Wireshark reads whole."""
    if isinstance(message, Ecm):
        return message.security is None and not message.header and shown(message.message)
    if isinstance(message, MapNotifyAck | SharedExtension):
        return False
    if isinstance(message, MapRequest):
        addresses: list[Address] = [message.source_eid, *message.itr_rlocs, *(one.eid for one in message.records)]
        plainly = all(isinstance(one, bytes) for one in addresses)
        own = message.reply_record is None or all(simple(one) for one in within(message.reply_record))
        return plainly and own and message.xtr_id is None and not any(one.flags for one in message.records)
    if isinstance(message, MapReply):
        return message.security is None and all(simple(one) for record in message.records for one in within(record))
    if isinstance(message, MapReferral):
        signed = any(one.signatures for one in message.records)
        return not signed and all(simple(one) for record in message.records for one in within(record))
    if isinstance(message, Info):
        return isinstance(message.eid, bytes)
    if isinstance(message, MapRegister | MapNotify):
        # its bit 7 is the NAT draft's, and a trailer without a bit is not its business
        bit = 0x0200_0000 if isinstance(message, MapRegister) else 0x0800_0000
        announced = bool(message.word & bit) == (message.xtr_id is not None) and not message.word & 0x0500_0000
        return announced and all(simple(one) for record in message.records for one in within(record))
    return False


def within(record: EidRecord | ReferralRecord) -> Iterator[Address]:
    yield record.eid
    yield from (one.address for one in record.locators)


def simple(address: Address) -> bool:
    if isinstance(address, bytes):
        return True
    if isinstance(address, InstanceAddress):
        return isinstance(address.ip, bytes)
    if isinstance(address, lcaf.AfiList):
        return all(isinstance(one, bytes) for one in address.addresses)
    if isinstance(address, lcaf.LocatorPath):
        return all(isinstance(one.address, bytes) for one in address.hops)
    if isinstance(address, lcaf.ReplicationList):
        return all(isinstance(one.address, bytes) for one in address.entries)
    if isinstance(address, lcaf.KeyValue):
        return isinstance(address.key, bytes) and isinstance(address.value, bytes)
    return isinstance(address, lcaf.SourceDestination) and all(
        isinstance(one, bytes) for one in (address.source, address.destination)
    )


def expected(message: Any) -> dict[str, list[Any]]:
    """What the fields of Wireshark have to say, in the order of the wire."""
    found: Found = defaultdict(list)
    collect(message, found)
    return dict(found)


def collect(message: Any, found: Found) -> None:
    found["lisp.type"].append(message.word >> 28)
    if isinstance(message, Ecm):
        found["lisp.ecm.flags.ddt"].append(int(message.ddt))
        collect(message.message, found)
        return
    found["lisp.nonce"].append(message.nonce)
    if isinstance(message, Info):
        info(message, found)
        return
    found["lisp.records"].append(len(message.records))
    if isinstance(message, MapRequest):
        map_request(message, found)
        return
    if isinstance(message, MapReply):
        found["lisp.mrep.flags.probe"].append(int(message.probe))
        found["lisp.mrep.flags.enlr"].append(int(message.echo_nonce_capable))
    if isinstance(message, MapRegister):
        found["lisp.mreg.flags.pmr"].append(int(message.proxy_reply))
        found["lisp.mreg.flags.sec"].append(int(message.security_capable))
        found["lisp.mreg.flags.wmn"].append(int(message.want_notify))
    if isinstance(message, MapRegister | MapNotify):
        signed(message, found)
    for record in message.records:
        mapping(record, found)


def signed(message: MapRegister | MapNotify, found: Found) -> None:
    found["lisp.keyid"].append(message.key_id << 8 | message.algorithm_id)
    found["lisp.authlen"].append(len(message.auth))
    if message.xtr_id is not None and message.site_id is not None:
        found["lisp.xtrid"].append(plain(message.xtr_id.hex()))
        found["lisp.siteid"].append(plain(message.site_id.hex()))


def info(message: Info, found: Found) -> None:
    found["lisp.info.r"].append(int(message.reply))
    found["lisp.keyid"].append(message.key_id)
    found["lisp.authlen"].append(len(message.auth))
    found["lisp.info.ttl"].append(message.ttl_minutes)
    found["lisp.info.prefix.masklen"].append(message.mask_length)
    family(message.eid, "lisp.info.prefix", found)
    if isinstance(message.nat, lcaf.NatTraversal):
        found["lisp.lcaf.natt.msport"].append(message.nat.ms_port)
        found["lisp.lcaf.natt.etrport"].append(message.nat.etr_port)
        rlocs = message.nat.global_etr_rloc, message.nat.ms_rloc, message.nat.private_etr_rloc, *message.nat.rtr_rlocs
        for one in rlocs:
            family(one, "lisp.lcaf.natt.rloc", found)


def map_request(message: MapRequest, found: Found) -> None:
    flags = {"auth": message.authoritative, "mrp": message.map_data_present, "probe": message.probe}
    flags |= {"smr": message.smr, "pitr": message.pitr, "smri": message.smr_invoked}
    for name, bit in flags.items():
        found[f"lisp.mreq.flags.{name}"].append(int(bit))
    found["lisp.irc"].append(len(message.itr_rlocs) - 1)
    for rloc in message.itr_rlocs:
        family(rloc, "lisp.mreq.itr_rloc", found, join="_")
    for record in message.records:
        found["lisp.mreq.record.prefix.length"].append(record.mask_length)
        family(record.eid, "lisp.mreq.record.prefix", found)
    if message.reply_record is not None:
        mapping(message.reply_record, found)


def family(address: Address, name: str, found: Found, join: str = ".") -> None:
    if isinstance(address, bytes):
        found[f"{name}{join}ipv{4 if len(address) == 4 else 6}"].append(ip_text(address))


def mapping(record: EidRecord | ReferralRecord, found: Found) -> None:
    found["lisp.mapping.ttl"].append(record.ttl_minutes)
    found["lisp.mapping.loccnt"].append(len(record.locators))
    found["lisp.mapping.eid.masklen"].append(record.mask_length)
    found["lisp.mapping.act"].append(record.action)
    found["lisp.mapping.auth"].append(record.flags >> 12 & 1)
    found["lisp.mapping.ver"].append(record.version_word & 0xFFF)
    if isinstance(record, ReferralRecord):
        found["lisp.referral.incomplete"].append(int(record.incomplete))
    family(record.eid, "lisp.mapping.eid", found)
    rich(record.eid, found)
    for one in record.locators:
        found["lisp.loc.priority"].append(one.priority)
        found["lisp.loc.weight"].append(one.weight)
        found["lisp.loc.multicast_priority"].append(one.multicast_priority)
        found["lisp.loc.multicast_weight"].append(one.multicast_weight)
        found["lisp.loc.flags.local"].append(int(one.local))
        found["lisp.loc.flags.probe"].append(int(one.probed))
        found["lisp.loc.flags.reach"].append(int(one.reachable))
        rich(one.address, found)


def rich(address: Address, found: Found) -> None:
    """The fields of an LCAF."""
    match address:
        case InstanceAddress():
            found["lisp.lcaf.iid"].append(address.iid)
            family(address.ip, "lisp.lcaf.iid", found)
        case lcaf.AfiList():
            for one in address.addresses:
                family(one, "lisp.lcaf.afi_list", found)
        case lcaf.LocatorPath():
            for hop in address.hops:
                found["lisp.lcaf.elp_hop.flags.local"].append(int(hop.lookup))
                found["lisp.lcaf.elp_hop.flags.probe"].append(int(hop.probe))
                found["lisp.lcaf_elp_hop.flags.strict"].append(int(hop.strict))
                family(hop.address, "lisp.lcaf.elp_hop", found)
        case lcaf.ReplicationList():
            for entry in address.entries:
                found["lisp.lcaf.rle_entry.level"].append(entry.level)
                family(entry.address, "lisp.lcaf.rle_entry", found)
        case lcaf.SourceDestination():
            found["lisp.lcaf.srcdst.src.masklen"].append(address.source_mask_length)
            found["lisp.lcaf.srcdst.dst.masklen"].append(address.destination_mask_length)
            family(address.source, "lisp.lcaf.srcdst.src", found)
            family(address.destination, "lisp.lcaf.srcdst.dst", found)
        case lcaf.KeyValue():
            family(address.key, "lisp.lcaf.kv_key", found)
            family(address.value, "lisp.lcaf.kv_value", found)
