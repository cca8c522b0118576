"""Waits until daemons and node agents answer, and says which one does not and why."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lispfmc.lab.entrance import inside
from lispfmc.lab.installation import Daemon, Installation, NodeEntry
from lispfmc.wire.errors import LocalError

_TIMEOUT = 2.0
_LINES = 5


def why_not_ready(daemon: Daemon) -> str | None:
    """None when the daemon's /readyz says so, else what is missing."""
    try:
        connected = _connect(daemon)
        with connected:
            request = http.client.HTTPConnection("lab", timeout=_TIMEOUT)
            request.sock = connected
            request.request("GET", "/readyz")
            answer = request.getresponse()
            body = answer.read(65536).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer ({error})"
    return None if answer.status == 200 else f"not ready: {body.strip()}"


def _connect(daemon: Daemon) -> socket.socket:
    if daemon.api.startswith("unix:"):
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(_TIMEOUT)
        connected.connect(daemon.api.removeprefix("unix:"))
        return connected
    host, _, port = daemon.api.rpartition(":")
    address = (host.strip("[]"), int(port))
    if daemon.namespace is None:
        return socket.create_connection(address, _TIMEOUT)
    return inside(daemon.namespace, lambda: socket.create_connection(address, _TIMEOUT))


def ask_node(node: NodeEntry, request: dict[str, Any]) -> dict[str, Any]:
    """One request to a node's agent. Raises LocalError with the agent's reason, OSError when it does not answer."""
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(_TIMEOUT)
        connected.connect(node.socket)
        connected.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(connected.makefile().readline() or "{}")
    if not answer.get("ok"):
        raise LocalError(f"{node.name}: {answer.get('error', 'no answer')}")
    return answer


def why_not_answering(node: NodeEntry) -> str | None:
    try:
        ask_node(node, {"do": "status"})
    except (OSError, ValueError) as error:
        return f"does not answer ({error})"
    return None


def wait_until_ready(lab: Installation, seconds: float, ended: Callable[[], list[str]] = list) -> None:
    """Return when all daemons are ready and all nodes answer. `ended` names processes that are gone.

    Raises LocalError when one ended or the time is over.
    """
    until = time.monotonic() + seconds
    waiting: dict[str, Callable[[], str | None]] = {
        **{daemon.name: lambda d=daemon: why_not_ready(d) for daemon in lab.daemons},  # type: ignore[misc]
        **{node.name: lambda n=node: why_not_answering(n) for node in lab.nodes},  # type: ignore[misc]
    }
    reasons: dict[str, str] = {}
    while waiting:
        for name, ask in list(waiting.items()):
            reason = ask()
            if reason is None:
                del waiting[name]
            else:
                reasons[name] = reason
        if gone := ended():
            raise LocalError("\n".join(f"{name} ended: {last_words(lab.folder, name)}" for name in gone))
        if waiting and time.monotonic() > until:
            raise LocalError(
                "\n".join(f"{name} is not up after {seconds:g} s, {reasons[name]}; see its log" for name in waiting)
            )
        time.sleep(0.02)


def last_words(folder: Path, name: str) -> str:
    """The end of a process's log."""
    path = folder / "logs" / f"{name}.log"
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return "\n  ".join([f"the end of {path}:", *lines[-_LINES:]])
