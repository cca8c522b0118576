"""Scheme "lossless": the routers are prepared before the copy begins, and finish the move by themselves.

Each service has one lead (`fmcc.steering.lead`); what it asks becomes move messages, repeated until they are answered.
Scheme "bicast" is the same where no hypervisor says when the service stops: the source copies to the target from
PREPARE on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fmcc.steering import (
    Acknowledged,
    Active,
    GivenUp,
    News,
    Outcome,
    Ready,
    Redirect,
    Remember,
    Versioned,
)
from fmcc.steering import (
    lead as leading,
)
from fmcc.steering.lead import Begin, Event, Found, GiveUp, Lead, Published, Resumed, State, Stopped, step
from fmcc.world import DataCenter, Limits
from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Reject, Send
from lispfmc.core.exchanges import Exchanges
from lispfmc.core.plans import Answered, Ask, Party, Plan, Restarted, Settle, TimedOut
from lispfmc.core.versions import newer, next_version
from lispfmc.wire import auth
from lispfmc.wire.address import Endpoint, Ip
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import MapNotifyAck
from lispfmc.wire.moves import MoveMessage, MovePhase, Verdict

BICAST = "bicast"

_BUSY = {
    State.ACTIVATING: "the target's tunnel router has not answered its last move yet",
    State.CONVERGING: "the Map-Server has not published its last move yet",
    State.ABORTING: "its last move is being given up, and the target's tunnel router has not said that it is",
}


class Lossless:
    """See the module. The tables are bounded by the configured services."""

    scheme = "lossless"

    def __init__(
        self,
        sites: Mapping[str, tuple[Ip, ...]],
        datacenters: Mapping[str, DataCenter],
        nonces: Iterator[int],
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._sites = sites
        # how long to copy and to resume may take is the coordinator's to watch: it gives the move up
        self._waits = {State.PREPARING_TARGET: limits.prepare_s, State.PREPARING_SOURCE: limits.prepare_s}
        self._keys: dict[Ip, Key] = {rloc: datacenters[name].key for name in datacenters for rloc in sites[name]}
        self._names: dict[Ip, str] = {rloc: name for name in datacenters for rloc in sites[name]}
        self._exchanges = Exchanges(nonces, self._keys.get)
        self._leads: dict[str, Lead] = {}
        self._service_of: dict[int, str] = {}
        self._deadlines: Deadlines[str] = Deadlines()
        self._news: list[News] = []

    @property
    def leads(self) -> Mapping[str, Lead]:
        return self._leads

    def lead(self, service: str) -> Lead | None:
        return self._leads.get(service)

    def drained(self) -> list[News]:
        news, self._news = self._news, []
        return news

    def busy(self, service: str) -> str:
        lead = self._leads.get(service, Lead())
        if lead.state in {State.IDLE, State.COMMITTED, State.ABORTED}:
            return ""
        return _BUSY.get(lead.state, "a move of it is under way")

    def restored(self, leads: Mapping[str, Lead], now: float) -> list[Send]:
        """After a restart: what was remembered is said once more."""
        sends: list[Send] = []
        for service, lead in leads.items():
            self._leads[service] = lead
            if lead.plan is not None:
                self._service_of[lead.plan.move] = service
            sends += self._step(service, Restarted(), now)
        return sends

    # --- the phases, as the coordinator names them --------------------------------------------------------------------

    def prepare(self, redirect: Redirect, now: float) -> list[Send]:
        return self._step(redirect.service, Begin(self._plan(redirect)), now)

    def freeze(self, redirect: Redirect, now: float) -> list[Send]:
        if redirect.scheme == BICAST:
            return []  # it shows what can be had where nobody says so
        return self._step(redirect.service, Stopped(), now)

    def activate(self, redirect: Redirect, now: float) -> list[Send]:
        plan = self._leads.get(redirect.service, Lead()).plan
        if plan is not None and plan.move == int(redirect.move, 16):
            return self._step(redirect.service, Resumed(), now)
        return self._step(redirect.service, Found(self._plan(redirect)), now)

    def commit(self, redirect: Redirect, now: float) -> list[Send]:
        return self._step(redirect.service, Published(redirect.version), now)

    def abort(self, redirect: Redirect, now: float) -> list[Send]:
        return self._step(redirect.service, GiveUp(), now)

    def _plan(self, redirect: Redirect) -> Plan:
        """The plan of a move that begins."""
        before = self._leads.get(redirect.service, Lead()).plan
        epoch = redirect.version
        if before is not None and not newer(epoch, before.epoch):
            epoch = next_version(before.epoch)  # an epoch that was given up is never used again
        source, target = self._sites[redirect.source], self._sites[redirect.target]
        bicast = redirect.scheme == BICAST or not redirect.tells_stop
        plan = Plan(int(redirect.move, 16), epoch, redirect.eids, source, target, bicast=bicast)
        if before is not None:
            self._service_of.pop(before.move, None)
        self._service_of[plan.move] = redirect.service
        if epoch != redirect.version:
            self._news.append(Versioned(redirect.move, redirect.service, epoch))
        return plan

    # --- answers and time ---------------------------------------------------------------------------------------------

    def answered(self, message: MoveMessage, datagram: bytes, source: Endpoint, now: float) -> list[Send] | Reject:
        """A move message from a data centre's router: nothing but acknowledgements is expected."""
        key = self._keys.get(source.ip)
        if key is None or not message.is_acknowledgement:
            return Reject("unexpected-message", source, "a move message")
        if not auth.verify(message, datagram, key):
            return Reject("bad-authentication", source, "a move message")
        answered = self._exchanges.answered(message, source.ip, now)
        service = self._service_of.get(message.move)
        return self._step(service, answered, now) if answered is not None and service is not None else []

    def acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint) -> Outcome:
        return Reject("unexpected-ack", source, "this scheme sends no Map-Notify")

    def next_deadline(self) -> float | None:
        return min(
            (at for at in (self._deadlines.next(), self._exchanges.next_deadline()) if at is not None), default=None
        )

    def expired(self, now: float) -> list[Send]:
        sends = self._exchanges.expired(now)
        for service in list(self._deadlines.pop_expired(now)):
            sends += self._step(service, TimedOut(), now)
        return sends

    # --- a step -------------------------------------------------------------------------------------------------------

    def _step(self, service: str, event: Event, now: float) -> list[Send]:
        before = self._leads.get(service, Lead())
        lead, effects = step(before, event, now, self._waits)
        self._leads[service] = lead
        if lead.deadline is None:
            self._deadlines.cancel(service)
        else:
            self._deadlines.set(service, lead.deadline)
        self._tell(service, before, lead, event)
        sends: list[Send] = []
        for effect in effects:
            match effect:
                case Ask(to=to, plan=plan):
                    rlocs = plan.target if to is Party.TARGET else plan.source
                    sends += self._exchanges.ask(effect, rlocs[:1], now)
                case Settle(plan=plan):
                    self._exchanges.settle(plan)
                case leading.Ready(plan=plan):
                    self._news.append(Ready(_id(plan), service))
                case leading.Failed(plan=plan):
                    self._news.append(GivenUp(_id(plan), service, self._reason(before, event)))
                case leading.Remember():
                    self._news.append(Remember(service))
        return sends

    def _tell(self, service: str, before: Lead, after: Lead, event: Event) -> None:
        """What a step says by the state that it leads to, or by the answer that caused it."""
        plan = after.plan
        if plan is None:
            return
        if before.plan is not None and before.plan.move == plan.move and before.plan.epoch != plan.epoch:
            self._news.append(Versioned(_id(plan), service, plan.epoch))
        if not isinstance(event, Answered) or not event.plan.same(plan):
            return
        if after.state is State.CONVERGING is not before.state:
            self._news.append(Active(_id(plan), service))
        if event.verdict is Verdict.ACTIVE or (event.by, event.phase) == (Party.SOURCE, MovePhase.ACTIVATE):
            rloc = (plan.target if event.by is Party.TARGET else plan.source)[0]
            self._news.append(Acknowledged(_id(plan), service, self._names[rloc]))

    def _reason(self, before: Lead, event: Event) -> str:
        match event:
            case Answered(by=by, verdict=verdict, plan=plan):
                rloc = (plan.target if by is Party.TARGET else plan.source)[0]
                return f"the tunnel router of {self._names[rloc]} refuses: {verdict.name.lower()}"
            case TimedOut():
                return f"no answer from a tunnel router while {before.state}"
        return "given up"


def _id(plan: Plan) -> str:
    return f"{plan.move:016x}"
