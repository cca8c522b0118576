"""`python -m tests.bench NAME [--out FILE]`: measure, and write build/bench/NAME.json."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import codec, controller, dataplane, harness, mapserver, overhead

BENCHMARKS: dict[str, Callable[[], dict[str, object]]] = {
    "codec": codec.run,
    "controller": controller.run,
    "dataplane": dataplane.run,
    "mapserver": mapserver.run,
    "overhead": overhead.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench", description="measure, and write build/bench/NAME.json")
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--out", type=Path, help="write here instead")
    options = parser.parse_args()
    out: Path = options.out or harness.ROOT / "build" / "bench" / f"{options.name}.json"
    before = harness.environment()
    results = BENCHMARKS[options.name]()
    harness.write(out, results, before)
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
