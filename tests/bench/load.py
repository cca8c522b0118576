"""The load generator, a process of its own: `python -m tests.bench.load`, a JSON line in and one out for each job.

In: host, port, requests (hexadecimal, sent round robin), count, window (how many are under way at a time; each reply
makes room for the next). Out: received, lost, seconds. Batched, so that it costs less than any server.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Sequence
from itertools import cycle

from lispfmc.runtime.mmsg import MSG_WAITFORONE, Batch
from lispfmc.runtime.sockets import DRAIN
from lispfmc.wire.address import Endpoint, ip_of

LOST_AFTER_S = 0.2


def run(to: Endpoint, requests: Sequence[bytes], count: int, window: int) -> dict[str, float]:
    """Until `count` requests are answered or lost."""
    family = socket.AF_INET6 if len(to.ip) == 16 else socket.AF_INET
    outgoing, incoming, source = Batch(family), Batch(family), cycle(requests)
    received = lost = under_way = 0
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, int(LOST_AFTER_S * 1e6)))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        started = time.perf_counter()
        while received + lost < count:
            wanted = min(window, count - received - lost) - under_way
            while wanted > 0:
                number = min(wanted, DRAIN)
                for slot in range(number):
                    outgoing.put(slot, next(source), to)
                sent = outgoing.send(sock.fileno(), 0, number)
                under_way += sent
                wanted -= sent
            try:
                replies = len(incoming.receive(sock.fileno(), MSG_WAITFORONE))
            except BlockingIOError:  # the receive timeout: what is under way is lost
                lost += under_way
                under_way = 0
                continue
            received += replies
            under_way = max(0, under_way - replies)
        return {"received": received, "lost": lost, "seconds": time.perf_counter() - started}


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        requests = [bytes.fromhex(each) for each in job["requests"]]
        results = run(Endpoint(ip_of(job["host"]), job["port"]), requests, job["count"], job["window"])
        sys.stdout.write(json.dumps(results) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
