"""What every hypervisor driver does alike, asked of each that runs here, through its agents."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from lispfmc.runtime.client import ApiError
from tests.integration.agent_pair import Pair, emulated_pair, refusal
from tests.integration.virtual_machines import machines

_moves = (f"c{number}" for number in itertools.count())
Run = Callable[[Coroutine[Any, Any, None]], None]


class Driven:
    """A pair of agents with one driver; the machine is at dc1, and stays there under "dryrun"."""

    def __init__(self, driver: str, pair: Pair, run: Run) -> None:
        self.driver = driver
        self.pair = pair
        self.run = run

    def move(self, source: str = "dc1", target: str = "dc2") -> dict[str, str]:
        return {"move": next(_moves), "machine": "app", "from": source, "to": target}

    async def prepare(self, move: dict[str, str]) -> None:
        for end in (move["to"], move["from"]):
            await self.pair.clients[end].post("/v1/migrations/prepare", move)

    async def abort(self, move: dict[str, str]) -> None:
        for end in (move["from"], move["to"]):
            await self.pair.clients[end].post("/v1/migrations/abort", {"move": move["move"]})

    async def runs_at(self) -> list[str]:
        """The data centres whose agent says that it runs there."""
        told = {name: await client.get("/v1/machines") for name, client in self.pair.clients.items()}
        return [
            name
            for name, places in told.items()
            for each in places["items"]
            if each["machine"] == "app" and each["here"]
        ]


def dryrun_pair() -> Pair:
    machine = {"name": "app", "start": "dc1"}
    return Pair(None, {name: {"driver": "dryrun", "machines": [machine]} for name in ("dc1", "dc2")})


LIBVIRT_DOMAIN = """<domain type="test"><name>app</name><memory>131072</memory><os><type>hvm</type></os></domain>"""
QEMU = pytest.param("qemu", marks=pytest.mark.namespaces)
# libvirt's Python package builds against its library, which is not everywhere; its driver is asked where it is
LIBVIRT = ["libvirt"] if importlib.util.find_spec("libvirt") else []
DRIVERS = ["emulated", "dryrun", *LIBVIRT, QEMU]
# nothing moves in a dry run, and libvirt's test hypervisor cannot migrate
moves_machines = pytest.mark.parametrize("driven", ["emulated", QEMU], indirect=True)


def libvirt_pair(folder: Path) -> Pair:
    """Against libvirt's own test hypervisor: real calls to the real library, but it knows no migration."""
    described: dict[str, dict[str, Any]] = {}
    for name, domain in (("dc1", LIBVIRT_DOMAIN), ("dc2", "")):
        node = folder / f"{name}.xml"
        node.write_text(f"<node>{domain}</node>")
        settings = {"uri": f"test://{node}", "reached_at": f"test://{node}"}
        described[name] = {"driver": "libvirt", "libvirt": settings, "machines": [{"name": "app"}]}
    return Pair(None, described)


@pytest.fixture(scope="module", params=DRIVERS)
def driven(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    if request.param == "qemu":
        with machines("gconf") as made:
            yield Driven("qemu", made.pair, made.stage.run)
        return
    folder: Path = tmp_path_factory.mktemp("agents")
    make: dict[str, Callable[[], Pair]] = {"dryrun": dryrun_pair, "libvirt": lambda: libvirt_pair(folder)}
    pair = make.get(request.param, lambda: emulated_pair(folder, copy_s=0.8))()
    with asyncio.Runner() as runner:
        runner.run(pair.start())
        try:
            yield Driven(request.param, pair, runner.run)
        finally:
            runner.run(pair.close())


def test_a_machine_runs_at_one_data_centre_and_the_driver_says_what_it_is(driven: Driven) -> None:
    async def story() -> None:
        assert await driven.runs_at() == ["dc1"]
        status = await driven.pair.clients["dc1"].get("/v1/status")
        assert status["driver"] == driven.driver
        assert status["emulated"] is (driven.driver in {"emulated", "dryrun"})

    driven.run(story())


def test_what_is_unknown_elsewhere_or_not_prepared_is_refused(driven: Driven) -> None:
    async def story() -> None:
        dc1, dc2 = driven.pair.clients["dc1"], driven.pair.clients["dc2"]
        move, back = driven.move(), driven.move("dc2", "dc1")
        assert (await refusal(dc1.post("/v1/migrations/prepare", move | {"machine": "none"}))).status == 404
        assert (await refusal(dc1.post("/v1/migrations/prepare", move | {"from": "dc8", "to": "dc9"}))).status == 400
        assert "here already" in (await refusal(dc1.post("/v1/migrations/prepare", back))).why
        assert "not here" in (await refusal(dc2.post("/v1/migrations/prepare", back))).why
        assert "prepared" in (await refusal(dc1.post("/v1/migrations", move))).why
        assert "not expected" in (await refusal(dc1.post("/v1/migrations/prepare", move))).what
        assert (await refusal(dc1.post("/v1/migrations/abort", {"move": move["move"]}))).status == 404
        assert await driven.runs_at() == ["dc1"]

    driven.run(story())


def test_preparing_again_is_no_error_another_move_is_refused_and_an_abort_frees_both_ends(driven: Driven) -> None:
    async def story() -> None:
        move = driven.move()
        await driven.prepare(move)
        await driven.prepare(move)
        for client in driven.pair.clients.values():
            assert move["move"] in (await refusal(client.post("/v1/migrations/prepare", driven.move()))).why
        await driven.abort(move)
        again = driven.move()
        await driven.prepare(again)
        await driven.abort(again)
        assert await driven.runs_at() == ["dc1"]

    driven.run(story())


@moves_machines
def test_an_abort_during_the_copy_leaves_the_machine_where_it_is(driven: Driven) -> None:
    async def story() -> None:
        move = driven.move()
        await driven.prepare(move)
        await driven.pair.clients["dc1"].post("/v1/migrations", move)
        await driven.pair.until("dc1", "progress", move["move"])
        await driven.pair.clients["dc1"].post("/v1/migrations/abort", {"move": move["move"]})
        with contextlib.suppress(ApiError):  # a driver may have called the target off itself
            await driven.pair.clients["dc2"].post("/v1/migrations/abort", {"move": move["move"]})
        failed = await driven.pair.until("dc1", "failed", move["move"])
        assert "abort" in failed["reason"] or "cancel" in failed["reason"]
        assert await driven.runs_at() == ["dc1"]

    driven.run(story())


@moves_machines
def test_a_machine_moves_there_and_back_and_each_end_tells_what_happened_there(driven: Driven) -> None:
    async def story() -> None:
        for source, target in (("dc1", "dc2"), ("dc2", "dc1")):
            move = driven.move(source, target)
            await driven.prepare(move)
            await driven.pair.clients[source].post("/v1/migrations", move)
            stopped = await driven.pair.until(source, "stopped", move["move"])
            resumed = await driven.pair.until(target, "resumed", move["move"])
            await driven.pair.until(source, "completed", move["move"])
            assert resumed["monotonic_ns"] > stopped["monotonic_ns"]
            assert await driven.runs_at() == [target]

    driven.run(story())


def test_a_dry_run_fails_every_migration_and_says_so() -> None:
    async def story() -> None:
        await pair.start()
        driven = Driven("dryrun", pair, asyncio.run)
        move = driven.move()
        await driven.prepare(move)
        await pair.clients["dc1"].post("/v1/migrations", move)
        assert "dry run" in (await pair.until("dc1", "failed", move["move"]))["reason"]
        assert await driven.runs_at() == ["dc1"]
        await driven.prepare(driven.move())  # both ends are free again
        await pair.close()

    pair = dryrun_pair()
    asyncio.run(story())


@pytest.mark.parametrize("driver", LIBVIRT or ["dryrun"])
def test_a_migration_that_is_refused_at_the_start_fails_with_its_reason_and_the_machine_stays(
    tmp_path: Path, driver: str
) -> None:
    async def story() -> None:
        await pair.start()
        driven = Driven(driver, pair, asyncio.run)
        move = driven.move()
        await driven.prepare(move)
        await pair.clients["dc1"].post("/v1/migrations", move)
        assert (await pair.until("dc1", "failed", move["move"]))["reason"]
        assert await driven.runs_at() == ["dc1"]
        await pair.close()

    pair = libvirt_pair(tmp_path) if driver == "libvirt" else dryrun_pair()
    asyncio.run(story())
