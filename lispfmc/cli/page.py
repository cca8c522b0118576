"""`lispfmc page`: the controller's live page for a browser on this machine, until interrupted."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lispfmc.cli.failure import DONE
from lispfmc.cli.output import Format, print_json, print_text, say
from lispfmc.lab.installation import load
from lispfmc.lab.relay import Relay, tokens


async def page(*, listen: str, read_only: bool, lab_name: str | None, output: Format) -> int:
    """Prints the URL, with the token that it needs, and serves."""
    lab = load(lab_name)
    known = tokens(lab.folder)
    relay = Relay(Path(lab.the("fmcc").api.removeprefix("unix:")), known)
    url = await relay.start(listen)
    url += f"#token={known['read' if read_only else 'operate']}"
    if output is Format.json:
        print_json({"lab": lab.name, "url": url})
    else:
        print_text(url)
        say("open it in a browser; Ctrl-C ends")
    try:
        await asyncio.Event().wait()
    finally:
        await relay.close()
    return DONE
