"""`lispfmc decode HEX|FILE.pcap`: what LISP messages say, offline."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lispfmc.cli.failure import CONDITION, DONE, USAGE, Failure
from lispfmc.cli.output import Format, print_json, print_text
from lispfmc.wire import decode as decode_message
from lispfmc.wire.describe import describe, describe_data
from lispfmc.wire.errors import PeerError
from lispfmc.wire.pcap import Packet, packets
from lispfmc.wire.tree import tree

DATA_PORT = 4341
_HEAD = ("packet", "time", "source", "destination", "message")
_SEPARATORS = re.compile(r"0[xX]|[\s:,]")


def decode(what: str, *, output: Format) -> int:
    """Exit 1 when something is malformed; it is shown up to there, with where and why."""
    messages = list(_from_file(Path(what)) if Path(what).is_file() else [Shown(_bytes(what))])
    shown = [one.described() for one in messages]
    if output is Format.json:
        print_json({"messages": shown})
    elif shown:
        print_text("\n\n".join("\n".join(_lines(*pair)) for pair in zip(messages, shown, strict=True)))
    else:
        print_text("no LISP message in it")
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


class Shown(NamedTuple):
    """One UDP payload, and of what packet."""

    datagram: bytes
    packet: Packet | None = None

    @property
    def data(self) -> bool:
        """True for the data plane's; a data packet's source port is its flow's hash."""
        return self.packet is not None and self.packet.destination.port == DATA_PORT

    def described(self) -> dict[str, Any]:
        """The JSON object of the message; of a malformed one what is wrong, and its fields up to there."""
        head: dict[str, Any] = {}
        if self.packet is not None:
            head = {"packet": self.packet.number, "time": self.packet.time}
            head |= {"source": str(self.packet.source), "destination": str(self.packet.destination)}
        try:
            return head | (describe_data(self.datagram) if self.data else describe(decode_message(self.datagram)))
        except PeerError as error:
            return head | {
                "message": "malformed",
                "error": {"offset": error.offset, "field": error.field, "reason": error.why},
                "read": [] if self.data else [line.strip() for line in tree(self.datagram, error)[:-1]],
                "bytes": self.datagram.hex(),
            }


def _from_file(path: Path) -> Iterator[Shown]:
    with path.open("rb") as stream:
        for packet in packets(stream):
            yield Shown(packet.payload, packet)


def _lines(message: Shown, shown: dict[str, Any]) -> Iterator[str]:
    """A tree with the offset of each field, and what is wrong at its end."""
    if message.packet is not None:
        at = time.strftime("%H:%M:%S", time.gmtime(shown["time"])) + f".{int(shown['time'] * 1e6) % 1_000_000:06d}"
        yield f"#{shown['packet']}  {at}  {shown['source']} > {shown['destination']}"
    kind = f" (type {shown['type']})" if "type" in shown else ""
    yield f"{shown['message']}{kind}, {len(message.datagram)} bytes"
    error = None
    if "error" in shown:
        error = PeerError(shown["error"]["field"], offset=shown["error"]["offset"], why=shown["error"]["reason"])
    if not message.data:
        yield from tree(message.datagram, error)
    elif error is not None:
        yield f"malformed: {error}"
    else:
        yield from (f"  {name}: {value}" for name, value in shown.items() if name not in _HEAD)
    if error is not None:
        yield f"  {shown['bytes']}"
