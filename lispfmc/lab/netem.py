"""WAN delay and loss by the kernel, where it has netem: HTB classes on the core's ports, a netem queue in each.

The packets of a member come in at its port and leave at the port of the other, so a port's egress sees every source:
one class a source, found by the source's RLOC.
"""

from __future__ import annotations

import subprocess

from lispfmc.lab.configs import Choices
from lispfmc.lab.topology import Topology
from lispfmc.wire.errors import LocalError

_RATE = "100gbit"  # HTB only sorts here; it must never be what limits
_LIMIT = 100_000  # packets; netem's own default of 1000 would drop at 1 ms and a gigabit


def accepted(namespace: str) -> bool:
    """Whether this kernel takes what `commands` asks for."""
    trial = ["qdisc add dev lo root handle 1: htb", f"class add dev lo parent 1: classid 1:1 htb rate {_RATE}"]
    trial.append("qdisc add dev lo parent 1:1 netem delay 1ms")
    refused = _tc(namespace, trial)
    _tc(namespace, ["qdisc del dev lo root"])
    return refused is None


def apply(namespace: str, topology: Topology, choices: Choices) -> None:
    """Set up all ports of the core. Raises LocalError with what tc says."""
    if refused := _tc(namespace, commands(topology, choices)):
        raise LocalError(f"tc refused the WAN's delays: {refused}; please report this with your kernel's version")


def commands(topology: Topology, choices: Choices) -> list[str]:
    """The lines for `tc -batch`."""
    lines: list[str] = []
    for target in topology.members:
        # Class 1:ffff without netem takes what is no traffic between members, such as ARP.
        lines += [
            f"qdisc replace dev {target} root handle 1: htb default ffff",
            f"class add dev {target} parent 1: classid 1:ffff htb rate {_RATE}",
        ]
        sources = [member for member in topology.members if member != target]
        for number, source in enumerate(sources, 1):
            pair = topology.pair(source, target)
            loss = f" loss {pair.loss_percent:g}%" if pair.loss_percent else ""
            lines += [
                f"class add dev {target} parent 1: classid 1:{number:x} htb rate {_RATE}",
                f"qdisc add dev {target} parent 1:{number:x} handle {number + 16:x}: "
                f"netem limit {_LIMIT} delay {pair.rtt_ms / 2:g}ms{loss}",
            ]
            for rloc in choices.rlocs(topology, source):
                protocol, match, length = ("ipv6", "ip6", 128) if ":" in rloc else ("ip", "ip", 32)
                priority = 2 if protocol == "ipv6" else 1  # tc wants one priority for each protocol
                lines.append(
                    f"filter add dev {target} parent 1: protocol {protocol} prio {priority} u32 "
                    f"match {match} src {rloc}/{length} flowid 1:{number:x}"
                )
    return lines


def _tc(namespace: str, lines: list[str]) -> str | None:
    """Run the lines; returns what tc says when it refuses one."""
    command = ["ip", "netns", "exec", namespace, "tc", "-batch", "-"]
    text = "\n".join(lines) + "\n"
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)  # noqa: S603 - our own lines
    return done.stderr.strip() or "no reason given" if done.returncode else None
