"""A virtual network: real cores, real bytes and signatures, and a clock that jumps from event to event.

Control messages between nodes are encoded, signed, delayed, lost, duplicated and reordered by a seeded generator, and
decoded at the other end. Nothing sleeps; a minute of protocol takes milliseconds.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Protocol

import msgspec

from lispfmc.core.effects import Emit, EmitEach, Reject, Send, Transmit
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Endpoint, Ip
from lispfmc.wire.auth import sign
from lispfmc.wire.messages import MapNotify, MapNotifyAck, MapRegister, Message
from lispfmc.wire.moves import MoveMessage

CONTROL_PORT = 4342
AS_IT_IS = (0.0,)
START = 1000.0  # monotonic seconds start anywhere


class Core(Protocol):
    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[Any]: ...

    def next_deadline(self) -> float | None: ...

    def expired(self, now: float) -> list[Any]: ...


class Faults(msgspec.Struct, frozen=True):
    """What happens to control datagrams."""

    loss: float = 0.0
    duplicate: float = 0.0
    jitter_s: float = 0.0
    """Up to this much is added to the delay of each datagram, so they overtake one another."""


class Datagram(msgspec.Struct, frozen=True):
    """One that was sent, for tests that look at what went over the wire or play it again."""

    at: float
    source: Endpoint
    to: Endpoint
    data: bytes
    message: Message


class Network:
    """The nodes and what is on its way between them."""

    def __init__(self, seed: int, faults: Faults = Faults()) -> None:  # noqa: B008 - frozen
        self.now = START
        self.faults = faults
        self.sent: list[Datagram] = []
        self._random = Random(seed)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._nodes: dict[Ip, Node] = {}
        self._delays: dict[frozenset[str], float] = {}
        self._dropping: list[Callable[[Datagram], bool]] = []
        self.bend: Callable[[Datagram], Sequence[float]] = lambda _: AS_IT_IS
        """What becomes of a datagram: its copies, each so many seconds late."""

    def nonces(self) -> Iterator[int]:
        """As the daemons make them: unix milliseconds and a counter. Each node's run apart."""
        last = 0
        while True:
            last = max(last + 1, int((1_700_000_000 + self.now) * 1000) << 20)
            yield last

    def random_nonces(self) -> Iterator[int]:
        while True:
            yield self._random.getrandbits(64)

    def add(self, node: Node) -> None:
        for address in node.addresses:
            self._nodes[address] = node

    def delay(self, one: str, other: str, seconds: float) -> None:
        """The one-way delay between two nodes; 5 ms unless set."""
        self._delays[frozenset((one, other))] = seconds

    def delay_between(self, one: str, other: str) -> float:
        return self._delays.get(frozenset((one, other)), 0.005)

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._agenda, (when, self._order, what))

    def lose(self, matching: Callable[[Datagram], bool]) -> Callable[[], None]:
        """Lose every datagram that matches, until the returned function is called."""
        self._dropping.append(matching)
        return lambda: self._dropping.remove(matching)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self._agenda and self._agenda[0][0] <= until:
            when, _, what = heapq.heappop(self._agenda)
            self.now = max(self.now, when)
            what()
        self.now = until

    def carry(self, datagram: Datagram, sender: str) -> None:
        """Take a control datagram to its addressee, as the faults have it."""
        self.sent.append(datagram)
        node = self._nodes.get(datagram.to.ip)
        if node is None or any(matching(datagram) for matching in self._dropping):
            return
        copies = 2 if self._random.random() < self.faults.duplicate else 1
        for late_s in (*self.bend(datagram),) * copies:
            if self._random.random() < self.faults.loss:
                continue
            delay = self.delay_between(sender, node.name) + self._random.random() * self.faults.jitter_s
            self.at(self.now + delay + late_s, lambda: node.datagram(datagram.data, datagram.source))


class Node:
    """A core with its addresses. Effects that every daemon performs are performed here, others by `perform`."""

    def __init__(self, network: Network, name: str, addresses: tuple[Ip, ...], core: Core) -> None:
        self.network = network
        self.name = name
        self.addresses = addresses
        self.core = core
        self.rejects: Counter[str] = Counter()
        self.events: list[tuple[float, Emit]] = []
        self._wakes_at: float | None = None
        network.add(self)

    def datagram(self, data: bytes, source: Endpoint) -> None:
        self.apply(self.core.received(decode(data), data, source, self.network.now))

    def apply(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect)
                case Transmit():
                    self._carry(effect.datagram, effect.to)
                case Emit():
                    self.events.append((self.network.now, effect))
                case EmitEach():
                    self.events.extend((self.network.now, each) for each in effect.apart())
                case Reject():
                    self.rejects[effect.reason] += 1
                case _:
                    self.perform(effect)
        self._arm()

    def perform(self, effect: Any) -> None:
        raise AssertionError(f"{self.name} does not perform {effect}")

    def names(self) -> list[str]:
        """The names of the events so far."""
        return [event.name for _, event in self.events]

    def _send(self, send: Send) -> None:
        message, key = send.message, send.key
        if key is not None:
            assert isinstance(message, MapRegister | MapNotify | MapNotifyAck | MoveMessage)
            data = sign(message, key)
        else:
            data = encode(message)
        self._carry(data, send.to)

    def _carry(self, data: bytes, to: Endpoint) -> None:
        source = next(address for address in self.addresses if len(address) == len(to.ip))
        datagram = Datagram(self.network.now, Endpoint(source, CONTROL_PORT), to, data, decode(data))
        self.network.carry(datagram, self.name)

    def _arm(self) -> None:
        deadline = self.core.next_deadline()
        if deadline is None or (self._wakes_at is not None and self._wakes_at <= deadline):
            return
        self._wakes_at = deadline
        self.network.at(max(deadline, self.network.now), self._wake)

    def _wake(self) -> None:
        self._wakes_at = None
        deadline = self.core.next_deadline()
        if deadline is not None and deadline <= self.network.now:
            self.apply(self.core.expired(self.network.now))
        else:
            self._arm()
