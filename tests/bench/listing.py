"""`lispfmc show registrations` of a million EIDs, and how long a Map-Request waits for its reply meanwhile.

The real daemon, with a store that was filled beforehand, and the real command; one Map-Request at a time from a third
process, timed one by one. Every reply is checked.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from lispfmc.lab.installation import FILE, Daemon, Installation
from lispfmc.store.sqlite import SqliteStore
from lispfmc.wire import decode
from lispfmc.wire.messages import MapReply
from tests.bench import harness
from tests.bench.answering import ITR, LIMITS, free_port, question
from tests.bench.million import EIDS, FIRST, fill
from tests.bench.registering import CONFIG, KEY

BETWEEN_S = 0.002  # two Map-Requests; not what is measured


class Listed:
    """What one run of the command printed, and what the daemon did meanwhile."""

    def __init__(self, printed: str, seconds: float, waits: Sequence[float], resident_mb: float) -> None:
        self.rows = [line.split()[0] for line in printed.splitlines()[1:]]
        self.figures = {
            "rows": len(self.rows),
            "seconds": round(seconds, 1),
            "reply_ms_median": round(median(waits) * 1e3, 2),
            "reply_ms_worst": round(max(waits) * 1e3, 2),
            "replies": len(waits),
            "daemon_mb_most": round(resident_mb),
        }


class Running:
    """A Map-Server that holds `eids` hosts, as the command finds it."""

    def __init__(self, folder: Path, pid: int, port: int, eids: int) -> None:
        self._folder = folder
        self._pid = pid
        self._port = port
        self._eids = eids

    def shows(self, *options: str) -> Listed:
        """Run `lispfmc show registrations` with these options while Map-Requests are answered."""
        command = [sys.executable, "-m", "lispfmc.cli", "show", "registrations", *options]
        waits: list[float] = []
        over, most = threading.Event(), [0.0]
        asking = threading.Thread(target=self._ask, args=(over, waits, most))
        started = time.monotonic()
        asking.start()
        try:
            environment = os.environ | {"LISPFMC_RUN": str(self._folder)}
            done = subprocess.run(
                command, cwd=harness.ROOT, env=environment, capture_output=True, check=True, text=True
            )
        finally:
            over.set()
            asking.join()
        return Listed(done.stdout, time.monotonic() - started, waits, most[0])

    def waits(self, seconds: float) -> list[float]:
        """How long Map-Requests wait while nobody lists anything."""
        over, waits = threading.Event(), list[float]()
        asking = threading.Thread(target=self._ask, args=(over, waits, [0.0]))
        asking.start()
        over.wait(seconds)
        over.set()
        asking.join()
        return waits

    def _ask(self, over: threading.Event, waits: list[float], most: list[float]) -> None:
        local = free_port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.bind((ITR, local))
            asker.settimeout(10)
            for nonce in count(1):
                if over.is_set():
                    return
                host = FIRST + nonce * 7919 % self._eids
                request = question(host, local, nonce)
                asked = time.perf_counter()
                asker.sendto(request, ("127.0.0.1", self._port))
                reply = decode(asker.recv(4096))
                waits.append(time.perf_counter() - asked)
                assert isinstance(reply, MapReply)
                assert (reply.nonce, reply.records[0].eid) == (nonce, host.to_bytes(4, "big"))
                pages = int(Path(f"/proc/{self._pid}/statm").read_text(encoding="ascii").split()[1])
                most[0] = max(most[0], pages * 4096 / 1e6)
                over.wait(BETWEEN_S)


@contextmanager
def running(eids: int) -> Iterator[Running]:
    """It starts from a snapshot, which costs less than registering by the network."""
    with TemporaryDirectory() as name, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        folder = Path(name)
        filled = SqliteStore(folder / "store", lambda _site, _key_id: KEY, now=0.0, wall_now=time.time())
        fill(filled, range(eids), count(1))
        filled.snapshot(wait=True)
        filled.close()
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        limits = "".join(f"{each} = {value}\n" for each, value in LIMITS.items())
        store = f'\n[store]\nkind = "sqlite"\npath = "{folder / "store"}"\n'
        (folder / "mapserver.toml").write_text(CONFIG.format(port=port, folder=name, limits=limits, workers=1) + store)
        _write_lab(folder)
        with harness.server("tests.bench.mapserver_daemon", str(folder / "mapserver.toml")) as (pid, _):
            yield Running(folder, pid, port, eids)


def _write_lab(folder: Path) -> None:
    daemon = Daemon("mapserver", "mapserver", f"unix:{folder / 'api.sock'}")
    lab = Installation("bench", "bench", "namespaces", [daemon], [], "127.0.0.1")
    (folder / "bench").mkdir()
    (folder / "bench" / FILE).write_bytes(msgspec.json.encode(lab))


def run(eids: int = EIDS) -> dict[str, object]:
    with running(eids) as mapserver:
        quiet = mapserver.waits(3.0)
        whole = mapserver.shows()
        part = mapserver.shows("--eid", "10.4.0.0/16")
        return {
            "listing_1m": {
                "quiet_reply_ms_median": round(median(quiet) * 1e3, 2),
                "quiet_reply_ms_worst": round(max(quiet) * 1e3, 2),
                **whole.figures,
                "part": part.figures,
            }
        }
