"""The OpenAPI document of a daemon's HTTP API, made from its routes and the types of what they take and answer.

A route without types is in it too, as an object of which nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias, get_type_hints

import msgspec

from lispfmc.runtime.access import Role

Json: TypeAlias = Any
REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"{(\w+)}")


class ErrorDetail(msgspec.Struct, frozen=True):
    """What is wrong, why, and what to do about it."""

    what: str
    why: str
    do: str


class Error(msgspec.Struct, frozen=True):
    """The answer to every request that is refused."""

    error: ErrorDetail


class DaemonStatus(msgspec.Struct, frozen=True):
    """What every daemon says of itself."""

    daemon: str
    name: str
    version: str
    pid: int
    uptime_s: float
    not_ready: list[str]
    last_event: int
    bugs: int


class RejectCounts(msgspec.Struct, frozen=True):
    """Refused packets by reason, and the last of them."""

    counts: dict[str, int]
    bugs: int
    items: list[dict[str, Any]]


class Health(msgspec.Struct, frozen=True):
    healthy: bool


class Readiness(msgspec.Struct, frozen=True):
    ready: bool
    missing: list[str]


class Operation(msgspec.Struct, frozen=True):
    """A route. `takes` is the type of its body, `query` of its query; `answers` a tuple of types holds all of them."""

    method: str
    path: str
    summary: str = ""
    answers: Any = None
    takes: Any = None
    query: Any = None
    role: Role | None = "read"
    refuses: tuple[int, ...] = ()
    media: str = "application/json"


def document(title: str, version: str, operations: Sequence[Operation]) -> Json:
    """The whole document."""
    types = [each for operation in operations for each in _types(operation)] + [Error]
    kinds = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REF)
    schema_of = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Json]] = {}
    for operation in sorted(operations, key=lambda each: (each.path, each.method)):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _types(operation: Operation) -> list[Any]:
    answers = operation.answers if isinstance(operation.answers, tuple) else (operation.answers,)
    asked = list(get_type_hints(operation.query, include_extras=True).values()) if operation.query else []
    return [each for each in (*answers, operation.takes, *asked) if each is not None]


def _described(operation: Operation, schema_of: dict[Any, Json]) -> Json:
    described: dict[str, Json] = {
        "summary": operation.summary or f"{operation.method} {operation.path}",
        "operationId": _id(operation),
        "responses": {
            "200": {"description": "done", "content": {operation.media: {"schema": _answer(operation, schema_of)}}},
            **{str(status): _refusal(schema_of) for status in sorted({*_usual(operation), *operation.refuses})},
        },
    }
    if parameters := _parameters(operation, schema_of):
        described["parameters"] = parameters
    if operation.takes is not None:
        body = {"application/json": {"schema": schema_of[operation.takes]}}
        described["requestBody"] = {"required": True, "content": body}
    if operation.role is not None:
        # OpenAPI 3.1 allows roles beside schemes that have no scopes of their own
        described["security"] = [{"token": [operation.role]}, {}]
    return described


def _usual(operation: Operation) -> tuple[int, ...]:
    """What any route of this kind may be refused with."""
    return (*((401, 403) if operation.role else ()), *((400, 413, 415) if operation.takes is not None else ()))


def _answer(operation: Operation, schema_of: dict[Any, Json]) -> Json:
    if operation.media != "application/json":
        return {"type": "string"}
    if isinstance(operation.answers, tuple):
        return {"allOf": [schema_of[each] for each in operation.answers]}
    return {"type": "object"} if operation.answers is None else schema_of[operation.answers]


def _refusal(schema_of: dict[Any, Json]) -> Json:
    return {"description": "refused", "content": {"application/json": {"schema": schema_of[Error]}}}


def _parameters(operation: Operation, schema_of: dict[Any, Json]) -> list[Json]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(operation.path)
    ]
    if operation.query is None:
        return in_path
    hints = get_type_hints(operation.query, include_extras=True)
    return in_path + [
        {"name": name, "in": "query", "required": False, "schema": schema_of[kind]} for name, kind in hints.items()
    ]


def _id(operation: Operation) -> str:
    words = re.findall(r"\w+", operation.path.removeprefix("/v1"))
    return "_".join([operation.method.lower(), *words])
