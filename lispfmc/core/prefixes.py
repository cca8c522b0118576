"""Tables keyed by EID-Prefix: longest match, more-specifics, and the hole around an address that is not there.

One dictionary per prefix length, probed longest first: LISP tables hold few distinct lengths, and this beats every
trie in lookup, insertion and memory. Beside it the addresses of each length in order, which give the more-specifics
under a prefix and the neighbours of a hole without a walk. Each (Instance-ID, family) is a table of its own.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

from lispfmc.wire.address import Ip, Prefix, masked

V = TypeVar("V")

_IPV4 = 4  # bytes
_BLOCK = 1024  # addresses in a block of `_Ordered`: an insertion moves at most this many pointers


class _Ordered:
    """Addresses of one family in ascending order, in blocks so that insertion into a million stays cheap.

    IPv4 addresses are kept as machine words: a fraction of the memory, and nothing for the garbage collector to visit.
    """

    __slots__ = ("_blocks", "_lasts", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._blocks: list[array[int] | list[int]] = []
        self._lasts: list[int] = []

    def add(self, ip: Ip) -> None:
        """Insert an address that is not there yet."""
        number = int.from_bytes(ip, "big")
        if not self._blocks:
            self.fill([number])
            return
        at = bisect_left(self._lasts, number)
        if at == len(self._lasts):
            at -= 1
            self._lasts[at] = number
        block = self._blocks[at]
        insort(block, number)
        if len(block) > _BLOCK:
            half = len(block) // 2
            self._blocks[at : at + 1] = [block[:half], block[half:]]
            self._lasts[at : at + 1] = [block[half - 1], block[-1]]

    def add_all(self, ips: Collection[Ip]) -> None:
        """`add` each: at once if nothing lies between the first and the last of them."""
        if not self._blocks:
            self.fill(_numbers(ips))
            return
        numbers = _numbers(ips)
        at = min(bisect_left(self._lasts, numbers[0]), len(self._lasts) - 1)
        block = self._blocks[at]
        inside = bisect_left(block, numbers[0])
        if len(block) + len(numbers) <= _BLOCK and (inside == len(block) or numbers[-1] < block[inside]):
            if isinstance(block, array):
                block[inside:inside] = array("I", numbers)
            else:
                block[inside:inside] = numbers
            self._lasts[at] = block[-1]
        else:
            for ip in ips:
                self.add(ip)

    def fill(self, numbers: list[int]) -> None:
        """Take these, all in order, in place of what is there."""
        step = _BLOCK * 3 // 4  # room for what comes later
        parts = [numbers[at : at + step] for at in range(0, len(numbers), step)]
        self._blocks = [array("I", part) for part in parts] if self._size == _IPV4 else list(parts)
        self._lasts = [part[-1] for part in parts]

    def discard(self, ip: Ip) -> None:
        """Remove an address that is there."""
        number = int.from_bytes(ip, "big")
        at = bisect_left(self._lasts, number)
        block = self._blocks[at]
        del block[bisect_left(block, number)]
        if block:
            self._lasts[at] = block[-1]
        else:
            del self._blocks[at], self._lasts[at]

    def from_(self, ip: Ip) -> Iterator[Ip]:
        """The addresses from `ip` upwards."""
        number, size = int.from_bytes(ip, "big"), self._size
        at = bisect_left(self._lasts, number)
        if at == len(self._blocks):
            return
        block = self._blocks[at]
        for index in range(bisect_left(block, number), len(block)):
            yield block[index].to_bytes(size, "big")
        for later in range(at + 1, len(self._blocks)):
            for each in self._blocks[later]:
                yield each.to_bytes(size, "big")

    def below(self, ip: Ip) -> Iterator[Ip]:
        """The last address below `ip`, where there is one."""
        number = int.from_bytes(ip, "big")
        at = bisect_left(self._lasts, number)
        inside = bisect_left(self._blocks[at], number) if at < len(self._blocks) else 0
        if inside:
            yield self._blocks[at][inside - 1].to_bytes(self._size, "big")
        elif at:
            yield self._lasts[at - 1].to_bytes(self._size, "big")


class _Length(Generic[V]):
    """The entries of one prefix length."""

    __slots__ = ("order", "values")

    def __init__(self, size: int) -> None:
        self.values: dict[Ip, V] = {}
        self.order = _Ordered(size)


class PrefixTable(Generic[V]):
    """EID-Prefixes of any Instance-ID and both families, with a value each. The owner sees to the table's bound."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], dict[int, _Length[V]]] = {}  # lengths descending
        self._count = 0

    def get(self, prefix: Prefix) -> V | None:
        """The value of exactly this prefix."""
        ip = prefix.ip
        lengths = self._tables.get((prefix.iid, len(ip)))
        entries = lengths.get(prefix.length) if lengths is not None else None
        return entries.values.get(ip) if entries is not None else None

    def hosts(self, size: int) -> dict[Ip, V]:
        """The hosts with addresses of that many bytes, outside of any Instance-ID. To be read; the values of those
        that are there may be replaced."""
        entries = self._tables.get((0, size), {}).get(size * 8)
        return entries.values if entries is not None else {}

    def set(self, prefix: Prefix, value: V) -> None:
        """Add the prefix or replace its value."""
        ip = prefix.ip
        entries = self._length(prefix.iid, len(ip), prefix.length)
        if ip not in entries.values:
            entries.order.add(ip)
            self._count += 1
        entries.values[ip] = value

    def add_hosts(self, ips: Sequence[Ip], values: Sequence[V]) -> None:
        """Add hosts outside of any Instance-ID, of one family and none of them twice, that are not there yet."""
        entries = self._length(0, len(ips[0]), len(ips[0]) * 8)
        if len(ips) > 1:
            entries.order.add_all(ips)
        else:
            entries.order.add(ips[0])
        entries.values.update(zip(ips, values, strict=True))
        self._count += len(ips)

    def _length(self, iid: int, size: int, length: int) -> _Length[V]:
        """The entries of that length, where the next one can be put."""
        lengths = self._tables.get((iid, size))
        if lengths is None:
            lengths = self._tables[iid, size] = {}
        entries = lengths.get(length)
        if entries is None:
            entries = lengths[length] = _Length(size)
            self._tables[iid, size] = dict(sorted(lengths.items(), reverse=True))
        return entries

    def fill(self, entries: Iterable[tuple[int, Ip, int, V]]) -> None:
        """Add many at once: Instance-ID, address, length and value of each. Much quicker than to `set` each."""
        places: dict[tuple[int, int, int], dict[Ip, V]] = {}
        for iid, ip, length, value in entries:
            place = places.get((iid, len(ip), length))
            if place is None:
                lengths = self._tables.setdefault((iid, len(ip)), {})
                place = places[iid, len(ip), length] = lengths.setdefault(length, _Length(len(ip))).values
            place[ip] = value
        self._count = 0
        for key, lengths in self._tables.items():
            self._tables[key] = dict(sorted(lengths.items(), reverse=True))
            for each in lengths.values():
                self._count += len(each.values)
                each.order.fill(_numbers(each.values))

    def remove(self, prefix: Prefix) -> V | None:
        """Remove the prefix and return its value; None when it was not there."""
        lengths = self._lengths(prefix)
        entries = lengths.get(prefix.length)
        if entries is None or prefix.ip not in entries.values:
            return None
        value = entries.values.pop(prefix.ip)
        entries.order.discard(prefix.ip)
        self._count -= 1
        if not entries.values:
            del lengths[prefix.length]
            if not lengths:  # Instance-IDs come from the network: none may leave anything behind
                del self._tables[prefix.iid, len(prefix.ip)]
        return value

    def longest(self, prefix: Prefix) -> tuple[Prefix, V] | None:
        """The most specific entry that covers `prefix` (an entry covers itself)."""
        return next(self.covering(prefix), None)

    def alone(self, iid: int, ip: Ip) -> V | None:
        """The longest match of one address if nothing more specific lies inside it; else, and without one, None."""
        lengths = self._tables.get((iid, len(ip)))
        if lengths is None:
            return None
        host = len(ip) * 8
        for length, entries in lengths.items():
            start = ip if length == host else masked(ip, length)
            value = entries.values.get(start)
            if value is not None:
                return value if length == host or _is_leaf(lengths, start, length) else None
        return None

    def covers(self, prefix: Prefix) -> bool:
        """Whether an entry covers `prefix` (an entry covers itself)."""
        ip, most = prefix.ip, prefix.length
        lengths = self._tables.get((prefix.iid, len(ip)))
        if lengths is not None:
            for length, entries in lengths.items():
                if length <= most and (ip if length == most else masked(ip, length)) in entries.values:
                    return True
        return False

    def uncovered(self, ips: Sequence[Ip]) -> Sequence[Ip]:
        """Those of these addresses, outside of any Instance-ID and of one family, that no entry covers."""
        for length, entries in self._tables.get((0, len(ips[0])), {}).items() if ips else ():
            values, host = entries.values, len(ips[0]) * 8
            if length == host:
                ips = [ip for ip in ips if ip not in values]
            else:
                ips = [ip for ip in ips if masked(ip, length) not in values]
            if not ips:
                break
        return ips

    def covering(self, prefix: Prefix) -> Iterator[tuple[Prefix, V]]:
        """Every entry that covers `prefix`, the most specific first. The table may not change meanwhile."""
        for length, entries in self._lengths(prefix).items():
            if length > prefix.length:
                continue
            ip = masked(prefix.ip, length)
            if ip in entries.values:
                yield Prefix(prefix.iid, ip, length), entries.values[ip]

    def covered_by(self, prefix: Prefix) -> Iterator[tuple[Prefix, V]]:
        """The entries within `prefix`, itself included: shortest first, then by address. No change meanwhile."""
        for length, entries in reversed(self._lengths(prefix).items()):
            if length < prefix.length:
                continue
            for ip in entries.order.from_(prefix.ip):
                if masked(ip, prefix.length) != prefix.ip:
                    break
                yield Prefix(prefix.iid, ip, length), entries.values[ip]

    def hole(self, prefix: Prefix, shortest: int = 0) -> Prefix:
        """The least specific prefix that covers `prefix` and no entry, at least `shortest` bits long.

        Entries that cover `prefix` are left out of account: the hole in an aggregate lies inside the aggregate.
        With an entry inside `prefix` itself, the answer is `prefix`.
        """
        length = shortest
        for entry_length, entries in self._lengths(prefix).items():
            start = masked(prefix.ip, min(entry_length, prefix.length))
            covers = entry_length <= prefix.length and start in entries.values
            # the entry that shares most bits with an address is one of its two neighbours in order
            above = islice(entries.order.from_(start), int(covers), int(covers) + 1)
            for ip in (*entries.order.below(start), *above):
                length = max(length, _shared_bits(ip, prefix.ip) + 1)
        length = min(length, prefix.length)
        return Prefix(prefix.iid, masked(prefix.ip, length), length)

    def items(self) -> Iterator[tuple[Prefix, V]]:
        """Every entry: by Instance-ID and family as they came, then shortest first, by address."""
        for iid, size in self._tables:
            yield from self.covered_by(Prefix(iid, bytes(size), 0))

    def following(self, after: Prefix | None) -> Iterator[tuple[Prefix, V]]:
        """Every entry after `after`, which need not be there: by Instance-ID, family, length and address.

        The table may change between two calls, not during one: so a million entries can be walked in pages.
        """
        start = (after.iid, len(after.ip), after.length) if after is not None else (-1, 0, 0)
        for iid, size in sorted(self._tables):
            for length in sorted(self._tables[iid, size]):
                if (iid, size, length) < start:
                    continue
                entries = self._tables[iid, size][length]
                here = after is not None and (iid, size, length) == start
                for ip in entries.order.from_(after.ip if here and after is not None else bytes(size)):
                    if not here or after is None or ip > after.ip:
                        yield Prefix(iid, ip, length), entries.values[ip]

    def values(self) -> Iterator[V]:
        """The values alone, in the order of `items`."""
        return (value for _, value in self.items())

    def __contains__(self, prefix: Prefix) -> bool:
        entries = self._lengths(prefix).get(prefix.length)
        return entries is not None and prefix.ip in entries.values

    def __len__(self) -> int:
        return self._count

    def _lengths(self, prefix: Prefix) -> dict[int, _Length[V]]:
        return self._tables.get((prefix.iid, len(prefix.ip)), {})


def _is_leaf(lengths: dict[int, _Length[V]], ip: Ip, length: int) -> bool:
    """Nothing lies within `ip`/`length` but itself."""
    for longer, entries in lengths.items():  # the longest first
        if longer == length:
            return True
        nearest = next(entries.order.from_(ip), None)
        if nearest is not None and masked(nearest, length) == ip:
            return False
    return True


def _numbers(ips: Collection[Ip]) -> list[int]:
    """The addresses of one family as numbers, in order."""
    if len(next(iter(ips), b"")) != _IPV4:
        return sorted(int.from_bytes(ip, "big") for ip in ips)
    words = array("I", b"".join(ips))
    if sys.byteorder == "little":
        words.byteswap()
    return sorted(words)


def _shared_bits(one: Ip, other: Ip) -> int:
    return len(one) * 8 - (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_length()
