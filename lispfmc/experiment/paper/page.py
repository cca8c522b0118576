"""The report as one HTML page that needs nothing else: pictures are inside, no script, no font, nothing remote."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from lispfmc.experiment.paper.printed import papers
from lispfmc.experiment.paper.result import Figure, Kept

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h2 { border-top: 1px solid #ccc; padding-top: 1.5rem; margin-top: 2.5rem }
table { border-collapse: collapse; margin: .8rem 0; font-size: .9rem }
th, td { border: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top }
th { background: #f4f4f4 } img { max-width: 100% }
.source, .environment { color: #666; font-size: .9rem } .made { background: #fff8e0; padding: .5rem 1rem }
.cannot { background: #fdecea; padding: .5rem 1rem }
"""
SHOWN = ("commit", "started", "cpu", "cpus", "kernel", "python", "load_1m")


def page(kept: Sequence[Kept], cannot: Mapping[str, str], folder: Path) -> str:
    """`cannot`: parts that were asked for and not made, with why."""
    body = [
        "<h1>The papers' experiments, repeated</h1>",
        _papers(),
        _state(kept, cannot),
        *(_part(each, folder) for each in kept),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>The papers\' experiments, repeated</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _papers() -> str:
    rows = [(name, what) for name, what in papers().items()]
    return _table(("", "paper"), rows)


def _state(kept: Sequence[Kept], cannot: Mapping[str, str]) -> str:
    texts = []
    if any(each.settings["quick"] for each in kept):
        names = ", ".join(each.result.part for each in kept if each.settings["quick"])
        texts.append(f"Quick run: few repetitions and short copies in {names}. Its figures are indicative.")
    commits = {str(each.environment.get("commit")) for each in kept}
    if len(commits) > 1:
        texts.append(f"Parts are from different versions: {', '.join(sorted(commits))}.")
    if any(commit.endswith("+") for commit in commits):
        texts.append("The source tree had changes that are in no commit (+).")
    state = "".join(f'<p class="made">{escape(text)}</p>' for text in texts)
    lines = "".join(f"<li><b>{escape(name)}</b>: {escape(why)}</li>" for name, why in cannot.items())
    return state + (f'<div class="cannot">Not made:<ul>{lines}</ul></div>' if lines else "")


def _part(kept: Kept, folder: Path) -> str:
    result, environment = kept.result, kept.environment
    shown = ", ".join(f"{name} {environment[name]}" for name in SHOWN if environment.get(name) is not None)
    settings = ", ".join(f"{name} {value}" for name, value in kept.settings.items() if value is not None)
    files = ", ".join(f"<code>tables/{escape(table.name)}.csv</code>" for table in result.tables)
    return "\n".join(
        [
            f'<h2 id="{escape(result.part)}">{escape(result.title)}</h2>',
            *(f'<p class="made">{escape(text)}</p>' for text in result.made_by),
            *(f'<p class="cannot">{escape(text)}</p>' for text in result.cannot),
            *(_figure(figure, folder) for figure in result.figures),
            f'<p class="environment">Raw values: {files}, <code>parts/{escape(result.part)}.json</code>. '
            f"{escape(shown)}; {escape(settings)}; took {kept.took_s:.0f} s.</p>",
        ]
    )


def _figure(figure: Figure, folder: Path) -> str:
    rows = [(row.quantity, row.paper, row.measured, row.why) for row in figure.compared]
    return "\n".join(
        [
            f'<h3 id="{escape(figure.name)}">{escape(figure.title)}</h3>',
            f'<p class="source">{escape(figure.source)}</p>',
            _picture(figure, folder),
            _table(("", "the paper reports", "measured here", "why they differ"), rows),
            *(f"<p>{escape(sentence)}</p>" for sentence in figure.sentences),
        ]
    )


def _picture(figure: Figure, folder: Path) -> str:
    if figure.chart is None:
        return ""
    try:
        data = base64.b64encode((folder / "figures" / f"{figure.name}.svg").read_bytes()).decode()
    except OSError:
        return '<p class="cannot">No picture: it could not be drawn here; the values are in the tables.</p>'
    return f'<p><img alt="{escape(figure.title)}" src="data:image/svg+xml;base64,{data}"></p>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{lines}</table>"
