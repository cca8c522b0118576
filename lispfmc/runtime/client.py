"""Client of the daemons' HTTP API, over a unix socket or TCP: for the command line, the lab and the controller."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from lispfmc.runtime.access import trust_context
from lispfmc.wire.errors import LocalError


class Unreachable(LocalError):  # noqa: N818 - reads as the answer that it is
    """Nobody answers at the address."""


class ApiError(LocalError):
    """The daemon refused the request and says why."""

    def __init__(self, status: int, what: str, why: str = "", do: str = "") -> None:
        super().__init__(", ".join(part for part in (what, why, do) if part))
        self.status = status
        self.what = what
        self.why = why
        self.do = do


class ApiClient:
    """`async with ApiClient("unix:/run/…/access1.sock") as api: await api.get("/v1/status")`.

    `listen` is "unix:/path", "address:port", or "https://name:port", whose certificate must be of `authority` (default:
    one that the system knows).
    """

    def __init__(
        self, listen: str, *, token: str | None = None, timeout_s: float = 10.0, authority: Path | None = None
    ) -> None:
        self.listen = listen
        self._authority = authority
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str) -> Any:
        """The JSON answer to GET `path`. Raises Unreachable or ApiError."""
        return await self._request("GET", path, None)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer to POST `path`. Raises Unreachable or ApiError."""
        return await self._request("POST", path, body)

    async def delete(self, path: str) -> Any:
        """The JSON answer to DELETE `path`. Raises Unreachable or ApiError."""
        return await self._request("DELETE", path, None)

    async def events(
        self,
        after: int | None = None,
        *,
        reconnect: bool = False,
        broken: Callable[[Unreachable], None] = lambda _: None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Events as {"id", "time", "name", "fields"}, after id `after` (None: from now on; 0: all that are kept).

        With `reconnect` the stream is taken up again where it broke, for ever, and `broken` hears of every attempt
        that fails; else it ends, or raises Unreachable.
        """
        while True:
            try:
                if reconnect and after is None:
                    after = int((await self.get("/v1/status"))["last_event"])
                async for event in self._stream(after):
                    after = int(event["id"])
                    yield event
            except Unreachable as error:
                if not reconnect:
                    raise
                broken(error)
                after = after or 0  # whatever a daemon says that was not there yet is new
            if not reconnect:
                return
            await asyncio.sleep(0.2)

    async def _stream(self, after: int | None) -> AsyncGenerator[dict[str, Any], None]:
        url = self._url("/v1/events") + ("" if after is None else f"?after={after}")
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout.total, sock_read=60)
        try:
            async with self._open().get(url, timeout=timeout, headers=self._headers) as response:
                if response.status >= 400:
                    raise _error(response.status, await response.read())
                async for line in response.content:
                    if line.startswith(b"data:"):
                        yield json.loads(line[5:])
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    async def _request(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            async with self._open().request(method, self._url(path), json=body, headers=self._headers) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        # not ready is an answer, not an error
        if response.status >= 400 and not (path == "/readyz" and response.status == 503):
            raise _error(response.status, answer)
        if response.content_type != "application/json":
            return answer.decode()
        return json.loads(answer)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            unix = self.listen.startswith("unix:")
            connector: aiohttp.BaseConnector
            if unix:
                connector = aiohttp.UnixConnector(self.listen.removeprefix("unix:"))
            elif self.listen.startswith("https:"):
                connector = aiohttp.TCPConnector(ssl=trust_context(self._authority))
            else:
                connector = aiohttp.TCPConnector()
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self._session

    def _url(self, path: str) -> str:
        if self.listen.startswith("https:"):
            return f"{self.listen.rstrip('/')}{path}"
        host = "daemon" if self.listen.startswith("unix:") else self.listen
        return f"http://{host}{path}"

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"{self.listen}: cannot reach the daemon, {_why(error)}; is it running?")


STRANGE = (LocalError, LookupError, TypeError, ValueError, AttributeError)
"""What comes of an answer that is missing, or that no daemon of ours gives."""


def not_ours(listen: str, error: Exception) -> str:
    """Why an answer could not be had or used: what answers at a configured address may be something else."""
    if isinstance(error, LocalError):
        return str(error)
    return f"{listen}: what answers there is no daemon of ours ({type(error).__name__}: {error}); see the address"


def _why(error: Exception) -> str:
    """The cause in a few words: aiohttp's own texts repeat the address and speak of HTTP framing."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not to be trusted ({error.certificate_error})"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int(number))) if number > 0:
            return os.strerror(number).lower()
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return "it closed the connection"
        case TimeoutError():
            return "no answer in time"
        case _:
            return str(error) or type(error).__name__


def _error(status: int, body: bytes) -> ApiError:
    try:
        error = json.loads(body)["error"]
        return ApiError(status, error["what"], error.get("why", ""), error.get("do", ""))
    except (ValueError, KeyError, TypeError):
        return ApiError(status, f"HTTP {status}", body[:200].decode(errors="replace"))
