"""The store as the daemon runs it: opened from the settings, committed before anything leaves, looked after."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import time
from pathlib import Path

from lispfmc.runtime.events import EventLog
from lispfmc.store import Store, StoreError
from lispfmc.store.memory import MemoryStore
from lispfmc.store.sqlite import SqliteStore
from mapserver.settings import MapServerSettings
from mapserver.sites import Sites

TEND_S = 1.0  # between two looks at the store, and between two times that it is brought to the disk
FAILURES_TOLD_S = 60.0
POLICY = "policy"  # the file beside the journal that tells by which rules of who may register what it was written


def opened(settings: MapServerSettings) -> Store:
    """The store of the settings, with what it kept. Raises StoreError."""
    kept = settings.store
    if kept.kind == "memory" or kept.path is None:
        return MemoryStore()
    gc.disable()  # a million values come about that none of them refers to in a circle
    try:
        return SqliteStore(
            kept.path,
            Sites(settings.sites).key,
            now=time.monotonic(),
            wall_now=time.time(),
            fsync=kept.fsync,
            journal_bytes=kept.journal_mib << 20,
        )
    finally:
        gc.enable()


class Policy:
    """Whether the store was kept by the rules that are in force now: others may have allowed more."""

    def __init__(self, settings: MapServerSettings) -> None:
        kept = settings.store
        self._path: Path | None = kept.path / POLICY if kept.kind != "memory" and kept.path is not None else None

    def is_kept(self, settings: MapServerSettings) -> bool:
        if self._path is None:
            return True
        try:
            return self._path.read_bytes() == _fingerprint(settings)
        except OSError:
            return False

    def keep(self, settings: MapServerSettings) -> None:
        """To be called when nothing is left in the store that these settings do not allow. Raises OSError."""
        if self._path is not None:
            self._path.write_bytes(_fingerprint(settings))


def _fingerprint(settings: MapServerSettings) -> bytes:
    rules = sorted(
        (
            site.name,
            site.accept_more_specifics,
            sorted(str(site.placed(prefix)) for prefix in site.prefixes),
            sorted(str(site.placed(prefix)) for prefix in site.roaming),
        )
        for site in settings.sites
    )
    return hashlib.sha256(repr(rules).encode()).digest()


class Keeping:
    """`commit` before each datagram leaves: what it acknowledges has to be kept first."""

    def __init__(self, store: Store, events: EventLog) -> None:
        self._store = store
        self._events = events
        self.failures = 0
        self._told_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def commit(self) -> bool:
        """False when the store could not keep what is about to be acknowledged: then nothing may be."""
        try:
            self._store.commit()
        except StoreError as error:
            self._failed(error)
            return False
        return True

    def policed(self, policy: Policy, settings: MapServerSettings) -> None:
        """What these settings do not allow is out of the store, as of now."""
        try:
            self._store.commit()
            policy.keep(settings)
        except (StoreError, OSError) as error:
            self._failed(error)

    def start(self) -> None:
        if isinstance(self._store, SqliteStore):
            for path, size in self._store.cut.items():
                self._events.append("store.cut", {"bytes": size, "kept": str(path)})
            self._task = asyncio.get_running_loop().create_task(self._tend(self._store), name="store")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._store.close()

    async def _tend(self, store: SqliteStore) -> None:
        while True:
            await asyncio.sleep(TEND_S)
            try:
                store.tend()
                store.commit()  # what brings no answer is kept, too
                if store.syncs:
                    await asyncio.to_thread(store.sync)
            except (StoreError, OSError) as error:
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        now = time.monotonic()
        if now - self._told_at >= FAILURES_TOLD_S:
            self._told_at = now
            self._events.append("store.failed", {"why": str(error)})
