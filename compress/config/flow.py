"""Flow-matching training: the teacher's, and the student's four stages, which differ in their task mix only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from compress.config.train import TrainConfig
from compress.errors import Problem

STAGES = ("t2i", "edit", "joint", "sft")


@dataclass(frozen=True, kw_only=True)
class _FlowBase(TrainConfig):
    """What training of any denoiser needs: noise levels, condition dropout, data and validation.

    Noise levels are logit-normal around `sigma_mean` (more is noisier): the latents of the scenes are so redundant that
    what stands where is decided at high noise, and the decoder forgives what is left below 0.3. For the same reason
    sampling is shifted towards noise by `sampling_shift`. `drop_text` blanks the text, for guidance.
    `pool_samples` pictures a task are rendered and encoded once and cached. Every `validate_every` steps
    `validate_images` prompts a task kind are sampled in `validate_steps` steps and judged by the exact verifier.
    """

    sigma_mean: float = 1.0
    sigma_std: float = 1.2
    drop_text: float = 0.1
    sampling_steps: int = 28
    sampling_shift: float = 3.0
    pool_samples: int = 65536
    validate_every: int = field(default=1000, metadata={"in_key": False})
    validate_images: int = field(default=120, metadata={"in_key": False})
    validate_steps: int = field(default=16, metadata={"in_key": False})

    def problems(self) -> list[Problem]:
        """Also: shares in [0, 1), positive counts."""
        return [
            *super().problems(),
            *self.expect(0 <= self.drop_text < 1, "drop_text", "Use a share such as 0.1."),
            *self.expect(self.sigma_std > 0, "sigma_std", "Use a positive standard deviation such as 1.2."),
            *self.expect(self.pool_samples > 0, "pool_samples", "Give at least 1 sample to draw from."),
        ]


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(_FlowBase):
    """The scenes teacher: SDXL's topology in small, generation only. Heads are 64 wide, as SDXL's."""

    kind: ClassVar[str] = "teacher"
    runner: ClassVar[str] = "compress.stages.teacher:run"

    name: str = "teacher"
    widths: tuple[int, ...] = (64, 128, 256)
    layers_per_block: int = 1
    depths: tuple[int, ...] = (1, 1, 2)
    size_embedding: int = 32
    guidance_text: float = 1.5  # more makes it draw things twice: measured at 1, 1.5, 2, 4 and 6

    def problems(self) -> list[Problem]:
        """Also: three stages of widths that 64-wide heads divide."""
        return [
            *super().problems(),
            *self.expect(len(self.widths) == 3, "widths", "Give three stages, as SDXL has."),
            *self.expect(all(w % 64 == 0 for w in self.widths), "widths", "Use multiples of 64: heads are 64 wide."),
            *self.expect(len(self.depths) == len(self.widths), "depths", "Give one transformer depth a stage."),
        ]


@dataclass(frozen=True, kw_only=True)
class FlowConfig(_FlowBase):
    """One of the student's stages: flow matching on a mix of generation and editing, with KD from the teacher on T2I.

    `edit_share` of a batch are edits. Their noise levels lie around `edit_sigma_mean`: only near pure noise does the
    student have to look at the source to know what stays. `distill_weight` is that of the output KD on generation rows,
    `data_weight` that of the data beside it there: the teacher's velocity is the mean of what the data scatters around.
    `foreground_weight` turns on the edited area's weight (UniWorld-V1's rule). `drop_source` blanks text and source
    together, for image guidance. `curated` trains on pictures of full size and plain wording only (SFT).
    `keep_edits` lets edits learn from the frozen parent's velocity instead of from data, which holds what the parent
    can do and does not scatter: for a round that is there for generation. The distance to the teacher's velocities is
    measured at the end where there is KD, or with `measure_error`.
    """

    kind: ClassVar[str] = "flow"
    runner: ClassVar[str] = "compress.stages.flow:run"

    edit_share: float = 0.5
    edit_sigma_mean: float = 2.5
    distill_weight: float = 1.0
    data_weight: float = field(default=1.0, metadata={"absent_means": 1.0})
    foreground_weight: bool = True
    drop_source: float = 0.05
    curated: bool = False
    keep_edits: bool = field(default=False, metadata={"absent_means": False})
    measure_error: bool = field(default=False, metadata={"absent_means": False})
    guidance_text: float = 1.5
    guidance_edit_text: float = 1.5
    guidance_image: float = 1.0

    def problems(self) -> list[Problem]:
        """Also: the stage's name says its task mix."""
        return [
            *super().problems(),
            *self.expect(0 <= self.edit_share <= 1, "edit_share", "Use a share from 0 (T2I only) to 1 (edits only)."),
            *self.expect(0 <= self.drop_source < 1, "drop_source", "Use a share such as 0.05."),
            *self.expect(self.distill_weight >= 0, "distill_weight", "Use 0 (off) or a positive weight."),
            *self.expect(self.data_weight >= 0, "data_weight", "Use 0 (the teacher alone) or a positive weight."),
        ]
