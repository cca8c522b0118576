"""A worker that answers: `python -m mapserver.worker CONFIG FEED`, started by the one that writes.

It follows the registrations and answers Map-Requests at the same port (SO_REUSEPORT); everything else it hands over as
it came. It ends with the worker that writes, so that nobody answers from a state that nobody keeps.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import TypeAlias

import msgspec

from lispfmc.core.effects import Effect, Transmit
from lispfmc.core.prefixes import PrefixTable
from lispfmc.core.registry import Lease, Owner, Registrant, Registration
from lispfmc.runtime import config, logs, service
from lispfmc.runtime.batched import BatchedSocket
from lispfmc.runtime.driver import Driver
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.nonces import ordered_nonces
from lispfmc.runtime.rejects import Rejects
from lispfmc.runtime.udp import Sockets, open_batched
from lispfmc.store.memory import MemoryStore
from lispfmc.wire.address import Endpoint
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import Ecm, MapRequest, Message
from lispfmc.wire.records import eid_of
from mapserver import feeding
from mapserver.feeding import Counts, Frame, Who
from mapserver.server import PLAIN_ECM, MapServer
from mapserver.settings import MapServerSettings
from mapserver.sites import Sites

BEHIND = 4 << 20  # bytes handed over that the writing worker has not taken; beyond that datagrams are dropped
COUNTS_S = 1.0
_ENCAPSULATED = 8


class HandOver(msgspec.Struct, frozen=True, gc=False):
    """The writing worker's business."""

    datagram: bytes
    source: Endpoint


WorkerEffect: TypeAlias = Effect | HandOver


class Replica:
    """The registrations as they are told, in a store that nothing else changes."""

    def __init__(self, settings: MapServerSettings) -> None:
        self.store = MemoryStore()
        self._keys = Sites(settings.sites).key
        self._leases: dict[int, Lease] = {}
        self._filling: PrefixTable[Registration] | None = None

    def take(self, kind: Frame, body: bytes) -> bool:
        """Follow one frame; True when everything that there is has been told."""
        table = self.store.table if self._filling is None else self._filling
        if kind is Frame.REGISTERED:
            numbers, record = feeding.registered_of(body)
            each = tuple(Registration(record, self._leases[number], 0.0) for number in numbers)
            table.set(eid_of(record), each[0] if len(each) == 1 else Registration(record, each[-1].lease, 0.0, each))
        elif kind is Frame.GONE:
            table.remove(feeding.gone_of(body))
        elif kind is Frame.REGISTRANT:
            self._know(msgspec.msgpack.decode(body, type=Who))
        elif kind is Frame.RESET:
            self._filling = PrefixTable()  # meanwhile what is known is answered from
        elif kind is Frame.COMPLETE and self._filling is not None:
            self.store.table, self._filling = self._filling, None
            return True
        return False

    def _know(self, who: Who) -> None:
        key = self._keys(who.site, who.key_id) or Key(0, b"")  # a static mapping has none
        registrant = Registrant(Owner(who.site, who.xtr), key, Endpoint(who.ip, who.port), who.word)
        self._leases[who.number] = Lease(0.0, 0, 0.0, registrant)


class Answering:
    """The core: Map-Requests that are no subscriptions are answered as the Map-Server does."""

    def __init__(self, server: MapServer) -> None:
        self._server = server

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[WorkerEffect]:
        request = message.message if isinstance(message, Ecm) else message
        if not isinstance(request, MapRequest) or any(each.notification_requested for each in request.records):
            return [HandOver(datagram, source)]
        return [*self._server.received(message, datagram, source, now)]

    def at_once(self, datagram: bytes, source: Endpoint, now: float) -> Transmit | list[WorkerEffect] | None:
        answer = self._server.at_once(datagram, source, now) if datagram[0] == PLAIN_ECM else None
        return [*answer] if isinstance(answer, list) else answer

    def next_deadline(self) -> None:
        return None

    def expired(self, now: float) -> list[WorkerEffect]:
        return []


async def run(path: Path, feed: Path) -> None:
    settings = config.load(path, MapServerSettings)
    logs.configure(settings.log)
    replica = Replica(settings)
    server = MapServer(settings, ordered_nonces(), replica.store)
    reader, writer = await asyncio.open_unix_connection(feed)
    rejects = Rejects()
    dropped = 0

    def hand_over(data: bytes, source: Endpoint) -> None:
        nonlocal dropped
        if writer.transport.get_write_buffer_size() > BEHIND:
            dropped += 1
        else:
            writer.write(feeding.datagram(data, source))

    def perform(effect: WorkerEffect) -> None:
        assert isinstance(effect, HandOver), "the driver performs the others itself"
        hand_over(effect.datagram, effect.source)

    def receive(data: bytes, source: Endpoint) -> None:
        if data and data[0] >> 4 == _ENCAPSULATED:
            driver.datagram(data, source)
        else:
            hand_over(data, source)

    sockets = Sockets([])
    answering = Answering(server)
    driver: Driver[WorkerEffect] = Driver(
        answering,
        perform=perform,
        send=lambda data, to: sockets.send(data, to),
        events=EventLog(),
        rejects=rejects,
        quick=answering.at_once,
    )

    async def follow() -> None:
        nonlocal sockets
        while True:
            if replica.take(*await feeding.read(reader)) and not sockets.all:
                opened: list[BatchedSocket] = []
                for ip in settings.listen:
                    opened.append(await open_batched(Endpoint(ip, settings.port), receive, shared=True))
                    sockets = Sockets(opened)
                driver.start()
                service.settle()

    async def count() -> None:
        answers, refused, lost = Counter[str](), Counter[str](), 0
        while True:
            await asyncio.sleep(COUNTS_S)
            before = answers, refused, lost
            answers, refused, lost = Counter(server.answers()), Counter(rejects.counts), dropped + sockets.drops
            counts = Counts(answers - before[0], refused - before[1], lost - before[2])
            writer.write(feeding.frame(Frame.COUNTS, msgspec.msgpack.encode(counts)))

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow())
            tasks.create_task(count())
    finally:
        sockets.close()


def main() -> int:
    try:
        with asyncio.Runner(loop_factory=service.loop_factory()) as runner:
            runner.run(run(Path(sys.argv[1]), Path(sys.argv[2])))
    except* (asyncio.IncompleteReadError, ConnectionError, FileNotFoundError):
        pass  # the worker that writes has ended
    return service.EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
