"""Which hosts are here, by what they show of themselves.

Evidence goes in (an announcement, or a first packet that leads to a probe), `Deliver` and `Undeliver` come out.
Whether a host that is here gets registered is decided in `xtr.moves`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import msgspec

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Emit, Reject
from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire.address import Endpoint, Prefix
from xtr.effects import Deliver, ProbeHost, Undeliver, XtrEffect
from xtr.settings import XtrSettings

PROBE_S = 1.0  # RFC 4861 §7.2.2 and RFC 1122 §2.3.2.1: ask one host at most once a second
MOST_PROBED = 4096  # a host of ours that sends with made-up sources must not fill the memory


class Activation(Enum):
    """What the appearance of an EID means."""

    PRESENCE = "presence"
    CONTROLLER = "controller"
    LOCAL = "local"  # covered by a fixed prefix and in no dynamic range: there is nothing more to register
    FOREIGN = "foreign"


class Host(msgspec.Struct, frozen=True, gc=False):
    """A host that is here."""

    eid: Prefix
    interface: str
    mac: bytes
    since: float


class Presence:
    """The hosts of this site, bounded by `limits.hosts`."""

    def __init__(self, settings: XtrSettings) -> None:
        self._most = settings.limits.hosts
        self._hosts: dict[Prefix, Host] = {}
        self._homes: PrefixTable[None] = PrefixTable()
        self._dynamic: PrefixTable[Activation] = PrefixTable()
        self._probed: Deadlines[Prefix] = Deadlines()
        for prefix in settings.prefixes:
            self._homes.set(settings.placed(prefix), None)
        for dynamic in settings.dynamic:
            self._dynamic.set(settings.placed(dynamic.prefix), Activation(dynamic.activation))

    def activation(self, eid: Prefix) -> Activation:
        """What it means when `eid` shows up here."""
        found = self._dynamic.longest(eid)
        if found:
            return found[1]
        return Activation.LOCAL if self.at_home(eid) else Activation.FOREIGN

    def at_home(self, eid: Prefix) -> bool:
        """True inside a fixed prefix of ours."""
        return self._homes.longest(eid) is not None

    def seen(self, eid: Prefix, interface: str, mac: bytes, now: float) -> list[XtrEffect]:
        """A host showed itself. [] when nothing about it is new."""
        if self.activation(eid) is Activation.FOREIGN or not eid.is_host:
            return [_foreign(eid)]
        before = self._hosts.get(eid)
        if before is not None and (before.interface, before.mac) == (interface, mac):
            return []
        if before is None and len(self._hosts) >= self._most:
            return [Reject("too-many-hosts", Endpoint(eid.ip, 0), f"there are {self._most} already")]
        self._hosts[eid] = Host(eid, interface, mac, before.since if before else now)
        effects: list[XtrEffect] = [Deliver(eid, interface, mac)]
        if before is None:
            effects.append(Emit("host.arrived", {"eid": str(eid), "interface": interface, "mac": mac.hex(":")}))
        return effects

    def probe(self, eid: Prefix, now: float) -> list[XtrEffect]:
        """Ask whether `eid` is here, unless it was asked a moment ago."""
        if self.activation(eid) is Activation.FOREIGN or not eid.is_host:
            return [_foreign(eid)]
        for _ in self._probed.pop_expired(now):
            pass
        if eid in self._probed or len(self._probed) >= MOST_PROBED:
            return []
        self._probed.set(eid, now + PROBE_S)
        return [ProbeHost(eid)]

    def lost(self, eid: Prefix, cause: str, now: float) -> list[XtrEffect]:
        """The host has left."""
        host = self._hosts.pop(eid, None)
        if host is None:
            return []
        stayed_s = round(now - host.since, 3)
        return [Undeliver(eid), Emit("host.lost", {"eid": str(eid), "cause": cause, "stayed_s": stayed_s})]

    def get(self, eid: Prefix) -> Host | None:
        return self._hosts.get(eid)

    def __contains__(self, eid: Prefix) -> bool:
        return eid in self._hosts

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())


def _foreign(eid: Prefix) -> Reject:
    return Reject("foreign-host", Endpoint(eid.ip, 0), f"{eid} is in no prefix and no dynamic range of this site")
