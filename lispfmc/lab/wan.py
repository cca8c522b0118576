"""The WAN of the lab, for kernels without netem: one process that delays and loses packets between the members.

It is one-armed: every member's neighbour entries for the others hold this process's MAC, so all packets come here, wait
half of the pair's RTT in a heap, and leave with the MAC of the member that owns the destination RLOC. The kernel says
when each one came, so nobody has to wake for it: it is taken in when something is due, or the shortest delay is over.
AF_PACKET with PACKET_VNET_HDR lets TCP super-packets and partial checksums pass whole. Standard library only: it also
runs in a bare container. SIGHUP reads the configuration anew (a bad one changes nothing) and then writes its generation
beside it; SIGUSR1 writes the counters.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import heapq
import ipaddress
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# linux/if_packet.h, asm-generic/socket.h, linux/prctl.h
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_QDISC_BYPASS, _PACKET_IGNORE_OUTGOING = 263, 15, 20, 23
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 32, 33, 35
_TIMESPEC = struct.Struct("@ll")
_ETH_P_ALL = 3
_PR_SET_TIMERSLACK = 29

_VNET = 10  # bytes of virtio_net_hdr before the Ethernet header
_TYPE = slice(_VNET + 12, _VNET + 14)
_IPV4 = slice(_VNET + 14 + 12, _VNET + 14 + 20)  # source and destination
_IPV6 = slice(_VNET + 14 + 8, _VNET + 14 + 40)
_IP_AT = {b"\x08\x00": _IPV4, b"\x86\xdd": _IPV6}
_NEXT = {b"\x08\x00": _VNET + 14 + 9, b"\x86\xdd": _VNET + 14 + 6}  # protocol, next header
_PORT = {b"\x08\x00": slice(_VNET + 14 + 22, _VNET + 14 + 24), b"\x86\xdd": slice(_VNET + 14 + 42, _VNET + 14 + 44)}
_TCP, _UDP, _DATA_PORT = 6, 17, (4341).to_bytes(2, "big")  # RFC 9300 §4.1: what users send travels to this port

_DRAIN = 64  # packets taken in before those that are due go out
_MAX_WAITING = 100_000  # packets in flight; a flood must not eat the machine's memory
_BUFFER = 16 << 20
_LARGEST = 70_000  # bytes of a packet that is yet to be segmented, with its headers
_IDLE_SECONDS = 0.1  # how late a signal is noticed
_SHORT_NS = 100_000  # where a delay is shorter than this, each packet wakes us


@dataclass
class Direction:
    """One direction of a pair of members."""

    delay_ns: int
    stream_delay_ns: int
    """Of TCP: the hypervisor agents' HTTP, where they are to be nearer or farther than their routers."""
    loss: float
    control_loss: float
    chance: random.Random
    ethernet: bytes  # destination and source MAC of what leaves
    packets: int = 0
    lost: int = 0


@dataclass
class Plan:
    """The configuration, ready for the loop: (source, destination) addresses -> what happens."""

    mac: bytes
    paths: dict[bytes, Direction] = field(default_factory=dict)
    names: dict[str, Direction] = field(default_factory=dict)


def plan_of(config: dict[str, Any]) -> Plan:
    """Read a configuration (`lispfmc.lab.configs.wan_config` writes it). Raises KeyError or ValueError."""
    mac = _mac(config["mac"])
    members = config["members"]
    plan = Plan(mac)
    for pair in config["pairs"]:
        name = f"{pair['from']}>{pair['to']}"
        # A generator for each direction: losses on one pair do not depend on the traffic of the others.
        chance = random.Random(f"{config['seed']}:{name}")  # noqa: S311 - repeatable loss, no secret
        loss, delay = float(pair["loss_percent"]) / 100, round(float(pair["delay_ms"]) * 1e6)
        control = float(pair.get("control_loss_percent", 0)) / 100
        stream = round(float(pair.get("stream_delay_ms", pair["delay_ms"])) * 1e6)
        path = Direction(delay, stream, loss, control, chance, _mac(members[pair["to"]]["mac"]) + mac)
        plan.names[name] = path
        for source in members[pair["from"]]["rlocs"]:
            for destination in members[pair["to"]]["rlocs"]:
                if (":" in source) == (":" in destination):
                    key = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
                    plan.paths[key] = path
    return plan


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


class Wan:
    """The packets in flight. Time comes in as an argument: the same code runs in the loop and in the tests."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.unknown = self.overflow = self.late_ns = 0
        self._flying: list[tuple[int, int, bytes]] = []
        self._order = 0

    def least_ns(self) -> int:
        """No packet that comes from now on is due sooner."""
        paths = self.plan.names.values()
        return min((min(path.delay_ns, path.stream_delay_ns) for path in paths), default=0)

    def take(self, packet: bytes, now_ns: int) -> None:
        """A packet as PACKET_VNET_HDR gives it: virtio header, Ethernet, IP."""
        place = _IP_AT.get(packet[_TYPE])
        if place is None or packet[_VNET : _VNET + 6] != self.plan.mac:
            return  # ARP, or a frame that the bridge flooded
        path = self.plan.paths.get(packet[place])
        if path is None:
            self.unknown += 1
            return
        path.packets += 1
        if (path.loss and path.chance.random() < path.loss) or (
            path.control_loss and not _is_data(packet) and path.chance.random() < path.control_loss
        ):
            path.lost += 1
            return
        if len(self._flying) >= _MAX_WAITING:
            self.overflow += 1
            return
        self._order += 1  # packets that are due at the same instant leave in the order in which they came
        leaving = packet[:_VNET] + path.ethernet + packet[_VNET + 12 :]
        delay_ns = path.delay_ns if path.delay_ns == path.stream_delay_ns else _delay_ns(path, packet)
        heapq.heappush(self._flying, (now_ns + delay_ns, self._order, leaving))

    def due(self, now_ns: int) -> bytes | None:
        """The next packet whose time has come."""
        flying = self._flying
        if not flying or flying[0][0] > now_ns:
            return None
        at, _, packet = heapq.heappop(flying)
        self.late_ns = max(self.late_ns, now_ns - at)
        return packet

    def wait_ns(self, now_ns: int) -> int | None:
        """How long until the next packet is due; None when nothing is in flight."""
        return max(0, self._flying[0][0] - now_ns) if self._flying else None

    def counters(self) -> dict[str, Any]:
        paths = {name: {"packets": path.packets, "lost": path.lost} for name, path in self.plan.names.items()}
        return {
            "paths": paths,
            "unknown": self.unknown,
            "overflow": self.overflow,
            "in_flight": len(self._flying),
            "latest_ms": self.late_ns / 1e6,
        }


def _delay_ns(path: Direction, packet: bytes) -> int:
    return path.stream_delay_ns if packet[_NEXT[packet[_TYPE]]] == _TCP else path.delay_ns


def _is_data(packet: bytes) -> bool:
    """Whether users sent it: everything else is the control plane's, its messages and its HTTP alike."""
    kind = packet[_TYPE]
    return packet[_NEXT[kind]] == _UDP and packet[_PORT[kind]] == _DATA_PORT


def open_socket(interface: str) -> socket.socket:
    """A packet socket on `interface` that does not see what it sends."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
    for force, ordinary in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            opened.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
        except PermissionError:  # a container without CAP_NET_ADMIN over the host: what the system allows
            opened.setsockopt(socket.SOL_SOCKET, ordinary, _BUFFER)
    opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    opened.bind((interface, _ETH_P_ALL))
    opened.settimeout(0)
    return opened


class Signals:
    """What was asked of the process since the loop last looked."""

    def __init__(self) -> None:
        self.stop = self.reload = self.report = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "stop", True))
        signal.signal(signal.SIGHUP, lambda *_: setattr(self, "reload", True))
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "report", True))


def run(wan: Wan, packets: socket.socket, config: Path, stats: Path, signals: Signals) -> None:
    """Take in, wait, send, until SIGTERM."""
    send, now, sockets = packets.send, time.monotonic_ns, [packets.fileno()]
    taking, least = Taking(packets), wan.least_ns()
    while not signals.stop:
        taking.into(wan)
        while (packet := wan.due(now())) is not None:
            try:
                send(packet)
            except OSError:
                wan.overflow += 1
        wait = wan.wait_ns(now())
        seconds = _IDLE_SECONDS if wait is None else min(_IDLE_SECONDS, wait / 1e9)
        if wait is None or least < _SHORT_NS:
            select.select(sockets, [], [], seconds)
        else:
            time.sleep(min(seconds, least / 1e9))
        if signals.reload:
            signals.reload = False
            _reload(wan, config)
            least = wan.least_ns()
        if signals.report:
            signals.report = False
            stats.write_text(json.dumps(wan.counters()))


class Taking:
    """Takes packets in, each at the time at which the kernel had it."""

    def __init__(self, packets: socket.socket) -> None:
        self._packets = packets
        self._buffer = bytearray(_LARGEST)
        self._view = memoryview(self._buffer)

    def into(self, wan: Wan) -> None:
        receive, buffers, view, take = self._packets.recvmsg_into, (self._buffer,), self._view, wan.take
        to_monotonic = time.monotonic_ns() - time.time_ns()
        try:
            for _ in range(_DRAIN):
                size, ancillary, _, _ = receive(buffers, 64)
                seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2][: _TIMESPEC.size])
                take(bytes(view[:size]), seconds * 1_000_000_000 + nanoseconds + to_monotonic)
        except OSError:
            pass  # drained, or the interface is down for a moment


def _reload(wan: Wan, config: Path) -> None:
    try:
        values = json.loads(config.read_text())
        wan.plan = plan_of(values)
    except (OSError, KeyError, ValueError, TypeError) as error:
        sys.stderr.write(f"{config}: not usable, {error!r}; the delays stay as they are\n")
        return
    _applied(config, values)


def _applied(config: Path, values: dict[str, Any]) -> None:
    """Tell whoever changed the configuration that it holds from now on."""
    config.with_suffix(".applied").write_text(str(values.get("generation", 0)))


def main(arguments: list[str] | None = None) -> int:
    """`python -m lispfmc.lab.wan --config wan.json`."""
    parser = argparse.ArgumentParser(prog="python -m lispfmc.lab.wan", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    config: Path = parser.parse_args(arguments).config
    signals = Signals()
    try:
        values = json.loads(config.read_text())
        wan = Wan(plan_of(values))
        packets = open_socket(values["interface"])
    except (OSError, KeyError, ValueError) as error:
        sys.stderr.write(f"{config}: the WAN cannot start: {error!r}; it needs CAP_NET_RAW and its interface\n")
        return 1
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))
    except OSError:
        sys.stderr.write("no real-time scheduling here: delays will vary by some milliseconds under load\n")
    gc.freeze()
    config.with_suffix(".ready").touch()
    _applied(config, values)
    run(wan, packets, config, config.with_suffix(".stats.json"), signals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
