"""The demonstration: a network is built, a user moves, its service follows, the cost is measured, all is removed.

It has a lab of its own name, so that it neither finds nor disturbs one that is up. Whatever happens, failure and Ctrl-C
included, the lab goes down again.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from lispfmc.lab import lifecycle
from lispfmc.lab.following import site_of
from lispfmc.lab.installation import Installation, NodeEntry, run_directory
from lispfmc.lab.interruption import interruptible, uninterrupted
from lispfmc.lab.measurement import move
from lispfmc.lab.phases import Phase
from lispfmc.lab.report import MoveReport
from lispfmc.wire.errors import LocalError

NAME = "demo"
TIMEOUT_S = 45.0


def run(
    topology: str, *, scheme: str = "", say: Callable[[str], None], on_phase: Callable[[Phase], None]
) -> MoveReport:
    """The report of the first user's move to the other access network; its service follows by `scheme`, or else by the
    topology's. Raises LocalError when it cannot be had."""
    with _the_only_demo(), interruptible():
        if lifecycle.traces(NAME):
            say("removing what an earlier demo left behind")
            lifecycle.down(NAME)
        lab = lifecycle.up(topology, NAME, say, scheme=scheme)  # what fails half-way cleans up after itself
        try:
            return asyncio.run(_measure(lab, say, on_phase))
        finally:
            say("removing the network")
            with uninterrupted():
                lifecycle.down(NAME)


async def _measure(lab: Installation, say: Callable[[str], None], on_phase: Callable[[Phase], None]) -> MoveReport:
    user = lab.users()[0]
    site = await _elsewhere(user)
    say(f"measuring; {user.name} moves to {site}")
    report = await move(lab, user, site, wait=True, measure=True, timeout_s=TIMEOUT_S, on_phase=on_phase)
    return msgspec.structs.replace(report, logs=None)  # they go with the lab


async def _elsewhere(user: NodeEntry) -> str:
    here = await site_of(user)
    others = [site for site in user.sites if site != here]
    if not others:
        raise LocalError(f"{user.name} has no other access network to move to; add one to the topology")
    return others[0]


@contextmanager
def _the_only_demo() -> Iterator[None]:
    run_directory().mkdir(parents=True, exist_ok=True, mode=0o700)
    with (run_directory() / f"{NAME}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LocalError("another demo is running; wait for it to end") from None
        yield
