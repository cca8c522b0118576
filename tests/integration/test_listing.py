"""`lispfmc show registrations` of many EIDs: the real daemon and command; Map-Requests are answered meanwhile.

How fast is a benchmark's business (tests/bench/listing.py): here every row has to be there once, whatever the choice.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench import listing
from tests.bench.million import FIRST, RECORDS, XTRS

EIDS = 50_000


@pytest.fixture(scope="module")
def mapserver() -> Iterator[listing.Running]:
    with listing.running(EIDS) as running:
        yield running


def hosts(numbers: range | list[int]) -> list[str]:
    return [".".join(map(str, (FIRST + number).to_bytes(4, "big"))) + "/32" for number in numbers]


def test_every_registration_is_shown_once_and_requests_are_answered_in_between(mapserver: listing.Running) -> None:
    listed = mapserver.shows()
    assert listed.rows == hosts(range(EIDS))
    assert listed.figures["replies"] > 10, "each of them was checked"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--eid", "10.0.16.0/20"), hosts(range(4096, 8192))),
        (("--eid", "10.0.0.0/24"), hosts(range(256))),
        (("--eid", "10.0.16.7"), hosts([4103])),
        (("--eid", "10.0.0.0/8", "--limit", "777"), hosts(range(777))),
        (("--xtr", f"{42:032x}"), hosts([n for n in range(EIDS) if n // RECORDS % XTRS == 42])),
        (
            ("--eid", "10.0.0.0/16", "--xtr", f"{42:032x}", "--limit", "30"),
            hosts([*range(840, 860), *range(20840, 20850)]),
        ),
        (("--site", "nobody"), []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_choice_shows_its_part(mapserver: listing.Running, options: tuple[str, ...], expected: list[str]) -> None:
    assert mapserver.shows(*options).rows == expected
