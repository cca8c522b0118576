"""`lispfmc-mapserver --config FILE`."""

from __future__ import annotations

import sys

from lispfmc.runtime import config, service
from mapserver.daemon import run
from mapserver.settings import MapServerSettings


def main() -> int:
    return service.main(run, "lispfmc-mapserver", check=lambda path: config.load(path, MapServerSettings))


if __name__ == "__main__":
    sys.exit(main())
