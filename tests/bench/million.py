"""A million registered /32: memory of each with its pre-encoded reply, look-up, garbage collection; and a warm restart.

Registered as xTRs do it, 20 in a Map-Register, by the registrar's own rule and the stores' own code. Memory is what the
process grows by (resident set), so that nothing is left out.
"""

from __future__ import annotations

import gc
import itertools
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from lispfmc.core.claims import claims_in
from lispfmc.core.merging import merge
from lispfmc.core.registry import Accepted, Owner, Register, Registrant
from lispfmc.runtime import service
from lispfmc.store import Query, Store
from lispfmc.store.memory import MemoryStore
from lispfmc.store.sqlite import SqliteStore
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import AUTH_OFFSET
from lispfmc.wire.messages import Ecm, MapRegister, MapReply, MapRequest, RequestRecord
from tests.bench import harness
from tests.bench.registering import CONFIG, KEY, XTR, message

EIDS = 1_000_000
RECORDS = 20
XTRS = 1000
FIRST = 0x0A000000


def fill(store: Store, eids: range, nonces: Iterator[int], weight: int = 100) -> None:
    """Register these addresses of 10.0.0.0/8, each xTR its share."""
    any_ = Query(())
    owners = [Owner("site", number.to_bytes(16, "big")) for number in range(XTRS)]
    source = Endpoint(ip_of(XTR), 4342)
    registrants: dict[Owner, Registrant] = {}
    for number in eids[::RECORDS]:
        nonce = next(nonces)
        datagram = message(number, RECORDS, nonce, weight)
        register = decode(datagram)
        assert isinstance(register, MapRegister)
        owner = owners[number // RECORDS % XTRS]
        registrant = registrants.setdefault(owner, Registrant(owner, KEY, source, register.word))
        claims = claims_in(datagram[AUTH_OFFSET + len(register.auth) :], register.records)
        outcome = merge(Register(registrant, nonce, claims, 3600.0, hash(datagram), datagram), store.view(any_), 0.0)
        assert isinstance(outcome, Accepted)
        store.apply([outcome], 0.0)
        if number % 10_000 == 0:
            store.commit()
    store.commit()


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def memory() -> dict[str, float]:
    """In a process of its own, which has done nothing else."""
    store = MemoryStore()
    service.settle()  # as the daemon does when it is up
    nonces = itertools.count(1)
    fill(store, range(100_000), nonces)  # what is there once: xTRs, caches, the ring of changes
    gc.collect()
    before, held = resident(), len(store)
    fill(store, range(100_000, EIDS + 100_000), nonces)
    gc.collect()
    grown = resident() - before
    eids = [(FIRST + number).to_bytes(4, "big") for number in random.Random(1).sample(range(EIDS), 200_000)]
    lookups = []
    for _ in range(5):
        look = store.alone
        started = time.thread_time()
        for eid in eids:
            look(0, eid)
        lookups.append((time.thread_time() - started) / len(eids) * 1e6)
    collections = []
    for _ in range(7):
        started = time.perf_counter()
        gc.collect()
        collections.append((time.perf_counter() - started) * 1e3)
    return {
        "eids": len(store),
        "bytes_per_eid": round(grown / (len(store) - held)),
        "lookup_us": round(median(lookups), 3),
        "gc_ms": round(median(collections), 2),
    }


def restart() -> dict[str, float]:
    """From the start of the process to the first correct reply, from a snapshot of a million EIDs and a journal."""
    with TemporaryDirectory() as folder:
        path, store = Path(folder) / "mapserver.toml", Path(folder) / "store"
        now = time.monotonic()
        sqlite = SqliteStore(store, lambda _site, _key_id: KEY, now=0.0, wall_now=time.time())
        nonces = itertools.count(1)
        fill(sqlite, range(EIDS), nonces)
        sqlite.snapshot(wait=True)
        fill(sqlite, range(50_000), nonces, weight=99)  # stays in the journal
        sqlite.close()
        prepared = time.monotonic() - now
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.bind(("127.0.0.1", 0))
            asker.settimeout(0.02)
            port = asker.getsockname()[1] + 1
            more = f'\n[store]\nkind = "sqlite"\npath = "{store}"\n'
            path.write_text(CONFIG.format(port=port, folder=folder, limits="", workers=1) + more)
            started = time.monotonic()
            with harness.module("tests.bench.mapserver_daemon", str(path)):
                replied = _first_reply(asker, port)
    return {"first_reply_s": round(replied - started, 2), "prepared_s": round(prepared, 1)}


def _first_reply(asker: socket.socket, port: int) -> float:
    eid = (FIRST + EIDS - 7).to_bytes(4, "big")
    for number in itertools.count(1):
        me, own = asker.getsockname()
        request = MapRequest.of(RequestRecord.of(Prefix.host(eid)), nonce=number, itr_rlocs=[ip_of(me)])
        ecm = Ecm.of(request, source=eid, destination=eid, source_port=own)
        try:
            asker.sendto(encode(ecm), ("127.0.0.1", port))
            reply = decode(asker.recv(4096))
        except (TimeoutError, ConnectionRefusedError):
            time.sleep(0.005)
            continue
        assert isinstance(reply, MapReply)
        if reply.records[0].locators and reply.records[0].prefix == Prefix.host(eid):
            return time.monotonic()
    raise AssertionError("endless")


def run() -> dict[str, object]:
    command = "import json; from tests.bench import million; print(json.dumps(million.memory()))"
    done = subprocess.run([sys.executable, "-c", command], cwd=harness.ROOT, capture_output=True, text=True, check=True)
    return {"eids_1m": json.loads(done.stdout), "restart_1m": restart()}
