"""The report as one HTML page that needs nothing else: pictures are inside, no script, no font, nothing remote."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from lispfmc.experiment.paper.printed import papers
from lispfmc.experiment.paper.result import Figure, Kept

STYLE = """
:root { color-scheme: light dark; --ink: #1d1f21; --paper: #fff; --soft: #5c6166; --rule: #d0d4d8; --head: #f1f3f5;
  --note: #fff6da; --stop: #fde8e6 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6e8; --paper: #16181a; --soft: #a0a6ac; --rule: #3a3f44;
  --head: #22262a; --note: #332d16; --stop: #3b1f1d } }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink);
  background: var(--paper) }
h1 { line-height: 1.2 } h2 { border-top: 1px solid var(--rule); padding-top: 1.5rem; margin-top: 2.5rem }
a { color: inherit } nav li { margin: .2rem 0 }
.wide { overflow-x: auto; margin: .8rem 0 }
table { border-collapse: collapse; font-size: .9rem; min-width: 100% }
th, td { border-bottom: 1px solid var(--rule); padding: .35rem .7rem .35rem 0; text-align: left; vertical-align: top }
th { color: var(--soft); font-weight: 600 } td:first-child { min-width: 8rem }
figure { margin: 1rem 0 } figcaption { color: var(--soft); font-size: .9rem }
img { width: 100%; max-width: 52rem; height: auto; background: #fff; border-radius: 4px }
.environment { color: var(--soft); font-size: .85rem; overflow-wrap: anywhere }
.made { background: var(--note); padding: .5rem 1rem } .cannot { background: var(--stop); padding: .5rem 1rem }
@media (max-width: 40rem) {
  table, tbody, tr, td { display: block } tr:has(th) { display: none }
  tr { border-bottom: 1px solid var(--rule); padding: .4rem 0 } td { border: 0; padding: .1rem 0 }
  td:first-child { font-weight: 600 } td[data-head]:not([data-head=""])::before { content: attr(data-head) ": ";
  color: var(--soft) }
}
"""
SHOWN = ("commit", "started", "cpu", "cpus", "kernel", "python", "load_1m")


def page(kept: Sequence[Kept], cannot: Mapping[str, str], folder: Path) -> str:
    """`cannot`: parts that were asked for and not made, with why."""
    body = [
        "<h1>The papers' experiments, repeated</h1>",
        _papers(),
        _state(kept, cannot),
        _contents(kept),
        *(_part(each, folder) for each in kept),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<title>The papers' experiments, repeated</title>"
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
        texts.append(f"Parts are from different versions: {', '.join(sorted(map(_short, commits)))}.")
    if any(commit.endswith("+") for commit in commits):
        texts.append("The source tree had changes that are in no commit (+).")
    state = "".join(f'<p class="made">{escape(text)}</p>' for text in texts)
    lines = "".join(f"<li><b>{escape(name)}</b>: {escape(why)}</li>" for name, why in cannot.items())
    return state + (f'<div class="cannot">Not made:<ul>{lines}</ul></div>' if lines else "")


def _short(commit: str) -> str:
    return commit[:12] + commit[40:]  # and its "+"


def _contents(kept: Sequence[Kept]) -> str:
    lines = "".join(f'<li><a href="#{escape(each.result.part)}">{escape(each.result.title)}</a></li>' for each in kept)
    return f"<nav><ul>{lines}</ul></nav>"


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
            _picture(figure, folder),
            _table(("", "the paper reports", "measured here", "why they differ"), rows),
            *(f"<p>{escape(sentence)}</p>" for sentence in figure.sentences),
        ]
    )


def _picture(figure: Figure, folder: Path) -> str:
    if figure.chart is None:
        return f"<p>{escape(figure.source)}.</p>"
    caption = f"<figcaption>{escape(_caption(figure))}</figcaption>"
    try:
        data = base64.b64encode((folder / "figures" / f"{figure.name}.svg").read_bytes()).decode()
    except OSError:
        return f'<p class="cannot">No picture: it could not be drawn here; the values are in the tables.</p>{caption}'
    picture = f'<img alt="{escape(figure.title)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{picture}{caption}</figure>"


def _caption(figure: Figure) -> str:
    """Which figure of the papers it stands beside, what the curves are, and how many moves are behind them."""
    assert figure.chart is not None
    measured = [line.label for line in figure.chart.lines if line.kind == "measured" and line.low]
    counted = [f"{label} a point" for label in measured if "n = " in label]
    parts = [figure.source, figure.chart.note, "; ".join(counted)]
    return ". ".join(part for part in parts if part) + "."


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = "".join(
        "<tr>"
        + "".join(f'<td data-head="{escape(name)}">{escape(text)}</td>' for name, text in zip(heads, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>'
