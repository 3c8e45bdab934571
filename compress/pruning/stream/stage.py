"""The prune stage for a teacher that is larger than memory."""

from __future__ import annotations

import torch

from compress.config.stream import StreamConfig
from compress.pruning.stream.evolve import UNET, Streamed, stream, teacher_spec
from compress.pruning.stream.files import open_checkpoint
from compress.pruning.surgery import Bench
from compress.stages.context import StageContext, StageResult
from compress.stages.prune import TABLE, reach

TOKENS = 77  # of SDXL's text encoders, for budgets of MACs


def run(config: StreamConfig, ctx: StageContext) -> StageResult:
    """Diffusers folder in, student's U-Net out. Raises UserError before any weight is read or written."""
    folder = ctx.teacher or ctx.parent
    assert folder is not None
    checkpoint = open_checkpoint(folder / UNET)
    spec = teacher_spec(checkpoint)
    side = spec.sample_size or 128
    goal = reach(config, spec, side, side, TOKENS)
    bench = Bench([], config.criterion, torch.Generator().manual_seed(config.seed), config.kv_merge, config.layer_rule)
    ctx.progress.message(f"reading {len(checkpoint.entries)} tensors of {len(checkpoint.files)} files as needed")
    begun = False

    def tell(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            ctx.progress.start(total, "tensors", "writing")
            begun = True
        ctx.progress.advance(1)

    with torch.no_grad():
        made = stream(checkpoint, goal, config.steps, bench, ctx.out, config.dtype, tell)
    made.ledger.save(ctx.out / TABLE)
    return result(made)


def result(made: Streamed) -> StageResult:
    """What the card says, as for the prune stage in memory; velocity errors are missing, for no sample went through."""
    first, last = made.rows[0], made.rows[-1]
    metrics = {name: last[name] for name in ("parameters_m", "macs_g", "size_mb_w8_padded")}
    metrics["ratio_parameters"] = last["parameters_m"] / first["parameters_m"]
    extra = {"evolution": made.rows, "kept": made.report.get("kept", {}), "depth": made.report.get("depth", {})}
    return StageResult(metrics=metrics, extra=extra, spec=made.spec.to_config())
