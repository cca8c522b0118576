"""The `lispfmc` command: stdout is data, stderr is talk, and the exit code says how it ended."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point of the script."""
    from lispfmc.cli.app import run  # here: importing the package must stay free

    sys.exit(run(sys.argv[1:]))
