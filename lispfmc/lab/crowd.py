"""Probes of many services at once: one sender for all of them, receivers that cost nothing while they measure.

A hundred processes that wake for each packet would be the load that they measure. So a receiver sleeps and leaves the
packets in its socket, where the kernel has written the time of each arrival beside it, for a tenth of a second. Logs
are those of `lispfmc.lab.workload`. Standard library only.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from pathlib import Path
from typing import BinaryIO

from lispfmc.lab.workload import (
    PROBE,
    PROBE_BYTES,
    RECORD,
    Ebb,
    Stop,
    Summary,
    become_instrument,
    make_room,
    overflowed,
)

CHUNKS = 10  # an interval's packets leave in so many parts, evenly spread
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_IP_PKTINFO = 8  # linux/in.h
_PKTINFO = struct.Struct("=I4s4s")
_TIMESPEC = struct.Struct("@ll")
_BUFFERED = 1 << 20
_NOTICE = 0.1
_PRIORITY = 17  # before routers: what it loads must not make it send less
_SOON = 0.02  # when it is told to stop


def send_to_many(stop: Stop, interval_us: int, source: str, peers: list[tuple[str, int]]) -> Summary:
    """One numbered packet an interval to each peer; intervals that were missed are skipped for all."""
    realtime = become_instrument(_PRIORITY)
    out = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM)
    out.bind((source, 0))
    interval, size = interval_us * 1000, -(-len(peers) // CHUNKS)
    chunks = [peers[at : at + size] for at in range(0, len(peers), size)]
    packet = bytearray(PROBE_BYTES)
    sequence = slot = not_sent = errors = 0
    skips: list[tuple[int, int]] = []
    first = time.monotonic_ns()
    while not stop.asked:
        due = first + slot * interval
        missed = (time.monotonic_ns() - due) // interval
        if missed > 0:
            skips.append((due, missed))
            not_sent += missed
            slot += missed
        for at, chunk in enumerate(chunks):
            pause = first + slot * interval + at * interval // len(chunks) - time.monotonic_ns()
            if pause > 0:
                time.sleep(pause / 1e9)
            for peer in chunk:
                PROBE.pack_into(packet, 0, sequence, time.monotonic_ns())
                try:
                    out.sendto(packet, peer)
                except OSError:
                    errors += 1
        sequence += 1
        slot += 1
    return {
        "first_ns": first,
        "last_ns": time.monotonic_ns(),
        "sent": sequence,
        "not_sent": not_sent,
        "send_errors": errors,
        "interval_us": interval_us,
        "skips": skips[:1000],
        "realtime": realtime,
    }


def send_from_many(stop: Stop, interval_us: int, sources: list[str], peer: tuple[str, int]) -> Summary:
    """One numbered packet an interval, each from the next of the sources, which are addresses of this host (IPv4)."""
    realtime = become_instrument()
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    chosen = [_PKTINFO.pack(0, socket.inet_aton(source), bytes(4)) for source in sources]
    packet, interval = bytearray(PROBE_BYTES), interval_us * 1000
    sequence = errors = slot = not_sent = 0
    first = time.monotonic_ns()
    while not stop.asked:
        late = (time.monotonic_ns() - first) // interval - slot
        if late > 0:
            not_sent += late
            slot += late
        pause = first + slot * interval - time.monotonic_ns()
        if pause > 0:
            time.sleep(pause / 1e9)
        PROBE.pack_into(packet, 0, sequence, time.monotonic_ns())
        try:
            out.sendmsg([packet], [(socket.IPPROTO_IP, _IP_PKTINFO, chosen[sequence % len(chosen)])], 0, peer)
        except OSError:
            errors += 1
        sequence += 1
        slot += 1
    return {"first_ns": first, "sent": sequence, "not_sent": not_sent, "send_errors": errors, "realtime": realtime}


def receive_quietly(stop: Stop, log: Path, port: int) -> Summary:
    """Log what has come, now and then, with the time at which the kernel got it."""
    inbound = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    inbound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    inbound.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    make_room(inbound)
    inbound.bind(("::", port))
    inbound.settimeout(0)
    received, ebb = 0, Ebb()
    with log.open("wb", buffering=_BUFFERED) as records:
        while not stop.asked or not ebb.over(time.monotonic()):
            time.sleep(_SOON if stop.asked else _NOTICE)
            if new := _drain(inbound, records):
                ebb.came(time.monotonic())
                received += new
                records.flush()  # who waits for the last packet looks at how long the log is
    return {
        "received": received,
        "foreign": 0,
        "realtime": True,
        "cut_short": ebb.cut_short,
        "overflowed": overflowed(inbound),
    }


def _drain(inbound: socket.socket, records: BinaryIO) -> int:
    to_monotonic = time.monotonic_ns() - time.time_ns()
    received = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            data, ancillary, _, _ = inbound.recvmsg(2048, 64)
            if len(data) == PROBE_BYTES and ancillary:
                seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2][: _TIMESPEC.size])
                at = seconds * 1_000_000_000 + nanoseconds + to_monotonic
                records.write(RECORD.pack(*PROBE.unpack_from(data), at))
                received += 1
    return received
