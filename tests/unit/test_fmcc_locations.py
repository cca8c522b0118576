"""Who is where, from published records alone."""

from __future__ import annotations

import msgspec

from fmcc.locations import (
    APART_S,
    Learned,
    Locations,
    Nothing,
    ServicePublished,
    SiteLocated,
    UserApart,
    UserMoved,
    VersionPublished,
)
from fmcc.world import DataCenter, Service, User, World
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import EidRecord, Locator

SITES: dict[str, tuple[bytes, ...]] = {name: (ip_of(f"198.18.0.{last}"), ip_of(f"2001:2::{last}")) for name, last in
         {"access1": 11, "access2": 12, "dc1": 21, "dc2": 22}.items()}  # fmt: skip
ALICE4, ALICE6 = Prefix.parse("100.64.1.10/32"), Prefix.parse("fd00:0:0:1::10/128")
APP4, APP6 = Prefix.parse("100.64.101.10/32"), Prefix.parse("fd00:0:0:101::10/128")
WORLD = World(
    rlocs=(ip_of("198.18.0.2"),),
    xtr_id=bytes(16),
    map_server=Endpoint(ip_of("198.18.0.1"), 4342),
    map_server_key=Key(4, b"pubsub"),
    sites=SITES,
    datacenters={name: DataCenter(name, Key(3, name.encode())) for name in ("dc1", "dc2")},
    users={"alice": User("alice", (ALICE4, ALICE6))},
    services={"app": Service("app", "alice", (APP4, APP6), "dc1", ("dc1", "dc2"))},
    ranges=(Prefix.parse("100.64.1.0/24"),),
    rtts_ms={},
)


class Story:
    def __init__(self) -> None:
        self.locations = Locations(WORLD)
        self.now = 0.0

    def published(self, eid: Prefix, *sites: str, version: int = 0, ttl_minutes: int = 1440) -> Learned:
        self.now += 1.0
        locators = [Locator.of(SITES[site][0], priority=1 + index) for index, site in enumerate(sites)]
        record = EidRecord.of(eid, locators, ttl_minutes=ttl_minutes, map_version=version)
        return self.locations.learn(record, self.now)

    @property
    def alice(self) -> str | None:
        return self.locations.user("alice").site


def test_a_user_is_where_its_host_route_leads() -> None:
    story = Story()
    assert story.published(ALICE4, "access1") == UserMoved("alice", ALICE4, None, "access1")
    assert story.published(ALICE4, "access2") == UserMoved("alice", ALICE4, "access1", "access2")
    assert story.locations.user("alice").since == 2.0


def test_a_move_is_told_once_whichever_address_family_is_published_first() -> None:
    story = Story()
    story.published(ALICE4, "access1")
    assert story.published(ALICE6, "access1") == Nothing()
    assert isinstance(story.published(ALICE6, "access2"), UserMoved)
    assert story.published(ALICE4, "access2") == Nothing()


def test_an_old_mapping_repeated_does_not_move_the_user_back() -> None:
    story = Story()
    story.published(ALICE4, "access1")
    story.published(ALICE6, "access1")
    story.published(ALICE6, "access2")
    assert story.published(ALICE4, "access1") == Nothing()
    assert story.alice == "access2"


def test_the_home_prefix_says_nothing_about_where_a_user_is() -> None:
    story = Story()
    story.published(ALICE4, "access2")
    assert story.published(Prefix.parse("100.64.1.0/24"), "access1") == Nothing()
    assert story.alice == "access2"


def test_a_user_vanishes_with_its_last_address() -> None:
    story = Story()
    story.published(ALICE4, "access1")
    story.published(ALICE6, "access1")
    assert story.published(ALICE4, ttl_minutes=0) == Nothing()
    assert story.published(ALICE6, ttl_minutes=0) == UserMoved("alice", ALICE6, "access1", None)


def test_the_most_preferred_locator_of_a_known_site_counts() -> None:
    story = Story()
    record = EidRecord.of(
        ALICE4,
        [
            Locator.of(SITES["access1"][0], priority=255),  # must not be used
            Locator.of(SITES["dc1"][0], priority=3),
            Locator.of(SITES["access2"][1], priority=2),
            Locator.of(ip_of("203.0.113.1"), priority=1),  # no site of ours
        ],
        ttl_minutes=1440,
    )
    story.locations.learn(record, 1.0)
    assert story.alice == "access2"


def test_a_service_counts_as_published_when_every_address_is_at_one_place() -> None:
    story = Story()
    assert story.published(APP4, "dc1") == VersionPublished("app", 0)
    assert story.published(APP6, "dc1") == ServicePublished("app", "dc1", 0)
    assert story.published(APP4, "dc2", version=1) == VersionPublished("app", 1)
    assert story.published(APP6, "dc2", version=1) == ServicePublished("app", "dc2", 1)


def test_versions_that_differ_between_address_families_give_the_newest_and_say_so() -> None:
    story = Story()
    story.published(APP4, "dc1", version=4095)
    assert story.published(APP6, "dc1", version=1) == ServicePublished("app", "dc1", 1, agreed=False)
    assert story.published(APP4, "dc1", version=0) == ServicePublished("app", "dc1", 1, agreed=False)
    assert story.published(APP4, "dc1", version=1) == ServicePublished("app", "dc1", 1)


def test_a_user_that_stays_at_two_places_is_told_of_once_until_it_moves() -> None:
    story = Story()
    story.published(ALICE4, "access1")
    story.published(ALICE6, "access1")
    story.published(ALICE4, "access2")
    assert story.published(ALICE6, "access1") == Nothing(), "the other half of the move may be on its way"
    story.now += APART_S
    assert story.published(ALICE6, "access1") == UserApart("alice", "access2", ("access1", "access2"))
    assert story.published(ALICE6, "access1") == Nothing()
    assert story.alice == "access2"
    assert story.published(ALICE6, "access2") == Nothing()
    story.published(ALICE4, "access1")
    story.now += APART_S
    assert isinstance(story.published(ALICE6, "access2"), UserApart)


def test_a_site_without_rlocs_is_where_the_mapping_system_has_its_prefix() -> None:
    sites = {**SITES, "dc2": ()}
    own = Prefix.parse("100.64.102.0/24")
    world = msgspec.structs.replace(WORLD, sites=sites, site_prefixes={own: "dc2"})
    locations = Locations(world)
    assert locations.knows(own)
    rlocs = SITES["dc2"]
    record = EidRecord.of(own, [Locator.of(rloc, priority=2 - n) for n, rloc in enumerate(rlocs)], ttl_minutes=1440)
    assert locations.learn(record, 1.0) == SiteLocated("dc2", rlocs[::-1])
    assert (world.sites["dc2"], locations.site_at(rlocs[0])) == (rlocs[::-1], "dc2")
    assert locations.learn(record, 2.0) == Nothing()
    gone = EidRecord.of(own, [], ttl_minutes=0)
    assert locations.learn(gone, 3.0) == Nothing(), "it is reached where it was last"
    assert world.sites["dc2"] == rlocs[::-1]


def test_a_service_without_a_user_is_known_and_follows_nobody() -> None:
    lone = Service("lone", "", (Prefix.parse("100.64.101.99/32"),), "dc1", ("dc1", "dc2"))
    world = msgspec.structs.replace(WORLD, services={"lone": lone})
    assert world.services_of("") == ()
    record = EidRecord.of(lone.eids[0], [Locator.of(SITES["dc2"][0])], ttl_minutes=1440, map_version=3)
    assert Locations(world).learn(record, 1.0) == ServicePublished("lone", "dc2", 3)


def test_strangers_leave_no_trace() -> None:
    story = Story()
    assert story.published(Prefix.parse("100.64.1.99/32"), "access1") == Nothing()
    assert not story.locations.knows(Prefix.parse("100.64.1.99/32"))
