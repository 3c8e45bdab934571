"""Which criterion keeps most: all of them at equal budgets, straight after pruning and after the same short recovery.

Command
    pocketdiff sweep scenes_criteria --workers 2

Hardware
    2 CPU cores; several processes may run the same command at once.

Time
    1 h 53 min for all 108 trials with `--workers 2` on 2 cores, 63 s each; the same command goes on where it was
    stopped.

Expected
    obs_diff, which lets the remaining weights make up for the removed ones, is ahead at every budget: velocity error
    0.58 straight after pruning (random 1.54, taylor 1.08) and 0.09 after the recovery (random 0.15, taylor 0.125), T2I
    0.24 to 0.29 (random 0.10 to 0.12). Layer rules give taylor's own students, since no budget here takes a layer.
    The table's rows are methods and budgets, its cells mean and spread over three seeds; report.html shows them with
    error bars, and what each method kept of every layer group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compress.config.budget import Budget
from compress.config.flow import FlowConfig
from compress.config.prune import CRITERIA, LAYER_RULES, PruneConfig
from compress.recipe import Judge, Recipe
from compress.sweep import Objective, Sweep
from recipes.scenes_full import FLOW, TEACHER

if TYPE_CHECKING:
    import optuna

# 50, 25 and 13 % of the teacher's 21.6 M: in steps of 64 channels the lattice has nothing nearer below 25 and 15 %.
BUDGETS_M = (10.8, 5.31, 2.7)
SEEDS = (0, 1, 2)
RECOVERY_STEPS = 100
PICTURES = 60  # for the score after recovery
# Channels and neurons go by a criterion, layers by what the weights say; then layers by a rule of their own.
METHODS = (*CRITERIA, *(f"taylor, {rule}" for rule in LAYER_RULES if rule != "weights"))
STEPS = ("depth", "width", "feed_forward")  # where a criterion decides; the other operators are the same for all
RECOVERY: dict[str, Any] = FLOW | {"sampling_steps": 8, "validate_images": 0, "warmup_steps": 10, "ema_decay": 0.95}


def sample(trial: optuna.Trial) -> Recipe:
    """One method at one budget with one seed: the same sizes for every method, and the same recovery."""
    criterion, _, rule = trial.suggest_categorical("method", METHODS).partition(", ")
    budget_m = trial.suggest_categorical("budget_m", BUDGETS_M)
    seed = trial.suggest_categorical("seed", SEEDS)
    prune = PruneConfig(
        steps=STEPS,
        criterion=criterion,
        layer_rule=rule or "weights",
        ff_mult=4,
        compensated=(),
        unstructured_baseline=False,
        budget=Budget(parameters_m=budget_m),
        seed=seed,
    )
    recovery = FlowConfig(name="t2i", steps=RECOVERY_STEPS, **RECOVERY, edit_share=0.0, drop_source=0.0, seed=seed)
    judge = Judge(images=PICTURES, images_of={"prune": 0})
    return Recipe(
        name="scenes_criteria", description="One arm.", teacher=TEACHER, stages=(prune, recovery), judge=judge
    )


def sweep() -> Sweep:
    """A grid; what it costs, the error straight after pruning, and what is left after the recovery."""
    return Sweep(
        name="scenes_criteria",
        description=f"Criteria at equal budgets, {RECOVERY_STEPS} steps of recovery, mean and spread over seeds.",
        sample=sample,
        grid={"method": METHODS, "budget_m": BUDGETS_M, "seed": SEEDS},
        objectives=(
            Objective(stage="prune", metric="parameters_m", label="parameters (M)"),
            Objective(stage="prune", metric="macs_g", label="MACs (G)"),
            Objective(stage="prune", metric="velocity_mse", label="velocity error, pruned"),
            Objective(stage="t2i", metric="velocity_mse", label="velocity error, recovered"),
            Objective(stage="t2i", metric="t2i", label="T2I score, recovered", maximize=True),
        ),
    )
