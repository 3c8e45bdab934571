"""Training data of the embedded world: pictures rendered and encoded once, cached, drawn at random ever after.

Shape suffixes: b batch, t text tokens, c latent channels, h and w latent rows and columns, p pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from compress.data.scenes import captions, edits, world
from compress.data.scenes.captions import sample_t2i
from compress.data.scenes.edits import edit_mask_hw, sample_edit
from compress.data.scenes.world import render
from compress.kept import LOCKS
from compress.locks import locked
from compress.stages.context import Progress
from students.system import DiffusionSystem, to_tensor
from teachers.base import Condition

CHUNK = 512
# How often training sees each kind of caption. Binding (which colour, which side) is learned last and slowest, and a
# picture of two named things teaches all that a picture of one does.
T2I_SHARES = {"single_object": 1, "two_object": 2, "counting": 3, "colors": 1, "position": 4, "color_attr": 4}


@dataclass(frozen=True)
class Pool:
    """Encoded samples of one task; `source_bchw` and `mask_bhw` (the edited share of each latent pixel) are edits'."""

    ids_bt: Tensor
    target_bchw: Tensor
    source_bchw: Tensor | None = None
    mask_bhw: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids_bt)

    def rows(self, count: int, generator: torch.Generator) -> Tensor:
        """Random row numbers, with replacement."""
        return torch.randint(len(self), (count,), generator=generator)


def _key(system: DiffusionSystem, task: str, samples: int, seed: int, curated: bool) -> str:
    """Names a pool by all that decides its content: the autoencoder's weights and the first samples as drawn."""
    digest = hashlib.sha256()
    for name, weight in sorted(system.vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().float().numpy().tobytes())
    rng = _rng(task, seed)
    first = [_draw_t2i(rng) if task == "t2i" else sample_edit(rng) for _ in range(64)]
    scenes = [sample.scene if isinstance(sample, captions.T2ISample) else sample.target for sample in first]
    digest.update(repr(first).encode())
    digest.update(render(scenes).tobytes())
    digest.update(f"{task} {samples} {seed} {curated} {sorted(system.tokenizer.get_vocab().items())}".encode())
    return digest.hexdigest()[:20]


def _rng(task: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, {"t2i": 10, "edit": 20}[task]])


def _draw_t2i(rng: np.random.Generator) -> captions.T2ISample:
    """A picture and its caption, the kinds as often as `T2I_SHARES` says."""
    bounds = np.cumsum(list(T2I_SHARES.values()))
    index = int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))
    return sample_t2i(rng, task=list(T2I_SHARES)[index])


def open_pool(
    system: DiffusionSystem,
    task: str,
    samples: int,
    seed: int,
    cache: Path,
    progress: Progress | None = None,
    curated: bool = False,
) -> Pool:
    """The pool of a task ("t2i" or "edit"), from the cache where it is there; half precision at rest."""
    path = cache / f"scenes-{task}-{_key(system, task, samples, seed, curated)}.safetensors"
    if not path.exists():
        with locked(cache / LOCKS / path.stem):  # workers of a sweep come to it at the same time
            if not path.exists():
                tensors = _encode(system, task, samples, seed, curated, progress)
                part = path.with_suffix(f".{os.getpid()}.part")
                save_file(tensors, part)
                os.replace(part, path)
    tensors = load_file(path)
    return Pool(tensors["ids"].long(), tensors["target"], tensors.get("source"), tensors.get("mask"))


def _encode(
    system: DiffusionSystem, task: str, samples: int, seed: int, curated: bool, progress: Progress | None
) -> dict[str, Tensor]:
    rng = _rng(task, seed)
    parts: dict[str, list[Tensor]] = {}
    if progress:
        progress.start(samples, "pictures", f"encoding {task} data")
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        chunk = _t2i_chunk(system, rng, count, curated) if task == "t2i" else _edit_chunk(system, rng, count, curated)
        for name, value in chunk.items():
            parts.setdefault(name, []).append(value)
        if progress:
            progress.advance(count)
    return {name: torch.cat(values).contiguous() for name, values in parts.items()}


def _plain(text: str) -> bool:
    """Whether a text is worded in the plainest way: what the curated set of SFT keeps."""
    return text.split()[0] in ("a", "an", "two", "three", "four", "add", "remove", "replace", "make", "move", "change")


def _latents(system: DiffusionSystem, scenes: list[world.Scene]) -> Tensor:
    return system.encode_image(to_tensor(render(scenes))).half().cpu()


def _t2i_chunk(system: DiffusionSystem, rng: np.random.Generator, count: int, curated: bool) -> dict[str, Tensor]:
    samples: list[captions.T2ISample] = []
    while len(samples) < count:
        sample = _draw_t2i(rng)
        if not curated or _plain(sample.prompt.text):
            samples.append(sample)
    ids_bt = system.tokenize([sample.prompt.tagged for sample in samples])
    return {"ids": ids_bt.to(torch.int16), "target": _latents(system, [sample.scene for sample in samples])}


def _edit_chunk(system: DiffusionSystem, rng: np.random.Generator, count: int, curated: bool) -> dict[str, Tensor]:
    samples: list[edits.EditSample] = []
    while len(samples) < count:
        sample = sample_edit(rng)
        if not curated or _plain(sample.instruction.text):
            samples.append(sample)
    masks_bpp = torch.from_numpy(np.stack([edit_mask_hw(sample.source, sample.target) for sample in samples]))
    side = system.latent_shape[1]
    return {
        "ids": system.tokenize([sample.instruction.tagged for sample in samples]).to(torch.int16),
        "target": _latents(system, [sample.target for sample in samples]),
        "source": _latents(system, [sample.source for sample in samples]),
        "mask": torch.nn.functional.adaptive_max_pool2d(masks_bpp[:, None].float(), side)[:, 0].half(),
    }


def latent_batches(
    system: DiffusionSystem, task: str, n: int, seed: int, batch_size: int = 32
) -> Iterator[tuple[Tensor, Condition]]:
    """`n` freshly drawn samples as (latents, condition) batches, not cached; for calibration."""
    tensors = _encode(system, task, n, seed, False, None)
    for start in range(0, n, batch_size):
        part = slice(start, start + batch_size)
        condition = system.encode_ids(tensors["ids"][part].long())
        if "source" in tensors:
            condition = replace(condition, source_bchw=tensors["source"][part].float().to(system.device))
        yield tensors["target"][part].float().to(system.device), condition
