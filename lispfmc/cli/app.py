"""The verbs and their options. Each verb loads its own module when it is called, so that none pays for the others."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from lispfmc.cli import completion
from lispfmc.cli.computing import model_app, simulate
from lispfmc.cli.experiment import experiment_app
from lispfmc.cli.failure import CONFIG, DONE, UNREACHABLE, USAGE, Failure
from lispfmc.cli.output import Format, print_text, say

INTERRUPTED = 130  # 128 + SIGINT, as shells count

# typer's own copy of click and click itself both derive these; their private paths differ between versions
USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="lispfmc",
    help="Follow-Me Cloud on LISP: users move, their services follow, no connection is lost.",
    epilog="Begin with: lispfmc lab demo. Exit codes: 0 done, 1 condition not met, 2 cannot reach, 64 usage, "
    "78 bad configuration.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
lab_app = typer.Typer(help="A whole network on this machine.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(lab_app, name="lab", short_help="A whole network on this machine")
moves_app = typer.Typer(help="Moves of services.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(moves_app, name="moves", short_help="Moves of services: list, start, abort")
app.add_typer(experiment_app, name="experiment", short_help="Many moves, measured and compared")
app.add_typer(model_app, name="model", short_help="The papers' analytic models")

Scheme = Annotated[str, typer.Option("--scheme", help="how services move, for example fig9")]
Output = Annotated[Format, typer.Option("-o", "--output", help="table for people, json for programs")]
Lab = Annotated[
    str | None,
    typer.Option("--lab", envvar="LISPFMC_LAB", help="which lab, when several are up", autocompletion=completion.labs),
]
Name = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="which lab, when several are up", autocompletion=completion.labs),
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="S", min=0.1, help="seconds to wait at most")]
Topology = Annotated[
    str, typer.Option("--topology", help="fig5, metro, mobiscud, or a TOML file", autocompletion=completion.topologies)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and do nothing")]


class Kind(StrEnum):
    """What `check` can check."""

    xtr = "xtr"
    mapserver = "mapserver"
    fmcc = "fmcc"
    agent = "agent"
    topology = "topology"


class Drawing(StrEnum):
    """What `lab graph` can draw."""

    mermaid = "mermaid"
    dot = "dot"
    svg = "svg"


class LabDriver(StrEnum):
    """What the lab's services are."""

    emulated = "emulated"
    qemu = "qemu"


class Table(StrEnum):
    """What `show` can show."""

    map_cache = "map-cache"
    registrations = "registrations"
    subscriptions = "subscriptions"
    placements = "placements"
    users = "users"
    services = "services"
    datacenters = "datacenters"
    distances = "distances"
    hosts = "hosts"
    rejects = "rejects"


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        from lispfmc import __version__

        print_text(f"lispfmc {__version__}")
        raise typer.Exit


@app.callback()
def whole(
    _: Annotated[  # noqa: FBT002 - likewise
        bool, typer.Option("--version", is_eager=True, callback=_version, help="print the version and exit")
    ] = False,
) -> None:
    """Follow-Me Cloud on LISP: users move, their services follow, no connection is lost."""


@app.command(short_help="Move a user to another site")
def move(
    user: Annotated[str, typer.Argument(help="who moves, for example alice", autocompletion=completion.users)],
    to: Annotated[
        str,
        typer.Option("--to", metavar="SITE", help="the access network to move to", autocompletion=completion.sites),
    ],
    wait: Annotated[bool, typer.Option("--wait", help="until the service has followed, or will not")] = False,  # noqa: FBT002 - typer's way to declare a flag
    measure: Annotated[bool, typer.Option("--measure", help="probe both directions through both moves")] = False,  # noqa: FBT002 - likewise
    scheme: Scheme = "",
    timeout: Timeout = 60.0,
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Move a user's link to another site and tell each phase with its milliseconds."""
    from lispfmc.cli.move import move as verb

    asked = verb(user, to, lab_name=lab, wait=wait, measure=measure, timeout_s=timeout, scheme=scheme, output=output)
    _finish(asked)


@app.command(short_help="Is every daemon and node there and ready?")
def status(
    wait: Annotated[bool, typer.Option("--wait", help="until everything is ready")] = False,  # noqa: FBT002 - likewise
    timeout: Timeout = 30.0,
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Every daemon and node on one screen: is it there, is it ready, and if not, why."""
    from lispfmc.cli.status import status as verb

    _finish(verb(lab_name=lab, wait_s=timeout if wait else 0.0, output=output))


@app.command(short_help="One table of the daemons' state")
def show(
    table: Annotated[Table, typer.Argument(help="which table")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="DAEMON", help="only this daemon's", autocompletion=completion.daemons)
    ] = None,
    eid: Annotated[str | None, typer.Option("--eid", help="only registrations for this EID or prefix")] = None,
    site: Annotated[str | None, typer.Option("--site", help="only registrations of this site")] = None,
    xtr: Annotated[str | None, typer.Option("--xtr", help="only registrations of the xTR with this xTR-ID")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="so many registrations at most")] = None,
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """One table of the daemons' state."""
    if table is Table.registrations:
        from lispfmc.cli.registrations import registrations

        _finish(registrations(at=at, eid=eid, site=site, xtr=xtr, limit=limit, lab_name=lab, output=output))
    if any(each is not None for each in (eid, site, xtr, limit)):
        raise typer.BadParameter("--eid, --site, --xtr and --limit choose among registrations")
    from lispfmc.cli.show import show as verb

    _finish(verb(table.value, at=at, lab_name=lab, output=output))


@app.command(short_help="Have Map-Servers read their configuration anew")
def reload(
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="DAEMON", help="only this Map-Server", autocompletion=completion.daemons),
    ] = None,
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Have Map-Servers read their configuration anew: checked first, then applied as a whole, or kept."""
    from lispfmc.cli.reload import reload as verb

    _finish(verb(at=at, lab_name=lab, output=output))


@app.command(short_help="Ask a Map-Resolver where an EID is")
def lookup(
    eid: Annotated[
        str,
        typer.Argument(help="an address or prefix, for example 100.64.1.10; or self", autocompletion=completion.eids),
    ],
    via: Annotated[str | None, typer.Option("--via", metavar="MR", help="address of the Map-Resolver to ask")] = None,
    iid: Annotated[int, typer.Option("--iid", min=0, max=(1 << 24) - 1, help="Instance-ID")] = 0,
    count: Annotated[int, typer.Option("--count", min=1, max=5, help="requests to send at most")] = 3,
    subscribe: Annotated[bool, typer.Option("--subscribe", help="stay, and show every change")] = False,  # noqa: FBT002 - likewise
    identity: Annotated[Path | None, typer.Option("--identity", metavar="FILE", help="as whom to subscribe")] = None,
    at: Annotated[str | None, typer.Option("--at", metavar="XTR", help="self: only this tunnel router")] = None,
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Ask a Map-Resolver where an EID is, as any tunnel router would; `self`: are ours registered?"""
    from lispfmc.cli.lookup import lookup as verb

    _finish(
        verb(
            eid,
            via=via,
            iid=iid,
            count=count,
            lab_name=lab,
            output=output,
            live=subscribe,
            identity=identity,
            at=at,
        )
    )


@app.command(short_help="Would a daemon take this configuration?")
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="TOML files of daemons, or topologies")],
    kind: Annotated[
        Kind | None, typer.Option("--as", help="what they configure; found by their keys unless given")
    ] = None,
    output: Output = Format.table,
) -> None:
    """Check configuration files as the daemons do: every problem with file, line and column."""
    from lispfmc.cli.check import check as verb

    raise typer.Exit(verb(files, kind.value if kind else None, output=output))


@app.command(short_help="Everything for a bug report, keys redacted")
def bundle(
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="the archive to write (.tar.gz)")] = None,
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Collect configurations, states, events, metrics and logs of every daemon in one archive, without secrets."""
    from lispfmc.cli.bundle import bundle as verb

    _finish(verb(lab_name=lab, out=out, output=output))


@app.command(short_help="Show what LISP messages say")
def decode(
    what: Annotated[str, typer.Argument(metavar="HEX|FILE.pcap", help="a message in hex, or a capture")],
    output: Output = Format.table,
) -> None:
    """Show what LISP messages say; a malformed one with the offset, the field and the reason."""
    from lispfmc.cli.decode import decode as verb

    raise typer.Exit(verb(what, output=output))


@app.command(short_help="Show the generated wire code")
def wire(
    source: Annotated[str, typer.Option("--source", metavar="MESSAGE", help="for example MapRegister; all: every one")],
) -> None:
    """Print the code that the wire codec generated from its declarations, for review."""
    from lispfmc.cli.wire import wire as verb

    raise typer.Exit(verb(source))


@app.command(short_help="Every event of every daemon, as it happens")
def monitor(
    snapshot: Annotated[bool, typer.Option("--snapshot", help="first the events that the daemons still keep")] = False,  # noqa: FBT002 - likewise
    eid: Annotated[str | None, typer.Option("--eid", help="only events that name this EID")] = None,
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Every event of every daemon as it happens; with -o json one object a line."""
    from lispfmc.cli.monitor import monitor as verb

    _finish(verb(lab_name=lab, snapshot=snapshot, eid=eid, output=output))


@app.command(short_help="Why a service moved, or did not")
def explain(
    user: Annotated[str, typer.Argument(help="whose services, for example alice", autocompletion=completion.users)],
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Why the controller moved a user's services, or did not: the rule that won, and the runner-up."""
    from lispfmc.cli.explain import explain as verb

    _finish(verb(user, lab_name=lab, output=output))


@moves_app.command("list", short_help="The last moves, of all runs")
def moves_list(
    service: Annotated[str | None, typer.Option("--service", help="only this service's")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="so many at most")] = 20,
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """The last moves, newest first, of all runs of the controller."""
    from lispfmc.cli.moves import listed

    _finish(listed(service, limit=limit, lab_name=lab, output=output))


@moves_app.command("start", short_help="Move a service to a data centre")
def moves_start(
    service: Annotated[str, typer.Argument(help="which service, for example alice-app")],
    to: Annotated[str, typer.Option("--to", metavar="DC", help="the data centre to move to")],
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Move a service to a data centre, whatever the policy says."""
    from lispfmc.cli.moves import started

    _finish(started(service, to, lab_name=lab, output=output))


@moves_app.command("abort", short_help="Give a move up")
def moves_abort(
    move: Annotated[str, typer.Argument(metavar="ID", help="the move's id, as list and monitor show it")],
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Give a move up, as long as the machine does not stand still; the service goes on where it is."""
    from lispfmc.cli.moves import aborted

    _finish(aborted(move, lab_name=lab, output=output))


app.command("simulate", short_help="Score policies on walks and traces")(simulate)


@lab_app.command("up", short_help="Bring a network up in namespaces")
def lab_up(
    topology: Topology = "fig5",
    name: Annotated[str | None, typer.Option("--name", help="the lab's name; the topology's unless given")] = None,
    driver: Annotated[LabDriver, typer.Option("--driver", help="qemu: services are real virtual machines")] = (
        LabDriver.emulated
    ),
    scheme: Scheme = "",
    output: Output = Format.table,
) -> None:
    """Bring a network up in namespaces."""
    from lispfmc.cli.lab import up

    raise typer.Exit(up(topology, name, driver=driver.value, scheme=scheme, output=output))


@lab_app.command("status", short_help="What of the network is there")
def lab_status(name: Name = None, output: Output = Format.table) -> None:
    """What of the network is there."""
    from lispfmc.cli.lab import status as verb

    raise typer.Exit(verb(name, output=output))


@lab_app.command("down", short_help="Remove it, or what a killed up left")
def lab_down(name: Name = None, output: Output = Format.table) -> None:
    """Remove the network and whatever a killed `up` left behind."""
    from lispfmc.cli.lab import down

    raise typer.Exit(down(name, output=output))


@lab_app.command(
    "exec",
    short_help="Run a command inside a site",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def lab_exec(
    place: Annotated[
        str, typer.Argument(metavar="SITE", help="a site, a daemon or a node", autocompletion=completion.places)
    ],
    command: Annotated[list[str], typer.Argument(metavar="CMD...")],
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Run a command inside a site, and exit as it does."""
    from lispfmc.cli.lab import execute

    raise typer.Exit(execute(place, command, lab, output=output))


@lab_app.command("graph", short_help="Draw a network")
def lab_graph(
    topology: Topology = "fig5",
    output: Annotated[Drawing, typer.Option("-o", "--output", help="what to draw it as")] = Drawing.mermaid,
) -> None:
    """Draw a topology: its sites, who starts where, and the round-trip times."""
    from lispfmc.cli.lab import graph

    raise typer.Exit(graph(topology, output.value))


@lab_app.command("impair", short_help="Change a round-trip time, lose control packets")
def lab_impair(
    between: Annotated[
        list[str] | None, typer.Argument(metavar="[A B]", help="two members; fmcc and mapserver are some")
    ] = None,
    rtt: Annotated[float | None, typer.Option("--rtt", metavar="MS", min=0, max=10_000, help="between A and B")] = None,
    control_loss: Annotated[
        float,
        typer.Option("--control-loss", metavar="PERCENT", min=0, max=99, help="everywhere, of all but users' data"),
    ] = 0.0,
    lab: Lab = None,
    output: Output = Format.table,
) -> None:
    """Change what the WAN of a running lab does: until the next time, the rest stays as it is."""
    from lispfmc.cli.lab import impair

    if (rtt is None) != (not between) or (between and len(between) != 2):
        raise typer.BadParameter("name two members and give --rtt, or neither")
    _finish(impair(tuple(between or ()), rtt, control_loss, lab, output=output))


@lab_app.command("demo", short_help="Build, move, measure, remove")
def lab_demo(topology: Topology = "fig5", scheme: Scheme = "", output: Output = Format.table) -> None:
    """Build the network, move a user, watch the service follow, say what it cost, remove the network."""
    from lispfmc.cli.lab import demo

    raise typer.Exit(demo(topology, scheme=scheme, output=output))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code. Nothing that can be foreseen ends in a traceback."""
    from lispfmc.wire.errors import LocalError

    try:
        result: Any = app(list(arguments), standalone_mode=False, prog_name="lispfmc")
    except USAGE_ERROR as error:
        return _usage(error)
    except Failure as failure:
        say(f"lispfmc: {failure}")
        return failure.code
    except LocalError as error:
        say(f"lispfmc: {error}")
        return _code_of(error)
    except (KeyboardInterrupt, typer.Abort):
        say("lispfmc: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # who read us has seen enough; what is still buffered must not raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except PermissionError as error:
        say(f"lispfmc: {error.filename or 'this command'}: not allowed: {error.strerror}; run it as root")
        return UNREACHABLE
    return result if isinstance(result, int) else DONE


def _usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "lispfmc"
    message = cast(Any, error).format_message().rstrip(".")
    if type(error).__name__ == "NoArgsIsHelpError":
        say(str(cast(Any, error).format_message()))
    else:
        say(f"{path}: {message}; see: {path} --help")
    return USAGE


def _code_of(error: Exception) -> int:
    """The exit code of an error of the lab, the client or the configuration. Loaded here: only failures pay for it."""
    from fmcc.policy.models.checks import BadParameter
    from fmcc.policy.simulation.faults import TraceError
    from lispfmc.experiment.design import BadDesign
    from lispfmc.lab.installation import Ambiguous, BadName, NotUp
    from lispfmc.runtime.client import Unreachable
    from lispfmc.runtime.config import ConfigError

    if isinstance(error, ConfigError | TraceError):
        return CONFIG
    if isinstance(error, Unreachable | NotUp):
        return UNREACHABLE
    if isinstance(error, Ambiguous | BadDesign | BadName | BadParameter):
        return USAGE
    return 1


def _finish(verb: Coroutine[Any, Any, int]) -> None:
    raise typer.Exit(asyncio.run(verb))
