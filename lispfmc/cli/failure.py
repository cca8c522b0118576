"""How a verb fails: one line that says what, where, why and what to do, and the exit code.

Exit codes are an API (docs): 0 done, 1 condition not met, 2 cannot reach, 64 usage, 78 bad configuration.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

DONE, CONDITION, UNREACHABLE, USAGE, CONFIG = 0, 1, 2, 64, 78


class Failure(Exception):  # noqa: N818 - reads as what it is: the end of the command
    """Ends the command: `what: why; do` on stderr, and `code`."""

    def __init__(self, code: int, what: str, why: str, do: str = "") -> None:
        super().__init__(f"{what}: {why}" + (f"; {do}" if do else ""))
        self.code = code


def unknown(kind: str, name: str, known: Iterable[str]) -> Failure:
    """A name that means nothing here: lists what does, and suggests the nearest."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    listed = ", ".join(names) if names else "none"
    return Failure(USAGE, f"unknown {kind} {name!r}", f"known: {listed}", f"did you mean {near[0]!r}?" if near else "")
