"""A host at one end of the benchmark's network: `python -m tests.bench.dataplane_end`, JSON lines in and out.

Sends and receives TCP and UDP flat out or at a pace, and measures round trips. UDP datagrams begin with a number.
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from lispfmc.runtime.mmsg import Batch
from lispfmc.wire.address import Endpoint, ip_of

BURST = 64
TCP_CHUNK = 1 << 20
KERNEL_BUFFER = 16 << 20
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32
_PR_SET_TIMERSLACK = 29
_NUMBER = struct.Struct("!I")


def _udp(ip: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, KERNEL_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, KERNEL_BUFFER)
    sock.bind((ip, port))
    return sock


class Sink:
    """Receives UDP in a thread, until it is asked what came."""

    def __init__(self, ip: str, port: int) -> None:
        self._sock = _udp(ip, port)
        self._sock.settimeout(0.05)
        self._stop = False
        self.numbers: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        batch, fd = Batch(socket.AF_INET, BURST), self._sock.fileno()
        numbers, unpack = self.numbers, _NUMBER.unpack_from
        while not self._stop:
            try:
                first = self._sock.recv(2048)
            except TimeoutError:
                continue
            numbers.append(unpack(first)[0])
            while True:
                try:
                    got = batch.receive(fd)
                except OSError:
                    break
                numbers.extend([unpack(data)[0] for data, _ in got])
                if len(got) < BURST:
                    break

    def close(self) -> list[int]:
        self._stop = True
        self._thread.join()
        self._sock.close()
        return self.numbers


class End:
    """The commands. Each takes and returns what JSON can say."""

    def __init__(self) -> None:
        self._sink: Sink | None = None
        self._tcp: socket.socket | None = None
        self._echo_until = 0.0

    def sink(self, ip: str, port: int) -> bool:
        self._sink = Sink(ip, port)
        return True

    def received(self) -> dict[str, int]:
        """Of the sink: how many came, how many twice, how many behind a later one."""
        assert self._sink is not None
        numbers = self._sink.close()
        self._sink = None
        highest, reordered = -1, 0
        for number in numbers:
            reordered += number < highest
            highest = max(highest, number)
        return {"received": len(numbers), "duplicated": len(numbers) - len(set(numbers)), "reordered": reordered}

    def blast(self, ip: str, port: int, to: str, size: int, seconds: float) -> dict[str, float]:
        """Datagrams with `size` bytes of payload, as many as go."""
        sock = _udp(ip, 0)
        batch, fd = Batch(socket.AF_INET, BURST), sock.fileno()
        target, padding = Endpoint(ip_of(to), port), bytes(size - 4)
        for slot in range(BURST):
            batch.put(slot, _NUMBER.pack(slot) + padding, target)
        sent, cpu, end = 0, time.process_time(), time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                sent += batch.send(fd, 0, BURST)
            except BlockingIOError:
                time.sleep(0.0001)
        cpu = time.process_time() - cpu
        sock.close()
        return {"sent": sent, "cpu_s": cpu}

    def pace(self, ip: str, port: int, to: str, per_second: float, count: int) -> dict[str, float]:
        """Datagrams one by one, evenly spaced."""
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        sock = _udp(ip, 0)
        sock.connect((to, port))
        padding, step, start = bytes(36), 1 / per_second, time.monotonic()
        for number in range(count):
            wait = start + number * step - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            sock.send(_NUMBER.pack(number) + padding)
        sock.close()
        return {"sent": count, "seconds": time.monotonic() - start}

    def spread(self, ip: str, port: int, to: list[str], size: int, seconds: float) -> dict[str, float]:
        """Like `blast`, to many destinations in turn."""
        sock = _udp(ip, 0)
        batches = []
        for at in range(0, len(to), BURST):
            batch = Batch(socket.AF_INET, BURST)
            chunk = to[at : at + BURST]
            for slot in range(BURST):
                batch.put(slot, bytes(size), Endpoint(ip_of(chunk[slot % len(chunk)]), port))
            batches.append(batch)
        sent, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            for batch in batches:
                try:
                    sent += batch.send(sock.fileno(), 0, BURST)
                except BlockingIOError:
                    time.sleep(0.0001)
        sock.close()
        return {"sent": sent}

    def tcp_sink(self, ip: str, port: int) -> bool:
        """Accept one connection and read it to its end."""
        listening = socket.create_server((ip, port))
        listening.settimeout(10)

        def run() -> None:
            sock, _ = listening.accept()
            buffer = bytearray(TCP_CHUNK)
            total = 0
            while size := sock.recv_into(buffer):
                total += size
            sock.sendall(total.to_bytes(8, "big"))
            sock.close()
            listening.close()

        threading.Thread(target=run, daemon=True).start()
        return True

    def tcp(self, ip: str, port: int, to: str, seconds: float) -> dict[str, float]:
        """One flow, for a while; Gb/s as the other end counted them."""
        chunk = bytes(TCP_CHUNK)
        with socket.create_connection((to, port), timeout=10, source_address=(ip, 0)) as sock:
            start = time.monotonic()
            while time.monotonic() - start < seconds:
                sock.sendall(chunk)
            sock.shutdown(socket.SHUT_WR)
            total = int.from_bytes(sock.recv(8), "big")
            return {"gbps": total * 8 / (time.monotonic() - start) / 1e9}

    def echo(self, ip: str, port: int, seconds: float) -> bool:
        """Send back what comes, for a while."""
        sock = _udp(ip, port)
        sock.settimeout(0.1)
        end = time.monotonic() + seconds

        def run() -> None:
            while time.monotonic() < end:
                try:
                    data, sender = sock.recvfrom(2048)
                except TimeoutError:
                    continue
                sock.sendto(data, sender)
            sock.close()

        threading.Thread(target=run, daemon=True).start()
        return True

    def ping(self, ip: str, port: int, to: str, seconds: float) -> list[float]:
        """Round trips, one after the other; microseconds."""
        sock = _udp(ip, 0)
        sock.connect((to, port))
        sock.settimeout(0.5)
        taken, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            before = time.perf_counter_ns()
            sock.send(b"1234")
            try:
                sock.recv(64)
            except TimeoutError:
                continue
            taken.append((time.perf_counter_ns() - before) / 1000)
        sock.close()
        return taken


def main() -> None:
    end = End()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        command: Callable[..., Any] = getattr(end, name)
        sys.stdout.write(json.dumps(command(**arguments)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
