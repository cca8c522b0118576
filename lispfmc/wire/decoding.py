"""Datagrams to message values, by the functions that `codec` compiled.

`decode` gives one whole value or raises `PeerError`, and nothing else. The work is linear in the length of the
datagram: each counted record costs bytes. What is refused is read once more, slowly, to say what is wrong and where.
"""

from __future__ import annotations

import struct

from lispfmc.wire import inner
from lispfmc.wire.codec import ECM, PARSERS
from lispfmc.wire.compiler import Refused
from lispfmc.wire.errors import PeerError
from lispfmc.wire.messages import Ecm, Message
from lispfmc.wire.reading import refusal


def decode(datagram: bytes) -> Message:
    """The message in a UDP payload of port 4342. Raises PeerError for anything that is not exactly one message."""
    if datagram.__class__ is not bytes:
        datagram = bytes(datagram)
    try:
        kind = datagram[0] >> 4
        message: Message = PARSERS[kind](datagram)
    except (Refused, struct.error, IndexError, KeyError) as error:
        raise refusal(datagram) from error
    return _ecm(message, datagram) if kind == ECM else message  # type: ignore[arg-type] # the parser of type 8


def _ecm(parsed: inner.Encapsulated, datagram: bytes) -> Ecm:
    header = inner.kept(parsed, datagram)
    payload = parsed.payload
    try:
        kind = payload[0] >> 4
        if kind == ECM:
            raise PeerError("type", offset=len(datagram) - len(payload), why="an ECM inside an ECM")
        message: Message = PARSERS[kind](payload)
    except (Refused, struct.error, IndexError, KeyError) as error:
        raise refusal(payload, len(datagram) - len(payload)) from error
    ip = parsed.ip
    return Ecm(
        parsed.word,
        ip.source,
        ip.destination,
        parsed.source_port,
        parsed.destination_port,
        message,
        parsed.security,
        header,
    )
