"""Calibration data of a quantized U-Net: its own inputs along its own sampling trajectories, every step.

Shape suffixes: b batch, n recorded calls, c latent channels, h and w latent rows and columns.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from compress.diffusion.guidance import Guidance
from compress.diffusion.sampler import sample
from compress.quantization.host import IoSpec, NetworkInputs, network_inputs
from teachers.base import Condition, VelocityModel


@dataclass(frozen=True)
class CalibrationSet:
    """Recorded calls of the network: what went in, at which step of which trajectory, and whether it was an edit."""

    inputs: NetworkInputs
    step_n: Tensor
    trajectory_n: Tensor
    edits_n: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: Tensor) -> CalibrationSet:
        return CalibrationSet(self.inputs[rows], self.step_n[rows], self.trajectory_n[rows], self.edits_n[rows])

    def trajectories(self, chosen: Sequence[int]) -> CalibrationSet:
        """All calls of the chosen trajectories, in recorded order."""
        return self[torch.isin(self.trajectory_n, torch.tensor(list(chosen))).nonzero()[:, 0]]

    def save(self, path: Path, held_out: Sequence[int] = ()) -> None:
        """Safetensors; `held_out` are trajectories kept from calibration, for measuring."""
        tensors = self.inputs.named()
        tensors |= {"step": self.step_n, "trajectory": self.trajectory_n, "edit": self.edits_n}
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, path, metadata={"held_out": json.dumps(list(held_out))})

    @classmethod
    def load(cls, path: Path) -> tuple[CalibrationSet, list[int]]:
        """The set and its held-out trajectories."""
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            held_out = json.loads(file.metadata()["held_out"])
        return cls(NetworkInputs.of(tensors), tensors["step"], tensors["trajectory"], tensors["edit"]), held_out


class Recorder:
    """A VelocityModel that notes the network inputs of every call and passes it on."""

    def __init__(self, model: VelocityModel, spec: IoSpec) -> None:
        self.model, self.spec = model, spec
        self.calls: list[NetworkInputs] = []
        self.edits: list[Tensor] = []

    def velocity(self, x_bchw: Tensor, sigma_b: Tensor, condition: Condition) -> Tensor:
        """Records and calls."""
        self.calls.append(network_inputs(self.spec, x_bchw, sigma_b, condition))
        self.edits.append(condition.edits_b.cpu())
        return self.model.velocity(x_bchw, sigma_b, condition)


@torch.no_grad()
def record_trajectories(
    model: VelocityModel,
    spec: IoSpec,
    noise_bchw: Tensor,
    condition: Condition,
    sigmas: Sequence[float],
    guidance: Guidance | None = None,
    stochastic: bool = False,
    generator: torch.Generator | None = None,
) -> CalibrationSet:
    """Samples one trajectory a row of `noise_bchw` and returns every network call on the way, in float32 on the CPU.

    Without guidance all trajectories walk in one batch. With guidance one at a time, since a step then takes a
    number of branches that differs from row to row; all of them count as calls of that step.
    """
    batch = len(noise_bchw)
    groups = [slice(0, batch)] if guidance is None else [slice(row, row + 1) for row in range(batch)]
    parts = []
    for rows in groups:
        recorder = Recorder(model, spec)
        sample(recorder, noise_bchw[rows], condition[rows], sigmas, guidance, stochastic, generator)
        owners = torch.arange(batch)[rows]
        for step, (call, edits_b) in enumerate(zip(recorder.calls, recorder.edits, strict=True)):
            owner_b = owners if len(owners) == len(call) else owners.expand(len(call))
            parts.append(CalibrationSet(call, torch.full((len(call),), step), owner_b, edits_b))
    return CalibrationSet(
        NetworkInputs.cat([part.inputs for part in parts]),
        torch.cat([part.step_n for part in parts]),
        torch.cat([part.trajectory_n for part in parts]),
        torch.cat([part.edits_n for part in parts]),
    )
