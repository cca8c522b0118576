"""What an agent's file must say for each driver, and what is said when a driver's package is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fmcc.hypervisor.agent import load
from fmcc.hypervisor.settings import AgentSettings
from lispfmc.wire.errors import LocalError

AGENT: dict[str, Any] = {"name": "h", "datacenter": "dc1", "listen": "127.0.0.1:9350", "token": "t"}


def problem(**settings: Any) -> str:
    with pytest.raises(ValidationError) as wrong:
        AgentSettings.model_validate(AGENT | settings)
    return str(wrong.value)


def test_each_driver_asks_for_its_own_settings() -> None:
    assert "add a table [qemu]" in problem(driver="qemu")
    assert "add a table [libvirt]" in problem(driver="libvirt")
    assert "name its socket" in problem(machines=[{"name": "app"}])
    AgentSettings.model_validate(AGENT | {"driver": "dryrun", "machines": [{"name": "app", "start": "dc1"}]})


def test_a_downtime_that_has_corrupted_guests_cannot_be_configured() -> None:
    qemu = {"migration_address": "198.18.0.21", "downtime_limit_ms": 1}
    assert "greater than or equal to 20" in problem(driver="qemu", qemu=qemu)


def test_a_partial_migration_copies_its_fraction_of_the_state() -> None:
    machine = {"name": "app", "node_socket": "/run/app.sock", "copy_s": 20.0, "fraction": 0.25}
    settings = AgentSettings.model_validate(AGENT | {"machines": [machine]})
    assert settings.emulated_machines()["app"].copy_s == 5.0
    assert "greater than 0" in problem(machines=[machine | {"fraction": 0}])


def test_a_machines_port_is_named_after_it_as_far_as_a_port_can_be() -> None:
    machine = {"name": "a-machine-of-many-letters"}
    settings = AgentSettings.model_validate(AGENT | {"driver": "dryrun", "machines": [machine]})
    (real,) = settings.real_machines().values()
    assert real.interface == "vm-a-machine-of"


@pytest.mark.parametrize(("driver", "module"), [("qemu", "qemu.qmp"), ("libvirt", "libvirt")])
def test_a_driver_whose_package_is_missing_says_how_to_get_it(
    driver: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # what the import system does with a module that cannot be
    needs = {"qemu": 'migration_address = "198.18.0.21"', "libvirt": 'reached_at = "qemu:///system"'}
    config = tmp_path / "agent.toml"
    lines = [f'{key} = "{value}"' for key, value in (AGENT | {"driver": driver}).items()]
    config.write_text("\n".join([*lines, f"[{driver}]", needs[driver]]))
    with pytest.raises(LocalError) as missing:
        load(config)
    assert f"pip install 'lispfmc[{driver}]'" in str(missing.value)
