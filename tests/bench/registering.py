"""Map-Registers: one record, twenty, twenty that say what they said before; the same with the store that lasts.

The daemon's own process over loopback, the load from another one. Every Map-Register is signed, has a nonce of its own
and wants a Map-Notify. `register`: 64k EIDs, each message one that changes it. `register20`: another 64k, 20 a message,
all changed. `refresh20`: the same 20 EIDs and locators again. Each EID is told by messages of one kind, as an xTR does;
the first time that it is told counts apart.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import EidRecord, Locator, MapRegister
from tests.bench import harness

KEY = Key(1, b"secret")
XTR = "127.0.0.2"
EIDS = 65_536  # of each kind
CONFIG = """
name = "bench"
listen = ["127.0.0.1"]
port = {port}
workers = {workers}
[[sites]]
name = "site"
key_id = 1
secret = "secret"
prefixes = ["10.0.0.0/8"]
[limits]
registrations = 2000000
{limits}
[damping]
alarm_after = 1000000
damp_after = 1000000
[api]
listen = "unix:{folder}/api.sock"
[log]
level = "error"
"""


def message(first: int, records: int, nonce: int, weight: int) -> bytes:
    """A Map-Register of EIDs that follow one another in 10.0.0.0/8."""
    locators = [Locator.of(ip_of(XTR), weight=weight)]
    of = (
        EidRecord.of(Prefix.host((0x0A000000 + first + each).to_bytes(4, "big")), locators, ttl_minutes=1440)
        for each in range(records)
    )
    return sign(MapRegister.of(*of, nonce=nonce, xtr_id=bytes(16), site_id=bytes(8)), KEY)


def messages(count: int, records: int, nonces: Iterator[int], weights: Sequence[int], first: int = 0) -> list[bytes]:
    """`count` messages over 64k EIDs from the `first` on in turn, with another weight each time round."""
    rounds = EIDS // records
    return [
        message(first + number % rounds * records, records, next(nonces), weights[number // rounds % len(weights)])
        for number in range(count)
    ]


@contextmanager
def daemon(more: str = "", limits: str = "", workers: int = 1) -> Iterator[tuple[int, int]]:
    """A Map-Server, pid and port, with `more` configuration and lines of its [limits]."""
    with TemporaryDirectory() as folder, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        path = Path(folder) / "mapserver.toml"
        path.write_text(
            CONFIG.format(port=port, folder=folder, limits=limits, workers=workers) + more.format(folder=folder)
        )
        with harness.server("tests.bench.mapserver_daemon", str(path)) as running:
            yield running


def measured(
    generator: harness.Generator,
    pid: int,
    port: int,
    load: Sequence[bytes],
    records: int,
    window: int = 128,
    local: tuple[str, int] | None = None,
) -> dict[str, float]:
    """Rates and CPU time of one run, from the xTR's control port or another `local` one."""
    before = harness.process_cpu(pid)
    done = generator.load(port, load, count=len(load), local=local or (XTR, port), window=window)
    used = harness.process_cpu(pid) - before
    return {
        "rate": round(done.received / done.seconds),
        "records_rate": round(done.received * records / done.seconds),
        "cpu_us": round(used / max(done.received, 1) * 1e6, 2),
        "lost": done.lost,
    }


def middle(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: median(each[key] for each in rounds) for key in rounds[0]}


def run(rounds: int = 3, count: int = 65_536) -> dict[str, dict[str, float]]:
    taken: dict[str, list[dict[str, float]]] = {"register": [], "register20": [], "refresh20": [], "sqlite": []}
    first: dict[str, dict[str, float]] = {}
    sqlite = '\n[store]\nkind = "sqlite"\npath = "{folder}/store"\n'
    nonces = itertools.count(1)
    with harness.generator() as generator, daemon() as (pid, port), daemon(sqlite) as (sqlite_pid, sqlite_port):
        first["register"] = measured(generator, pid, port, messages(EIDS, 1, nonces, [1]), 1)
        first["sqlite"] = measured(generator, sqlite_pid, sqlite_port, messages(EIDS, 1, nonces, [1]), 1)
        twenties = messages(EIDS // 20, 20, nonces, [1], EIDS)
        first["register20"] = measured(generator, pid, port, twenties, 20)
        for turn in range(rounds):
            weights = [2 + turn * 2, 3 + turn * 2]
            ones = messages(count, 1, nonces, weights)
            taken["register"].append(measured(generator, pid, port, ones, 1))
            taken["sqlite"].append(measured(generator, sqlite_pid, sqlite_port, ones, 1))
            twenties = messages(count // 4, 20, nonces, weights, EIDS)
            taken["register20"].append(measured(generator, pid, port, twenties, 20))
            # what the last message about these EIDs said, once more
            last = weights[(count // 4 - 1) // (EIDS // 20) % 2]
            again = messages(count // 4, 20, nonces, [last], EIDS)
            measured(generator, pid, port, again[: EIDS // 20], 20)
            taken["refresh20"].append(measured(generator, pid, port, again[EIDS // 20 :], 20))
    results: dict[str, dict[str, float]] = {name: middle(each) for name, each in taken.items()}
    for name, each in first.items():
        results[name]["first_us"] = each["cpu_us"]
    ratios = [one["rate"] / other["rate"] for one, other in zip(taken["sqlite"], taken["register"], strict=True)]
    results["sqlite"]["register_ratio"] = round(median(ratios), 2)
    return results
