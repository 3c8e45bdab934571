"""The same space as scenes_ratio, rung by rung: error after pruning, a short recovery, then the chain to the phone.

Command
    pocketdiff sweep scenes_ladder --trials 12 --workers 2

Hardware
    2 CPU cores, or any number of workers with GPUs.

Time
    1 h 50 min on two cores that had other work beside: a trial recovers in 3 to 4 minutes of a core and takes 21 to 31
    more to the phone. Pruned students were scenes_ratio's but one, which took 42 s; one of the eight that got to the
    top was found made by `deploy-front scenes_ratio`.

Expected
    Of 12 trials 8 climb: the 6 that climb whatever they score, and 2 that were among the best. Over the 6 the error
    right after pruning ranks students by their score on the phone with Kendall's tau +0.73 (-0.09 to +1), the error
    after 200 steps of recovery with +0.87 (+0.33 to +1). Over all 8 it is +0.79 (+0.33 to +1) and +0.86 (+0.48 to +1).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from compress.config.quantize import DeployConfig
from compress.recipe import Recipe
from compress.sweep import Ladder, Objective, Sweep
from recipes.sweeps import scenes_ratio

if TYPE_CHECKING:
    import optuna

UNSELECTED = 6  # trials that climb whatever they score, so that the page can tell what the cheap rungs are worth
SIZE = Objective(stage="prune", metric="parameters_m", label="parameters (M)")


def sample(trial: optuna.Trial) -> Recipe:
    """A student of scenes_ratio, and the short way from it to the binary, without emulated pictures: the score is that
    of the same integers on onnxruntime."""
    recipe = scenes_ratio.finish(scenes_ratio.sample(trial))
    stages = tuple(replace(s, eval_images=0) if isinstance(s, DeployConfig) else s for s in recipe.stages)
    return replace(recipe, name="scenes_ladder", stages=stages)


def sweep() -> Sweep:
    """Error by stand-ins from rung to rung; the size is the same on all of them."""
    ratio = scenes_ratio.sweep()
    pruned, recovered = (
        Objective(stage=stage, metric="velocity_mse", label=label, maximize=False)
        for stage, label in (("prune", "velocity error, pruned"), ("t2i", "velocity error, recovered"))
    )
    return Sweep(
        name="scenes_ladder",
        description="Student size against the error that is left on the phone, fidelity by fidelity.",
        sample=sample,
        constraints=ratio.constraints,
        ladder=Ladder(rungs=((pruned, SIZE), (recovered, SIZE)), unselected=UNSELECTED),
        objectives=(Objective(stage="deploy", metric="overall", label="scenes score, HTP", maximize=True), SIZE),
    )
