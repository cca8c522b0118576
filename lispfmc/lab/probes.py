"""Probes between a user and its service: starts the workers in both nodes, stops them, and reads their logs.

Each direction has a sender and a receiver of its own (a round trip would mix them); beside them the heartbeat inside
the service and, where it is wanted, the user's round-trip probe. Formats of the logs: `lispfmc.lab.workload`.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lispfmc.lab.analysis import NS_PER_MS, Arrival, Echo, Flow, Gap, Skip, flow_of
from lispfmc.lab.installation import NodeEntry
from lispfmc.runtime.node_client import call

INTERVAL_US = 1000
RTT_INTERVAL_US = 20_000
TO_SERVICE_PORT, TO_USER_PORT = 7101, 7102
DRAIN_S = 0.6  # after the senders have stopped: longer than any packet is on its way
LONGEST_DRAIN_S = 10.0  # of a busy network, which is behind with its work
_IDS = ("measure-send", "measure-receive", "measure-rtt", "measure-heartbeat")
_RECORD, _BEAT = struct.Struct("<QQQ"), struct.Struct("<QQ")


class Logs(msgspec.Struct, frozen=True):
    """Everything that the probes saw."""

    flows: Mapping[str, Flow]
    echoes: list[Echo]
    gaps: list[Gap]
    heartbeat_interval_ns: int
    realtime: bool
    resets: int = 0
    """Ends of TCP connections that broke."""

    cut_short: bool = False
    overflowed: int = 0
    """Packets that found no room in a receiver's socket: lost by the instrument."""
    """Packets still came when the receivers stopped (`lispfmc.lab.workload.DRAIN_S`): some of the lost were late."""


class Probes:
    """`start`, let the moves happen, `stop` -> Logs. `abandon` after a failure."""

    def __init__(
        self,
        user: NodeEntry,
        service: NodeEntry,
        folder: Path,
        *,
        version: int = 4,
        interval_us: int = INTERVAL_US,
        round_trips: bool = True,
        transport: str = "udp",
        quiet: bool = False,
    ) -> None:
        """`quiet`: the user's receiver reads what the kernel has timed and does not wake for each packet. The service's
        does: it stops with the service, and a packet that waits in a stopped machine is not received."""
        self._user, self._service, self._folder = user, service, folder
        self._interval_us, self._round_trips = interval_us, round_trips
        self._transport, self._quiet = transport, quiet
        self._user_ip, self._service_ip = user.eid(version=version), service.eid(version=version)

    async def start(self) -> None:
        """Receivers first, so that no packet finds its port closed; leftovers of a killed measurement go."""
        await self.abandon()
        self._folder.mkdir(parents=True, exist_ok=True)
        user, service = self._user.socket, self._service.socket
        await self._receive(user, TO_USER_PORT, "to_user", quiet=self._quiet)
        await self._receive(service, TO_SERVICE_PORT, "to_service", quiet=False)
        await self._begin(
            service, "heartbeat.start", "measure-heartbeat", interval_us=self._interval_us, log="heartbeat"
        )
        if self._round_trips:
            await self._begin(
                user, "rtt.start", "measure-rtt", peer=self._service_ip, interval_us=RTT_INTERVAL_US, log="rtt"
            )
        await self._send(user, self._service_ip, TO_SERVICE_PORT, "to_service.sender")
        await self._send(service, self._user_ip, TO_USER_PORT, "to_user.sender")

    async def stop(self) -> Logs:
        """Senders stop; receivers when nothing has come for a while (each sees to it itself), then the rest."""
        user, service = self._user.socket, self._service.socket
        to_service = await _end(user, "probe.stop", "measure-send")
        to_user = await _end(service, "probe.stop", "measure-send")
        receivers = await asyncio.gather(*(_end(node, "probe.stop", "measure-receive") for node in (user, service)))
        if self._round_trips:
            await _end(user, "rtt.stop", "measure-rtt")
        heartbeat = await _end(service, "heartbeat.stop", "measure-heartbeat")
        resets = sum(summary.get("resets", 0) for summary in (*receivers, to_service, to_user))
        logs = read_logs(self._folder, {"to_service": to_service, "to_user": to_user}, heartbeat)
        cut_short = any(summary.get("cut_short", False) for summary in receivers)
        return msgspec.structs.replace(logs, resets=resets, cut_short=cut_short, overflowed=_overflowed(receivers))

    async def abandon(self) -> None:
        """Stop whatever of ours runs in the two nodes."""
        for node in (self._user.socket, self._service.socket):
            await _abandon(node)

    async def _send(self, node: str, peer: str, port: int, log: str) -> None:
        fields = {"peer": peer, "port": port, "interval_us": self._interval_us, "transport": self._transport}
        await self._begin(node, "probe.start", "measure-send", log=log, **fields)

    async def _receive(self, node: str, port: int, log: str, *, quiet: bool) -> None:
        fields = {"port": port, "transport": self._transport, "quiet": quiet}
        await self._begin(node, "probe.receive", "measure-receive", log=log, **fields)

    async def _begin(self, node: str, verb: str, name: str, *, log: str, **fields: object) -> None:
        await call(node, {"do": verb, "id": name, "log": str(self._folder / log), **fields})


class ManyProbes:
    """One direction to many services at once: `start`, let them move, `stop` -> the flow of each, by its name."""

    def __init__(self, user: NodeEntry, services: list[NodeEntry], folder: Path, interval_us: int) -> None:
        self._user, self._services, self._folder, self._interval_us = user, services, folder, interval_us
        self.cut_short, self.overflowed = False, 0
        """As in Logs."""

    async def start(self) -> None:
        await self.abandon()
        self._folder.mkdir(parents=True, exist_ok=True)
        await asyncio.gather(*map(self._receive, self._services))
        request = {
            "do": "probe.start",
            "id": "measure-send",
            "log": str(self._folder / "sender"),
            "peers": [service.eid() for service in self._services],
            "port": TO_SERVICE_PORT,
            "interval_us": self._interval_us,
        }
        await call(self._user.socket, request)

    async def stop(self) -> dict[str, Flow]:
        summary = await _end(self._user.socket, "probe.stop", "measure-send")
        await self._drained()
        ended = await asyncio.gather(*(_end(each.socket, "probe.stop", "measure-receive") for each in self._services))
        self.cut_short = any(summary.get("cut_short", False) for summary in ended)
        self.overflowed = _overflowed(ended)
        flows = {}
        for service in self._services:
            arrivals = (Arrival(*record) for record in _records(self._folder / service.name, _RECORD))
            flows[service.name] = _flow(summary, arrivals)
        return flows

    async def abandon(self) -> None:
        """Stop whatever of ours runs in the nodes."""
        for node in (self._user, *self._services):
            await _abandon(node.socket)

    async def _drained(self) -> None:
        """Until nothing has come for a while: a packet that is still on its way is not lost."""
        before = -1
        for _ in range(round(LONGEST_DRAIN_S / DRAIN_S)):
            if before == (before := self._logged()):
                return
            await asyncio.sleep(DRAIN_S)

    def _logged(self) -> int:
        logs = (self._folder / service.name for service in self._services)
        return sum(log.stat().st_size for log in logs if log.exists())

    async def _receive(self, service: NodeEntry) -> None:
        log = str(self._folder / service.name)
        request = {"do": "probe.receive", "id": "measure-receive", "port": TO_SERVICE_PORT, "log": log, "quiet": True}
        await call(service.socket, request)


def _overflowed(receivers: Iterable[Mapping[str, Any]]) -> int:
    return sum(summary.get("overflowed", 0) for summary in receivers)


def new_folder(run: Path, user: str) -> Path:
    """Where the raw logs of a measurement are kept, until the lab goes down."""
    return run / "measurements" / f"{user}-{time.strftime('%Y%m%dT%H%M%S')}-{time.monotonic_ns() % NS_PER_MS:06d}"


def read_logs(folder: Path, senders: Mapping[str, dict[str, Any]], heartbeat: dict[str, Any]) -> Logs:
    """The logs of a measurement as values; the senders' summaries are kept beside them."""
    (folder / "senders.json").write_text(json.dumps(dict(senders)))
    flows = {}
    for direction, summary in senders.items():
        arrivals = (Arrival(*record) for record in _records(folder / direction, _RECORD))
        flows[direction] = _flow(summary, arrivals)
    return Logs(
        flows=flows,
        echoes=[Echo(sent, received - sent) for _, sent, received in _records(folder / "rtt", _RECORD)],
        gaps=[Gap(*record) for record in _records(folder / "heartbeat", _BEAT)],
        heartbeat_interval_ns=int(heartbeat["interval_us"]) * 1000,
        realtime=all(summary.get("realtime", False) for summary in (*senders.values(), heartbeat)),
    )


def _flow(summary: dict[str, Any], arrivals: Iterable[Arrival]) -> Flow:
    skips = [Skip(due, slots) for due, slots in summary["skips"]]
    return flow_of(summary["first_ns"], summary["sent"], skips, int(summary["interval_us"]) * 1000, arrivals)


async def _abandon(node: str) -> None:
    status = await call(node, {"do": "status"})
    for worker in status["workers"]:
        if worker["id"] in _IDS:
            await call(node, {"do": "probe.stop", "id": worker["id"]})


async def _end(node: str, verb: str, name: str) -> dict[str, Any]:
    answer = await call(node, {"do": verb, "id": name})
    summary: dict[str, Any] = answer["summary"]
    return summary


def _records(path: Path, form: struct.Struct) -> Iterator[tuple[int, ...]]:
    data = path.read_bytes() if path.exists() else b""  # round trips are not always measured
    yield from form.iter_unpack(data[: len(data) - len(data) % form.size])
