"""A tunnel router's roles in a lossless move, as frozen values and tables. Pure: state, event, time in; effects out.

`step` serves one set of EIDs that moves together. Source and target are states of one machine, since today's target is
tomorrow's source; what the tables do not list changes nothing, so late, repeated and misplaced events are harmless.
"""

from __future__ import annotations

from collections.abc import Mapping

from lispfmc.core.plans import Restarted
from xtr.roles import source, target
from xtr.roles.peer import Peer
from xtr.roles.state import Event, Outcome, Role, Row, State, entered

__all__ = ["TABLE", "Event", "Peer", "Role", "State", "step"]

TABLE: Mapping[tuple[State, type], tuple[Row, ...]] = {
    key: (*target.TABLE.get(key, ()), *source.TABLE.get(key, ())) for key in (*target.TABLE, *source.TABLE)
}
"""Rows of one state and event are tried in order; the first whose condition holds is taken."""


def step(role: Role, event: Event, now: float) -> Outcome:
    """The next role and what is to be done, in this order."""
    for row in TABLE.get((role.state, type(event)), ()):
        if row.when(role, event):
            after, effects = row.act(role, event)
            return entered(role, after, row.to, now, anew=isinstance(event, Restarted)), effects
    return role, []
