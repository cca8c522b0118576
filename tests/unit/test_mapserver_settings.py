"""A configuration under which senders could not be told apart is refused, with the line that is at fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from lispfmc.runtime.config import ConfigError, load
from lispfmc.wire.address import Prefix, ip_of
from mapserver.settings import SITES_PER_KEY_ID, MapServerSettings

SITE = '[[sites]]\nname = "{name}"\nkey_id = {key_id}\nsecret = "{secret}"\n{more}\n'


def write(folder: Path, *sites: str) -> Path:
    path = folder / "mapserver.toml"
    path.write_text('name = "mapserver"\nlisten = ["198.18.0.1"]\n' + "".join(sites))
    return path


def site(name: str, secret: str, key_id: int = 1, more: str = "") -> str:
    return SITE.format(name=name, secret=secret, key_id=key_id, more=more)


@pytest.mark.parametrize(
    ("sites", "line", "why"),
    [
        ((site("a", "x"), site("a", "y")), 4, 'two sites are called "a"'),
        ((site("a", "x"), site("b", "x")), 6, "another site has the same key"),
        (
            (site("a", "x", 1, 'xtrs = ["198.18.0.11"]'), site("b", "y", 2, 'xtrs = ["198.18.0.11"]')),
            12,
            "another site's xTR",
        ),
        ((site("a", "x", 1, 'prefixes = ["100.64.1.1/24"]'),), 7, "host bits"),
    ],
)
def test_a_contradiction_is_named_with_its_line(tmp_path: Path, sites: tuple[str, ...], line: int, why: str) -> None:
    path = write(tmp_path, *sites)
    with pytest.raises(ConfigError, match=why) as raised:
        load(path, MapServerSettings)
    assert f"{path}:{line}:" in str(raised.value)


def test_too_many_sites_on_one_key_id_would_make_a_forgery_expensive_to_refuse(tmp_path: Path) -> None:
    sites = [site(f"site{number}", f"secret{number}") for number in range(SITES_PER_KEY_ID + 1)]
    with pytest.raises(ConfigError, match="share key id 1"):
        load(write(tmp_path, *sites), MapServerSettings)
    load(write(tmp_path, *sites[:-1]), MapServerSettings)


def test_a_subscriber_has_one_address_or_several(tmp_path: Path) -> None:
    text = '[[subscribers]]\nname = "fmcc"\nkey_id = 1\nsecret = "x"\nranges = ["100.64.1.0/24"]\naddress = '
    one = load(write(tmp_path, text + '"198.18.0.2"'), MapServerSettings).subscribers[0]
    several = load(write(tmp_path, text + '["198.18.0.2", "2001:2::2"]'), MapServerSettings).subscribers[0]
    assert one.address == (ip_of("198.18.0.2"),)
    assert several.address == (ip_of("198.18.0.2"), ip_of("2001:2::2"))


def test_an_instance_id_places_the_prefixes_of_a_site(tmp_path: Path) -> None:
    path = write(tmp_path, site("a", "x", 1, 'instance_id = 7\nprefixes = ["100.64.1.0/24"]'))
    [one] = load(path, MapServerSettings).sites
    assert one.placed(one.prefixes[0]) == Prefix.parse("[7]100.64.1.0/24")
