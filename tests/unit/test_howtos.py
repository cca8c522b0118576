"""The how-tos, the README and the tutorial name commands and options that exist, and keys that daemons take."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fmcc.settings import FmccSettings
from lispfmc.cli.commands import commands
from lispfmc.runtime.config import Settings
from mapserver.settings import MapServerSettings
from xtr.settings import XtrSettings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs/tutorial.md", *sorted((ROOT / "docs/howto").glob("*.md"))]
NAMES = ("name", "address", "prefix", "a")  # by which a row of a table is known


def blocks(page: Path, *languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def typed(page: Path) -> Iterator[list[str]]:
    """Every `lispfmc ...` that a reader of the page types, in words."""
    for block in blocks(page, "sh", "console"):
        for line in block.splitlines():
            for found in re.findall(r"(?:^|[$#!] |until |exec cli )(lispfmc [^|;<>#]*)", line):
                yield shlex.split(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    known = {
        each.path: {name for option in each.options for name in re.findall(r"--?[\w-]+", option.name)}
        for each in commands()
    }
    for words in typed(page):
        path = max((path for path in known if tuple(words[: len(path)]) == path), key=len)
        assert len(path) > 1, words
        if path == ("lispfmc", "lab", "exec"):
            continue  # what follows is another program's
        options = [word.partition("=")[0] for word in words if word.startswith("-")]
        assert [each for each in options if each not in known[path]] == [], words


def example(name: str) -> dict[str, Any]:
    (text,) = re.findall(rf"```toml\n(# {name}\.toml\n.*?)```", (ROOT / "docs/configuration.md").read_text(), re.DOTALL)
    return tomllib.loads(text)


def joined(file: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The file with more tables in it; a row of the same name is replaced."""
    result = dict(file)
    for table, rows in more.items():
        names = [[row.get(key) for key in NAMES] for row in rows]
        kept = [row for row in file.get(table, []) if [row.get(key) for key in NAMES] not in names]
        result[table] = kept + rows
    return result


@pytest.mark.parametrize(
    ("page", "number", "name", "model"),
    [
        ("add-a-site", 0, "mapserver", MapServerSettings),
        ("add-a-site", 1, "xtr", XtrSettings),
        ("add-a-site", 2, "fmcc", FmccSettings),
        ("interoperate", 0, "mapserver", MapServerSettings),
    ],
)
def test_what_is_added_to_a_configuration_is_taken(page: str, number: int, name: str, model: type[Settings]) -> None:
    more = tomllib.loads(blocks(ROOT / f"docs/howto/{page}.md", "toml")[number])
    model.model_validate(joined(example(name), more))
