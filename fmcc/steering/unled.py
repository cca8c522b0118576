"""The schemes in which the controller tells the routers nothing: it lets the copy begin, and hears of the new mapping.

"cp" (change priority; Raad et al., IEEE TNSM 11(2), 2014), "dataplane" (Cisco's host mobility), "pubsub" (RFC 9437),
"garp" (announcements snooped) and "smr" (RFC 9300 and RFC 9301): what happens in each is the routers' part
(`xtr.mobility`), and cp's hypervisors'. Their mappings have no version: nobody there gives epochs.
"""

from __future__ import annotations

from fmcc.steering import Redirect, Versioned
from fmcc.steering.plain import Plain
from lispfmc.core.effects import Send

NO_VERSION = 0  # RFC 9302 §6


class Unled(Plain):
    """See the module."""

    scheme = "unled"

    def prepare(self, redirect: Redirect, now: float) -> list[Send]:
        self._unversioned(redirect)
        return super().prepare(redirect, now)

    def activate(self, redirect: Redirect, now: float) -> list[Send]:
        self._unversioned(redirect)  # found there, perhaps, and never prepared
        return []

    def _unversioned(self, redirect: Redirect) -> None:
        if redirect.version != NO_VERSION:
            self._news.append(Versioned(redirect.move, redirect.service, NO_VERSION))
