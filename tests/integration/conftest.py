"""Fixtures of several files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.integration.agent_pair import MakePair, Pair, emulated_pair


@pytest_asyncio.fixture
async def make_pair(tmp_path: Path) -> AsyncIterator[MakePair]:
    """Pairs of agents with the emulated driver."""
    made: list[Pair] = []

    async def make(*, copy_s: float = 0.6, pause_ms: float = 60.0) -> Pair:
        made.append(emulated_pair(tmp_path, copy_s=copy_s, pause_ms=pause_ms))
        await made[-1].start()
        return made[-1]

    yield make
    for pair in made:
        await pair.close()
