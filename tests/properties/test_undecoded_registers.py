"""A Map-Register is answered alike whether it was decoded or not."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from lispfmc.core.effects import Effect, Emit, EmitEach, Send, Transmit
from lispfmc.wire import decode
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import EidRecord, Locator, MapRegister
from mapserver.server import MapServer
from mapserver.settings import MapServerSettings

KEYS = {site: Key(number, site.encode()) for number, site in enumerate(("one", "two"), 1)}
SETTINGS = MapServerSettings.model_validate(
    {
        "name": "ms",
        "listen": ["198.18.0.1"],
        "sites": [
            {
                "name": site,
                "key_id": key.id,
                "secret": site,
                "prefixes": [f"10.{key.id}.0.0/16"],
                "roaming": ["10.9.0.0/24", "fd00::/64"],
            }
            for site, key in KEYS.items()
        ],
        "limits": {"registrations": 6},
    }
)
EIDS = [
    *("10.1.0.0/16", "10.2.0.0/16", "10.9.0.0/24"),
    *(f"10.9.0.{number}/32" for number in range(4)),
    *(f"fd00::{number}/128" for number in range(2)),
]
LOCATORS = [
    (),
    (Locator.of(ip_of("198.18.0.7")),),
    (Locator.of(ip_of("198.18.0.9"), local=True), Locator.of(ip_of("198.18.0.8"))),
    (Locator.of(ip_of("2001:2::9"), weight=3),),
]


@st.composite
def registers(draw: st.DrawFn) -> tuple[str, MapRegister, bool]:
    """From whom, what, and whether its tag is broken."""
    shared = draw(st.sampled_from(LOCATORS[1:] * 3 + LOCATORS))
    records = [
        EidRecord.of(
            Prefix.parse(draw(st.sampled_from(EIDS[3:] * 4 + EIDS))),
            draw(st.sampled_from([shared] * 5 + [LOCATORS[1]])),
            ttl_minutes=draw(st.sampled_from([1440] * 9 + [0])),
            map_version=draw(st.sampled_from([0] * 9 + [5, 6])),
            authoritative=draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    ids = (b"x" * 16, bytes(8)) if draw(st.sampled_from([True] * 5 + [False])) else (None, None)
    message = MapRegister.of(
        *records,
        nonce=draw(st.integers(0, 30)),
        want_notify=draw(st.sampled_from([True] * 9 + [False])),
        merge=draw(st.sampled_from([False] * 9 + [True])),
        use_ttl=draw(st.sampled_from([False] * 9 + [True])),
        xtr_id=ids[0],
        site_id=ids[1],
    )
    return draw(st.sampled_from(["one"] * 4 + ["two"])), message, draw(st.sampled_from([False] * 9 + [True]))


def seen(effects: list[Effect]) -> list[object]:
    """Effects as what they come to."""
    out: list[object] = []
    for effect in effects:
        if isinstance(effect, Send):
            assert effect.key is not None
            out.append((sign(effect.message, effect.key), effect.to))  # type: ignore[arg-type]
        elif isinstance(effect, Transmit):
            out.append((effect.datagram, effect.to))
        elif isinstance(effect, Emit):
            out.append((effect.name, dict(effect.fields)))
        elif isinstance(effect, EmitEach):
            out.extend((each.name, dict(each.fields)) for each in effect.apart())
        else:
            out.append(effect)
    return out


def kept(server: MapServer) -> list[object]:
    """The registrations with what their leases come to."""
    return [
        (part.record, part.since, part.registrant, part.lease.expires_at, part.lease.live, len(part.lease.members))
        for each in server.registrations()
        for part in each.each
    ]


@given(st.lists(registers(), min_size=8, max_size=25), st.sampled_from([True] * 4 + [False]))
@settings(deadline=None)
def test_the_short_way_does_what_the_long_way_does(sent: list[tuple[str, MapRegister, bool]], rising: bool) -> None:
    short, long = (MapServer(SETTINGS, itertools.count(1)) for _ in range(2))
    for number, (site, message, broken) in enumerate(sent, 1):
        if rising:
            message = msgspec.structs.replace(message, nonce=number)
        datagram = sign(message, KEYS[site])
        if broken:
            datagram = datagram[:20] + bytes([datagram[20] ^ 1]) + datagram[21:]
        source, now = Endpoint(ip_of(f"198.18.0.1{KEYS[site].id}"), 4342), float(number)
        answer = short.at_once(datagram, source, now)
        if answer is None:
            answer = short.received(decode(datagram), datagram, source, now)
        effects: list[Effect] = answer if isinstance(answer, list) else [answer]
        assert seen(effects) == seen(long.received(decode(datagram), datagram, source, now))
        assert kept(short) == kept(long)
        assert short.counts() == long.counts()
        assert short.next_deadline() == long.next_deadline()
