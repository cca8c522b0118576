"""Bytes to values and back. Pure: no clock, no sockets, no state.

`decode(datagram)` gives one frozen message value or raises `PeerError`; `encode(message)` gives bytes.
"""

from lispfmc.wire.decoding import decode
from lispfmc.wire.encoding import encode
from lispfmc.wire.errors import LocalError, PeerError

__all__ = ["LocalError", "PeerError", "decode", "encode"]
