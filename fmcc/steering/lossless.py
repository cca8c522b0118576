"""Scheme "lossless": the routers are prepared before the copy begins, and finish the move by themselves.

Each service has one lead (`fmcc.steering.lead`); what it asks becomes move messages, repeated until they are answered.
`drained` gives what is not a message: that the copy may begin or was given up, and what must survive a restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from fmcc.steering import Outcome, Redirect
from fmcc.steering.lead import (
    Begin,
    Event,
    Failed,
    GiveUp,
    Lead,
    Published,
    Ready,
    Remember,
    Resumed,
    Stopped,
    step,
)
from fmcc.world import DataCenter
from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Reject, Send
from lispfmc.core.exchanges import Exchanges
from lispfmc.core.plans import Ask, Party, Plan, Restarted, Settle, TimedOut
from lispfmc.core.versions import newer, next_version
from lispfmc.wire import auth
from lispfmc.wire.address import Endpoint, Ip
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import MapNotifyAck
from lispfmc.wire.moves import MoveMessage

News: TypeAlias = Ready | Failed | Remember


class Lossless:
    """See the module. The tables are bounded by the configured services."""

    scheme = "lossless"

    def __init__(
        self,
        sites: Mapping[str, tuple[Ip, ...]],
        datacenters: Mapping[str, DataCenter],
        nonces: Iterator[int],
        *,
        bicast: bool = False,
    ) -> None:
        self._sites = sites
        self._bicast = bicast
        self._keys: dict[Ip, Key] = {rloc: datacenters[name].key for name in datacenters for rloc in sites[name]}
        self._exchanges = Exchanges(nonces, self._keys.get)
        self._leads: dict[str, Lead] = {}
        self._service_of: dict[int, str] = {}
        self._deadlines: Deadlines[str] = Deadlines()
        self._news: list[News] = []

    @property
    def leads(self) -> Mapping[str, Lead]:
        return self._leads

    def drained(self) -> list[News]:
        """What has come of the calls before, in order; asked for after each of them."""
        news, self._news = self._news, []
        return news

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
        before = self._leads.get(redirect.service, Lead())
        epoch = redirect.version
        if before.plan is not None and not newer(epoch, before.plan.epoch):
            epoch = next_version(before.plan.epoch)  # an epoch that was given up is never used again
        source, target = self._sites[redirect.source], self._sites[redirect.target]
        plan = Plan(int(redirect.move, 16), epoch, redirect.eids, source, target, bicast=self._bicast)
        if before.plan is not None:
            self._service_of.pop(before.plan.move, None)
        self._service_of[plan.move] = redirect.service
        return self._step(redirect.service, Begin(plan), now)

    def freeze(self, redirect: Redirect, now: float) -> list[Send]:
        return self._step(redirect.service, Stopped(), now)

    def activate(self, redirect: Redirect, now: float) -> list[Send]:
        return self._step(redirect.service, Resumed(), now)

    def commit(self, redirect: Redirect, now: float) -> list[Send]:
        lead = self._leads.get(redirect.service)
        epoch = lead.plan.epoch if lead is not None and lead.plan is not None else redirect.version
        return self._step(redirect.service, Published(epoch), now)

    def abort(self, redirect: Redirect, now: float) -> list[Send]:
        return self._step(redirect.service, GiveUp(), now)

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

    def _step(self, service: str, event: Event, now: float) -> list[Send]:
        lead, effects = step(self._leads.get(service, Lead()), event, now)
        self._leads[service] = lead
        if lead.deadline is None:
            self._deadlines.cancel(service)
        else:
            self._deadlines.set(service, lead.deadline)
        sends: list[Send] = []
        for effect in effects:
            match effect:
                case Ask(to=to, plan=plan):
                    rlocs = plan.target if to is Party.TARGET else plan.source
                    sends += self._exchanges.ask(effect, rlocs[:1], now)
                case Settle(plan=plan):
                    self._exchanges.settle(plan)
                case Ready() | Failed() | Remember():
                    self._news.append(effect)
        return sends
