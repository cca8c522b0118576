"""The driver: effects in order, one timer, and no datagram that stops the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lispfmc.core.effects import Effect, Emit, Reject, Send
from lispfmc.runtime.driver import Driver
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.rejects import Rejects
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import Key, verify
from lispfmc.wire.messages import MapNotify, MapRegister, MapReply, MapRequest, Message, RequestRecord

PEER = Endpoint(ip_of("198.18.0.1"), 4342)
REQUEST = MapRequest.of(RequestRecord.of(Prefix.parse("100.64.1.10/32")), nonce=7, itr_rlocs=[ip_of("198.18.0.11")])


class Core:
    """A core whose answers the test sets."""

    def __init__(self) -> None:
        self.answer: Callable[[Message], list[Effect]] = lambda _message: []
        self.due: list[float] = []
        self.expirations: list[float] = []

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[Effect]:
        assert decode(datagram) == message
        return self.answer(message)

    def next_deadline(self) -> float | None:
        return min(self.due, default=None)

    def expired(self, now: float) -> list[Effect]:
        self.expirations.append(now)
        self.due = [at for at in self.due if at > now]
        return [Emit("expired", {})]


class World:
    def __init__(self, *, strict: bool = True) -> None:
        self.core = Core()
        self.now = 0.0
        self.sent: list[tuple[bytes, Endpoint]] = []
        self.performed: list[Effect] = []
        self.events = EventLog(first_id=1)
        self.rejects = Rejects()
        self.driver: Driver[Effect] = Driver(
            self.core,
            perform=self.performed.append,
            send=lambda data, to: self.sent.append((data, to)),
            events=self.events,
            rejects=self.rejects,
            clock=lambda: self.now,
            strict=strict,
        )


def test_effects_are_performed_in_order_and_signed_where_there_is_a_key() -> None:
    world, key = World(), Key(1, b"secret")
    world.core.answer = lambda _message: [
        Emit("host.arrived", {"eid": "100.64.1.10/32"}),
        Send(MapReply.of(nonce=7), PEER),
        Send(MapRegister.of(nonce=8), PEER, key),
        Reject("foreign-prefix", PEER),
    ]
    world.driver.datagram(encode(REQUEST), PEER)
    reply, register = (data for data, _ in world.sent)
    assert decode(reply) == MapReply.of(nonce=7)
    signed = decode(register)
    assert isinstance(signed, MapRegister)
    assert verify(signed, register, key)
    assert world.events.counts == {"host.arrived": 1}
    assert world.rejects.counts == {"foreign-prefix": 1}


def test_events_are_told_when_all_that_came_has_been_answered() -> None:
    world = World()
    world.core.answer = lambda _message: [Emit("host.arrived", {}), Send(MapReply.of(nonce=7), PEER)]

    async def story() -> None:
        world.driver.start()
        for _ in range(2):
            world.driver.datagram(encode(REQUEST), PEER)
        assert (len(world.sent), world.events.counts) == (2, {})
        await asyncio.sleep(0)
        assert world.events.counts == {"host.arrived": 2}
        world.driver.datagram(encode(REQUEST), PEER)
        world.driver.close()
        assert world.events.counts == {"host.arrived": 3}, "a daemon that ends has told everything"

    asyncio.run(story())


def test_what_a_peer_got_wrong_is_a_reject_and_no_bug() -> None:
    world = World()
    world.driver.datagram(b"\x10\x00", PEER)
    assert world.rejects.counts == {"malformed": 1}
    assert world.rejects.recent()[0].source == "198.18.0.1:4342"
    assert world.rejects.bugs == 0


def test_what_we_got_wrong_is_counted_and_the_rest_goes_on() -> None:
    world = World(strict=False)

    def fails(_message: Message) -> list[Effect]:
        raise RuntimeError("a bug")

    world.core.answer = fails
    world.driver.datagram(encode(REQUEST), PEER)
    world.core.answer = lambda _message: [
        Send(MapReply.of(nonce=1), PEER, Key(1, b"x")),  # carries no authentication data: our mistake
        Emit("after", {}),
    ]
    world.driver.datagram(encode(REQUEST), PEER)
    assert (world.rejects.bugs, world.events.counts) == (2, {"after": 1})


def test_in_tests_a_bug_is_raised() -> None:
    world = World(strict=True)
    world.core.answer = lambda _message: [Send(MapReply.of(nonce=1), PEER, Key(1, b"x"))]
    with pytest.raises(TypeError, match="MapReply carries no authentication data"):
        world.driver.datagram(encode(REQUEST), PEER)


def test_input_that_comes_from_performing_an_effect_is_applied_after_the_effects_at_hand() -> None:
    order: list[str] = []
    world = World()

    def perform(effect: Effect) -> None:
        order.append(str(effect))
        if str(effect) == "first":
            driver.tell(lambda _now: ["evidence"])

    driver: Driver[str] = Driver(
        world.core,  # type: ignore[arg-type]
        perform=perform,  # type: ignore[arg-type]
        send=lambda _data, _to: None,
        events=world.events,
        rejects=world.rejects,
        strict=True,
    )
    driver.tell(lambda _now: ["first", "second"])
    assert order == ["first", "second", "evidence"]


def test_a_call_gets_the_time_last() -> None:
    world = World()
    world.now = 5.0
    got: list[object] = []

    def decide(*args: object) -> list[Effect]:
        got.extend(args)
        return []

    world.driver.tell(decide, "eid", 3)
    assert got == ["eid", 3, 5.0]


def test_one_timer_follows_the_earliest_deadline() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        world = World()
        start = loop.time()
        world.driver = Driver(
            world.core,
            perform=world.performed.append,
            send=lambda _data, _to: None,
            events=world.events,
            rejects=world.rejects,
            clock=loop.time,
            strict=True,
        )
        world.core.due = [start + 60.0]
        world.driver.start()
        world.core.due.append(start + 0.02)  # decided while a datagram is worked off
        world.driver.datagram(encode(REQUEST), PEER)
        async with asyncio.timeout(5):
            async for _ in world.events.follow(0):
                break
        assert len(world.core.expirations) == 1
        assert world.core.expirations[0] >= start + 0.02
        world.driver.close()

    asyncio.run(story())


def test_a_notify_is_signed_with_the_key_of_its_effect() -> None:
    world, key = World(), Key(3, b"other")
    world.driver.tell(lambda _now: [Send(MapNotify.of(nonce=9), PEER, key)])
    notify = decode(world.sent[0][0])
    assert isinstance(notify, MapNotify)
    assert notify.key_id == 3
    assert not verify(notify, world.sent[0][0], Key(3, b"wrong"))
