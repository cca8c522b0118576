"""Moves that an operator asks for: what may be asked, and why not."""

from __future__ import annotations

from collections.abc import Collection

from fmcc.deliberation import Deliberation
from fmcc.migrations import Migrations
from fmcc.moves import BEFORE_STOP, State
from fmcc.world import World
from lispfmc.wire.errors import LocalError


class RequestRefused(LocalError):  # noqa: N818 - raised as the answer that it becomes
    """What was asked for cannot be. `status` is the HTTP status that says so."""

    def __init__(self, what: str, why: str, do: str, status: int) -> None:
        super().__init__(f"{what}: {why}; {do}")
        self.what, self.why, self.do, self.status = what, why, do, status


class Requests:
    """Checks them."""

    def __init__(
        self, world: World, migrations: Migrations, deliberation: Deliberation, schemes: Collection[str]
    ) -> None:
        self._world = world
        self._migrations = migrations
        self._deliberation = deliberation
        self._schemes = schemes

    def check_scheme(self, service: str, scheme: str) -> None:
        """Raises RequestRefused when there is no such service or scheme."""
        if service not in self._migrations.placements:
            known = ", ".join(sorted(self._migrations.placements))
            raise RequestRefused(f"no service {service!r}", "it is not configured", f"choose one of {known}", 404)
        if scheme and scheme not in self._schemes:
            known = ", ".join(self._schemes)
            raise RequestRefused(f"no scheme {scheme!r}", "nobody has written it", f"choose one of {known}", 404)

    def check(self, service: str, datacenter: str, scheme: str = "") -> None:
        """Raises RequestRefused when `service` cannot move to `datacenter` now."""
        self.check_scheme(service, scheme)
        placement = self._migrations.placements[service]
        what = f"{service} cannot move to {datacenter}"
        allowed = placement.service.allowed
        if datacenter not in allowed:
            known = "unknown" if datacenter not in self._world.datacenters else f"not allowed for {service}"
            raise RequestRefused(
                f"{service} cannot move to {datacenter!r}", f"it is {known}", f"choose one of {', '.join(allowed)}", 403
            )
        if placement.in_flight:
            why = f"it is on its way to {placement.move.target if placement.move else ''}"
            raise RequestRefused(what, why, "wait until that move has ended", 409)
        if busy := self._migrations.busy(service):
            raise RequestRefused(what, busy, "wait until it has, or see why it cannot be reached", 409)
        if placement.datacenter == datacenter:
            raise RequestRefused(what, "it is there already", "choose another data centre", 409)
        if not self._deliberation.has_room(placement, datacenter):
            why = f"it is full ({self._world.datacenters[datacenter].capacity} services)"
            raise RequestRefused(what, why, "move another service away first", 409)

    def check_abort(self, move: str) -> str:
        """The service whose move it is. Raises RequestRefused when it cannot be aborted now."""
        record = next((each for each in self._migrations.records if each.move.id == move), None)
        if record is None:
            why = "it was not begun in this run of the controller"
            raise RequestRefused(f"no move {move!r}", why, "see GET /v1/moves", 404)
        placement, state = self._migrations.current(move), record.move.state
        if placement is None or placement.state not in BEFORE_STOP:
            # once the machine stands still, only its hypervisors can say where it will run
            do = "request a move back when it has ended" if state is State.STOPPED else "nothing is to be aborted"
            raise RequestRefused(f"the move {move} cannot be aborted", f"it is {state}", do, 409)
        return record.service
