"""Talks to a lab node's agent: one JSON line there, one JSON line back, over a unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from lispfmc.runtime.client import Unreachable
from lispfmc.wire.errors import LocalError


class NodeError(LocalError):
    """The node's agent could not do what it was asked, and says why."""


async def call(socket_path: str | Path, request: dict[str, Any], *, timeout_s: float = 15.0) -> dict[str, Any]:
    """The agent's answer to `request`. Raises Unreachable, or NodeError when the answer is not ok."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(str(socket_path), limit=16 << 20)
            try:
                writer.write(json.dumps(request).encode() + b"\n")
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        answer: dict[str, Any] = json.loads(line)
    except (OSError, TimeoutError, ValueError) as error:
        why = str(error) or type(error).__name__
        raise Unreachable(f"{socket_path}: the node's agent does not answer, {why}; is the lab up?") from error
    if not answer.get("ok"):
        raise NodeError(str(answer.get("error", "the node's agent refused without a reason")))
    return answer
