"""docker-compose.yml as a person uses it: up, move a user from inside `cli`, look, down. The file is run as it is.

The engine is the one that answers at DOCKER_HOST; BASE_IMAGE chooses what the image is built from.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.compose


class Network:
    """A project of docker-compose.yml."""

    def __init__(self, program: tuple[str, ...]) -> None:
        self._compose = [*program, "-p", f"lispfmctest{os.getpid()}", "-f", str(ROOT / "docker-compose.yml")]

    def compose(self, *arguments: str, seconds: float = 120.0) -> str:
        run = subprocess.run(
            [*self._compose, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds
        )
        assert run.returncode == 0, f"compose {' '.join(arguments)}:\n{run.stdout}{run.stderr}{self._logs()}"
        return run.stdout

    def lispfmc(self, *arguments: str) -> Any:
        """What the `lispfmc` command prints as JSON, run in the container that the documentation names."""
        return json.loads(self.compose("exec", "-T", "cli", "lispfmc", *arguments, "-o", "json"))

    def containers(self) -> list[dict[str, Any]]:
        ids = self.compose("ps", "-q").split()
        run = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, check=True, timeout=60)
        inspected: list[dict[str, Any]] = json.loads(run.stdout)
        return inspected

    def _logs(self) -> str:
        logs = [*self._compose, "logs", "--no-color", "--tail", "30"]
        return subprocess.run(logs, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60).stdout


@pytest.fixture(scope="module")
def network(compose_program: tuple[str, ...]) -> Iterator[Network]:
    """The containers, up and ready; gone afterwards, whatever happened."""
    network = Network(compose_program)
    try:
        network.compose("build", "wan", seconds=600.0)  # every service has this image
        network.compose("up", "-d", "--no-build")
        network.lispfmc("status", "--wait", "--timeout", "60")
        yield network
    finally:
        network.compose("down", "--volumes", "--timeout", "1")


def test_every_daemon_and_node_is_ready_in_its_container(network: Network) -> None:
    status = network.lispfmc("status")
    assert status["kind"] == "compose"
    daemons = {"mapserver", "fmcc", "access1", "access2", "dc1", "dc2", "hypervisor-dc1", "hypervisor-dc2"}
    assert {one["name"] for one in status["daemons"]} == daemons
    assert {one["name"] for one in status["nodes"]} == {"alice", "bob", "alice-app", "bob-app"}


def test_a_user_moves_her_service_follows_and_the_round_trip_shows_it(network: Network) -> None:
    report = network.lispfmc("move", "alice", "--to", "access2", "--wait", "--measure")
    assert report["outcome"] == "committed", report
    assert report["emulated"] is True
    rtt = report["rtt_ms"]
    assert 12 <= rtt["before"] < 60, rtt
    assert 250 <= rtt["during"] < 350, rtt
    assert 3 <= rtt["after"] < 50, rtt
    for move in (report["user_move"], report["service_move"]):
        assert move["gap_ms"] > 0, move
    assert report["user_move"]["duplicated"] == 0, report
    assert report["service_move"]["lost"] == 0, (
        report
    )  # what may be missing at the target is sent again: copies are seen
    records = {item["eid"]: item for item in network.lispfmc("show", "registrations")["items"]}
    assert records["100.64.1.10/32"]["site"] == "access2"
    assert records["100.64.101.10/32"]["site"] == "dc2"


def test_it_prints_one_url_and_the_page_is_there(network: Network) -> None:
    logs = network.compose("logs", "--no-color", "cli")
    (url,) = set(re.findall(r"http://\S+", logs))
    assert "lispfmc move alice --to access2 --wait --measure" in logs
    place, token = url.split("#token=")
    with urlopen(place, timeout=10) as page:
        assert b"Follow-Me Cloud" in page.read()
    with pytest.raises(HTTPError, match="401"):
        urlopen(f"{place}v1/placements", timeout=10)
    with urlopen(Request(f"{place}v1/placements", headers={"Authorization": f"Bearer {token}"}), timeout=10) as answer:
        assert {one["service"] for one in json.load(answer)["items"]} == {"alice-app", "bob-app"}


def test_nothing_is_privileged(network: Network) -> None:
    containers = network.containers()
    assert len(containers) == 14
    for container in containers:
        host = container["HostConfig"]
        assert host["Privileged"] is False
        assert [capability.removeprefix("CAP_") for capability in host["CapAdd"]] == ["NET_ADMIN"]
        assert {device["PathOnHost"] for device in host["Devices"] or []} <= {"/dev/net/tun"}
        assert host["NetworkMode"] != "host"
