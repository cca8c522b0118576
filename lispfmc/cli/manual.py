"""Manual pages from the help that the commands print: `python -m lispfmc.cli.manual DIR` writes lispfmc*.1 and *.8.

Packages call it when they are built, so that a page says what `--help` says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import lispfmc
from lispfmc.cli.app import app
from lispfmc.runtime import service

DAEMONS = {
    "xtr": "LISP tunnel router (ITR and ETR, RFC 9300)",
    "mapserver": "LISP Map-Server and Map-Resolver (RFC 9301, RFC 9437)",
    "fmcc": "Follow-Me Cloud controller",
    "agent": "hypervisor agent of a data centre",
}
EXIT_CODES = (
    ("0", "done"),
    ("1", "the condition that was asked for is not met"),
    ("2", "cannot reach a daemon"),
    ("64", "wrong usage"),
    ("78", "wrong configuration"),
)


def pages() -> Iterator[tuple[str, str]]:
    """File name and text of every page."""
    root = typer.main.get_command(app)
    for path, command in _commands(("lispfmc",), root):
        yield f"{'-'.join(path)}.1", _command_page(path, command)
    for daemon, what in DAEMONS.items():
        yield f"lispfmc-{daemon}.8", _daemon_page(daemon, what)


def _commands(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inside in getattr(command, "commands", {}).items():
        yield from _commands((*path, name), inside)


def _command_page(path: tuple[str, ...], command: Any) -> str:
    context = command.make_context(" ".join(path), [], resilient_parsing=True)
    usage = [piece.strip("[]") if piece == "[ARGS]..." else piece for piece in command.collect_usage_pieces(context)]
    lines = _head("-".join(path), 1, command.get_short_help_str(limit=200))
    lines += [".SH SYNOPSIS", f".B {' '.join(path)}", _escaped(" ".join(usage)), ".SH DESCRIPTION"]
    lines.append(_escaped(" ".join((command.help or "").split())))
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    for parameter in arguments:
        metavar = parameter.metavar or parameter.name.upper()
        lines += [".TP", f"\\fI{_escaped(metavar)}\\fR", _escaped(parameter.help or "")]
    options = [record for one in command.params if one not in arguments if (record := one.get_help_record(context))]
    if options:
        lines.append(".SH OPTIONS")
    for names, text in options:
        lines += [".TP", f"\\fB{_escaped(names)}\\fR", _escaped(text)]
    inside = getattr(command, "commands", {})
    if inside:
        lines.append(".SH COMMANDS")
    for name, one in inside.items():
        lines += [".TP", f"\\fB{_escaped('-'.join((*path, name)))}\\fR(1)", _escaped(one.get_short_help_str(limit=200))]
    return "\n".join([*lines, *_exit_status()]) + "\n"


def _daemon_page(daemon: str, what: str) -> str:
    name = f"lispfmc-{daemon}"
    parser = service.parser(name, checks=True)
    lines = _head(name, 8, what)
    lines += [".SH SYNOPSIS", f".B {name}", _escaped(" ".join(parser.format_usage().split()[2:]))]
    lines += [".SH DESCRIPTION", f"Runs one {_escaped(what)}, as its configuration says, until SIGTERM or SIGINT."]
    if daemon == "mapserver":
        lines.append("SIGHUP has it read its configuration anew: it is applied as a whole, or kept.")
    lines.append(".SH OPTIONS")
    for action in parser._actions:  # noqa: SLF001 - argparse tells them to nobody else
        if not isinstance(action, argparse._HelpAction):  # noqa: SLF001 - likewise
            value = f" {action.metavar or ''}" if action.nargs != 0 else ""
            lines += [
                ".TP",
                f"\\fB{_escaped(', '.join(action.option_strings))}\\fR{value}",
                _escaped(action.help or ""),
            ]
    lines += [
        ".SH FILES",
        ".TP",
        f"\\fI/etc/lispfmc/{daemon}.toml\\fR",
        "its configuration, where the package's unit looks",
    ]
    lines += [".TP", f"\\fI/usr/share/doc/lispfmc/examples/{daemon}.toml\\fR", "an example"]
    return "\n".join([*lines, *_exit_status()]) + "\n"


def _head(name: str, section: int, what: str) -> list[str]:
    title = f'.TH "{name.upper()}" "{section}" "" "lispfmc {lispfmc.__version__}" "lispfmc"'
    return [title, ".SH NAME", f"{_escaped(name)} \\- {_escaped(what)}"]


def _exit_status() -> list[str]:
    lines = [".SH EXIT STATUS"]
    for code, meaning in EXIT_CODES:
        lines += [".TP", f"\\fB{code}\\fR", meaning]
    return lines


def _escaped(text: str) -> str:
    """As roff takes it: a backslash, a minus and a dot at the start of a line mean something there."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in {".", "'"} else text


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m lispfmc.cli.manual DIR\n")
        return service.EXIT_USAGE
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / name).write_text(text, encoding="utf-8")
    return service.EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
