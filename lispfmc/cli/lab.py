"""`lispfmc lab up|status|down|exec|impair|demo`: the whole network on this machine."""

from __future__ import annotations

from typing import Any

from lispfmc.cli.failure import CONDITION, DONE, Failure, unknown
from lispfmc.cli.output import Format, print_json, print_table, print_text, say
from lispfmc.lab import lifecycle
from lispfmc.lab.installation import Ambiguous, load, run_directory
from lispfmc.lab.phases import Outcome


def up(
    topology: str, name: str | None, *, driver: str, scheme: str = "", impairable: bool = False, output: Format
) -> int:
    """Exit 0 when every daemon is ready and every node is at its place."""
    lab = lifecycle.up(topology, name, say, driver=driver, scheme=scheme, by_forwarder=impairable)
    if output is Format.json:
        import msgspec

        print_json(msgspec.to_builtins(lab))
    else:
        users = ", ".join(user.name for user in lab.users())
        print_text(f"lab {lab.name} is up: {len(lab.daemons)} daemons, {len(lab.nodes)} nodes; users: {users}")
        user = lab.users()[0]
        measure = " --measure" if driver == "emulated" else ""  # the probes run in lab nodes
        say(f"now: lispfmc move {user.name} --to {user.sites[-1]} --wait{measure}")
    return DONE


def status(name: str | None, *, output: Format) -> int:
    """Exit 0 when all of it is ready, else 1."""
    told = lifecycle.status(name)
    if output is Format.json:
        print_json(told)
    else:
        print_text(f"lab {told['name']}, topology {told['topology']}, {told['kind']}")
        print_table(["NAME", "ROLE", "STATE", "DETAIL"], [_row(one) for one in (*told["daemons"], *told["nodes"])])
    return DONE if told["ready"] else CONDITION


def _row(one: dict[str, Any]) -> list[object]:
    running = one.get("running", True)
    state = "ready" if running and one["why"] is None else "not ready" if running else "not running"
    return [one["name"], one["role"], state, one["why"] or (f"at {one['site']}" if one.get("site") else "")]


def plan(topology: str, name: str | None, *, driver: str, scheme: str, output: Format) -> int:
    """What `up` would build. Exit 1 when something of such a lab is there already."""
    from lispfmc.lab.topology import load_topology

    described = load_topology(topology, scheme)
    name = name or described.name
    there = lifecycle.traces(name)
    told = {
        "lab": name,
        "topology": described.name,
        "members": sorted(described.members),
        "nodes": [node.name for node in described.nodes],
        "driver": driver,
        "scheme": described.fmcc.scheme,
        "there": there,
    }
    if output is Format.json:
        print_json(told)
    else:
        print_text(
            f"lab {name}: {len(described.members)} members ({', '.join(sorted(described.members))}), "
            f"{len(described.nodes)} nodes, services by {driver}, moved by {described.fmcc.scheme}"
        )
    if there:
        say(f"lispfmc: lab {name} is there already: {'; '.join(there)}; run: lispfmc lab down {name}")
    return CONDITION if there else DONE


def down(name: str | None, *, purge: bool = False, dry_run: bool = False, output: Format) -> int:
    """Exit 0 when nothing is left of it, but its logs unless `purge`; that there was nothing is no failure. `dry_run`:
    only say what would go."""
    name = name or _the_one_there()
    found = [] if name is None else lifecycle.traces(name) if dry_run else lifecycle.down(name, purge=purge)
    logs = None if name is None or dry_run else lifecycle.logs_of(name)
    if logs is not None:
        say(f"its logs stay in {logs}; to remove them: lispfmc lab down {name} --purge")
    if output is Format.json:
        print_json({"lab": name, "removed": found, "logs": logs and str(logs)})
    elif name is None or not found:
        print_text(f"lab {name} was not up" if name else "no lab was up")
    elif dry_run:
        print_text(f"lab {name}: would be removed: {'; '.join(found)}")
    else:
        print_text(f"lab {name} is down; removed: {'; '.join(found)}")
    return DONE


async def impair(
    between: tuple[str, ...],
    rtt_ms: float | None,
    control_loss: float,
    name: str | None,
    *,
    dry_run: bool = False,
    output: Format,
) -> int:
    """Exit 0 when the WAN works so, or with `dry_run` could."""
    from lispfmc.lab.impairment import impair as change
    from lispfmc.lab.impairment import members

    lab = load(name)
    for member in between:
        if member not in members(lab):
            raise unknown("member of the WAN", member, members(lab))
    rtts = {} if rtt_ms is None else {frozenset(between): rtt_ms}
    if not dry_run:
        await change(lab, rtts, control_loss_percent=control_loss)
    if output is Format.json:
        print_json({"lab": lab.name, "between": between, "rtt_ms": rtt_ms, "control_loss_percent": control_loss})
    else:
        changed = "" if rtt_ms is None else f"{' and '.join(between)} are {rtt_ms:g} ms apart, "
        would = "would be: " if dry_run else ""
        print_text(f"lab {lab.name}: {would}{changed}{control_loss:g} % of control packets are lost")
    return DONE


def _the_one_there() -> str | None:
    """The lab of which there is any trace, `lab.json` or not: a killed `up` leaves none."""
    folders = [path.name for path in run_directory().glob("*") if path.is_dir()]
    names = [name for name in sorted({*folders, "fig5", "metro", "mobiscud"}) if lifecycle.traces(name)]
    if len(names) > 1:
        raise Ambiguous(f"several labs are there: {', '.join(names)}; run: lispfmc lab down NAME")
    return names[0] if names else None


def execute(place: str, command: list[str], name: str | None, *, output: Format) -> int:
    """Exit as the command does; its output goes where ours goes, or into the JSON."""
    if output is Format.json:
        raise Failure(64, "lab exec -o json", "the output is the command's own", "leave out -o json")
    return lifecycle.execute(place, command, name)


def graph(topology: str, drawing: str) -> int:
    from lispfmc.lab.picture import DRAWINGS
    from lispfmc.lab.topology import load_topology

    print_text(DRAWINGS[drawing](load_topology(topology)).rstrip("\n"))
    return DONE


def demo(topology: str, *, scheme: str = "", output: Format) -> int:
    """Exit 0 when the service has followed the user."""
    from lispfmc.cli.story import phase_text, print_report
    from lispfmc.lab.demo import run

    tell = say if output is Format.json else print_text  # as they happen; for programs they are in the JSON too
    report = run(topology, scheme=scheme, say=say, on_phase=lambda phase: tell(phase_text(phase)))
    if output is Format.json:
        print_json(report.document())
    else:
        print_text("")
        print_report(report)
    if report.outcome != Outcome.committed.value:
        say(f"lispfmc: the service did not follow: {report.outcome} {report.reason}")
        return CONDITION
    return DONE
