"""Log lines wait for packets, but not for long, and warnings do not."""

from __future__ import annotations

import asyncio
import io
import logging

from lispfmc.runtime.logs import LATER_S, Later


def line(text: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("event", level, "", 0, text, None, None)


def test_a_line_is_written_at_once_where_no_loop_runs() -> None:
    stream = io.StringIO()
    Later(stream).emit(line("started"))
    assert stream.getvalue() == "started\n"


def test_lines_wait_while_the_loop_has_other_work_and_keep_their_order() -> None:
    async def scene() -> tuple[str, str]:
        stream = io.StringIO()
        handler = Later(stream)
        for text in ("one", "two"):
            handler.emit(line(text))
        at_once = stream.getvalue()
        await asyncio.sleep(2 * LATER_S)
        return at_once, stream.getvalue()

    assert asyncio.run(scene()) == ("", "one\ntwo\n")


def test_a_warning_waits_for_nothing_and_follows_what_was_said_before() -> None:
    async def scene() -> str:
        stream = io.StringIO()
        handler = Later(stream)
        handler.emit(line("one"))
        handler.emit(line("look out", logging.WARNING))
        return stream.getvalue()

    assert asyncio.run(scene()) == "one\nlook out\n"


def test_what_waits_is_written_when_the_log_is_closed() -> None:
    async def scene() -> str:
        stream = io.StringIO()
        handler = Later(stream)
        handler.emit(line("last words"))
        handler.flush()
        return stream.getvalue()

    assert asyncio.run(scene()) == "last words\n"
