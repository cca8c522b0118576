"""Part `fig15`: the round-trip time while a user moves and its service follows, and when it does not follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from lispfmc.experiment.paper.echoes import Answer, Echoes, curve, silence_ms, typical_ms, unanswered
from lispfmc.experiment.paper.networks import BIG, REAL, lab_on, network, the_service, the_user
from lispfmc.experiment.paper.printed import printed
from lispfmc.experiment.paper.result import Cell, Chart, Compared, Figure, Line, Result, Table
from lispfmc.experiment.paper.work import Work, machines
from lispfmc.experiment.report import EMULATED
from lispfmc.lab.analysis import NS_PER_MS
from lispfmc.lab.following import Follower
from lispfmc.wire.errors import LocalError

NS_PER_S = 1_000_000_000
PING_MS = 1000
TO = "access2"
BUCKET_MS = 50.0
FOLLOWS_S = 180.0
SETTLE_S = 1.0
"""Not counted after each change of the path."""


class Plan(msgspec.Struct, frozen=True):
    """How long what takes; `copy_s` is the emulated machine's."""

    driver: str
    before_s: float
    away_s: float
    after_s: float
    copy_s: float


QUICK = Plan("emulated", 5.0, 8.0, 5.0, 4.0)
FULL = Plan("qemu", 55.0, 45.0, 30.0, 26.0)


class Story(msgspec.Struct, frozen=True):
    """One move of the user. Instants in nanoseconds; without following, those of the service's move are None."""

    following: bool
    begin_ns: int
    moved_ns: int
    copy_ns: int | None
    stopped_ns: int | None
    resumed_ns: int | None
    settled_ns: int | None
    end_ns: int
    pings: Sequence[Answer]
    fine: Sequence[Answer]


def make(work: Work) -> Result:
    plan = FULL
    cannot: tuple[str, ...] = ()
    if work.quick:
        plan = QUICK
    elif (why := machines()) is not None:
        plan, cannot = msgspec.structs.replace(FULL, driver="emulated"), (f"Emulated, not real: {why}",)
    work.tell.steps(2)
    stories = []
    for following in (True, False):
        stories.append(_story(work, plan, following=following))
        work.tell.step("with following" if following else "without")
    return Result(
        part="fig15",
        title="Round-trip time through a move (A Fig. 5, B Fig. 15)",
        made_by=(
            REAL if plan.driver == "qemu" else EMULATED,
            "Round-trip times are those of UDP echoes: one a second as the papers' pings, and one every millisecond. "
            "Distances that the papers leave open are chosen in the topology fig5.",
        ),
        figures=[_figure(stories, plan)],
        tables=[_table(story) for story in stories],
        cannot=cannot,
    )


def _story(work: Work, plan: Plan, *, following: bool) -> Story:
    emulation = {"copy_s": plan.copy_s, "pause_ms": 60.0}
    values = network("fig5", policy="nearest" if following else "never", emulation=emulation, virtual=BIG)
    folder = work.folder / ("following" if following else "staying")
    folder.mkdir(exist_ok=True)
    with lab_on(values, folder, work.tell.say, plan.driver) as lab:
        return asyncio.run(_told(lab, values, folder, plan, following=following))


async def _told(lab: Any, values: Any, folder: Any, plan: Plan, *, following: bool) -> Story:
    user, (service, eid) = the_user(lab), the_service(values)
    async with Follower(lab, user, TO, service) as follower, Echoes(user, eid, folder) as echoes:
        begin = time.monotonic_ns()
        await asyncio.sleep(plan.before_s)
        await follower.attach()
        if following:
            await follower.until_over(FOLLOWS_S)
            if (outcome := follower.phases.outcome.value) != "committed":
                raise LocalError(f"the service did not follow: {outcome} {follower.phases.reason}")
            settled = time.monotonic_ns()
            await asyncio.sleep(plan.after_s)
        else:
            settled = None
            await asyncio.sleep(plan.away_s)
        end = time.monotonic_ns()
    at = follower.phases.at_ns
    moved = at("announced")
    assert moved is not None, "the node agent has answered"
    return Story(following, begin, moved, at("copy"), at("stop"), at("resume"), settled, end, echoes.pings, echoes.fine)


class Levels(msgspec.Struct, frozen=True):
    """What a story comes to, in milliseconds."""

    first: float | None
    away: float | None
    last: float | None
    gap: float | None
    blackout: float | None
    copy_s: float | None
    lost: int


def _levels(story: Story, answers: Sequence[Answer]) -> Levels:
    settle = int(SETTLE_S * NS_PER_S)
    away_end = story.stopped_ns or story.end_ns
    gap = blackout = copy = last = None
    if story.stopped_ns is not None and story.settled_ns is not None:
        last = typical_ms(answers, story.settled_ns, story.end_ns)
        gap = silence_ms(answers, story.stopped_ns - settle // 2, story.settled_ns + settle)
        if story.resumed_ns is not None:
            blackout = round((story.resumed_ns - story.stopped_ns) / NS_PER_MS, 3)
        if story.copy_ns is not None:
            copy = round((story.stopped_ns - story.copy_ns) / NS_PER_S, 3)
    return Levels(
        typical_ms(answers, story.begin_ns, story.moved_ns),
        typical_ms(answers, story.moved_ns + settle, away_end),
        last,
        gap,
        blackout,
        copy,
        unanswered(answers, story.moved_ns + settle, story.end_ns - settle),
    )


def _figure(stories: Sequence[Story], plan: Plan) -> Figure:
    moved, stayed = stories
    fine, pings, staying = _levels(moved, moved.fine), _levels(moved, moved.pings), _levels(stayed, stayed.fine)
    stated = printed("fig15")
    copied = "a configured wait" if plan.driver == "emulated" else "QEMU's copy of what is not zero, at the link's rate"
    pause = "a configured pause" if plan.driver == "emulated" else "QEMU's own pause"
    same = "the delays are the papers'" + (", and the guest takes time to answer" if plan.driver == "qemu" else "")
    compared = [
        Compared("at first", _ms(stated["first_rtt_ms"], "about "), _both(fine.first, pings.first), same),
        Compared("the user has moved", _ms(stated["away_rtt_ms"], "about "), _both(fine.away, pings.away), same),
        Compared(
            "the service has followed", _ms(stated["followed_rtt_ms"], "about "), _both(fine.last, pings.last), same
        ),
        Compared("the service does not follow", "not measured", _ms(staying.away), "a run of its own, policy never"),
        Compared("migration", f"{stated['migration_s']:g} s", f"{_number(fine.copy_s)} s", copied),
        Compared(
            "downtime",
            f"{_ms(stated['downtime_ms'])}, unsaid whether the pause is in it",
            f"pause B {_ms(fine.blackout)}; longest time without an answer {_ms(fine.gap)}; {fine.lost} echoes lost",
            f"B is {pause}. {_silence(fine)} What the network adds is measured in each direction apart, in fig16",
        ),
    ]
    lines = [
        _line("following, 1,000 a second", curve(moved.fine, moved.begin_ns, BUCKET_MS)),
        _line("following, one a second", curve(moved.pings, moved.begin_ns, BUCKET_MS)),
        _line("not following, one a second", curve(stayed.pings, stayed.begin_ns, BUCKET_MS)),
    ]
    note = 'emulated "VM"' if plan.driver == "emulated" else "real VM"
    most, marks = _cut(fine, staying), _marks(moved)
    chart = Chart("seconds", "round-trip time (ms)", lines, points=False, note=note, y_most=most, marks=marks)
    title = "Round-trip time of the user to its service"
    sentences = _sentences(moved, fine, pings, staying)
    if above := _above(stories, most):
        sentences.append(above)
    if plan.driver == "qemu" and fine.first is not None:
        beyond = fine.first - stated["first_rtt_ms"]
        sentences.append(f"Before anything moves, the guest and its processor take {beyond:.1f} ms beyond the delays.")
    return Figure("fig15", title, stated.source, chart, compared, sentences)


def _sentences(moved: Story, fine: Levels, pings: Levels, staying: Levels) -> list[str]:
    hidden = fine.gap is not None and fine.gap < PING_MS
    first, away, last = _ms(fine.first), _ms(fine.away), _ms(fine.last)
    seen = "shorter than their second, and can pass between two of them unseen" if hidden else "visible to them"
    texts = [
        f"The round trip is {first} at first, {away} after the user has moved, and {last} when the service "
        f"has followed; without following it stays at {_ms(staying.away)}.",
        f"The pings say {_ms(pings.first)}, {_ms(pings.away)} and {_ms(pings.last)}. "
        f"A silence of {_ms(fine.gap)} is {seen}.",
    ]
    if moved.stopped_ns is not None:
        after = (moved.stopped_ns - moved.moved_ns) / NS_PER_S
        texts.append(f"The service stopped to move {after:.1f} s after the user had announced itself.")
    return texts


def _cut(*levels: Levels) -> float:
    """Where the picture ends: above the typical round-trip times."""
    return 1.4 * max(each.away or each.first or 1.0 for each in levels)


def _marks(story: Story) -> dict[str, float]:
    """Instants of the story, in its seconds."""
    at = {"the user moves": story.moved_ns, "copy": story.copy_ns, "stop and resume": story.stopped_ns}
    return {name: round((ns - story.begin_ns) / NS_PER_S, 3) for name, ns in at.items() if ns is not None}


def _above(stories: Sequence[Story], cut: float) -> str:
    """What the picture does not show."""
    answers = [each.rtt_ms for story in stories for each in story.fine]
    above = [each for each in answers if each > cut]
    if not above:
        return ""
    share = len(above) / len(answers)
    return (
        f"{len(above)} of {len(answers)} answers ({share:.1%}) took longer than the picture's {cut:.0f} ms, the "
        f"longest {max(above):.0f} ms."
    )


def _line(label: str, values: Sequence[tuple[float, float, float, float, int]]) -> Line:
    return Line(label, [each[0] for each in values], [round(each[2], 3) for each in values])


def _silence(levels: Levels) -> str:
    if levels.gap is None or levels.blackout is None or levels.gap >= levels.blackout:
        return "An echo mixes both directions."
    away = _ms(levels.away)
    return f"The silence is shorter than the pause: answers that were on the slow way, of {away}, arrived meanwhile."


def _both(fine: float | None, pings: float | None) -> str:
    return f"{_ms(fine)} (pings {_ms(pings)})"


def _ms(value: float | None, about: str = "") -> str:
    return "no answer" if value is None else f"{about}{value:.3g} ms" if value < 100 else f"{about}{value:.0f} ms"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _table(story: Story) -> Table:
    rows: list[list[Cell]] = [
        [kind, *values]
        for kind, answers in (("1 ms", story.fine), ("1 s", story.pings))
        for values in curve(answers, story.begin_ns, BUCKET_MS)
    ]
    name = "fig15-following" if story.following else "fig15-staying"
    return Table(name, ("probes", "second", "least_ms", "median_ms", "greatest_ms", "answers"), rows)
