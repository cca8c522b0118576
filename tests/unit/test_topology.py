"""Topology files: what ships is whole, and every mistake is named with its line, what to do about it included."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from pydantic import BaseModel

from fmcc.hypervisor.settings import AgentSettings
from fmcc.settings import FmccSettings
from lispfmc.lab import netem
from lispfmc.lab.configs import Choices, Keys, daemon_plans, write_config
from lispfmc.lab.toml_text import toml_text
from lispfmc.lab.topology import SHIPPED, load_topology, shipped
from lispfmc.runtime.config import ConfigError, load
from lispfmc.wire.address import ip_of
from lispfmc.wire.errors import LocalError
from mapserver.settings import MapServerSettings
from xtr.settings import XtrSettings

FIG5 = (SHIPPED / "fig5.toml").read_text()
SETTINGS: dict[str, type[BaseModel]] = {
    "xtr": XtrSettings,
    "mapserver": MapServerSettings,
    "fmcc": FmccSettings,
    "agent": AgentSettings,
}

Refused = Callable[[str, str], str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Replace one text of fig5 and give back what the loader says, checked to name the line of the change."""

    def change(old: str, new: str) -> str:
        assert FIG5.count(old) >= 1, old
        path = tmp_path / "net.toml"
        path.write_text(FIG5.replace(old, new, 1))
        with pytest.raises(ConfigError) as caught:
            load_topology(str(path))
        text = str(caught.value)
        assert text.startswith(f"{path}:")
        return text.removeprefix(f"{path}:")

    return change


def at(text: str, below: int = 0) -> str:
    """How a message about the line of fig5 that holds `text` begins."""
    return f"{FIG5[: FIG5.index(text)].count(chr(10)) + 1 + below}:"


def test_shipped_topologies_are_valid_and_have_every_pair() -> None:
    assert shipped() == ["fig5", "metro", "mobiscud"]
    for name in shipped():
        topology = load_topology(name)
        for one, other in combinations(topology.members, 2):
            assert topology.pair(one, other).rtt_ms > 0


def test_fig5_has_the_round_trips_of_the_papers() -> None:
    topology = load_topology("fig5")
    stated = {
        ("access1", "dc1"): 12,
        ("access2", "dc1"): 250,
        ("access2", "dc2"): 3,
        ("dc1", "dc2"): 10,
        ("fmcc", "dc1"): 1,
        ("fmcc", "dc2"): 10,
    }
    assert {pair: topology.pair(*pair).rtt_ms for pair in stated} == stated


def test_in_metro_only_the_controller_is_far() -> None:
    topology = load_topology("metro")
    for one, other in combinations(topology.members, 2):
        rtt = topology.pair(one, other).rtt_ms
        assert rtt == 50 if "fmcc" in (one, other) else rtt <= 10


def test_a_user_starts_where_the_nearest_data_centre_is_its_services() -> None:
    for name in shipped():
        topology = load_topology(name)
        for service in topology.services:
            (user,) = (user for user in topology.users if user.name == service.user)
            nearest = min(topology.datacenters, key=lambda dc: topology.pair(user.start, dc.name).rtt_ms)
            assert nearest.name == service.start, "the FMCC would move it as soon as the lab is up"


def test_a_missing_pair_is_named(refused: Refused) -> None:
    text = refused('  { between = ["dc1", "dc2"], rtt_ms = 10 },\n', "")
    assert "no RTT for dc1-dc2" in text
    assert text.startswith(at("pairs = ["))


def test_a_pair_with_an_unknown_member_is_refused_at_its_line(refused: Refused) -> None:
    text = refused('["dc1", "dc2"]', '["dc1", "dc3"]')
    assert '"dc3" is no member of the WAN' in text
    assert text.startswith((at("pairs = ["), at('["dc1", "dc2"]')))


def test_a_pair_given_twice_is_refused(refused: Refused) -> None:
    assert "given twice" in refused('["fmcc", "dc2"]', '["dc2", "dc1"]')


def test_an_unknown_key_is_refused_with_the_nearest_known_one(refused: Refused) -> None:
    text = refused('kind = "datacenter"', 'kind = "datacenter"\nrloc = "198.18.0.21"')
    assert 'unknown key "rloc"' in text
    assert '"rlocs"' in text
    assert text.startswith(at('kind = "datacenter"', below=1))


@pytest.mark.parametrize(
    ("old", "new", "why", "where"),
    [
        ('"100.64.2.0/24"', '"10.1.0.0/24"', "10.1.0.0/24 is outside eid_ranges", '"100.64.2.0/24"'),
        ('"100.64.2.0/24"', '"100.64.1.128/25"', "overlaps 100.64.1.0/24 of access1", '"100.64.2.0/24"'),
        ('"198.18.0.12"', '"198.18.0.11"', "198.18.0.11 is given twice", '"198.18.0.12"'),
        ('"198.18.0.12"', '"198.19.0.12"', "outside the WAN's prefixes", '"198.18.0.12"'),
        ('"198.18.0.12"', '"198.18.0.254"', "198.18.0.254 is given twice", '"198.18.0.12"'),
        ('"100.64.1.10"', '"100.64.2.10"', "outside 100.64.1.0/24", '"100.64.1.10"'),
        ('"100.64.101.20"', '"100.64.101.10"', "100.64.101.10 is given twice", '"100.64.101.20"'),
        ('home = "access2"', 'home = "dc2"', '"dc2" is not an access site', 'home = "access2"'),
        ('start = "dc1"', 'start = "access1"', '"access1" is not a data centre', 'start = "dc1"'),
        ('start = "access1"', 'start = "nowhere"', '"nowhere" is not an access site', 'start = "access1"'),
        ('user = "bob"', 'user = "carol"', 'no user "carol"', 'user = "bob"'),
        ('name = "bob"', 'name = "alice"', 'the name "alice" is taken', 'name = "bob"'),
        ('name = "dc2"', 'name = "Data Centre 2"', "Data Centre 2", 'name = "dc2"'),
        ("rtt_ms = 250", "rtt_ms = -1", "-1", "rtt_ms = 250"),
        ("copy_s = 5.0", 'copy_s = "long"', "long", "copy_s = 5.0"),
    ],
)
def test_a_mistake_is_named_with_its_line(refused: Refused, old: str, new: str, why: str, where: str) -> None:
    text = refused(old, new)
    assert why in text
    assert text.startswith(at(where))
    assert ";" in text, "says what to do"


def test_an_unknown_topology_names_those_that_ship() -> None:
    with pytest.raises(LocalError, match="fig5, metro, mobiscud"):
        load_topology("fig6")


@pytest.mark.parametrize("ipv6_rlocs", [True, False])
@pytest.mark.parametrize("name", ["fig5", "metro"])
def test_every_daemon_accepts_the_configuration_that_the_lab_writes(
    tmp_path: Path, name: str, ipv6_rlocs: bool
) -> None:
    plans = daemon_plans(load_topology(name), Keys(tmp_path), Choices(tmp_path, ipv6_rlocs=ipv6_rlocs))
    assert sorted(plan.role for plan in plans) == ["agent"] * 2 + ["fmcc", "mapserver"] + ["xtr"] * 4
    for plan in plans:
        path = write_config(plan, tmp_path)
        assert path.stat().st_mode & 0o777 == 0o600, "it holds secrets"
        load(path, SETTINGS[plan.role])


def test_routers_that_subscribe_and_the_map_server_agree_on_the_keys(tmp_path: Path) -> None:
    topology = load_topology("fig5").model_copy(update={"subscribe": True})
    configs = {plan.name: plan for plan in daemon_plans(topology, Keys(tmp_path), Choices(tmp_path))}
    for plan in configs.values():
        load(write_config(plan, tmp_path), SETTINGS[plan.role])
    told = {row["name"]: row["secret"] for row in configs["mapserver"].config["subscribers"]}
    for site in topology.sites:
        assert configs[site.name].config["map_servers"][0]["subscription"]["secret"] == told[site.name]
    assert len(set(told.values())) == len(told)


def test_the_plane_is_the_topologys_unless_it_is_chosen(tmp_path: Path) -> None:
    topology = load_topology("fig5").model_copy(update={"dataplane": "ebpf"})
    for chosen, expected in (("", "ebpf"), ("tun", "tun")):
        plans = daemon_plans(topology, Keys(tmp_path), Choices(tmp_path, dataplane=chosen))
        assert {plan.config["dataplane"]["kind"] for plan in plans if plan.role == "xtr"} == {expected}


def test_both_ends_of_a_relation_get_the_same_secret_and_no_two_relations_share_one(tmp_path: Path) -> None:
    topology = load_topology("fig5")
    configs = {plan.name: plan.config for plan in daemon_plans(topology, Keys(tmp_path), Choices(tmp_path))}
    mapserver_keys = {site["name"]: site["secret"] for site in configs["mapserver"]["sites"]}
    for site in topology.sites:
        assert configs[site.name]["map_servers"][0]["secret"] == mapserver_keys[site.name]
    one = {key["peer"]: key["secret"] for key in configs["dc1"]["keys"]}
    other = {key["peer"]: key["secret"] for key in configs["dc2"]["keys"]}
    assert one["198.18.0.22"] == other["198.18.0.21"]
    assert len({*mapserver_keys.values(), *one.values()}) == len(mapserver_keys) + len(one) // 2
    assert Keys(tmp_path).secret("a", "b") == Keys(tmp_path).secret("b", "a")


def test_a_socket_path_that_linux_would_refuse_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="LISPFMC_RUN"):
        Choices(tmp_path / ("x" * 120)).socket("access1")


def test_toml_text_is_read_back_as_it_was() -> None:
    values = {
        "name": 'quote " backslash \\ ünï',
        "count": 3,
        "share": 0.5,
        "on": True,
        "none": [],
        "list": ["a", "b"],
        "table": {"x": 1, "inner": {"y": [1, 2]}},
        "rows": [{"a": 1}, {"a": 2, "more": [{"b": "c"}]}],
    }
    assert tomllib.loads(toml_text(values)) == values


def test_netem_delays_each_direction_by_half_and_finds_sources_of_both_families(tmp_path: Path) -> None:
    topology = load_topology("fig5")
    lines = netem.commands(topology, Choices(tmp_path))
    to_dc1 = [line for line in lines if " dev dc1 " in line]
    from_access2 = next(line for line in to_dc1 if "delay 125ms" in line)
    number = from_access2.split("parent 1:")[1].split()[0]
    sources = {line.split(" src ")[1].split()[0] for line in to_dc1 if line.endswith(f"flowid 1:{number}")}
    assert sources == {"198.18.0.12/32", "2001:2::12/128"}
    assert sum("netem" in line for line in lines) == 6 * 5
    assert ip_of("198.18.0.12") in topology.members["access2"]
