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
        parsed = PARSERS[kind](datagram)
    except (Refused, struct.error, IndexError, KeyError) as error:
        raise refusal(datagram) from error
    return _ecm(parsed, datagram) if kind == ECM else parsed


def _ecm(checked: inner.Checked, datagram: bytes) -> Ecm:
    word, source, destination, source_port, destination_port, security, header, payload = checked
    try:
        kind = payload[0] >> 4
        if kind == ECM:
            raise PeerError("type", offset=len(datagram) - len(payload), why="an ECM inside an ECM")
        message: Message = PARSERS[kind](payload)
    except (Refused, struct.error, IndexError, KeyError) as error:
        raise refusal(payload, len(datagram) - len(payload)) from error
    return Ecm(word, source, destination, source_port, destination_port, message, security, header)
