"""What the schemes have in common that prepare no router: the copy may begin at once, and nothing is remembered.

A scheme takes from here what it does not do itself; each phase that it leaves out sends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from fmcc.steering import News, Outcome, Ready, Redirect
from fmcc.steering.lead import Lead
from lispfmc.core.effects import Reject, Send
from lispfmc.wire.address import Endpoint
from lispfmc.wire.messages import MapNotifyAck
from lispfmc.wire.moves import MoveMessage


class Plain:
    """A scheme that does nothing but let the copy begin."""

    scheme = ""

    def __init__(self) -> None:
        self._news: list[News] = []

    def prepare(self, redirect: Redirect, now: float) -> list[Send]:
        self._news.append(Ready(redirect.move, redirect.service))
        return []

    def freeze(self, redirect: Redirect, now: float) -> list[Send]:
        return []

    def activate(self, redirect: Redirect, now: float) -> list[Send]:
        return []

    def commit(self, redirect: Redirect, now: float) -> list[Send]:
        return []

    def abort(self, redirect: Redirect, now: float) -> list[Send]:
        return []

    def acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint) -> Outcome:
        return Reject("unexpected-ack", source, f"the scheme {self.scheme} sends no Map-Notify")

    def answered(self, message: MoveMessage, datagram: bytes, source: Endpoint, now: float) -> list[Send] | Reject:
        return Reject("unexpected-message", source, f"a move message; the scheme {self.scheme} sends none")

    def drained(self) -> list[News]:
        news, self._news = self._news, []
        return news

    def busy(self, service: str) -> str:
        return ""

    def lead(self, service: str) -> Lead | None:
        return None

    def restored(self, leads: Mapping[str, Lead], now: float) -> list[Send]:
        return []

    def next_deadline(self) -> float | None:
        return None

    def expired(self, now: float) -> list[Send]:
        return []
