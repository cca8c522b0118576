"""One service's move by one scheme, on a network whose delays all differ, so that each term of a formula shows.

The hypervisor is played: STOP is link down, RESUME link up and an announcement, then its word to the router or to the
controller, then, after a while, the machine's own first packet. The client sends all the time, whatever becomes of it.
"""

from __future__ import annotations

from fmcc.steering import Redirect
from fmcc.steering.lisp import Fig9
from fmcc.world import DataCenter
from lispfmc.core.plans import TTL_MINUTES
from lispfmc.wire.address import Endpoint, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import Ecm, EidRecord, MapNotify, MapNotifyAck, MapRegister, MapReply, MapRequest, Message
from lispfmc.wire.moves import MoveMessage, MovePhase
from mapserver.settings import MapServerSettings
from tests.scenarios.sites import (
    ALICE_APP,
    BOB,
    RLOCS,
    SERVICES,
    SITES,
    USERS,
    World,
    XtrNode,
    mapserver_settings,
    pair_secret,
    rloc,
    xtr_settings,
)
from xtr.settings import XtrSettings

OLD, NEW, CLIENT, MS, FMCC = "dc1", "dc2", "access2", "mapserver", "fmcc"
DELAYS_S = {
    (OLD, NEW): 0.040,
    (OLD, CLIENT): 0.045,
    (NEW, CLIENT): 0.010,
    (OLD, MS): 0.021,
    (NEW, MS): 0.026,
    (CLIENT, MS): 0.023,
    (OLD, FMCC): 0.020,
    (NEW, FMCC): 0.025,
}
BLACKOUT_S = 0.060
SILENT_S = 0.100  # how long the machine that runs again sends nothing itself
ANSWERS_S = 0.001  # a host answers an ARP question
PROBE_S = 0.0002
AGENT = Key(6, b"agent")
WIRE = {MapRegister: "register", MapNotify: "notify", MapNotifyAck: "ack", MapReply: "reply", MoveMessage: "move"}


def d(one: str, other: str) -> float:
    return DELAYS_S[one, other] if (one, other) in DELAYS_S else DELAYS_S[other, one]


def served(scheme: str) -> MapServerSettings:
    """The Map-Server of the lab with this scheme: only in "pubsub" do routers subscribe."""
    settings = mapserver_settings().model_dump(mode="python")
    if scheme != "pubsub":
        return mapserver_settings()
    rows = [
        {"name": site, "key_id": 4, "secret": "pub", "ranges": USERS + SERVICES, "address": RLOCS[site]}
        for site in SITES
    ]
    return MapServerSettings.model_validate(settings | {"subscribers": rows})


class SchemeWorld(World):
    """Bob at access2 uses the service at dc1."""

    def __init__(self, scheme: str, mobility: str) -> None:
        self.scheme, self.mobility = scheme, mobility
        super().__init__(served=served(scheme))
        for (one, other), seconds in DELAYS_S.items():
            self.network.delay(one, other, seconds)
        self.network.lose(lambda each: each.source.ip == each.to.ip)  # answers to the agent, on the router's own host
        self.client = self.host("bob", BOB, at=CLIENT)
        self.app = self.host("alice-app", ALICE_APP, at=OLD)
        self.run(10)
        self.talk(BOB, ALICE_APP, 2.0)
        sites = {site: tuple(ip_of(text) for text in RLOCS[site]) for site in SITES}
        keys = {site: DataCenter(site, Key(3, pair_secret(site, FMCC).encode())) for site in (OLD, NEW)}
        self.fig9 = Fig9(sites, keys, self.network.nonces())
        self.sent_at: dict[int, float] = {}
        self.silent = False
        """The machine sends nothing itself where it has come."""
        self._place = OLD

    def settings_of(self, name: str, peers: tuple[str, ...]) -> XtrSettings:
        more: dict[str, object] = {}
        if name in (OLD, NEW):
            secret = AGENT.secret.decode()
            more["agent"] = {"address": RLOCS[name][0], "key_id": AGENT.id, "secret": secret}
        if self.scheme == "pubsub":
            server = {"address": RLOCS[MS][0], "key_id": 1, "secret": f"site-{name}"}
            more["map_servers"] = [server | {"subscription": {"key_id": 4, "secret": "pub"}}]
        return xtr_settings(name, peers=peers, services=self.mobility, **more)

    def move(self, *, back: bool = False) -> None:
        """The whole move, and a second more. `began`: when the machine ran again."""
        self._place = OLD if back else NEW
        self.sent_at.clear()
        start = self.network.now
        stop, resume = start + 0.5, start + 0.5 + BLACKOUT_S
        for number in range(round(2.0 / PROBE_S)):
            self.network.at(start + number * PROBE_S, self._probes)
        self.network.at(stop, self._stops)
        self.network.at(resume, self._resumes)
        self.network.at(resume + SILENT_S, self._speaks)
        self.network.at(resume + d(NEW, FMCC), self._controller_hears)
        self.began = resume
        self.run(2.5)

    def wire(self) -> list[str]:
        """The control messages since the machine ran again, in the order of sending."""
        names = {ip_of(address): name for name, both in RLOCS.items() for address in both}
        later = [each for each in self.network.sent if each.at >= self.began and each.source.ip != each.to.ip]
        return [f"{names[each.source.ip]} {_kind(each.message)} {names[each.to.ip]}" for each in later]

    def gap_end(self) -> float:
        """When the machine got its first packet at the new place."""
        return next(at for at in self.app.got_at if at >= self.began)

    def lost_s(self) -> float:
        """For how long what the client sent was lost."""
        got = {packet.number for packet in self.app.got}
        return sum(number not in got for number in self.sent_at) * PROBE_S

    def _probes(self) -> None:
        self.sent_at[self.send(BOB, ALICE_APP)] = self.network.now

    def _stops(self) -> None:
        self.app.site = None

    def _resumes(self) -> None:
        self.attach(self.app, self._place)
        if self.scheme == "cp":
            record = EidRecord.of(ALICE_APP, ttl_minutes=TTL_MINUTES)
            nonce = next(self.network.nonces())
            word = MoveMessage.of(MovePhase.ACTIVATE, record, nonce=nonce, move=7, epoch=0)
            self.xtrs[self._place].datagram(sign(word, AGENT), Endpoint(rloc(self._place), 9350))

    def _speaks(self) -> None:
        if self.silent:
            return
        router = self.xtrs[self._place]
        if ALICE_APP not in router.delivered:
            router.apply(router.core.unknown_source(ALICE_APP, self.network.now))
        self.send(ALICE_APP, BOB)

    def _controller_hears(self) -> None:
        if self.scheme != "fig9":
            return
        redirect = Redirect("7", "alice-app", (ALICE_APP,), 1, OLD, self._place)
        for send in self.fig9.activate(redirect, self.network.now):
            assert isinstance(send.message, MapNotify)
            assert send.key is not None
            self._arrives(self.xtr_at(send.to.ip), sign(send.message, send.key))

    def _arrives(self, at: XtrNode, data: bytes) -> None:
        arrival = self.network.now + d(FMCC, at.name)
        self.network.at(arrival, lambda: at.datagram(data, self.endpoint(FMCC)))


def _kind(message: Message) -> str:
    if isinstance(message, MapRequest):
        return "smr" if message.smr else "request"
    if isinstance(message, Ecm):
        return "request"
    return WIRE[type(message)]
