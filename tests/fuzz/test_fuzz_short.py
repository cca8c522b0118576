"""The fuzz target for a moment, as `make fuzz` runs it for long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_fuzz_target_finds_nothing_in_a_short_run() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.decode", "3"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
