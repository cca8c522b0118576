"""The agent of a lab node: a user or an emulated service, wired to its candidate sites, exactly one link up.

It speaks JSON lines over a unix socket and does one request at a time. What the node *does* (service, heartbeat,
probes: `lispfmc.lab.workload`) runs in child processes, so freezing them never freezes the control. STOP of an emulated
VM is link down, then SIGSTOP: a frozen process alone leaves the kernel answering for it. RESUME is link up, RARP,
SIGCONT, and what the machine announces itself: QEMU, too, sends RARP when it is sure to resume, and then lets it run.
Standard library only: it also runs in a bare container. Every time is CLOCK_MONOTONIC nanoseconds.

Requests -> replies ({"ok": true, ...}; errors {"ok": false, "error": "what, why, what to do"}):

* {"do":"attach","site":S}   -> site, down_ns (old link about to go down), up_ns (new one usable), announced_ns
* {"do":"detach"}            -> down_ns
* {"do":"freeze"}            -> down_ns, stopped_ns (link down and every worker stopped)
* {"do":"thaw","site":S}     -> site, up_ns, resumed_ns (workers continued), announced_ns
* {"do":"wire","site":S}     -> site: a link that was plugged in later, interface S; it is down until it is used
* {"do":"status"}            -> name, role, site, frozen, eids, sites, workers [{id, kind, pid, log}]
* {"do":"probe.start","id":I,"peer":IP,"port":P,"interval_us":1000,"log":PATH}   -> pid   sends probes
* {"do":"probe.receive","id":I,"port":P,"log":PATH}                              -> pid   receives them
  (both: with "transport":"tcp" in a connection, see streams.py; many services at once: "peers":[IP,...] in place of
  "peer", and "quiet":true; from all of the node's IPv4 EIDs in turn: "from_all":true; see crowd.py)
* {"do":"rtt.start","id":I,"peer":IP,"port":7007,"interval_us":20000,"log":PATH} -> pid   RTT by UDP echo
* {"do":"heartbeat.start","id":I,"interval_us":1000,"log":PATH}                  -> pid
* {"do":"probe.stop" | "rtt.stop" | "heartbeat.stop","id":I} -> summary (also in PATH.json; log formats: workload.py)
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lispfmc.lab import crowd, streams, workload
from lispfmc.lab.link import Rtnetlink, SiteLink, prepare_node, site_link, switch_on

Request = dict[str, Any]
Reply = dict[str, Any]

# A hypervisor's STOP and RESUME are instants: neither the router that hears of it (15) nor probes (10) come between.
_PRIORITY = 18
_RESET_ON_FORK = 0x40000000  # linux/sched.h; what runs inside the node has the priority of any process
# As hypervisors do: a lost announcement is repeated, later each time. The first repetition covers a bridge port that
# was not ready yet (see link.switch_on).
ANNOUNCE_AGAIN = (0.001, 0.05, 0.15, 0.3, 0.5)
MAX_WORKERS = 64  # requests come from our own tools; the bound catches a loop in one of them
MAX_LINE = 65536
_SECONDS_TO_STOP = 3.0
_SERVICE = "service"
_PROBE = "probe"


class NodeError(Exception):
    """A request that cannot be done: what, why, what to do."""


@dataclass
class Worker:
    """A child process of the agent."""

    kind: str
    pid: int
    log: Path


class Node:
    """The node's links and workers, and one method per request."""

    def __init__(self, name: str, role: str, eids: list[str], sites: dict[str, str], logs: Path) -> None:
        self.name, self.role, self.eids, self.sites = name, role, eids, sites
        self._rtnetlink = Rtnetlink()
        prepare_node(self._rtnetlink, eids)
        self._links = {site: site_link(self._rtnetlink, device, eids) for site, device in sites.items()}
        self._frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._site: str | None = None
        self._last_site: str | None = None
        self._frozen = False
        self._workers: dict[str, Worker] = {}
        self._again: list[tuple[float, bool]] = []  # (when, with RARP): announcements still to repeat
        self._verbs: dict[str, Callable[[Request], Reply]] = {
            "attach": self._attach,
            "detach": self._detach,
            "freeze": self._freeze,
            "thaw": self._thaw,
            "wire": self._wire,
            "status": self._status,
            "probe.start": self._start_probe,
            "probe.receive": self._start_receiver,
            "rtt.start": self._start_rtt,
            "heartbeat.start": self._start_heartbeat,
            "probe.stop": self._stop,
            "rtt.stop": self._stop,
            "heartbeat.stop": self._stop,
        }
        if role == "service":
            self._start(_SERVICE, "echo", logs / f"{name}.echo", workload.echo)

    def handle(self, line: bytes) -> Reply:
        """Answer one request. Nothing that a request does ends the agent."""
        try:
            request = json.loads(line)
            return {"ok": True, **self._verb(request)(request)}
        except NodeError as error:
            return {"ok": False, "error": str(error)}
        except KeyError as error:
            return {"ok": False, "error": f"the request lacks the field {error}; see the protocol in lispfmc.lab.node"}
        except (ValueError, TypeError, AttributeError) as error:
            return {"ok": False, "error": f"not a valid request: {error}; send one JSON object a line"}
        except OSError as error:
            return {"ok": False, "error": f"the kernel refused: {error}; look at the node's interfaces (ip -d link)"}

    def _verb(self, request: Request) -> Callable[[Request], Reply]:
        try:
            return self._verbs[request["do"]]
        except KeyError:
            known = ", ".join(sorted(self._verbs))
            raise NodeError(f"no such request {request.get('do')!r}; use one of {known}") from None

    # --- the link ---------------------------------------------------------------------------------------------------

    def _link(self, site: object) -> SiteLink:
        if site not in self.sites:
            raise NodeError(f"{self.name} has no link to site {site!r}; it has: {', '.join(sorted(self.sites))}")
        return self._links[str(site)]

    def _down(self) -> int:
        self._again.clear()
        now = time.monotonic_ns()
        if self._site is not None:
            self._rtnetlink.ask(self._links[self._site].down)
            self._site = None
        return now

    def _up(self, site: str, link: SiteLink) -> int:
        switch_on(self._rtnetlink, link)
        self._site = self._last_site = site
        return time.monotonic_ns()

    def _announce(self, *, resumed: bool) -> int:
        """Tell the site's network who is here now."""
        self._send_announcements(resumed=False)
        now = time.monotonic_ns()
        self._again = [(now / 1e9 + later, resumed) for later in ANNOUNCE_AGAIN]
        return now

    def _send_announcements(self, *, resumed: bool) -> None:
        if self._site is None:
            return
        link = self._links[self._site]
        self._send([link.reverse_arp, *link.announcements] if resumed else link.announcements, link)

    def _send(self, frames: list[bytes], link: SiteLink) -> None:
        for frame in frames:
            with contextlib.suppress(OSError):  # lost like any frame; it is repeated
                self._frames.sendto(frame, (link.interface, 0))

    def repeat_announcements(self) -> float | None:
        """Send the repeated announcements that are due; returns when the next is due (CLOCK_MONOTONIC seconds)."""
        while self._again and self._again[0][0] <= time.monotonic():
            _, resumed = self._again.pop(0)
            self._send_announcements(resumed=resumed)
        return self._again[0][0] if self._again else None

    def _attach(self, request: Request) -> Reply:
        link = self._link(request["site"])
        if self._frozen:
            raise NodeError(f"{self.name} is frozen, a frozen node cannot move its link; send thaw with a site")
        down = self._down()
        up = self._up(request["site"], link)
        return {"site": self._site, "down_ns": down, "up_ns": up, "announced_ns": self._announce(resumed=False)}

    def _detach(self, _: Request) -> Reply:
        return {"down_ns": self._down()}

    def _wire(self, request: Request) -> Reply:
        site = str(request["site"])
        if site not in self.sites:
            self._links[site] = site_link(self._rtnetlink, site, self.eids)
            self.sites[site] = site
        return {"site": site}

    def _freeze(self, _: Request) -> Reply:
        if self._frozen:
            raise NodeError(f"{self.name} is frozen already; send thaw with a site")
        # what only sends stops before the link goes: what a machine had sent at STOP is on its way, and no network's
        # loss; what receives stops after it: nothing reaches a machine that stands
        senders = [worker for worker in self._workers.values() if worker.kind == _PROBE]
        _stop_all(senders)
        down = self._down()
        _stop_all([worker for worker in self._workers.values() if worker.kind != _PROBE])
        self._frozen = True
        return {"down_ns": down, "stopped_ns": time.monotonic_ns()}

    def _thaw(self, request: Request) -> Reply:
        link = self._link(request["site"])
        if not self._frozen:
            raise NodeError(f"{self.name} is not frozen; send freeze first, or attach to move only the link")
        up = self._up(request["site"], link)
        self._send([link.reverse_arp], link)
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGCONT)
        self._frozen = False
        resumed = time.monotonic_ns()
        return {
            "site": self._site,
            "up_ns": up,
            "resumed_ns": resumed,
            "announced_ns": self._announce(resumed=True),
        }

    # --- the workers ------------------------------------------------------------------------------------------------

    def _status(self, _: Request) -> Reply:
        workers = [
            {"id": name, "kind": worker.kind, "pid": worker.pid, "log": str(worker.log)}
            for name, worker in self._workers.items()
        ]
        return {
            "name": self.name,
            "role": self.role,
            "site": self._site,
            "last_site": self._last_site,
            "frozen": self._frozen,
            "eids": self.eids,
            "sites": sorted(self.sites),
            "workers": workers,
        }

    def _start(self, name: str, kind: str, log: Path, work: Callable[[workload.Stop], workload.Summary]) -> Reply:
        if self._frozen:
            raise NodeError(f"{self.name} is frozen, nothing can start in it; send thaw first")
        if name in self._workers:
            raise NodeError(f"worker {name!r} runs already; stop it or use another id")
        if len(self._workers) >= MAX_WORKERS:
            raise NodeError(f"{MAX_WORKERS} workers run already, the most that one node takes; stop some")
        log.parent.mkdir(parents=True, exist_ok=True)
        worker = Worker(kind, workload.fork(work, _summary_of(log)), log)
        self._workers[name] = worker
        return {"id": name, "pid": worker.pid}

    def _source(self, peer: str) -> str:
        for eid in self.eids:
            if (":" in eid) == (":" in peer):
                return eid
        raise NodeError(f"{self.name} has no EID of the family of {peer}; choose a peer address of the other family")

    def _start_probe(self, request: Request) -> Reply:
        log, port, interval = Path(request["log"]), int(request["port"]), int(request.get("interval_us", 1000))
        work: Callable[[workload.Stop], workload.Summary]
        if request.get("from_all"):
            sources = [eid for eid in self.eids if ":" not in eid]
            peer = (str(request["peer"]), port)
            work = functools.partial(crowd.send_from_many, interval_us=interval, sources=sources, peer=peer)
        elif "peers" in request:
            peers = [(str(peer), port) for peer in request["peers"]]
            source = self._source(peers[0][0])
            work = functools.partial(crowd.send_to_many, interval_us=interval, source=source, peers=peers)
        else:
            peer = (str(request["peer"]), port)
            send = streams.send_stream if request.get("transport") == "tcp" else workload.send_probes
            work = functools.partial(send, interval_us=interval, source=self._source(peer[0]), peer=peer)
        return self._start(request["id"], _PROBE, log, work)

    def _start_receiver(self, request: Request) -> Reply:
        log = Path(request["log"])
        receive = streams.receive_stream if request.get("transport") == "tcp" else workload.receive_probes
        if request.get("quiet"):
            receive = crowd.receive_quietly
        work = functools.partial(receive, log=log, port=int(request["port"]))
        return self._start(request["id"], "receiver", log, work)

    def _start_rtt(self, request: Request) -> Reply:
        log, peer = Path(request["log"]), (str(request["peer"]), int(request.get("port", workload.ECHO_UDP)))
        interval, source = int(request.get("interval_us", 20_000)), self._source(peer[0])
        work = functools.partial(workload.measure_rtt, log=log, interval_us=interval, source=source, peer=peer)
        return self._start(request["id"], "rtt", log, work)

    def _start_heartbeat(self, request: Request) -> Reply:
        log, interval = Path(request["log"]), int(request.get("interval_us", 1000))
        work = functools.partial(workload.heartbeat, log=log, interval_us=interval)
        return self._start(request["id"], "heartbeat", log, work)

    def _stop(self, request: Request) -> Reply:
        if self._frozen:
            raise NodeError(f"{self.name} is frozen, its workers cannot end; send thaw first")
        worker = self._workers.pop(request["id"], None)
        if worker is None:
            raise NodeError(f"no worker {request['id']!r} runs; see status")
        if not _end(worker.pid):
            raise NodeError(
                f"worker {request['id']!r} did not stop in {_SECONDS_TO_STOP:g} s and was killed; start anew"
            )
        try:
            summary = json.loads(_summary_of(worker.log).read_text())
        except (OSError, ValueError) as error:
            raise NodeError(f"worker {request['id']!r} left no summary: {error}; see the agent's log") from error
        return {"summary": summary}

    def close(self) -> None:
        """End the workers and take the link down."""
        for worker in self._workers.values():
            _end(worker.pid)
        with contextlib.suppress(OSError):
            self._down()


def _summary_of(log: Path) -> Path:
    return log.with_name(log.name + ".json")


def _end(pid: int) -> bool:
    """SIGTERM, and SIGKILL for who does not listen; True when it ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
    until = time.monotonic() + _SECONDS_TO_STOP
    while time.monotonic() < until:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return True
        except ChildProcessError:
            return True
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


class Server:
    """JSON lines over a unix socket, one thread, one request at a time."""

    def __init__(self, path: Path, node: Node) -> None:
        self._path, self._node = path, node
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(64)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._partial: dict[socket.socket, bytes] = {}

    def serve(self, stop: workload.Stop) -> None:
        while not stop.asked:
            due = self._node.repeat_announcements()
            wait = 0.2 if due is None else min(0.2, max(0.0, due - time.monotonic()))
            for key, _ in self._selector.select(wait):
                if key.data is None:
                    self._accept()
                else:
                    self._serve_client(key.data)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.settimeout(1.0)
        self._partial[client] = b""
        self._selector.register(client, selectors.EVENT_READ, client)

    def _serve_client(self, client: socket.socket) -> None:
        try:
            data = client.recv(MAX_LINE)
            if not data or len(self._partial[client]) > MAX_LINE:
                raise ConnectionError
            *lines, self._partial[client] = (self._partial[client] + data).split(b"\n")
            for line in lines:
                client.sendall(json.dumps(self._node.handle(line)).encode() + b"\n")
        except OSError:
            self._selector.unregister(client)
            self._partial.pop(client, None)
            client.close()

    def close(self) -> None:
        self._listener.close()
        self._path.unlink(missing_ok=True)


def _stop_all(workers: list[Worker]) -> None:
    """Returns when all stand still. A process stops when it runs next, and a machine's stop waits for no other
    process: so each goes before those until it stands."""
    before = [_prefer(worker.pid) for worker in workers]
    for worker in workers:
        os.kill(worker.pid, signal.SIGSTOP)
    for worker, (policy, parameter) in zip(workers, before, strict=True):
        os.waitpid(worker.pid, os.WUNTRACED)
        with contextlib.suppress(OSError):
            os.sched_setscheduler(worker.pid, policy, parameter)


def _prefer(pid: int) -> tuple[int, os.sched_param]:
    """Give it our priority; returns what it had."""
    before = os.sched_getscheduler(pid), os.sched_getparam(pid)
    with contextlib.suppress(OSError):  # in a container without CAP_SYS_NICE
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    return before


def main(arguments: list[str] | None = None) -> int:
    """Run the agent until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m lispfmc.lab.node", description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True)
    parser.add_argument("--role", choices=["user", "service"], required=True)
    parser.add_argument("--socket", type=Path, required=True, help="where the agent listens")
    parser.add_argument("--eid", action="append", required=True, help="an address of the node; repeat for IPv6")
    parser.add_argument("--site", action="append", required=True, help="SITE or SITE=INTERFACE; repeat")
    parser.add_argument("--logs", type=Path, required=True, help="folder for the service's files")
    options = parser.parse_args(arguments)
    sites = {site: interface or site for site, _, interface in (text.partition("=") for text in options.site)}
    try:
        node = Node(options.name, options.role, options.eid, sites, options.logs)
        server = Server(options.socket, node)
    except OSError as error:
        sys.stderr.write(f"{options.name}: cannot prepare the node: {error}; it needs root and its interfaces\n")
        return 1
    gc.freeze()
    with contextlib.suppress(OSError):  # in a container without CAP_SYS_NICE
        os.sched_setscheduler(0, os.SCHED_FIFO | _RESET_ON_FORK, os.sched_param(_PRIORITY))
    stop = workload.Stop()
    try:
        server.serve(stop)
    finally:
        server.close()
        node.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
