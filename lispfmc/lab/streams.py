"""Probes that travel in a TCP connection: the same slots, numbers and logs as the UDP ones of `lispfmc.lab.workload`.

Each message is 16 bytes and leaves at once, so what the receiver's log shows as a silence is a stall of the connection:
lost segments are sent again, nothing is missing. A connection that breaks is counted in `resets` and not opened again.
Standard library only.
"""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from lispfmc.lab.workload import PROBE, RECORD, Ebb, Stop, Summary, become_instrument

CONNECT_S = 5.0
_BUFFER = 1 << 20
_NOTICE = 0.1  # seconds until SIGTERM is noticed


def send_stream(stop: Stop, interval_us: int, source: str, peer: tuple[str, int]) -> Summary:
    """One numbered, timestamped message per slot; a slot that was missed is not sent later."""
    realtime = become_instrument()
    interval = interval_us * 1000
    sequence = not_sent = slot = resets = 0
    skips: list[tuple[int, int]] = []
    connection = socket.create_connection(peer, CONNECT_S, source_address=(source, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    first = time.monotonic_ns()
    with connection:
        while not stop.asked and not resets:
            due = first + slot * interval
            pause = due - time.monotonic_ns()
            if pause > 0:
                time.sleep(pause / 1e9)
            now = time.monotonic_ns()
            missed = (now - due) // interval
            if missed > 0:
                not_sent += missed
                slot += missed
                skips.append((due, missed))
            try:
                connection.sendall(PROBE.pack(sequence, now))
                sequence += 1
            except OSError:
                resets += 1
            slot += 1
    return {
        "first_ns": first,
        "last_ns": time.monotonic_ns(),
        "sent": sequence,
        "not_sent": not_sent,
        "send_errors": 0,
        "interval_us": interval_us,
        "skips": skips[:1000],
        "realtime": realtime,
        "resets": resets,
    }


def receive_stream(stop: Stop, log: Path, port: int) -> Summary:
    """Take one connection and log each message with the time at which this process got it."""
    realtime = become_instrument()
    received = resets = 0
    ebb = Ebb()
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1)
    listener.settimeout(_NOTICE)
    connection = None
    while connection is None and not stop.asked:
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
    with log.open("wb", buffering=_BUFFER) as records:
        partial = b""
        while connection is not None and (not stop.asked or not ebb.over(time.monotonic())):
            try:
                connection.settimeout(_NOTICE)
                data = connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                resets += 1
                break
            if not data:
                break
            now = time.monotonic_ns()
            ebb.came(now / 1e9)
            data = partial + data
            whole = len(data) - len(data) % PROBE.size
            for sequence, sent in PROBE.iter_unpack(data[:whole]):
                records.write(RECORD.pack(sequence, sent, now))
                received += 1
            partial = data[whole:]
    return {"received": received, "foreign": 0, "realtime": realtime, "resets": resets, "cut_short": ebb.cut_short}
