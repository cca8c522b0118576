"""`lispfmc check FILE...`: would a daemon take this configuration? The same code as the daemon's answers."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fmcc.hypervisor.settings import AgentSettings
from fmcc.settings import FmccSettings
from lispfmc.cli.failure import CONFIG, DONE
from lispfmc.cli.output import Format, print_json, print_text, say
from lispfmc.lab.topology import Topology
from lispfmc.runtime.config import ConfigError, load
from mapserver.settings import MapServerSettings
from xtr.settings import XtrSettings

KINDS: dict[str, type[BaseModel]] = {
    "xtr": XtrSettings,
    "mapserver": MapServerSettings,
    "fmcc": FmccSettings,
    "agent": AgentSettings,
    "topology": Topology,
}


def check(files: Sequence[Path], kind: str | None, *, output: Format) -> int:
    """Exit 0 when each is right, 78 when one is not; every problem of every file is told."""
    items = [_checked(file, kind) for file in files]
    if output is Format.json:
        print_json({"items": items})
    else:
        for item in items:
            for problem in item["problems"]:
                say(problem)
            if item["ok"]:
                print_text(f"{item['file']}: ok ({item['kind']})")
    return DONE if all(item["ok"] for item in items) else CONFIG


def _checked(file: Path, kind: str | None) -> dict[str, Any]:
    found = kind
    problems: list[str] = []
    try:
        found = kind or kind_of(file)
        load(file, KINDS[found])
    except ConfigError as error:
        problems = str(error).splitlines()
    return {"file": str(file), "kind": found, "ok": not problems, "problems": problems}


def kind_of(file: Path) -> str:
    """What the file configures, by the keys that it has. Raises ConfigError when that cannot be told."""
    try:
        keys = set(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        load(file, BaseModel)  # says what is wrong with it
        raise
    scores = {kind: _score(keys, model) for kind, model in KINDS.items()}
    best = max(scores.values())
    kinds = [kind for kind, score in scores.items() if score == best]
    if len(kinds) > 1 or best <= 0:
        raise ConfigError(f"{file}: cannot tell what it configures; say it: --as {'|'.join(KINDS)}")
    return kinds[0]


def _score(keys: set[str], model: type[BaseModel]) -> int:
    """Known keys count for a kind, unknown ones against it, and so do those that it cannot do without."""
    known = set(model.model_fields)
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    return len(keys & known) - len(keys - known) - len(required - keys)
