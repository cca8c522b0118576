"""The xTR's configuration file: what it derives, and what it refuses with a line to go to."""

from __future__ import annotations

from pathlib import Path

import pytest

from lispfmc.runtime.config import ConfigError, load
from lispfmc.wire.address import Prefix, ip_of
from xtr.settings import XtrSettings

LEAST = """
name = "access1"
rlocs = ["198.18.0.11"]
prefixes = ["100.64.1.0/24"]
[[map_servers]]
address = "198.18.0.1"
key_id = 1
secret = "k"
"""


def settings(tmp_path: Path, text: str) -> XtrSettings:
    path = tmp_path / "xtr.toml"
    path.write_text(text)
    return load(path, XtrSettings)


def test_a_short_file_is_enough(tmp_path: Path) -> None:
    read = settings(tmp_path, LEAST)
    assert read.resolver == ip_of("198.18.0.1")
    xtr_id, site_id = read.identity
    assert (len(xtr_id), site_id) == (16, bytes(8))
    assert read.identity != settings(tmp_path, LEAST.replace("access1", "access2")).identity


def test_prefixes_lie_in_the_files_instance_unless_they_name_one(tmp_path: Path) -> None:
    read = settings(tmp_path, "instance_id = 7" + LEAST)
    assert read.placed(read.prefixes[0]) == Prefix.parse("[7]100.64.1.0/24")
    assert read.placed(Prefix.parse("[9]10.0.0.0/8")).iid == 9


def test_prefixes_may_be_anywhere_in_the_eid_ranges_of_their_instance_or_without_any(tmp_path: Path) -> None:
    inside = '[dataplane]\neid_ranges = ["10.0.0.0/8", "100.64.0.0/10"]\n'
    assert settings(tmp_path, LEAST + inside).prefixes == settings(tmp_path, LEAST).prefixes
    assert settings(tmp_path, "instance_id = 7" + LEAST + inside).eid_ranges[0].iid == 7


def test_an_xtr_id_is_read_from_hex_digits(tmp_path: Path) -> None:
    assert settings(tmp_path, 'xtr_id = "000102030405060708090a0b0c0d0e0f"' + LEAST).identity[0] == bytes(range(16))


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('xtr_id = "0011"' + LEAST, 1, "32 hexadecimal digits"),
        (LEAST.replace("198.18.0.11", "198.18.0.300"), 3, "is not an IP address"),
        (LEAST.replace("100.64.1.0/24", "100.64.1.1/24"), 4, "is not an IP prefix"),
        (LEAST + 'cipher = "md5"\n', 9, 'unknown key "cipher"'),
        (LEAST + '[[keys]]\npeer = "198.18.0.1"\nid = 2\nsecret = "p"\n', 10, "has a row already"),
        (LEAST + '[site]\ninterfaces = ["lan"]\n[site.instances]\nlan7 = 7\n', 11, "none of the interfaces"),
        (
            LEAST + '[dataplane]\ndevice = "tunnel-router"\n[site]\ninterfaces = ["lan"]\ninstances = { lan = 700 }\n',
            10,
            "longer than Linux takes",
        ),
        (LEAST + '[[dynamic]]\nprefix = "100.64.2.0/24"\nmobility = "magic"\n', 11, "mobility"),
        (
            LEAST + '[dataplane]\neid_ranges = ["10.0.0.0/8", "fd00::/8"]\n',
            4,
            "outside dataplane.eid_ranges (10.0.0.0/8",
        ),
        (LEAST + '[dataplane]\nkind = "ebpf"\nmap_versioning = true\n', 9, "sends no map-versions"),
        (LEAST + "subscription = {}\n", 9, "give one of them"),
        (LEAST + "subscription = { lisp_sec = true }\n", 9, "give map_resolver a key_id and a secret"),
        (LEAST + '[dataplane]\neid_ranges = ["[7]100.64.0.0/10"]\n', 4, "would not reach the tunnel router"),
        (
            LEAST
            + '[[dynamic]]\nprefix = "100.128.0.0/9"\nmobility = "presence"\n'
            + '[dataplane]\neid_ranges = ["100.64.0.0/10"]\n',
            10,
            "choose a prefix inside, or add it there",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        settings(tmp_path, text)
    assert f"xtr.toml:{line}:" in str(refusal.value)
    assert what in str(refusal.value)


@pytest.mark.parametrize(("key", "most"), [("map_cache_entries", 196_608), ("hosts", 65_536)])
def test_no_more_is_kept_than_the_kernels_tables_hold(tmp_path: Path, key: str, most: int) -> None:
    text = LEAST.replace("[[map_servers]]", f"limits = {{ {key} = NUMBER }}\n[[map_servers]]")
    assert settings(tmp_path, text.replace("NUMBER", str(most)))
    with pytest.raises(ConfigError, match=f"less than or equal to {most}"):
        settings(tmp_path, text.replace("NUMBER", str(most + 1)))
