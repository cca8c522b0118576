"""The lab's processes: started in a namespace, known by a pid file, ended only while they are still the same process.

A pid file holds the process id and the process's start time, so that a number that was given out anew is left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lispfmc.lab.entrance import WHERE

_SECONDS_TO_END = 3.0
_children: list[subprocess.Popen[bytes]] = []  # ours to wait for, should they end before us
_STATE, _START_TIME = 0, 19  # fields of /proc/PID/stat after the command name


@dataclass(frozen=True)
class Recorded:
    """A process as its pid file says."""

    name: str
    pid: int
    start_time: str

    @property
    def alive(self) -> bool:
        return _start_time(self.pid) == self.start_time


def start(name: str, module: str, arguments: list[str], namespace: str, folder: Path) -> Recorded:
    """Run `python -m module arguments` inside `namespace`; output goes to logs/NAME.log.

    The process waits for a line until its pid file is written, and ends when none comes: if we are killed in between,
    nothing runs that `down` does not know of.
    """
    command = ["nsenter", f"--net={WHERE / namespace}", sys.executable, "-m", module, *arguments]
    with (folder / "logs" / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own modules
            ["/bin/sh", "-c", 'read go && exec "$@" </dev/null', name, *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _children.append(process)
    recorded = Recorded(name, process.pid, _start_time(process.pid) or "")
    (folder / f"{name}.pid").write_text(f"{recorded.pid} {recorded.start_time}\n")
    assert process.stdin is not None
    with process.stdin as go:
        go.write(b"go\n")
    return recorded


def recorded(folder: Path) -> Iterator[Recorded]:
    """The processes that have a pid file."""
    for path in sorted(folder.glob("*.pid")):
        with contextlib.suppress(ValueError):  # cut short by a killed `up`: its process is found by its namespace
            pid, start_time = path.read_text().split()
            yield Recorded(path.stem, int(pid), start_time)


def living_in(namespaces: list[str]) -> list[Recorded]:
    """Every process that is in one of the namespaces, whoever started it there."""
    wanted = {_identity(WHERE / name) for name in namespaces if (WHERE / name).exists()}
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):  # ended meanwhile
                if _identity(path / "ns" / "net") in wanted and (start_time := _start_time(int(path.name))):
                    found.append(Recorded((path / "comm").read_text().strip(), int(path.name), start_time))
    return found


def end(processes: list[Recorded]) -> list[Recorded]:
    """SIGTERM, and SIGKILL for those that do not end; returns those that were alive."""
    alive = [process for process in processes if process.alive]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in alive:
            if process.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        until = time.monotonic() + _SECONDS_TO_END
        while any(process.alive for process in alive) and time.monotonic() < until:
            time.sleep(0.01)
    _children[:] = [child for child in _children if child.poll() is None]
    return alive


def _identity(namespace: Path) -> tuple[int, int]:
    found = namespace.stat()
    return found.st_dev, found.st_ino


def _start_time(pid: int) -> str | None:
    """When the process started, in clock ticks since boot; None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[_STATE] in "ZX" else fields[_START_TIME]
