"""How a peer is spoken to is a setting wherever a key is: SHA-256 over the whole message unless told otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from lispfmc.runtime.config import ConfigError, load
from lispfmc.wire.auth import Algorithm, Key
from mapserver.settings import MapServerSettings
from xtr.settings import XtrSettings

SITE = 'name = "ms"\nlisten = ["198.18.0.1"]\n[[sites]]\nname = "a"\nkey_id = 1\nsecret = "s"\n'
ROUTER = 'name = "a"\nrlocs = ["198.18.0.11"]\n[[map_servers]]\naddress = "198.18.0.1"\nkey_id = 1\nsecret = "s"\n'


def site(tmp_path: Path, more: str = "") -> Key:
    (tmp_path / "x.toml").write_text(SITE + more)
    return load(tmp_path / "x.toml", MapServerSettings).sites[0].key


def test_a_key_is_sha256_over_the_whole_message_by_default(tmp_path: Path) -> None:
    assert site(tmp_path) == Key(1, b"s", Algorithm.HMAC_SHA_256_128, "whole-16")


def test_algorithm_and_coverage_are_chosen_per_key(tmp_path: Path) -> None:
    assert site(tmp_path, 'algorithm = 3\nauth_compat = "rfc"') == Key(1, b"s", Algorithm(3), "rfc")
    (tmp_path / "xtr.toml").write_text(
        ROUTER + 'algorithm = 1\nauth_compat = "full-length"\n[[keys]]\npeer = "198.18.0.12"\nid = 2\nsecret = "t"\n'
    )
    settings = load(tmp_path / "xtr.toml", XtrSettings)
    assert settings.map_servers[0].key == Key(1, b"s", Algorithm.HMAC_SHA_1_96, "full-length")
    assert settings.keys[0].key == Key(2, b"t")


def test_the_key_keeps_its_pads_between_messages(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(SITE)
    settings = load(tmp_path / "x.toml", MapServerSettings)
    assert settings.sites[0].key is settings.sites[0].key


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("algorithm = 4", "input should be 0, 1, 2 or 3"),
        ('auth_compat = "whole"', "'rfc', 'whole-16' or 'full-length'"),
    ],
)
def test_what_we_do_not_speak_is_refused_by_name(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        site(tmp_path, line)
    assert "x.toml:7:1: sites[0]." in str(refused.value)
    assert told in str(refused.value)
