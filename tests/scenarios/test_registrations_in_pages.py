"""The table of registrations as the API gives it: a page at a time, of a prefix, a site, an xTR, each row once."""

from __future__ import annotations

import pytest

from lispfmc.runtime.http import Refused
from mapserver.views import registrations
from tests.scenarios.mapserver_world import ALICE, World, Xtr

HOSTS = [f"100.64.1.{number}/32" for number in range(20, 27)]
HOSTS6 = [f"fd00:0:0:1::{number}/128" for number in range(3)]


@pytest.fixture
def world() -> World:
    world = World()
    home, away = Xtr(world, "access1"), Xtr(world, "access2")
    home.registers(home.home, home.home6, *HOSTS, *HOSTS6, "[7]100.64.1.21/32")
    away.registers(ALICE)
    return world


def listed(world: World, limit: int = 2, **query: str) -> list[str]:
    """The rows of all pages."""
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = registrations(world.server, {"limit": str(limit), **query, **after}, world.now)
        found += [f"[{each['iid']}]{each['eid']}" if each["iid"] else each["eid"] for each in page["items"]]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("eid", "expected"),
    [
        ("0.0.0.0/0", ["100.64.1.0/24", ALICE, *HOSTS]),
        ("100.64.1.0/24", ["100.64.1.0/24", ALICE, *HOSTS]),
        ("100.64.1.20/31", ["100.64.1.0/24", *HOSTS[:2]]),
        ("100.64.1.99/32", ["100.64.1.0/24"]),
        (ALICE, [ALICE]),
        ("::/0", ["fd00:0:0:1::/64", "fd00:0:0:1::/128", *HOSTS6[1:]]),
        ("fd00:0:0:1::2/127", ["fd00:0:0:1::/64", HOSTS6[2]]),
        ("[7]100.64.1.0/24", ["[7]100.64.1.21/32"]),
        ("192.0.2.0/24", []),
    ],
)
def test_a_prefix_shows_what_answers_for_it_and_what_is_within(
    world: World, limit: int, eid: str, expected: list[str]
) -> None:
    assert listed(world, limit, eid=eid) == expected


def test_a_site_and_an_xtr_choose_too(world: World) -> None:
    assert listed(world, site="access2") == [ALICE]
    assert listed(world, xtr=b"access2".ljust(16, b".").hex()) == [ALICE]
    assert listed(world, xtr=bytes(16).hex()) == []
    assert listed(world, site="access2", xtr=b"access1".ljust(16, b".").hex()) == []
    assert len(listed(world)) == len({*listed(world)}) == 14


@pytest.mark.parametrize("query", [{"eid": "nonsense"}, {"after": "1.2.3.4/99"}, {"limit": "0"}, {"xtr": "abc"}])
def test_what_makes_no_sense_is_refused_with_what_to_do(world: World, query: dict[str, str]) -> None:
    with pytest.raises(Refused, match=next(iter(query.values()))):
        registrations(world.server, query, world.now)
