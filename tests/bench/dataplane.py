"""The data planes against plain routing over the same hops: user -- access xTR == cloud xTR -- service, namespaces.

Every round takes each variant once: no plane (the hops only route), the kernel's, the TUN plane, and the TUN plane with
one packet a call. Ratios are of one round; their median counts. Needs root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any, NamedTuple

from tests.bench.harness import ROOT

PREFIX = f"bench{os.getpid()}"
NAMES = ("user", "access", "cloud", "service")
GATEWAY_MAC = "02:00:5e:00:00:01"
RLOC = {"access": ("198.18.0.11",), "cloud": ("198.18.0.21", "198.18.0.22")}
EID = {"user": "100.64.1.10", "service": "100.64.101.10"}
PLAIN = {"user": "10.1.0.10", "service": "10.2.0.10"}
MANY = "100.80.0.0"
PORT = 5000

ROUNDS = 7
FLOW_SECONDS, BLAST_SECONDS, PING_SECONDS = 0.8, 0.8, 0.4
PACKETS_PER_S = 10_000
FEW, LOTS = 10, 100_000
TOGETHER = 256  # destinations in use at a time; each packet goes to another one


class Worker:
    """A process in one of the namespaces, which takes a command a line."""

    def __init__(self, to: IO[str], answers: IO[str]) -> None:
        self._to, self._answers = to, answers

    def begin(self, command: str, **arguments: Any) -> None:
        self._to.write(json.dumps([command, arguments]) + "\n")
        self._to.flush()

    def end(self) -> Any:
        line = self._answers.readline()
        if not line:
            raise RuntimeError("a worker of the benchmark has died; what it said stands above")
        return json.loads(line)

    def __call__(self, command: str, **arguments: Any) -> Any:
        self.begin(command, **arguments)
        return self.end()


class World(NamedTuple):
    """The workers, by namespace; `other` is a second one at the service."""

    user: Worker
    access: Worker
    cloud: Worker
    service: Worker

    def start(self, plane: str) -> None:
        self.access("start", plane=plane, hosts=[EID["user"]], mac=_mac("user"))
        self.cloud("start", plane=plane, hosts=[EID["service"]], mac=_mac("service"))
        self.access("forward", eid=f"{EID['service']}/32", rloc=RLOC["cloud"][0])
        self.cloud("forward", eid=f"{EID['user']}/32", rloc=RLOC["access"][0])

    def stop(self) -> None:
        self.access("stop")
        self.cloud("stop")


class Figures(NamedTuple):
    """One variant in one round."""

    gbps: float
    pps: float
    packets_per_cpu_s: float
    rtt_us: float


def run() -> dict[str, object]:
    """Everything; about two minutes."""
    with network(), world() as each:
        rounds = [{plane: _measure(each, plane) for plane in ("", "ebpf", "tun", "naive")} for _ in range(ROUNDS)]
        miss = {plane: _miss(each, plane) for plane in ("ebpf", "tun")}
        cutover = _cutover(each, "ebpf")
        cache = _cache(each)
    return {
        "ebpf": {
            "tcp_ratio": _ratio(rounds, "ebpf", "", "gbps"),
            "pps_ratio": _ratio(rounds, "ebpf", "", "pps"),
            "cpu_ratio": _ratio(rounds, "ebpf", "", "packets_per_cpu_s"),
            "added_rtt_us": round(median(one["ebpf"].rtt_us - one[""].rtt_us for one in rounds), 1),
            "tcp_gbps": _median(rounds, "ebpf", "gbps"),
            "pps": _median(rounds, "ebpf", "pps"),
        },
        "plain": {"tcp_gbps": _median(rounds, "", "gbps"), "pps": _median(rounds, "", "pps")},
        "tun": {
            "tcp_gbps": _median(rounds, "tun", "gbps"),
            "tcp_vs_naive": _ratio(rounds, "tun", "naive", "gbps"),
            "pps": _median(rounds, "tun", "pps"),
        },
        "miss": {"lost": sum(one["lost"] for one in miss.values()), "by_plane": miss},
        "cutover": cutover,
        "cache_100k": cache,
    }


def _median(rounds: list[dict[str, Figures]], plane: str, figure: str) -> float:
    return float(round(median(getattr(one[plane], figure) for one in rounds), 2))


def _ratio(rounds: list[dict[str, Figures]], plane: str, against: str, figure: str) -> float:
    return float(round(median(getattr(one[plane], figure) / getattr(one[against], figure) for one in rounds), 3))


def _measure(world: World, plane: str) -> Figures:
    if plane:
        world.start(plane)
    source, target = (EID["user"], EID["service"]) if plane else (PLAIN["user"], PLAIN["service"])
    user, service = world.user, world.service
    try:
        service("echo", ip=target, port=PORT + 1, seconds=PING_SECONDS + 0.2)
        trips = user("ping", ip=source, port=PORT + 1, to=target, seconds=PING_SECONDS)
        service("tcp_sink", ip=target, port=PORT)
        gbps = user("tcp", ip=source, port=PORT, to=target, seconds=FLOW_SECONDS)["gbps"]
        service("sink", ip=target, port=PORT)
        blast = user("blast", ip=source, port=PORT, to=target, size=64, seconds=BLAST_SECONDS)
        received = service("received")["received"]
    finally:
        if plane:
            world.stop()
    return Figures(gbps, received / BLAST_SECONDS, received / blast["cpu_s"], median(trips))


def _miss(world: World, plane: str) -> dict[str, int]:
    """A new flow at full pace, whose mapping takes 20 ms."""
    world.start(plane)
    try:
        world.access("remove", eid=f"{EID['service']}/32")
        world.access("answer", rloc=RLOC["cloud"][0], after_s=0.02)
        return _paced(world, PACKETS_PER_S // 2)
    finally:
        world.stop()


def _paced(world: World, count: int) -> dict[str, int]:
    world.service("sink", ip=EID["service"], port=PORT)
    world.user("pace", ip=EID["user"], port=PORT, to=EID["service"], per_second=PACKETS_PER_S, count=count)
    return _arrived(world, count)


def _arrived(world: World, count: int) -> dict[str, int]:
    subprocess.run(["sleep", "0.1"], check=True)
    seen: dict[str, int] = world.service("received")
    return {
        "lost": count - (seen["received"] - seen["duplicated"]),
        "duplicated": seen["duplicated"],
        "reordered": seen["reordered"],
    }


def _cutover(world: World, plane: str, times: int = 30, every_s: float = 0.1) -> dict[str, float]:
    """Changes of a mapping under a flow: how soon the new path is used, and what the flow notices."""
    count = int((times + 4) * every_s * PACKETS_PER_S)
    world.start(plane)
    try:
        world.cloud("watch", interface="wan0")
        world.service("sink", ip=EID["service"], port=PORT)
        world.user.begin("pace", ip=EID["user"], port=PORT, to=EID["service"], per_second=PACKETS_PER_S, count=count)
        changes = world.access("switch", eid=f"{EID['service']}/32", rlocs=RLOC["cloud"], times=times, every_s=every_s)
        world.user.end()
        seen = world.cloud("seen")
        arrived = _arrived(world, count)
    finally:
        world.stop()
    firsts, late = [], 0
    for (before, after, rloc), following in zip(changes, [*changes[1:], (seen[-1][0] + 1, 0, 0)], strict=True):
        during = [(at, by) for at, by in seen if before <= at < following[0]]
        firsts.append(next((at for at, by in during if by == rloc), following[0]) - before)
        late += sum(at > after and by != rloc for at, by in during)
    return {"first_us_median": round(median(firsts) / 1000, 1), "late": late, **arrived}


def _cache(world: World, rounds: int = 3) -> dict[str, float]:
    """What many entries cost: memory of the daemon's process, and nanoseconds of a packet in the kernel."""
    ratios, megabytes = [], []
    with program_times():
        for _ in range(rounds):
            world.start("ebpf")
            try:
                before = world.access("fill", first=MANY, entries=FEW, rloc=RLOC["cloud"][0])["rss_mb"]
                few = _nanoseconds(world, FEW)
                filled = world.access("fill", first=MANY, entries=LOTS, rloc=RLOC["cloud"][0])
                megabytes.append(filled["rss_mb"] - before)
                ratios.append(_nanoseconds(world, LOTS) / few)
            finally:
                world.stop()
    return {"rss_mb": round(megabytes[0], 1), "lookup_ratio": round(median(ratios), 2)}


def _nanoseconds(world: World, entries: int) -> float:
    """Of the encapsulating program, whole, for packets to destinations spread evenly over the entries."""
    base = int.from_bytes(bytes(map(int, MANY.split("."))), "big")
    step = max(1, entries // TOGETHER)
    numbers = sorted(range(0, entries, step), key=lambda number: number * 2_654_435_761 % (1 << 32))
    to = [".".join(map(str, (base + number).to_bytes(4, "big"))) for number in numbers]
    before = world.access("kernel_time", interface="lan")
    world.user("spread", ip=EID["user"], port=PORT, to=to, size=64, seconds=0.5)
    after = world.access("kernel_time", interface="lan")
    return float((after[0] - before[0]) / (after[1] - before[1]))


# --- the network ---------------------------------------------------------------------------------------------------


def _mac(host: str) -> str:
    return f"02:00:00:00:0{1 + NAMES.index(host)}:10"


def _run(*commands: str) -> None:
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True, text=True)


@contextmanager
def network() -> Iterator[None]:
    """Four namespaces in a row. The hosts have an EID each, and an address that is only routed."""
    try:
        for name in NAMES:
            _run(f"ip netns add {PREFIX}-{name}", f"ip -n {PREFIX}-{name} link set lo up")
        for xtr, host, there in (("access", "user", "service"), ("cloud", "service", "user")):
            _site(xtr, host, PLAIN[there])
        _run(f"ip -n {PREFIX}-access link add wan0 type veth peer name wan0 netns {PREFIX}-cloud")
        for xtr, other in (("access", "cloud"), ("cloud", "access")):
            at = f"ip -n {PREFIX}-{xtr}"
            _run(f"{at} link set wan0 mtu 1600 up", *(f"{at} addr add {each}/24 dev wan0" for each in RLOC[xtr]))
            there = PLAIN["service" if other == "cloud" else "user"]
            _run(f"{at} route add {there}/32 via {RLOC[other][0]} dev wan0 onlink")
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", f"{PREFIX}-{name}"], check=False, capture_output=True)


def _site(xtr: str, host: str, there: str) -> None:
    at, on = f"ip -n {PREFIX}-{xtr}", f"ip -n {PREFIX}-{host}"
    _run(
        f"ip netns exec {PREFIX}-{xtr} sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 "
        "net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.all.send_redirects=0",
        f"{at} link add lan type veth peer name eth0 netns {PREFIX}-{host}",
        f"{at} link set lan address {GATEWAY_MAC} up",
        f"{at} addr add 169.254.1.1/32 dev lan",
        f"{at} route add {PLAIN[host]}/32 dev lan",
        f"{at} neigh replace {PLAIN[host]} lladdr {_mac(host)} dev lan nud permanent",
        f"{on} link set eth0 address {_mac(host)} up",
        f"{on} addr add {EID[host]}/32 dev eth0",
        f"{on} addr add {PLAIN[host]}/32 dev eth0",
        f"{on} neigh replace 169.254.1.1 lladdr {GATEWAY_MAC} dev eth0 nud permanent",
        f"{on} route add default via 169.254.1.1 dev eth0 onlink src {EID[host]}",
        f"{on} route add {there}/32 via 169.254.1.1 dev eth0 onlink src {PLAIN[host]}",
    )


def _settings(xtr: str) -> str:
    prefix = "100.64.1.0/24" if xtr == "access" else "100.64.101.0/24"
    return json.dumps(
        {
            "name": xtr,
            "rlocs": RLOC[xtr],
            "prefixes": [prefix],
            "map_servers": [{"address": "198.18.0.1", "key_id": 1, "secret": "k"}],
            "dataplane": {"eid_ranges": ["100.64.0.0/10"], "queue_packets": 16384},
            "timers": {"rloc_probe_s": 0},
        }
    )


@contextmanager
def world() -> Iterator[World]:
    """A worker in each namespace."""
    with ExitStack() as stack:
        yield World(
            *(
                stack.enter_context(_worker(name, *command))
                for name, command in (
                    ("user", ("tests.bench.dataplane_end",)),
                    ("access", ("tests.bench.dataplane_xtr", _settings("access"))),
                    ("cloud", ("tests.bench.dataplane_xtr", _settings("cloud"))),
                    ("service", ("tests.bench.dataplane_end",)),
                )
            )
        )


@contextmanager
def _worker(name: str, *command: str) -> Iterator[Worker]:
    inside = ["ip", "netns", "exec", f"{PREFIX}-{name}", sys.executable, "-m", *command]
    process = subprocess.Popen(inside, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Worker(process.stdin, process.stdout)
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextmanager
def program_times() -> Iterator[None]:
    """The kernel counts the time of its programs meanwhile, which costs each run some nanoseconds."""
    switch = Path("/proc/sys/kernel/bpf_stats_enabled")
    before = switch.read_text()
    switch.write_text("1")
    try:
        yield
    finally:
        switch.write_text(before)
