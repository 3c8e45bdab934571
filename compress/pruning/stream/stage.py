"""The prune stage for a teacher that is larger than memory."""

from __future__ import annotations

from collections.abc import Callable

import torch

from compress.config.stream import StreamConfig
from compress.pruning.calibration import Noised, Watch
from compress.pruning.stream.evolve import UNET, Streamed, stream, teacher_spec
from compress.pruning.stream.files import open_checkpoint
from compress.pruning.stream.samples import in_dtype, read_samples
from compress.pruning.surgery import Bench
from compress.stages.context import Progress, StageContext, StageResult
from compress.stages.prune import TABLE, reach

COMPUTE = torch.bfloat16  # what samples pass in, for half the memory of fp32; without AMX it is no faster
TOKENS = 77  # of SDXL's text encoders, for budgets of MACs


def run(config: StreamConfig, ctx: StageContext) -> StageResult:
    """Diffusers folder in, student's U-Net out. Raises UserError before any weight is read or written."""
    folder = ctx.teacher or ctx.parent
    assert folder is not None
    checkpoint = open_checkpoint(folder / UNET)
    spec = teacher_spec(checkpoint)
    side = spec.sample_size or 128
    goal = reach(config, spec, side, side, TOKENS)
    batches: list[Noised] = []
    if config.calibrated:
        paired = checkpoint.config.get("_class_name") == "DreamLiteUNetModel"
        batches = read_samples(folder, spec, paired, config.calibration_samples, config.seed)
        ctx.progress.message(f"{len(batches)} calibration samples pass at each step that looks at them, in bf16")
    chance = torch.Generator().manual_seed(config.seed)
    bench = Bench(in_dtype(batches, COMPUTE), config.criterion, chance, config.kv_merge, config.layer_rule)
    bench.dtype, bench.watch = COMPUTE, _watch(ctx.progress)
    ctx.progress.message(f"reading {len(checkpoint.entries)} tensors of {len(checkpoint.files)} files as needed")
    begun = False

    def tell(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            ctx.progress.start(total, "tensors", "writing")
            begun = True
        ctx.progress.advance(1)

    made = stream(checkpoint, goal, config.steps, bench, ctx.out, config.dtype, tell)
    made.ledger.save(ctx.out / TABLE)
    return result(made)


def _watch(progress: Progress) -> Watch:
    def begin(label: str, forwards: int) -> Callable[[], None]:
        progress.start(forwards, "forwards", label)
        return progress.advance

    return begin


def result(made: Streamed) -> StageResult:
    """What the card says, as for the prune stage in memory; velocity errors are missing, for no sample went through."""
    first, last = made.rows[0], made.rows[-1]
    metrics = {name: last[name] for name in ("parameters_m", "macs_g", "size_mb_w8_padded")}
    metrics["ratio_parameters"] = last["parameters_m"] / first["parameters_m"]
    extra = {"evolution": made.rows, "kept": made.report.get("kept", {}), "depth": made.report.get("depth", {})}
    return StageResult(metrics=metrics, extra=extra, spec=made.spec.to_config())
