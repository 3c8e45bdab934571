"""The exact verifier as a reward: 1 where a picture does what was asked, else 0. No gradient: it is the judge."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.data.scenes.captions import Prompt
from compress.data.scenes.verifier import Reading, judge_edit, judge_t2i, read
from compress.rewards.base import Request
from students.system import to_pixels


class VerifierReward:
    """Reads pixels and judges prompts and instructions strictly; needs `Request.meanings`."""

    differentiable = False

    @torch.no_grad()
    def score(self, images_b3hw: Tensor, request: Request) -> Tensor:
        """0 or 1 a picture, shape (b,), on the pictures' device. Raises ValueError where the meanings are missing."""
        if len(request.meanings) != len(images_b3hw):
            raise ValueError(f"{len(images_b3hw)} pictures but {len(request.meanings)} meanings to judge them by")
        sources: list[Reading | None] = [None] * len(images_b3hw)
        if request.source_b3hw is not None:
            sources = list(read(to_pixels(request.source_b3hw)))
        verdicts = []
        for reading, source, meaning in zip(read(to_pixels(images_b3hw)), sources, request.meanings, strict=True):
            if isinstance(meaning, Prompt):
                verdicts.append(judge_t2i(reading, meaning).ok)
            elif source is None:
                raise ValueError(f"no source picture to judge the edit {meaning.text!r} by")
            else:
                verdicts.append(judge_edit(source, reading, meaning).ok)
        return torch.tensor(verdicts, dtype=torch.float32, device=images_b3hw.device)
