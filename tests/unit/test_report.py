"""The report of a move: which instants part its windows."""

from __future__ import annotations

import msgspec

from lispfmc.lab.analysis import NS_PER_MS, Arrival, Echo, Flow, Gap
from lispfmc.lab.phases import Phase
from lispfmc.lab.probes import Logs
from lispfmc.lab.report import Instants, MoveReport, figures_of

MS = NS_PER_MS
AT = Instants(
    begin=0, link_down=1000 * MS, announced=1003 * MS, stop=5000 * MS, resume=5060 * MS, committed=5100 * MS,
    end=7000 * MS,
)  # fmt: skip


def flow(lost: set[int]) -> Flow:
    times = {number: number * MS for number in range(7000)}
    return Flow(MS, times, [Arrival(n, at, at + 2 * MS) for n, at in times.items() if n not in lost])


def rtt_at(at: int) -> int:
    return 12 if at < 1000 else 250 if at < 5000 else 3


LOGS = Logs(
    flows={
        "to_service": flow(set(range(1000, 1040)) | set(range(5000, 5070))),
        "to_user": flow(set(range(5000, 5010))),
    },
    echoes=[Echo(at * MS, rtt_at(at) * MS) for at in range(0, 7000, 20)],
    gaps=[Gap(700 * MS, 90 * MS), Gap(5062 * MS, 62 * MS)],
    heartbeat_interval_ns=MS,
    realtime=True,
)


def test_each_move_has_the_losses_and_the_gap_of_its_own_window() -> None:
    found = figures_of(LOGS, AT)
    assert found.service_move is not None
    assert (found.user_move.lost, found.service_move.lost) == (40, 70)
    assert (found.user_move.gap_ms, found.service_move.gap_ms) == (40.0, 70.0)
    assert found.user_move.directions["to_user"].lost == 0


def test_the_users_blackout_is_its_link_and_the_services_its_heartbeat() -> None:
    found = figures_of(LOGS, AT)
    assert found.service_move is not None
    assert found.user_move.blackout_ms == 3.0
    assert found.service_move.blackout_ms == 61.0  # the longer gap at 0.7 s is in the user's window
    assert found.service_move.blackout_events_ms == 60.0
    assert found.service_move.added_ms == 9.0


def test_round_trips_are_those_before_between_and_after_the_moves() -> None:
    assert figures_of(LOGS, AT).rtt_ms == msgspec.convert(
        {"before": 12, "during": 250, "after": 3}, type(figures_of(LOGS, AT).rtt_ms)
    )


def test_a_service_that_stays_has_no_move_and_the_user_the_whole_window() -> None:
    found = figures_of(LOGS, msgspec.structs.replace(AT, stop=None, resume=None, committed=None))
    assert found.service_move is None
    assert found.user_move.lost == 110


def test_the_document_has_the_keys_that_programs_rely_on() -> None:
    report = MoveReport(
        lab="fig5", user="alice", service="alice-app", from_site="access1", to_site="access2", outcome="committed",
        phases=[Phase("link_down", 0.0)], service_from="dc1", service_to="dc2", driver="emulated", emulated=True,
        figures=figures_of(LOGS, AT), interval_ms=1.0,
    )  # fmt: skip
    document = report.document()
    for name in ("user_move", "service_move"):
        move = document[name]
        both = move["directions"]
        keys = {"gap_ms", "blackout_ms", "added_ms", "lost", "duplicated", "reordered", "not_sent"}
        assert keys <= set(move)
        assert set(both) == {"to_service", "to_user"}
        assert all(keys <= set(one) for one in both.values())
    assert set(document["rtt_ms"]) == {"before", "during", "after"}
    assert document["emulated"] is True
