"""ECM Map-Requests for 64k hosts at random, each answered by a Map-Reply.

The daemon's own process over loopback, the load from another one. All questions come from one address: the limits that
protect an address are set so that they do not bite, and stand beside the figures.
"""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Sequence

from lispfmc.wire import encode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.messages import Ecm, MapRequest, RequestRecord
from tests.bench import harness
from tests.bench.registering import EIDS, XTR, daemon, measured, messages, middle

ITR = "127.0.0.3"
LIMITS = {"reply_rate": 1000.0, "reply_burst": 1000.0, "rloc_rate": 1000000.0, "rloc_burst": 1000000.0}
RECORDS = 64  # in a Map-Register of the set-up


def run(rounds: int = 15, count: int = 20_000) -> dict[str, object]:
    """`rate` and `cpu_us` of one question and its answer."""
    nonces = itertools.count(1)
    limits = "".join(f"{name} = {value}\n" for name, value in LIMITS.items())
    with harness.generator() as generator, daemon(limits=limits) as (pid, port):
        setup = messages(EIDS // RECORDS, RECORDS, nonces, [1])
        generator.load(port, setup, count=len(setup), local=(XTR, port), window=16)
        local = free_port()
        chosen = random.Random(1).choices(range(EIDS), k=EIDS)
        questions = [question(0x0A000000 + eid, local, next(nonces)) for eid in chosen]
        taken = []
        for turn in range(rounds + 1):
            at = turn * count % (EIDS - count)
            part: Sequence[bytes] = questions[at : at + count]
            taken.append(measured(generator, pid, port, part, 1, local=(ITR, local)))
    figures = middle(taken[1:])  # the first one warms up
    least = min(each["cpu_us"] for each in taken[1:])  # what it comes to where the neighbours are quiet
    return {
        "rate": figures["rate"],
        "cpu_us": figures["cpu_us"],
        "least_cpu_us": least,
        "lost": figures["lost"],
        "limits": LIMITS,
    }


def question(host: int, port: int, nonce: int, itr: str = ITR) -> bytes:
    """An ECM with a Map-Request for a host, whose answer comes to `port` of the ITR."""
    eid, local = Prefix.host(host.to_bytes(4, "big")), ip_of(itr)
    request = MapRequest.of(RequestRecord.of(eid), nonce=nonce, itr_rlocs=[local])
    return encode(Ecm.of(request, source=local, destination=eid.ip, source_port=port))


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((ITR, 0))
        port: int = free.getsockname()[1]
        return port
