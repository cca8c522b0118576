"""Protected questions (RFC 9303) between a tunnel router and a Map-Server: §6.7, table 1, and what nobody believes."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from lispfmc.core import lispsec
from lispfmc.core.effects import Reject, Send
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import sign
from lispfmc.wire.messages import Action, Ecm, EidRecord, Locator, MapRegister, MapReply, MapRequest
from tests.scenarios.mapserver_world import ALICE, World, Xtr
from xtr.effects import Install, XtrEffect
from xtr.router import Router
from xtr.settings import XtrSettings

SECRET = "between access2 and the Map-Resolver"
ITRS = [
    {"name": "access2", "key_id": 3, "secret": SECRET},
    {"name": "another", "key_id": 3, "secret": "a secret of another one"},
]
SERVER = Endpoint(ip_of("198.18.0.1"), 4342)
ITR = Endpoint(ip_of("198.18.0.12"), 4342)


def router(secret: str = SECRET) -> Router:
    """access2's, which protects its questions."""
    values: dict[str, Any] = {
        "name": "access2",
        "rlocs": ["198.18.0.12"],
        "prefixes": ["100.64.2.0/24"],
        "map_servers": [{"address": "198.18.0.1", "key_id": 1, "secret": "x"}],
        "map_resolver": {"address": "198.18.0.1", "key_id": 3, "secret": secret},
    }
    return Router(XtrSettings.model_validate(values), itertools.count(1), itertools.count(1 << 60), lambda _eid: [])


def question(core: Router, eid: str = ALICE) -> Ecm:
    [send] = [effect for effect in core.missed(Prefix.parse(eid), 0.0) if isinstance(effect, Send)]
    assert isinstance(send.message, Ecm)
    return send.message


def answered(world: World, core: Router, eid: str = ALICE) -> bytes:
    """The datagram that comes back."""
    world.forget()
    world.hears(question(core, eid), ITR)
    [send] = world.sent
    return encode(send.message)


def hears(core: Router, datagram: bytes) -> list[XtrEffect]:
    return core.received(decode(datagram), datagram, SERVER, 0.1)


def installed(effects: list[XtrEffect]) -> dict[str, object]:
    return {str(effect.eid): effect.forwarding for effect in effects if isinstance(effect, Install)}


def refusals(effects: list[XtrEffect]) -> list[str]:
    return [effect.reason for effect in effects if isinstance(effect, Reject)]


def registers(xtr: Xtr, eid: str, *, signs: bool, nonce: int = 1) -> None:
    """Without the proxy-reply bit; `signs` is the S-bit."""
    plain = MapRegister.of(xtr.record(eid), nonce=nonce, proxy_reply=False, xtr_id=xtr.xtr_id, site_id=bytes(8))
    message = msgspec.structs.replace(plain, word=plain.word | signs << 26)
    xtr.world.hears_bytes(sign(message, xtr.key), xtr.endpoint)


def test_a_proxy_reply_is_protected_and_believed() -> None:
    world, core = World(itrs=ITRS), router()
    home = Xtr(world, "access1")
    home.registers(home.home, ALICE)
    datagram = answered(world, core, "100.64.1.9/32")
    assert set(installed(hears(core, datagram))) == {home.home, ALICE}


def test_a_negative_reply_is_protected_too() -> None:
    world, core = World(itrs=ITRS), router()
    reply = decode(answered(world, core))
    assert isinstance(reply, MapReply)
    assert reply.security is not None
    assert set(installed(hears(core, encode(reply)))) == {"100.64.1.0/24"}


def test_what_somebody_on_the_path_changed_is_not_believed_and_the_question_stays_open() -> None:
    world, core = World(itrs=ITRS), router()
    home = Xtr(world, "access1")
    home.registers(ALICE)
    datagram = answered(world, core)
    turned = datagram.replace(home.rloc, ip_of("198.18.0.66"))
    assert turned != datagram
    assert refusals(hears(core, turned)) == ["bad-authentication"]
    assert set(installed(hears(core, datagram))) == {ALICE}
    assert refusals(hears(core, datagram)) == ["unasked-reply"], "the key is forgotten with the answer"


def test_an_answer_without_protection_is_not_believed() -> None:
    core = router()
    request = question(core).message
    assert isinstance(request, MapRequest)
    record = EidRecord.of(Prefix.parse(ALICE), [Locator.of(ip_of("198.18.0.66"))], ttl_minutes=5)
    assert refusals(hears(core, encode(MapReply.of(record, nonce=request.nonce)))) == ["unprotected-reply"]


@pytest.mark.parametrize(
    ("secret", "itrs", "reason"),
    [("guessed", ITRS, "bad-authentication"), (SECRET, [], "unknown-key")],
)
def test_a_key_that_the_map_resolver_cannot_open_is_refused(secret: str, itrs: list[Any], reason: str) -> None:
    world = World(itrs=itrs)
    Xtr(world, "access1").registers(ALICE)
    world.forget()
    world.hears(question(router(secret)), ITR)
    assert (world.rejects, world.sent) == ([reason], [])


def test_an_unwrapped_key_is_refused_as_there_is_no_dtls() -> None:
    world = World(itrs=ITRS)
    Xtr(world, "access1").registers(ALICE)
    world.forget()
    ecm = question(router())
    datagram = bytearray(encode(ecm))
    datagram[11] = lispsec.Wrapping.NULL
    world.hears_bytes(bytes(datagram), ITR)
    assert (world.rejects, world.sent) == (["unwrapped-key"], [])


@pytest.mark.parametrize(
    ("claimed", "refused"),
    [("100.64.1.0/24", []), (ALICE, []), ("100.64.0.0/10", ["overclaimed"]), ("10.0.0.0/8", ["overclaimed"])],
)
def test_an_etr_that_signs_is_asked_and_believed_as_far_as_it_has_registered(claimed: str, refused: list[str]) -> None:
    world, core = World(itrs=ITRS), router()
    home = Xtr(world, "access1")
    registers(home, home.home, signs=True)
    world.forget()
    world.hears(question(core), ITR)
    [send] = world.sent
    onward = send.message
    assert isinstance(onward, Ecm)
    assert onward.security is not None
    assert send.to == home.endpoint
    request = onward.message
    assert isinstance(request, MapRequest)
    otk = lispsec.unwrapped(onward.security, request.nonce, [home.key.secret])
    reply = lispsec.etr_reply(MapReply.of(home.record(claimed), nonce=request.nonce), onward.security, otk)
    effects = hears(core, reply)
    assert refusals(effects) == refused
    assert list(installed(effects)) == ([] if refused else [claimed])


def test_an_etr_that_cannot_sign_is_not_asked_and_the_answer_says_so() -> None:
    world, core = World(itrs=ITRS), router()
    home = Xtr(world, "access1")
    registers(home, home.home, signs=False)
    reply = decode(answered(world, core))
    assert isinstance(reply, MapReply)
    assert reply.security is not None
    proof = reply.security.eid_authentication.proof
    assert proof is not None
    assert proof.etr_cant_sign
    [record] = reply.records
    assert (str(record.prefix), record.action, record.locators) == (home.home, Action.SEND_MAP_REQUEST, ())


def test_one_secret_for_both_ends_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(ValueError, match="a site registers with that secret"):
        World(itrs=[{"name": "access1", "key_id": 1, "secret": "secret of access1"}])
