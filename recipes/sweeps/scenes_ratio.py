"""The student's widths, depths and pruning criterion: size against velocity error right after pruning.

Command
    pocketdiff sweep scenes_ratio --trials 24 --workers 2

Hardware
    2 CPU cores; with --storage, as many machines as there are.

Time
    7 min 20 s on 2 cores without AVX-512: 90 s for what all trials share, then 25 s a trial and core. Six trials by
    themselves took 126 s each, 3.7 times a trial's share of a sweep of 7 min (python -m tests.benchmarks.sweep_reuse).

Expected
    Six of the 24 on the front, from 1.55 M parameters at a velocity error of 0.323 to 4.45 M at 0.232; a middle stage
    of 128 channels is worth most. The error before training ranks students, it does not score them.
    `pocketdiff deploy-front scenes_ratio --workers 2` takes the front on to the phone by a short way, whose lengths can
    be changed (--joint.steps 6000): 38 min of a core each, scores of 0.12 to 0.18, at most 0.008 lost to W8A16.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from compress.config.flow import FlowConfig
from compress.config.prune import PAIR, STEPS, PruneConfig
from compress.recipe import Judge, Recipe
from compress.sweep import Objective, Sweep
from compress.sweep.family import LATTICE
from compress.sweep.limits import student_limit
from recipes import scenes_full
from recipes.scenes_full import TEACHER

if TYPE_CHECKING:
    import optuna

TOP, MIDDLE, LOWEST = 64, 128, 256  # the teacher's widths
# eco_diff learns its masks, for minutes and at every width anew; scenes_criteria compares it
CRITERIA = ("magnitude", "activation", "taylor", "fisher", "diff_pruning", "obs_diff")
VARIED = ("depth", "width", "feed_forward")  # steps that trials differ in; the others are carried out once for all
AT_MOST_M = 7.56  # 35 % of the teacher's parameters
POOL = 16_384  # samples a task; no stage of the short way sees as many
RECOVERY_STEPS, JOINT_STEPS = 200, 1_200
FLOW: dict[str, Any] = scenes_full.FLOW | {"validate_images": 0, "warmup_steps": 20, "ema_decay": 0.98}
FLOW |= {"pool_samples": POOL}
SHORT: dict[str, dict[str, Any]] = {
    "distill": {"steps": 180, "regression_steps": 150, "paths": 512, "pool_samples": POOL, "validate_images": 0},
    "quantize": {"generations": 16, "edits": 16},  # as good as more (reports/LOG.md)
    "deploy": {"eval_images": 120},  # an emulated forward takes a second
}
PICTURES = 500  # of a kind, for the scores of the last stages
VELOCITY_SQUARE = 1.61  # mean square of the velocity itself: the error of a network that answers zero


TRUNK = PruneConfig(
    name="prune_1",
    widths=(TOP, MIDDLE, LOWEST),
    transformer_layers=(1, 1, 2),
    ff_mult=4,
    criterion="magnitude",  # nothing is chosen by it: no width or depth changes here
    steps=tuple(step for step in STEPS if step not in VARIED),
    compensated=("separable", PAIR),
    fitting_samples=768,  # twice as many as a trial's: it is made once, and all gain from it
    unstructured_baseline=False,
)


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
        criterion=trial.suggest_categorical("criterion", CRITERIA),
        steps=VARIED,
        compensated=(PAIR,),
        unstructured_baseline=False,
    )
    return Recipe(name="scenes_ratio", description="One trial.", teacher=TEACHER, stages=(TRUNK, prune))


def finish(recipe: Recipe) -> Recipe:
    """The way to the phone, short: recovery, joint training, 4 steps, W8A16, binary and emulated pictures.

    Long enough to rank students and to try what their phone computes; scenes_full's lengths make one worth shipping.
    """
    full = scenes_full.recipe()
    chosen = {stage.name: stage for stage in full.stages if stage.name in SHORT}
    recovery = FlowConfig(name="t2i", steps=RECOVERY_STEPS, **FLOW, edit_share=0.0, drop_source=0.0)
    joint = FlowConfig(name="joint", steps=JOINT_STEPS, **FLOW, edit_share=0.5)
    last = [replace(stage, **SHORT[name]) for name, stage in chosen.items()]
    judge = Judge(images=PICTURES, images_of={stage.name: 0 for stage in (*recipe.stages, recovery, joint)})
    return replace(recipe, stages=(*recipe.stages, recovery, joint, *last), judge=judge)


def sweep() -> Sweep:
    """Two objectives, both from the card of stage prune."""
    return Sweep(
        name="scenes_ratio",
        description="Student size against velocity error after pruning.",
        sample=sample,
        finish=finish,
        sampler="gp",  # some 200 points keep the limit, and 24 trials are few: TPE is hardly better than chance there
        constraints=(student_limit("parameters_m", AT_MOST_M),),
        objectives=(
            Objective(stage="prune", metric="velocity_mse", label="velocity error", worst=VELOCITY_SQUARE),
            Objective(stage="prune", metric="parameters_m", label="parameters (M)", worst=AT_MOST_M),
        ),
    )
