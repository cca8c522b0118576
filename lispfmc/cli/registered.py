"""`lispfmc lookup self`: does the mapping system know our tunnel routers as they know themselves (RFC 6835 §4.1)?

Each router is asked for its prefixes and locators, and the Map-Resolver for each prefix.
"""

from __future__ import annotations

import asyncio
from typing import Any

from lispfmc.cli.failure import CONDITION, DONE, Failure, unknown
from lispfmc.cli.lookup import ask, located
from lispfmc.cli.output import Format, print_items
from lispfmc.lab.installation import Installation
from lispfmc.wire.address import Ip, Prefix, ip_of, ip_text

COLUMNS = {"XTR": "xtr", "EID-PREFIX": "eid", "REGISTERED": "registered", "LOCATORS": "locators", "RTT MS": "rtt_ms"}


async def lookup_self(lab: Installation, server: Ip, *, at: str | None, count: int, output: Format) -> int:
    """Exit 0 when every prefix is mapped to its router, 1 when one is not."""
    routers = [daemon for daemon in lab.of_role("xtr") if at in (None, daemon.name)]
    if not routers:
        raise unknown("xTR", str(at), (daemon.name for daemon in lab.of_role("xtr")))
    items: list[dict[str, Any]] = []
    for router in routers:
        async with router.client() as api:
            status = await api.get("/v1/status")
        rlocs = {ip_of(rloc) for rloc in status["rlocs"]}
        prefixes = [Prefix.parse(text, status["instance_id"]) for text in status["prefixes"]]
        answers = await asyncio.gather(*(_check(each, rlocs, server, count) for each in prefixes))
        items.extend({"xtr": router.name, **answer} for answer in answers)
    print_items(items, COLUMNS, output, empty="these routers have no fixed prefixes")
    return DONE if all(item["registered"] for item in items) else CONDITION


async def _check(prefix: Prefix, rlocs: set[Ip], server: Ip, count: int) -> dict[str, Any]:
    try:
        answer = await ask(prefix, server, count)
    except Failure as failure:
        return {"eid": str(prefix), "registered": False, "locators": [], "rtt_ms": None, "why": str(failure)}
    found = located(answer.reply, prefix)
    told = [each.address for each in found.locators if isinstance(each.address, bytes)] if found else []
    registered = found is not None and found.prefix == prefix and bool(rlocs & set(told))
    locators = [ip_text(each) for each in told]
    return {"eid": str(prefix), "registered": registered, "locators": locators, "rtt_ms": answer.rtt_ms}
