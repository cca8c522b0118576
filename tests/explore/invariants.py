"""What must hold in every world, and what must hold in one that has come to rest."""

from __future__ import annotations

from fmcc.steering import lead
from lispfmc.core.versions import newer
from lispfmc.wire.moves import MovePhase
from tests.explore.world import CONTROLLER, NODES, SITES, Table, World
from xtr.roles.state import DELIVERING, IN_HAND, Mode, State

LOCAL = (Mode.DELIVER, Mode.MIRROR)


def always(world: World) -> str | None:
    """What is wrong in this world, or None."""
    for node in SITES:
        if loop := looping(world.tables, node):
            return loop
    return two_owners(world)


def looping(tables: tuple[Table, Table], first: int) -> str | None:
    """Follow a packet of the user's that comes to `first`."""
    node, sender = first, 3
    for _ in range(4):
        table = tables[node - 1]
        if table.mode is None or table.mode in LOCAL or sender == table.towards:
            return None
        node, sender = table.towards, node
    return f"a packet that comes to x{first} goes in circles"


def two_owners(world: World) -> str | None:
    """At most one router delivers.

    The one exception: a source that has not heard of STOP, or was given the EIDs back and then outdone by a higher
    epoch. The service does not run there any more, and it is being told.
    """
    if not all(table.mode in LOCAL for table in world.tables):
        return None
    low, high = sorted(SITES, key=lambda node: _rank(world, node))
    loser, winner = world.roles[low - 1], world.roles[high - 1]
    if not newer(winner.owned, loser.owned):
        return "two routers deliver, and neither is the newer one"
    if world.machine[0] == low and not _followed(world, low):
        return f"x{high} delivers although the service runs at x{low}"
    if loser.state is not State.MIRRORING and not newer(winner.owned, loser.promised):
        return f"x{low} took the service back although x{high} has activated the epoch that it gave up"
    told = any(query.to == low and query.phase in (MovePhase.ACTIVATE, MovePhase.COMMIT) for query in world.queries)
    told = told or low in world.notices or not world.registering[high - 1][1]
    leading = any(query.by == CONTROLLER for query in world.queries) or bool(world.facts)
    if not (told or leading):
        return "two routers deliver, and nobody tells the one that has lost"
    return None


def _followed(world: World, place: int) -> bool:
    """The machine was carried there by hand, and the controller is about to hear of it or has the network follow."""
    taking = any(
        (query.by, query.to, query.phase) == (CONTROLLER, place, MovePhase.ACTIVATE) for query in world.queries
    )
    return taking or (CONTROLLER, "found", place) in world.facts


def _rank(world: World, node: int) -> tuple[int, int]:
    role = world.roles[node - 1]
    return role.owned, node


def at_rest(world: World) -> str | None:
    """What is wrong in a world in which nothing can happen any more, or None."""
    place = world.machine[0]
    if not place:
        return "the machine is nowhere"
    other = 3 - place
    here, there = world.roles[place - 1], world.roles[other - 1]
    if world.tables[place - 1].mode is not Mode.DELIVER or here.state is not State.HERE:
        return f"the service runs at x{place}, which is {here.state} and does not deliver"
    if there.state in DELIVERING or world.tables[other - 1].mode in LOCAL:
        return f"x{other} still delivers, and the service runs at x{place}"
    if there.state in IN_HAND:
        return f"x{other} is still {there.state}"
    if newer(there.owned, here.owned):
        return f"x{place} has the service by epoch {here.owned}, x{other} had a higher one"
    if world.registry.owner != place:
        return f"the Map-Server says x{world.registry.owner}, the service runs at x{place}"
    if world.registering[other - 1][0]:
        return f"x{other} still registers"
    if world.lead.state not in (lead.State.IDLE, lead.State.COMMITTED, lead.State.ABORTED):
        return f"the controller is still {world.lead.state}, and moves nothing any more"
    if any(world.buffers):
        return "held packets are forgotten"
    node = NODES[world.peer.rlocs[0]]
    if node != place and (world.tables[node - 1].mode is not Mode.FORWARD or world.tables[node - 1].towards != place):
        return f"a packet of the user's comes to x{node} and goes nowhere"
    return lost(world)


def lost(world: World) -> str | None:
    """Without a crash of a router, an abort and a machine carried by hand, every packet has reached the service."""
    if any(node in SITES for node in world.crashed) or world.excused:
        return None
    missing = [number for number in range(1, world.sent + 1) if number not in world.received]
    return f"packets {missing} are lost" if missing else None
