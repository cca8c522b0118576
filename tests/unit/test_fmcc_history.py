"""What a restart must not forget: written by a keeper, read by the next controller, refused when it is not ours."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fmcc.effects import Persist
from fmcc.history import database
from fmcc.history.database import FILE, History, HistoryError
from fmcc.history.keeper import Keeper
from fmcc.history.records import Batch
from fmcc.history.restoring import locate, restore
from fmcc.moves import Move, Phase, State
from fmcc.standing import Standing
from fmcc.world import Service, User
from lispfmc.runtime.events import EventLog
from lispfmc.wire.address import Prefix, ip_of
from tests.scenarios.test_fmcc_move import DATACENTERS, Net, fmcc_settings

BOB, GAME = Prefix.parse("100.64.1.77/32"), Prefix.parse("100.64.101.77/32")


class Runs:
    """A controller, its history, and restarts of both."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.settings = settings
        self.net = Net(**settings)
        self.events = EventLog()
        self._open()

    def _open(self) -> None:
        self.history = History(self.folder)
        locate(self.history, self.net.fmcc.world)
        restore(self.history, self.net.fmcc, self.net.now, 1e9)
        self.keeper = Keeper(self.history, self.net.fmcc, self.events, lambda: self.net.now, lambda: self.net.now + 1e9)

    def stop(self) -> None:
        self.keeper.close()
        self.history.close()

    def restart(self, **settings: object) -> None:
        """The mapping system and the routers go on."""
        self.stop()
        fresh = fmcc_settings(**{**self.settings, **settings})
        self.net._settings = fresh
        self.net.fmcc = self.net.new_controller(fresh.world())
        self._open()


def followed(runs: Runs) -> None:
    """alice moves, and her service follows to dc2."""
    runs.net.settles()
    runs.net.alice_moves()
    runs.net.run(0.1)
    runs.net.hypervisor_moves()
    runs.net.run(1.0)
    assert runs.net.placement.datacenter == "dc2"


def test_after_a_restart_the_service_is_where_it_was_and_that_is_no_move(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    followed(runs)
    runs.restart()
    assert (runs.net.placement.datacenter, runs.net.placement.version) == ("dc2", 1)
    runs.net.events.clear()
    runs.net.run(1.0)
    assert runs.net.fmcc.whereabouts("alice").site == "access2"
    assert "migration.pingpong" not in runs.net.names()
    assert "placement.changed" not in runs.net.names()
    runs.stop()


def test_a_return_soon_after_a_restart_is_a_ping_pong_all_the_same(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    followed(runs)
    runs.restart()
    runs.net.run(1.0)
    runs.net.routers["access1"].registers(*runs.net.fmcc.world.users["alice"].eids)
    runs.net.run(0.1)
    runs.net.hypervisor_moves()
    runs.net.run(1.0)
    assert runs.net.placement.datacenter == "dc1"
    assert runs.net.fmcc.deliberation.ping_pongs == {"app": 1}
    runs.stop()


def test_without_history_the_first_word_of_a_service_elsewhere_is_no_move() -> None:
    net = Net()
    net.settles()
    net.alice_moves()
    net.run(0.1)
    net.hypervisor_moves()
    net.run(1.0)
    net.fmcc = net.new_controller(fmcc_settings().world())  # it believes dc1, until it has heard
    net.run(1.0)
    net.routers["access1"].registers(*net.fmcc.world.users["alice"].eids)
    net.run(0.1)
    net.hypervisor_moves()
    net.run(1.0)
    assert net.placement.datacenter == "dc1"
    assert net.fmcc.deliberation.ping_pongs == {}


def test_a_user_that_moved_while_we_were_away_has_made_a_handover(tmp_path: Path) -> None:
    runs = Runs(tmp_path, policy="learned")
    runs.net.settles()
    runs.restart()
    runs.net.events.clear()
    runs.net.alice_moves()
    runs.net.run(0.1)
    assert runs.net.fields("user.moved")["from"] == "access1"
    learned = runs.net.fmcc.deliberation.state("app", runs.net.now)
    assert learned is not None
    assert learned["learned"]["handovers"] == 1
    runs.stop()


def test_what_was_learned_outlives_a_restart(tmp_path: Path) -> None:
    runs = Runs(tmp_path, policy="learned")
    followed(runs)
    before = runs.net.fmcc.deliberation.state("app", runs.net.now)
    assert before is not None
    runs.restart()
    after = runs.net.fmcc.deliberation.state("app", runs.net.now)
    assert after is not None
    assert after["settled_s"] == pytest.approx(before["settled_s"])
    assert {**after, "settled_s": 0} == {**before, "settled_s": 0}
    runs.stop()


def test_moves_and_decisions_of_all_runs_come_in_pages_newest_first(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    followed(runs)
    runs.restart()
    (move,) = runs.history.migrations(None, None, 10)
    assert (move.service, move.from_, move.to, move.state, move.version) == ("app", "dc1", "dc2", "committed", 1)
    assert [phase.name for phase in move.phases][-1] == "committed"
    assert move.started_at > 1e9
    assert runs.history.migration(move.id) == move
    assert runs.history.migration("nothing") is None
    newest, *older = runs.history.decisions(None, None, 10)
    assert (newest.decision, newest.to, newest.rule) == ("move", "dc2", "nearest")
    assert runs.history.decisions("app", newest.number, 10) == older
    assert runs.history.decisions("another", None, 10) == []
    runs.stop()


def test_moves_and_decisions_are_kept_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MOVES_KEPT", 1)
    monkeypatch.setattr(database, "DECISIONS_KEPT", 2)
    runs = Runs(tmp_path)
    followed(runs)
    for site in ("access1", "access2", "access1"):
        runs.net.routers[site].registers(*runs.net.fmcc.world.users["alice"].eids)
        runs.net.run(0.1)
        runs.net.hypervisor_moves()
        runs.net.run(1.0)
    runs.keeper.close()
    assert len(runs.history.migrations(None, None, 10)) == 1
    assert len(runs.history.decisions(None, None, 10)) == 2
    runs.stop()


def test_who_was_added_at_run_time_is_there_again_and_who_was_removed_is_not(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.net.settles()
    fmcc = runs.net.fmcc
    runs.net.tell(fmcc.add_user, User("bob", (BOB,), added=True))
    runs.net.tell(fmcc.add_service, Service("game", "bob", (GAME,), "dc2", ("dc1", "dc2"), added=True))
    runs.net.routers["access2"].registers(BOB)
    runs.net.run(1.0)
    runs.restart()
    assert runs.net.fmcc.world.services_of("bob")[0].eids == (GAME,)
    runs.net.run(1.0)
    assert runs.net.fmcc.whereabouts("bob").site == "access2"
    runs.net.tell(runs.net.fmcc.remove_service, "game")
    runs.net.tell(runs.net.fmcc.remove_user, "bob")
    runs.restart()
    assert "bob" not in runs.net.fmcc.world.users
    assert "game" not in runs.net.fmcc.placements
    runs.stop()


def test_a_service_that_is_added_by_a_removed_ones_name_begins_anew_whatever_is_restarted(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.net.settles()
    game = Service("game", "", (GAME,), "dc2", ("dc1", "dc2"), added=True)
    runs.net.tell(runs.net.fmcc.add_service, game)
    assert runs.net.fmcc.placements["game"].service.scheme == runs.net.fmcc.steering.scheme
    effects = runs.net.fmcc.remove_service("game", runs.net.now)
    assert Persist("game", None) in effects, "what the journal has of it must not lead the next one"
    runs.stop()


def test_a_move_that_the_journal_alone_knows_counts_as_made_when_it_was_heard_of(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.net.settles()
    runs.restart()  # killed before the history took note of what follows
    runs.net.run(5.0)
    now = runs.net.now
    phases = (Phase("decided", now - 1.0), Phase("notified", now))
    move = Move("0000000000000007", "dc1", "dc2", 1, State.NOTIFIED, phases)
    runs.net.tell(runs.net.fmcc.restored, {"app": Standing("dc2", 1, move)})
    known = runs.net.fmcc.deliberation.state("app", runs.net.now)
    assert known is not None
    assert (known["left"], known["settled_s"]) == ("dc1", 0.0)
    assert "migration.pingpong" not in runs.net.names()
    runs.stop()


def test_the_configuration_wins_over_what_was_added_before(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.net.tell(runs.net.fmcc.add_user, User("bob", (BOB,), added=True))
    configured = [{"name": "alice", "eids": ["100.64.1.10/32"]}, {"name": "carol", "eids": [str(BOB)]}]
    runs.restart(users=configured)
    assert set(runs.net.fmcc.world.users) == {"alice", "carol"}
    runs.restart(users=configured[:1])
    assert set(runs.net.fmcc.world.users) == {"alice"}, "nobody comes back whom the configuration has removed"
    runs.stop()


def test_the_routers_of_located_data_centres_are_remembered(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.history.write(Batch(sites={"dc1": ["198.18.0.99"], "dc2": ["198.18.0.98"]}))
    world = fmcc_settings().world()
    world = type(world)(**{name: getattr(world, name) for name in world.__struct_fields__} | {
        "site_prefixes": {Prefix.parse("100.64.101.0/24"): "dc1"}})  # fmt: skip
    locate(runs.history, world)
    assert world.sites["dc1"] == (ip_of("198.18.0.99"),)
    assert world.sites["dc2"] == (ip_of(DATACENTERS["dc2"]),), "what is configured is not overridden"
    runs.stop()


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 8000)


def nonsense(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever it is called\n" * 100)


def foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE things (name TEXT)")


def later(path: Path) -> None:
    with sqlite3.connect(path) as ours:
        ours.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (damaged, "is damaged or no database"),
        (nonsense, "is damaged or no database"),
        (foreign, "is another program's database"),
        (later, "was written by another version"),
    ],
)
def test_a_file_that_is_not_ours_is_a_clear_error_and_stays_as_it_is(harm: object, says: str, tmp_path: Path) -> None:
    assert callable(harm)
    History(tmp_path).close()
    harm(tmp_path / FILE)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(HistoryError, match=says) as error:
        History(tmp_path)
    assert "move" in str(error.value)
    assert str(tmp_path / FILE) in str(error.value)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_row_that_makes_no_sense_is_a_clear_error(tmp_path: Path) -> None:
    History(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as ours:
        ours.execute("INSERT INTO users VALUES ('alice', '{\"name\": 3}')")
    history = History(tmp_path)
    with pytest.raises(HistoryError, match="is damaged"):
        history.users()
    history.close()


def test_two_controllers_do_not_share_a_folder(tmp_path: Path) -> None:
    history = History(tmp_path)
    with pytest.raises(HistoryError, match="another controller uses it"):
        History(tmp_path)
    history.close()
    History(tmp_path).close()


@pytest.mark.asyncio
async def test_what_cannot_be_written_is_told_once_and_written_when_it_can_be(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    followed(runs)
    write = runs.history.write

    def full(batch: Batch) -> None:
        raise HistoryError("the disk is full")

    runs.history.write = full  # type: ignore[method-assign]
    assert not await runs.keeper.keep()
    assert not await runs.keeper.keep()
    assert [event.name for event in runs.events.since(0)] == ["history.failed"]
    runs.history.write = write  # type: ignore[method-assign]
    assert await runs.keeper.keep()
    assert [each.datacenter for each in runs.history.services()] == ["dc2"]
    assert [each.state for each in runs.history.migrations(None, None, 10)] == ["committed"]
    runs.stop()
