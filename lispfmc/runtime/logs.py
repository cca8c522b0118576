"""Logs are events with fields, on stderr: for people on a terminal, one JSON object a line for programs.

The level can be changed while a daemon runs; the format is what it was started with.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from typing import TextIO, cast

import structlog
from structlog.typing import Processor

from lispfmc.runtime.config import Level, LogSettings

LATER_S = 0.02  # packets that wait for what the line tells of have gone by then
MOST_WAITING = 1000


class Later(logging.StreamHandler[TextIO]):
    """Lays out and writes a line some milliseconds after it was said, one each turn of the loop: a line costs as much
    as ten packets. Without a loop, from a warning upwards, and at the end of the process they are written at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: deque[logging.LogRecord] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None or record.levelno >= logging.WARNING or len(self._waiting) >= MOST_WAITING:
            self.flush()
            super().emit(record)
            return
        self._waiting.append(record)
        if len(self._waiting) == 1:
            loop.call_later(LATER_S, self._turn, loop)

    def flush(self) -> None:
        """Write what waits."""
        while self._waiting:
            super().emit(self._waiting.popleft())
        super().flush()

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting:
            super().emit(self._waiting.popleft())
        if self._waiting:
            loop.call_soon(self._turn, loop)


def configure(settings: LogSettings) -> None:
    """Set up structlog, and route what libraries say by `logging` through the same format."""
    shared: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    last: list[Processor]
    if _format(settings) == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    handler = Later(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(settings.level)
    for noisy in ("aiohttp.access", "asyncio", "pyroute2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def level() -> Level:
    """From which level on this process logs."""
    return cast(Level, logging.getLevelName(logging.getLogger().level).lower())


def set_level(wanted: Level) -> None:
    """Log from this level on, until it is changed again."""
    logging.getLogger().setLevel(wanted.upper())


def _format(settings: LogSettings) -> str:
    """People read terminals; what reads anything else is a program, or a person with one."""
    if settings.format != "auto":
        return settings.format
    return "console" if sys.stderr.isatty() else "json"
