"""What post-training draws instead of data: texts and sources of both tasks, from the encoded pools.

Shape suffixes: b batch, t text tokens, c latent channels, h and w latent rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from compress.data.scenes.dataset import Pool, open_pool
from compress.stages.context import Progress
from students.system import DiffusionSystem
from teachers.base import Condition


@dataclass(frozen=True)
class Drawn:
    """Token ids and latents of the sources; rows that generate have a source of zeros. Edits come first."""

    ids_bt: Tensor
    source_bchw: Tensor


class Prompts:
    """Draws batches of which `edit_share` are edits; randomness from the given generator alone."""

    def __init__(self, system: DiffusionSystem, pools: dict[str, Pool], edit_share: float) -> None:
        self.system, self.pools, self.edit_share = system, pools, edit_share

    @classmethod
    def open(cls, system: DiffusionSystem, edit_share: float, samples: int, cache: Path, progress: Progress) -> Prompts:
        """From the pools that training used, where their size is the same."""
        tasks = [task for task, needed in (("t2i", edit_share < 1), ("edit", edit_share > 0)) if needed]
        pools = {task: open_pool(system, task, samples, 0, cache, progress) for task in tasks}
        return cls(system, pools, edit_share)

    def draw(self, count: int, generator: torch.Generator) -> Drawn:
        """`count` rows; on the CPU."""
        edits = round(self.edit_share * count)
        ids, sources = [], []
        for task, rows_count in (("edit", edits), ("t2i", count - edits)):
            if rows_count:
                pool = self.pools[task]
                rows = pool.rows(rows_count, generator)
                ids.append(pool.ids_bt[rows])
                source = pool.source_bchw
                sources.append((torch.zeros_like(pool.target_bchw[rows]) if source is None else source[rows]).float())
        return Drawn(torch.cat(ids), torch.cat(sources))

    def condition(self, drawn: Drawn) -> Condition:
        """The encoded condition, on the system's device."""
        return replace(self.system.encode_ids(drawn.ids_bt), source_bchw=drawn.source_bchw.to(self.system.device))

    def draw_condition(self, count: int, generator: torch.Generator) -> Condition:
        """`draw` and `condition` in one."""
        return self.condition(self.draw(count, generator))
