"""The student's widths, depths and pruning criterion: size against velocity error right after pruning.

Command
    pocketdiff sweep scenes_ratio --trials 24 --workers 2

Hardware
    2 CPU cores; with --storage, as many machines as there are.

Time
    Not yet measured.

Expected
    A Pareto front from about 3 M parameters up to 35 % of the teacher's 21.6 M, which is what we may ship. The error
    before training ranks students, it does not score them. `pocketdiff deploy-front scenes_ratio --top 3` takes the
    best through all later stages of scenes_full, at their full length unless it is changed (--joint.steps 100).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from compress.config.prune import CRITERIA, PruneConfig
from compress.recipe import Recipe
from compress.sweep import Objective, Sweep
from compress.sweep.limits import student_limit
from recipes import scenes_full
from recipes.scenes_full import TEACHER

if TYPE_CHECKING:
    import optuna

LATTICE = 64  # channels
TOP, MIDDLE, LOWEST = 64, 128, 256  # the teacher's widths
AT_MOST_M = 7.56  # 35 % of the teacher's parameters
VELOCITY_SQUARE = 1.61  # mean square of the velocity itself: the error of a network that answers zero


def sample(trial: optuna.Trial) -> Recipe:
    """One student: two widths and a depth on the lattice, FFN width, and what decides which channels stay."""
    prune = PruneConfig(
        widths=(
            TOP,
            trial.suggest_int("width_middle", LATTICE, MIDDLE, step=LATTICE),
            trial.suggest_int("width_lowest", LATTICE, LOWEST, step=LATTICE),
        ),
        transformer_layers=(1, 1, trial.suggest_int("transformer_layers_lowest", 1, 2)),
        ff_mult=trial.suggest_int("ff_mult", 2, 4),
        criterion=trial.suggest_categorical("criterion", [name for name in CRITERIA if name != "random"]),
        unstructured_baseline=False,
    )
    return Recipe(name="scenes_ratio", description="One trial.", teacher=TEACHER, stages=(prune,))


def finish(recipe: Recipe) -> Recipe:
    """The stages of scenes_full behind pruning, and its judge."""
    full = scenes_full.recipe()
    return replace(recipe, stages=(*recipe.stages, *full.stages[1:]), judge=full.judge)


def sweep() -> Sweep:
    """Two objectives, both from the card of stage prune."""
    return Sweep(
        name="scenes_ratio",
        description="Student size against velocity error after pruning.",
        sample=sample,
        finish=finish,
        constraints=(student_limit("parameters_m", AT_MOST_M),),
        objectives=(
            Objective(stage="prune", metric="velocity_mse", label="velocity error", worst=VELOCITY_SQUARE),
            Objective(stage="prune", metric="parameters_m", label="parameters (M)", worst=AT_MOST_M),
        ),
    )
