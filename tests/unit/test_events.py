"""The event log: one bounded ring, any number of readers, nobody waits for a slow one."""

from __future__ import annotations

import asyncio

from lispfmc.core.effects import FieldValue
from lispfmc.runtime.events import GAP, EventLog


def log(capacity: int = 4) -> EventLog:
    return EventLog(capacity=capacity, first_id=1, wall_clock=lambda: 1000.0)


def test_events_are_numbered_counted_and_read_from_any_point() -> None:
    events = log()
    for name in ("host.arrived", "host.lost", "host.arrived"):
        events.append(name, {"eid": "100.64.1.10/32"})
    assert [(event.id, event.name) for event in events.since(1)] == [(2, "host.lost"), (3, "host.arrived")]
    assert events.counts == {"host.arrived": 2, "host.lost": 1}
    assert events.since(3) == []


def test_a_reader_that_fell_behind_is_told_what_it_missed() -> None:
    events = log(capacity=3)
    for number in range(10):
        events.append(f"n{number}")
    assert [event.name for event in events.since(2)] == [GAP, "n7", "n8", "n9"]
    assert dict(events.since(2)[0].fields) == {"after": 2, "oldest": 8}
    assert [event.name for event in events.since(0)] == ["n7", "n8", "n9"], "who asks for all gets what there is"
    assert [event.name for event in events.since(7)] == ["n7", "n8", "n9"], "nothing is missing after 7"


def test_ids_go_on_growing_over_a_restart() -> None:
    before = EventLog(wall_clock=lambda: 1000.0)
    last = [before.append("x") for _ in range(3)][-1]
    after = EventLog(wall_clock=lambda: 1001.0)
    after.append("started")
    assert [event.name for event in after.since(last.id)] == [GAP, "started"]


def test_followers_get_each_event_once_and_in_order() -> None:
    async def story() -> None:
        events = log(capacity=100)
        events.append("old")
        seen: dict[str, list[str]] = {"all": [], "new": []}

        async def follow(who: str, after: int | None) -> None:
            async for event in events.follow(after):
                seen[who].append(event.name)
                if event.name == "end":
                    return

        async with asyncio.TaskGroup() as group:
            group.create_task(follow("all", 0))
            group.create_task(follow("new", None))
            for number in range(50):
                if number % 7 == 0:
                    await asyncio.sleep(0)
                events.append(str(number))
            events.append("end")
        assert seen["all"][0] == "old"
        assert seen["all"][1:] == [*map(str, range(50)), "end"]
        assert seen["new"] == seen["all"][-len(seen["new"]) :]
        assert "old" not in seen["new"]

    asyncio.run(story())


def test_events_that_come_as_a_lot_are_read_and_counted_one_by_one() -> None:
    events, built = log(capacity=6), []

    def fields(of: int) -> dict[str, FieldValue]:
        built.append(of)
        return {"of": of}

    events.append("before")
    events.append_each("changed", fields, (1, 2, 3))
    events.append("after")
    built.clear()  # the first few were logged
    assert [(event.id, event.name) for event in events.since(3)] == [(4, "changed"), (5, "after")]
    assert events.counts == {"before": 1, "changed": 3, "after": 1}
    assert built == [1, 2, 3], "built when they are read"
    assert [event.fields for event in events.since(1)][:3] == [{"of": 1}, {"of": 2}, {"of": 3}]


def test_a_lot_is_kept_until_none_of_it_is_wanted() -> None:
    events = log(capacity=3)
    for number in range(6):
        events.append_each("changed", lambda of: {"of": of}, (number, number))
    assert [event.id for event in events.since(0)] == [9, 10, 11, 12], "three, and what came with the oldest of them"
    assert [event.name for event in events.since(3)] == [GAP, *["changed"] * 4]
    events.append_each("changed", lambda of: {"of": of}, range(255))
    events.append("after")
    assert len(events.since(0)) == 256
    for _ in range(3):
        events.append("after")
    assert [event.name for event in events.since(0)] == ["after"] * 3, "the lot is gone once it is not wanted"


def test_an_id_of_an_earlier_run_whose_clock_was_ahead_is_a_gap_and_misses_nothing() -> None:
    log = EventLog(first_id=100, wall_clock=lambda: 1000.0)
    assert [event.name for event in log.since(5000)] == [GAP]
    log.append("host.arrived")
    assert [event.name for event in log.since(5000)] == [GAP, "host.arrived"]
    assert log.since(5000)[0].fields == {"after": 5000, "oldest": 100}
    assert log.since(100) == []
