"""What must not move a service: announcements that nobody waits for, replays, forgeries; and who has it in the end."""

from __future__ import annotations

import msgspec
import pytest

from lispfmc.core.plans import Plan
from lispfmc.wire.address import Prefix
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import EidRecord, Locator, MapNotify
from lispfmc.wire.moves import MoveMessage, MovePhase
from tests.scenarios.led import LedWorld
from tests.scenarios.network import Datagram
from tests.scenarios.sites import ALICE, ALICE_APP, pair_secret, rloc
from xtr.effects import ProbeHost
from xtr.relocations import ASKED_AT_ONCE

PLAN = Plan(0xABC, 1, (ALICE_APP,), (rloc("dc1"),), (rloc("dc2"),))


def states(world: LedWorld) -> list[str]:
    found = []
    for site in ("dc1", "dc2"):
        moves = world.router(site).core.moves(lambda _: {}, world.network.now)
        found.append(str(moves[0]["state"]) if moves else "none")
    return found


def prepared(world: LedWorld) -> LedWorld:
    """Both routers, and nothing has stopped yet."""
    world.sends_every(0.001, 2.0)
    world.fmcc.asks("dc2")
    world.run(0.3)
    assert states(world) == ["mirroring", "holding"]
    return world


def ended(world: LedWorld, site: str = "dc2") -> None:
    world.run(10.0)
    assert world.deliverers(ALICE_APP) == [site]
    assert world.registered_at(ALICE_APP) == rloc(site)
    assert world.lost() == []


def test_an_announcement_behind_another_interface_than_the_hypervisors_activates_nothing() -> None:
    world = LedWorld()
    dc2 = world.router("dc2")
    agent = dc2.settings.agent
    assert agent is not None
    site = dc2.settings.site.model_copy(update={"interfaces": ("lan", "lan2")})
    agents = agent.model_copy(update={"interfaces": ("lan",)})
    dc2.settings = dc2.settings.model_copy(update={"site": site, "agent": agents})
    dc2.starts_again()
    world.run(1.0)
    prepared(world)
    stranger = bytes.fromhex("020000009999")
    dc2.apply(dc2.core.announced(ALICE_APP, "lan2", stranger, world.network.now))
    dc2.apply(dc2.core.mac_announced(stranger, "lan2", 0, world.network.now))
    assert dc2.rejects["wrong-port"] == 1
    assert states(world) == ["mirroring", "holding"]
    ended(world)


def test_a_rarp_for_a_service_that_nobody_expects_activates_nothing() -> None:
    world = LedWorld()
    dc2, mac = world.router("dc2"), world.hosts[ALICE_APP].mac
    dc2.apply(dc2.core.mac_announced(mac, "lan", 0, world.network.now))
    world.run(1.0)
    assert states(world) == ["none", "none"]
    assert world.deliverers(ALICE_APP) == ["dc1"]


def test_a_rarp_of_an_unknown_machine_is_a_question_and_no_answer_activates_nothing() -> None:
    world = prepared(LedWorld())
    dc2 = world.router("dc2")
    dc2.apply(dc2.core.mac_announced(bytes.fromhex("020000009999"), "lan", 0, world.network.now))
    world.run(0.01)
    assert states(world) == ["mirroring", "holding"]
    ended(world)


def test_where_many_machines_are_expected_a_rarp_asks_for_a_few_of_them_and_the_next_for_others() -> None:
    world = LedWorld()
    world.run(1.0)
    dc2 = world.router("dc2")
    key = Key(3, pair_secret("dc2", "fmcc").encode())
    for number in range(40):
        eid = Prefix.host((int.from_bytes(ALICE_APP.ip, "big") + 1 + number).to_bytes(4, "big"))
        plan = msgspec.structs.replace(PLAN, move=0x1000 + number, eids=(eid,))
        dc2.datagram(sign(plan.message(MovePhase.PREPARE, (1 << 60) + number), key), world.endpoint("fmcc"))
    asked = []
    for at in range(3):  # later than a question to the same EID would be repeated
        effects = dc2.core.mac_announced(bytes.fromhex("020000009999"), "lan", 0, world.network.now + at)
        asked.append([effect.eid for effect in effects if isinstance(effect, ProbeHost)])
    assert [len(each) for each in asked] == [ASKED_AT_ONCE] * 3
    assert len({eid for each in asked for eid in each}) == 40, "all have had their turn"


@pytest.mark.parametrize("key", [Key(3, b"guessed"), Key(2, pair_secret("dc2", "access1").encode())])
def test_a_forged_move_message_changes_nothing(key: Key) -> None:
    world = prepared(LedWorld())
    for phase in MovePhase:
        message = PLAN.message(phase, 1 << 60)
        for sender in ("fmcc", "dc1", "access1"):
            world.router("dc2").datagram(sign(message, key), world.endpoint(sender))
    refused = world.router("dc2").rejects
    assert refused["bad-authentication"] + refused["unknown-key"] + refused["not-a-party"] == 3 * len(MovePhase)
    assert states(world) == ["mirroring", "holding"]
    ended(world)


def test_every_message_of_a_move_that_is_played_again_later_changes_nothing() -> None:
    world = prepared(LedWorld())
    ended(world)
    again = [each for each in world.network.sent if isinstance(each.message, MoveMessage)]
    world.fmcc.asks("dc1")
    world.run(8.0)
    assert world.deliverers(ALICE_APP) == ["dc1"]
    world.sends_every(0.001, 1.0)
    for datagram in again:
        world.xtr_at(datagram.to.ip).datagram(datagram.data, datagram.source) if _at_router(datagram) else None
    ended(world, "dc1")


def _at_router(datagram: Datagram) -> bool:
    return datagram.to.ip in (rloc("dc1"), rloc("dc2"), rloc("access1")) and datagram.to.port == 4342


def test_a_sources_list_of_peers_leads_nothing_of_ours_away() -> None:
    """It fills a map-cache, and a router that errs, or is not ours any more, may write anything into it."""
    world = prepared(LedWorld())
    dc2 = world.router("dc2")
    move = int(dc2.core.moves(lambda _: {}, world.network.now)[0]["move"], 16)  # type: ignore[call-overload]
    others, known = Prefix.parse("100.64.77.0/24"), Prefix.parse("100.64.1.0/24")
    texts = ("100.64.102.0/24", "100.64.102.9/32", "fd00:0:0:102::/64")
    records = [
        EidRecord.of(eid, [Locator.of(rloc("dc1"))], ttl_minutes=60)
        for eid in (*map(Prefix.parse, texts), others, known)
    ]
    before = {row["eid"]: row for row in dc2.core.map_cache(world.network.now)}
    message = MoveMessage.of(MovePhase.PEERS, *records, nonce=1 << 60, move=move, epoch=1)
    dc2.datagram(sign(message, Key(2, pair_secret("dc1", "dc2").encode())), world.endpoint("dc1"))
    after = {row["eid"]: row for row in dc2.core.map_cache(world.network.now)}
    assert after.keys() - before.keys() == {str(others)} | ({str(known)} - before.keys())
    assert {eid: row["locators"] for eid, row in before.items()} == {eid: after[eid]["locators"] for eid in before}
    ended(world)


def test_the_map_servers_word_of_a_lower_version_is_corrected_and_of_a_higher_one_believed() -> None:
    world = prepared(LedWorld())
    ended(world)
    dc2 = world.router("dc2")
    epoch = next(move["epoch"] for move in dc2.core.moves(lambda _: {}, world.network.now))
    assert isinstance(epoch, int)

    def says(version: int, nonce: int) -> None:
        record = EidRecord.of(ALICE_APP, [Locator.of(rloc("dc1"))], ttl_minutes=60, map_version=version)
        notify = MapNotify.of(record, nonce=nonce)
        dc2.datagram(sign(notify, Key(1, b"site-dc2")), world.endpoint("mapserver"))

    registers = len(world.network.sent)
    says(epoch - 1 or 4095, 1 << 62)
    corrected = [each for each in world.network.sent[registers:] if type(each.message).__name__ == "MapRegister"]
    assert len(corrected) == 1
    assert world.deliverers(ALICE_APP) == ["dc2"]
    says(epoch + 5, (1 << 62) + 1)
    assert states(world)[1] == "gone"


def test_another_schemes_message_waits_for_the_end_of_the_move_and_is_then_obeyed() -> None:
    world = prepared(LedWorld())
    dc1 = world.router("dc1")

    def fig9(version: int, nonce: int) -> None:
        record = EidRecord.of(ALICE_APP, [Locator.of(rloc("dc2"))], ttl_minutes=60, map_version=version)
        notify = MapNotify.of(record, nonce=nonce)
        dc1.datagram(sign(notify, Key(3, pair_secret("dc1", "fmcc").encode())), world.endpoint("fmcc"))

    fig9(9, 1 << 62)
    assert dc1.rejects["move-in-hand"] == 1
    assert states(world) == ["mirroring", "holding"]
    ended(world)
    world.fmcc.asks("dc1")
    world.run(10.0)
    assert states(world)[0] == "here"
    fig9(99, (1 << 62) + 1)
    assert states(world)[0] == "absent"
    assert world.next_hops("dc1", ALICE_APP) == (rloc("dc2"),)
    old = msgspec.structs.replace(PLAN, epoch=3)
    dc1.datagram(
        sign(old.message(MovePhase.PREPARE, 1 << 61), Key(3, pair_secret("dc1", "fmcc").encode())),
        world.endpoint("fmcc"),
    )
    assert states(world)[0] == "absent", "what was promised stays promised"


def test_the_machines_own_packets_reach_the_user_all_the_time_from_the_place_where_it_runs() -> None:
    world = prepared(LedWorld())
    got = world.hosts[ALICE].got
    for _ in range(1500):
        if world.hosts[ALICE_APP].site is not None:
            world.send(ALICE_APP, ALICE)
        world.run(0.001)
    world.run(0.5)
    answers = [packet for packet in got if packet.source == ALICE_APP]
    assert {packet.hops[0] for packet in answers} >= {"dc1", "dc2"}
    ended(world)
