"""`lispfmc decode HEX|FILE.pcap`: what LISP messages say, offline."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lispfmc.cli.failure import CONDITION, DONE, USAGE, Failure
from lispfmc.cli.output import Format, print_json, print_text
from lispfmc.wire import decode as decode_message
from lispfmc.wire.describe import describe, describe_data, tree
from lispfmc.wire.errors import PeerError
from lispfmc.wire.pcap import packets

DATA_PORT = 4341
_SEPARATORS = re.compile(r"0[xX]|[\s:,]")


def decode(what: str, *, output: Format) -> int:
    """Exit 1 when something is malformed; it is shown, with where and why."""
    shown = list(_from_file(Path(what)) if Path(what).is_file() else [_of(_bytes(what))])
    if output is Format.json:
        print_json({"messages": shown})
    else:
        print_text("\n\n".join("\n".join(_lines(one)) for one in shown) if shown else "no LISP message in it")
    return CONDITION if any("error" in one for one in shown) else DONE


def _bytes(text: str) -> bytes:
    digits = _SEPARATORS.sub("", text)
    try:
        return bytes.fromhex(digits)
    except ValueError:
        if "/" in text or text.endswith((".pcap", ".cap")):
            raise Failure(USAGE, text, "no such file", "give a capture that exists, or a message in hex") from None
        bad = re.search(r"[^0-9a-fA-F]", digits)
        why = f"{bad.group()!r} is no hex digit" if bad else "an odd number of hex digits"
        raise Failure(USAGE, f"{text[:40]!r}", why, "give a message in hex, or an existing pcap file") from None


def _from_file(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as stream:
        for packet in packets(stream):
            data = packet.destination.port == DATA_PORT  # a data packet's source port is its flow's hash
            yield {
                "packet": packet.number,
                "time": packet.time,
                "source": str(packet.source),
                "destination": str(packet.destination),
                **_of(packet.payload, data=data),
            }


def _of(datagram: bytes, *, data: bool = False) -> dict[str, Any]:
    try:
        return describe_data(datagram) if data else describe(decode_message(datagram))
    except PeerError as error:
        return {
            "message": "malformed",
            "error": {"offset": error.offset, "field": error.field, "reason": error.why},
            "bytes": datagram.hex(),
        }


def _lines(shown: dict[str, Any]) -> list[str]:
    head = []
    if "packet" in shown:
        at = time.strftime("%H:%M:%S", time.gmtime(shown["time"])) + f".{int(shown['time'] * 1e6) % 1_000_000:06d}"
        head = [f"#{shown['packet']}  {at}  {shown['source']} > {shown['destination']}"]
    body = {key: value for key, value in shown.items() if key not in ("packet", "time", "source", "destination")}
    if "error" in body:
        error = body["error"]
        return [
            *head,
            f"malformed: {error['field']} at byte {error['offset']}: {error['reason']}",
            f"  {body['bytes']}",
        ]
    return [*head, *tree(body)]
