"""The controller's decisions: the closed form, the table for many users at once, a handover's work for a policy, and
whole handovers."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from fmcc.policy import Candidate, Learner, View
from fmcc.policy.models import walk
from fmcc.policy.models.walk import Walk
from fmcc.policy.registry import make
from fmcc.policy.rules import ClassRules, Rules
from fmcc.policy.table import ThresholdTable
from tests.bench.harness import ROOT, Call, timed

BATCH = 1_000_000
"""Users that are decided at once."""
SERVICES, DATACENTERS = 2_000, 3
POLICIES = ("nearest", "threshold:3", "mdp", "learned")


USERS = 100_000
"""Known to the controller while handovers are measured."""


def run(*, rounds: int = 15) -> dict[str, object]:
    whole = handovers(USERS)
    return {
        "closed_form_ms_thr1000": closed_form(rounds=rounds),
        "batched_decisions_per_s": batched(rounds=rounds),
        "decision_p99_ms": whole["decision_p99_ms"],
        "handovers_per_s": whole["handovers_per_s"],
        "bytes_per_user": whole["bytes_per_user"],
        "handovers": whole,
        "policies": policies(rounds=rounds),
    }


def handovers(users: int) -> dict[str, object]:
    """Whole handovers, in a process of its own: its memory is measured too."""
    command = [sys.executable, "-m", "tests.bench.handovers", str(users)]
    told: dict[str, object] = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    return told


def closed_form(*, rounds: int) -> float:
    """Milliseconds for one threshold, the longest distance being 1,000."""
    asked = Walk(0.45, 0.1, cost=5_000.0, gamma=0.999, thr=1_000)
    return round(timed({"closed": Call(walk.threshold, asked)}, rounds=rounds).us("closed") / 1000, 4)


def batched(*, rounds: int) -> int:
    """Decisions a second: users with walks, costs and distances of their own, in no order."""
    table = ThresholdTable()
    draw = np.random.default_rng(1)
    rows = draw.integers(0, len(table.thresholds), BATCH)
    distances = draw.integers(0, table.thr + 1, BATCH)

    def decide(_: object) -> object:
        return table.migrate(rows, distances)

    return round(BATCH / timed({"batched": Call(decide, None)}, rounds=rounds).us("batched") * 1e6)


def policies(*, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds of one handover: shown to a policy that learns, and decided."""
    views = [_view(random.Random(service), service) for service in range(SERVICES)]
    calls = {}
    for name in POLICIES:
        rules = Rules(ClassRules(make(name)))
        assert isinstance(rules, Learner)
        for view in views:
            rules.observe(view)
        calls[f"{name}/observe"] = Call(_each(rules.observe, views), None)
        calls[f"{name}/decide"] = Call(_each(rules.decide, views), None)
    timings = timed(calls, rounds=rounds)
    return {name: {f"{what}_us": timings.us(f"{name}/{what}") for what in ("observe", "decide")} for name in POLICIES}


def _each(act: Callable[[View], object], views: list[View]) -> Callable[[Any], object]:
    """The services take turns, so that none is always the one in the processor's cache."""
    turns = itertools.cycle(views)

    def once(_: object) -> object:
        return act(next(turns))

    return once


def _view(choose: random.Random, service: int) -> View:
    places = tuple(Candidate(f"dc{number}", choose.uniform(1, 80)) for number in range(DATACENTERS))
    return View(f"service{service}", f"user{service}", "access1", "dc0", places)
