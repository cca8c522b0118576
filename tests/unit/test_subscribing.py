"""Subscriptions of a tunnel router on virtual time: answered, refused, published, ended, unused."""

from __future__ import annotations

from itertools import count

import pytest

from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.wire import decode
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.messages import (
    Action,
    Ecm,
    EidRecord,
    Locator,
    MapNotify,
    MapNotifyAck,
    MapReply,
    MapRequest,
)
from xtr.effects import Forward, Hop, Install, Remove, XtrEffect
from xtr.router import Router
from xtr.settings import XtrSettings

SERVER = Endpoint(ip_of("198.18.0.1"), 4342)
DC1, DC2 = ip_of("198.18.0.21"), ip_of("198.18.0.22")
APP = Prefix.parse("100.64.101.10/32")
PUBLISHING, REGISTERING = Key(4, b"publications"), Key(1, b"registrations")


class Story:
    """A router with a Map-Server that publishes to it; `used` is what its data plane says."""

    def __init__(self, **limits: int) -> None:
        self.used: dict[Prefix, float] = {}
        settings = XtrSettings.model_validate(
            {
                "name": "access1",
                "rlocs": ["198.18.0.11"],
                "prefixes": ["100.64.1.0/24"],
                "map_servers": [
                    {
                        "address": "198.18.0.1",
                        "key_id": 1,
                        "secret": "registrations",
                        "subscription": {"key_id": 4, "secret": "publications"},
                    }
                ],
                "dynamic": [{"prefix": "100.64.0.0/16", "mobility": "presence"}],
                "timers": {"rloc_probe_s": 0},
                "limits": limits,
            }
        )
        self.core = Router(settings, count(1 << 40), count(1000), lambda _: [], used=self.used.get)

    def miss(self, now: float = 0.0, eid: Prefix = APP) -> MapRequest:
        (request,) = requests(self.core.missed(eid, now))
        return request

    def notify(self, nonce: int, now: float, *records: EidRecord, key: Key = PUBLISHING) -> list[XtrEffect]:
        datagram = sign(MapNotify.of(*records, nonce=nonce), key)
        return self.core.received(decode(datagram), datagram, SERVER, now)

    def until(self, end: float) -> list[XtrEffect]:
        found: list[XtrEffect] = []
        while (at := self.core.next_deadline()) is not None and at <= end:
            found += self.core.expired(at)
        return found


def requests(effects: list[XtrEffect]) -> list[MapRequest]:
    ecms = [effect.message for effect in effects if isinstance(effect, Send) and isinstance(effect.message, Ecm)]
    return [ecm.message for ecm in ecms if isinstance(ecm.message, MapRequest)]


def record(*rlocs: Ip, minutes: int = 1440, action: Action = Action.NO_ACTION, version: int = 0) -> EidRecord:
    locators = [Locator.of(rloc) for rloc in rlocs]
    return EidRecord.of(APP, locators, ttl_minutes=minutes, action=action, map_version=version)


def names(effects: list[XtrEffect]) -> list[str]:
    return [effect.name for effect in effects if isinstance(effect, Emit)]


def acknowledged(effects: list[XtrEffect]) -> bool:
    return any(isinstance(effect, Send) and isinstance(effect.message, MapNotifyAck) for effect in effects)


def subscribed(story: Story, now: float = 0.0) -> int:
    request = story.miss(now)
    story.notify(request.nonce, now + 0.01, record(DC1))
    return request.nonce


def test_a_miss_is_put_as_a_subscription_and_its_answer_is_the_mapping() -> None:
    story = Story()
    request = story.miss()
    assert request.records[0].notification_requested
    assert request.xtr_id is not None
    effects = story.notify(request.nonce, 0.01, record(DC1))
    assert Install(APP, Forward((Hop(DC1, 100),))) in effects
    assert acknowledged(effects)
    assert "subscription.added" in names(effects)


def test_a_publication_is_a_new_mapping_at_once_and_a_copy_of_it_is_only_acknowledged() -> None:
    story = Story()
    nonce = subscribed(story)
    effects = story.notify(nonce + 1, 1.0, record(DC2))
    assert Install(APP, Forward((Hop(DC2, 100),))) in effects
    assert "away.installed" not in names(effects), "an EID of a range of ours that was never here has not left us"
    copy = story.notify(nonce + 1, 1.2, record(DC2))
    assert acknowledged(copy)
    assert len(copy) == 1
    (late,) = story.notify(nonce, 1.3, record(DC1))
    assert isinstance(late, Reject)
    assert late.reason == "replayed-nonce"


def test_a_publication_counts_under_the_key_of_subscriptions_only() -> None:
    story = Story()
    nonce = subscribed(story)
    (refusal,) = story.notify(nonce + 1, 1.0, record(DC2), key=Key(4, b"somebody else's"))
    assert isinstance(refusal, Reject)
    assert refusal.reason == "bad-authentication"


def test_each_repetition_has_a_nonce_of_its_own_and_any_of_them_is_answered() -> None:
    story = Story()
    first = story.miss()
    again = requests(story.until(3.5))
    nonces = [first.nonce, *(request.nonce for request in again)]
    assert nonces == sorted(set(nonces))
    assert len(nonces) == 4
    assert Install(APP, Forward((Hop(DC1, 100),))) in story.notify(nonces[1], 3.6, record(DC1))
    assert requests(story.until(20.0)) == []


def test_a_map_server_without_publications_answers_plainly_and_that_is_enough() -> None:
    story = Story()
    request = story.miss()
    effects = story.core.received(MapReply.of(record(DC1), nonce=request.nonce), b"", SERVER, 0.01)
    assert Install(APP, Forward((Hop(DC1, 100),))) in effects
    assert "subscription.added" not in names(effects)


@pytest.mark.parametrize("action", [Action.DROP_POLICY_DENIED, Action.DROP_AUTH_FAILURE])
def test_a_refusal_leads_to_a_plain_question_at_once_and_to_no_more_subscriptions_for_a_while(action: Action) -> None:
    story = Story()
    refusal = MapReply.of(record(minutes=1, action=action), nonce=story.miss().nonce)
    effects = story.core.received(refusal, b"", SERVER, 0.01)
    assert "subscription.refused" in names(effects)
    (plain,) = requests(effects)
    assert not plain.records[0].notification_requested
    assert plain.xtr_id is None
    answered = story.core.received(MapReply.of(record(DC1), nonce=plain.nonce), b"", SERVER, 0.02)
    assert Install(APP, Forward((Hop(DC1, 100),))) in answered
    other = Prefix.parse("100.64.101.11/32")
    assert not story.miss(1.0, other).records[0].notification_requested
    assert story.miss(400.0, Prefix.parse("100.64.101.12/32")).records[0].notification_requested


def test_what_is_removed_from_the_mapping_system_is_forgotten() -> None:
    story = Story()
    nonce = subscribed(story)
    effects = story.notify(nonce + 1, 1.0, record(minutes=0))
    assert Remove(APP) in effects


def test_a_subscription_that_the_map_server_ends_is_made_anew() -> None:
    story = Story()
    nonce = subscribed(story)
    effects = story.notify(nonce, 5.0, record(minutes=1, action=Action.DROP_AUTH_FAILURE))
    (again,) = requests(effects)
    assert again.records[0].notification_requested
    assert again.nonce > nonce
    assert [each["state"] for each in story.core.map_cache(5.0)] == ["forward"], "meanwhile what we have is used"


def test_what_nobody_sends_to_is_unsubscribed_and_what_is_in_use_is_refreshed() -> None:
    story = Story()
    nonce = subscribed(story)
    effects: list[XtrEffect] = []
    for minute in range(20):
        story.used[APP] = minute * 60.0
        effects += story.until(minute * 60.0 + 30)
        for request in requests(effects[-1:]):
            story.notify(request.nonce, minute * 60.0 + 31, record(DC1))
    assert [request.itr_rlocs for request in requests(effects)] != []
    assert all(request.itr_rlocs == (ip_of("198.18.0.11"),) for request in requests(effects)), "refreshed only"
    effects = story.until(1200.0 + 400)
    (end,) = [request for request in requests(effects) if request.itr_rlocs == (None,)]
    assert end.records[0].notification_requested
    assert end.nonce > nonce
    assert Remove(APP) in effects
    assert "subscription.removed" in names(effects)


def test_beyond_the_limit_questions_are_plain() -> None:
    story = Story(subscriptions=1)
    subscribed(story)
    assert not story.miss(1.0, Prefix.parse("100.64.101.11/32")).records[0].notification_requested
