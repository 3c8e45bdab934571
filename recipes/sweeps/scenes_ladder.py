"""The same space as scenes_ratio, rung by rung: error after pruning, a short recovery, then the chain to the phone.

Command
    pocketdiff sweep scenes_ladder --trials 27

Hardware
    2 CPU cores, or any number of workers with GPUs.

Time
    Not yet measured. Of 27 trials 27 are pruned, 9 recover and 3 go to the phone, and some more of each that were among
    the best when they got there.

Expected
    Not yet measured. The page tells how many reached each rung, and by Kendall's tau how well the cheap rungs rank.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from compress.config.flow import FlowConfig
from compress.recipe import Recipe
from compress.sweep import Ladder, Objective, Sweep
from recipes import scenes_full
from recipes.sweeps import scenes_ratio

if TYPE_CHECKING:
    import optuna

RECOVERY_STEPS, JOINT_STEPS = 300, 1_200
UNSELECTED = 6  # trials that climb whatever they score, so that the page can tell what the cheap rungs are worth
FLOW: dict[str, Any] = scenes_full.FLOW | {"validate_images": 0, "warmup_steps": 20, "ema_decay": 0.98}
SHORT: dict[str, dict[str, Any]] = {
    "distill": {
        "steps": 240,
        "pool_samples": 16_384,
        "paths": 768,
        "regression_steps": 220,
        "validate_images": 0,
    },
    "deploy": {"eval_images": 14},
}
SIZE = Objective(stage="prune", metric="parameters_m", label="parameters (M)")


def sample(trial: optuna.Trial) -> Recipe:
    """A student of scenes_ratio, and a short chain from it to the binary."""
    pruned = scenes_ratio.sample(trial)
    full = scenes_full.recipe()
    chosen = {stage.name: stage for stage in full.stages if stage.name in ("distill", "quantize", "deploy")}
    last = [replace(stage, **SHORT.get(name, {})) for name, stage in chosen.items()]
    recovery = FlowConfig(name="t2i", steps=RECOVERY_STEPS, **FLOW, edit_share=0.0, drop_source=0.0)
    joint = FlowConfig(name="joint", steps=JOINT_STEPS, **FLOW, edit_share=0.5)
    judge = replace(full.judge, images=210, images_of={"prune": 0, "t2i": 0}) if full.judge else None
    stages = (*pruned.stages, recovery, joint, *last)
    return replace(pruned, name="scenes_ladder", stages=stages, judge=judge)


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
