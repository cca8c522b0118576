"""Brings a lab up, takes it down, says how it is: namespaces, real daemons as processes, node agents.

A lab is known by three traces: its run directory (pid files, `lab.json`), its namespaces (`lfmc-NAME-...`) and the
processes in them. `up` refuses when it finds any; `down` removes whatever it finds, after a killed `up` too.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from lispfmc.lab import namespaces, netem, processes
from lispfmc.lab.configs import (
    Choices,
    DaemonPlan,
    Keys,
    daemon_plans,
    node_arguments,
    wan_config,
    write_config,
    write_identity,
)
from lispfmc.lab.configs import write_private as write
from lispfmc.lab.installation import FILE, BadName, Daemon, Installation, NodeEntry, load, run_directory
from lispfmc.lab.readiness import ask_node, last_words, wait_until_ready, why_not_ready
from lispfmc.lab.topology import MAPSERVER, Topology, load_topology
from lispfmc.lab.virtual import find_engine
from lispfmc.wire.address import ip_text
from lispfmc.wire.errors import LocalError

_CONTROL_PRIORITY = 12
"""Controller, Map-Server and agents are machines of their own as the routers are (15): a scheme that waits for them
must not look worse for what else this machine does."""
_FEW_SERVICES = 10
"""When more than these move at once, control is a load for seconds. With real-time priority it would keep the kernel's
own threads from running all that time, and packets and processes that wait for those: it runs as any process then."""
_READY_SECONDS = 30.0
_BOOT_SECONDS = 120.0  # virtual machines boot, without KVM as a rule
_LOCK_SECONDS = 0.5  # a child of a killed `up` holds its lock until it has become what it was started for
_NAME = re.compile(r"[a-z][a-z0-9]{0,12}")
_LOGS = "logs"

Say = Callable[[str], None]


def up(
    topology: str,
    name: str | None = None,
    say: Say = lambda _: None,
    *,
    driver: str = "emulated",
    scheme: str = "",
    by_forwarder: bool = False,
) -> Installation:
    """Bring a topology up and return when every daemon is ready and every node is at its start.

    `driver` "qemu": its services are virtual machines.

    `scheme` leads services instead of the topology's. `by_forwarder`: the WAN is the forwarder, even where the kernel
    could delay packets by itself: its delays and losses can be changed while the lab runs (`lispfmc.lab.impairment`).
    Raises LocalError: not root, something of this lab is there already, or a process did not come up (what was started
    is taken down again; the logs stay).
    """
    _require_root()
    described = load_topology(topology, scheme)
    name = name or described.name
    with _only_one(name) as folder:
        if found := traces(name):
            raise LocalError(f"lab {name} is there already: {'; '.join(found)}; run: lispfmc lab down {name}")
        try:
            return _up(described, name, folder, say, driver, by_forwarder=by_forwarder)
        except BaseException:
            _down(name, folder)
            raise


def down(name: str, *, purge: bool = False) -> list[str]:
    """Remove whatever there is of a lab, its daemons' logs only with `purge`; returns what was found (nothing: it was
    not up). Raises BadName."""
    _require_root()
    with _only_one(name) as folder:
        found = traces(name)
        _down(name, folder)
        if purge:
            shutil.rmtree(folder / _LOGS, ignore_errors=True)
        if not (folder / _LOGS).exists():
            shutil.rmtree(folder)
        return found


def logs_of(name: str) -> Path | None:
    """Where the logs of a lab are, that of one that is down, too; None: there are none."""
    folder = run_directory() / name / _LOGS
    return folder if folder.exists() else None


def traces(name: str) -> list[str]:
    """What there is of a lab on this machine, in words."""
    folder = run_directory() / name
    spaces = namespaces.existing(name)
    alive = {process.pid: process.name for process in processes.recorded(folder) if process.alive}
    alive |= {process.pid: process.name for process in processes.living_in(spaces) if process.pid not in alive}
    found = []
    if (folder / FILE).exists():
        found.append(f"its {FILE} in {folder}")
    elif alive or spaces or any(folder.glob("*.pid")):
        found.append("what an earlier up or down left")
    if alive:
        found.append(f"{len(alive)} processes ({', '.join(sorted(set(alive.values())))})")
    if spaces:
        found.append(f"{len(spaces)} namespaces ({', '.join(spaces)})")
    return found


def status(name: str | None = None) -> dict[str, Any]:
    """How the lab is: each daemon and each node, with what is wrong."""
    lab = load(name)
    alive = {process.name for process in processes.recorded(lab.folder) if process.alive}
    contained = lab.kind != "namespaces"
    daemons = [
        {"name": each.name, "role": each.role, "running": contained or each.name in alive, "why": why_not_ready(each)}
        for each in lab.daemons
    ]
    nodes = [_node_status(node) for node in lab.nodes]
    ready = all(each["running"] and each["why"] is None for each in daemons) and all(n["why"] is None for n in nodes)
    return {
        "name": lab.name,
        "topology": lab.topology,
        "kind": lab.kind,
        "ready": ready,
        "daemons": daemons,
        "nodes": nodes,
    }


def execute(member: str, command: list[str], name: str | None = None) -> int:
    """Run a command in the namespace of a site, server or node ("core" too); returns its exit code."""
    _require_root()
    lab = load(name)
    if lab.kind != "namespaces":
        raise LocalError(f"lab {lab.name} runs in containers; use: docker compose exec {member} {' '.join(command)}")
    namespace = namespaces.namespace_of(lab.name, member)
    known = namespaces.existing(lab.name)
    if namespace not in known:
        names = ", ".join(each.removeprefix(namespaces.prefix_of(lab.name)) for each in known)
        raise LocalError(f"lab {lab.name} has no {member!r}; it has: {names}")
    return subprocess.run(["ip", "netns", "exec", namespace, *command], check=False).returncode  # noqa: S603, S607


def installation_of(
    topology: Topology, name: str, kind: str, plans: list[DaemonPlan], choices: Choices
) -> Installation:
    """What `lab.json` says of a lab of either kind."""
    inside = kind == "namespaces"
    daemons = [
        Daemon(plan.name, plan.role, plan.api, namespace=namespaces.namespace_of(name, plan.member) if inside else None)
        for plan in plans
    ]
    nodes = [
        NodeEntry(
            name=node.name,
            role="user" if node in topology.users else "service",
            socket=str(choices.socket(node.name)),
            eids=[ip_text(eid) for eid in node.eids],
            sites=[site.name for site in topology.candidates(node)],
            namespace=namespaces.namespace_of(name, node.name) if inside else None,
        )
        for node in choices.nodes(topology)
    ]
    resolver = choices.rlocs(topology, MAPSERVER)[0]
    lookup = namespaces.namespace_of(name, topology.access[0].name) if inside else None
    return Installation(name, topology.name, kind, daemons, nodes, resolver, lookup)


def attach_nodes(topology: Topology, lab: Installation) -> None:
    """Plug every node in where it starts."""
    starts = {node.name: node.start for node in topology.nodes}
    for node in lab.nodes:
        ask_node(node, {"do": "attach", "site": starts[node.name]})


def write_installation(lab: Installation) -> None:
    write(lab.folder / FILE, msgspec.json.format(msgspec.json.encode(lab)).decode() + "\n")


def _up(topology: Topology, name: str, folder: Path, say: Say, driver: str, *, by_forwarder: bool) -> Installation:
    shutil.rmtree(folder / _LOGS, ignore_errors=True)
    (folder / _LOGS).mkdir()
    engine = find_engine() if driver == "qemu" else None
    plane = os.environ.get("LISPFMC_DATAPLANE", "")
    choices = Choices(folder, dataplane=plane, driver=driver, engine=engine)
    plans = daemon_plans(topology, Keys(folder), choices)
    write_identity(Keys(folder), folder)
    lab = installation_of(topology, name, "namespaces", plans, choices)
    say(f"building the network of {topology.name}: {len(topology.members)} members, {len(lab.nodes)} nodes")
    core = _network(topology, name, choices, say, by_forwarder=by_forwarder)
    seconds = _READY_SECONDS if engine is None else max(_BOOT_SECONDS, topology.virtual.boot_s)
    started = _started(topology, lab, plans, choices, core, say, seconds)
    attach_nodes(topology, lab)
    pids = {process.name: process.pid for process in started}
    daemons = [msgspec.structs.replace(daemon, pid=pids[daemon.name]) for daemon in lab.daemons]
    lab = msgspec.structs.replace(lab, daemons=daemons)
    write_installation(lab)
    return lab


def _started(
    topology: Topology,
    lab: Installation,
    plans: list[DaemonPlan],
    choices: Choices,
    core: Path | None,
    say: Say,
    seconds: float,
) -> list[processes.Recorded]:
    """Every process, when all are ready; `core` is the configuration of the WAN's forwarder."""
    started: list[processes.Recorded] = []

    def start(name: str, module: str, arguments: list[str], member: str) -> None:
        started.append(processes.start(name, module, arguments, _in(lab.name, member), choices.folder))

    def start_daemons(plans: list[DaemonPlan]) -> None:
        for plan in plans:
            start(plan.name, plan.module, ["--config", str(write_config(plan, choices.folder))], plan.member)

    def ended() -> list[str]:
        return [process.name for process in started if not process.alive]

    if core is not None:
        start("wan", "lispfmc.lab.wan", ["--config", str(core)], "core")
    start_daemons([plan for plan in plans if plan.role == "mapserver"])
    for node in choices.nodes(topology):
        start(node.name, "lispfmc.lab.node", node_arguments(topology, node, choices), node.name)
    say(f"waiting for {len(plans)} daemons and {len(lab.nodes)} nodes")
    # A registration that meets no Map-Server, or no network, is repeated after 1, 2, 4, ... seconds (RFC 9301 §5.6).
    servers = msgspec.structs.replace(lab, daemons=[each for each in lab.daemons if each.role == "mapserver"])
    wait_until_ready(servers, _READY_SECONDS, ended)
    if core is not None:
        _forwards(core.with_suffix(".ready"), ended)
    start_daemons([plan for plan in plans if plan.role != "mapserver"])
    wait_until_ready(lab, seconds, ended)
    few = len(topology.services) <= _FEW_SERVICES
    slow = {plan.name for plan in plans if few and plan.role != "xtr"}
    for process in started:
        if process.name in slow:
            with suppress(OSError):  # without CAP_SYS_NICE
                os.sched_setscheduler(process.pid, os.SCHED_FIFO, os.sched_param(_CONTROL_PRIORITY))
    return started


def _forwards(ready: Path, ended: Callable[[], list[str]]) -> None:
    """Wait until the WAN's forwarder says that it forwards."""
    until = time.monotonic() + _READY_SECONDS
    while not ready.exists():
        if ended() or time.monotonic() > until:
            raise LocalError(f"the WAN's forwarder did not start: {last_words(ready.parent, 'wan')}")
        time.sleep(0.02)


def _network(topology: Topology, name: str, choices: Choices, say: Say, *, by_forwarder: bool) -> Path | None:
    """Namespaces and links; returns the forwarder's configuration, or None when the kernel delays by itself."""
    namespaces.create(topology, name, choices)
    by_kernel = not by_forwarder and netem.accepted(_in(name, "core"))
    namespaces.wire(topology, name, choices, forwarder=not by_kernel)
    if by_kernel:
        netem.apply(_in(name, "core"), topology, choices)
        say("the kernel delays the WAN's packets (netem)")
        return None
    path = choices.folder / "wan.json"
    write(path, wan_config(topology, choices, "br0"))
    why = "for delays that can be changed" if by_forwarder else "this kernel has no netem"
    say(f"{why}: the WAN's packets are delayed by a process (python -m lispfmc.lab.wan)")
    return path


def _node_status(node: NodeEntry) -> dict[str, Any]:
    described: dict[str, Any] = {"name": node.name, "role": node.role, "site": None, "frozen": None, "why": None}
    try:
        answer = ask_node(node, {"do": "status"})
    except (OSError, ValueError, LocalError) as error:
        return described | {"why": f"does not answer ({error})"}
    return described | {"site": answer["site"], "frozen": answer["frozen"]}


def _in(lab: str, member: str) -> str:
    return namespaces.namespace_of(lab, member)


def _down(name: str, folder: Path) -> None:
    processes.end([*processes.recorded(folder), *processes.living_in(namespaces.existing(name))])
    namespaces.remove(name)
    for path in folder.iterdir():
        if path.name not in {_LOGS, "lock"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _require_root() -> None:
    if os.geteuid() != 0:
        raise LocalError("the lab builds network namespaces, only root may; run it with sudo, or use docker compose up")


@contextmanager
def _only_one(name: str) -> Iterator[Path]:
    """The lab's run directory, held so that no second `up` or `down` works on it."""
    if not _NAME.fullmatch(name):  # it becomes part of paths whose content `down` removes
        raise BadName(f"{name!r} cannot be a lab's name; use up to 13 small letters and digits")
    folder = run_directory() / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:
        give_up = time.monotonic() + _LOCK_SECONDS
        while not _locked(lock):
            if time.monotonic() > give_up:
                raise LocalError(f"another up or down of lab {name} is at work; wait for it to end")
            time.sleep(0.02)
        yield folder


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
