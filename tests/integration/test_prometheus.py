"""A real Prometheus scrapes a running lab with a move in it: the rules and the dashboard find what they ask for.

Prometheus, and what hands the daemons' metrics to it, run inside the lab: nothing listens outside.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lispfmc.lab import lifecycle
from lispfmc.lab.entrance import inside
from lispfmc.lab.installation import Installation
from lispfmc.lab.namespaces import namespace_of
from lispfmc.runtime.client import ApiClient
from tests.conftest import prometheus_command
from tests.unit.metrics_table import documented, families

pytestmark = [pytest.mark.namespaces, pytest.mark.prometheus]

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy/prometheus"
DASHBOARD = ROOT / "deploy/grafana/lispfmc.json"
LAB, MEMBER = "promtest", "fmcc"
ADDRESS = "127.0.0.1:9090"
METRIC = re.compile(r"\b(?:(?:lispfmc|process)_\w+|up)\b(?:{[^}]*})?")


class Monitored:
    """A lab and the Prometheus that scrapes it."""

    def __init__(self, lab: Installation) -> None:
        self.lab = lab

    def ask(self, path: str, **query: str) -> Any:
        url = f"http://{ADDRESS}/api/v1/{path}?{urllib.parse.urlencode(query)}"

        def get() -> Any:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]

        return inside(namespace_of(LAB, MEMBER), get)

    def values(self, expression: str) -> list[float]:
        """What an expression says now, of each series that it has; what is no number is left out."""
        result = self.ask("query", query=expression)["result"]
        return [number for each in result if not math.isnan(number := float(each["value"][1]))]


def until(what: str, wanted: Callable[[], Any], seconds: float = 45.0) -> Any:
    give_up, last = time.monotonic() + seconds, None
    while time.monotonic() < give_up:
        try:
            if last := wanted():
                return last
        except OSError as error:
            last = error
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:g} s: {what}; last {last!r}")


def configuration(folder: Path) -> Path:
    """As it is shipped, but every second: a test has no minute."""
    for name in ("prometheus.yml", "rules.yml"):
        text = (DEPLOY / name).read_text()
        (folder / name).write_text(re.sub(r"(interval: )5s", r"\g<1>1s", text))
    return folder / "prometheus.yml"


@pytest.fixture(scope="module")
def monitored() -> Iterator[Monitored]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lfmc")))
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("LISPFMC_RUN", str(folder / "run"))
        lifecycle.down(LAB)
        stack.callback(lifecycle.down, LAB)
        lab = lifecycle.up("fig5", LAB)
        serve = [sys.executable, "-m", "lispfmc.cli", "lab", "metrics", LAB]
        start(stack, folder, serve)
        start(
            stack,
            folder,
            [
                *prometheus_command("prometheus"),
                f"--config.file={configuration(folder)}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={ADDRESS}",
            ],
        )
        world = Monitored(lab)
        count = len(lab.daemons)
        until("every daemon is scraped twice", lambda: len(world.values("count_over_time(up[1m]) >= 2")) == count)
        move = [sys.executable, "-m", "lispfmc.cli", "move", "alice", "--to", "access2", "--wait", "--measure"]
        done = subprocess.run(move, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        until("the move is seen", lambda: world.values('lispfmc_moves_total{outcome="committed"} > 0'))
        until("its blackout too", lambda: world.values("lispfmc_blackout_seconds_count > 0"))
        until("what was added to it", lambda: world.values("lispfmc_added_downtime_seconds_count > 0"))
        yield world
    assert lifecycle.traces(LAB) == []


def start(stack: ExitStack, folder: Path, command: list[str]) -> None:
    """Run it inside the lab, until the test ends."""
    log = stack.enter_context((folder / f"{Path(command[0]).name}.log").open("wb"))
    whole = ["nsenter", f"--net=/run/netns/{namespace_of(LAB, MEMBER)}", *command]
    process = subprocess.Popen(whole, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=dict(os.environ))
    stack.callback(process.wait, 10)
    stack.callback(process.terminate)


def substituted(expression: str) -> str:
    """As Grafana sends it: for this lab, and the time that it has been up."""
    return expression.replace("$__rate_interval", "1m").replace("$__range", "1m").replace("$instance", ".*")


def dashboard() -> list[tuple[str, str]]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", [])]


def rules() -> list[tuple[str, str]]:
    return re.findall(r"- alert: (\w+)\n +expr: (.+)\n", (DEPLOY / "rules.yml").read_text())


def test_every_daemon_is_a_target_by_its_own_name(monitored: Monitored) -> None:
    targets = monitored.ask("targets")["activeTargets"]
    found = {(each["labels"]["instance"], each["labels"]["daemon"]): each["health"] for each in targets}
    assert found == {(each.name, each.role): "up" for each in monitored.lab.daemons}


@pytest.mark.parametrize(("title", "expression"), dashboard(), ids=lambda text: text[:40])
def test_every_panel_shows_something(monitored: Monitored, title: str, expression: str) -> None:
    assert monitored.values(substituted(expression)), title


@pytest.mark.parametrize(("name", "expression"), rules(), ids=lambda text: text[:40])
def test_every_rule_looks_at_series_that_are_there(monitored: Monitored, name: str, expression: str) -> None:
    looked_at = METRIC.findall(expression)
    assert looked_at
    for selector in looked_at:
        assert monitored.values(selector), f"{name}: nothing has {selector}"
    monitored.ask("query", query=expression)  # an error of the expression is an HTTP error


def test_no_rule_fires_in_a_lab_that_works(monitored: Monitored) -> None:
    groups = monitored.ask("rules")["groups"]
    known = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in known} == {name for name, _ in rules()}
    assert [rule["lastError"] for rule in known if rule.get("lastError")] == []
    # how long a move disturbs is the machine's affair: with busy neighbours the tests' own is too slow for it
    firing = {rule["name"] for rule in known if rule["state"] == "firing"}
    assert firing <= {"LispfmcMovesDisturb"}


@pytest.mark.asyncio
async def test_the_daemons_of_a_lab_say_what_the_table_lists(monitored: Monitored) -> None:
    table = documented()
    found: dict[str, set[str]] = {}
    for daemon in monitored.lab.daemons:
        async with ApiClient(daemon.api) as api:
            for name, type_, labels in families(await api.get("/metrics")):
                found.setdefault(name, set()).add(daemon.role)
                assert (type_, labels) == (table[name].type, table[name].labels), f"{name} of {daemon.name}"
    assert {name: frozenset(daemons) for name, daemons in found.items()} == {
        name: row.daemons for name, row in table.items()
    }


def test_a_daemon_that_is_killed_is_down_to_prometheus(monitored: Monitored) -> None:
    """Last in this file: it leaves the lab without that daemon."""
    victim = next(each for each in monitored.lab.daemons if each.name == "dc1")
    assert victim.pid is not None
    os.kill(victim.pid, 9)
    until("it is down", lambda: monitored.values('up{instance="dc1"} == 0'))
    assert len(monitored.values("up == 1")) == len(monitored.lab.daemons) - 1


def test_the_files_are_what_prometheus_takes() -> None:
    for command in (
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules.test.yml"),
    ):
        done = subprocess.run(
            [*prometheus_command("promtool"), *command], cwd=DEPLOY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
