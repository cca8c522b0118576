"""Subscriptions without a key agreed beforehand (RFC 9437 §7.1): both ends derive it from a one-time key.

A tunnel router and a Map-Server, as bytes on a wire and on virtual time.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lispfmc.core.effects import Effect, Reject, Send, Transmit
from lispfmc.store.sqlite import SqliteStore
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import Key, sign, verify
from lispfmc.wire.messages import (
    Ecm,
    EidRecord,
    Locator,
    MapNotify,
    MapNotifyAck,
    MapReply,
    MapRequest,
    Signed,
    address_of,
)
from mapserver.server import MapServer
from mapserver.sites import Sites
from tests.scenarios.mapserver_world import ALICE, SERVICE, World, Xtr, settings
from xtr.effects import Forward, Install, XtrEffect
from xtr.router import Router
from xtr.settings import XtrSettings

SECRET = "between access2 and the Map-Resolver"
ITR, SERVER = Endpoint(ip_of("198.18.0.12"), 4342), Endpoint(ip_of("198.18.0.1"), 4342)
CHANGES: dict[str, Any] = {
    "itrs": [{"name": "access2", "key_id": 3, "secret": SECRET}],
    "subscribers": [
        {"name": "access2", "itr": "access2", "ranges": ["100.64.0.0/16"], "address": ["198.18.0.12"]},
    ],
}
HOST = "100.64.1.9/32"


class Wire(World):
    """What the Map-Server sends, as bytes: they are signed by keys that only the two ends have."""

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, Endpoint]] = []
        super().__init__(**CHANGES)

    def forget(self) -> None:
        super().forget()
        self.datagrams = []

    def _take(self, effects: list[Effect]) -> None:
        for each in effects:
            if isinstance(each, Transmit):
                self.datagrams.append((each.datagram, each.to))
            elif isinstance(each, Send):
                message, key = each.message, each.key
                signed = sign(message, key) if key is not None and isinstance(message, Signed) else encode(message)
                self.datagrams.append((signed, each.to))
        super()._take(effects)


class Story:
    """access2's router and the Map-Server that it subscribes with; dc1 and dc2 register."""

    def __init__(self) -> None:
        self.world = Wire()
        self.used: dict[Prefix, float] = {}
        values: dict[str, Any] = {
            "name": "access2",
            "rlocs": ["198.18.0.12"],
            "prefixes": ["100.64.2.0/24"],
            "map_servers": [
                {"address": "198.18.0.1", "key_id": 1, "secret": "x", "subscription": {"lisp_sec": True}},
            ],
            "map_resolver": {"address": "198.18.0.1", "key_id": 3, "secret": SECRET},
            "timers": {"rloc_probe_s": 0},
        }
        self.core = Router(
            XtrSettings.model_validate(values),
            itertools.count(1 << 40),
            itertools.count(1 << 60),
            lambda _eid: [],
            used=self.used.get,
        )
        self.dc1, self.dc2 = Xtr(self.world, "dc1"), Xtr(self.world, "dc2")
        self.access1 = Xtr(self.world, "access1")

    def question(self, eid: str = SERVICE) -> Ecm:
        [ecm] = ecms(self.core.missed(Prefix.parse(eid), self.world.now))
        return ecm

    def tells(self, ecm: Ecm) -> list[bytes]:
        """What the Map-Server sends when it hears that."""
        self.world.forget()
        self.world.hears(ecm, ITR)
        return self.published()

    def hears(self, datagram: bytes) -> list[XtrEffect]:
        """The router gets what the Map-Server sent, and the Map-Server its acknowledgement."""
        effects = self.core.received(decode(datagram), datagram, SERVER, self.world.now)
        self.world.forget()
        for each in effects:
            if isinstance(each, Send) and isinstance(each.message, MapNotifyAck):
                assert each.key is not None
                self.world.hears(each.message, ITR, each.key)
        return effects

    def subscribed(self, eid: str = SERVICE) -> None:
        [answer] = self.tells(self.question(eid))
        self.hears(answer)

    def published(self) -> list[bytes]:
        return [datagram for datagram, to in self.world.datagrams if to == ITR]

    def key(self, eid: str = SERVICE) -> Key:
        return next(each.key for each in self.world.server.subscriptions() if each.eid == Prefix.parse(eid))


def notify_of(datagram: bytes) -> MapNotify:
    message = decode(datagram)
    assert isinstance(message, MapNotify)
    return message


def signed_by(datagram: bytes, key: Key) -> bool:
    return verify(notify_of(datagram), datagram, key)


def ecms(effects: list[XtrEffect]) -> list[Ecm]:
    return [each.message for each in effects if isinstance(each, Send) and isinstance(each.message, Ecm)]


def refusals(effects: list[XtrEffect]) -> list[str]:
    return [each.reason for each in effects if isinstance(each, Reject)]


def installed(effects: list[XtrEffect]) -> dict[str, str]:
    """Where packets for an EID go from now on."""
    return {
        str(each.eid): ".".join(map(str, each.forwarding.hops[0].rloc))
        for each in effects
        if isinstance(each, Install) and isinstance(each.forwarding, Forward)
    }


def test_answer_publication_and_acknowledgement_are_signed_by_a_key_that_nobody_configured() -> None:
    story = Story()
    story.dc1.registers(SERVICE)
    [answer] = story.tells(story.question())
    key = story.key()
    assert signed_by(answer, key)
    assert installed(story.hears(answer)) == {SERVICE: "198.18.0.21"}
    assert (story.world.rejects, story.world.server.counts()["notifies_pending"]) == ([], 0), "acknowledged"
    story.world.forget()
    story.dc2.registers(SERVICE)
    [publication] = story.published()
    assert signed_by(publication, key)
    assert installed(story.hears(publication)) == {SERVICE: "198.18.0.22"}
    assert story.world.rejects == []


def test_each_subscription_has_its_own_key_and_a_message_under_anothers_key_is_refused() -> None:
    story = Story()
    story.dc1.registers(SERVICE)
    story.access1.registers(ALICE)
    story.subscribed(SERVICE)
    story.subscribed(ALICE)
    elsewhere = EidRecord.of(Prefix.parse(SERVICE), [Locator.of(ip_of("198.18.0.66"))], ttl_minutes=1440)
    forged = MapNotify.of(elsewhere, nonce=1 << 50)
    for key in (Key(3, SECRET.encode()), Key(3, b"guessed"), story.key(ALICE)):
        assert refusals(story.hears(sign(forged, key))) == ["unknown-key"]
    assert installed(story.hears(sign(forged, story.key(SERVICE)))) == {SERVICE: "198.18.0.66"}


def test_a_publication_of_a_wider_prefix_is_known_by_its_nonce() -> None:
    story = Story()
    story.access1.registers("100.64.1.0/24")
    story.subscribed(HOST)
    elsewhere = EidRecord.of(Prefix.parse("100.64.1.0/24"), [Locator.of(ip_of("198.18.0.13"))], ttl_minutes=1440)
    story.world.forget()
    story.access1.says(elsewhere)
    [publication] = story.published()
    assert str(notify_of(publication).records[0].prefix) == "100.64.1.0/24"
    assert installed(story.hears(publication)) == {"100.64.1.0/24": "198.18.0.13"}


def test_whoever_cannot_wrap_a_key_cannot_subscribe_nor_end_a_subscription() -> None:
    story = Story()
    story.dc1.registers(SERVICE)
    plain = story.question()
    request = plain.message
    assert isinstance(request, MapRequest)
    story.tells(msgspec.structs.replace(plain, word=plain.word & ~0x0800_0000, security=None))
    assert story.world.rejects == ["unprotected-subscription"]
    [answer] = story.tells(plain)
    story.hears(answer)
    request = msgspec.structs.replace(request, nonce=request.nonce + 1000, itr_rlocs=(None,))
    forged = Ecm.of(request, source=ITR.ip, destination=ITR.ip, source_port=4342)
    story.tells(forged)
    assert (story.world.rejects, story.world.sent) == (["unprotected-subscription"], [])
    story.tells(msgspec.structs.replace(plain, message=request))
    assert (story.world.rejects, story.world.sent) == (["bad-authentication"], []), "the wrapping is of another nonce"
    assert story.world.server.counts()["subscriptions"] == 1


def test_a_one_time_key_does_not_serve_twice() -> None:
    story = Story()
    question = story.question()
    story.tells(question)
    request = question.message
    assert isinstance(request, MapRequest)
    elsewhere = msgspec.structs.replace(request.records[0], eid=address_of(Prefix.parse(HOST)))
    story.tells(msgspec.structs.replace(question, message=msgspec.structs.replace(request, records=(elsewhere,))))
    assert (story.world.rejects, story.world.sent) == (["reused-key"], [])
    assert story.world.server.counts()["subscriptions"] == 1


def test_each_repetition_has_a_one_time_key_of_its_own_and_the_last_one_counts() -> None:
    story = Story()
    story.dc1.registers(SERVICE)
    first = story.question()
    story.world.now += 1.0
    [second] = ecms(story.core.expired(story.world.now))
    assert first.security is not None
    assert second.security is not None
    assert first.security.one_time_key != second.security.one_time_key
    [to_first], [to_second] = story.tells(first), story.tells(second)
    for answer in (to_first, to_second):
        assert refusals(story.hears(answer)) == []
    story.world.forget()
    story.dc2.registers(SERVICE)
    [publication] = story.published()
    assert signed_by(publication, story.key())
    assert signed_by(to_second, story.key())
    assert installed(story.hears(publication)) == {SERVICE: "198.18.0.22"}


def test_answers_that_overtook_one_another_leave_the_key_of_the_last_question() -> None:
    story = Story()
    story.dc1.registers(SERVICE)
    first = story.question()
    story.world.now += 1.0
    [second] = ecms(story.core.expired(story.world.now))
    [to_first], [to_second] = story.tells(first), story.tells(second)
    for answer in (to_second, to_first):
        story.hears(answer)
    story.world.forget()
    story.dc2.registers(SERVICE)
    [publication] = story.published()
    assert installed(story.hears(publication)) == {SERVICE: "198.18.0.22"}


def test_a_one_time_key_under_another_key_id_is_refused_though_the_secret_were_the_same() -> None:
    story = Story()
    question = story.question()
    assert question.security is not None
    renamed = msgspec.structs.replace(question.security, key_id=4)
    story.tells(msgspec.structs.replace(question, security=renamed))
    assert (story.world.rejects, story.world.server.counts()["subscriptions"]) == (["unknown-key"], 0)


def test_the_end_of_a_subscription_is_protected_and_its_confirmation_believed() -> None:
    story = Story()
    story.dc1.registers(SERVICE)
    story.subscribed()
    ends: list[Ecm] = []
    while (at := story.core.next_deadline()) is not None and at <= story.world.now + 600 and not ends:
        asked = ecms(story.core.expired(at))
        ends += [each for each in asked if isinstance(each.message, MapRequest) and each.message.itr_rlocs == (None,)]
    [confirmation] = story.tells(ends[0])
    assert story.world.server.counts()["subscriptions"] == 0
    assert refusals(story.hears(confirmation)) == []


def test_a_refusal_is_a_protected_map_reply() -> None:
    story = Story()
    story.world.configures(**{**CHANGES, "subscribers": []})
    [reply] = story.tells(story.question())
    assert isinstance(decode(reply), MapReply)
    assert refusals(story.hears(reply)) == []
    assert story.world.server.counts()["subscriptions"] == 0


def test_a_reload_keeps_the_subscription_as_long_as_the_itr_has_its_key() -> None:
    story = Story()
    story.dc1.registers(SERVICE)
    story.subscribed()
    story.world.configures(**CHANGES)
    story.world.forget()
    story.dc2.registers(SERVICE)
    [publication] = story.published()
    assert installed(story.hears(publication)) == {SERVICE: "198.18.0.22"}
    story.world.configures(**{**CHANGES, "itrs": [{"name": "access2", "key_id": 3, "secret": "another"}]})
    assert story.world.server.counts()["subscriptions"] == 0


def test_a_restart_keeps_the_subscription_and_no_key_is_on_the_disk(tmp_path: Path) -> None:
    story = Story()
    chosen = settings(**CHANGES)

    def opened() -> SqliteStore:
        key = Sites(chosen.sites).key
        return SqliteStore(tmp_path, key, now=story.world.now, wall_now=time.time(), fsync="never")

    story.world.server = MapServer(chosen, itertools.count(1 << 40), store := opened())
    story.world.server.started(story.world.now)
    story.dc1.registers(SERVICE)
    [answer] = story.tells(story.question())
    story.hears(answer)
    store.commit()
    store.close()
    assert not any(story.key().secret in each.read_bytes() for each in tmp_path.iterdir() if each.is_file())
    story.world.server = MapServer(chosen, itertools.count(1 << 50), store := opened())
    story.world.server.started(story.world.now)
    story.world.forget()
    story.dc2.registers(SERVICE)
    [publication] = story.published()
    assert installed(story.hears(publication)) == {SERVICE: "198.18.0.22"}
    store.close()


@pytest.mark.parametrize("wrong", [{"secret": "x", "itr": "access2"}, {}, {"itr": "nobody"}])
def test_a_subscriber_has_a_secret_or_an_itrs_key_that_exists(wrong: dict[str, str]) -> None:
    subscriber = {"name": "access2", "ranges": ["100.64.0.0/16"], "address": ["198.18.0.12"], **wrong}
    with pytest.raises(ValueError, match=r"give one of them|name one"):
        settings(**{**CHANGES, "subscribers": [subscriber]})
