"""Two hypervisor agents move an emulated machine, or leave it where it is."""

from __future__ import annotations

import pytest

from lispfmc.runtime.client import ApiClient, ApiError
from tests.integration.agent_pair import BODY, MakePair, refusal

pytestmark = pytest.mark.asyncio


async def test_a_machine_is_copied_stopped_and_resumed_at_the_other_data_centre(make_pair: MakePair) -> None:
    pair = await make_pair(pause_ms=200.0)
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    stopped = await pair.until("dc1", "stopped")
    assert pair.node.process_state() == "T"
    resumed = await pair.until("dc2", "resumed")
    completed = await pair.until("dc1", "completed")
    assert pair.node.site == "dc2"
    assert pair.node.process_state() != "T"
    blackout_ms = (resumed["monotonic_ns"] - stopped["monotonic_ns"]) / 1e6
    assert 200 <= blackout_ms < 300
    assert completed["monotonic_ns"] >= resumed["monotonic_ns"]
    for fields in (stopped, resumed, completed):
        assert fields["emulated"] is True
        assert fields["driver"] == "emulated"
        assert fields["move"] == "m1"
    events = pair.agents["dc1"].api._events.since(0)
    percents = [event.fields["percent"] for event in events if event.name == "hypervisor.progress"]
    assert percents[0] == 0.0
    assert percents[-1] == 100.0
    assert percents == sorted(percents)  # type: ignore[type-var]


async def test_events_are_resumed_by_id_without_loss_or_repetition(make_pair: MakePair) -> None:
    pair = await make_pair()
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    first = await anext(pair.clients["dc1"].events(0))
    await pair.until("dc1", "completed")
    rest = []
    async for event in pair.clients["dc1"].events(first["id"]):
        rest.append(event["id"])
        if event["name"] == "hypervisor.completed":
            break
    assert rest == list(range(first["id"] + 1, first["id"] + 1 + len(rest)))


@pytest.mark.parametrize("path", ["/v1/migrations", "/v1/migrations/prepare", "/v1/migrations/abort", "/v1/incoming"])
@pytest.mark.parametrize("token", [None, "token-dc2", "token-dc", "token-dc1x"])
async def test_without_its_token_an_agent_does_nothing(make_pair: MakePair, path: str, token: str | None) -> None:
    pair = await make_pair()
    async with ApiClient(str(pair.settings["dc1"].listen), token=token) as stranger:
        assert (await refusal(stranger.post(path, BODY))).status == 401
        with pytest.raises(ApiError):
            await anext(stranger.events(0))


async def test_what_is_unknown_elsewhere_or_unprepared_is_refused(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=5.0)
    dc1, dc2 = pair.clients["dc1"], pair.clients["dc2"]
    assert (await refusal(dc1.post("/v1/migrations/prepare", BODY | {"machine": "none"}))).status == 404
    assert (await refusal(dc1.post("/v1/migrations/prepare", BODY | {"from": "dc8", "to": "dc9"}))).status == 400
    assert (await refusal(dc1.post("/v1/migrations/prepare", {"move": 1}))).status == 400
    backwards = BODY | {"from": "dc2", "to": "dc1"}
    assert "here already" in (await refusal(dc1.post("/v1/migrations/prepare", backwards))).why
    assert "not here" in (await refusal(dc2.post("/v1/migrations/prepare", backwards))).why
    assert "prepared" in (await refusal(dc1.post("/v1/migrations", BODY))).why
    assert (await refusal(dc1.post("/v1/migrations/prepare", BODY))).status == 409, "the target is not prepared"
    await pair.prepare()
    await pair.prepare()  # again is no error
    other = BODY | {"move": "m2"}
    assert (await refusal(dc2.post("/v1/migrations/prepare", other))).status == 409
    await dc1.post("/v1/migrations", BODY)
    await dc1.post("/v1/migrations", BODY)  # a controller that was restarted asks again
    assert pair.node.site == "dc1"


async def test_an_abort_before_the_stop_leaves_the_machine_and_frees_both_ends(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=5.0)
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    for name in ("dc1", "dc2"):
        await pair.clients[name].post("/v1/migrations/abort", {"move": "m1"})
    assert "aborted" in (await pair.until("dc1", "failed"))["reason"]
    assert (pair.node.site, pair.node.frozen) == ("dc1", False)
    for name in ("dc2", "dc1"):
        await pair.clients[name].post("/v1/migrations/prepare", BODY | {"move": "m2"})


async def test_an_abort_after_the_stop_is_too_late(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=0.0, pause_ms=500.0)
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    await pair.until("dc1", "stopped")
    for name in ("dc1", "dc2"):
        assert (await refusal(pair.clients[name].post("/v1/migrations/abort", {"move": "m1"}))).status == 409
    await pair.until("dc1", "completed")
    assert pair.node.site == "dc2"


async def test_a_target_that_dies_during_the_copy_costs_no_downtime(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=0.5)
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    await pair.stop("dc2")
    failed = await pair.until("dc1", "failed")
    assert "reach" in failed["reason"]
    events = pair.agents["dc1"].api._events.since(0)
    assert "hypervisor.stopped" not in [event.name for event in events]
    assert (pair.node.site, pair.node.frozen) == ("dc1", False)


async def test_a_machine_that_cannot_resume_at_the_target_resumes_at_the_source(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=0.0)
    pair.node.refuses_thaw_at = "dc2"
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    failed = await pair.until("dc1", "failed")
    assert "resumed at dc1 again" in failed["reason"]
    assert "cannot thaw" in failed["reason"]
    assert (pair.node.site, pair.node.frozen) == ("dc1", False)
    assert pair.node.process_state() != "T"


async def test_a_source_agent_that_is_stopped_in_mid_move_leaves_the_machine_running(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=0.0, pause_ms=2000.0)
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    await pair.until("dc1", "stopped")
    await pair.stop("dc1")
    assert pair.node.process_state() != "T"
    assert pair.node.site in {"dc1", "dc2"}
