"""What systemd hears of a daemon; a socket of our own plays the manager."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lispfmc.runtime import service, supervision


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def heard(manager: socket.socket) -> list[str]:
    """Everything that was said until now."""
    said = []
    manager.setblocking(False)
    try:
        while True:
            said.append(manager.recv(100).decode())
    except BlockingIOError:
        return said


def test_a_daemon_says_that_it_is_up_and_then_that_it_ends(manager: socket.socket, tmp_path: Path) -> None:
    async def run(_path: Path) -> None:
        service.settle()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    assert service.main(run, "d", argv=["--config", str(tmp_path)]) == service.EXIT_OK
    assert heard(manager) == ["READY=1", "STOPPING=1"]


def test_a_watched_daemon_says_that_its_loop_turns(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))

    async def run() -> list[bytes]:
        async with supervision.watched():
            return [await asyncio.to_thread(manager.recv, 100) for _ in range(3)]

    assert asyncio.run(run()) == [b"WATCHDOG=1"] * 3


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "2000", "WATCHDOG_PID": "1"}],
)
def test_who_is_not_watched_says_nothing(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert supervision.watchdog_s() is None


def test_a_manager_that_went_away_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not supervision.tell("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not supervision.tell("READY=1")
