"""Everything at once: DreamLite's family on the embedded world, what it learns from, and how it is quantized.

Command
    pocketdiff sweep scenes_family --trials 30 --workers 2

Hardware
    2 CPU cores; with --storage, as many machines as there are.

Time
    Not yet measured as a whole; one trial took 13 min of a core beside other work, 8 of them its grids by sensitivity.

Expected
    Not yet measured. The space is the preset of compress/sweep/family.py, with up to 15 parameters a trial, some of
    which are asked only where another makes them matter; for a teacher of one's own, copy this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.config.flow import FlowConfig
from compress.config.prune import PruneConfig
from compress.config.quantize import QuantizeConfig
from compress.recipe import Recipe
from compress.sweep import Objective, Sweep
from compress.sweep.family import draw_quantization, draw_student, draw_training
from compress.sweep.limits import student_limit, student_objective
from recipes.scenes_full import TEACHER
from recipes.sweeps.scenes_ratio import AT_MOST_M, FLOW, LOWEST, MIDDLE, TOP, VELOCITY_SQUARE

if TYPE_CHECKING:
    import optuna

RECOVERY_STEPS = 100
CRITERIA = ("magnitude", "taylor", "fisher", "obs_diff")  # quick ones
WIDEST = PruneConfig(
    widths=(TOP, MIDDLE, LOWEST),
    transformer_layers=(1, 1, 2),
    ff_mult=4,
    unstructured_baseline=False,
)
QUANTIZE = QuantizeConfig(generations=4, edits=0, autoencoder=False, score_images=0)


def sample(trial: optuna.Trial) -> Recipe:
    """Prune, recover, quantize."""
    recovery = FlowConfig(name="t2i", steps=RECOVERY_STEPS, **FLOW, edit_share=0.0, drop_source=0.0, measure_error=True)
    stages = (
        draw_student(trial, WIDEST, criteria=CRITERIA),
        draw_training(trial, recovery),
        draw_quantization(trial, QUANTIZE, wide_mb=0.5),
    )
    return Recipe(name="scenes_family", description="One trial.", teacher=TEACHER, stages=stages)


def sweep() -> Sweep:
    """Three objectives: what is left of the error, what the integers cost, and the time on a phone."""
    return Sweep(
        name="scenes_family",
        description="DreamLite's family: error after recovery, agreement in W8A16, estimated latency.",
        sample=sample,
        constraints=(student_limit("parameters_m", AT_MOST_M),),
        objectives=(
            Objective(stage="t2i", metric="velocity_mse", label="velocity error, recovered", worst=VELOCITY_SQUARE),
            Objective(
                stage="quantize", metric="aimet_vs_float_sqnr_db", label="SQNR, W8A16 to float (dB)", maximize=True
            ),
            student_objective("latency_ms"),
        ),
    )
