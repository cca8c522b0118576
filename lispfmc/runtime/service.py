"""What every daemon's `__main__` does: arguments, the event loop, signals, and exit codes that scripts can rely on."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NoReturn

import structlog

from lispfmc.runtime import supervision
from lispfmc.runtime.client import Unreachable
from lispfmc.wire.errors import LocalError

EXIT_OK = 0
EXIT_CONDITION = 1
EXIT_UNREACHABLE = 2
EXIT_USAGE = 64
EXIT_CONFIG = 78


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; see --help\n")


def parser(name: str, *, checks: bool) -> argparse.ArgumentParser:
    """What every daemon's command line takes."""
    parsing = _Parser(prog=name)
    parsing.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML configuration")
    parsing.add_argument("--loop", choices=("auto", "uvloop", "asyncio"), default="auto", help="event loop")
    if checks:
        parsing.add_argument("--check", action="store_true", help="check the configuration and exit")
    return parsing


def main(
    run: Callable[[Path], Awaitable[None]],
    name: str,
    *,
    check: Callable[[Path], object] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Run `run(config file)` until it ends or SIGTERM/SIGINT cancels it; returns the exit code.

    `check` loads the configuration, for `--check`, and raises LocalError when it is wrong.
    """
    arguments = parser(name, checks=check is not None).parse_args(argv)
    try:
        if check is not None:
            check(arguments.config)
            if arguments.check:
                sys.stderr.write(f"{arguments.config}: ok\n")
                return EXIT_OK
        with asyncio.Runner(loop_factory=loop_factory(arguments.loop)) as runner:
            runner.run(_until_signal(run(arguments.config)))
    except Unreachable as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_UNREACHABLE
    except (LocalError, PermissionError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    return EXIT_OK


def loop_factory(choice: str = "auto") -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it installs and is wanted, else None: asyncio's own."""
    if choice == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if choice == "uvloop":
            raise LocalError("uvloop is not installed; pip install uvloop, or use --loop asyncio") from None
        return None
    return uvloop.new_event_loop


def settle() -> None:
    """To be called when a daemon is up: the garbage collector never looks again at what was loaded until now, and a
    service manager hears that the daemon has started."""
    gc.collect()
    gc.freeze()
    supervision.tell("READY=1")


def prefer(priority: int) -> None:
    """Run before everything that is not real-time, and what has a lower priority (SCHED_FIFO)."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError as error:
        why = f"{error.strerror}; it needs CAP_SYS_NICE, or dataplane.realtime = 0"
        sys.stderr.write(f"no real-time scheduling here ({why}): under load, packets wait for other processes\n")


async def _until_signal(running: Awaitable[None]) -> None:
    """Cancellation is the shutdown path: a signal cancels, and the daemon's `finally` blocks clean up."""
    task = asyncio.ensure_future(running)
    loop = asyncio.get_running_loop()

    def stop(signum: signal.Signals) -> None:
        structlog.get_logger("service").info("daemon.stopping", signal=signum.name)
        supervision.tell("STOPPING=1")
        task.cancel()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            async with supervision.watched():
                await task
    except BaseExceptionGroup as group:
        if (cause := _for_people(group)) is None:
            raise
        raise cause from group
    finally:
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signum)


def _for_people(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """What a daemon says to people, out of the task group in which it was raised."""
    found: BaseException | None = group.subgroup((LocalError, PermissionError))
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
