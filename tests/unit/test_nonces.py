"""Ordered nonces grow: within a millisecond, over restarts, when the clock steps back; using one touches no disk."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from lispfmc.runtime import nonces as module
from lispfmc.runtime.nonces import FILE, RESERVED, RESERVED_S, OrderedNonces, ordered_nonces
from lispfmc.wire.errors import LocalError

NOON = 1_790_000_000.0


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def take(nonces: OrderedNonces, number: int = 1000) -> list[int]:
    return list(itertools.islice(nonces, number))


def mark(folder: Path, name: str = FILE) -> int:
    return int((folder / name).read_text(), 16)


def grows(nonces: list[int]) -> bool:
    return all(later > earlier for earlier, later in itertools.pairwise(nonces))


def test_a_nonce_is_unix_milliseconds_and_a_counter() -> None:
    clock = Clock()
    nonces = ordered_nonces(wall_clock=clock)
    assert take(nonces, 3) == [(int(NOON * 1000) << 20) + number for number in range(3)]
    clock.now += 0.001
    assert next(nonces) == (int(NOON * 1000) + 1) << 20


def test_a_million_and_more_in_one_millisecond_stay_in_order_with_the_next() -> None:
    clock = Clock()
    nonces = ordered_nonces(wall_clock=clock)
    many = take(nonces, (1 << 20) + 10)
    clock.now += 0.001
    assert many[-1] - many[0] == len(many) - 1
    assert next(nonces) == many[-1] + 1


def test_a_clock_that_steps_back_does_not_stop_them_growing(tmp_path: Path) -> None:
    clock = Clock()
    for nonces in (ordered_nonces(wall_clock=clock), ordered_nonces(tmp_path, clock)):
        used = take(nonces)
        clock.now -= 3600
        used += take(nonces)
        clock.now += 3601
        used += take(nonces)
        assert grows(used)
        assert used[-1] >> 20 == int(clock.now * 1000)


@pytest.mark.parametrize("step", [-86400.0, 0.0, 0.5, 86400.0])
def test_they_grow_over_restarts_whatever_the_clock_did_meanwhile(tmp_path: Path, step: float) -> None:
    clock = Clock()
    used: list[int] = []
    for _ in range(5):
        nonces = ordered_nonces(tmp_path / "made" / "on demand", clock)
        used += take(nonces)
        clock.now += step
        used += take(nonces)
    assert grows(used)


def test_the_mark_on_disk_is_above_every_nonce_used_and_using_one_writes_nothing(tmp_path: Path) -> None:
    clock = Clock()
    nonces = ordered_nonces(tmp_path, clock)
    (tmp_path / FILE).rename(tmp_path / "kept")
    first = mark(tmp_path, "kept")
    for _ in range(100):
        assert next(nonces) < first
        clock.now += 60  # far past the mark: suspended, or a renewal that never came
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_mark_that_was_moved_lets_them_follow_the_clock_again(tmp_path: Path) -> None:
    clock = Clock()
    nonces = ordered_nonces(tmp_path, clock)
    clock.now += 2 * RESERVED_S
    assert next(nonces) >> 20 < int(clock.now * 1000)
    nonces.reserve()
    assert next(nonces) >> 20 == int(clock.now * 1000)
    assert mark(tmp_path) == (int(clock.now * 1000) << 20) + RESERVED


class Told(OrderedNonces):
    """Says when the background has tried to move the mark."""

    tried: asyncio.Event
    loop: asyncio.AbstractEventLoop

    def reserve(self) -> None:
        try:
            super().reserve()
        finally:
            if hasattr(self, "loop"):
                self.loop.call_soon_threadsafe(self.tried.set)


def test_the_mark_moves_in_the_background_and_a_disk_that_fails_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESERVED_S", 0.003)
    clock = Clock()

    async def story() -> None:
        nonces = Told(tmp_path / FILE, clock)
        nonces.tried, nonces.loop = asyncio.Event(), asyncio.get_running_loop()
        before = mark(tmp_path)
        nonces.start()
        clock.now += 1
        await asyncio.wait_for(nonces.tried.wait(), 5)
        assert mark(tmp_path) > before
        (tmp_path / FILE).rename(tmp_path / "was")
        (tmp_path / FILE).mkdir()  # from now on it cannot be written: they go on below the mark
        (tmp_path / FILE / "in the way").touch()
        for _ in range(3):
            nonces.tried.clear()
            clock.now += 1200
            await asyncio.wait_for(nonces.tried.wait(), 5)
        assert grows(take(nonces))
        assert next(nonces) < mark(tmp_path, "was")
        nonces.close()
        await asyncio.sleep(0)

    asyncio.run(story())


@pytest.mark.parametrize("text", ["", "not hexadecimal", "-1", "1" * 17, "\N{SNOWMAN}"])
def test_a_damaged_mark_is_refused_and_not_guessed(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(LocalError, match=FILE):
        ordered_nonces(tmp_path)
    assert (tmp_path / FILE).read_text(encoding="utf-8") == text


def test_a_directory_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="state_dir"):
        ordered_nonces(tmp_path / "file")


def test_a_reserve_that_is_used_up_raises_rather_than_repeats(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(f"{(1 << 64) - RESERVED // 2:x}")
    with pytest.raises(LocalError, match="used up"):
        ordered_nonces(tmp_path)
    nonces = ordered_nonces(wall_clock=Clock((1 << 44) / 1000 - 0.001))
    take(nonces, 1 << 20)
    with pytest.raises(LocalError, match="used"):
        next(nonces)
