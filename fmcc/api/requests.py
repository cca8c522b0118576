"""What the controller's HTTP API takes, as types. A key that is not here is refused: it would say nothing."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fmcc.requests import RequestRefused
from fmcc.world import Service, User, World
from lispfmc.wire.address import Prefix
from lispfmc.wire.errors import LocalError

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]
Eids = Annotated[list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(min_length=1, max_length=8)]


class MoveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Move `service` to the data centre `to`, led by `scheme` ("": as its other moves)."""

    service: str
    to: str
    scheme: str = ""


class SchemeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Have the next moves of `service` led by `scheme`; null: as configured."""

    service: str
    scheme: str | None


class UserRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    eids: Eids


class ServiceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`user` left out or null: it follows nobody. `allowed` left out: every data centre."""

    name: Name
    eids: Eids
    datacenter: str
    user: str | None = None
    allowed: list[str] = []
    service_class: str = ""
    size_bytes: Annotated[int, msgspec.Meta(gt=0)] | None = None


class DistanceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Someone measured the round-trip time between two sites."""

    a: str
    b: str
    ms: Annotated[float, msgspec.Meta(ge=0)]


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rloc: Annotated[str, msgspec.Meta(max_length=64)]
    ms: Annotated[float, msgspec.Meta(ge=0)]


class ReportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tunnel router's own measurements: from its RLOC `rloc` to those of others."""

    rloc: Annotated[str, msgspec.Meta(max_length=64)]
    rtts: Annotated[list[Measured], msgspec.Meta(max_length=1024)]


class RemainingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the service will go on; null: nobody knows."""

    service: str
    remaining_s: Annotated[float, msgspec.Meta(ge=0)] | None


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object: the path says it all."""


def user_of(request: UserRequest, instance_id: int) -> User:
    """Raises RequestRefused."""
    return User(request.name, _eids(request.eids, instance_id, f"user {request.name!r} cannot be added"), added=True)


def service_of(request: ServiceRequest, world: World, classes: set[str], instance_id: int) -> Service:
    """Raises RequestRefused."""
    what = f"service {request.name!r} cannot be added"
    if request.service_class and request.service_class not in classes:
        known = ", ".join(sorted(classes)) or "none"
        raise RequestRefused(what, f"there is no service class {request.service_class!r}", f"known are {known}", 409)
    return Service(
        request.name,
        request.user or "",
        _eids(request.eids, instance_id, what),
        request.datacenter,
        tuple(request.allowed) or tuple(world.datacenters),
        request.service_class,
        request.size_bytes,
        added=True,
    )


def _eids(texts: list[str], instance_id: int, what: str) -> tuple[Prefix, ...]:
    try:
        return tuple(Prefix.parse(text, instance_id) for text in texts)
    except LocalError as error:
        raise RequestRefused(what, str(error), 'write an EID like "100.64.1.10/32"', 400) from error
