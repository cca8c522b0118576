"""The controller's routes: each a declared operation, and a short function from its types to its answer.

Whatever changes something goes to the core by the driver; whatever reads history reads it in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Annotated, Any, TypeAlias

import msgspec

from fmcc import views
from fmcc.api import answers, requests
from fmcc.controller import Controller
from fmcc.history.database import History
from fmcc.requests import RequestRefused
from lispfmc.runtime.access import Role
from lispfmc.runtime.http import Api, Call, Refused
from lispfmc.runtime.openapi import Operation
from lispfmc.wire.address import ip_of
from lispfmc.wire.errors import LocalError

Tell: TypeAlias = Callable[..., None]
Act: TypeAlias = Callable[[Call[Any, Any]], Awaitable[Any]]
Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
PAGE = 100


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of the history: of one service, before a number, so many at most."""

    service: str | None = None
    before: int | None = None
    limit: Limit = PAGE


class Routes:
    """Adds itself to an `Api`."""

    def __init__(
        self,
        controller: Controller,
        tell: Tell,
        history: History | None,
        *,
        classes: set[str],
        instance_id: int,
        following: Collection[str],
        packets: views.Packets = lambda _: None,
    ) -> None:
        """`tell` is the driver's; `classes` are the service classes there are; `following` the data centres whose agent
        answers; `packets` what the tunnel routers have told of a move's."""
        self._controller = controller
        self._tell = tell
        self._history = history
        self._classes = classes
        self._instance_id = instance_id
        self._following = following
        self._packets = packets

    def add_to(self, api: Api) -> None:
        controller, now = self._controller, time.monotonic
        api.get("/v1/users", lambda: views.users(controller, now()), answers=answers.UserList, summary="Every user")
        api.get(
            "/v1/services", lambda: views.services(controller), answers=answers.ServiceList, summary="Every service"
        )
        placements = "Where every service is"
        api.get(
            "/v1/placements", lambda: views.placements(controller), answers=answers.PlacementList, summary=placements
        )
        moves = "The last moves of this run"
        api.get("/v1/moves", lambda: views.moves(controller, self._packets), answers=answers.MoveList, summary=moves)
        sites = "Every site, and the RLOCs of its tunnel router"
        api.get("/v1/sites", lambda: views.sites(controller), answers=answers.SiteList, summary=sites)
        decisions = "The last decision about each service, explained"
        api.get(
            "/v1/decisions", lambda: views.decisions(controller, now()), answers=answers.DecisionList, summary=decisions
        )
        centres = "Every data centre: its room, its agent, its router"
        api.get(
            "/v1/datacenters",
            lambda: views.datacenters(controller, self._following),
            answers=answers.DataCenterList,
            summary=centres,
        )
        distances = "The round-trip times that count"
        api.get(
            "/v1/distances", lambda: views.distances(controller, now()), answers=answers.DistanceList, summary=distances
        )
        self._add_readers(api)
        self._add_changers(api)

    def _add_readers(self, api: Api) -> None:
        def reads(path: str, summary: str, kind: Any, act: Act, *, query: Any = None, refuses: tuple[int, ...]) -> None:
            api.serve(Operation("GET", path, summary, kind, query=query, refuses=refuses), act)

        reads("/v1/users/{name}", "One user", answers.UserView, self._user, refuses=(404,))
        reads("/v1/services/{name}", "One service", answers.ServiceView, self._service, refuses=(404,))
        reads(
            "/v1/migrations",
            "The moves of all runs, newest first",
            answers.MigrationList,
            self._migrations,
            query=Page,
            refuses=(400, 501),
        )
        reads("/v1/migrations/{id}", "One move of any run", answers.Migration, self._migration, refuses=(404, 501))
        reads(
            "/v1/decisions/history",
            "The decisions of all runs, newest first",
            answers.PastDecisionList,
            self._decisions,
            query=Page,
            refuses=(400, 501),
        )

    def _add_changers(self, api: Api) -> None:
        def does(
            method: str,
            path: str,
            summary: str,
            kind: Any,
            act: Act,
            *,
            takes: Any = None,
            refuses: tuple[int, ...] = (),
            role: Role = "operate",
        ) -> None:
            api.serve(Operation(method, path, summary, kind, takes=takes, role=role, refuses=refuses), act)

        move = requests.MoveRequest
        begin = "Move a service to a data centre"
        does("POST", "/v1/migrations", begin, answers.MoveView, self._move, takes=move, refuses=(403, 404, 409))
        does("POST", "/v1/moves", begin, answers.MoveView, self._move, takes=move, refuses=(403, 404, 409))
        could = "Say whether a service could move to a data centre now; nothing moves"
        check = "/v1/migrations/check"
        does("POST", check, could, answers.MovePlan, self._check, takes=move, refuses=(403, 404, 409), role="read")
        lead = "Have a service's next moves led by another scheme"
        does("POST", "/v1/schemes", lead, answers.SchemeTold, self._steer, takes=requests.SchemeRequest, refuses=(404,))
        abort = "/v1/migrations/{id}/abort"
        stop = "Give a move up before its machine stands still"
        does("POST", abort, stop, answers.MoveView, self._abort, takes=requests.Nothing, refuses=(404, 409))
        user, service = requests.UserRequest, requests.ServiceRequest
        does("POST", "/v1/users", "Add a user", answers.UserView, self._add_user, takes=user, refuses=(409,))
        does("DELETE", "/v1/users/{name}", "Remove an added user", answers.Removed, self._drop_user, refuses=(404, 409))
        does(
            "POST",
            "/v1/services",
            "Add a service",
            answers.ServiceView,
            self._add_service,
            takes=service,
            refuses=(409,),
        )
        gone = "Remove an added service"
        does("DELETE", "/v1/services/{name}", gone, answers.Removed, self._drop_service, refuses=(404, 409))
        told = "Tell what the round-trip time between two sites was measured to be"
        taken = requests.DistanceRequest
        does("POST", "/v1/distances", told, answers.DistanceTold, self._measured, takes=taken, role="report")
        report = "A tunnel router's measurements to the locators that it probes"
        kind = requests.ReportRequest
        does("POST", "/v1/distances/report", report, answers.ReportTaken, self._report, takes=kind, role="report")
        left = "Tell how long a service will go on"
        kind2 = requests.RemainingRequest
        does("POST", "/v1/remaining", left, answers.RemainingTold, self._remaining, takes=kind2)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _user(self, call: Call[None, None]) -> answers.UserView:
        name = call.path["name"]
        if name not in self._controller.world.users:
            raise Refused(
                f"no user {name!r}", why="it was never added, or has left", do="see GET /v1/users", status=404
            )
        return views.user(self._controller, name, time.monotonic())

    async def _service(self, call: Call[None, None]) -> answers.ServiceView:
        name = call.path["name"]
        if name not in self._controller.placements:
            why, do = "it was never added, or has gone", "see GET /v1/services"
            raise Refused(f"no service {name!r}", why=why, do=do, status=404)
        return views.service(self._controller, name)

    async def _migrations(self, call: Call[None, Page]) -> answers.MigrationList:
        page = call.query
        items = await asyncio.to_thread(self._kept.migrations, page.service, page.before, page.limit)
        return answers.MigrationList(items, items[-1].number if len(items) == page.limit else None)

    async def _migration(self, call: Call[None, None]) -> answers.Migration:
        move = call.path["id"]
        found = await asyncio.to_thread(self._kept.migration, move)
        if found is None:
            why, do = "it never was, or so long ago that it is let go", "see GET /v1/migrations"
            raise Refused(f"no move {move!r}", why=why, do=do, status=404)
        return found

    async def _decisions(self, call: Call[None, Page]) -> answers.PastDecisionList:
        page = call.query
        items = await asyncio.to_thread(self._kept.decisions, page.service, page.before, page.limit)
        return answers.PastDecisionList(items, items[-1].number if len(items) == page.limit else None)

    @property
    def _kept(self) -> History:
        if self._history is None:
            why, do = "without state_dir nothing is written down", "configure state_dir and restart"
            raise Refused("there is no history", why=why, do=do, status=501)
        return self._history

    # --- changing -----------------------------------------------------------------------------------------------------

    async def _move(self, call: Call[requests.MoveRequest, None]) -> answers.MoveView:
        service, to, scheme = call.body.service, call.body.to, call.body.scheme
        with _refusing():
            self._controller.requests.check(service, to, scheme)
        self._tell(self._controller.requested, service, to, scheme)
        return views.move(self._controller.migrations.last(service))

    async def _check(self, call: Call[requests.MoveRequest, None]) -> answers.MovePlan:
        service, to, scheme = call.body.service, call.body.to, call.body.scheme
        with _refusing():
            self._controller.requests.check(service, to, scheme)
        placement = self._controller.placements[service]
        return answers.MovePlan(service, placement.datacenter, to, scheme or self._controller.scheme_of(service))

    async def _steer(self, call: Call[requests.SchemeRequest, None]) -> answers.SchemeTold:
        service, scheme = call.body.service, call.body.scheme
        with _refusing():
            self._controller.steered(service, scheme or "")
        return answers.SchemeTold(service, scheme)

    async def _abort(self, call: Call[requests.Nothing, None]) -> answers.MoveView:
        move = call.path["id"]
        with _refusing():
            service = self._controller.requests.check_abort(move)
        self._tell(self._controller.abort, move)
        return views.move(self._controller.migrations.last(service))

    async def _add_user(self, call: Call[requests.UserRequest, None]) -> answers.UserView:
        with _refusing():
            user = requests.user_of(call.body, self._instance_id)
            self._controller.population.check_user(user)
        self._tell(self._controller.add_user, user)
        return views.user(self._controller, user.name, time.monotonic())

    async def _drop_user(self, call: Call[None, None]) -> answers.Removed:
        name = call.path["name"]
        with _refusing():
            self._controller.population.check_user_leaves(name)
        self._tell(self._controller.remove_user, name)
        return answers.Removed(name)

    async def _add_service(self, call: Call[requests.ServiceRequest, None]) -> answers.ServiceView:
        with _refusing():
            service = requests.service_of(call.body, self._controller.world, self._classes, self._instance_id)
            self._controller.population.check_service(service)
        self._tell(self._controller.add_service, service)
        return views.service(self._controller, service.name)

    async def _drop_service(self, call: Call[None, None]) -> answers.Removed:
        name = call.path["name"]
        with _refusing():
            self._controller.population.check_service_leaves(name)
        self._tell(self._controller.remove_service, name)
        return answers.Removed(name)

    async def _measured(self, call: Call[requests.DistanceRequest, None]) -> answers.DistanceTold:
        told, now, deliberation = call.body, time.monotonic(), self._controller.deliberation
        deliberation.measured(told.a, told.b, told.ms, now)
        return answers.DistanceTold(told.a, told.b, deliberation.rtt_ms(told.a, told.b, now) or 0.0)

    async def _report(self, call: Call[requests.ReportRequest, None]) -> answers.ReportTaken:
        report = call.body
        here = self._controller.site_at(ip_of(report.rloc))
        if here is None:
            raise LocalError(f"a report from {report.rloc}: it is no site's RLOC; see GET /v1/datacenters")
        taken = 0
        for each in report.rtts:
            there = self._controller.site_at(ip_of(each.rloc))
            if there is not None and there != here:
                self._controller.deliberation.measured(here, there, each.ms, time.monotonic())
                taken += 1
        return answers.ReportTaken(taken, len(report.rtts) - taken)

    async def _remaining(self, call: Call[requests.RemainingRequest, None]) -> answers.RemainingTold:
        told = call.body
        self._controller.deliberation.remaining(told.service, told.remaining_s, time.monotonic())
        return answers.RemainingTold(told.service, told.remaining_s)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """A core's refusal becomes the answer."""
    try:
        yield
    except RequestRefused as error:
        raise Refused(error.what, why=error.why, do=error.do, status=error.status) from error
