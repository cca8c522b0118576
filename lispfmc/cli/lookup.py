"""`lispfmc lookup EID`: asks a Map-Resolver as a tunnel router would (the LISP Internet Groper, RFC 6835).

It uses a socket of its own and none of the daemons' APIs. With a lab up it asks from inside the lab's network.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from pathlib import Path
from typing import NamedTuple

from lispfmc.cli.failure import CONDITION, DONE, UNREACHABLE, USAGE, Failure
from lispfmc.cli.output import Format, print_json, print_text, say
from lispfmc.cli.records import print_records
from lispfmc.lab.entrance import enter
from lispfmc.lab.installation import Installation, NotUp, load
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Ip, Prefix, ip_of, ip_text
from lispfmc.wire.describe import describe
from lispfmc.wire.errors import LocalError, PeerError
from lispfmc.wire.messages import Ecm, EidRecord, MapReply, MapRequest, RequestRecord

CONTROL_PORT = 4342
SELF = "self"  # instead of an EID: what our own tunnel routers have registered
IDENTITY = "lookup.toml"  # who a lab's `--subscribe` is
EACH_S = 1.0  # RFC 9301 §5.3: no more than one Map-Request a second for the same EID


class Answer(NamedTuple):
    reply: MapReply
    replier: str
    rtt_ms: float
    requests: int


async def lookup(
    eid: str,
    *,
    via: str | None,
    iid: int,
    count: int,
    lab_name: str | None,
    output: Format,
    live: bool = False,
    identity: Path | None = None,
    at: str | None = None,
) -> int:
    """Exit 0 when the EID has locators, 1 when it has none, 2 when nobody answers."""
    prefix = None if eid == SELF else _prefix(eid, iid)
    lab = _lab(lab_name, needed=via is None or lab_name is not None or prefix is None or (live and identity is None))
    resolver = via if via is not None else lab.map_resolver if lab else ""
    server = _address(resolver)
    if lab is not None and lab.lookup_namespace is not None:
        _enter(lab.lookup_namespace)
    if prefix is None:
        from lispfmc.cli.registered import lookup_self

        assert lab is not None
        return await lookup_self(lab, server, at=at, count=count, output=output)
    if live:
        from lispfmc.cli.subscribe import subscribe

        known_as = identity if identity is not None else lab.folder / IDENTITY if lab else Path(IDENTITY)
        return await subscribe(prefix, server, known_as, output=output)
    answer = await ask(prefix, server, count)
    records = describe(answer.reply)["records"]
    if output is Format.json:
        print_json(
            {
                "eid": str(prefix),
                "map_resolver": resolver,
                "replier": answer.replier,
                "rtt_ms": answer.rtt_ms,
                "requests": answer.requests,
                "records": records,
            }
        )
    else:
        print_text(f"from {answer.replier} in {answer.rtt_ms:.1f} ms")
        print_records(records)
    found = located(answer.reply, prefix)
    return DONE if found is not None and found.locators else CONDITION


def _prefix(text: str, iid: int) -> Prefix:
    try:
        return Prefix.parse(text, iid)
    except LocalError as error:
        raise Failure(USAGE, "EID", str(error), "give an address or a prefix, for example 100.64.1.10") from error


def _address(text: str) -> Ip:
    try:
        return ip_of(text)
    except LocalError as error:
        raise Failure(USAGE, "--via", str(error), "give the Map-Resolver's IP address") from error


def _lab(name: str | None, *, needed: bool) -> Installation | None:
    try:
        return load(name)
    except NotUp as error:
        if needed:
            raise Failure(UNREACHABLE, "lookup", str(error), "or name a Map-Resolver with --via") from error
    except LocalError:
        if needed:
            raise
    return None


def _enter(namespace: str) -> None:
    """This process goes on inside the lab's network."""
    try:
        enter(namespace)
    except OSError as error:
        why = f"cannot enter it: {error.strerror}"
        raise Failure(UNREACHABLE, f"namespace {namespace}", why, "is the lab up, and are you root?") from error


async def ask(prefix: Prefix, server: Ip, count: int) -> Answer:
    """The Map-Resolver's answer to at most `count` Map-Requests. Raises Failure when there is none."""
    family = socket.AF_INET if len(server) == 4 else socket.AF_INET6
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM) as both:
        both.settimeout(0)  # asyncio wants it non-blocking
        local = local_address(family, server)
        both.bind((ip_text(local), 0))
        port = both.getsockname()[1]
        asked: dict[int, float] = {}
        for number in range(1, count + 1):
            nonce = secrets.randbits(64)
            asked[nonce] = time.monotonic()
            await loop.sock_sendto(both, _request(prefix, nonce, local, port), (ip_text(server), CONTROL_PORT))
            try:
                async with asyncio.timeout(EACH_S):
                    reply, source = await _reply(both, asked)
            except TimeoutError:
                continue
            rtt_ms = round((time.monotonic() - asked[reply.nonce]) * 1000, 3)
            return Answer(reply, source, rtt_ms, number)
    raise Failure(
        UNREACHABLE,
        f"Map-Resolver {ip_text(server)}",
        f"no answer to {count} Map-Request(s) for {prefix}",
        "is it a Map-Resolver, and does a route lead there? see: lispfmc status",
    )


def local_address(family: socket.AddressFamily, server: Ip) -> Ip:
    """The address that packets to `server` leave from. Raises Failure when none do."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ip_text(server), CONTROL_PORT))
        except OSError as error:
            why = f"no route: {error.strerror}"
            raise Failure(UNREACHABLE, f"Map-Resolver {ip_text(server)}", why, "choose another with --via") from error
        return ip_of(probe.getsockname()[0])


def _request(prefix: Prefix, nonce: int, local: Ip, port: int) -> bytes:
    request = MapRequest.of(RequestRecord.of(prefix), nonce=nonce, itr_rlocs=[local])
    # RFC 9301 §5.8: the inner header goes to the EID; the reply comes back to the inner source port
    source = local if len(local) == len(prefix.ip) else bytes(len(prefix.ip))
    return encode(Ecm.of(request, source=source, destination=prefix.ip, source_port=port))


async def _reply(both: socket.socket, asked: dict[int, float]) -> tuple[MapReply, str]:
    """The first Map-Reply to one of our nonces; anything else is passed over."""
    loop = asyncio.get_running_loop()
    while True:
        datagram, source = await loop.sock_recvfrom(both, 65535)
        try:
            message = decode(datagram)
        except PeerError as error:
            say(f"from {source[0]}: malformed answer: {error}")
            continue
        if isinstance(message, MapReply) and message.nonce in asked:
            return message, source[0]


def located(reply: MapReply, prefix: Prefix) -> EidRecord | None:
    """The most specific record that covers what was asked for."""
    covering = [record for record in reply.records if (found := record.prefix) is not None and found.covers(prefix)]
    return max(covering, key=lambda record: record.mask_length, default=None)
