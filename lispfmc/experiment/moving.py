"""One run: probes begin, the service moves (or is stopped and resumed in place, or its user moves), probes end, and
what they saw is reckoned. The controller is asked for the move as an operator would, by its API.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from lispfmc.experiment.design import Design, Kind, Planned
from lispfmc.experiment.records import Lateness, Record
from lispfmc.experiment.second_port import SecondPorts
from lispfmc.lab.analysis import NS_PER_MS, Flow, Window, first_arrival_ns, lateness, longest_gap_ms, move_figures
from lispfmc.lab.following import site_of
from lispfmc.lab.installation import Installation, NodeEntry
from lispfmc.lab.probes import Logs, Probes
from lispfmc.runtime.client import ApiClient
from lispfmc.runtime.node_client import call
from lispfmc.wire.errors import LocalError

WARM_UP_S = 0.1  # caches fill and the interpreters warm; not part of any window
BEFORE_S = 0.1
AFTER_S = 0.3  # after the last word of the move: longer than any silence that is still to end
MOVE_S = 60.0
ACKNOWLEDGED_S = 2.0  # the third repetition has been answered by then, or none is
UNTOLD_S = {"cp": 1.0, "pubsub": 1.0, "garp": 1.0, "dataplane": 3.5, "smr": 3.5}
"""In these schemes no router acknowledges to the controller: nobody tells when all is over. Those that solicit wait
longer: a move within 3 s of the one before would meet the rate limit of RFC 9301 §6.1."""
AGENTS_S = 10.0  # until a hypervisor's word has come through losses
HYPERVISORS = frozenset({"migration.stopped", "migration.resumed"})
OVER = frozenset({"placement.changed", "migration.failed", "migration.unconfirmed"})


class NoMove(LocalError):  # noqa: N818 - reads as the answer that it is
    """The service did not move: nothing was measured."""


class Moves:
    """The controller's word on moves: `async with Moves(lab) as moves: await moves.over(id)`."""

    def __init__(self, lab: Installation) -> None:
        self._api = ApiClient(lab.the("fmcc").api)
        self._heard: dict[str, dict[str, Any]] = {}
        self._changed = asyncio.Condition()
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        last = int((await self._api.get("/v1/status"))["last_event"])
        self._reader = asyncio.create_task(self._read(last))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._reader is not None
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._api.close()

    async def request(self, service: str, datacenter: str) -> str:
        """Ask for the move; returns its id."""
        return str((await self._api.post("/v1/moves", {"service": service, "to": datacenter}))["id"])

    async def over(self, move: str, *, acknowledged_s: float = ACKNOWLEDGED_S) -> str:
        """Wait until the controller has nothing more to do for it; returns the name of the event that said so."""
        async with asyncio.timeout(MOVE_S):
            await self._until(lambda: bool(OVER & self._names(move)))
        # The network may be done before the hypervisors' words have come, which travel by TCP through the same losses;
        # and an acknowledgement may be lost for good.
        for seconds, wanted in ((AGENTS_S, HYPERVISORS), (acknowledged_s, {"acknowledged"})):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._until(
                        lambda wanted=wanted: (
                            bool({"migration.failed"} & self._names(move)) or wanted <= self._names(move)
                        )
                    )
        return min(OVER & self._names(move))

    async def told(self, move: str) -> dict[str, Any]:
        """What the controller keeps of it."""
        items = (await self._api.get("/v1/moves"))["items"]
        found: dict[str, Any] = next(one for one in items if one["id"] == move)
        return found

    def _names(self, move: str) -> set[str]:
        return set(self._heard.get(move, ()))

    async def _until(self, reached: Any) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: reached() or (self._reader is not None and self._reader.done()))
        if self._reader is not None and self._reader.done():
            self._reader.result()
            raise LocalError("the controller's event stream ended; see its log")

    async def _read(self, after: int) -> None:
        async for event in self._api.events(after):
            fields = event["fields"]
            if "move" in fields:
                name = event["name"]
                if name == "steering.acknowledged" and fields.get("both"):
                    name = "acknowledged"
                async with self._changed:
                    self._heard.setdefault(fields["move"], {})[name] = fields
                    self._changed.notify_all()


class Happening(msgspec.Struct, frozen=True):
    """What happened in a run, and when: `down_ns` until `up_ns` is what the mover itself could not help."""

    outcome: str
    places: tuple[str, str]
    down_ns: int
    up_ns: int
    phases_ms: dict[str, float] = {}


class Runner:
    """Makes runs on one lab, whose service goes back and forth between the data centres, its user between accesses."""

    def __init__(self, lab: Installation, moves: Moves, design: Design) -> None:
        self._lab, self._moves, self._design = lab, moves, design
        services = [node for node in lab.nodes if node.role == "service"]
        self._user, self._service = _only(lab.users()), _only(services)
        self._second_ports = SecondPorts(lab, self._service)

    async def run(self, planned: Planned, block: int) -> Record:
        """The record of one run. Raises LocalError when the lab failed, or the service did not move."""
        began, folder, kind = time.time(), self._lab.folder / "measurement", planned.point.kind
        probes = self._probes(kind, folder)
        try:
            if kind is Kind.BRIDGE:  # plugged in before anything is measured
                await self._second_ports.at((await here_and_there(self._service))[0])
            await probes.start()
            await asyncio.sleep(WARM_UP_S)
            begin = time.monotonic_ns()
            if kind not in (Kind.MOVE, Kind.TCP):  # between request and STOP a move takes longer
                await asyncio.sleep(BEFORE_S)
            happened = await self._happen(planned)
            await asyncio.sleep(AFTER_S)
            window = Window(begin, time.monotonic_ns())
            logs = await probes.stop()
            if kind is Kind.BRIDGE:  # unmeasured
                await call(self._service.socket, {"do": "attach", "site": happened.places[0]})
        except BaseException:
            with contextlib.suppress(LocalError):  # why it failed is what counts
                await asyncio.shield(probes.abandon())
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return _record(planned, block, began, happened, logs, window)

    def _probes(self, kind: Kind, folder: Path) -> Probes:
        tcp = kind is Kind.TCP
        return Probes(
            self._user,
            self._service,
            folder,
            version=self._design.ip,
            interval_us=self._design.tcp_interval_us if tcp else self._design.interval_us,
            round_trips=False,
            transport="tcp" if tcp else "udp",
            quiet=not tcp,
        )

    async def _happen(self, planned: Planned) -> Happening:
        match planned.point.kind:
            case Kind.MOVE | Kind.TCP:
                return await self._move(planned.point.scheme)
            case Kind.NULL:
                return await self._stop_and_resume()
            case Kind.BRIDGE:
                return await self._stop_and_resume(at_other_port=True)
            case Kind.USER:
                return await self._attach()
            case Kind.CROWD:
                raise LocalError("one service is no crowd: see lispfmc.experiment.crowding")

    async def _move(self, scheme: str) -> Happening:
        here, there = await here_and_there(self._service)
        move = await self._moves.request(self._service.name, there)
        try:
            said = await self._moves.over(move, acknowledged_s=UNTOLD_S.get(scheme, ACKNOWLEDGED_S))
        except TimeoutError as error:
            raise NoMove(f"the move to {there} was not over after {MOVE_S:g} s") from error
        told = await self._moves.told(move)
        if said == "migration.failed" or told["resumed_monotonic_ns"] is None or told["stopped_monotonic_ns"] is None:
            raise NoMove(f"the move to {there} failed: {told['reason'] or said}")
        return Happening(
            told["state"],
            (here, there),
            told["stopped_monotonic_ns"],
            told["resumed_monotonic_ns"],
            {phase["name"]: phase["at_ms"] for phase in told["phases"]},
        )

    async def _stop_and_resume(self, *, at_other_port: bool = False) -> Happening:
        """The controls: the same STOP and RESUME, in place or at another port of the same bridge, and no LISP in it."""
        here, _ = await here_and_there(self._service)
        place = await self._second_ports.at(here) if at_other_port else here
        frozen = await call(self._service.socket, {"do": "freeze"})
        left_ns = frozen["stopped_ns"] + self._design.pause_ms * NS_PER_MS - time.monotonic_ns()
        await asyncio.sleep(max(0.0, left_ns / 1e9))
        thawed = await call(self._service.socket, {"do": "thaw", "site": place})
        return Happening(
            "bridge" if at_other_port else "null", (here, place), frozen["stopped_ns"], thawed["resumed_ns"]
        )

    async def _attach(self) -> Happening:
        here, there = await here_and_there(self._user)
        moved = await call(self._user.socket, {"do": "attach", "site": there})
        return Happening("attached", (here, there), moved["down_ns"], moved["announced_ns"])


def _record(planned: Planned, block: int, began: float, happened: Happening, logs: Logs, window: Window) -> Record:
    is_user = planned.point.kind is Kind.USER
    by_events = (happened.up_ns - happened.down_ns) / NS_PER_MS
    blackout = by_events if is_user else longest_gap_ms(logs.gaps, logs.heartbeat_interval_ns, window)
    still = Window(happened.down_ns - 5 * NS_PER_MS, happened.up_ns + 10 * NS_PER_MS)
    return Record(
        planned=planned,
        block=block,
        outcome=happened.outcome,
        began=round(began, 3),
        load_1m=round(os.getloadavg()[0], 2),
        origin=happened.places[0],
        target=happened.places[1],
        figures=move_figures(logs.flows, window, blackout, by_events),
        lateness=_lateness(logs.flows, window, "to_service" if is_user else "to_user", still),
        phases_ms=happened.phases_ms,
        realtime=logs.realtime,
        cut_short=logs.cut_short,
        overflowed=logs.overflowed,
        resets=logs.resets,
        flowing_ms=_flowing(logs.flows, happened.up_ns) if is_user else {},
    )


def _flowing(flows: Mapping[str, Flow], announced_ns: int) -> dict[str, float | None]:
    """From the user's announcement until the first packet reached her, and until the first of hers was received."""
    arrived = {
        "inbound": first_arrival_ns(flows["to_user"], announced_ns),
        "outbound": first_arrival_ns(flows["to_service"], announced_ns, sent_after=True),
    }
    return {name: None if at is None else round((at - announced_ns) / NS_PER_MS, 3) for name, at in arrived.items()}


def _lateness(flows: Mapping[str, Flow], window: Window, stopped: str, still: Window) -> dict[str, Lateness]:
    """One of the senders had no link or did not run for a while: that is not its fault."""
    found = {name: lateness(flow, window, without=still if name == stopped else None) for name, flow in flows.items()}
    return {name: Lateness(round(worst / NS_PER_MS, 3), late) for name, (worst, late) in found.items()}


async def here_and_there(node: NodeEntry) -> tuple[str, str]:
    """Where it is, and where it could be. Raises LocalError."""
    here = await site_of(node)
    if here is None:
        raise LocalError(f"{node.name} is nowhere; an earlier move left it so")
    return here, next(site for site in node.sites if site != here)


def _only(nodes: list[NodeEntry]) -> NodeEntry:
    if len(nodes) != 1:
        raise LocalError(f"an experiment's lab has one user and one service, this one has {len(nodes)} of them")
    return nodes[0]
