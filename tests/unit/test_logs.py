"""Logs: console for people, JSON for programs, and a level that changes while the process runs."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from lispfmc.runtime import logs
from lispfmc.runtime.config import LogSettings
from lispfmc.runtime.events import EventLog


class Stream(io.StringIO):
    """stderr, which may be a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, configuration = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configuration)


def logged(monkeypatch: pytest.MonkeyPatch, settings: LogSettings, *, terminal: bool) -> Stream:
    stream = Stream(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(settings)
    return stream


@pytest.mark.parametrize(
    ("wanted", "terminal", "json_expected"),
    [("auto", True, False), ("auto", False, True), ("console", False, False), ("json", True, True)],
)
def test_people_get_lines_and_programs_get_json(
    monkeypatch: pytest.MonkeyPatch, *, wanted: str, terminal: bool, json_expected: bool
) -> None:
    stream = logged(monkeypatch, LogSettings.model_validate({"format": wanted}), terminal=terminal)
    EventLog(first_id=1).append("host.arrived", {"eid": "100.64.1.10/32"})
    (line,) = stream.getvalue().splitlines()
    if json_expected:
        said = json.loads(line)
        assert (said["event"], said["eid"], said["level"]) == ("host.arrived", "100.64.1.10/32", "info")
    else:
        assert "host.arrived" in line
        assert not line.startswith("{")


def test_the_level_changes_at_once_for_us_and_for_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = logged(monkeypatch, LogSettings(level="warning", format="json"), terminal=False)
    log = structlog.get_logger("test")
    log.info("one")
    logs.set_level("debug")
    assert logs.level() == "debug"
    log.debug("two")
    logging.getLogger("library").debug("three")
    logs.set_level("error")
    log.warning("four")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["two", "three"]
