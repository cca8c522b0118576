"""One QEMU process and the conversation with it by QMP (the `qemu.qmp` package).

The process is a daemon of its own: it outlives the agent, which finds it again by its socket. Every command has a time
limit, because a hypervisor that hangs keeps its socket open; every failure becomes a `QemuError` that says which
machine and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, QMPClient, QMPError, Runstate

from lispfmc.wire.errors import LocalError

ANSWER_S = 5.0
LAUNCH_S = 20.0
QUIT_S = 1.0
"""How long QEMU may take to end when it is asked to; then it is killed."""
_EVENTS = ("STOP", "RESUME", "MIGRATION")
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # what goes wrong is raised, and told by us


class QemuError(LocalError):
    """QEMU does not do what it was asked, hangs, or has died."""


class Told:
    """An event of QEMU. `at_ns` is CLOCK_MONOTONIC, reckoned from QEMU's own time stamp."""

    def __init__(self, message: Any) -> None:
        self.name = str(message["event"])
        self.data: dict[str, Any] = dict(message.get("data") or {})
        stamp = message["timestamp"]
        happened_ns = int(stamp["seconds"]) * 10**9 + int(stamp["microseconds"]) * 1000
        # wall clock to monotonic: what has passed since, and never in the future
        self.at_ns = time.monotonic_ns() - max(0, time.time_ns() - happened_ns)


class Qemu:
    """A running QEMU that we are connected to."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._socket = socket_of(name, folder)
        self._pid_file = folder / f"{name}.pid"
        self._client = QMPClient(name)
        self._listener = self._listen()

    @classmethod
    async def launch(cls, name: str, folder: Path, command: Sequence[str]) -> Qemu:
        """Start `command` as a daemon and connect to it. Raises QemuError with QEMU's own words."""
        qemu = cls(name, folder)
        options = ["-qmp", f"unix:{qemu._socket},server=on,wait=off", "-daemonize", "-pidfile", str(qemu._pid_file)]
        output = folder / f"{name}.out"
        with output.open("wb") as out:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command, *options, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out
                )
            except OSError as error:
                raise QemuError(f"QEMU of {name} does not start: {error}; is {command[0]} there?") from error
        try:
            async with asyncio.timeout(LAUNCH_S):
                code = await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise QemuError(f"QEMU of {name} has not started within {LAUNCH_S:g} s") from None
        if code != 0:
            words = output.read_text(errors="replace").strip().splitlines()[-3:]
            raise QemuError(f"QEMU of {name} does not start: {' '.join(words) or f'exit code {code}'}")
        await qemu.connect()
        return qemu

    def lives(self) -> bool:
        """Whether the process is there."""
        try:
            return _is_ours(int(self._pid_file.read_text()), self._pid_file)
        except (OSError, ValueError):
            return False

    async def connect(self) -> None:
        """Raises QemuError."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._client.connect(str(self._socket))
        except (QMPError, OSError, TimeoutError, EOFError) as error:
            raise QemuError(f"QEMU of {self.name} cannot be reached at {self._socket}: {_text(error)}") from error

    async def ask(self, command: str, within_s: float = ANSWER_S, **arguments: Any) -> Any:
        """QEMU's answer. Raises QemuError."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        try:
            async with asyncio.timeout(within_s):
                return await self._client.execute(command, named or None)
        except TimeoutError:
            raise QemuError(f"QEMU of {self.name} hangs: no answer to {command} in {within_s:g} s") from None
        except (QMPError, OSError, EOFError) as error:
            raise QemuError(f"QEMU of {self.name}: {command}: {_text(error)}") from error

    async def next_event(self, within_s: float) -> Told | None:
        """The next event, None when there is none in time. Raises QemuError when QEMU has died."""
        try:
            async with asyncio.timeout(within_s):
                return Told(await self._next())
        except TimeoutError:
            return None

    async def _next(self) -> Any:
        if not self._listener.empty():
            return await self._listener.get()
        if self._client.runstate is not Runstate.RUNNING:
            raise QemuError(f"QEMU of {self.name} has died")
        told = asyncio.ensure_future(self._listener.get())
        ended = asyncio.ensure_future(self._client.runstate_changed())
        try:
            await asyncio.wait({told, ended}, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                return told.result()
            raise QemuError(f"QEMU of {self.name} has died")
        finally:
            told.cancel()
            ended.cancel()

    def forget_events(self) -> None:
        """Those that came before a migration."""
        self._client.remove_listener(self._listener)
        self._listener = self._listen()  # a new one: a listener keeps all that it ever heard

    def _listen(self) -> EventListener:
        listener = EventListener(_EVENTS)
        self._client.register_listener(listener)
        return listener

    async def status(self, within_s: float = ANSWER_S) -> str:
        """ "running", "inmigrate", "postmigrate", ... Raises QemuError."""
        return str((await self.ask("query-status", within_s))["status"])

    async def close(self) -> None:
        """End the conversation; the machine goes on."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(QUIT_S):
                await self._client.disconnect()

    async def end(self) -> None:
        """End QEMU and the machine in it, by force if it does not listen."""
        with contextlib.suppress(QemuError):
            await self.ask("quit", within_s=QUIT_S)
        await self.close()
        await end_leftover(self.name, self._socket.parent)


def socket_of(name: str, folder: Path) -> Path:
    return folder / f"{name}.qmp"


async def end_leftover(name: str, folder: Path) -> None:
    """End the QEMU whose pid file is there, if it is still that process, and remove its files."""
    pid_file = folder / f"{name}.pid"
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if _is_ours(pid, pid_file):
            os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + QUIT_S
        while _is_ours(pid, pid_file):
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.02)
    for path in (pid_file, socket_of(name, folder)):
        path.unlink(missing_ok=True)


def _is_ours(pid: int, pid_file: Path) -> bool:
    """Whether the process is alive and is the one that was told to write this pid file."""
    try:
        dead = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        return not dead and str(pid_file) in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return False


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
