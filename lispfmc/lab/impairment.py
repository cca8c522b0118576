"""Changes what the WAN does while the lab runs: round-trip times of pairs, and losses of the control plane.

Works through the WAN forwarder's configuration, so a sweep over delays needs no lab of its own for each. Loss hits what
is not encapsulated data (UDP 4341): LISP control, the agents' HTTP. Data stays whole, so that a lost probe is one that
the move lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from lispfmc.lab import processes
from lispfmc.lab.configs import write_private
from lispfmc.lab.installation import Installation
from lispfmc.wire.errors import LocalError

APPLIED_S = 2.0
_POLL_S = 0.005

RttsMs: TypeAlias = Mapping[frozenset[str], float]
NONE: RttsMs = MappingProxyType({})


async def impair(
    lab: Installation,
    rtts_ms: RttsMs,
    *,
    streams_ms: RttsMs = NONE,
    control_loss_percent: float = 0.0,
    seed: int = 1,
) -> None:
    """Return when the WAN works with these round-trip times (pairs that are not named keep theirs) and this loss.
    `streams_ms`: of TCP alone, which is the hypervisor agents', where it is not as all the rest.

    Raises LocalError when the lab's WAN is the kernel's, or does not take the change.
    """
    path = lab.folder / "wan.json"
    config = impaired(_config(lab), rtts_ms, control_loss_percent, seed, streams_ms)
    wan = next((each for each in processes.recorded(lab.folder) if each.name == "wan" and each.alive), None)
    if wan is None:
        raise LocalError(f"the WAN forwarder of lab {lab.name} does not run; see logs/wan.log in {lab.folder}")
    write_private(path, json.dumps(config, indent=1))
    os.kill(wan.pid, signal.SIGHUP)
    await _applied(path.with_suffix(".applied"), str(config["generation"]), path)


def members(lab: Installation) -> list[str]:
    """Whom the WAN connects. Raises LocalError as `impair` does."""
    return sorted(_config(lab)["members"])


def impaired(
    config: dict[str, Any], rtts_ms: RttsMs, control_loss_percent: float, seed: int, streams_ms: RttsMs = NONE
) -> dict[str, Any]:
    """The forwarder's configuration with the changes in it. Another seed loses other packets."""
    pairs = []
    for pair in config["pairs"]:
        members = frozenset((pair["from"], pair["to"]))
        delay = rtts_ms.get(members, pair["delay_ms"] * 2) / 2
        stream = streams_ms.get(members, delay * 2) / 2
        changes = {"delay_ms": delay, "stream_delay_ms": stream, "control_loss_percent": control_loss_percent}
        pairs.append({**pair, **changes})
    return {**config, "pairs": pairs, "seed": seed, "generation": config.get("generation", 0) + 1}


def _config(lab: Installation) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((lab.folder / "wan.json").read_text())
    except OSError as error:
        why = "the kernel delays its packets, or it runs in containers"
        raise LocalError(
            f"lab {lab.name} has no WAN forwarder of its own: {why}; run: lispfmc lab up --impairable"
        ) from error
    return config


async def _applied(path: Path, generation: str, config: Path) -> None:
    until = time.monotonic() + APPLIED_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if path.read_text() == generation:  # noqa: ASYNC240 - a few bytes of a memory file system
                return
        await asyncio.sleep(_POLL_S)
    raise LocalError(f"the WAN forwarder did not take {config} within {APPLIED_S:g} s; see logs/wan.log beside it")
