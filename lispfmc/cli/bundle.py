"""`lispfmc bundle`: everything that somebody else needs to find out what went wrong, in one archive, without secrets.

Secrets are taken from the configuration files themselves, and whatever equals one is blotted out in every file of the
archive: logs and answers too, not only in the line that declares it.
"""

from __future__ import annotations

import asyncio
import io
import json
import platform
import tarfile
import time
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import lispfmc
from lispfmc.cli.failure import DONE, USAGE, Failure
from lispfmc.cli.output import Format, print_json, print_text, progress
from lispfmc.cli.show import VIEWS
from lispfmc.lab.installation import FILE, Daemon, Installation, load
from lispfmc.runtime.client import ApiClient
from lispfmc.runtime.config import SECRET_KEYS
from lispfmc.wire.errors import LocalError

REDACTED = "(redacted)"
LOG_TAIL = 1 << 20  # bytes of each log: the end is what matters
ROWS = 10_000  # of a table; a million registrations make no bundle that anybody reads
EVENTS_WAIT_S = 1.0


async def bundle(*, lab_name: str | None, out: Path | None, output: Format) -> int:
    """Exit 0 when the archive is written; a daemon that does not answer is a line in it and no failure."""
    lab = load(lab_name)
    path = out or Path(f"lispfmc-{lab.name}-{time.strftime('%Y%m%dT%H%M%S')}.tar.gz")
    if path.exists():
        raise Failure(USAGE, str(path), "is there already", "name another file with --out")
    files = dict(_local_files(lab))
    with progress("collecting", len(lab.daemons)) as advance:
        for daemon in lab.daemons:
            files |= {f"{daemon.name}/{name}": text for name, text in (await _told(daemon)).items()}
            advance()
    secrets = set(_secrets(lab))
    _write(path, {name: _blotted(text, secrets) for name, text in files.items()})
    if output is Format.json:
        print_json({"lab": lab.name, "file": str(path), "files": sorted(files)})
    else:
        print_text(f"{path}: {len(files)} files, {path.stat().st_size / 1024:.0f} KiB, keys redacted")
    return DONE


def _local_files(lab: Installation) -> Iterator[tuple[str, str]]:
    yield "environment.json", json.dumps(_environment(), indent=1)
    for path in sorted([lab.folder / FILE, *lab.folder.glob("*.toml"), *lab.folder.glob("*.json")]):
        yield f"lab/{path.name}", _read(path)
    for path in sorted((lab.folder / "logs").glob("*.log")):
        yield f"logs/{path.name}", _read(path)[-LOG_TAIL:]


def _environment() -> dict[str, Any]:
    return {
        "lispfmc": lispfmc.__version__,
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {each.name: each.version for each in metadata.distributions()},
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"cannot be read: {error.strerror}\n"


async def _told(daemon: Daemon) -> dict[str, str]:
    """What a daemon answers, by file name."""
    if not daemon.has_local_api:
        return {}
    tables = {view.path: table for table, view in VIEWS.items() if view.role == daemon.role}
    told = {}
    try:
        async with ApiClient(daemon.api, timeout_s=5.0) as api:
            for path in ("/v1/status", "/v1/rejects", "/metrics"):
                told[path.rsplit("/", 1)[1]] = _text(await api.get(path))
            for path, table in tables.items():
                told[table] = _text(await api.get(f"{path}?limit={ROWS}" if table == "registrations" else path))
            told["events"] = "".join([json.dumps(event) + "\n" async for event in _kept_events(api)])
    except LocalError as error:
        told["unreachable"] = f"{error}\n"
    return told


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer, indent=1)


async def _kept_events(api: ApiClient) -> Any:
    last = int((await api.get("/v1/status"))["last_event"])
    events = api.events(0)
    try:
        while last:
            event = await asyncio.wait_for(anext(events), EVENTS_WAIT_S)
            yield event
            if int(event["id"]) >= last:
                return
    except (TimeoutError, StopAsyncIteration):
        return
    finally:
        await events.aclose()


def _secrets(lab: Installation) -> Iterator[str]:
    for path in lab.folder.glob("*.toml"):
        try:
            yield from _secrets_in(tomllib.loads(_read(path)))
        except tomllib.TOMLDecodeError as error:
            why = f"{path}: not valid TOML, {error}, so its secrets are not known"
            raise LocalError(f"{why}; correct it, or take it away") from error


def _secrets_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inside in value.items():
            if key in SECRET_KEYS and isinstance(inside, str) and inside:
                yield inside
            else:
                yield from _secrets_in(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from _secrets_in(inside)


def _blotted(text: str, secrets: set[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):  # one may begin with another
        text = text.replace(secret, REDACTED)
    return text


def _write(path: Path, files: dict[str, str]) -> None:
    """Whole or not at all."""
    draft = path.with_name(path.name + ".part")
    try:
        with tarfile.open(draft, "w:gz") as archive:
            for name, text in sorted(files.items()):
                data = text.encode()
                entry = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
                entry.size, entry.mtime = len(data), int(time.time())
                archive.addfile(entry, io.BytesIO(data))
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise LocalError(f"{path}: cannot be written, {error.strerror}; name another file with --out") from error
