"""One router's part in moves, with nobody around it: what it is told goes in, what it wants comes out."""

from __future__ import annotations

from itertools import count

from lispfmc.core.effects import Send
from lispfmc.core.plans import Plan
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.auth import Key
from lispfmc.wire.moves import MoveMessage, MovePhase, Verdict
from xtr.lossless import Lossless
from xtr.roles import peer
from xtr.senders import Role as SenderRole
from xtr.senders import Sender

APP, APP6 = Prefix.parse("100.64.101.10/32"), Prefix.parse("fd00:0:0:101::10/128")
DC1, DC2, DC3, PEER, FMCC = (ip_of(f"198.18.0.{last}") for last in (21, 22, 23, 11, 2))
KEY = Key(1, b"secret")
PLAN = Plan(7, 5, (APP,), (DC1,), (DC2,))
CONTROLLER = Sender(
    SenderRole.CONTROLLER, KEY, (Prefix.parse("100.64.0.0/10"), Prefix.parse("fd00::/8")), frozenset({DC1, DC2, DC3})
)
ROUTER = Sender(SenderRole.PEER, KEY)


def router(rloc: Ip = DC2, owned: int | None = None) -> Lossless:
    """`owned`: the version under which every EID is registered here."""
    return Lossless(
        (rloc,),
        count(1),
        lambda _: KEY,
        owned=lambda _: owned,
        peers=lambda _: [],
        mappings=lambda _: [],
        peer_of=lambda _: peer.Peer(),
    )


def told(at: Lossless, phase: MovePhase, plan: Plan, now: float = 0.0) -> Verdict:
    """The controller says it; the verdict."""
    effects = at.received(plan.message(phase, 99), CONTROLLER, Endpoint(FMCC, 4342), now)
    (answer,) = (each.message for each in effects if isinstance(each, Send) and each.to.ip == FMCC)
    assert isinstance(answer, MoveMessage)
    return Verdict(answer.verdict)
