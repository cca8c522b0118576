"""Breadth-first search through worlds: the first violation that is found has a shortest trace.

Worlds are kept as 64-bit hashes, each with the one that it came from and the number of the action; a trace is played
again from the start. Of every world it is checked that a run without further faults comes to a good rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.explore import actions, invariants
from tests.explore.actions import Action
from tests.explore.world import NAMES, Draft, World

FAIR_STEPS = 400
Check = Callable[[World], str | None]


class Violation(NamedTuple):
    """What is wrong, and how it came about, with the world before each action."""

    why: str
    trace: tuple[tuple[World, Action], ...]
    rest: tuple[tuple[World, Action], ...]
    end: World


class Result(NamedTuple):
    states: int
    transitions: int
    depth: int
    complete: bool
    """Nothing was left to explore within the budget of faults."""
    seconds: float
    violation: Violation | None


def after(world: World, action: Action) -> World:
    draft = Draft(world)
    action.change(draft)
    return draft.world()


def along(start: World) -> list[World]:
    """The worlds of the run in which nothing goes wrong, the first and the last included."""
    worlds = [start]
    while (action := actions.fair(worlds[-1])) is not None:
        worlds.append(after(worlds[-1], action))
    return worlds


def explore(
    starts: Sequence[World],
    *,
    most_states: int,
    always: Check = invariants.always,
    at_rest: Check = invariants.at_rest,
    progress: Callable[[int, int, int], None] | None = None,
) -> Result:
    """Explore at most `most_states` worlds, from all of `starts` at once, level by level."""
    began = time.perf_counter()
    came: dict[int, tuple[int, int]] = {hash(start): (number, -1) for number, start in enumerate(starts)}
    good: set[int] = set()
    level, depth, transitions = list(starts), 0, 0

    def result(violation: Violation | None, *, complete: bool) -> Result:
        return Result(len(came), transitions, depth, complete, time.perf_counter() - began, violation)

    while level:
        following: list[World] = []
        for world in level:
            key = hash(world)
            why, rest, end = _wrong(world, key, good, always, at_rest)
            if why is not None:
                return result(Violation(why, _trace(starts, key, came), rest, end), complete=False)
            if len(came) >= most_states:
                continue  # what was found last is checked, and not explored further
            for number, action in enumerate(actions.possible(world)):
                next_world = after(world, action)
                transitions += 1
                next_key = hash(next_world)
                if next_key not in came:
                    came[next_key] = (key, number)
                    following.append(next_world)
        if not following and len(came) >= most_states:
            return result(None, complete=False)
        level = following
        depth += bool(level)
        if progress is not None:
            progress(depth, len(level), len(came))
    return result(None, complete=True)


def _wrong(
    world: World, key: int, good: set[int], always: Check, at_rest: Check
) -> tuple[str | None, tuple[tuple[World, Action], ...], World]:
    """What is wrong with a world, or with where a run without further faults leads from it."""
    if (why := always(world)) is not None:
        return why, (), world
    path: list[tuple[World, Action]] = []
    seen: list[int] = []
    for _ in range(FAIR_STEPS):
        if key in good:
            good.update(seen)
            return None, (), world
        seen.append(key)
        action = actions.fair(world)
        if action is None:
            why = at_rest(world)
            if why is not None:
                return why, tuple(path), world
            good.update(seen)
            return None, (), world
        path.append((world, action))
        world = after(world, action)
        key = hash(world)
        if (why := always(world)) is not None:
            return why, tuple(path), world
    return f"no rest within {FAIR_STEPS} steps", tuple(path[:60]), world


def _trace(starts: Sequence[World], key: int, came: dict[int, tuple[int, int]]) -> tuple[tuple[World, Action], ...]:
    """From the first of the starts, by the run in which nothing goes wrong, to the one that leads here."""
    numbers: list[int] = []
    while came[key][1] >= 0:
        key, number = came[key]
        numbers.append(number)
    world, trace = starts[0], []
    while hash(world) != key:
        action = actions.fair(world)
        assert action is not None, "every start lies on the run of the first one"
        trace.append((world, action))
        world = after(world, action)
    for number in reversed(numbers):
        action = list(actions.possible(world))[number]
        trace.append((world, action))
        world = after(world, action)
    return tuple(trace)


COLUMNS = (4, 1, 2, 5, 3)
WIDTH = 26


def sequence(violation: Violation) -> str:
    """The violation as a sequence diagram."""
    head = "".join(NAMES[node].center(WIDTH) for node in COLUMNS)
    lines = [violation.why, "", head]
    for number, (_, action) in enumerate((*violation.trace, *violation.rest)):
        if number == len(violation.trace):
            lines.append("- - - from here on nothing goes wrong ".ljust(WIDTH * len(COLUMNS), "-"))
        lines.append(_arrow(action))
    end = violation.end
    states = f"x1 {end.roles[0].state}, x2 {end.roles[1].state}, FMCC {end.lead.state}"
    lines.append(f"in the end: {states}; the machine is at {NAMES.get(end.machine[0], 'no site')}")
    return "\n".join(lines)


def _arrow(action: Action) -> str:
    source, to = COLUMNS.index(action.source), COLUMNS.index(action.to)
    centre = [WIDTH * column + WIDTH // 2 for column in range(len(COLUMNS))]
    line = [" "] * (WIDTH * len(COLUMNS))
    for column in centre:
        line[column] = "|"
    if source == to:
        return "".join(line)[: centre[source]] + f"* {action.text}"
    left, right = sorted((centre[source], centre[to]))
    line[left + 1 : right] = "-" * (right - left - 1)
    text = f" {action.text} "[: right - left - 3]
    at = (left + right - len(text)) // 2
    line[at : at + len(text)] = text
    if to > source:
        line[right - 1] = ">"
    else:
        line[left + 1] = "<"
    return "".join(line).rstrip()
