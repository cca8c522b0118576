"""The Map-Server's benchmarks of answers and publications run, lose nothing, and say what they ran with."""

from __future__ import annotations

import pytest

from tests.bench import answering, publishing


def test_every_question_is_answered_and_the_limits_are_told() -> None:
    figures = answering.run(rounds=1, count=2000)
    assert figures["lost"] == 0
    assert figures["limits"] == answering.LIMITS
    assert {"rate", "cpu_us"} <= set(figures)


def test_every_subscriber_hears_of_the_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "SUBSCRIBERS", 100)
    figures = publishing.run(rounds=2)
    assert figures["subscribers"] == 100
    assert {"last_ms", "worst_ms"} <= set(figures)
