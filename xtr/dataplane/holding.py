"""Packets of EIDs that move: the target's hold queue, the source's ring of copies, the gate of the end marker.

Each is bounded in bytes and in time, and all of a router's together in bytes; what does not fit or stays too long is
counted, never silently gone. Numbers are those of the shim (`lispfmc.wire.moves.MoveShim`): they put copies in order,
and show which ones are there already.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from typing import NamedTuple

from lispfmc.wire.address import Ip

SEQUENCES = 1 << 32
_HALF = SEQUENCES // 2
WINDOW = 4096
"""Numbers below the highest that are remembered one by one; what is older than that has been seen."""


GIVING_S = 0.01
"""How long a packet may take from the router to the service: a busy router notes the time before it works off many."""


class Numbered(NamedTuple):
    """A packet with its number in the move, and when it came in."""

    sequence: int
    packet: bytes
    at: float


class Seen:
    """Which numbers have come in: a window below the highest, as in RFC 4303 §3.4.3."""

    def __init__(self) -> None:
        self._highest: int | None = None
        self._bits = 0

    def first(self, sequence: int) -> bool:
        """True the first time that a number comes in."""
        if self._highest is None:
            self._highest, self._bits = sequence, 1
            return True
        ahead = (sequence - self._highest) % SEQUENCES
        if 0 < ahead < _HALF:
            self._bits = (self._bits << min(ahead, WINDOW) | 1) & ((1 << WINDOW) - 1)
            self._highest = sequence
            return True
        behind = (self._highest - sequence) % SEQUENCES
        if behind >= WINDOW or self._bits >> behind & 1:
            return False
        self._bits |= 1 << behind
        return True


class Room:
    """What all moves of a router may keep together: a hundred of them have a limit each, and one memory."""

    def __init__(self, most_bytes: int) -> None:
        self._free = most_bytes
        self._half = most_bytes // 2

    def fits(self, size: int) -> bool:
        return size <= self._free

    def take(self, size: int, *, spare: bool = False) -> bool:
        """False when there is no room for `size` bytes more. What can be spared leaves half of it to what cannot."""
        if size > self._free - (self._half if spare else 0):
            return False
        self._free -= size
        return True

    def give(self, size: int) -> None:
        self._free += size


class HoldQueue:
    """The target's: packets that wait for the service, in the order of the source."""

    def __init__(self, most_bytes: int, most_s: float, room: Room | None = None) -> None:
        self._room = room or Room(most_bytes)
        self._most_bytes = most_bytes
        self._most_s = most_s
        self._packets: list[Numbered] = []
        self._oldest = 0.0
        """When the first came in of those that are held; it need not be the first in order."""
        self._bytes = 0
        self._seen = Seen()
        self.counters: Counter[str] = Counter()

    def put(self, sequence: int | None, packet: bytes, now: float) -> bool:
        """Hold a packet; False when it is a copy, or there is no room (tail drop).

        One without a number, because the path had no room for it, goes behind what is there.
        """
        if self._bytes + len(packet) > self._most_bytes:
            if self._packets and now - self._oldest > self._most_s:  # else nothing is late: not for each packet
                self.expire(now)
            if self._bytes + len(packet) > self._most_bytes:
                self.counters["dropped.hold-full"] += 1
                return False
        if sequence is None:
            sequence = self._packets[-1].sequence if self._packets else 0
        elif not self._seen.first(sequence):
            self.counters["duplicate"] += 1
            return False
        if not self._room.take(len(packet)):
            self.counters["dropped.room-full"] += 1
            return False
        one = Numbered(sequence, packet, now)
        if not self._packets:
            self._oldest = now
        if not self._packets or not self._after(one, self._packets[-1]):
            self._packets.append(one)
        else:  # it was overtaken
            base = self._packets[0].sequence - _HALF
            insort(self._packets, one, key=lambda each: (each.sequence - base) % SEQUENCES)
        self._bytes += len(packet)
        self.counters["held"] += 1
        return True

    def fresh(self, sequence: int) -> bool:
        """After the queue was drained: whether a packet that comes late is no copy."""
        if self._seen.first(sequence):
            return True
        self.counters["duplicate"] += 1
        return False

    def drain(self, now: float) -> list[bytes]:
        """Take out everything, in order."""
        self.expire(now)
        self._room.give(self._bytes)
        packets, self._packets, self._bytes = self._packets, [], 0
        self.counters["drained"] += len(packets)
        return [one.packet for one in packets]

    def discard(self) -> int:
        """The move was given up: the source has copies."""
        self._room.give(self._bytes)
        count, self._packets, self._bytes = len(self._packets), [], 0
        self.counters["discarded"] += count
        return count

    def expire(self, now: float) -> int:
        """Drop what has waited too long."""
        kept = [one for one in self._packets if now - one.at <= self._most_s]
        dropped = len(self._packets) - len(kept)
        if dropped:
            left = sum(len(one.packet) for one in kept)
            self._room.give(self._bytes - left)
            self._packets, self._bytes = kept, left
            self._oldest = min((one.at for one in kept), default=now)
            self.counters["dropped.hold-late"] += dropped
        return dropped

    def __len__(self) -> int:
        return len(self._packets)

    @staticmethod
    def _after(last: Numbered, one: Numbered) -> bool:
        """`one` comes after `last`."""
        return 0 < (one.sequence - last.sequence) % SEQUENCES < _HALF


LATE_S = 8.0
"""So late STOP may be heard of: where it says when the machine stopped, everything since then is sent again. A host
that stops a hundred machines at once was seen to tell it 4 s late; an instant is told modulo 16 s."""
MARK_S = 0.1
MARKS = 200


class ReplayRing:
    """The source's: copies of what was delivered lately, then of all that is forwarded.

    What was handed over just before STOP may have died with the machine, and what was handed over after it has: of
    those, `recent_s` are sent again when nobody says how long ago it stopped. Once frozen it keeps everything, bounded
    in bytes alone: the target may have to give the move up.
    """

    def __init__(self, most_bytes: int, recent_s: float, room: Room | None = None, *, first: int = 0) -> None:
        """`first` is the number of the first packet."""
        self._room = room or Room(most_bytes)
        self._most_bytes = most_bytes
        self._recent_s = recent_s
        self._packets: deque[Numbered] = deque()
        self._bytes = 0
        self._next = first
        self._frozen = False
        self._gone_at = float("-inf")
        """When the last copy came in that had to make room."""
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS)
        """Now and then: the time, and the number of the next packet."""
        self.counters: Counter[str] = Counter()

    def put(self, packet: bytes, now: float) -> int:
        """Keep a copy; its number. The oldest copies make room while delivering, the newest is left out when frozen."""
        number, size = self.number(), len(packet)
        if not self._marks or now - self._marks[-1][0] >= MARK_S:
            self._marks.append((now, number))
        keep_s = max(self._recent_s, LATE_S) if self._recent_s else 0.0
        while not self._frozen and self._packets and now - self._packets[0].at > keep_s:
            self._give_up_oldest()
        while not (self._bytes + size <= self._most_bytes and self._room.take(size, spare=not self._frozen)):
            if self._frozen or not self._packets:
                self.counters["dropped.copies-full"] += 1
                return number
            self._give_up_oldest()
        self._packets.append(Numbered(number, packet, now))
        self._bytes += size
        return number

    def number(self) -> int:
        """The next packet's number; no copy is kept of it."""
        number, self._next = self._next, (self._next + 1) % SEQUENCES
        return number

    def freeze(self, now: float, stopped_s: float | None = None) -> list[Numbered]:
        """The service has stopped, `stopped_s` ago if that is known: what to send at once, in order. Everything is kept
        from now on. What it was given before, it has received; but what was just being given is sent again."""
        recent_s = stopped_s + GIVING_S if stopped_s is not None and self._recent_s else self._recent_s
        if stopped_s is not None and self._gone_at > now - stopped_s:
            self.counters["dropped.stop-late"] += self._gone_since(now - stopped_s)
        while self._packets and now - self._packets[0].at > recent_s:
            self._drop_oldest()
        self._frozen = True
        self.counters["replayed"] += len(self._packets)
        return list(self._packets)

    def copies(self) -> list[Numbered]:
        """Everything that is kept, in order: to be sent once more, or delivered here after all."""
        return list(self._packets)

    def clear(self) -> int:
        """The target has them."""
        count = len(self._packets)
        self._room.give(self._bytes)
        self._packets.clear()
        self._bytes = 0
        self._frozen = False
        return count

    def _gone_since(self, at: float) -> int:
        """How many copies of what came since then are not there any more; at least, to a tenth of a second."""
        oldest = self._packets[0].sequence if self._packets else self._next
        first = next((number for when, number in self._marks if when >= at), oldest)
        gone = (oldest - first) % SEQUENCES
        return gone if 0 < gone < _HALF else 1

    def _give_up_oldest(self) -> None:
        self._gone_at = self._packets[0].at
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        size = len(self._packets.popleft().packet)
        self._bytes -= size
        self._room.give(size)

    def __len__(self) -> int:
        return len(self._packets)


class MarkerGate:
    """At the target: a peer's direct packets wait until its end marker has come by the old path.

    Otherwise they overtake those that the source still forwards. The wait is bounded: a marker can be lost.
    """

    def __init__(self, most_bytes: int, most_s: float, room: Room | None = None) -> None:
        self._room = room or Room(most_bytes)
        self._most_bytes = most_bytes
        self._most_s = most_s
        self._waiting: dict[Ip, deque[tuple[bytes, float]]] = {}
        self._passed: set[Ip] = set()
        self._bytes = 0
        self.counters: Counter[str] = Counter()

    def direct(self, peer: Ip, packet: bytes, now: float) -> list[bytes]:
        """A packet straight from `peer`: what may be delivered now."""
        if peer in self._passed:
            return [packet]
        queue = self._waiting.setdefault(peer, deque())
        late = bool(queue) and now - queue[0][1] > self._most_s
        if late or self._bytes + len(packet) > self._most_bytes or not self._room.take(len(packet)):
            self.counters["marker-missed"] += 1
            return [*self.marked(peer), packet]
        queue.append((packet, now))
        self._bytes += len(packet)
        return []

    def marked(self, peer: Ip) -> list[bytes]:
        """The end marker of `peer` came by the old path: what waited for it."""
        self._passed.add(peer)
        queue = self._waiting.pop(peer, deque())
        size = sum(len(packet) for packet, _ in queue)
        self._bytes -= size
        self._room.give(size)
        return [packet for packet, _ in queue]

    def expired(self, now: float) -> list[bytes]:
        """What has waited for a marker too long."""
        late = [peer for peer, queue in self._waiting.items() if queue and now - queue[0][1] > self._most_s]
        self.counters["marker-missed"] += len(late)
        return [packet for peer in late for packet in self.marked(peer)]
