"""Configuration mistakes come out as file:line: what, why, what to do, all at once."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from lispfmc.runtime.config import (
    ApiSettings,
    ConfigError,
    EndpointField,
    IpField,
    PrefixField,
    Settings,
    Wrong,
    load,
)
from lispfmc.runtime.toml_positions import key_places
from lispfmc.wire.address import Endpoint, Prefix, ip_of


class Server(Settings):
    address: IpField
    key_id: int = Field(ge=0, le=255)
    secret: str = Field(min_length=4)


class Example(Settings):
    name: str
    prefixes: tuple[PrefixField, ...] = ()
    mode: Literal["act", "observe"] = "act"
    agent: EndpointField | None = None
    servers: tuple[Server, ...] = Field(default=(), min_length=1)
    api: ApiSettings = ApiSettings()

    @model_validator(mode="after")
    def _two_servers_differ(self) -> Example:
        for index, server in enumerate(self.servers):
            if server.address in {other.address for other in self.servers[:index]}:
                raise Wrong("this address stands here twice; remove one", "servers", index, "address")
        return self


def problems(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, Example)
    return [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]


GOOD = """\
name = "a"  # the site
prefixes = ["100.64.1.0/24", "[7]fd00::/64"]
agent = "[2001:2::21]:9350"
[[servers]]
address = "198.18.0.1"
key_id = 1
secret = "much"
[api]
listen = "unix:/run/a.sock"
"""


def test_a_good_file_becomes_values(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(GOOD)
    settings = load(file, Example)
    assert settings.prefixes == (Prefix.parse("100.64.1.0/24"), Prefix.parse("fd00::/64", iid=7))
    assert settings.agent == Endpoint(ip_of("2001:2::21"), 9350)
    assert settings.servers[0].address == ip_of("198.18.0.1")


def test_all_mistakes_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    text = GOOD.replace("unix:", "run:").replace("key_id = 1", "key_id = 300").replace("[7]fd00::/64", "fd00::1/64")
    told = problems(tmp_path, text + 'listn = "x"\n')
    assert [line.split(": ")[0] for line in told] == ["x.toml:2:30", "x.toml:6:1", "x.toml:9:1", "x.toml:10:1"]
    assert told[0].startswith("x.toml:2:30: prefixes[1]: 'fd00::1/64' is not an IP prefix")
    assert told[1] == (
        "x.toml:6:1: servers[0].key_id = 300, input should be less than or equal to 255; correct the value"
    )
    assert told[3] == 'x.toml:10:1: unknown key "listn" in api, did you mean "listen"?'


def test_a_missing_key_is_told_at_its_table(tmp_path: Path) -> None:
    told = problems(tmp_path, GOOD.replace("key_id = 1\n", ""))
    assert told == ['x.toml:4:1: missing key "key_id" in servers[0], it has no default; add it']


def test_a_check_of_our_own_points_at_the_key_that_it_names(tmp_path: Path) -> None:
    again = '[[servers]]\nsecret = "more"\nkey_id = 2\naddress = "198.18.0.1"\n'
    told = problems(tmp_path, GOOD + again)
    assert told == ["x.toml:13:1: servers[1].address: this address stands here twice; remove one"]


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    told = problems(tmp_path, GOOD.replace('"much"', '"abc"').replace('"a"', "1"))
    assert len(told) == 2
    assert "abc" not in "".join(told)


def test_broken_syntax_and_an_absent_file_are_told_with_their_place(tmp_path: Path) -> None:
    assert problems(tmp_path, 'name = "a"\nprefixes = [\n') == [
        "x.toml:3:1: not valid TOML, invalid value; correct the syntax here"
    ]
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot read the configuration, No such file"):
        load(tmp_path / "nowhere.toml", Example)


def test_places_are_found_in_every_shape_that_toml_has() -> None:
    places = key_places(
        'a = """\n[no]\nb = 1\n"""\n'  # 1-4
        "c.d = {e = [1,\n 2], 'f g' = 3} # x = 1\n"  # 5-6
        "[[t]]\n[t.u]\nv = '#'\n[[t]]\n"  # 7-10
        'list = [\n  "x", # "y"\n  [ 1 ],\n]\n'  # 11-14
        '"q.r" = 2000-01-01T00:00:00Z\n'  # 15
    )
    expected = {
        ("a",): 1,
        ("c", "d", "e", 1): 6,
        ("c", "d", "f g"): 6,
        ("t", 0): 7,
        ("t", 0, "u", "v"): 9,
        ("t", 1, "list", 1, 0): 13,
        ("t", 1, "q.r"): 15,
    }
    assert {path: places[path].line for path in expected} == expected
    assert ("no",) not in places
    assert (places["c", "d", "f g"].column, places["t", 0, "u", "v"].column) == (6, 1)
    assert (places["t", 1, "list", 0].column, places["t", 1, "list", 1, 0].column) == (3, 5)


def _paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    return [each for key, below in inside for each in ((*path, key), *_paths(below, (*path, key)))]


PIECES = st.sampled_from(
    [
        "a{} = 1",
        "b{} = ['x', \"]\", '''\n]\n''']",
        "c{} = {{d = [], e = {{f = 'g'}}}}",
        "[h{}]",
        "[[i]] # {}",
        "[i.j{}]",
        "k{}.l = '#'",
        "\n# [[no{}]]",
    ]
)


@given(st.lists(PIECES, max_size=12))
def test_every_path_of_any_file_has_a_place(pieces: list[str]) -> None:
    text = "\n".join(piece.format(number) for number, piece in enumerate(pieces))
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # [i.j] before [[i]], for example
    places = key_places(text)
    assert set(_paths(values)) == set(places)
