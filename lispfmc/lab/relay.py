"""The controller's page for a browser: HTTP on loopback, relayed to the lab's unix socket, behind tokens of its own.

A lab's daemons listen on unix sockets, which ask for no token because only root reaches them; a port is reached by
everybody on the machine. Where a controller listens on a port itself, nobody needs this.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from aiohttp import web

from lispfmc.lab.configs import write_private
from lispfmc.runtime.access import Access, Role
from lispfmc.runtime.config import endpoint_of
from lispfmc.wire.address import ip_text
from lispfmc.wire.errors import LocalError

TOKENS: tuple[Role, ...] = ("read", "operate")
_PASSED = ("Accept", "Content-Type", "If-None-Match", "Last-Event-ID")
_ANSWERED = ("Content-Type", "ETag", "Cache-Control", "Content-Security-Policy", "X-Content-Type-Options")


def tokens(folder: Path) -> dict[Role, str]:
    """The page's tokens by role, made when they are first asked for; for the owner of the lab only."""
    found: dict[Role, str] = {}
    for role in TOKENS:
        path = folder / f"page-{role}.token"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24))
        found[role] = path.read_text().strip()
    return found


class Relay:
    """`start` and `close`, in a running event loop."""

    def __init__(self, socket: Path, known: Mapping[Role, str]) -> None:
        self._socket = socket
        self._access = Access([(token, role) for role, token in known.items()])
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    async def start(self, listen: str) -> str:
        """Listen at "address:port" (port 0: any that is free); returns the URL. Raises LocalError."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._socket)), timeout=timeout)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._relay)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        endpoint = endpoint_of(listen)
        try:
            await web.TCPSite(self._runner, ip_text(endpoint.ip), endpoint.port).start()
        except OSError as error:
            await self.close()
            raise LocalError(f"{listen}: cannot listen, {error.strerror}; choose another with --listen") from error
        host, port = self._runner.addresses[0][:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refusal(request):
            return refusal
        assert self._session is not None, "requests come after the start"
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        url = f"http://controller{request.rel_url}"
        body = await request.read()
        answer = None
        try:
            async with self._session.request(request.method, url, headers=headers, data=body or None) as source:
                kept = {name: source.headers[name] for name in _ANSWERED if name in source.headers}
                answer = web.StreamResponse(status=source.status, headers=kept)
                await answer.prepare(request)
                async for part in source.content.iter_any():
                    await answer.write(part)
                await answer.write_eof()
        except (aiohttp.ClientError, TimeoutError, OSError):
            if answer is None:
                return _error(502, "the controller does not answer", "it is not running, or starts", "lispfmc status")
        return answer

    def _refusal(self, request: web.Request) -> web.Response | None:
        if not request.path.startswith("/v1/") and request.path != "/metrics":
            return None  # the page itself: it has to ask for whatever it shows
        role = self._access.role(request.headers.get("Authorization", ""))
        needed: Role = "read" if request.method in {"GET", "HEAD"} else "operate"
        if role is None:
            return _error(401, "not authorised", "no valid token", "take the URL that `lispfmc page` prints")
        if not Access.suffices(role, needed):
            return _error(403, "not allowed", f"the token's role is {role}", f"use one whose role is {needed}")
        return None


def _error(status: int, what: str, why: str, do: str) -> web.Response:
    return web.json_response({"error": {"what": what, "why": why, "do": do}}, status=status)
