"""Manual pages from the help that the commands print: `python -m lispfmc.cli.manual DIR` writes lispfmc*.1 and *.8.

Packages call it when they are built, so that a page says what `--help` says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import lispfmc
from lispfmc.cli.commands import EXIT_CODES, Command, commands
from lispfmc.runtime import service

DAEMONS = {
    "xtr": "LISP tunnel router (ITR and ETR, RFC 9300)",
    "mapserver": "LISP Map-Server and Map-Resolver (RFC 9301, RFC 9437)",
    "fmcc": "Follow-Me Cloud controller",
    "agent": "hypervisor agent of a data centre",
}


def pages() -> Iterator[tuple[str, str]]:
    """File name and text of every page."""
    for command in commands():
        yield f"{'-'.join(command.path)}.1", _command_page(command)
    for daemon, what in DAEMONS.items():
        yield f"lispfmc-{daemon}.8", _daemon_page(daemon, what)


def _command_page(command: Command) -> str:
    lines = _head("-".join(command.path), 1, command.short_help)
    lines += [".SH SYNOPSIS", f".B {command.name}", _escaped(command.usage), ".SH DESCRIPTION", _escaped(command.help)]
    for argument in command.arguments:
        lines += [".TP", f"\\fI{_escaped(argument.name)}\\fR", _escaped(argument.text)]
    if command.options:
        lines.append(".SH OPTIONS")
    for option in command.options:
        lines += [".TP", f"\\fB{_escaped(option.name)}\\fR", _escaped(option.text)]
    if command.commands:
        lines.append(".SH COMMANDS")
    for inside in command.commands:
        name = "-".join((*command.path, inside.name))
        lines += [".TP", f"\\fB{_escaped(name)}\\fR(1)", _escaped(inside.text)]
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
