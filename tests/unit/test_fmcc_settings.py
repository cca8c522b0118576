"""A wrong controller or agent configuration says file, line, what, why and what to do; a right one becomes a world."""

from __future__ import annotations

from pathlib import Path

import pytest

from fmcc.daemon import load
from fmcc.hypervisor.agent import load as load_agent
from lispfmc.runtime.config import ConfigError
from lispfmc.wire.address import Prefix

GOOD = """\
mode = "act"
policy = "nearest"
rlocs = ["198.18.0.2", "2001:2::2"]
ranges = ["100.64.1.0/24", "100.64.101.0/24"]
[map_server]
address = "198.18.0.1"
key_id = 4
secret = "pubsub"
[[sites]]
name = "access1"
kind = "access"
rlocs = ["198.18.0.11"]
[[sites]]
name = "dc1"
kind = "datacenter"
rlocs = ["198.18.0.21"]
agent = "198.18.0.21:9350"
agent_token = "token"
key_id = 3
secret = "dc1"
capacity = 10
[[rtts]]
a = "access1"
b = "dc1"
ms = 12
[[users]]
name = "alice"
eids = ["100.64.1.10/32"]
[[services]]
name = "app"
user = "alice"
eids = ["100.64.101.10/32"]
datacenter = "dc1"
"""
TOKEN = 'name = "me"\ntoken = "the same token as another"'
AGENT = """\
name = "hypervisor-dc1"
datacenter = "dc1"
listen = "198.18.0.21:9350"
token = "token"
[[machines]]
name = "app"
node_socket = "/run/app.sock"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "daemon.toml"
    path.write_text(text)
    return path


def test_a_right_configuration_becomes_a_world(tmp_path: Path) -> None:
    world = load(written(tmp_path, GOOD)).world()
    assert world.acts
    assert world.rtt_ms("dc1", "access1") == 12
    assert world.rtt_ms("dc1", "dc1") == 0
    assert world.services["app"].allowed == ("dc1",)
    assert world.datacenters["dc1"].capacity == 10
    assert len(world.xtr_id) == 16


def test_a_fresh_configuration_only_observes(tmp_path: Path) -> None:
    assert not load(written(tmp_path, GOOD.replace('mode = "act"\n', ""))).world().acts


def test_everything_lies_in_the_configured_instance(tmp_path: Path) -> None:
    world = load(written(tmp_path, "instance_id = 7\n" + GOOD)).world()
    assert world.users["alice"].eids == (Prefix.parse("[7]100.64.1.10/32"),)
    assert all(prefix.iid == 7 for prefix in world.ranges)


@pytest.mark.parametrize(
    ("good", "bad", "line", "says"),
    [
        ('policy = "nearest"', 'policy = "fastest"', 2, "no policy 'fastest'"),
        ('policy = "nearest"', 'policy = "threshold:far"', 2, "write threshold:3, for example"),
        ('datacenter = "dc1"\n', 'datacenter = "dc1"\nservice_class = "film"\n', 34, "no service class 'film'"),
        ("capacity = 10\n", "capacity = 10\n[model]\nthr = 0\n", 23, "greater than or equal to 1"),
        (
            "[[rtts]]",
            '[[service_classes]]\nname = "film"\nlatency_curve = [[0, 0], [0, 1]]\n[[rtts]]',
            24,
            "milliseconds must rise",
        ),
        (
            "[[rtts]]",
            '[[service_classes]]\nname = "film"\npolicy = "quick"\n[[rtts]]',
            24,
            "no policy 'quick'",
        ),
        ('rlocs = ["198.18.0.2", "2001:2::2"]', 'rlocs = ["2001:2::2"]', 3, "Map-Server's family"),
        ('agent_token = "token"\n', "", 14, "lacks agent_token"),
        ('b = "dc1"', 'b = "dc7"', 24, "no site 'dc7'"),
        ('eids = ["100.64.1.10/32"]', 'eids = ["100.64.1.0/24"]', 28, "no single address"),
        ('eids = ["100.64.1.10/32"]', 'eids = ["10.0.0.1/32"]', 28, "no subscribed range"),
        ('eids = ["100.64.101.10/32"]', 'eids = ["100.64.1.10/32"]', 32, "belongs to alice"),
        ('user = "alice"', 'user = "bob"', 31, "no user 'bob'"),
        ('datacenter = "dc1"', 'datacenter = "access1"', 33, "no data centre 'access1'"),
        ("ms = 12", "ms = -1", 25, "greater than or equal to 0"),
        ("capacity = 10", "capacities = 10", 21, "unknown key"),
        ('rlocs = ["198.18.0.21"]', "", 14, "has neither rlocs nor prefix"),
        ("[[rtts]]", '[api]\ncertificate = "a.pem"\n[[rtts]]', 23, "certificate without key"),
        (
            "[[rtts]]",
            '[api]\nlisten = "unix:/a"\ncertificate = "a.pem"\nkey = "a.key"\n[[rtts]]',
            23,
            "a unix socket speaks no TLS",
        ),
        ("[[rtts]]", '[[api.tokens]]\nname = "me"\ntoken = "short"\n[[rtts]]', 24, "api.tokens[0].token"),
        ("[[rtts]]", f"[[api.tokens]]\n{TOKEN}\n[[api.tokens]]\n{TOKEN}\n[[rtts]]", 27, "this token is there twice"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, good: str, bad: str, line: int, says: str) -> None:
    assert good in GOOD
    path = written(tmp_path, GOOD.replace(good, bad))
    with pytest.raises(ConfigError) as error:
        load(path)
    assert says in str(error.value)
    assert str(error.value).startswith(f"{path}:{line}:")


def test_an_agent_that_is_its_own_peer_is_refused(tmp_path: Path) -> None:
    peer = '[[peers]]\ndatacenter = "dc1"\naddress = "198.18.0.21:9350"\ntoken = "token"\n'
    with pytest.raises(ConfigError, match="this data centre, no peer"):
        load_agent(written(tmp_path, AGENT + peer))


def test_an_agents_machines_have_defaults(tmp_path: Path) -> None:
    machine = load_agent(written(tmp_path, AGENT)).emulated_machines()["app"]
    assert (machine.copy_s, machine.pause_ms) == (5.0, 60.0)
