"""`make explore`: the long exploration. Prints each level of depth, then the figures, or the shortest trace."""

from __future__ import annotations

import argparse
import sys

from tests.explore.explorer import along, explore, sequence
from tests.explore.test_explore import FAULTS
from tests.explore.world import initial


def main() -> int:
    parser = argparse.ArgumentParser(description="explore the moves exhaustively, to a bound")
    parser.add_argument("--states", type=int, default=1_000_000, help="distinct states, at least")
    parser.add_argument("--bicast", action="store_true", help="without STOP events: copies from PREPARE on")
    wanted = parser.parse_args()
    starts = along(initial(FAULTS, bicast=wanted.bicast))
    print(f"{FAULTS}\nfrom each of the {len(starts)} states of a move in which nothing goes wrong")

    def progress(depth: int, level: int, states: int) -> None:
        print(f"depth {depth:2}: {level:9,} new states, {states:9,} in all", flush=True)

    result = explore(starts, most_states=wanted.states, progress=progress)
    whole = "everything within the faults" if result.complete else f"all within {result.depth - 1} actions of a start"
    print(f"{result.states:,} states, {result.transitions:,} transitions in {result.seconds:.0f} s: {whole}")
    if result.violation is None:
        return 0
    print(sequence(result.violation))
    return 1


sys.exit(main())
