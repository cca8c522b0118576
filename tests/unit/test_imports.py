"""The shape of the code: every module imports alone, and the layers import one another in one direction only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("lispfmc", "xtr", "mapserver", "fmcc")

# One process that forgets our modules before each import: as alone as in a process of its own, at a tenth of the time.
IMPORT_EACH = """
import importlib, json, sys, traceback
names, packages = json.loads(sys.argv[1])
failed = {}
for name in names:
    for loaded in [m for m in sys.modules if m.partition(".")[0] in packages]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except BaseException:
        failed[name] = traceback.format_exc(limit=-2)
print(json.dumps(failed))
"""


def modules() -> list[str]:
    files = [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files)


def test_every_module_imports_alone() -> None:
    names = modules()
    assert "lispfmc.wire.messages" in names
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH, json.dumps([names, PACKAGES])],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    failed: dict[str, str] = json.loads(run.stdout.splitlines()[-1])
    assert not failed, "\n".join(f"{name}:\n{trace}" for name, trace in failed.items())


def test_importing_prints_nothing_and_starts_no_thread() -> None:
    code = (
        "import importlib, json, sys, threading\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "assert threading.active_count() == 1, threading.enumerate()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, json.dumps(modules())],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (0, ""), run.stdout + run.stderr


def test_the_layers_are_kept() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run(
        [lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
