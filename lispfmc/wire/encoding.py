"""Message values to bytes, by the functions that `codec` compiled: what `decode` accepted comes back byte for byte.

Counts, lengths and checksums are derived. A value that does not fit its field, or contradicts its own flag bits,
raises LocalError.
"""

from __future__ import annotations

import struct

from lispfmc.wire import inner
from lispfmc.wire.codec import BUILDERS
from lispfmc.wire.compiler import Refused
from lispfmc.wire.errors import LocalError
from lispfmc.wire.messages import Ecm, Message

_build_ecm = BUILDERS[inner.Encapsulated]


def _ecm(message: Ecm) -> bytes:
    inside = message.message
    if inside.__class__ is Ecm:
        raise LocalError("an ECM carries no ECM")
    return _build_ecm(inner.headers(message, BUILDERS[inside.__class__](inside)))


_BUILDERS = BUILDERS | {Ecm: _ecm}


def encode(message: Message) -> bytes:
    """The bytes of `message`. Raises LocalError when a value does not fit its field."""
    try:
        return _BUILDERS[message.__class__](message)
    except (Refused, struct.error, TypeError, AttributeError, KeyError) as error:
        raise LocalError(f"{type(message).__name__} cannot be encoded: {error}") from error
