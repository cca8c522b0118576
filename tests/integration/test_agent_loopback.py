"""Two real hypervisor agents on loopback, real HTTP between them and to us; the machine is a real process behind a
node agent's protocol, frozen by SIGSTOP. No network namespaces: links are a name that is set or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fmcc.agents import Agents
from fmcc.effects import AbortMigration, PrepareMigration, StartMigration
from fmcc.hypervisor.agent import Agent
from fmcc.hypervisor.settings import AgentSettings
from fmcc.moves import AgentReport, Failed, Prepared, Resumed, Stopped
from lispfmc.runtime import node_client
from lispfmc.runtime.client import ApiClient, ApiError
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.rejects import Rejects
from lispfmc.wire.address import Endpoint, ip_of

pytestmark = pytest.mark.asyncio
COUNTING = "import time\nwhile True: time.sleep(0.001)"
BODY = {"move": "m1", "machine": "app", "from": "dc1", "to": "dc2"}


class NodeServer:
    """A node: one process, and the name of the site whose link is up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.site: str | None = "dc1"
        self.last_site: str | None = "dc1"
        self.frozen = False
        self.refuses_thaw_at: str | None = None
        self._server: asyncio.Server | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(sys.executable, "-c", COUNTING)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def close(self) -> None:
        assert self._process is not None
        assert self._server is not None
        self._process.kill()
        await self._process.wait()
        self._server.close()

    def process_state(self) -> str:
        """ "T" when the kernel has stopped the process."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not (line := await reader.readline()):
            writer.close()  # whoever it was has been cancelled
            return
        request = json.loads(line)
        try:
            answer = {"ok": True, **self._do(request)}
        except ValueError as error:
            answer = {"ok": False, "error": str(error)}
        writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        match request["do"]:
            case "freeze" if not self.frozen:
                self.site, self.frozen = None, True
                os.kill(self._process.pid, signal.SIGSTOP)
                while self.process_state() != "T":  # the signal is on its way; a real node waits too
                    os.sched_yield()
                return {"stopped_ns": int(loop.time() * 1e9)}
            case "thaw" if self.frozen and request["site"] != self.refuses_thaw_at:
                self.site = self.last_site = request["site"]
                self.frozen = False
                os.kill(self._process.pid, signal.SIGCONT)
                return {"resumed_ns": int(loop.time() * 1e9)}
            case "status":
                return {"site": self.site, "last_site": self.last_site, "frozen": self.frozen}
        raise ValueError(f"cannot {request['do']} now")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Pair:
    """Agents of dc1 and dc2 with clients, and the node."""

    def __init__(self, tmp_path: Path, *, copy_s: float, pause_ms: float) -> None:
        self.node = NodeServer(tmp_path / "app.sock")
        self.ports = {"dc1": free_port(), "dc2": free_port()}
        self.clients: dict[str, ApiClient] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.agents: dict[str, Agent] = {}
        machines = [{"name": "app", "node_socket": str(self.node.path), "copy_s": copy_s, "pause_ms": pause_ms}]
        self.settings = {
            name: AgentSettings.model_validate(
                {
                    "name": f"hypervisor-{name}",
                    "datacenter": name,
                    "listen": f"127.0.0.1:{port}",
                    "token": f"token-{name}",
                    "peers": [
                        {"datacenter": peer, "address": f"127.0.0.1:{at}", "token": f"token-{peer}"}
                        for peer, at in self.ports.items()
                        if peer != name
                    ],
                    "machines": machines,
                }
            )
            for name, port in self.ports.items()
        }

    async def start(self) -> None:
        await self.node.start()
        for name, settings in self.settings.items():
            self.clients[name] = ApiClient(str(settings.listen), token=settings.token)
            await self.start_agent(name)

    async def answers(self, name: str) -> None:
        for _ in range(200):
            with contextlib.suppress(Exception):
                await self.clients[name].get("/v1/status")
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"the agent of {name} does not answer")

    async def start_agent(self, name: str) -> None:
        self.agents[name] = Agent(self.settings[name], EventLog(), Rejects())
        self.tasks[name] = asyncio.create_task(self.agents[name].run())
        await self.answers(name)

    async def stop(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.gather(self.tasks[name], return_exceptions=True)

    async def close(self) -> None:
        for name in self.ports:
            await self.stop(name)
            await self.clients[name].close()
        await self.node.close()

    async def prepare(self) -> None:
        for name in ("dc2", "dc1"):
            await self.clients[name].post("/v1/migrations/prepare", BODY)

    async def until(self, name: str, event: str) -> dict[str, Any]:
        """The fields of the first such event of this agent."""
        async with asyncio.timeout(10):
            async for told in self.clients[name].events(0):
                if told["name"] == f"hypervisor.{event}":
                    fields: dict[str, Any] = told["fields"]
                    return fields
        raise AssertionError("the stream ended")


MakePair = Callable[..., Awaitable[Pair]]


@pytest_asyncio.fixture
async def make_pair(tmp_path: Path) -> AsyncIterator[MakePair]:
    made: list[Pair] = []

    async def make(*, copy_s: float = 0.6, pause_ms: float = 60.0) -> Pair:
        made.append(Pair(tmp_path, copy_s=copy_s, pause_ms=pause_ms))
        await made[-1].start()
        return made[-1]

    yield make
    for pair in made:
        await pair.close()


async def eventually(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def ignored(datacenter: str, machines: Collection[str], asked: float) -> None:
    """Who does not want to know where machines are."""


async def refusal(asked: Awaitable[Any]) -> ApiError:
    with pytest.raises(ApiError) as refused:
        await asked
    return refused.value


async def test_a_machine_is_copied_stopped_and_resumed_at_the_other_data_centre(make_pair: MakePair) -> None:
    pair = await make_pair(pause_ms=200.0)
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    stopped = await pair.until("dc1", "stopped")
    assert pair.node.process_state() == "T"
    resumed = await pair.until("dc2", "resumed")
    completed = await pair.until("dc1", "completed")
    assert pair.node.site == "dc2"
    assert pair.node.process_state() != "T"
    blackout_ms = (resumed["monotonic_ns"] - stopped["monotonic_ns"]) / 1e6
    assert 200 <= blackout_ms < 300
    assert completed["monotonic_ns"] >= resumed["monotonic_ns"]
    for fields in (stopped, resumed, completed):
        assert fields["emulated"] is True
        assert fields["driver"] == "emulated"
        assert fields["move"] == "m1"
    events = pair.agents["dc1"].api._events.since(0)
    percents = [event.fields["percent"] for event in events if event.name == "hypervisor.progress"]
    assert percents[0] == 0.0
    assert percents[-1] == 100.0
    assert percents == sorted(percents)  # type: ignore[type-var]


async def test_events_are_resumed_by_id_without_loss_or_repetition(make_pair: MakePair) -> None:
    pair = await make_pair()
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    first = await anext(pair.clients["dc1"].events(0))
    await pair.until("dc1", "completed")
    rest = []
    async for event in pair.clients["dc1"].events(first["id"]):
        rest.append(event["id"])
        if event["name"] == "hypervisor.completed":
            break
    assert rest == list(range(first["id"] + 1, first["id"] + 1 + len(rest)))


@pytest.mark.parametrize("path", ["/v1/migrations", "/v1/migrations/prepare", "/v1/migrations/abort", "/v1/incoming"])
@pytest.mark.parametrize("token", [None, "token-dc2", "token-dc", "token-dc1x"])
async def test_without_its_token_an_agent_does_nothing(make_pair: MakePair, path: str, token: str | None) -> None:
    pair = await make_pair()
    async with ApiClient(str(pair.settings["dc1"].listen), token=token) as stranger:
        assert (await refusal(stranger.post(path, BODY))).status == 401
        with pytest.raises(ApiError):
            await anext(stranger.events(0))


async def test_what_is_unknown_elsewhere_or_unprepared_is_refused(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=5.0)
    dc1, dc2 = pair.clients["dc1"], pair.clients["dc2"]
    assert (await refusal(dc1.post("/v1/migrations/prepare", BODY | {"machine": "none"}))).status == 404
    assert (await refusal(dc1.post("/v1/migrations/prepare", BODY | {"from": "dc8", "to": "dc9"}))).status == 400
    assert (await refusal(dc1.post("/v1/migrations/prepare", {"move": 1}))).status == 400
    backwards = BODY | {"from": "dc2", "to": "dc1"}
    assert "here already" in (await refusal(dc1.post("/v1/migrations/prepare", backwards))).why
    assert "not here" in (await refusal(dc2.post("/v1/migrations/prepare", backwards))).why
    assert "prepared" in (await refusal(dc1.post("/v1/migrations", BODY))).why
    assert (await refusal(dc1.post("/v1/migrations/prepare", BODY))).status == 409, "the target is not prepared"
    await pair.prepare()
    await pair.prepare()  # again is no error
    other = BODY | {"move": "m2"}
    assert (await refusal(dc2.post("/v1/migrations/prepare", other))).status == 409
    await dc1.post("/v1/migrations", BODY)
    await dc1.post("/v1/migrations", BODY)  # a controller that was restarted asks again
    assert pair.node.site == "dc1"


async def test_an_abort_before_the_stop_leaves_the_machine_and_frees_both_ends(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=5.0)
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    for name in ("dc1", "dc2"):
        await pair.clients[name].post("/v1/migrations/abort", {"move": "m1"})
    assert "aborted" in (await pair.until("dc1", "failed"))["reason"]
    assert (pair.node.site, pair.node.frozen) == ("dc1", False)
    for name in ("dc2", "dc1"):
        await pair.clients[name].post("/v1/migrations/prepare", BODY | {"move": "m2"})


async def test_an_abort_after_the_stop_is_too_late(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=0.0, pause_ms=500.0)
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    await pair.until("dc1", "stopped")
    for name in ("dc1", "dc2"):
        assert (await refusal(pair.clients[name].post("/v1/migrations/abort", {"move": "m1"}))).status == 409
    await pair.until("dc1", "completed")
    assert pair.node.site == "dc2"


async def test_a_target_that_dies_during_the_copy_costs_no_downtime(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=0.5)
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    await pair.stop("dc2")
    failed = await pair.until("dc1", "failed")
    assert "reach" in failed["reason"]
    events = pair.agents["dc1"].api._events.since(0)
    assert "hypervisor.stopped" not in [event.name for event in events]
    assert (pair.node.site, pair.node.frozen) == ("dc1", False)


async def test_a_machine_that_cannot_resume_at_the_target_resumes_at_the_source(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=0.0)
    pair.node.refuses_thaw_at = "dc2"
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    failed = await pair.until("dc1", "failed")
    assert "resumed at dc1 again" in failed["reason"]
    assert "cannot thaw" in failed["reason"]
    assert (pair.node.site, pair.node.frozen) == ("dc1", False)
    assert pair.node.process_state() != "T"


async def test_a_source_agent_that_is_stopped_in_mid_move_leaves_the_machine_running(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=0.0, pause_ms=2000.0)
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    await pair.until("dc1", "stopped")
    await pair.stop("dc1")
    assert pair.node.process_state() != "T"
    assert pair.node.site in {"dc1", "dc2"}


async def left_frozen(pair: Pair, *, last_site: str = "dc1") -> None:
    """What an agent that is killed between freeze and thaw leaves behind."""
    pair.node.last_site = last_site
    await node_client.call(pair.node.path, {"do": "freeze"})


async def test_an_agent_killed_between_freeze_and_thaw_resumes_the_machine_at_its_next_start(
    make_pair: MakePair, tmp_path: Path
) -> None:
    pair = await make_pair(copy_s=0.0, pause_ms=60_000.0)
    await pair.stop("dc1")
    config = tmp_path / "dc1.toml"
    config.write_text(as_toml(pair.settings["dc1"]))
    command = (sys.executable, "-m", "fmcc.hypervisor.agent", "--config", str(config))
    killed = await asyncio.create_subprocess_exec(*command)
    try:
        await pair.answers("dc1")
        await pair.stop("dc2")
        await pair.start_agent("dc2")
        await pair.prepare()
        await pair.clients["dc1"].post("/v1/migrations", BODY)
        await pair.until("dc1", "stopped")
    finally:
        killed.kill()
        await killed.wait()
    assert pair.node.process_state() == "T"
    await pair.stop("dc2")  # it was about to resume it, and is gone as well
    await pair.start_agent("dc1")
    await asyncio.sleep(0.7)
    assert pair.node.process_state() == "T", "the other agent cannot be asked: it may be resuming it"
    await pair.start_agent("dc2")
    await eventually(lambda: pair.node.process_state() != "T")
    assert pair.node.site == "dc1"


async def test_a_machine_that_was_left_frozen_is_resumed_where_it_was_last_up(make_pair: MakePair) -> None:
    pair = await make_pair()
    await pair.stop("dc1")
    await left_frozen(pair, last_site="dc2")
    await pair.start_agent("dc1")
    recovered = await pair.until("dc1", "recovered")
    assert (recovered["machine"], recovered["datacenter"]) == ("app", "dc2")
    assert (pair.node.site, pair.node.frozen) == ("dc2", False)


async def test_where_nothing_is_known_a_frozen_machine_is_resumed_at_the_agents_own_data_centre(
    make_pair: MakePair,
) -> None:
    pair = await make_pair()
    await pair.stop("dc1")
    await left_frozen(pair, last_site="access1")
    await pair.start_agent("dc1")
    assert (await pair.until("dc1", "recovered"))["datacenter"] == "dc1"


async def test_a_target_that_waits_for_the_state_of_a_dead_source_is_called_off(make_pair: MakePair) -> None:
    pair = await make_pair()
    await pair.prepare()
    await pair.stop("dc1")
    await left_frozen(pair)
    await pair.start_agent("dc1")
    await pair.until("dc1", "recovered")
    (end,) = (await pair.clients["dc2"].get("/v1/migrations"))["items"]
    assert (end["role"], end["state"]) == ("target", "ended")
    assert pair.node.site == "dc1"


async def test_a_machine_that_another_agent_is_moving_is_left_alone(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=0.0, pause_ms=1500.0)
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    await pair.until("dc1", "stopped")
    peers = pair.settings["dc1"].peers + pair.settings["dc2"].peers
    listen = Endpoint(ip_of("127.0.0.1"), free_port())
    third = pair.settings["dc1"].model_copy(update={"datacenter": "dc3", "listen": listen, "peers": peers})
    events = EventLog()
    task = asyncio.create_task(Agent(third, events, Rejects()).run())
    try:
        await pair.until("dc1", "completed")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert pair.node.site == "dc2"
    assert "hypervisor.recovered" not in [event.name for event in events.since(0)]


def as_toml(settings: AgentSettings) -> str:
    """The configuration file of an agent of a pair."""
    (peer,), (machine,) = settings.peers, settings.machines
    return f"""
name = "{settings.name}"
datacenter = "{settings.datacenter}"
listen = "{settings.listen}"
token = "{settings.token}"
[[peers]]
datacenter = "{peer.datacenter}"
address = "{peer.address}"
token = "{peer.token}"
[[machines]]
name = "{machine.name}"
node_socket = "{machine.node_socket}"
copy_s = {machine.copy_s}
pause_ms = {machine.pause_ms}
"""


async def test_the_controller_hears_which_machines_run_where_first_and_whenever_it_may_have_changed(
    make_pair: MakePair,
) -> None:
    pair = await make_pair(copy_s=0.0)
    found: asyncio.Queue[tuple[str, tuple[str, ...]]] = asyncio.Queue()
    agents = Agents(
        pair.clients,
        lambda move, report: None,
        lambda datacenter: None,
        lambda datacenter, machines, asked: found.put_nowait((datacenter, tuple(machines))),
    )
    following = [asyncio.create_task(agents.follow(name)) for name in pair.ports]

    async def hears(*expected: tuple[str, tuple[str, ...]]) -> None:
        missing = set(expected)
        async with asyncio.timeout(10):
            while missing:
                missing.discard(await found.get())

    try:
        await hears(("dc1", ("app",)), ("dc2", ()))
        await pair.prepare()
        await pair.clients["dc1"].post("/v1/migrations", BODY)  # not by this controller
        await hears(("dc2", ("app",)))
        await pair.stop("dc1")
        await left_frozen(pair, last_site="dc1")
        await pair.start_agent("dc1")
        await hears(("dc1", ("app",)), ("dc2", ()))
        await agents.perform(PrepareMigration("m2", "app", "dc2", "dc1"))
        await hears(("dc1", ("app",)))
        pair.node.refuses_thaw_at = "dc2"
        await pair.prepare()
        await pair.clients["dc1"].post("/v1/migrations", BODY)
        await hears(("dc1", ("app",)))
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


async def test_the_controllers_side_hears_every_step_in_order(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=0.3)
    reports: asyncio.Queue[tuple[str, AgentReport]] = asyncio.Queue()
    agents = Agents(pair.clients, lambda move, report: reports.put_nowait((move, report)), lambda _: None, ignored)
    following = [asyncio.create_task(agents.follow(name)) for name in pair.ports]
    try:
        async with asyncio.timeout(10):
            await eventually(lambda: set(pair.ports) <= agents.following)
            await agents.perform(PrepareMigration("m1", "app", "dc1", "dc2"))
            await agents.perform(StartMigration("m1", "app", "dc1", "dc2"))
            heard = [await reports.get()]
            while not isinstance(heard[-1][1], Resumed):
                heard.append(await reports.get())
            await agents.perform(AbortMigration("m1", "app", "dc1", "dc2"))  # too late, and no error
            await agents.perform(PrepareMigration("m2", "app", "dc1", "dc2"))  # it is not there any more
            last = await reports.get()
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    assert isinstance(heard[0][1], Prepared)
    assert isinstance(heard[-2][1], Stopped)
    assert {move for move, _ in heard} == {"m1"}
    assert isinstance(last[1], Failed)
    assert "here already" in last[1].reason
