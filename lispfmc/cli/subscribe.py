"""`lispfmc lookup EID --subscribe`: a subscription (RFC 9437) whose publications are shown as they come.

It speaks as a subscriber that the Map-Server knows: the key, xTR-ID and port of `--identity FILE`, which a lab writes
for itself. Every publication is checked, acknowledged and shown; at the end the subscription is ended.
"""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from lispfmc.cli.failure import CONDITION, UNREACHABLE, Failure
from lispfmc.cli.lookup import CONTROL_PORT, EACH_S, local_address
from lispfmc.cli.output import Format, print_json_line, print_text, say
from lispfmc.cli.records import print_records
from lispfmc.runtime import config
from lispfmc.runtime.nonces import ordered_nonces
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Address, Ip, Prefix, ip_text
from lispfmc.wire.auth import Key, sign, verify
from lispfmc.wire.describe import describe
from lispfmc.wire.errors import PeerError
from lispfmc.wire.messages import (
    SITE_ID_BYTES,
    XTR_ID_BYTES,
    Action,
    Ecm,
    MapNotify,
    MapNotifyAck,
    MapReply,
    MapRequest,
    RequestRecord,
)

TRIES = 3
REFRESH_S = 60.0  # a Map-Server that has been started anew is told again


class Identity(config.Settings):
    """A subscriber, as the Map-Server's [[subscribers]] describes it. Publications come to `port`."""

    key_id: int = Field(ge=0, le=255)
    secret: str = Field(min_length=1)
    xtr_id: bytes
    site_id: int = Field(default=0, ge=0, lt=1 << 64)
    port: int = Field(default=CONTROL_PORT, ge=1, le=65535)

    @field_validator("xtr_id", mode="before")
    @classmethod
    def _from_hex(cls, value: object) -> object:
        try:
            number = bytes.fromhex(str(value))
        except ValueError:
            number = b""
        if len(number) != XTR_ID_BYTES:
            raise ValueError(f"an xTR-ID is {2 * XTR_ID_BYTES} hexadecimal digits")
        return number

    @property
    def key(self) -> Key:
        return Key(self.key_id, self.secret.encode())


async def subscribe(prefix: Prefix, server: Ip, identity: Path, *, output: Format) -> int:
    """Until interrupted. Exit 1 when the Map-Server does not subscribe us, 2 when it does not answer."""
    known = config.load(identity, Identity)
    family = socket.AF_INET if len(server) == 4 else socket.AF_INET6
    local = local_address(family, server)
    with socket.socket(family, socket.SOCK_DGRAM) as both:
        both.settimeout(0)  # asyncio wants it non-blocking
        try:
            both.bind((ip_text(local), known.port))
        except OSError as error:
            why = f"UDP port {known.port}: {error.strerror}"
            raise Failure(UNREACHABLE, "lookup --subscribe", why, "another one may run with this identity") from error
        return await _Subscriber(both, local, server, prefix, known, output).run()


class _Subscriber:
    def __init__(
        self, both: socket.socket, local: Ip, server: Ip, prefix: Prefix, identity: Identity, output: Format
    ) -> None:
        self._socket = both
        self._local = local
        self._server = server
        self._prefix = prefix
        self._identity = identity
        self._output = output
        self._nonces = ordered_nonces()
        self._asked: set[int] = set()
        self._last_nonce = 0
        self._shown: dict[Prefix, Any] = {}

    async def run(self) -> int:
        if not await self._begin():
            return CONDITION
        say(f"subscribed to {self._prefix} at {ip_text(self._server)}; Ctrl-C ends")
        try:
            while True:
                try:
                    async with asyncio.timeout(REFRESH_S):
                        while await self._hear() is not False:
                            pass
                except TimeoutError:
                    await self._request()
                    continue
                say("the Map-Server has ended the subscription; subscribing again")
                if not await self._begin():
                    return CONDITION
        finally:
            await self._request(ends=True)

    async def _begin(self) -> bool:
        for _ in range(TRIES):
            await self._request()
            try:
                async with asyncio.timeout(EACH_S):
                    while (heard := await self._hear()) is None:
                        pass
            except TimeoutError:
                continue
            return heard
        raise Failure(
            UNREACHABLE,
            f"Map-Server {ip_text(self._server)}",
            f"no answer to {TRIES} subscriptions to {self._prefix}",
            "is this subscriber configured there, with this address? see: lispfmc show rejects",
        )

    async def _request(self, *, ends: bool = False) -> None:
        """RFC 9437 §5: I-bit and N-bit; §6: AFI 0 as the only ITR-RLOC ends the subscription."""
        nonce = max(next(self._nonces), self._last_nonce + 1)
        self._asked.add(nonce)
        rlocs: list[Address] = [None] if ends else [self._local]
        request = MapRequest.of(
            RequestRecord.of(self._prefix, notify=True),
            nonce=nonce,
            itr_rlocs=rlocs,
            xtr_id=self._identity.xtr_id,
            site_id=self._identity.site_id.to_bytes(SITE_ID_BYTES, "big"),
        )
        ecm = Ecm.of(request, source=self._local, destination=self._server, source_port=self._identity.port)
        await self._send(encode(ecm))

    async def _hear(self) -> bool | None:
        """True: a publication was shown; False: we are not, or no longer, subscribed; None: nothing to us."""
        loop = asyncio.get_running_loop()
        datagram, source = await loop.sock_recvfrom(self._socket, 65535)
        try:
            message = decode(datagram)
        except PeerError as error:
            say(f"from {source[0]}: malformed: {error}")
            return None
        if isinstance(message, MapReply) and message.nonce in self._asked:
            self._show(describe(message)["records"], "not subscribed")
            return False
        if not isinstance(message, MapNotify):
            return None
        if not verify(message, datagram, self._identity.key):
            say(f"from {source[0]}: a Map-Notify that is not signed with our key")
            return None
        return await self._notified(message)

    async def _notified(self, notify: MapNotify) -> bool | None:
        if notify.nonce < self._last_nonce:
            say(f"an old Map-Notify: nonce {notify.nonce:#x} after {self._last_nonce:#x}")
            return None
        await self._send(sign(MapNotifyAck.of(notify), self._identity.key))
        if notify.nonce == self._last_nonce:
            return True  # it did not hear our acknowledgement
        self._last_nonce = notify.nonce
        records = notify.records
        if any(each.action == Action.DROP_AUTH_FAILURE and not each.locators for each in records):
            return False  # RFC 9437 §7: it got no acknowledgement and gave up
        fresh = [each for each in records if (eid := each.prefix) is not None and self._shown.get(eid) != each]
        self._shown.update({eid: each for each in fresh if (eid := each.prefix) is not None})
        if fresh:
            described = describe(notify)["records"]
            self._show([described[records.index(each)] for each in fresh], None)
        return True

    async def _send(self, datagram: bytes) -> None:
        to = (ip_text(self._server), CONTROL_PORT)
        await asyncio.get_running_loop().sock_sendto(self._socket, datagram, to)

    def _show(self, records: list[dict[str, Any]], remark: str | None) -> None:
        at = time.time()
        if self._output is Format.json:
            for record in records:
                print_json_line({"time": at, "subscribed": remark is None, **record})
            return
        clock = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03d}"
        print_text(f"{clock}{f'  {remark}' if remark else ''}")
        print_records(records)
