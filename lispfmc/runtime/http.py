"""A daemon's HTTP API: health, readiness, metrics, status, the event stream, and what the daemon adds.

Errors are `{"error": {"what", "why", "do"}}`. Listens on loopback or a unix socket (mode 0600) unless configured
otherwise; with tokens, everything under /v1 asks for one whose role suffices. /v1/openapi.json describes every route.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
from aiohttp import web

import lispfmc
from lispfmc.runtime import logs, openapi
from lispfmc.runtime.access import Access, Role
from lispfmc.runtime.config import ApiSettings, Level, endpoint_of
from lispfmc.runtime.events import GAP, Event, EventLog
from lispfmc.runtime.metrics import CONTENT_TYPE, Metrics
from lispfmc.runtime.openapi import Operation
from lispfmc.runtime.rejects import Rejects
from lispfmc.wire.address import ip_text
from lispfmc.wire.errors import LocalError

Json: TypeAlias = Any
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

KEEP_ALIVE = 15.0  # seconds between comments on a quiet event stream, so that both ends notice a dead one
SLOW_CLIENT = 10.0  # seconds that one write to an event stream may take before the client is dropped
TOGETHER = 64  # events in one write
SEEN_EVERY = 1.0  # seconds between the marks that a running daemon leaves on its unix socket
STREAMS = 64  # event streams at a time
_EVENT_ID = re.compile(r"[0-9]{1,19}")
RETRY_MS = 1000
"""What the event stream tells clients to wait before they come back."""


class Refused(Exception):  # noqa: N818 - raised by handlers, reads as the answer it becomes
    """Raised by a handler: the request is answered with `status` and what, why, what to do."""

    def __init__(self, what: str, *, why: str = "", do: str = "", status: int = 400) -> None:
        super().__init__(what)
        self.status = status
        self.body = {"error": {"what": what, "why": why, "do": do}}


B = TypeVar("B")
Q = TypeVar("Q")


class Call(msgspec.Struct, Generic[B, Q], frozen=True):
    """A request as its handler sees it: what stands in the path, the query and the body, as the declared types."""

    path: Mapping[str, str]
    query: Q
    body: B


class EventsQuery(msgspec.Struct, frozen=True):
    """From which event id on; 0: all that are kept. The Last-Event-ID header says the same."""

    after: int | None = None


class LogRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From which level on to log."""

    level: Level


class LogChange(msgspec.Struct, frozen=True):
    """From which level on the daemon logs, and did before."""

    level: Level
    before: Level


class Api:
    """One aiohttp application. Add routes and metrics before `start`."""

    def __init__(
        self,
        daemon: str,
        name: str,
        events: EventLog,
        rejects: Rejects,
        status: Callable[[], dict[str, Json]],
        not_ready: Callable[[], list[str]],
        *,
        token: str | None = None,
        settings: ApiSettings | None = None,
        status_type: Any = None,
    ) -> None:
        """Who may use it is what `settings` say; `token` is one that may do everything. `status_type` is what `status`
        returns, for the description."""
        self.metrics = Metrics(events, rejects)
        self.metrics.daemon(daemon, name, not_ready)
        self._daemon = daemon
        self._name = name
        self._events = events
        self._rejects = rejects
        self._status = status
        self._not_ready = not_ready
        self._settings = settings
        self._access = Access([(token, "operate")]) if token is not None else (settings or ApiSettings()).access()
        self._roles: dict[tuple[str, str], Role | None] = {}
        self.operations: list[Operation] = []
        self._started = time.monotonic()
        self._streams: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._unix_path: Path | None = None
        self._marking: asyncio.Task[None] | None = None
        self.port: int | None = None
        self._app = web.Application(middlewares=[self._guard])
        for path, handler, answers in (
            ("/healthz", self._healthz, openapi.Health),
            ("/readyz", self._readyz, openapi.Readiness),
            ("/metrics", self._metrics, None),
        ):
            media = "text/plain" if answers is None else "application/json"
            self._add(handler, Operation("GET", path, answers=answers, role=None, media=media))
        stream = Operation("GET", "/v1/events", "Every event from now on, or from an id on", media="text/event-stream")
        self._add(self._stream, msgspec.structs.replace(stream, query=EventsQuery, refuses=(400, 503)))
        whole = openapi.DaemonStatus if status_type is None else (openapi.DaemonStatus, status_type)
        self.get("/v1/status", self._whole_status, answers=whole, summary="What the daemon says of itself")
        self.get("/v1/rejects", self._whole_rejects, answers=openapi.RejectCounts, summary="Refused packets")
        self.get("/v1/log", self._log, answers=LogRequest, summary="From which level on it logs")
        change = Operation("POST", "/v1/log", "Log from this level on", LogChange, takes=LogRequest, role="operate")
        self.serve(change, self._set_log)
        self.get("/v1/openapi.json", self.document, summary="This description of the API")

    def document(self) -> Json:
        """The OpenAPI document of every route that was added."""
        return openapi.document(f"lispfmc {self._daemon}", lispfmc.__version__, self.operations)

    def _add(self, handler: Handler, operation: Operation) -> None:
        self._app.router.add_route(operation.method, operation.path, handler)
        self._roles[operation.method, operation.path] = operation.role
        self.operations.append(operation)

    def serve(self, operation: Operation, act: Callable[[Call[Any, Any]], Awaitable[Json]]) -> None:
        """The route answers with what `await act(call)` returns, as JSON."""

        async def handle(request: web.Request) -> web.StreamResponse:
            body = None if operation.takes is None else await _body(request, operation.takes)
            query = None if operation.query is None else _query(request, operation.query)
            return _json(await act(Call(request.match_info, query, body)))

        self._add(handle, operation)

    def get(self, path: str, answer: Callable[[], Json], *, answers: Any = None, summary: str = "") -> None:
        """GET `path` answers with what `answer()` returns, as JSON."""

        async def handle(_request: web.Request) -> web.StreamResponse:
            return _json(answer())

        self._add(handle, Operation("GET", path, summary, answers))

    def ask(self, path: str, answer: Callable[[], Awaitable[Json]], *, answers: Any = None, summary: str = "") -> None:
        """GET `path` answers with what `await answer()` returns, as JSON."""

        async def handle(_request: web.Request) -> web.StreamResponse:
            return _json(await answer())

        self._add(handle, Operation("GET", path, summary, answers))

    def query(self, path: str, answer: Callable[[Mapping[str, str]], Json]) -> None:
        """GET `path?name=value` answers with what `answer({name: value})` returns, as JSON."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return _json(answer(request.query))

        self._add(handle, Operation("GET", path))

    def post(self, path: str, act: Callable[[dict[str, Json]], Awaitable[Json]]) -> None:
        """POST `path` with a JSON object answers with what `await act(object)` returns, as JSON."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return _json(await act(await _body(request, dict[str, Any])))

        self._add(handle, Operation("POST", path, takes=dict[str, Any], role="operate"))

    def asset(self, path: str, body: bytes, media: str) -> None:
        """GET `path` answers with these bytes, to everybody: a page, which has to ask for whatever it shows."""
        etag = f'"{sha256(body).hexdigest()[:16]}"'
        headers = {
            "Content-Type": media,
            "ETag": etag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
        }

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.headers.get("If-None-Match") == etag:
                return web.Response(status=304, headers={"ETag": etag})
            return web.Response(body=body, headers=headers)

        self._add(handle, Operation("GET", path, "A file of the page", role=None, media=media.split(";")[0]))

    async def start(self, listen: str) -> None:
        """Listen at "unix:/path" or "address:port". Raises LocalError when that cannot be had."""
        tls: ssl.SSLContext | None = None if self._settings is None else self._settings.tls()
        self._runner = web.AppRunner(self._app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            if listen.startswith("unix:"):
                await self._listen_unix(self._runner, Path(listen.removeprefix("unix:")))
            else:
                endpoint = endpoint_of(listen)
                site = web.TCPSite(self._runner, ip_text(endpoint.ip), endpoint.port, ssl_context=tls)
                await site.start()
                self.port = self._runner.addresses[0][1]
        except OSError as error:
            await self._runner.cleanup()
            raise LocalError(f"API {listen}: cannot listen, {error}; free it or choose another [api] listen") from error

    async def _listen_unix(self, runner: web.AppRunner, path: Path) -> None:
        _clear(path)
        before = os.umask(0o177)
        try:
            await web.UnixSite(runner, str(path)).start()
        finally:
            os.umask(before)
        self._unix_path = path
        self._marking = asyncio.create_task(self._mark(path), name="mark")

    async def _mark(self, path: Path) -> None:
        """A socket that a killed daemon leaves behind says by its time when it was last alive."""
        while True:
            await asyncio.sleep(SEEN_EVERY)
            with contextlib.suppress(OSError):  # somebody has removed it
                os.utime(path)

    async def close(self) -> None:
        """Stop listening; event streams end. Safe to call more than once."""
        if self._marking is not None:
            self._marking.cancel()
            self._marking = None
        for stream in list(self._streams):
            stream.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._unix_path is not None:
            self._unix_path.unlink(missing_ok=True)
            self._unix_path = None

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._authorise(request)
            return await handler(request)
        except Refused as refused:
            return _json(refused.body, status=refused.status)
        except web.HTTPNotFound:
            return _json(Refused(f"no {request.path} here", do="GET /v1/status").body, status=404)
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            return _json(
                Refused(f"{request.path} does not take {request.method}", do=f"use {allowed}").body, status=405
            )
        except web.HTTPRequestEntityTooLarge as error:
            return _json(Refused("the request is too large", why=str(error.text), do="send less").body, status=413)
        except web.HTTPException:
            raise
        except LocalError as error:
            return _json(Refused(str(error)).body, status=400)
        except Exception as error:
            self._rejects.bug(error, doing=f"{request.method} {request.path}")
            return _json(Refused("internal error", why=repr(error), do="see the daemon's log").body, status=500)

    def _authorise(self, request: web.Request) -> None:
        if not self._access.asks or not request.path.startswith("/v1/"):
            return
        role = self._access.role(request.headers.get("Authorization", ""))
        if role is None:
            raise Refused("not authorised", why="no valid token", do="send Authorization: Bearer TOKEN", status=401)
        resource = request.match_info.route.resource
        # what is not there, or not with this method, is answered so to everybody with a token
        needed = None if resource is None else self._roles.get((request.method, resource.canonical))
        if needed is not None and not self._access.suffices(role, needed):
            why, do = f"your token is for {role}, this takes {needed}", f"use a token with the role {needed}"
            raise Refused("not allowed", why=why, do=do, status=403)

    async def _healthz(self, _request: web.Request) -> web.StreamResponse:
        return _json({"healthy": True})

    async def _readyz(self, _request: web.Request) -> web.StreamResponse:
        missing = self._not_ready()
        return _json({"ready": not missing, "missing": missing}, status=503 if missing else 200)

    async def _metrics(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    def _whole_status(self) -> Json:
        return {
            "daemon": self._daemon,
            "name": self._name,
            "version": lispfmc.__version__,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started, 3),
            "not_ready": self._not_ready(),
            "last_event": self._events.last_id,
            "bugs": self._rejects.bugs,
            **self._status(),
        }

    def _log(self) -> Json:
        return {"level": logs.level()}

    async def _set_log(self, call: Call[LogRequest, None]) -> Json:
        before = logs.level()
        logs.set_level(call.body.level)
        if before != call.body.level:
            self._events.append("log.changed", {"level": call.body.level, "before": before})
        return LogChange(call.body.level, before)

    def _whole_rejects(self) -> Json:
        return {"counts": self._rejects.counts, "bugs": self._rejects.bugs, "items": self._rejects.recent()}

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events, resumable by Last-Event-ID (which a reconnecting client sets) or ?after=."""
        if len(self._streams) >= STREAMS:
            raise Refused("too many event streams", why=f"{STREAMS} are open", do="close some", status=503)
        after = _event_id(request.headers.get("Last-Event-ID") or request.query.get("after"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        pump = asyncio.create_task(self._pump(response, after))
        self._streams.add(pump)
        try:
            await pump
        except (TimeoutError, ConnectionError, asyncio.CancelledError):
            pump.cancel()
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._streams.discard(pump)
        return response

    async def _pump(self, response: web.StreamResponse, after: int | None) -> None:
        # the position is taken before the first byte is out: who has seen it misses nothing that follows
        after = self._events.last_id if after is None else after
        await _write(response, f": lispfmc {self._daemon} {self._name}\nretry: {RETRY_MS}\n\n")
        while True:
            fresh = self._events.since(after)
            for at in range(0, len(fresh), TOGETHER):
                await _write(response, "".join(map(_sse, fresh[at : at + TOGETHER])))
            if fresh:
                after = fresh[-1].id
            elif not await self._events.wait(KEEP_ALIVE):
                await _write(response, ": alive\n\n")


def _clear(path: Path) -> None:
    """Make way for a socket at `path`: one that a killed daemon left behind goes, a live one is an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise FileExistsError(0, "another daemon answers there")


async def _write(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(SLOW_CLIENT):
        await response.write(text.encode())


def _sse(event: Event) -> str:
    # a gap is no event of ours: without an id, so that the client's position stays that of a real one
    head = "" if event.name == GAP else f"id: {event.id}\n"
    return f"{head}event: {event.name}\ndata: {msgspec.json.encode(event).decode()}\n\n"


def _event_id(text: str | None) -> int | None:
    if text is None:
        return None
    if not _EVENT_ID.fullmatch(text):
        raise Refused(f"{text!r} is no event id", do="give the id of the last event you have seen, or 0")
    return int(text)


async def _body(request: web.Request, takes: Any) -> Any:
    """The request's JSON body as the type that the route takes. Raises Refused."""
    # asking for the type also keeps web pages of other origins from posting here
    if request.content_type != "application/json":
        why = f"its type is {request.content_type}"
        raise Refused("the body is not JSON", why=why, do="send application/json", status=415)
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=takes)
    except msgspec.ValidationError as error:
        raise Refused("not a valid request", why=str(error), do=_wanted(takes)) from error
    except (ValueError, RecursionError) as error:
        raise Refused("the body is not JSON", why=str(error), do="send one JSON object") from error


def _query(request: web.Request, query: Any) -> Any:
    try:
        return msgspec.convert(dict(request.query), query, strict=False)
    except msgspec.ValidationError as error:
        raise Refused("not a valid query", why=str(error), do="see GET /v1/openapi.json") from error


def _wanted(takes: Any) -> str:
    """What to send, in a person's words."""
    if not (isinstance(takes, type) and issubclass(takes, msgspec.Struct)):
        return "send one JSON object"
    fields = msgspec.structs.fields(takes)
    needed = ", ".join(each.encode_name for each in fields if each.required) or "nothing"
    other = ", ".join(each.encode_name for each in fields if not each.required)
    return f"send {needed}" + (f", and if you like {other}" if other else "") + "; see GET /v1/openapi.json"


def _json(value: Json, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
