"""Which way to the integers keeps most: AIMET's default, other ranges and roundings, and training through the rounding.

Command
    pocketdiff sweep scenes_schemes

Hardware
    2 CPU cores; several processes may run the same command at once.

Time
    49 min on 2 cores with --workers 2 and OMP_NUM_THREADS=1, beside other work; a trial 1 min, AdaRound and QAT 7.

Expected
    SQNR to float, mean of three seeds, which draw other calibration trajectories: AIMET's default 31.2 dB, compensated
    rounding 40.8, that and QAT 42.8. Scores on 300 pictures: 0.693, 0.709 and 0.702, float 0.708; all methods are in
    reports/LOG.md, and report.html beside the study shows them with error bars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compress.config.base import StageConfig
from compress.config.qat import QatConfig
from compress.config.quantize import QuantizeConfig
from compress.recipe import Recipe, TeacherRef
from compress.sweep import Objective, Sweep

if TYPE_CHECKING:
    import optuna

STUDENT = TeacherRef(folder="students/weights/scenes_full/70-distill")  # 4 steps
SEEDS = (0, 1, 2)
PICTURES = 150  # of a kind
DEFAULT: dict[str, Any] = {"rounding": "nearest", "headroom_ratio": 1.0}
NEAREST: dict[str, Any] = {"rounding": "nearest"}
METHODS: dict[str, dict[str, Any]] = {
    "AIMET's default": DEFAULT,
    "headroom": NEAREST,
    "percentile activations": DEFAULT | {"activation_ranges": "percentile"},
    "SQNR activations": DEFAULT | {"activation_ranges": "sqnr"},
    "SQNR weights": NEAREST | {"weight_ranges": "sqnr"},
    "Sequential MSE": NEAREST | {"weight_ranges": "seq_mse"},
    "bias correction": NEAREST | {"bias_correction": True},
    "AdaRound": {"rounding": "ada_round", "bias_correction": True},
    "compensated": {},
    "AIMET's default, QAT": DEFAULT,
    "compensated, QAT": {},
}


def sample(trial: optuna.Trial) -> Recipe:
    """One method with one seed; its last stage is always called quantize."""
    method = trial.suggest_categorical("method", tuple(METHODS))
    seed = trial.suggest_categorical("seed", SEEDS)
    trained = method.endswith("QAT")
    settings = {"seed": seed, "autoencoder": False, "score_images": 0 if trained else PICTURES} | METHODS[method]
    stages: list[StageConfig] = [QuantizeConfig(name="calibrate" if trained else "quantize", **settings)]
    if trained:
        stages.append(QatConfig(name="quantize", seed=seed, score_images=PICTURES))
    return Recipe(name="scenes_schemes", description="One arm.", teacher=STUDENT, stages=tuple(stages))


def sweep() -> Sweep:
    """A grid; agreement of simulation and float on trajectories kept from calibration, and the score."""
    return Sweep(
        name="scenes_schemes",
        description="Ways to W8A16 on the shipped 4-step student, mean and spread over seeds.",
        sample=sample,
        grid={"method": tuple(METHODS), "seed": SEEDS},
        objectives=(
            Objective(stage="quantize", metric="aimet_vs_float_sqnr_db", label="SQNR to float (dB)", maximize=True),
            Objective(stage="quantize", metric="overall", label="score, W8A16", maximize=True),
        ),
    )
