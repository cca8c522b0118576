"""Follows one live migration from the source: progress, STOP, and how it ended. Pre-copy, with post-copy by choice."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from fmcc.hypervisor.qemu.process import Qemu, QemuError
from fmcc.hypervisor.settings import QemuSettings

POLL_S = 0.25
HAND_OVER_S = 10.0
"""How long the last state may take from the STOP on. Then the target hangs, and QEMU is told to go on at the source."""

SOURCE_CAPABILITIES = ("events", "return-path", "auto-converge")
TARGET_CAPABILITIES = ("events", "return-path")


async def make_ready(qemu: Qemu, settings: QemuSettings, *, source: bool) -> None:
    """Set what both ends have to agree on, and what is the source's. Raises QemuError."""
    names = SOURCE_CAPABILITIES if source else TARGET_CAPABILITIES
    if settings.post_copy_after_s is not None:
        names = (*names, "postcopy-ram", "postcopy-preempt")
    capabilities = [{"capability": name, "state": True} for name in names]
    await qemu.ask("migrate-set-capabilities", capabilities=capabilities)
    # 10, 20, 30 ... ms after RESUME: a bridge port that is not ready yet misses the first
    announce = {"announce_initial": 10, "announce_max": 100, "announce_rounds": 8, "announce_step": 10}
    await qemu.ask("migrate-set-parameters", **announce)
    if source:
        limits: dict[str, Any] = {"downtime_limit": int(settings.downtime_limit_ms)}
        limits["max_bandwidth"] = int(settings.bandwidth_mbit * 1e6 / 8)
        await qemu.ask("migrate-set-parameters", **limits)


class Following:
    """One migration of `qemu` to `uri`."""

    def __init__(
        self,
        qemu: Qemu,
        settings: QemuSettings,
        progress: Callable[[float], Awaitable[None]],
        stopped: Callable[[int], None],
    ) -> None:
        """`progress(percent)` is awaited about four times a second, `stopped(at_ns)` called at the STOP."""
        self._qemu = qemu
        self._settings = settings
        self._progress = progress
        self._stopped = stopped
        self._stop_at: float | None = None
        self._post_copy = False
        self._sent = 0
        self._moved_at = self._began = time.monotonic()

    async def run(self, uri: str) -> None:
        """Returns when the target has the whole machine. Raises QemuError: it failed, was aborted, or hangs."""
        self._qemu.forget_events()
        await self._qemu.ask("migrate", uri=uri)
        while True:
            told = await self._qemu.next_event(POLL_S)
            if told is None:
                await self._look()
            elif told.name == "STOP":
                self._stop_at = time.monotonic()
                self._stopped(told.at_ns)
            elif told.name == "MIGRATION":
                match told.data.get("status"):
                    case "completed":
                        return
                    case "failed" | "cancelled" as how:
                        raise QemuError(await self._why(how))

    async def _look(self) -> None:
        now = time.monotonic()
        answer = await self._qemu.ask("query-migrate")
        if answer["status"] == "completed":
            return
        ram = answer.get("ram", {})
        if (sent := int(ram.get("transferred", 0))) != self._sent:
            self._sent, self._moved_at = sent, now
        if self._stop_at is not None:
            if now - self._stop_at > HAND_OVER_S and not self._post_copy:
                raise QemuError(f"the target has not taken the last state within {HAND_OVER_S:g} s")
            return
        if now - self._moved_at > self._settings.stalled_s:
            raise QemuError(f"nothing has been copied for {self._settings.stalled_s:g} s: the target hangs")
        total = int(ram.get("total", 0))
        left = int(ram.get("remaining", total))
        await self._progress(round(100.0 * (total - left) / total, 1) if total else 0.0)
        after_s = self._settings.post_copy_after_s
        if after_s is not None and not self._post_copy and now - self._began > after_s and answer["status"] == "active":
            await self._qemu.ask("migrate-start-postcopy")
            self._post_copy = True

    async def _why(self, how: str) -> str:
        answer = await self._qemu.ask("query-migrate")
        return f"QEMU says {how}" + (f": {answer['error-desc']}" if answer.get("error-desc") else "")
