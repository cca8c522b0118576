"""The demo's own path on real packets: a user moves, its service follows, and whoever is not entitled changes nothing.

One lab is brought up for the file; the story happens once, and each test looks at one side of it.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lispfmc.lab import lifecycle
from lispfmc.lab.entrance import inside
from lispfmc.lab.installation import Installation
from lispfmc.lab.measurement import move
from lispfmc.lab.report import MoveReport
from lispfmc.runtime.client import ApiClient
from lispfmc.wire import decode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import EidRecord, Locator, MapRegister
from lispfmc.wire.pcap import packets
from tests.integration.shapes import paths
from tests.integration.wireshark import assert_read_whole, visible

pytestmark = pytest.mark.namespaces

LAB = "follow"
ALICE, APP = ("100.64.1.10/32", "fd00:0:0:1::10/128"), ("100.64.101.10/32", "fd00:0:0:101::10/128")
ECHO_TCP = 7008
SHARED_EXTENSION = 15
REFRESH_S = 30.0  # the lab's tunnel routers register anew every 20 s
ACCESS1, ACCESS2, DC2 = "198.18.0.11", "198.18.0.12", "198.18.0.22"


class Talk:
    """A TCP conversation of alice with her service that goes on until it is ended, one exchange at a time."""

    def __init__(self, lab: Installation) -> None:
        self._stream = inside(_namespace(lab, "alice"), self._connect)
        self.began_as = self._stream.getsockname()
        self.exchanges = 0
        self.broke: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @staticmethod
    def _connect() -> socket.socket:
        return socket.create_connection(("100.64.101.10", ECHO_TCP), timeout=20)

    def exchange(self) -> None:
        said = struct.pack("!Q", self.exchanges)
        self._stream.sendall(said)
        heard = b""
        while len(heard) < len(said):
            some = self._stream.recv(len(said) - len(heard))
            if not some:
                raise ConnectionError("the service closed the connection")
            heard += some
        if heard != said:
            raise ConnectionError(f"{heard.hex()} came back for {said.hex()}")
        self.exchanges += 1

    def _run(self) -> None:
        try:
            while not self._ended.wait(0.01):
                self.exchange()
        except OSError as error:
            self.broke = error

    def pause(self) -> None:
        """End the thread; the connection stays for single exchanges."""
        self._ended.set()
        self._thread.join()

    def now_as(self) -> Any:
        return self._stream.getsockname()

    def close(self) -> None:
        self.pause()
        self._stream.close()


class Tap:
    """What a site's tunnel router sends to control ports, seen on its wire."""

    def __init__(self, lab: Installation, site: str) -> None:
        self._socket = inside(_namespace(lab, site), self._open)

    @staticmethod
    def _open() -> socket.socket:
        every = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL: outgoing packets too
        every.bind(("wan0", 3))
        every.settimeout(0.2)
        return every

    def registered(self, prefix: str, within_s: float) -> set[str]:
        """Every EID-Prefix that is registered until one refresh, which contains `prefix`, is complete."""
        seen: set[str] = set()
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(65535)
            except TimeoutError:
                continue
            if kind == socket.PACKET_OUTGOING:
                seen |= _registered_in(frame)
            if prefix in seen:
                until = min(until, time.monotonic() + 1.0)
        return seen

    def close(self) -> None:
        self._socket.close()


class Capture:
    """Every control packet that crosses the lab's core, taken by tcpdump until `stop`."""

    def __init__(self, lab: Installation, file: Path) -> None:
        self._file = file
        core = _namespace(lab, "access1").replace("access1", "core")
        command = [
            "nsenter",
            f"--net=/run/netns/{core}",
            "tcpdump",
            "-i",
            "br0",
            "-U",
            "-w",
            str(file),
            "udp",
            "port",
            "4342",
        ]
        self._tcpdump = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._tcpdump.stderr is not None
        while "listening on" not in (line := self._tcpdump.stderr.readline()):
            assert line, "tcpdump ended before it listened"

    def stop(self) -> list[bytes]:
        """The control messages, each once although the WAN forwarder sends every frame on."""
        if self._tcpdump.poll() is None:
            self._tcpdump.terminate()
            self._tcpdump.communicate(timeout=10)
        with self._file.open("rb") as capture:
            return list(dict.fromkeys(packet.payload for packet in packets(capture)))


class Story(NamedTuple):
    lab: Installation
    talk: Talk
    report: MoveReport
    capture: Capture


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LISPFMC_RUN", str(tmp_path_factory.mktemp("run")))
        lab = lifecycle.up("fig5", LAB)
        try:
            capture = Capture(lab, tmp_path_factory.mktemp("capture") / "control.pcap")
            talk = Talk(lab)
            try:
                report = asyncio.run(_move(lab, "access2"))
                yield Story(lab, talk, report, capture)
            finally:
                talk.close()
                capture.stop()
        finally:
            lifecycle.down(LAB)


def test_the_service_follows_the_user_to_the_nearer_data_centre(story: Story) -> None:
    assert story.report.outcome == "committed"
    assert (story.report.service_from, story.report.service_to) == ("dc1", "dc2")
    names = [phase.name for phase in story.report.phases]
    assert {"registered", "published", "decision", "copy", "stop", "resume", "notified", "committed"} <= set(names)
    assert {"prepared", "frozen", "activated", "converging"} <= set(names)


def test_the_services_move_loses_no_packet(story: Story) -> None:
    moved = story.report.document()["service_move"]["directions"]
    assert {name: figures["lost"] for name, figures in moved.items()} == {"to_service": 0, "to_user": 0}


def test_the_user_keeps_its_address_and_its_connection(story: Story) -> None:
    before = story.talk.exchanges
    story.talk.pause()
    story.talk.exchange()
    assert story.talk.broke is None
    assert story.talk.exchanges > max(before, 20)
    assert story.talk.now_as() == story.talk.began_as


def test_the_report_says_what_the_network_does(story: Story) -> None:
    document = story.report.document()
    rtt = document["rtt_ms"]
    # a busy machine only adds to them
    assert 3 <= rtt["after"] < rtt["before"] < rtt["during"]
    assert rtt["before"] >= 12
    assert 250 <= rtt["during"] < 300
    assert document["emulated"] is True
    service = document["service_move"]
    assert service["blackout_ms"] == pytest.approx(service["blackout_events_ms"], abs=100)
    for moved in (document["user_move"], service):
        assert set(moved["directions"]) == {"to_service", "to_user"}
        for figures in (moved, *moved["directions"].values()):
            assert figures["added_ms"] == pytest.approx(figures["gap_ms"] - figures["blackout_ms"], abs=0.01)
            assert min(figures[name] for name in ("gap_ms", "lost", "duplicated", "reordered", "not_sent")) >= 0
        for sent in moved["directions"].values():
            assert sent["lost"] < sent["sent"] / 2


def test_both_directions_flow_by_the_new_site_only(story: Story) -> None:
    story.talk.pause()
    before = {site: _counters(story.lab, site) for site in ("access1", "access2", "dc1", "dc2")}
    for _ in range(50):
        story.talk.exchange()
    moved = {site: _difference(before[site], _counters(story.lab, site)) for site in before}
    for site in ("access2", "dc2"):
        assert moved[site].get("encapsulated", 0) >= 50
        assert moved[site].get("decapsulated", 0) >= 50
    for site in ("access1", "dc1"):
        assert not [name for name in moved[site] if name.endswith("capsulated")], moved[site]


def test_the_map_caches_lead_to_the_new_sites(story: Story) -> None:
    assert _best(_items(story.lab, "access2", "/v1/map-cache"), APP[0]) == DC2
    assert _best(_items(story.lab, "dc2", "/v1/map-cache"), ALICE[0]) == ACCESS2


def test_the_map_server_has_both_at_their_new_sites(story: Story) -> None:
    registrations = {one["eid"]: one for one in _items(story.lab, "mapserver", "/v1/registrations")}
    assert {registrations[eid]["site"] for eid in ALICE} == {"access2"}
    assert {registrations[eid]["site"] for eid in APP} == {"dc2"}
    assert all(registrations[eid]["version"] > 0 for eid in APP)


@pytest.mark.parametrize(
    ("site", "gone", "fixed"), [("access1", ALICE, "100.64.1.0/24"), ("dc1", APP, "100.64.101.0/24")]
)
def test_the_old_site_lets_go(story: Story, site: str, gone: tuple[str, ...], fixed: str) -> None:
    assert not {host["eid"] for host in _items(story.lab, site, "/v1/hosts")} & set(gone)
    tap = Tap(story.lab, site)
    try:
        refreshed = tap.registered(fixed, REFRESH_S)
    finally:
        tap.close()
    assert fixed in refreshed
    assert not refreshed & set(gone)


@pytest.mark.parametrize(
    ("reason", "eid", "wrong"),
    [
        ("bad-authentication", ALICE[0], {"secret": b"not the secret"}),
        ("foreign-prefix", "192.0.2.0/24", {}),
        ("replayed-nonce", ALICE[0], {"nonce": 1}),
    ],
)
def test_who_is_not_entitled_changes_nothing_and_is_counted(
    story: Story, reason: str, eid: str, wrong: dict[str, Any]
) -> None:
    before, mappings = _rejects(story.lab).get(reason, 0), _mappings(story.lab)
    _register(story.lab, "access1", eid, **wrong)
    until = time.monotonic() + 3.0
    while _rejects(story.lab).get(reason, 0) == before and time.monotonic() < until:
        time.sleep(0.02)
    assert _rejects(story.lab).get(reason, 0) == before + 1
    assert _mappings(story.lab) == mappings


def test_the_command_line_shows_the_same(story: Story) -> None:
    looked_up = _lispfmc("lookup", "100.64.101.10")
    assert looked_up["records"][0]["eid"] == APP[0]
    assert DC2 in {locator["rloc"] for locator in looked_up["records"][0]["locators"]}
    placed = {one["service"]: one["datacenter"] for one in _lispfmc("show", "placements")["items"]}
    assert placed == {"alice-app": "dc2", "bob-app": "dc1"}
    assert {one["state"] for one in _lispfmc("status")["daemons"]} == {"ready"}
    caches = _lispfmc("show", "map-cache", "--at", "access2")["items"]
    assert _best(caches, APP[0]) == DC2
    assert _lispfmc("lookup", "192.0.2.1", code=1)["records"][0]["action"] == "Natively-Forward"
    assert _lispfmc("move", "alice", "--to", "access2")["outcome"] == "already-there"
    assert _lispfmc("lab", "status")["ready"]


GOLDEN = Path(__file__).parent / "golden/cli.json"
COMMANDS = [
    "status",
    *(f"show {table}" for table in ("map-cache", "hosts", "registrations", "subscriptions", "placements", "users")),
    *(f"show {table}" for table in ("services", "datacenters", "distances")),
    "lookup 100.64.101.10",
    "explain alice",
    "moves list",
    "lab status",
    "reload --dry-run",
    "move alice --to access1 --dry-run",
    "lab down --dry-run",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_keys_of_the_json_that_scripts_read_only_ever_grow(story: Story, command: str) -> None:
    """LISPFMC_GOLDEN=write adds new ones to the golden file; taking one away is a new major version."""
    found = set(paths(_lispfmc(*command.split())))
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("LISPFMC_GOLDEN") == "write":
        GOLDEN.parent.mkdir(exist_ok=True)
        known[command] = sorted(found | set(known.get(command, ())))
        GOLDEN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    assert set(known[command]) - found == set()


@pytest.mark.tshark
def test_wireshark_reads_every_control_message_of_the_story(story: Story, tmp_path: Path) -> None:
    datagrams = story.capture.stop()
    kinds = {datagram[0] >> 4 for datagram in datagrams}
    assert {2, 3, 4, 5, 8} <= kinds, "the story has Map-Replies, Registers, Notifies, Acks and ECMs"
    # what Wireshark does not know, it does not call wrong: move messages are a sub-type of ours (RFC 9304)
    standard = (visible(datagram) for datagram in datagrams if datagram[0] >> 4 != SHARED_EXTENSION)
    assert_read_whole(standard, tmp_path / "story.pcap")


def _lispfmc(*arguments: str, code: int = 0) -> Any:
    command = [sys.executable, "-m", "lispfmc.cli", *arguments, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


async def _move(lab: Installation, site: str) -> MoveReport:
    alice = lab.node("alice")
    assert alice is not None
    return await move(lab, alice, site, wait=True, measure=True, timeout_s=45)


def _namespace(lab: Installation, name: str) -> str:
    places = {daemon.name: daemon.namespace for daemon in lab.daemons}
    places |= {node.name: node.namespace for node in lab.nodes}
    namespace = places[name]
    assert namespace is not None
    return namespace


def _get(lab: Installation, daemon: str, path: str) -> Any:
    listen = next(one.api for one in lab.daemons if one.name == daemon)

    async def get() -> Any:
        async with ApiClient(listen) as api:
            return await api.get(path)

    return asyncio.run(get())


def _items(lab: Installation, daemon: str, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = _get(lab, daemon, path)["items"]
    return items


def _counters(lab: Installation, site: str) -> dict[str, int]:
    counters: dict[str, int] = _get(lab, site, "/v1/counters")
    return counters


def _difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}


def _best(items: list[dict[str, Any]], eid: str) -> str:
    entry = next(one for one in items if one["eid"] == eid)
    rloc: str = min(entry["locators"], key=lambda one: one["priority"])["rloc"]
    return rloc


def _rejects(lab: Installation) -> dict[str, int]:
    counts: dict[str, int] = _get(lab, "mapserver", "/v1/rejects")["counts"]
    return counts


def _mappings(lab: Installation) -> list[tuple[Any, ...]]:
    rows = _items(lab, "mapserver", "/v1/registrations")
    return sorted((one["eid"], one["site"], one["version"], str(one["locators"])) for one in rows)


def _register(lab: Installation, site: str, eid: str, *, secret: bytes | None = None, nonce: int | None = None) -> None:
    """A Map-Register from the site's own address, with the site's own key unless another is given."""
    settings = tomllib.loads((lab.folder / f"{site}.toml").read_text())["map_servers"][0]
    record = EidRecord.of(Prefix.parse(eid), [Locator.of(ip_of(ACCESS1))], ttl_minutes=1440, authoritative=True)
    message = MapRegister.of(
        record,
        nonce=time.time_ns() // 1_000_000 << 20 if nonce is None else nonce,
        xtr_id=sha256(site.encode()).digest()[:16],
        site_id=bytes(8),
    )
    datagram = sign(message, Key(settings["key_id"], secret or settings["secret"].encode()))

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.bind((ACCESS1, 0))
            out.sendto(datagram, (settings["address"], 4342))

    inside(_namespace(lab, site), send)


def _registered_in(frame: bytes) -> set[str]:
    """The EID-Prefixes of a Map-Register in an Ethernet frame; none when it is anything else."""
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    capture = io.BytesIO(head + struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
    found: set[str] = set()
    for packet in packets(capture):
        if packet.destination.port == 4342:
            message = decode(packet.payload)
            if isinstance(message, MapRegister):
                found |= {str(record.prefix) for record in message.records}
    return found
