"""`lispfmc-fmcc --config FILE`."""

from __future__ import annotations

import sys

from fmcc.daemon import load, run
from lispfmc.runtime import service


def main() -> int:
    return service.main(run, "lispfmc-fmcc", check=load)


if __name__ == "__main__":
    sys.exit(main())
