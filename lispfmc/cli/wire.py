"""`lispfmc wire --source MESSAGE`: the parse and build functions that were generated from the declarations."""

from __future__ import annotations

from lispfmc.cli.failure import DONE, USAGE, Failure
from lispfmc.cli.output import print_text
from lispfmc.wire.codec import SOURCES, source


def wire(message: str) -> int:
    """The name may be written as the RFC has it: Map-Register, map_register and MapRegister are the same."""
    names = {_bare(name): name for name in SOURCES}
    wanted = list(SOURCES) if _bare(message) == "all" else [names[_bare(message)]] if _bare(message) in names else []
    if not wanted:
        raise Failure(USAGE, f"{message!r}", "no such message", f"give all, or one of {', '.join(SOURCES)}")
    print_text(source(*wanted).rstrip())
    return DONE


def _bare(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
