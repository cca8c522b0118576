"""`lispfmc show TABLE`: one table of the daemons' state, from every daemon that has it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from lispfmc.cli.failure import DONE, unknown
from lispfmc.cli.output import Format, print_items
from lispfmc.lab.installation import Daemon, Installation, load


class View(NamedTuple):
    """Where a table is, and which of its fields a person wants to see (title -> key)."""

    role: str | None  # None: every daemon has it
    path: str
    columns: Mapping[str, str]


VIEWS: Mapping[str, View] = {
    "map-cache": View(
        "xtr",
        "/v1/map-cache",
        {"XTR": "daemon", "EID": "eid", "STATE": "state", "LOCATORS": "rlocs", "VERSION": "version", "TTL S": "ttl_s",
         "AGE S": "age_s", "SOURCE": "source", "AWAY": "away"},
    ),
    "hosts": View(
        "xtr",
        "/v1/hosts",
        {"XTR": "daemon", "EID": "eid", "INTERFACE": "interface", "MAC": "mac", "SINCE S": "since_s",
         "REGISTERED": "registered", "VERSION": "version"},
    ),
    "registrations": View(  # shown by lispfmc.cli.registrations
        "mapserver",
        "/v1/registrations",
        {"EID": "eid", "SITE": "site", "LOCATORS": "rlocs", "VERSION": "version", "AGE S": "age_s",
         "EXPIRES S": "expires_s"},
    ),
    "subscriptions": View(
        "mapserver",
        "/v1/subscriptions",
        {"EID": "eid", "XTR-ID": "xtr_id", "ITR-RLOCS": "itr_rlocs", "PENDING": "pending"},
    ),
    "placements": View(
        "fmcc",
        "/v1/placements",
        {"SERVICE": "service", "USER": "user", "DATA CENTRE": "datacenter", "STATE": "state", "VERSION": "version",
         "EIDS": "eids"},
    ),
    "users": View(
        "fmcc",
        "/v1/users",
        {"USER": "name", "SITE": "site", "SINCE S": "since_s", "DISTANCE MS": "distance_ms", "SERVICES": "services",
         "EIDS": "eids"},
    ),
    "services": View(
        "fmcc",
        "/v1/services",
        {"SERVICE": "name", "USER": "user", "DATA CENTRE": "datacenter", "STATE": "state", "CLASS": "service_class",
         "POLICY": "policy", "ALLOWED": "allowed"},
    ),
    "datacenters": View(
        "fmcc",
        "/v1/datacenters",
        {"DATA CENTRE": "name", "RLOCS": "rlocs", "FROM": "rlocs_from", "TAKEN": "taken", "CAPACITY": "capacity",
         "AGENT": "agent"},
    ),
    "distances": View(
        "fmcc", "/v1/distances", {"A": "a", "B": "b", "MS": "ms", "SOURCE": "source", "AGE S": "age_s"}
    ),
    "rejects": View(
        None, "/v1/rejects", {"DAEMON": "daemon", "REASON": "reason", "COUNT": "count"}
    ),
}  # fmt: skip


async def show(table: str, *, at: str | None, lab_name: str | None, output: Format) -> int:
    """Every row carries the `daemon` that it is from."""
    lab = load(lab_name)
    view = VIEWS[table]
    answers = await asyncio.gather(*(_ask(daemon, view.path) for daemon in asked(lab, view, at)))
    rows = [row for daemon, answer in answers for row in _rows(table, daemon, answer)]
    if output is Format.table:
        rows = [row | {"rlocs": rlocs(row["locators"])} if "locators" in row else row for row in rows]
    print_items(rows, view.columns, output, empty=f"no {table}")
    return DONE


def asked(lab: Installation, view: View, at: str | None) -> list[Daemon]:
    having = [daemon for daemon in lab.daemons if daemon.has_local_api and view.role in (None, daemon.role)]
    if at is None:
        return having
    named = [daemon for daemon in having if daemon.name == at]
    if not named:
        raise unknown("daemon with this table", at, (daemon.name for daemon in having))
    return named


async def _ask(daemon: Daemon, path: str) -> tuple[str, dict[str, Any]]:
    async with daemon.client() as api:
        return daemon.name, await api.get(path)


def _rows(table: str, daemon: str, answer: dict[str, Any]) -> list[dict[str, Any]]:
    if table == "rejects":
        return [{"daemon": daemon, "reason": reason, "count": count} for reason, count in answer["counts"].items()]
    return [{"daemon": daemon, **item} for item in answer["items"]]


def rlocs(locators: object) -> str:
    """Locators as "rloc/priority/weight", the most preferred first."""
    if not isinstance(locators, list):
        return "-"
    ordered = sorted(locators, key=lambda one: one["priority"])
    return " ".join(f"{one['rloc']}/{one['priority']}/{one['weight']}" for one in ordered) or "-"
