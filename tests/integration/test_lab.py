"""The lab in real namespaces: it comes up whole, delays what it should, is refused twice, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lispfmc.lab import lifecycle, namespaces, processes
from lispfmc.lab.entrance import inside
from lispfmc.lab.impairment import impair
from lispfmc.lab.installation import BadName, Installation
from lispfmc.lab.namespaces import namespace_of
from lispfmc.lab.readiness import ask_node
from lispfmc.wire.errors import LocalError

pytestmark = pytest.mark.namespaces

LAB = "labtest"
SLACK_MS = 4.0  # a busy machine wakes the forwarder late; medians stay within this


@pytest.fixture(scope="module")
def run_directory() -> Iterator[Path]:
    """Short, because it holds unix sockets; the machine's own labs are left alone."""
    with tempfile.TemporaryDirectory(prefix="lfmc") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LISPFMC_RUN", folder)
        yield Path(folder)


@pytest.fixture(scope="module")
def lab(run_directory: Path) -> Iterator[Installation]:
    lifecycle.down(LAB)
    began = time.monotonic()
    installation = lifecycle.up("fig5", LAB)
    print(f"lab up in {time.monotonic() - began:.1f} s")  # noqa: T201 - a figure for the report
    yield installation
    lifecycle.down(LAB)
    assert lifecycle.traces(LAB) == []


def run_in(member: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", "netns", "exec", namespace_of(LAB, member), *command], capture_output=True, text=True, check=False
    )


def is_reached(member: str, address: str, within_s: float = 5.0) -> bool:
    """The address answers within a bounded time; until its host route is there, a ping fails at once."""
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up:
        if run_in(member, "ping", "-c1", "-W1", address).returncode == 0:
            return True
        time.sleep(0.02)
    return False


def round_trips(member: str, address: str, count: int = 10) -> list[float]:
    done = run_in(member, "ping", "-n", "-i", "0.05", "-c", str(count), "-W", "2", address)
    return [float(line.split("time=")[1].split()[0]) for line in done.stdout.splitlines() if "time=" in line]


def node(lab: Installation, name: str) -> Any:
    found = lab.node(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("member", "address", "rtt_ms"),
    [
        ("access1", "198.18.0.21", 12),
        ("dc1", "198.18.0.11", 12),
        ("access2", "198.18.0.21", 250),
        ("access2", "2001:2::22", 3),
        ("fmcc", "2001:2::21", 1),
        ("mapserver", "198.18.0.22", 10),
    ],
)
def test_every_pair_has_its_round_trip(lab: Installation, member: str, address: str, rtt_ms: float) -> None:
    measured = round_trips(member, address)
    assert len(measured) == 10, "nothing is lost"
    assert rtt_ms <= statistics.median(measured) <= rtt_ms + SLACK_MS


def test_a_round_trip_changes_in_the_running_lab_and_nothing_else_does(lab: Installation) -> None:
    if not (lab.folder / "wan.json").exists():
        pytest.skip("this kernel delays the WAN's packets by itself")
    pair = frozenset(("fmcc", "dc1"))
    try:
        asyncio.run(impair(lab, {pair: 40.0}))
        assert 40.0 <= statistics.median(round_trips("fmcc", "198.18.0.21")) <= 40.0 + SLACK_MS
        assert 10.0 <= statistics.median(round_trips("mapserver", "198.18.0.22")) <= 10.0 + SLACK_MS
    finally:
        asyncio.run(impair(lab, {pair: 1.0}))


def test_bulk_traffic_crosses_the_wan_whole(lab: Installation) -> None:
    """TCP super-packets and partial checksums pass the forwarder."""
    data = os.urandom(1 << 20) * 4
    listener = inside(namespace_of(LAB, "dc2"), lambda: socket.create_server(("198.18.0.22", 9999)))
    sender = inside(namespace_of(LAB, "access2"), lambda: socket.create_connection(("198.18.0.22", 9999), 5))
    receiver, _ = listener.accept()
    with listener, sender, receiver:
        thread = threading.Thread(target=sender.sendall, args=(data,))
        thread.start()
        got = receiver.makefile("rb").read(len(data))
        thread.join()
    assert got == data


def test_everything_is_ready_and_every_node_is_at_its_start(lab: Installation) -> None:
    told = lifecycle.status(LAB)
    assert told["ready"], told
    assert {each["name"]: each["site"] for each in told["nodes"]} == {
        "alice": "access1",
        "bob": "access1",
        "alice-app": "dc1",
        "bob-app": "dc1",
    }


@pytest.mark.parametrize("eid", ["100.64.101.10", "fd00:0:0:101::10"])
def test_a_user_reaches_its_service_over_the_wan(lab: Installation, eid: str) -> None:
    measured = round_trips("alice", eid)
    assert measured, "the service answers"
    assert 12 <= statistics.median(measured) <= 12 + 2 * SLACK_MS


def test_a_second_up_says_what_is_there_and_leaves_it_alone(lab: Installation) -> None:
    with pytest.raises(LocalError, match=rf"lab {LAB} is there already: its lab.json .*run: lispfmc lab down {LAB}"):
        lifecycle.up("fig5", LAB)
    assert lifecycle.status(LAB)["ready"]


@pytest.mark.parametrize("name", ["{}", "../{}", "*", "Lab", "lab\n"])
def test_a_name_that_could_be_a_path_or_a_pattern_is_refused_and_nothing_is_removed(
    name: str, lab: Installation, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("")
    with pytest.raises(BadName):
        lifecycle.down(name.format(tmp_path))
    assert (tmp_path / "precious").exists()
    assert lifecycle.status(LAB)["ready"]


def test_exec_runs_inside_the_namespace_and_returns_its_exit_code(
    lab: Installation, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lifecycle.execute("access1", ["ip", "-o", "addr", "show", "wan0"], LAB) == 0
    assert "198.18.0.11/24" in capfd.readouterr().out
    assert lifecycle.execute("access1", ["false"], LAB) == 1
    with pytest.raises(LocalError, match="access1, access2"):
        lifecycle.execute("access9", ["true"], LAB)


def test_secrets_are_for_their_owner_only(lab: Installation) -> None:
    assert lab.folder.stat().st_mode & 0o777 == 0o700
    for path in [*lab.folder.glob("*.toml"), lab.folder / "key", lab.folder / "lab.json"]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_node_is_reached_by_both_families_wherever_it_goes(lab: Installation) -> None:
    bob = node(lab, "bob")
    for site in ("access2", "access1"):
        moved = ask_node(bob, {"do": "attach", "site": site})
        assert moved["down_ns"] <= moved["up_ns"] <= moved["announced_ns"]
        for eid in bob.eids:
            assert is_reached(site, eid), "as soon as the tunnel router has taken note of the announcement"
        time.sleep(1.0)  # the mapping system hears of the one move before the next


def test_a_frozen_service_is_silent_and_a_thawed_one_skips_what_it_missed(lab: Installation, tmp_path: Path) -> None:
    service, user = node(lab, "bob-app"), node(lab, "bob")
    probe = {"do": "probe.start", "id": "p", "peer": user.eid(), "port": 9100, "log": str(tmp_path / "sent")}
    ask_node(user, {"do": "probe.receive", "id": "p", "port": 9100, "log": str(tmp_path / "got")})
    ask_node(service, probe)
    ask_node(service, {"do": "heartbeat.start", "id": "h", "log": str(tmp_path / "beats")})
    time.sleep(0.3)
    frozen = ask_node(service, {"do": "freeze"})
    assert run_in("dc1", "ping", "-c1", "-W1", service.eid()).returncode != 0, "not even the kernel answers"
    thawed = ask_node(service, {"do": "thaw", "site": "dc1"})
    time.sleep(0.5)
    sent = ask_node(service, {"do": "probe.stop", "id": "p"})["summary"]
    beats = ask_node(service, {"do": "heartbeat.stop", "id": "h"})["summary"]
    time.sleep(0.1)
    got = ask_node(user, {"do": "probe.stop", "id": "p"})["summary"]

    pause_ns = thawed["resumed_ns"] - frozen["stopped_ns"]
    assert pause_ns > 0.5e9
    assert sent["not_sent"] * 1e6 >= pause_ns - 5e6
    assert beats["largest_gap_ns"] >= pause_ns - 5e6
    assert frozen["down_ns"] < beats["largest_gap_at_ns"]
    log = (tmp_path / "got").read_bytes()
    records = list(struct.iter_unpack("<QQQ", log))
    assert len(records) == got["received"] > 300
    assert all(sent_ns <= received_ns for _, sent_ns, received_ns in records), "one clock for all namespaces"
    arrivals = [received_ns for *_, received_ns in records]
    assert max(b - a for a, b in pairwise(arrivals)) >= pause_ns - 5e6


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({"do": "attach", "site": "dc1"}, "has no link to site 'dc1'; it has: access1, access2"),
        ({"do": "fly"}, "no such request 'fly'"),
        ({"do": "attach"}, "lacks the field 'site'"),
        ({"do": "thaw", "site": "access1"}, "is not frozen"),
        ({"do": "probe.stop", "id": "nothing"}, "no worker 'nothing' runs"),
        ({}, "no such request"),
    ],
)
def test_a_node_says_what_is_wrong_with_a_request(lab: Installation, request_: dict[str, str], why: str) -> None:
    with pytest.raises(LocalError, match=why):
        ask_node(node(lab, "alice"), request_)


def naming(folder: Path) -> list[str]:
    """The command lines of processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in line:
                found.append(line)
    return found


@pytest.mark.parametrize("started", [1, 4, 9])
def test_a_killed_up_is_noticed_and_cleaned(run_directory: Path, started: int) -> None:
    name = "labkill"
    code = f"from lispfmc.lab import lifecycle; lifecycle.up('fig5', {name!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        while len(list((run_directory / name).glob("*.pid"))) < started:
            assert up.poll() is None
        up.send_signal(signal.SIGKILL)
    with pytest.raises(LocalError, match=r"what an earlier up or down left; .*11 namespaces"):
        lifecycle.up("fig5", name)
    found = lifecycle.down(name)
    assert started == 1 or any("processes (" in each for each in found)
    assert lifecycle.traces(name) == []
    time.sleep(0.1)
    assert naming(run_directory / name) == [], "nothing runs that was started and not recorded"
    assert lifecycle.down(name) == [], "a second down finds nothing and is no error"
    assert lifecycle.logs_of(name) is not None, "what the daemons said is wanted when something went wrong"
    lifecycle.down(name, purge=True)
    assert not (run_directory / name).exists()


def test_a_leftover_namespace_is_noticed_and_cleaned(run_directory: Path) -> None:
    name = "lableft"
    namespace = namespace_of(name, "core")
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    stranger = subprocess.Popen(["ip", "netns", "exec", namespace, "sleep", "60"])
    time.sleep(0.2)
    with pytest.raises(LocalError, match=rf"1 processes \(sleep\); 1 namespaces \({namespace}\)"):
        lifecycle.up("fig5", name)
    lifecycle.down(name)
    assert stranger.wait(5) == -signal.SIGTERM
    assert namespaces.existing(name) == []


def test_a_process_that_got_the_number_of_an_ended_one_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as innocent:
        (tmp_path / "xtr.pid").write_text(f"{innocent.pid} 12345\n")
        (tmp_path / "cut.pid").write_text("77")
        assert processes.end(list(processes.recorded(tmp_path))) == []
        assert innocent.poll() is None
        innocent.kill()


def test_an_up_that_fails_takes_down_what_it_started_and_keeps_the_logs(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_READY_SECONDS", 0.1)
    with pytest.raises(LocalError, match=r"is not up after 0\.1 s"):
        lifecycle.up("fig5", "labfail")
    assert lifecycle.traces("labfail") == []
    assert list((run_directory / "labfail" / "logs").glob("*.log")) != []


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LocalError, match="only root may; run it with sudo, or use docker compose up"):
        lifecycle.up("fig5", LAB)
