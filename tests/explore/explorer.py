"""Breadth-first search through worlds: the first violation that is found has a shortest trace.

Worlds are kept as 64-bit hashes, each with the one that it came from and the number of the action; a trace is played
again from the start. Of every world it is checked that a run without further faults comes to a good rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
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


def explore(
    start: World,
    *,
    most_states: int,
    always: Check = invariants.always,
    at_rest: Check = invariants.at_rest,
    progress: Callable[[int, int, int], None] | None = None,
) -> Result:
    """Explore at most `most_states` worlds, whole levels of depth as long as that allows."""
    began = time.perf_counter()
    came: dict[int, tuple[int, int]] = {hash(start): (0, -1)}
    good: set[int] = set()
    level, depth, transitions = [start], 0, 0
    while level:
        following: list[World] = []
        for world in level:
            key = hash(world)
            why, rest, end = _wrong(world, good, always, at_rest)
            if why is not None:
                trace = _trace(start, key, came)
                found = Violation(why, trace, rest, end)
                return Result(len(came), transitions, depth, False, time.perf_counter() - began, found)
            if len(came) >= most_states:
                continue
            for number, action in enumerate(actions.possible(world)):
                following_world = after(world, action)
                transitions += 1
                following_key = hash(following_world)
                if following_key not in came:
                    came[following_key] = (key, number)
                    following.append(following_world)
        if len(came) >= most_states and following:
            # what was found last is checked too, and not explored further
            for world in following:
                why, rest, end = _wrong(world, good, always, at_rest)
                if why is not None:
                    found = Violation(why, _trace(start, hash(world), came), rest, end)
                    return Result(len(came), transitions, depth + 1, False, time.perf_counter() - began, found)
            return Result(len(came), transitions, depth + 1, False, time.perf_counter() - began, None)
        level = following
        depth += bool(level)
        if progress is not None:
            progress(depth, len(level), len(came))
    return Result(len(came), transitions, depth, True, time.perf_counter() - began, None)


def _wrong(
    world: World, good: set[int], always: Check, at_rest: Check
) -> tuple[str | None, tuple[tuple[World, Action], ...], World]:
    """What is wrong with a world, or with where a run without further faults leads from it."""
    if (why := always(world)) is not None:
        return why, (), world
    path: list[tuple[World, Action]] = []
    seen: list[int] = []
    for _ in range(FAIR_STEPS):
        key = hash(world)
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
        if (why := always(world)) is not None:
            return why, tuple(path), world
    return f"no rest within {FAIR_STEPS} steps", tuple(path[:60]), world


def _trace(start: World, key: int, came: dict[int, tuple[int, int]]) -> tuple[tuple[World, Action], ...]:
    numbers: list[int] = []
    while came[key][1] >= 0:
        key, number = came[key]
        numbers.append(number)
    world, trace = start, []
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
    for number, (world, action) in enumerate((*violation.trace, *violation.rest)):
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
