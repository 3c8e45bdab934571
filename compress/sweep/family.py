"""DreamLite's family as a search space: what a trial may vary of the stages that make, train and quantize a student.

Each function takes a stage as a recipe has it and returns it with the trial's choices in place of some of its fields.
What another choice has made pointless is not asked (define-by-run), so samplers do not learn from parameters that did
nothing. Every combination is a legal recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from compress.config.flow import FlowConfig
from compress.config.prune import CRITERIA, KV_MERGES, PruneConfig
from compress.config.quantize import QuantizeConfig
from compress.config.stream import CALIBRATED_CRITERIA, CALIBRATED_LAYER_RULES, StreamConfig
from compress.config.stream import CRITERIA as STREAMED_CRITERIA
from compress.config.stream import LAYER_RULES as STREAMED_LAYER_RULES
from students.spec import LATTICE

if TYPE_CHECKING:
    import optuna

LEAST_SHARE = 0.25  # of a stage's widest
MULTI_QUERY = "multi_query"
DATA_LAYER_RULES = ("weights", "laptop", "bk_sdm", "koala")  # tiny_fusion trains its choice: ask for it by name

Prune = TypeVar("Prune", bound=PruneConfig)


def draw_student(
    trial: optuna.Trial,
    widest: Prune,
    lattice: int = LATTICE,
    least_share: float = LEAST_SHARE,
    criteria: Sequence[str] | None = None,
    layer_rules: Sequence[str] | None = None,
) -> Prune:
    """The prune stage with a student drawn by the trial, at most as large as `widest` says: width and depth of each
    stage, feed-forward, heads of keys and values, and what decides which units, layers and blocks stay.

    Parameters: width_N (from `least_share` of the widest, in steps of `lattice`), layers_per_block,
    transformer_layers_N, ff_mult (from 2), criterion; kv_heads_one, whether a single head of keys and values serves
    all, and kv_merge only then; layer_rule only where depth is cut. Where `widest` leaves no choice none is asked.
    """
    widths = tuple(_width(trial, stage, width, lattice, least_share) for stage, width in enumerate(widest.widths))
    layers = _count(trial, "layers_per_block", 1, widest.layers_per_block)
    depths = tuple(
        _count(trial, f"transformer_layers_{stage}", 1, depth) for stage, depth in enumerate(widest.transformer_layers)
    )
    chosen: dict[str, Any] = {
        "widths": widths,
        "layers_per_block": layers,
        "transformer_layers": depths,
        "ff_mult": _count(trial, "ff_mult", 2, widest.ff_mult),
        "criterion": _one_of(trial, "criterion", criteria or _criteria(widest)),
    }
    if MULTI_QUERY in widest.steps:
        if trial.suggest_categorical("kv_heads_one", (True, False)):
            chosen |= {"kv_heads": 1, "kv_merge": _one_of(trial, "kv_merge", KV_MERGES)}
        else:
            chosen["steps"] = tuple(step for step in widest.steps if step != MULTI_QUERY)
            chosen["compensated"] = tuple(step for step in widest.compensated if step != MULTI_QUERY)
    if layers < widest.layers_per_block or depths != widest.transformer_layers:
        chosen["layer_rule"] = _one_of(trial, "layer_rule", layer_rules or _layer_rules(widest))
    return replace(widest, **chosen)


def draw_training(trial: optuna.Trial, flow: FlowConfig) -> FlowConfig:
    """The training stage with what it learns from drawn by the trial: the teacher, the data, or both.

    Parameters: learning_rate (a third to three times the stage's, by its logarithm), distill; with that distill_weight
    (0.1 to 10, by its logarithm) and data_weight (0 to 1).
    """
    rate = trial.suggest_float("learning_rate", flow.learning_rate / 3, flow.learning_rate * 3, log=True)
    if not trial.suggest_categorical("distill", (True, False)):
        return replace(flow, learning_rate=rate, distill_weight=0.0, data_weight=1.0)
    weight = trial.suggest_float("distill_weight", 0.1, 10.0, log=True)
    return replace(
        flow,
        learning_rate=rate,
        distill_weight=weight,
        data_weight=trial.suggest_float("data_weight", 0.0, 1.0, step=0.1),
    )


def draw_quantization(trial: optuna.Trial, quantize: QuantizeConfig, wide_mb: float = 0.0) -> QuantizeConfig:
    """The quantization stage with its grids drawn by the trial.

    Parameters: activation_ranges, and headroom_ratio (1 to 1.5) where they are min_max; rounding, and weight_ranges and
    bias_correction where it is to nearest ("compensated" takes care of both); with `wide_mb` also wide_weights_mb, from
    none to that many megabytes for weights in 16 bits.
    """
    chosen: dict[str, Any] = {"activation_ranges": _one_of(trial, "activation_ranges", ("min_max", "sqnr"))}
    if chosen["activation_ranges"] == "min_max":
        chosen["headroom_ratio"] = trial.suggest_float("headroom_ratio", 1.0, 1.5, step=0.1)
    chosen["rounding"] = _one_of(trial, "rounding", ("compensated", "nearest"))
    if chosen["rounding"] == "nearest":
        chosen["weight_ranges"] = _one_of(trial, "weight_ranges", ("min_max", "sqnr", "seq_mse"))
        chosen["bias_correction"] = trial.suggest_categorical("bias_correction", (True, False))
    if wide_mb > 0:
        chosen["wide_weights_mb"] = trial.suggest_float("wide_weights_mb", 0.0, wide_mb)
    return replace(quantize, **chosen)


def _width(trial: optuna.Trial, stage: int, widest: int, lattice: int, least_share: float) -> int:
    least = max(lattice, -int(-least_share * widest // lattice) * lattice)
    if widest % lattice or least >= widest:
        return widest
    return trial.suggest_int(f"width_{stage}", least, widest, step=lattice)


def _count(trial: optuna.Trial, name: str, least: int, most: int) -> int:
    return trial.suggest_int(name, least, most) if most > least else most


def _one_of(trial: optuna.Trial, name: str, values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else str(trial.suggest_categorical(name, tuple(values)))


def _criteria(widest: PruneConfig) -> tuple[str, ...]:
    """All that the stage can carry out, but chance."""
    known: tuple[str, ...] = CRITERIA
    if isinstance(widest, StreamConfig):
        known = CALIBRATED_CRITERIA if widest.calibrated else STREAMED_CRITERIA
    return tuple(name for name in known if name != "random")


def _layer_rules(widest: PruneConfig) -> tuple[str, ...]:
    if isinstance(widest, StreamConfig):
        return CALIBRATED_LAYER_RULES if widest.calibrated else STREAMED_LAYER_RULES
    return DATA_LAYER_RULES
