"""Whether KVM is used: an existing /dev/kvm is no reason, a guest that is up in time is."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from fmcc.hypervisor.qemu import trial
from fmcc.hypervisor.settings import QemuSettings

UP = f'for each; do case $each in file:*) echo "{trial.READY}" >"${{each#file:}}" ;; esac; done; exec sleep 60'


def settings(folder: Path, script: str) -> QemuSettings:
    """With a QEMU that is a shell script."""
    binary = folder / "qemu"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    described = {"binary": binary, "folder": folder, "migration_address": "127.0.0.1", "kernel": folder / "vmlinuz"}
    return QemuSettings.model_validate(described | {"trial_s": 0.5 if "sleep 61" in script else 10})


def test_a_guest_that_is_up_in_time_speaks_for_kvm(tmp_path: Path) -> None:
    assert asyncio.run(trial.try_kvm(settings(tmp_path, UP))) is None


@pytest.mark.parametrize(
    ("script", "why"),
    [("echo 'failed to set MSR 0x10a' >&2; exit 1", "failed to set MSR"), ("exec sleep 61", "was not up within 0.5 s")],
)
def test_a_guest_that_dies_or_crawls_speaks_against_it(tmp_path: Path, script: str, why: str) -> None:
    assert why in str(asyncio.run(trial.try_kvm(settings(tmp_path, script))))


def test_the_answer_is_kept_until_the_host_boots_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    async def counted(_: QemuSettings) -> None:
        nonlocal tried
        tried += 1

    monkeypatch.setattr("os.access", lambda *_: True)
    monkeypatch.setattr(trial, "try_kvm", counted)
    boot = tmp_path / "boot_id"
    boot.write_text("one\n")
    monkeypatch.setattr(trial, "_BOOT_ID", boot)
    configured = settings(tmp_path, "")
    assert asyncio.run(trial.accelerator(configured)) == "kvm"
    assert asyncio.run(trial.accelerator(configured)) == "kvm"
    assert tried == 1
    boot.write_text("two\n")
    asyncio.run(trial.accelerator(configured))
    assert tried == 2
