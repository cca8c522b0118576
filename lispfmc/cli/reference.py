"""Reference pages from the code: `python -m lispfmc.cli.reference DIR` writes configuration.md and commands.md.

What a key means is the text under its field in the settings class; what a command does is its help.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from lispfmc.cli.check import KINDS
from lispfmc.cli.commands import EXIT_CODES, Command, Entry, commands
from lispfmc.cli.keys import Table, tables
from lispfmc.runtime import service

MADE = "<!-- Made from the code by `make reference`: change it there. -->"
TITLES = {
    "xtr": "Tunnel router",
    "mapserver": "Map-Server and Map-Resolver",
    "fmcc": "Controller",
    "agent": "Hypervisor agent",
    "topology": "Topology of a lab",
}


def pages() -> dict[str, str]:
    """File name and text of every page."""
    return {"configuration.md": configuration(), "commands.md": command_line()}


def configuration() -> str:
    lines = [
        "# Configuration, key by key",
        "",
        MADE,
        "",
        "Every key that a file may have. How the files belong together, with whole examples, is told in",
        "[configuration](../configuration.md); `lispfmc check FILE` says what is wrong with one. `[name]` is a table,",
        "`[[name]]` one of several tables of that name. An empty default: nothing, or as the meaning says.",
    ]
    for kind, model in KINDS.items():
        lines += ["", f"## {TITLES[kind]}"]
        for table in tables(model):
            lines += ["", *_table(kind, table)]
    return "\n".join(lines) + "\n"


def _table(kind: str, table: Table) -> list[str]:
    title = [f"### {kind}: `{table.header}`", ""] if table.path else []
    about = [table.about, ""] if table.about and table.path else []
    rows = [
        f"| `{key.name}` | {_cell(key.kind)} | {_cell(key.default)} | {key.unit} | {_cell(key.meaning)} |"
        for key in table.keys
    ]
    if not rows:
        return [*title, *about][:-1]
    return [*title, *about, "| Key | Value | Default | Unit | Meaning |", "|---|---|---|---|---|", *rows]


def command_line() -> str:
    lines = ["# Commands", "", MADE, "", "What `--help` says of every command, on one page.", ""]
    lines += ["| Exit code | Meaning |", "|---|---|", *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES)]
    for command in commands():
        lines += ["", *_section(command)]
    return "\n".join(lines) + "\n"


def _section(command: Command) -> list[str]:
    lines = [f"## {command.name}", "", command.help, "", "```text", f"{command.name} {command.usage}", "```"]
    options = [each for each in command.options if each.name != "--help"]
    groups = (("Argument", command.arguments), ("Option", options), ("Command", command.commands))
    for title, entries in groups:
        if entries:
            lines += ["", f"| {title} | Meaning |", "|---|---|", *_rows(entries)]
    return lines


def _rows(entries: Iterable[Entry]) -> list[str]:
    return [f"| `{_cell(each.name)}` | {_cell(' '.join(each.text.split()))} |" for each in entries]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m lispfmc.cli.reference DIR\n")
        return service.EXIT_USAGE
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
    return service.EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
