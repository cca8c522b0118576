"""The metrics of the labs on this machine, for one Prometheus: which daemons there are, and each one's own answer.

A lab's daemons answer on unix sockets, which Prometheus cannot scrape. It asks `/targets` (its `http_sd_configs`) and
is sent to `/metrics/LAB/NAME`, which asks that daemon. One that does not answer is a 502: `up` is each daemon's own.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from lispfmc.lab.installation import Daemon, NotUp, load, running
from lispfmc.runtime.client import ApiError, Unreachable
from lispfmc.runtime.config import endpoint_of
from lispfmc.runtime.metrics import CONTENT_TYPE
from lispfmc.wire.address import ip_text
from lispfmc.wire.errors import LocalError

LISTEN = "127.0.0.1:9340"
TIMEOUT_S = 5.0  # of one daemon; Prometheus waits 10 s


class Exposition:
    """An HTTP server without state: labs may come and go. `start` raises LocalError; `close` ends it."""

    def __init__(self, only: str | None = None) -> None:
        """`only` this lab; None: all of them."""
        self._only = only
        self._app = web.Application()
        self._app.add_routes([web.get("/targets", self._targets), web.get("/metrics/{lab}/{daemon}", self._metrics)])
        self._runner = web.AppRunner(self._app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def start(self, listen: str) -> int:
        """Listen at "address:port"; returns the port."""
        endpoint = endpoint_of(listen)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, ip_text(endpoint.ip), endpoint.port).start()
        except OSError as error:
            await self.close()
            raise LocalError(f"{listen}: cannot listen, {error}; free it or choose another --listen") from error
        port: int = self._runner.addresses[0][1]
        return port

    async def close(self) -> None:
        await self._runner.cleanup()

    def targets(self, host: str) -> list[dict[str, Any]]:
        """Prometheus' list of targets; `host` is how it reaches us."""
        return [
            {
                "targets": [host],
                "labels": {
                    "__metrics_path__": f"/metrics/{lab}/{daemon.name}",
                    "instance": daemon.name,
                    "daemon": daemon.role,
                    "lab": lab,
                },
            }
            for lab in self._labs()
            for daemon in load(lab).daemons
        ]

    def _labs(self) -> list[str]:
        return [name for name in running() if self._only in (None, name)]

    async def _targets(self, request: web.Request) -> web.Response:
        return web.json_response(self.targets(request.host))

    async def _metrics(self, request: web.Request) -> web.Response:
        lab, name = request.match_info["lab"], request.match_info["daemon"]
        daemon = self._daemon(lab, name)
        if daemon is None:
            raise web.HTTPNotFound(text=f"no daemon {name} in a lab {lab} here; see /targets\n")
        try:
            async with daemon.client(timeout_s=TIMEOUT_S) as api:
                text: str = await api.get("/metrics")
        except (Unreachable, ApiError) as error:
            raise web.HTTPBadGateway(text=f"{error}\n") from error
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    def _daemon(self, lab: str, name: str) -> Daemon | None:
        try:
            daemons = load(lab).daemons if lab in self._labs() else []
        except NotUp:  # it has just gone down
            return None
        return next((each for each in daemons if each.name == name), None)
