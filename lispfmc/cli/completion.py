"""Names that a shell can complete: of the labs that are up, and of what is in them. After an error there are none.

Every command loads this module, so it loads nothing itself before a shell asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lispfmc.lab.installation import Installation


def labs(incomplete: str) -> list[str]:
    from lispfmc.lab.installation import running

    return _beginning(running(), incomplete)


def users(context: typer.Context, incomplete: str) -> list[str]:
    lab = _lab(context)
    return _beginning((node.name for node in lab.users()), incomplete) if lab else []


def sites(context: typer.Context, incomplete: str) -> list[str]:
    """Where the user who was named before can go; without one, wherever any user can."""
    lab = _lab(context)
    if lab is None:
        return []
    named = lab.node(context.params.get("user") or "")
    return _beginning({site for node in ([named] if named else lab.users()) for site in node.sites}, incomplete)


def daemons(context: typer.Context, incomplete: str) -> list[str]:
    lab = _lab(context)
    return _beginning((daemon.name for daemon in lab.daemons), incomplete) if lab else []


def places(context: typer.Context, incomplete: str) -> list[str]:
    lab = _lab(context)
    names = [daemon.name for daemon in lab.daemons] + [node.name for node in lab.nodes] if lab else []
    return _beginning(names, incomplete)


def eids(context: typer.Context, incomplete: str) -> list[str]:
    lab = _lab(context)
    return _beginning([eid for node in lab.nodes for eid in node.eids], incomplete) if lab else []


def topologies(incomplete: str) -> list[str]:
    from lispfmc.lab.topology import shipped

    return _beginning(shipped(), incomplete)


def _lab(context: typer.Context) -> Installation | None:
    from lispfmc.lab.installation import load
    from lispfmc.wire.errors import LocalError

    try:
        return load(context.params.get("lab"))
    except LocalError:
        return None


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
