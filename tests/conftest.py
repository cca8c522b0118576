"""What a test needs of the machine, said by its marker; what is missing skips it with the reason.

With CI=true a skipped test fails the run: there, everything that a test needs is the script's business to provide.
An error that asyncio could only log (an exception in a task that nobody awaited) fails the test that caused it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO

import hypothesis
import pytest

# how long an example takes says how busy the machine is, and nothing about the code
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

TUN_DEVICE = Path("/dev/net/tun")
_held: list[IO[str]] = []  # the machine's lock, until this process ends


def _works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@cache
def no_namespaces() -> str | None:
    """Why this process cannot build the lab, or None when it can."""
    if os.geteuid() != 0:
        return "needs root for network namespaces: sudo make test"
    if not _works("unshare", "--net", "--mount", "true"):
        return "this machine does not let root create network namespaces (a container without CAP_SYS_ADMIN?)"
    if not TUN_DEVICE.exists():
        return f"the kernel offers no {TUN_DEVICE}"
    return None


@cache
def compose_command() -> tuple[str, ...] | None:
    """The compose program: version 2 as the engine's plugin, or the older one of its own."""
    return next((c for c in (("docker", "compose"), ("docker-compose",)) if _works(*c, "version")), None)


@cache
def no_compose() -> str | None:
    """Why the compose lab cannot run here, or None when it can."""
    if not _works("docker", "info"):
        return "no Docker engine answers (DOCKER_HOST, or the default socket)"
    if compose_command() is None:
        return "neither `docker compose` nor `docker-compose` is installed"
    return None


@cache
def no_tshark() -> str | None:
    return None if shutil.which("tshark") else "tshark is not installed"


@cache
def no_browser() -> str | None:
    """Why no page can be opened here, or None when one can."""
    if not shutil.which("chromium"):
        return "chromium is not installed"
    return None if importlib.util.find_spec("playwright") else "playwright is not installed"


def prometheus_command(name: str) -> tuple[str, ...]:
    """`prometheus` or `promtool`: the system's, or what set-up unpacked; empty when there is neither."""
    unpacked = Path(__file__).resolve().parents[1] / "build/prometheus/usr/bin" / name
    found = shutil.which(name) or (str(unpacked) if unpacked.exists() else None)
    return (found,) if found else ()


@cache
def no_prometheus() -> str | None:
    return (
        None if prometheus_command("prometheus") and prometheus_command("promtool") else "prometheus is not installed"
    )


NEEDS = {
    "namespaces": no_namespaces,
    "compose": no_compose,
    "prometheus": no_prometheus,
    "tshark": no_tshark,
    "browser": no_browser,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here, and run what needs the whole machine after the quick tests."""
    for item in items:
        for marker, reason_not in NEEDS.items():
            if item.get_closest_marker(marker) and (reason := reason_not()):
                item.add_marker(pytest.mark.skip(reason=reason))
    # by the file's markers only: a file whose tests share one lab stays together
    whole_machine = ("namespaces", "compose")
    items.sort(key=lambda item: sum(item.get_closest_marker(marker) is not None for marker in whole_machine))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Namespaces are the machine's: a second run, in another checkout, waits, else each takes the other's labs down."""
    if _held or not item.get_closest_marker("namespaces") or no_namespaces():
        return
    lock = (Path(tempfile.gettempdir()) / "lispfmc-tests.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    _held.append(lock)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("CI=true, and tests were skipped: that fails the run.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(scope="session")
def compose_program() -> tuple[str, ...]:
    program = compose_command()
    assert program is not None
    return program


@pytest.fixture(autouse=True)
def _asyncio_errors_fail() -> Iterator[None]:
    """`Task exception was never retrieved` and the like are bugs that would otherwise only be printed."""
    handler, logger = _Errors(), logging.getLogger("asyncio")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert not handler.lines, "asyncio logged:\n" + "\n".join(handler.lines)
