"""The last two stages: W8A16 simulation in AIMET, and the compiled context binary of a Snapdragon's HTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from compress.config.base import StageConfig
from compress.errors import Problem

ARCHS = (73, 75, 79, 81)
SOC_MODELS = (43, 57, 69, 87)
ACTIVATION_RANGES = ("min_max", "percentile", "sqnr")  # a test holds these to compress.quantization.ranges
WEIGHT_RANGES = ("min_max", "sqnr", "seq_mse")
ROUNDINGS = ("compensated", "nearest", "ada_round")
LAYERS = ("none", "blocks", "all")
EDIT_KINDS = 7  # a score needs one picture of every kind


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig(StageConfig):
    """int8 weights a channel and 16-bit activations, calibrated on the network's own sampling trajectories.

    `generations` and `edits` trajectories are recorded, every step of each; `held_out` of either kind are kept from
    calibration, to measure on. `headroom_ratio` widens every observed activation range about zero: the HTP does not
    clip where the simulation does, and 16 bits can afford it. `htp_arch` picks AIMET's configuration file.
    `score_images` prompts and as many edits are scored with the quantized network: 0 for none, None for as many as
    the parent's card says it was scored on, which are then the same pictures. `rounding` "compensated" lets a layer's
    later weights and its bias take up what rounding the earlier ones changed (GPTQ); "nearest" rounds each by itself,
    "ada_round" learns which go up and which down. `bias_correction` takes the mean error of rounding out of the biases
    ("compensated" does so anyway). `activation_ranges` and `weight_ranges` say how a grid follows from what is observed
    (compress/quantization/ranges.py); AIMET's default is "min_max" for both, rounded to nearest.
    `sensitivity` measures what every grid costs by itself, a forward of the held-out calls for each. With
    `wide_weights_mb` the weights that cost most for their size get 16 bits, as long as that adds no more megabytes.
    `text_bias` gives the network an input that says which text tokens are padding. `qairt` also writes the float ONNX
    with AIMET's encodings beside it, which Qualcomm's QAIRT converter takes. `autoencoder` quantizes both halves
    of that as well; scores are then those of the whole system.
    """

    kind: ClassVar[str] = "quantize"
    runner: ClassVar[str] = "compress.stages.quantize:run"
    code_version: ClassVar[int] = 3

    name: str = "quantize"
    generations: int = 32
    edits: int = 32
    held_out: int = 1
    headroom_ratio: float = 1.1
    htp_arch: int = 75
    batch_size: int = 16
    score_images: int | None = None
    rounding: str = "compensated"
    sensitivity: bool = field(default=False, metadata={"absent_means": False})
    wide_weights_mb: float = field(default=0.0, metadata={"absent_means": 0.0})
    text_bias: bool = field(default=False, metadata={"absent_means": False})
    qairt: bool = field(default=False, metadata={"absent_means": False})
    autoencoder: bool = True
    activation_ranges: str = field(default="min_max", metadata={"absent_means": "min_max"})
    weight_ranges: str = field(default="min_max", metadata={"absent_means": "min_max"})
    bias_correction: bool = field(default=False, metadata={"absent_means": False})

    def problems(self) -> list[Problem]:
        """Counts of trajectories, the headroom, and a known HTP generation."""
        enough = self.generations + self.edits > 0 and min(self.generations, self.edits) >= 0
        scorable = (self.score_images or 0) >= EDIT_KINDS
        kept = min(count for count in (self.generations, self.edits, 10**9) if count > 0) if enough else 0
        return [
            *self.expect(enough, "generations", "Record at least 1 trajectory, of generation or editing."),
            *self.expect(0 < self.held_out, "held_out", "Keep at least 1 trajectory to measure on."),
            *self.expect(not enough or self.held_out < kept, "held_out", f"Keep fewer than {kept} for measuring."),
            *self.expect(1 <= self.headroom_ratio <= 4, "headroom_ratio", "Use 1 (none) to 4, for example 1.1."),
            *self.expect(self.htp_arch in ARCHS, "htp_arch", f"Use one of {', '.join(map(str, ARCHS))}."),
            *self.expect(self.rounding in ROUNDINGS, "rounding", f"Use one of {', '.join(ROUNDINGS)}."),
            *self.expect(
                self.activation_ranges in ACTIVATION_RANGES,
                "activation_ranges",
                f"Use one of {', '.join(ACTIVATION_RANGES)}.",
            ),
            *self.expect(
                self.weight_ranges in WEIGHT_RANGES, "weight_ranges", f"Use one of {', '.join(WEIGHT_RANGES)}."
            ),
            *self.expect(self.batch_size > 0, "batch_size", "Give at least 1 sample a batch."),
            *self.expect(self.wide_weights_mb >= 0, "wide_weights_mb", "Use 0 (none) or megabytes that may be added."),
            *self.expect(self.score_images in (None, 0) or scorable, "score_images", "Use null, 0, or at least 7."),
        ]


@dataclass(frozen=True, kw_only=True)
class DeployConfig(StageConfig):
    """The quantized network compiled offline for one Snapdragon and run on the x86 emulator of its HTP.

    `soc_model` is QNN's number: 57 is Snapdragon 8 Gen 3 (V75). Only optimization modes 2 and 3 compute right.
    `eval_images` pictures, half of them edits, are made on the emulator (1 to 2 s a forward) and scored beside the
    same pictures from the simulation. The stage fails below `least_sqnr_db` between emulator and simulation, and names
    the layer where they part. `layers` compares them behind every block ("blocks") or layer ("all") as well, a
    compilation each.
    """

    kind: ClassVar[str] = "deploy"
    runner: ClassVar[str] = "compress.stages.deploy:run"
    code_version: ClassVar[int] = 2

    name: str = "deploy"
    soc_model: int = 57
    optimization_mode: int = 3
    eval_images: int = 100
    least_sqnr_db: float = 40.0
    layers: str = field(default="none", metadata={"absent_means": "none"})

    def problems(self) -> list[Problem]:
        """A chip whose compiled graphs were right, a mode that computes right, and a sensible number of pictures."""
        enough = self.eval_images >= 2 * EDIT_KINDS
        mode = "Use 3. Mode 1 computes wrong results (a SiLU at 0 dB on the emulator, measured)."
        return [
            *self.expect(self.soc_model in SOC_MODELS, "soc_model", f"Use one of {', '.join(map(str, SOC_MODELS))}."),
            *self.expect(self.optimization_mode in (2, 3), "optimization_mode", mode),
            *self.expect(self.eval_images == 0 or enough, "eval_images", f"Use 0 (none) or at least {2 * EDIT_KINDS}."),
            *self.expect(self.layers in LAYERS, "layers", f"Use one of {', '.join(LAYERS)}."),
        ]
