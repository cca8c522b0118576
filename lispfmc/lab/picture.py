"""A topology as a picture: Mermaid and Graphviz text, or an SVG of our own. Pure.

Users and services stand at the sites where they start; lines between sites carry the round-trip time.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from lispfmc.lab.topology import FMCC, MAPSERVER, Site, Topology

_ROW, _TOP, _WIDTH = 130, 60, 900
_BOX = (190, 90)


def mermaid(topology: Topology) -> str:
    """For Markdown pages that draw ```mermaid blocks."""
    lines = ["graph LR"]
    for site in topology.sites:
        shape = f'{site.name}["{site.name} · {site.kind}"]'
        lines.append(f'  subgraph {site.name}-site["{" ".join(map(str, site.prefixes))}"]')
        lines += [f"    {shape}"]
        lines += [f'    {_identifier(name)}(["{name}"]) --- {site.name}' for name in _starting_at(topology, site)]
        lines.append("  end")
    lines += [f'  {name}{{{{"{name}"}}}}' for name in (MAPSERVER, FMCC)]
    lines += [f"  {one} -- {rtt:g} ms --- {other}" for one, other, rtt in _pairs(topology)]
    return "\n".join(lines) + "\n"


def dot(topology: Topology) -> str:
    """For Graphviz: `... | dot -Tsvg`."""
    lines = [f"graph {topology.name} {{", "  layout=neato; overlap=false; splines=true; node [shape=box];"]
    lines += [f'  {name} [shape=hexagon, label="{name}"];' for name in (MAPSERVER, FMCC)]
    for site in topology.sites:
        lines.append(f'  {site.name} [label="{site.name}\\n{site.kind}"];')
        for name in _starting_at(topology, site):
            lines.append(f'  "{name}" [shape=ellipse]; "{name}" -- {site.name} [len=0.8];')
    lines += [f'  {one} -- {other} [label="{rtt:g} ms", len=3];' for one, other, rtt in _pairs(topology)]
    return "\n".join([*lines, "}"]) + "\n"


def svg(topology: Topology) -> str:
    """Access networks to the left, data centres to the right, the control plane between them."""
    columns = [
        (40, [site.name for site in topology.access]),
        (355, [MAPSERVER, FMCC]),
        (670, [site.name for site in topology.datacenters]),
    ]
    at = {name: (x, _TOP + row * _ROW) for x, names in columns for row, name in enumerate(names)}
    height = _TOP + max(len(names) for _, names in columns) * _ROW
    sites = {site.name: site for site in topology.sites}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="14" role="img">',
        f"<title>{escape(topology.name)}</title>",
        "<style>line{stroke:#8a94a3}rect{fill:#e7f0fb;stroke:#4c7fb8}.rtt{fill:#7b8794;font-size:12px}</style>",
    ]
    for one, other, rtt in _pairs(topology):
        (ax, ay), (bx, by) = (_middle(at[name]) for name in (one, other))
        lines.append(f'<line x1="{ax}" y1="{ay}" x2="{bx}" y2="{by}"/>')
        # a third of the way, so that the labels of crossing lines do not meet in the middle
        lines.append(f'<text class="rtt" x="{(2 * ax + bx) // 3}" y="{(2 * ay + by) // 3 - 4}">{rtt:g} ms</text>')
    for name, (x, y) in at.items():
        lines.append(f'<rect x="{x}" y="{y}" width="{_BOX[0]}" height="{_BOX[1]}" rx="8"/>')
        for number, text in enumerate(_said(topology, name, sites.get(name))):
            weight = ' font-weight="bold"' if number == 0 else ""
            lines.append(f'<text x="{x + 10}" y="{y + 22 + 18 * number}"{weight}>{escape(text)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _said(topology: Topology, name: str, site: Site | None) -> list[str]:
    if site is None:
        return [name]
    return [name, str(site.prefixes[0]), ", ".join(_starting_at(topology, site))]


def _middle(corner: tuple[int, int]) -> tuple[int, int]:
    return corner[0] + _BOX[0] // 2, corner[1] + _BOX[1] // 2


def _starting_at(topology: Topology, site: Site) -> list[str]:
    return [node.name for node in topology.nodes if node.start == site.name]


def _pairs(topology: Topology) -> Iterator[tuple[str, str, float]]:
    for pair in topology.wan.pairs:
        yield *pair.between, pair.rtt_ms


def _identifier(name: str) -> str:
    return name.replace("-", "_")


DRAWINGS = {"mermaid": mermaid, "dot": dot, "svg": svg}
