"""Which trials are best where several objectives are traded off. Losses: lower is better, a row a trial.

The ranking and the greedy choice are Optuna's own, which keeps them from its users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from compress.sweep.definition import Objective

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Losses = NDArray[np.float64]


def losses_of(values: Sequence[Sequence[float]], objectives: Sequence[Objective]) -> Losses:
    """Values turned so that lower is better in each; shape (trials, objectives)."""
    signs = np.array([-1.0 if objective.maximize else 1.0 for objective in objectives])
    return np.asarray(values, dtype=float).reshape(-1, len(objectives)) * signs


def reference_of(losses: Losses, objectives: Sequence[Objective]) -> Losses:
    """The corner up to which hypervolume is measured: each objective's `worst`, else the worst of the losses."""
    found = losses.max(axis=0)
    for column, objective in enumerate(objectives):
        if objective.worst is not None:
            found[column] = -objective.worst if objective.maximize else objective.worst
    return found


def best(losses: Losses, count: int, reference: Losses) -> list[int]:
    """Indices of the `count` best rows, at most all of them, in their own order.

    Rows that nothing dominates come first, then those that only these dominate, and so on; of the last set that does
    not fit whole, those that add most hypervolume to each other (greedily: Guerreiro, Fonseca and Paquete, 2016).
    """
    from optuna._hypervolume.hssp import _solve_hssp
    from optuna.study._multi_objective import _fast_non_domination_rank

    count = min(count, len(losses))
    if count <= 0:
        return []
    ranks = _fast_non_domination_rank(losses, n_below=count)
    chosen: list[int] = []
    for rank in range(int(ranks.max()) + 1):
        (layer,) = np.nonzero(ranks == rank)
        if len(chosen) + len(layer) > count:
            within = np.minimum(losses[layer], reference)  # what lies beyond the corner is worth nothing, not less
            layer = _solve_hssp(within, layer, count - len(chosen), reference)
        chosen += [int(index) for index in layer]
        if len(chosen) == count:
            break
    return sorted(chosen)
