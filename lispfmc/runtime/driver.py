"""Runs one core: datagrams, calls and time go in; the effects that come out are performed in order.

The only place where a core meets a clock and a socket. One packet never stops the daemon: what the peer did wrong is a
reject, what we did wrong is a counted bug.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from lispfmc.core.effects import Emit, EmitEach, Reject, Send, Transmit
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.rejects import Rejects
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Endpoint
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.errors import PeerError
from lispfmc.wire.messages import MapNotify, MapNotifyAck, MapRegister, Message
from lispfmc.wire.moves import MoveMessage

E = TypeVar("E")

QUICK = (3, 8)
"""Types of messages that may be answered undecoded: most Map-Registers repeat the one before, most ECMs ask for one
host."""
_EVENTS = (Emit, EmitEach)
SHORTEST_WAIT = 0.001  # seconds; a core that is always due must not turn the loop into a busy one


class Core(Protocol[E]):
    """Decisions as a pure state machine; `now` is monotonic seconds."""

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[E]: ...

    def next_deadline(self) -> float | None: ...

    def expired(self, now: float) -> list[E]: ...


class Driver(Generic[E]):
    """Performs Send, Transmit, Emit, EmitEach and Reject itself; every other effect goes to the daemon's `perform`."""

    def __init__(
        self,
        core: Core[E],
        *,
        perform: Callable[[E], None],
        send: Callable[[bytes, Endpoint], None],
        events: EventLog,
        rejects: Rejects,
        clock: Callable[[], float] = time.monotonic,
        strict: bool = False,
        quick: Callable[[bytes, Endpoint, float], Transmit | list[E] | None] | None = None,
    ) -> None:
        """`strict` re-raises what is otherwise counted as a bug: for tests. `quick` is asked before a message of
        one of the types `QUICK` is decoded, and gives the whole answer, or None."""
        self._core = core
        self._perform = perform
        self._send = send
        self._events = events
        self._rejects = rejects
        self._clock = clock
        self._strict = strict
        self._quick = quick
        self.began = clock()
        """When the input came whose effects are being performed, or were last."""
        self._effects: deque[E] = deque()
        self._untold: list[E] = []
        """Events of this turn of the loop."""
        self._applying = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for: float | None = None
        self._turning: asyncio.Handle | None = None

    def start(self) -> None:
        """Begin to keep the core's deadlines, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._arm()

    def close(self) -> None:
        self._tell_events()
        self._loop = None
        self._disarm()
        if self._turning is not None:
            self._turning.cancel()

    def datagram(self, data: bytes, source: Endpoint) -> None:
        """One control datagram as it came from the socket."""
        if self._quick is not None and data and data[0] >> 4 in QUICK and self._answered(data, source, self._quick):
            return
        self.began = self._clock()
        try:
            message = decode(data)
        except PeerError as error:
            self._rejects.add("malformed", source, str(error))
            return
        except Exception as error:
            self._bug(error, "decode", source, data)
            return
        try:
            effects = self._core.received(message, data, source, self.began)
        except Exception as error:
            self._bug(error, type(message).__name__, source, data)
            return
        answer: object = effects[0] if len(effects) == 1 and not self._applying else None
        if not isinstance(answer, Transmit):
            self._apply(effects)
            return
        try:  # nothing to queue and nothing to choose: the way of an answer on a busy path
            self._send(answer.datagram, answer.to)
        except Exception as error:
            self._bug(error, "Transmit", source, data)
        if self._turning is None:
            self._turn_soon()

    def _answered(
        self, data: bytes, source: Endpoint, quick: Callable[[bytes, Endpoint, float], Transmit | list[E] | None]
    ) -> bool:
        try:
            answer = quick(data, source, self._clock())
            if answer is None:
                return False
            if isinstance(answer, list):
                self._apply(answer)
                return True
            self._send(answer.datagram, answer.to)
        except Exception as error:
            self._bug(error, "quick", source, data)
        if self._turning is None:
            self._turn_soon()
        return True

    def tell(self, decide: Callable[..., list[E]], *args: object) -> None:
        """Any other input of the core: `decide(*args, now)` returns effects, which are performed."""
        self.began = self._clock()
        try:
            effects = decide(*args, self.began)
        except Exception as error:
            self._bug(error, getattr(decide, "__name__", repr(decide)))
            return
        self._apply(effects)

    def _apply(self, effects: list[E]) -> None:
        if self._applying:
            self._effects.extend(effects)
            return  # performing an effect brought new input: its effects follow those that are still to be done
        self._applying = True
        try:
            # What leads packets and speaks to others, in the core's order: what must be remembered before it is said
            # stands before it there.
            for effect in effects:
                self._performed(effect)
            while self._effects:
                self._performed(self._effects.popleft())
        finally:
            self._applying = False
            self._effects.clear()
            self._turn_soon()

    def _performed(self, effect: E) -> None:
        try:
            if isinstance(effect, Transmit):  # the way of the many
                self._send(effect.datagram, effect.to)
            elif isinstance(effect, _EVENTS):
                self._untold.append(effect)
            else:
                self._one(effect)
        except Exception as error:
            self._bug(error, type(effect).__name__)

    def _one(self, effect: E) -> None:
        match effect:
            case Send(message=message, to=to, key=None):
                self._send(encode(message), to)
            case Send(
                message=MapRegister() | MapNotify() | MapNotifyAck() | MoveMessage() as message,
                to=to,
                key=Key() as key,
            ):
                self._send(sign(message, key), to)
            case Send(message=message):
                raise TypeError(f"a {type(message).__name__} carries no authentication data")
            case Reject(reason=reason, source=source, detail=detail):
                self._rejects.add(reason, source, detail)
            case _:
                self._perform(effect)

    def _turn_soon(self) -> None:
        """What is done once a turn of the loop, however many datagrams it brought, when their answers have left."""
        if self._loop is None:
            self._tell_events()
        elif self._turning is None:
            self._turning = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = None
        self._tell_events()
        self._arm()

    def _tell_events(self) -> None:
        """Each may write a line to the log: nobody on the network waits for it."""
        untold, self._untold = self._untold, []
        for effect in untold:
            try:
                if isinstance(effect, EmitEach):
                    self._events.append_each(effect.name, effect.build, effect.of)
                elif isinstance(effect, Emit):
                    self._events.append(effect.name, effect.fields)
            except Exception as error:
                self._bug(error, type(effect).__name__)

    def _arm(self) -> None:
        """Keep one timer; touch it only when the earliest deadline changed."""
        if self._loop is None:
            return
        deadline = self._core.next_deadline()
        if deadline == self._armed_for and self._timer is not None:
            return
        self._disarm()
        if deadline is not None:
            self._armed_for = deadline
            self._timer = self._loop.call_later(max(deadline - self._clock(), SHORTEST_WAIT), self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._armed_for = None

    def _expire(self) -> None:
        self._timer = None
        self._armed_for = None
        now = self._clock()
        deadline = self._core.next_deadline()
        if deadline is None or deadline > now:  # the loop's clock is coarser than ours
            self._arm()
            return
        self.tell(self._core.expired)

    def _bug(self, error: Exception, doing: str, source: Endpoint | None = None, datagram: bytes = b"") -> None:
        if self._strict:
            raise error
        self._rejects.bug(error, doing=doing, source=source, datagram=datagram)
