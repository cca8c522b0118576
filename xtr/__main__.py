"""`lispfmc-xtr --config FILE`: one tunnel router."""

from __future__ import annotations

import sys

from lispfmc.runtime import config, service
from xtr.daemon import run
from xtr.settings import XtrSettings


def main() -> int:
    """The exit code is what `lispfmc.runtime.service` says."""
    return service.main(run, "lispfmc-xtr", check=lambda path: config.load(path, XtrSettings))


if __name__ == "__main__":
    sys.exit(main())
