"""One mapping changes, and 1,000 subscribers must hear of it: until the last of their Map-Notifies has come.

`last_ms` counts from the sending of the Map-Register over loopback to the receipt of the last Map-Notify by the one
socket that all of them share; everything that the Map-Server does meanwhile is within it.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from lispfmc.runtime.mmsg import MSG_WAITFORONE, Batch
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import Ecm, MapNotify, MapNotifyAck, MapRequest, RequestRecord
from tests.bench.registering import XTR, daemon, message

SUBSCRIBERS = 1000
RANGE = Prefix.parse("10.0.0.0/16")
ADDRESS, PORT = "127.0.0.4", 4342
KEY = Key(9, b"secret of the subscribers")
CONFIG = f"""
[[subscribers]]
name = "many"
key_id = {KEY.id}
secret = "{KEY.secret.decode()}"
address = "{ADDRESS}"
port = {PORT}
ranges = ["{RANGE}"]
"""
BUFFER = 8 << 20
SILENCE_S = 5
AT_A_TIME = 50  # subscriptions, and acknowledgements, before the other side is heard

_SO_RCVBUFFORCE = 33  # past net.core.rmem_max, as root: all the Map-Notifies may come before any is taken


def run(rounds: int = 11) -> dict[str, object]:
    """`last_ms` is the median of the changes."""
    nonces, taken = itertools.count(1), []
    known: set[bytes] = set()
    with daemon(CONFIG, limits=f"subscribe_burst = {2 * SUBSCRIBERS}\n") as (_, port), _sockets() as (many, xtr):
        server = ("127.0.0.1", port)
        xtr.sendto(message(1, 1, next(nonces), 1), server)
        for first in range(0, SUBSCRIBERS, AT_A_TIME):
            for number in range(first, first + AT_A_TIME):
                many.sendto(_subscription(number), server)
            _acknowledge(many, _heard(many, AT_A_TIME, known), server)
        for turn in range(rounds):
            time.sleep(0.3)  # what it still has to do with the last change is not part of this one
            change = message(1, 1, next(nonces), 2 + turn % 2)
            started = time.perf_counter()
            xtr.sendto(change, server)
            notifies = _heard(many, SUBSCRIBERS, known)
            taken.append((time.perf_counter() - started) * 1e3)
            _acknowledge(many, notifies, server)
    return {"last_ms": round(median(taken), 2), "worst_ms": round(max(taken), 2), "subscribers": SUBSCRIBERS}


@contextmanager
def _sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The subscribers', and the registering xTR's."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as many,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as xtr,
    ):
        many.bind((ADDRESS, PORT))
        xtr.bind((XTR, 0))
        many.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, SILENCE_S.to_bytes(8, "little") + bytes(8))
        try:
            many.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        except PermissionError:
            many.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        yield many, xtr


def _subscription(number: int) -> bytes:
    request = MapRequest.of(
        RequestRecord.of(RANGE, notify=True),
        nonce=(number + 1) << 32,
        itr_rlocs=[ip_of(ADDRESS)],
        xtr_id=number.to_bytes(16, "big"),
        site_id=bytes(8),
    )
    return encode(Ecm.of(request, source=ip_of(ADDRESS), destination=ip_of(ADDRESS), source_port=PORT))


def _heard(many: socket.socket, number: int, known: set[bytes]) -> list[bytes]:
    """That many Map-Notifies that are not repetitions. Raises BlockingIOError when nothing comes for long."""
    batch = Batch(socket.AF_INET)
    heard: dict[bytes, bytes] = {}
    while len(heard) < number:
        for datagram, _ in batch.receive(many.fileno(), MSG_WAITFORONE):
            if datagram[0] >> 4 == 4 and datagram[4:12] not in known:
                heard[datagram[4:12]] = datagram
    known.update(heard)
    return list(heard.values())


def _acknowledge(many: socket.socket, notifies: list[bytes], server: tuple[str, int]) -> None:
    for index, datagram in enumerate(notifies):
        notify = decode(datagram)
        assert isinstance(notify, MapNotify)
        many.sendto(sign(MapNotifyAck.of(notify), KEY), server)
        if index % AT_A_TIME == AT_A_TIME - 1:
            time.sleep(0.005)  # its buffer is what the kernel gives everybody
