"""Which hosts are here, by what they show of themselves.

Evidence goes in (an announcement, or a first packet that leads to a probe), `Deliver` and `Undeliver` come out. A host
that has been silent for a while is asked, and only if it does not answer several times is it given up. Whether a host
that is here gets registered is decided in `xtr.moves`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum

import msgspec

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Emit, Reject
from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire.address import Endpoint, Prefix
from xtr.effects import Deliver, ProbeHost, Undeliver, XtrEffect
from xtr.mobility import Mobilities, Sign
from xtr.settings import XtrSettings

PROBE_S = 1.0  # RFC 4861 §7.2.2 and RFC 1122 §2.3.2.1: ask one host at most once a second
SILENT_PROBES = 3  # unanswered questions after which a silent host is given up
MOST_MACS = 65_536  # MAC addresses whose EIDs are remembered, those of hosts that have left too
EIDS_PER_MAC = 16  # a machine has a handful; a router's MAC must not fill the table
MOST_PROBED = 4096  # a host of ours that sends with made-up sources must not fill the memory


class Activation(Enum):
    """What the appearance of an EID means."""

    PRESENCE = "presence"  # it is registered
    CONTROLLER = "controller"  # somebody else has to say that it is registered here
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

    def __init__(self, settings: XtrSettings, heard: Callable[[Prefix], float | None] = lambda _: None) -> None:
        """`heard` says when the data plane last saw a packet of a host."""
        self._most = settings.limits.hosts
        self._silence_s = settings.timers.silence_s
        self._plane_heard = heard
        self._heard: dict[Prefix, float] = {}
        self._asked: dict[Prefix, int] = {}
        self._quiet: Deadlines[Prefix] = Deadlines()
        self._macs: dict[bytes, dict[Prefix, None]] = {}
        self._hosts: dict[Prefix, Host] = {}
        self._homes: PrefixTable[None] = PrefixTable()
        self._probed: Deadlines[Prefix] = Deadlines()
        for prefix in settings.prefixes:
            self._homes.set(settings.placed(prefix), None)
        self._mobilities = Mobilities(settings)

    def activation(self, eid: Prefix) -> Activation:
        """What it means when `eid` shows up here."""
        mobility = self._mobilities.dynamic(eid)
        if mobility is not None:
            return Activation.PRESENCE if mobility.registers_on in (Sign.SHOWN, Sign.SENT) else Activation.CONTROLLER
        return Activation.LOCAL if self.at_home(eid) else Activation.FOREIGN

    def must_speak(self, eid: Prefix) -> bool:
        """Only what `eid` sends itself shows that it is here; announcements may be its hypervisor's."""
        mobility = self._mobilities.dynamic(eid)
        return mobility is not None and mobility.registers_on is Sign.SENT

    def at_home(self, eid: Prefix) -> bool:
        """True inside a fixed prefix of ours."""
        return self._homes.longest(eid) is not None

    def seen(self, eid: Prefix, interface: str, mac: bytes, now: float) -> list[XtrEffect]:
        """A host showed itself. [] when nothing about it is new."""
        if self.activation(eid) is Activation.FOREIGN or not eid.is_host:
            return [_foreign(eid)]
        before = self._hosts.get(eid)
        if before is not None:
            self._heard[eid] = now
            if self._asked.pop(eid, 0):  # it was being asked: it has answered
                self._quiet.set(eid, now + self._silence_s)
        if before is not None and (before.interface, before.mac) == (interface, mac):
            return []
        if before is None and len(self._hosts) >= self._most:
            return [Reject("too-many-hosts", Endpoint(eid.ip, 0), f"there are {self._most} already")]
        self._hosts[eid] = Host(eid, interface, mac, before.since if before else now)
        self._heard[eid] = now
        self.remember_mac(mac, eid)
        if self._silence_s and before is None:
            self._quiet.set(eid, now + self._silence_s)
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
        self._heard.pop(eid, None)
        self._asked.pop(eid, None)
        self._quiet.cancel(eid)
        stayed_s = round(now - host.since, 3)
        return [Undeliver(eid), Emit("host.lost", {"eid": str(eid), "cause": cause, "stayed_s": stayed_s})]

    def with_mac(self, mac: bytes) -> list[Prefix]:
        """The EIDs that a MAC address had when it was last here."""
        return list(self._macs.get(mac, ()))

    def next_deadline(self) -> float | None:
        return self._quiet.next()

    def expired(self, now: float) -> tuple[list[XtrEffect], list[Prefix]]:
        """Questions to silent hosts, and the hosts that have answered none of several."""
        effects: list[XtrEffect] = []
        given_up: list[Prefix] = []
        for eid in list(self._quiet.pop_expired(now)):
            heard = max(self._heard[eid], self._plane_heard(eid) or 0.0)
            asked = self._asked.get(eid, 0)
            if heard + self._silence_s > now:
                self._asked.pop(eid, None)
                self._quiet.set(eid, heard + self._silence_s)
            elif asked >= SILENT_PROBES:
                self._asked.pop(eid)
                self._quiet.set(eid, now + self._silence_s)
                given_up.append(eid)
            else:
                self._asked[eid] = asked + 1
                self._quiet.set(eid, now + PROBE_S)
                effects.append(ProbeHost(eid))
        return effects, given_up

    def remember_mac(self, mac: bytes, eid: Prefix) -> None:
        """`mac` says that it has `eid`."""
        eids = self._macs.pop(mac, {})
        eids.pop(eid, None)
        eids[eid] = None
        while len(eids) > EIDS_PER_MAC:
            del eids[next(iter(eids))]
        self._macs[mac] = eids
        while len(self._macs) > MOST_MACS:
            del self._macs[next(iter(self._macs))]

    def get(self, eid: Prefix) -> Host | None:
        return self._hosts.get(eid)

    def __contains__(self, eid: Prefix) -> bool:
        return eid in self._hosts

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())


def _foreign(eid: Prefix) -> Reject:
    return Reject("foreign-host", Endpoint(eid.ip, 0), f"{eid} is in no prefix and no dynamic range of this site")
