"""The writing worker's side of several: starts the others, keeps them told, and takes what they hand over.

Each follows the store's changes by itself (`events(after)`), in its own task, so that a slow one holds up nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp

import msgspec

from lispfmc.runtime.events import EventLog
from lispfmc.runtime.rejects import Rejects
from lispfmc.store import Gap, Store
from lispfmc.wire.address import Endpoint
from mapserver.feeding import Counts, Frame, Telling, datagram_of, frame, gone, read

PAGE = 500  # registrations told at a time
AGAIN_AFTER_S = 1.0
CONFIGURATION = "mapserver.toml"
LOOK_AFTER_S = 0.5  # changes that brought no message: registrations that ended


class Workers:
    """`number` processes that answer beside this one."""

    def __init__(
        self,
        config: Path,
        number: int,
        store: Store,
        receive: Callable[[bytes, Endpoint], None],
        events: EventLog,
        rejects: Rejects,
    ) -> None:
        self._config = config
        self._number = number
        self._store = store
        self._receive = receive
        self._events = events
        self._changed: set[asyncio.Event] = set()
        self._told = 0
        self._rejects = rejects
        self.answers: Counter[str] = Counter()  # of the others
        self.dropped = 0
        self._folder = Path()
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: set[asyncio.subprocess.Process] = set()
        self.following = 0

    async def start(self) -> None:
        if not self._number:
            return
        self._folder = Path(mkdtemp(prefix="lispfmc-"))
        self._keep_configuration()
        self._server = await asyncio.start_unix_server(self._follower, self._folder / "feed")
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep(), name=f"worker {number}") for number in range(self._number)]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        if self._server is not None:
            self._server.close()
            (self._folder / "feed").unlink(missing_ok=True)
            (self._folder / CONFIGURATION).unlink(missing_ok=True)
            self._folder.rmdir()

    def _keep_configuration(self) -> None:
        """What is in force, for whoever begins: the file may be changed long before anybody has it applied."""
        (self._folder / CONFIGURATION).write_bytes(self._config.read_bytes())

    def restart(self) -> None:
        """They read their configuration when they begin."""
        if not self._number:
            return
        self._keep_configuration()
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    def wake(self) -> None:
        """To be called when the store may have changed."""
        last = self._store.last_event
        if last != self._told:
            self._told = last
            for changed in self._changed:
                changed.set()

    async def _keep(self) -> None:
        """One process, and another one when it ends."""
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "mapserver.worker", self._folder / CONFIGURATION, self._folder / "feed"
            )
            self._processes.add(process)
            try:
                await process.wait()
            finally:
                self._processes.discard(process)
            self._events.append("worker.ended", {"pid": process.pid, "code": process.returncode})
            await asyncio.sleep(AGAIN_AFTER_S)

    async def _follower(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        changed = asyncio.Event()
        self._changed.add(changed)
        telling = asyncio.create_task(self._tell(writer, changed))
        self.following += 1
        try:
            while True:
                kind, body = await read(reader)
                if kind is Frame.DATAGRAM:
                    self._receive(*datagram_of(body))
                elif kind is Frame.COUNTS:
                    self._counted(msgspec.msgpack.decode(body, type=Counts))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.following -= 1
            telling.cancel()
            self._changed.discard(changed)
            writer.close()

    def _counted(self, counts: Counts) -> None:
        self.answers.update(counts.answers)
        self.dropped += counts.dropped
        for reason, number in counts.rejects.items():
            self._rejects.counts[reason] = self._rejects.counts.get(reason, 0) + number

    async def _tell(self, writer: asyncio.StreamWriter, changed: asyncio.Event) -> None:
        telling = Telling()
        while True:
            after = await self._everything(writer, telling)
            with contextlib.suppress(Gap):
                while True:
                    changed.clear()
                    frames: list[bytes] = []
                    for numbered in self._store.events(after):
                        after = numbered.id
                        frames.append(telling.registered(numbered.after) if numbered.after else gone(numbered.eid))
                    writer.write(b"".join(frames))
                    await writer.drain()
                    if after == self._store.last_event:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(LOOK_AFTER_S):
                                await changed.wait()

    async def _everything(self, writer: asyncio.StreamWriter, telling: Telling) -> int:
        """Tell all that there is, in pages; returns the id of the last change that is in it for certain."""
        after = self._store.last_event
        writer.write(frame(Frame.RESET))
        cursor = None
        while page := list(islice(self._store.registrations(cursor), PAGE)):
            writer.write(b"".join(telling.registered(each) for each in page))
            await writer.drain()
            await asyncio.sleep(0)
            cursor = page[-1].eid
        writer.write(frame(Frame.COMPLETE))
        return after
