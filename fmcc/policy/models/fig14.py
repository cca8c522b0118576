"""The paper's two policy tables (B, Fig. 14), and two RECONSTRUCTIONS of the model behind them.

No textbook reading of the printed reward gives both tables. Two readings do, and neither is known to be the authors':
F fits every cell with a migration cost of its own for each table; L has one set of parameters and misses two cells of
table (b), but follows more of the printed equations. thr = 10, K = 1; rows p = .1 .. 1, columns d = 1 .. 10.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fmcc.policy.models.arrays import Floats
from fmcc.policy.models.checks import BadParameter
from fmcc.policy.models.decisions import Problem, policy_iteration

THR = 10
NEVER = THR + 1
ROWS: tuple[float, ...] = tuple(round(tenth / 10, 1) for tenth in range(1, 11))
COLUMNS: tuple[int, ...] = tuple(range(1, THR + 1))
TAU: Mapping[str, float] = {"a": 0.1, "b": 0.5}
PAPER: Mapping[str, tuple[int, ...]] = {
    "a": (10, 9, 8, 7, 6, 6, 5, 5, 5, 5),
    "b": (11, 10, 9, 7, 7, 6, 6, 6, 6, 5),
}
"""The first column that says M in each row; 11 = none does."""


@dataclass(frozen=True)
class Table:
    """A computed table: for each row, which of its ten cells migrate."""

    reconstruction: str
    table: str
    migrate: tuple[tuple[bool, ...], ...]

    @property
    def first_migration(self) -> list[int]:
        return [row.index(True) + 1 if any(row) else NEVER for row in self.migrate]

    @property
    def cells(self) -> list[list[str]]:
        return [["M" if moves else "C" for moves in row] for row in self.migrate]

    @property
    def differences(self) -> list[tuple[float, int]]:
        """The cells (p, d) that are not as in the paper."""
        return [
            (p, d)
            for p, row, first in zip(ROWS, self.migrate, PAPER[self.table], strict=True)
            for d in COLUMNS
            if row[d - 1] != (d >= first)
        ]


def table(reconstruction: str, name: str) -> Table:
    """One table by one model. Raises BadParameter."""
    if reconstruction not in MODELS or name not in PAPER:
        raise BadParameter(
            f"no table {reconstruction}{name}: reconstructions are F and L, tables a and b; choose these"
        )
    return Table(reconstruction, name, tuple(MODELS[reconstruction](p, name) for p in ROWS))


# --- F ----------------------------------------------------------------------------------------------------------------

F_GAMMA = 0.97
F_COST: Mapping[str, float] = {"a": 7.8, "b": 9.6}
"""Fitted, each table its own: Q(0) = Cm / tau then differs between the tables."""


def _row_f(p: float, name: str) -> tuple[bool, ...]:
    """Column d is state d - 1: the distance before the handover. With linear Q, Q(0) cancels and is left out."""
    size = THR + 1
    states = np.arange(size)
    quality = -states.astype(float)
    staying, moving = _shapes(p, arrives=1)
    solution = policy_iteration(
        Problem(
            staying,
            moving,
            stay_reward=staying @ quality,
            move_reward=np.full(size, quality[1] - F_COST[name]),
            may_stay=(states > 0) & (states < THR),  # only a2 exists in state 0, and pays Cm; at thr it is forced
            may_move=np.ones(size, bool),
            gamma=F_GAMMA,
        )
    )
    # state 0 has no choice, which the paper shows as C; state thr is not displayed
    return (False, *(bool(moves) for moves in solution.migrate[1:THR]))


# --- L ----------------------------------------------------------------------------------------------------------------

L_GAMMA = 0.96
L_QUALITY_0 = 25.0
ALPHA = RATE = MU = 1.0


def _row_l(p: float, name: str) -> tuple[bool, ...]:
    """Column d is state d, after the handover; at thr the user may stay, and is reflected.

    The reward is scaled as for a continuous-time chain, r' = r (alpha + beta) / (alpha + c), beta the transition's
    rate; and the one-step reward is the plain sum over the successors, as the printed optimality equation has it.
    """
    size = THR + 1
    states = np.arange(size)
    quality = L_QUALITY_0 - states
    staying, moving = _reflecting(p)
    neighbours, _ = _reflecting(0.5)  # a neighbour that is never gone to still is a successor, with rate 0

    def rewards(matrix: Floats, successors: Floats, reward: Floats) -> Floats:
        scaled = reward * (ALPHA + MU * matrix) / (ALPHA + RATE)
        return np.asarray(np.where(successors > 0, scaled, 0.0).sum(axis=1))

    solution = policy_iteration(
        Problem(
            staying,
            moving,
            stay_reward=rewards(staying, neighbours, quality),
            move_reward=rewards(moving, moving, quality - TAU[name] * L_QUALITY_0),
            may_stay=np.ones(size, bool),
            may_move=states > 0,
            gamma=L_GAMMA,
        )
    )
    return tuple(bool(moves) for moves in solution.migrate[1:])


def _reflecting(p: float) -> tuple[Floats, Floats]:
    staying, moving = _shapes(p, arrives=0)
    staying[THR, THR], staying[THR, THR - 1] = p, 1 - p
    staying[0, 1] = 1.0
    return staying, moving


def _shapes(p: float, *, arrives: int) -> tuple[Floats, Floats]:
    """Stay: outward with p, inward with 1 - p. Migrate: to the state `arrives`."""
    size = THR + 1
    staying, moving = np.zeros((size, size)), np.zeros((size, size))
    inner = np.arange(1, THR)
    staying[inner, inner + 1] = p
    staying[inner, inner - 1] = 1 - p
    moving[:, arrives] = 1.0
    return staying, moving


MODELS: Mapping[str, Callable[[float, str], tuple[bool, ...]]] = {"F": _row_f, "L": _row_l}
