"""Logs are events with fields, on stderr: for people on a terminal, one JSON object a line for programs.

The level can be changed while a daemon runs; the format is what it was started with.
"""

from __future__ import annotations

import logging
import sys
from typing import cast

import structlog
from structlog.typing import Processor

from lispfmc.runtime.config import Level, LogSettings


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
    handler = logging.StreamHandler(sys.stderr)
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
