"""The reference pages are made from the code: they are up to date, and every key and command says what it means."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from lispfmc.cli import reference
from lispfmc.cli.check import KINDS
from lispfmc.cli.commands import commands
from lispfmc.cli.keys import Key, Table, tables
from lispfmc.runtime.config import PrefixField, Settings, SharedKey

ROOT = Path(__file__).resolve().parents[2]


class Row(SharedKey):
    """A row with a key."""

    key_id: int = Field(default=7, ge=0, le=255)
    range: PrefixField


class File(Settings):
    """The whole file."""

    name: str
    """What it is called."""
    wait_s: float = Field(default=1.5, gt=0)
    """How long to wait."""
    kind: Literal["one", "other"] = "one"
    rows: tuple[Row, ...] = ()
    only: Row | None = None


@pytest.mark.parametrize("page", reference.pages())
def test_the_reference_says_what_the_code_says(page: str) -> None:
    written = (ROOT / "docs/reference" / page).read_text(encoding="utf-8")
    assert written == reference.pages()[page], "run: make reference"


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_says_what_it_means(kind: str) -> None:
    silent = [f"{table.header} {key.name}" for table in tables(KINDS[kind]) for key in table.keys if not key.meaning]
    assert silent == []


def test_every_command_says_what_it_does() -> None:
    told = list(commands())
    assert len(told) > 20
    assert [each.name for each in told if not each.help] == []


def test_keys_have_kind_bounds_default_and_unit() -> None:
    whole = next(iter(tables(File)))
    assert whole.keys == [
        Key("name", "text", "required", "", "What it is called."),
        Key("wait_s", "number, > 0", "`1.5`", "s", "How long to wait."),
        Key("kind", '`"one"`, `"other"`', '`"one"`', "", ""),
    ]


def test_tables_follow_the_file_that_they_are_in_and_inherit_what_keys_mean() -> None:
    _, rows, only = tables(File)
    assert [rows.header, only.header] == ["[[rows]]", "[only]"]
    by_name = {key.name: key for key in rows.keys}
    assert by_name["key_id"] == Key("key_id", "whole number, ≥ 0, ≤ 255", "`7`", "", by_name["key_id"].meaning)
    assert by_name["key_id"].meaning.startswith("Which key it is")
    assert by_name["range"].kind == "EID-Prefix"
    assert isinstance(rows, Table)
