"""Exit codes that scripts can rely on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from lispfmc.runtime import service
from lispfmc.runtime.client import Unreachable
from lispfmc.runtime.config import LogSettings, load
from lispfmc.wire.errors import LocalError


def config(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "log.toml"
    file.write_text(text)
    return ["--config", str(file)]


async def stops_itself(_path: Path) -> None:
    """As the service manager would: SIGTERM, and the clean-up runs."""
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.Event().wait()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "auto"])
def test_a_signal_ends_the_daemon_well(tmp_path: Path, loop: str) -> None:
    cleaned: list[str] = []

    async def run(path: Path) -> None:
        try:
            await stops_itself(path)
        finally:
            await asyncio.sleep(0)
            cleaned.append(path.name)

    assert service.main(run, "d", argv=[*config(tmp_path, ""), "--loop", loop]) == service.EXIT_OK
    assert cleaned == ["log.toml"]


def test_a_bad_configuration_is_78_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def check(path: Path) -> object:
        return load(path, LogSettings)

    argv = config(tmp_path, 'level = "loud"\n')
    assert service.main(stops_itself, "d", check=check, argv=argv) == service.EXIT_CONFIG
    assert "log.toml:1:1: level = 'loud'" in capsys.readouterr().err
    assert service.main(stops_itself, "d", check=check, argv=[*config(tmp_path, ""), "--check"]) == service.EXIT_OK


@pytest.mark.parametrize(("error", "code"), [(LocalError("x"), 78), (Unreachable("x"), 2)])
def test_what_the_daemon_meets_decides_the_code(tmp_path: Path, error: Exception, code: int) -> None:
    async def run(_path: Path) -> None:
        raise error

    assert service.main(run, "d", argv=config(tmp_path, "")) == code


def test_what_is_raised_within_a_task_group_is_said_as_plainly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(_path: Path) -> None:
        async with asyncio.TaskGroup(), asyncio.TaskGroup():
            raise LocalError("the port is taken; choose another")

    assert service.main(run, "d", argv=config(tmp_path, "")) == service.EXIT_CONFIG
    assert capsys.readouterr().err == "the port is taken; choose another\n"


def test_a_bug_within_a_task_group_is_no_configuration_error(tmp_path: Path) -> None:
    async def run(_path: Path) -> None:
        async with asyncio.TaskGroup():
            raise KeyError("x")

    with pytest.raises(ExceptionGroup):
        service.main(run, "d", argv=config(tmp_path, ""))


def test_wrong_usage_is_64(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        service.main(stops_itself, "d", argv=["--nonsense"])
    assert exit_.value.code == service.EXIT_USAGE
    assert "see --help" in capsys.readouterr().err
