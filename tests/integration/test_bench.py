"""The benchmarks run and say what they promise to say. How fast anything is, is no test's business."""

from __future__ import annotations

import os
import socket
import time

import pytest

from lispfmc.wire.address import Endpoint, ip_of
from tests.bench import codec, controller, dataplane, harness, load, udp
from tests.bench.harness import Call, timed


def test_variants_take_turns_and_the_slower_one_is_the_slower_one() -> None:
    turns: list[str] = []

    def work(name: str) -> None:
        if turns[-1:] != [name]:
            turns.append(name)
        sum(range(200 if name == "slow" else 1))

    timings = timed({name: Call(work, name) for name in ("slow", "fast")}, rounds=5, round_s=0.0005)
    assert turns[-10:] == ["slow", "fast"] * 5
    assert timings.us("slow") > timings.us("fast") > 0
    assert timings.ratio("slow", "fast") > 1


def test_the_codec_benchmark_has_every_key() -> None:
    messages = codec.messages(rounds=1)
    assert set(messages) == {
        *("data_header", "map_request", "map_reply", "map_register_1", "map_register_20", "map_notify", "ecm")
    }
    for figures in messages.values():
        assert set(figures) == {"parse_us", "build_us", "parse_vs_construct", "build_vs_construct"}
        assert all(value > 0 for value in figures.values())
    assert set(codec.authentication(rounds=1)) == {"verify_us"}


def test_the_controllers_benchmark_has_every_key() -> None:
    assert controller.closed_form(rounds=1) > 0
    assert controller.batched(rounds=1) > 0
    whole = controller.handovers(400)
    assert whole["prepared"] == 100, "each of them was followed"
    assert {"decision_p99_ms", "handovers_per_s", "handovers_followed_per_s", "bytes_per_user"} <= set(whole)
    for figures in controller.policies(rounds=1).values():
        assert set(figures) == {"observe_us", "decide_us"}
        assert all(value > 0 for value in figures.values())


def test_every_endpoint_answers_the_load() -> None:
    results = udp.run(rounds=1, count=300)
    assert {"protocol", "dgram", "drained", "batched"} <= set(results)
    assert all(figures["cpu_us_per_request"] > 0 for figures in results.values())


def test_a_server_that_never_answers_loses_every_request_and_the_load_ends() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        result = load.run(Endpoint(ip_of("127.0.0.1"), silent.getsockname()[1]), [b"x"], count=100, window=64)
    assert (result["received"], result["lost"]) == (0, 100)


def test_the_cpu_clock_of_another_process_is_its_own() -> None:
    sum(range(1000))
    assert abs(harness.process_cpu(os.getpid()) - time.process_time()) < 0.1


def test_the_environment_names_what_figures_depend_on() -> None:
    assert {"python", "kernel", "cpu", "cores", "load", "git", "packages"} <= set(harness.environment())


@pytest.mark.namespaces
def test_the_data_planes_are_measured_over_the_same_hops(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLOW_SECONDS", "BLAST_SECONDS", "PING_SECONDS"):
        monkeypatch.setattr(dataplane, name, 0.1)
    with dataplane.network(), dataplane.world() as world:
        for plane in ("", "tun"):
            figures = dataplane._measure(world, plane)
            assert all(each > 0 for each in figures)
        assert dataplane._miss(world, "tun")["lost"] == 0
