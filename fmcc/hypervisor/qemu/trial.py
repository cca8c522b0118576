"""Whether KVM can be trusted here: a timed trial boot decides, not the existence of /dev/kvm.

There are hosts whose /dev/kvm opens and whose guests abort, or crawl, instruction by instruction. So the guest is
booted once with KVM and must be up in time; else it is TCG. The answer holds until the host boots again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

import structlog

from fmcc.hypervisor.qemu.command import CONSOLE, base
from fmcc.hypervisor.settings import QemuSettings

READY = "lispfmc-guest ready"
"""What the guest says on its console when its service answers (deploy/guest/echo.pl)."""
TRIAL_MB = 128
_LOOK_S = 0.05
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_log = structlog.get_logger("trial")


async def accelerator(settings: QemuSettings) -> str:
    """ "kvm" or "tcg": what is configured, else what the trial says. The answer is kept in `settings.folder`."""
    if settings.accelerator != "auto":
        return settings.accelerator
    if settings.kernel is None or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    known = settings.folder / "accelerator"
    if (answer := _kept(known)) is None:
        why = await try_kvm(settings)
        _log.info("kvm.tried", used=why is None, why=why or "the guest was up in time")
        answer = "tcg" if why else "kvm"
        known.write_text(f"{answer} {_boot()}\n")
    return answer


async def try_kvm(settings: QemuSettings) -> str | None:
    """Boot the guest under KVM; None when it was up in time, else why KVM is not to be used."""
    console = settings.folder / "trial.console"
    console.write_bytes(b"")
    line = [*base(settings, "kvm", TRIAL_MB), "-nic", "none", "-serial", f"file:{console}"]
    line += ["-kernel", str(settings.kernel), "-append", CONSOLE]
    if settings.initrd is not None:
        line += ["-initrd", str(settings.initrd)]
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*line, stdin=nothing, stdout=nothing, stderr=pipe)
    try:
        return await _boots(process, console, settings.trial_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _boot() -> str:
    return _BOOT_ID.read_text().strip()


def _kept(known: Path) -> str | None:
    """What an earlier trial since the host booted has said."""
    with contextlib.suppress(OSError, ValueError):
        answer, boot = known.read_text().split()
        if boot == _boot() and answer in {"kvm", "tcg"}:
            return answer
    return None


async def _boots(process: asyncio.subprocess.Process, console: Path, within_s: float) -> str | None:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if READY in _said(console):
            return None
        if process.returncode is not None:
            assert process.stderr is not None
            words = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
            return f"QEMU ended in the trial: {words[-1] if words else process.returncode}"
        await asyncio.sleep(_LOOK_S)
    return f"the guest was not up within {within_s:g} s"


def _said(console: Path) -> str:
    return console.read_text(errors="replace")
