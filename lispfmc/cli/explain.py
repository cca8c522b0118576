"""`lispfmc explain USER`: the last decision for each of the user's services, the rule that won and the runner-up."""

from __future__ import annotations

from typing import Any

from lispfmc.cli.failure import CONDITION, DONE, UNREACHABLE, Failure, unknown
from lispfmc.cli.output import Format, print_json, print_table, print_text, say
from lispfmc.lab.installation import Daemon, load


async def explain(user: str, *, lab_name: str | None, output: Format) -> int:
    """Exit 1 when nothing has been decided for the user yet."""
    controller = _controller(lab_name)
    async with controller.client() as api:
        users = {each["name"]: each for each in (await api.get("/v1/users"))["items"]}
        if user not in users:
            raise unknown("user", user, users)
        decisions = [each for each in (await api.get("/v1/decisions"))["items"] if each["user"] == user]
    if output is Format.json:
        print_json({"user": user, "site": users[user]["site"], "decisions": decisions})
    else:
        print_text("\n\n".join(_told(decision) for decision in decisions)) if decisions else None
        for decision in decisions:
            _candidates(decision)
    if not decisions:
        why = f"nothing has been decided yet, {user} has not been seen moving"
        say(f"lispfmc: {user}: {why}; see: lispfmc show placements")
        return CONDITION
    return DONE


def _controller(lab_name: str | None) -> Daemon:
    lab = load(lab_name)
    controllers = [daemon for daemon in lab.daemons if daemon.role == "fmcc"]
    if not controllers:
        raise Failure(UNREACHABLE, f"lab {lab.name}", "has no controller", "choose a lab that has one")
    return controllers[0]


def _told(decision: dict[str, Any]) -> str:
    verdict = f"moves from {decision['from']} to {decision['to']}"
    if decision["decision"] == "stay":
        verdict = f"stays at {decision['from']}"
    elif decision["mode"] == "observe":
        verdict = f"would move from {decision['from']} to {decision['to']} (the controller only observes)"
    named = f", class {decision['service_class']}" if decision["service_class"] else ""
    return "\n".join(
        [
            f"{decision['service']}{named}: {verdict}, decided {decision['age_s']:.0f} s ago for {decision['site']}",
            f"  rule       {decision['rule']}: {decision['reason']}",
            f"  runner-up  {decision['runner_up'] or 'none'}",
            f"  policy     {decision['policy']}; ping-pongs so far: {decision['ping_pongs']}",
        ]
    )


def _candidates(decision: dict[str, Any]) -> None:
    print_text("")
    rows = [
        [each["datacenter"], each["rtt_ms"], each["free"], each["load"], each["transfer_s"]]
        for each in decision["candidates"]
    ]
    print_table([decision["service"].upper(), "RTT MS", "FREE", "LOAD", "COPY S"], rows)
