"""In change priority nobody gives epochs: a recorded word of a hypervisor must not bring a machine back."""

from __future__ import annotations

from lispfmc.core.plans import TTL_MINUTES
from lispfmc.wire.address import Endpoint
from lispfmc.wire.auth import sign
from lispfmc.wire.messages import EidRecord
from lispfmc.wire.moves import MoveMessage, MovePhase
from tests.scenarios.schemes_world import AGENT, NEW, OLD, SchemeWorld
from tests.scenarios.sites import ALICE_APP, rloc


def word(nonce: int) -> bytes:
    record = EidRecord.of(ALICE_APP, ttl_minutes=TTL_MINUTES)
    return sign(MoveMessage.of(MovePhase.ACTIVATE, record, nonce=nonce, move=7, epoch=0), AGENT)


def says(world: SchemeWorld, site: str, datagram: bytes) -> None:
    world.xtrs[site].datagram(datagram, Endpoint(rloc(site), 9350))
    world.run(1.0)


def owners(world: SchemeWorld) -> list[str]:
    return [name for name, xtr in world.xtrs.items() if xtr.core._registrar.version(ALICE_APP) is not None]


def test_a_recorded_word_of_the_hypervisor_does_not_take_the_machine_back() -> None:
    world = SchemeWorld("cp", "cp")
    first, second = word(1 << 50), word((1 << 50) + 1)
    says(world, NEW, first)
    assert owners(world) == [NEW]
    says(world, NEW, second)  # told again, later: nothing new
    says(world, OLD, word((1 << 50) + 2))
    assert owners(world) == [OLD]
    for recorded in (second, first):
        says(world, NEW, recorded)
        assert owners(world) == [OLD]
    assert world.xtrs[NEW].rejects["replayed-nonce"] == 1  # the other one is what it has heard already
