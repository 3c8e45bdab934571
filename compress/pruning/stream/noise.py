"""Teachers of random weights in SDXL's shape, made as fast as they can be written: for measuring, and for tests."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.cost import skeleton
from compress.pruning.stream.files import STEM
from compress.pruning.stream.writer import DTYPES, write_safetensors
from students.init import Shapes, shapes
from students.presets import sdxl_full
from students.spec import StudentSpec

POOL = 1 << 25  # random numbers drawn in all; tensors are stretches of them


def sdxl_small() -> StudentSpec:
    """SDXL's topology with everything that costs memory made small: 9 M parameters."""
    return replace(
        sdxl_full(),
        widths=(64, 128, 192),
        transformer_layers=(1, 2, 3),
        heads=(1, 2, 3),
        cross_dim=96,
        pooled_dim=40,
        size_dim=32,
        sample_size=16,
    )


SCALES = {"full": sdxl_full, "small": sdxl_small}


class Noise(Mapping[str, Tensor]):
    """Name -> random tensor of the scale that an untrained network has; depends on the name and the shape alone."""

    def __init__(self, wanted: Shapes, dtype: torch.dtype) -> None:
        self._wanted, self._dtype = wanted, dtype
        most = max(prod(shape) for shape in wanted.values())
        pool = torch.randn(min(POOL, 2 * most), generator=torch.Generator().manual_seed(0)).to(dtype)
        self._pool = torch.cat([pool, pool[:most]])  # so that a stretch may start anywhere

    def __getitem__(self, name: str) -> Tensor:
        shape = self._wanted[name]
        count = prod(shape)
        start = zlib.crc32(name.encode()) % (len(self._pool) - count + 1)
        noise = self._pool[start : start + count].reshape(shape)
        if len(shape) > 1:
            return noise * prod(shape[1:]) ** -0.5
        return 0.1 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._wanted)

    def __len__(self) -> int:
        return len(self._wanted)


def write_teacher(folder: Path, spec: StudentSpec, dtype: str = "bf16", shards: int = 1) -> None:
    """Writes `folder/unet` as diffusers would save it, whole or in shards with an index."""
    unet = folder / "unet"
    unet.mkdir(parents=True)
    (unet / "config.json").write_text(json.dumps(config_of(spec), indent=2) + "\n")
    wanted = shapes(skeleton(spec))
    noise = Noise(wanted, DTYPES[dtype])
    if shards == 1:
        write_safetensors(unet / f"{STEM}.safetensors", wanted, noise, DTYPES[dtype])
        return
    weight_map: dict[str, str] = {}
    names = list(wanted)
    for number in range(shards):
        mine = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        file = f"{STEM}-{number + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(unet / file, {name: wanted[name] for name in mine}, noise, DTYPES[dtype])
        weight_map |= dict.fromkeys(mine, file)
    index = {"metadata": {"total_size": DTYPES[dtype].itemsize * sum(map(prod, wanted.values()))}}
    (unet / f"{STEM}.safetensors.index.json").write_text(json.dumps(index | {"weight_map": weight_map}) + "\n")


def config_of(spec: StudentSpec) -> dict[str, Any]:
    """What diffusers would write into unet/config.json: of `UNet2DConditionModel` where that class can say it."""
    plain = replace(spec, plain=True)
    said = spec if plain.unexpressed() else plain
    name = "UNet2DConditionModel" if said.plain else "DreamLiteUNetModel"
    return {"_class_name": name, "_diffusers_version": "0.19.0", **said.to_config()}
