"""`lispfmc move USER --to SITE`: the phases as they happen on stderr, the table or the JSON at the end on stdout."""

from __future__ import annotations

from lispfmc.cli.failure import CONDITION, DONE, USAGE, Failure, unknown
from lispfmc.cli.output import Format, print_json, print_text, say
from lispfmc.cli.story import phase_text, print_report
from lispfmc.lab.installation import Installation, NodeEntry, load
from lispfmc.lab.measurement import ALREADY_THERE, TIMEOUT
from lispfmc.lab.measurement import move as run_move
from lispfmc.lab.phases import Outcome
from lispfmc.lab.report import MoveReport
from lispfmc.runtime.node_client import call


async def move(
    user: str,
    to: str,
    *,
    lab_name: str | None,
    wait: bool,
    measure: bool,
    timeout_s: float,
    scheme: str = "",
    dry_run: bool = False,
    output: Format,
) -> int:
    """Exit 0 when it came to what was asked for, 1 when not."""
    lab = load(lab_name)
    node = user_of(lab, user)
    if to not in node.sites:
        raise unknown(f"site for {user}", to, node.sites)
    if dry_run:
        return await _planned(lab, node, to, output)
    tell = say if output is Format.json else print_text  # as they happen; for programs they are in the JSON too
    report = await run_move(
        lab,
        node,
        to,
        wait=wait,
        measure=measure,
        timeout_s=timeout_s,
        scheme=scheme,
        on_phase=lambda phase: tell(phase_text(phase)),
    )
    if output is Format.json:
        print_json(report.document())
    else:
        print_report(report)
    return _exit_code(report, measure=measure, timeout_s=timeout_s)


async def _planned(lab: Installation, node: NodeEntry, to: str, output: Format) -> int:
    """What would move. Exit 1 when the user is there already."""
    at = (await call(node.socket, {"do": "status"}, timeout_s=3.0))["site"]
    async with lab.the("fmcc").client() as api:
        services = [one for one in (await api.get("/v1/placements"))["items"] if one["user"] == node.name]
    told = {
        "user": node.name,
        "from": at,
        "to": to,
        "services": {one["service"]: one["datacenter"] for one in services},
    }
    if output is Format.json:
        print_json(told)
    else:
        print_text(f"{node.name} would move from {at} to {to}; the controller would then decide about:")
        for one in services:
            print_text(f"  {one['service']} at {one['datacenter']}")
    if at == to:
        say(f"lispfmc: {node.name}: is at {to} already; choose another site")
    return CONDITION if at == to else DONE


def user_of(lab: Installation, name: str) -> NodeEntry:
    """The user's node. Raises Failure with the known ones."""
    node = lab.node(name)
    if node is not None and node.role != "user":
        raise Failure(USAGE, name, "is a service, services follow their users", "move the user")
    if node is None:
        raise unknown("user", name, (one.name for one in lab.users()))
    return node


def _exit_code(report: MoveReport, *, measure: bool, timeout_s: float) -> int:
    if report.outcome == TIMEOUT:
        last = report.phases[-1].name if report.phases else "nothing"
        why = f"not over after {timeout_s:g} s, last phase: {last}"
        say(f"lispfmc: {report.user}: {why}; see: lispfmc monitor --snapshot")
        return CONDITION
    if report.outcome == Outcome.failed.value:
        say(f"lispfmc: {report.service}: its move failed: {report.reason}; see: lispfmc show placements")
        return CONDITION
    if report.outcome == ALREADY_THERE and measure:
        say(f"lispfmc: {report.user}: is at {report.to_site} already, there is nothing to measure; choose another site")
        return CONDITION
    return DONE
