"""What runs inside a lab node, one process each: the emulated service, the heartbeat and the probes.

The node agent forks them and never runs them itself, so that freezing a service (SIGSTOP) leaves the agent free. Each
takes a path for its log, runs until SIGTERM and returns a summary. All times are CLOCK_MONOTONIC nanoseconds, which
every namespace of a machine shares. Standard library only.

Logs (little-endian records, no header):

* probe receiver  `<QQQ`  seq, sent_ns, received_ns: every packet as it arrived, duplicates too.
* rtt             `<QQQ`  seq, sent_ns, received_ns: every answer.
* heartbeat       `<QQ`   beat_ns, gap_ns: the beat that ended a silence longer than two intervals, and its length.
* probe sender    JSON    the summary: {first_ns, last_ns, sent, not_sent, send_errors, interval_us, skips, realtime}.

A receiver that is told to stop goes on until nothing has come for SILENT_S: no packet that is only late counts as lost.
At most DRAIN_S, and `cut_short` in its summary says that packets still came then.

The probes are an open loop on an absolute schedule. A sender that was late (frozen, or not scheduled) skips the slots
that it missed and counts them in `not_sent` (`skips`: [first missed slot's time, slots], the first 1000). So do slots
whose packet the node's own stack refused because no link was up (`send_errors`): the network never had it. `seq` counts
packets, not slots, so lost = sent - distinct seq received.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ECHO_UDP = 7007
ECHO_TCP = 7008

PROBE = struct.Struct("<QQ")
RECORD = struct.Struct("<QQQ")
BEAT = struct.Struct("<QQ")
PROBE_BYTES = 64  # payload: PROBE, then padding

Summary = dict[str, Any]

_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29
_MAX_SKIPS = 1000  # a summary stays small however often a sender was late
_ROOM = 32 << 20  # what a router has held for seconds comes at once, and is not to be lost here
_SO_RCVBUFFORCE, _SO_MEMINFO, _DROPS = 33, 55, 8  # asm-generic/socket.h, linux/sock_diag.h
_MEMINFO = struct.Struct("=9I")
_BUFFER = 1 << 20  # a log is written in large pieces: no disk write in the middle of a measurement
_NOTICE = 0.1  # seconds until a worker that waits for packets notices SIGTERM
SILENT_S = 0.15  # longer than two packets of an open loop are apart, also where the machine is busy
DRAIN_S = 2.0  # less than the agent waits for a worker's end


class Ebb:
    """Tells a receiver that was told to stop when it may: after SILENT_S without a packet, or DRAIN_S in all."""

    def __init__(self) -> None:
        self._told: float | None = None
        self._came = 0.0
        self.cut_short = False
        """Packets still came when the time was over."""

    def came(self, now: float) -> None:
        self._came = now

    def over(self, now: float) -> bool:
        """Asked by a receiver that has been told to stop; the first time, it is told now."""
        if self._told is None:
            self._told = now
        silent = now - max(self._told, self._came) >= SILENT_S
        self.cut_short = not silent and now - self._told >= DRAIN_S
        return silent or self.cut_short


class Stop:
    """Becomes true on SIGTERM."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


def become_instrument(priority: int = 10) -> bool:
    """Wake on time: timer slack of 1 ns, no garbage collection and, where allowed, real-time scheduling, which is
    what it returns."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.disable()  # its loops make no cycles
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        return False  # in a container without CAP_SYS_NICE: the summary says so
    return True


def die_with_parent() -> None:
    """A killed agent leaves no workers behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def echo(stop: Stop) -> Summary:
    """The emulated service: answers every UDP datagram and every TCP byte with itself."""
    udp = _datagram_socket("::", ECHO_UDP)
    udp.settimeout(0)
    tcp = socket.create_server(("::", ECHO_TCP), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    tcp.settimeout(0)
    selector = selectors.DefaultSelector()
    datagrams = streams = 0

    def answer_datagrams() -> None:
        nonlocal datagrams
        with contextlib.suppress(BlockingIOError):
            while True:
                data, peer = udp.recvfrom(65535)
                datagrams += 1
                with contextlib.suppress(OSError):  # no link just now: the answer is lost, as on a real host
                    udp.sendto(data, peer)

    def accept() -> None:
        nonlocal streams
        stream, _ = tcp.accept()
        streams += 1
        stream.settimeout(0)
        selector.register(stream, selectors.EVENT_READ, lambda: answer_stream(stream))

    def answer_stream(stream: socket.socket) -> None:
        try:
            data = stream.recv(65536)
            if data:
                stream.settimeout(1.0)  # one slow client slows the others: it is a test service
                stream.sendall(data)
                stream.settimeout(0)
                return
        except OSError:
            pass
        selector.unregister(stream)
        stream.close()

    selector.register(udp, selectors.EVENT_READ, answer_datagrams)
    selector.register(tcp, selectors.EVENT_READ, accept)
    while not stop.asked:
        for key, _ in selector.select(_NOTICE):
            key.data()
    return {"datagrams": datagrams, "streams": streams}


def heartbeat(stop: Stop, log: Path, interval_us: int) -> Summary:
    """Beat on schedule and record every silence longer than two intervals: the node's own view of its blackout."""
    realtime = become_instrument()
    interval = interval_us * 1000
    beats = 0
    largest = largest_at = 0
    with log.open("wb", buffering=_BUFFER) as records:
        first = last = time.monotonic_ns()
        due = first
        while not stop.asked:
            due += interval
            pause = due - time.monotonic_ns()
            if pause > 0:
                time.sleep(pause / 1e9)
            now = time.monotonic_ns()
            gap = now - last
            if gap > 2 * interval:
                records.write(BEAT.pack(now, gap))
                due = now
            if gap > largest:
                largest, largest_at = gap, now
            beats += 1
            last = now
    return {
        "beats": beats,
        "first_ns": first,
        "last_ns": last,
        "interval_us": interval_us,
        "largest_gap_ns": largest,
        "largest_gap_at_ns": largest_at,
        "realtime": realtime,
    }


def send_probes(stop: Stop, interval_us: int, source: str, peer: tuple[str, int]) -> Summary:
    """One numbered, timestamped packet per slot of an absolute schedule; never waits for anybody."""
    realtime = become_instrument()
    interval = interval_us * 1000
    out = _datagram_socket(source, 0)
    packet = bytearray(PROBE_BYTES)  # one for all: nothing to build or to collect in the loop
    write, send, clock, sleep = PROBE.pack_into, out.sendto, time.monotonic_ns, time.sleep
    sequence = errors = not_sent = slot = last = 0
    skips: list[list[int]] = []
    first = clock()
    while not stop.asked:
        due = first + slot * interval
        pause = due - clock()
        if pause > 0:
            sleep(pause / 1e9)
        now = clock()
        missed = (now - due) // interval
        if missed > 0:
            not_sent += missed
            slot += missed
            _skip(skips, due, missed, interval)
        try:
            write(packet, 0, sequence, now)
            send(packet, peer)
            sequence += 1
            last = now
        except OSError:
            errors += 1
            not_sent += 1
            _skip(skips, first + slot * interval, 1, interval)
        slot += 1
    return {
        "first_ns": first,
        "last_ns": last,
        "sent": sequence,
        "not_sent": not_sent,
        "send_errors": errors,
        "interval_us": interval_us,
        "skips": skips,
        "realtime": realtime,
    }


def _skip(skips: list[list[int]], due: int, slots: int, interval: int) -> None:
    """Note missed slots, those that follow one another as one."""
    if skips and skips[-1][0] + skips[-1][1] * interval == due:
        skips[-1][1] += slots
    elif len(skips) < _MAX_SKIPS:
        skips.append([due, slots])


def receive_probes(stop: Stop, log: Path, port: int) -> Summary:
    """Log every packet with the time at which this process got it."""
    realtime = become_instrument()
    inbound = _datagram_socket("::", port)
    inbound.settimeout(_NOTICE)
    received = foreign = 0
    ebb = Ebb()
    with log.open("wb", buffering=_BUFFER) as records:
        while not stop.asked or not ebb.over(time.monotonic()):
            try:
                data = inbound.recv(2048)
            except OSError:
                continue
            now = time.monotonic_ns()
            ebb.came(now / 1e9)
            if len(data) != PROBE_BYTES:
                foreign += 1
                continue
            sequence, sent = PROBE.unpack_from(data)
            records.write(RECORD.pack(sequence, sent, now))
            received += 1
    return {
        "received": received,
        "foreign": foreign,
        "realtime": realtime,
        "cut_short": ebb.cut_short,
        "overflowed": overflowed(inbound),
    }


def measure_rtt(stop: Stop, log: Path, interval_us: int, source: str, peer: tuple[str, int]) -> Summary:
    """Ask the peer's UDP echo on schedule and log each answer."""
    realtime = become_instrument()
    interval = interval_us * 1000
    both = _datagram_socket(source, 0)
    both.settimeout(0)
    selector = selectors.DefaultSelector()
    selector.register(both, selectors.EVENT_READ)
    padding = bytes(PROBE_BYTES - PROBE.size)
    sequence = answered = 0
    first = due = time.monotonic_ns()
    with log.open("wb", buffering=_BUFFER) as records:
        while not stop.asked:
            now = time.monotonic_ns()
            if now >= due:
                with contextlib.suppress(OSError):
                    both.sendto(PROBE.pack(sequence, now) + padding, peer)
                sequence += 1
                due += interval * (1 + (now - due) // interval)
            if not selector.select(max(0.0, (due - time.monotonic_ns()) / 1e9)):
                continue
            with contextlib.suppress(OSError):
                data = both.recv(2048)
                now = time.monotonic_ns()
                if len(data) == PROBE_BYTES:
                    records.write(RECORD.pack(*PROBE.unpack_from(data), now))
                    answered += 1
    return {
        "first_ns": first,
        "sent": sequence,
        "answered": answered,
        "interval_us": interval_us,
        "realtime": realtime,
    }


def fork(work: Callable[[Stop], Summary], summary: Path) -> int:
    """Run `work` in a child process that writes its summary as JSON and ends; returns the child's process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        die_with_parent()
        os.closerange(3, 4096)  # the agent's sockets: a client must see the agent's end, not ours
        stop = Stop()
        result = work(stop)
        summary.write_text(json.dumps(result))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _datagram_socket(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    if address == "::":
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    make_room(opened)
    opened.bind((address, port))
    return opened


def make_room(inbound: socket.socket) -> None:
    """For what comes at once; less where the kernel's limit cannot be passed."""
    try:
        inbound.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
    except PermissionError:
        inbound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)


def overflowed(inbound: socket.socket) -> int:
    """Packets that reached the socket and found no room: lost by the instrument, by nobody else."""
    return int(_MEMINFO.unpack(inbound.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_DROPS])
