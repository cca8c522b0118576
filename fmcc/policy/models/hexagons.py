"""Hexagonal cells around a data centre: rings, the classes of cells that look alike, and single cells.

Ring i has 6i cells. By the symmetry of the hexagon, cells of a ring at the same distance m from a corner are one class
(i, m), 0 <= m <= i // 2; m = 0 are the corners. A cell itself is a pair of axial coordinates.
"""

from __future__ import annotations

from typing import TypeAlias

CellClass: TypeAlias = tuple[int, int]
Cell: TypeAlias = tuple[int, int]

DIRECTIONS: tuple[Cell, ...] = ((1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1))


def classes(rings: int) -> list[CellClass]:
    """The classes of the rings 0 .. rings - 1, inner first."""
    return [(ring, hops) for ring in range(rings) for hops in range(ring // 2 + 1)]


def folded(ring: int, hops: int) -> CellClass:
    """The class of the cell `hops` along a side of `ring`: sides mirror and follow one another."""
    if ring == 0:
        return 0, 0
    along = hops % ring
    return ring, min(along, ring - along)


def neighbours(cell: CellClass) -> list[CellClass]:
    """The classes of the six neighbours."""
    ring, hops = cell
    if ring == 0:
        return [(1, 0)] * 6
    if hops == 0:
        around = [(ring - 1, 0), (ring, 1), (ring, 1), (ring + 1, 0), (ring + 1, 1), (ring + 1, 1)]
    else:
        around = [
            (ring - 1, hops - 1), (ring - 1, hops),
            (ring, hops - 1), (ring, hops + 1),
            (ring + 1, hops), (ring + 1, hops + 1),
        ]  # fmt: skip
    return [folded(*each) for each in around]


def distance(a: Cell, b: Cell) -> int:
    """Handovers from one cell to the other on the shortest way."""
    q, r = a[0] - b[0], a[1] - b[1]
    return max(abs(q), abs(r), abs(q + r))


def cells(rings: int) -> list[Cell]:
    """Every cell of the rings 0 .. rings - 1: 3 rings (rings - 1) + 1 of them."""
    span = range(1 - rings, rings)
    return [(q, r) for q in span for r in span if distance((q, r), (0, 0)) < rings]


def class_of(cell: Cell) -> CellClass:
    """The class that a single cell belongs to."""
    ring = distance(cell, (0, 0))
    # of the three cube coordinates the largest has the ring's length; either other one counts along the side
    smallest = min(abs(cell[0]), abs(cell[1]), abs(cell[0] + cell[1]))
    return folded(ring, smallest)
