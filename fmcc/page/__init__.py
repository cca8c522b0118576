"""The live page: a few static files, all of them our own. What they show, they ask the API for, with its tokens.

No framework and nothing from elsewhere: there is nothing to vendor, and the page works where there is no Internet.
"""

from __future__ import annotations

from importlib import resources

from lispfmc.runtime.http import Api

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
INDEX = "index.html"


def add_to(api: Api) -> None:
    """The page at /, its other files under /page/."""
    for file in sorted(resources.files("fmcc.page").joinpath("assets").iterdir(), key=lambda file: file.name):
        media = TYPES[file.name.rsplit(".", 1)[1]]
        path = "/" if file.name == INDEX else f"/page/{file.name}"
        api.asset(path, file.read_bytes(), media)
