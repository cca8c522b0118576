"""A tunnel router of the benchmark: `python -m tests.bench.dataplane_xtr NAME`, JSON lines in and out.

It runs a plane in its namespace and changes it as it is told. The core of a whole xTR takes part only where memory is
measured; elsewhere the plane alone is the subject.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import struct
import sys
import threading
import time
from collections import abc
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from lispfmc.core.mapcache import Mapping
from lispfmc.wire.address import Ip, Prefix, ip_of
from lispfmc.wire.messages import Action, Locator
from xtr.dataplane import DataPlane, traffic_control
from xtr.dataplane.ebpf import EbpfPlane
from xtr.dataplane.libbpf import run_time
from xtr.dataplane.netlink import Netlink
from xtr.dataplane.tun import TunPlane
from xtr.effects import Forward, Hop, Install
from xtr.router import Router
from xtr.settings import XtrSettings

PLANES: dict[str, Callable[[XtrSettings], DataPlane]] = {
    "ebpf": EbpfPlane,
    "tun": TunPlane,
    "naive": lambda settings: TunPlane(settings, batch=1),
}
_SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 35, 33
_TIMESPEC = struct.Struct("=qq")


class Evidence:
    """Answers a miss after a while, as a Map-Resolver would."""

    def __init__(self, missed: Callable[[Prefix], None]) -> None:
        self._missed = missed

    def missed(self, eid: Prefix) -> None:
        self._missed(eid)

    def unknown_source(self, eid: Prefix) -> None: ...

    def moved_away(self, eid: Prefix, sender: Ip) -> None: ...

    def announced(self, eid: Prefix, interface: str, mac: bytes) -> None: ...

    def sought(self, eid: Prefix, interface: str, asker: Ip, mac: bytes) -> None: ...

    def mac_announced(self, mac: bytes, interface: str, iid: int) -> None: ...

    def outdated(self, eid: Prefix, sender: Ip) -> None: ...

    def newer_source(self, eid: Prefix) -> None: ...

    def worked_off(self, eids: tuple[Prefix, ...], packets: abc.Mapping[str, int]) -> None: ...

    def version(self, eid: Prefix) -> int | None:
        return None


class Watch:
    """The frames of an interface that go to port 4341: when they came, and by which RLOC."""

    def __init__(self, interface: str) -> None:
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._sock.settimeout(0.05)
        self._sock.bind((interface, 3))  # every protocol: those taps come before the programs
        self.seen: list[tuple[int, int]] = []
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            try:
                frame, ancillary, _, sender = self._sock.recvmsg(64, 64)
            except TimeoutError:
                continue
            if sender[2] == 0 and frame[36:38] == b"\x10\xf5":  # to us, not from us
                seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
                self.seen.append((seconds * 1_000_000_000 + nanoseconds, frame[33]))

    def close(self) -> list[tuple[int, int]]:
        self._stop = True
        self._thread.join()
        self._sock.close()
        return self.seen


class Xtr:
    """The commands. Each takes and returns what JSON can say; coroutines are awaited."""

    def __init__(self, settings: XtrSettings) -> None:
        self._settings = settings
        self._plane: DataPlane | None = None
        self._answer: tuple[str, float] | None = None
        self._watch: Watch | None = None
        self._router: Router | None = None

    def start(self, plane: str, hosts: list[str], mac: str) -> bool:
        self._plane = PLANES[plane](self._settings)
        self._plane.start(Evidence(self._missed))
        for host in hosts:
            self._plane.deliver(Prefix.host(ip_of(host)), "lan", bytes.fromhex(mac.replace(":", "")))
        return True

    def stop(self) -> bool:
        self._running().close()
        self._plane = None
        return True

    def forward(self, eid: str, rloc: str) -> bool:
        self._running().install(Prefix.parse(eid), _to(rloc))
        return True

    def remove(self, eid: str) -> bool:
        self._running().remove(Prefix.parse(eid))
        return True

    def answer(self, rloc: str, after_s: float) -> bool:
        """How misses are answered."""
        self._answer = (rloc, after_s)
        return True

    def counters(self) -> dict[str, int]:
        return self._running().counters()

    async def switch(self, eid: str, rlocs: list[str], times: int, every_s: float) -> list[tuple[int, int, int]]:
        """Change the locator of `eid` again and again: when each change began and was done, and to which RLOC."""
        prefix, changes = Prefix.parse(eid), []
        ways = [(_to(rloc), ip_of(rloc)[-1]) for rloc in rlocs]
        for number in range(times):
            await asyncio.sleep(every_s)
            forwarding, last = ways[(number + 1) % len(ways)]
            before = time.time_ns()
            self._running().install(prefix, forwarding)
            changes.append((before, time.time_ns(), last))
        await asyncio.sleep(every_s)
        return changes

    def watch(self, interface: str) -> bool:
        self._watch = Watch(interface)
        return True

    def seen(self) -> list[tuple[int, int]]:
        assert self._watch is not None
        return self._watch.close()

    def fill(self, first: str, entries: int, rloc: str) -> dict[str, float]:
        """Learn `entries` host mappings as the core does it, into the plane; the process's memory afterwards, in MB."""
        plane, nonces = self._running(), count(1)
        if self._router is None:
            self._router = Router(self._settings, nonces, nonces, plane.peers)
        base, now = int.from_bytes(ip_of(first), "big"), time.monotonic()
        locators = (Locator.of(ip_of(rloc)),)
        for number in range(entries):
            eid = Prefix.host((base + number).to_bytes(4, "big"))
            mapping = Mapping(eid, locators, Action.NO_ACTION, 1, "bench", now, now + 86_400)
            for effect in self._router._forwarding.learn(mapping):  # as a Map-Reply would
                if isinstance(effect, Install):
                    plane.install(effect.eid, effect.forwarding)
        return {"rss_mb": self.rss()}

    def kernel_time(self, interface: str) -> tuple[int, int]:
        """Nanoseconds that the program on an interface has taken, and how often it ran."""
        netlink = Netlink()
        program = traffic_control.running(netlink, socket.if_nametoindex(interface))
        netlink.close()
        assert program is not None
        return run_time(program)

    def rss(self) -> float:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _missed(self, eid: Prefix) -> None:
        if self._answer is not None:
            rloc, after_s = self._answer
            asyncio.get_running_loop().call_later(after_s, lambda: self._running().install(eid, _to(rloc)))

    def _running(self) -> DataPlane:
        assert self._plane is not None
        return self._plane


def _to(rloc: str) -> Forward:
    return Forward((Hop(ip_of(rloc), 100),))


async def serve(xtr: Xtr) -> None:
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    while line := await lines.get():
        name, arguments = json.loads(line)
        result = getattr(xtr, name)(**arguments)
        if asyncio.iscoroutine(result):
            result = await result
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.argv[1])
    run: Any = asyncio.run
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        pass
    run(serve(Xtr(XtrSettings.model_validate(settings))))


if __name__ == "__main__":
    main()
