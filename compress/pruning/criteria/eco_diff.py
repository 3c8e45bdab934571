"""EcoDiff: learn masks over heads and neurons, so that whole pictures change least (arXiv 2412.02852).

Every unit has a gate on its way into the layers that read it, drawn from the hard concrete distribution (Louizos et
al., arXiv 1712.01312): it is 0 or 1 with positive probability and differentiable in between. One set of gates serves
all steps. The loss is the distance between the latents that sampling from pure noise ends in with and without gates,
plus the expected number of open ones; each step is recomputed on the way back, so memory is that of one step. A unit's
score is the probability that its gate is open.

EcoDiff masks heads and FFN neurons; here channels have gates too, so that it scores all that can be made narrower.
Shape suffixes: u units of all groups, f input channels of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from compress.pruning.calibration import Noised, predict
from compress.pruning.criteria.base import Criterion, is_depthwise, readers
from compress.pruning.groups import Group, find_groups
from compress.pruning.importance import Saliency
from students.spec import StudentSpec

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1  # beta, gamma, zeta of the hard concrete distribution


@dataclass(frozen=True)
class MaskSearch:
    """`sampling_steps` Euler steps make a latent. `weight_open` is the price of an open gate: closing all of them would
    pay for an error as large as that share of the latents' energy."""

    steps: int = 50
    sampling_steps: int = 4
    lr: float = 0.1
    weight_open: float = 0.5
    start: float = 3.0  # the logits' first value: nearly all gates are open


class EcoDiff(Criterion):
    """The probability that a unit's gate is open after the search."""

    def __init__(self, unet: nn.Module, generator: torch.Generator, search: MaskSearch = MaskSearch()) -> None:
        super().__init__(unet, generator)
        self.search = search

    def prepare(self, batches: Sequence[Noised]) -> None:
        config: Any = self.unet.config
        groups = find_groups(StudentSpec.from_config(config))
        open_u = learn_gates(self.unet, batches, groups, self.generator, self.search)
        self.open = dict(zip([g.name for g in groups], open_u.split([g.units for g in groups]), strict=True))
        self.groups = groups

    def saliency(self) -> Saliency:
        saliency = Saliency()
        for group in self.groups:
            # A group's units add up what all its members score: their probability is put on one of them.
            member = group.members[0]
            scores = torch.zeros(self.parameters[member.parameter].shape[member.axis], dtype=torch.float64)
            share_u = self.open[group.name].double().cpu() / member.index_us.shape[1]
            scores[member.index_us] = share_u[:, None].expand_as(member.index_us)
            saliency.add_along(member.parameter, member.axis, scores)
        return saliency


def learn_gates(
    unet: nn.Module,
    batches: Sequence[Noised],
    groups: Sequence[Group],
    generator: torch.Generator,
    search: MaskSearch = MaskSearch(),
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Tensor:
    """The probability that each gate is open, (u,) for the units of all groups. The network is left as it was."""
    device = next(unet.parameters()).device
    units = sum(group.units for group in groups)
    logits_u = torch.full((units,), search.start, device=device, requires_grad=True)
    places = {name: index_f.to(device) for name, index_f in gate_places(unet, groups).items()}
    optimizer = torch.optim.Adam([logits_u], lr=search.lr)
    with torch.no_grad():
        finals = [rollout(unet, batch, search.sampling_steps) for batch in batches]
    gates: list[Tensor] = []
    with ExitStack() as stack, torch.enable_grad():
        for name, index_f in places.items():
            stack.callback(unet.get_submodule(name).register_forward_pre_hook(_gated(gates, index_f)).remove)
        for step in range(search.steps):
            uniform_u = torch.rand(units, generator=generator).clamp(1e-6, 1 - 1e-6).to(device)
            gates[:] = [torch.cat([hard_concrete(logits_u, uniform_u), torch.ones(1, device=device)])]
            final_bchw = finals[step % len(finals)]
            made_bchw = rollout(unet, batches[step % len(batches)], search.sampling_steps)
            gap = (made_bchw - final_bchw).square().mean() / final_bchw.square().mean()
            loss = gap + search.weight_open * open_probability(logits_u).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            on_step(step, float(loss.detach()))
    return open_probability(logits_u.detach())


def hard_concrete(logits_u: Tensor, uniform_u: Tensor) -> Tensor:
    """Gates in [0, 1] (arXiv 1712.01312, the hard concrete distribution) for uniform draws in (0, 1)."""
    soft_u = ((uniform_u.logit() + logits_u) / TEMPERATURE).sigmoid()
    return (soft_u * (HIGH - LOW) + LOW).clamp(0, 1)


def open_probability(logits_u: Tensor) -> Tensor:
    """The probability that a gate is not 0 (arXiv 1712.01312, a gate's part of the expected L0 norm)."""
    return (logits_u - TEMPERATURE * torch.tensor(-LOW / HIGH).log().to(logits_u)).sigmoid()


def rollout(unet: nn.Module, batch: Noised, steps: int) -> Tensor:
    """The latent after Euler steps of equal length from the batch's own noise, at its conditions."""
    x_bchw = batch.x_bchw + (1 - batch.sigma_b)[:, None, None, None] * batch.velocity_bchw  # x_1 = eps
    for step in range(steps):
        sigma_b = torch.full_like(batch.sigma_b, 1 - step / steps)

        def velocity(x_bchw: Tensor, sigma_b: Tensor = sigma_b) -> Tensor:
            return predict(unet, replace(batch, x_bchw=x_bchw, sigma_b=sigma_b))

        made = checkpoint(velocity, x_bchw, use_reentrant=False) if torch.is_grad_enabled() else velocity(x_bchw)
        x_bchw = x_bchw - made / steps
    return x_bchw


def gate_places(unet: nn.Module, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Layer -> for each of its inputs the number of the unit that it belongs to among all groups' units; one more than
    the last where it belongs to none."""
    units = sum(group.units for group in groups)
    layers = {name: layer for name, layer in readers(unet).items() if not is_depthwise(layer)}
    places = {name: torch.full((layer.weight.shape[1],), units) for name, layer in layers.items()}
    first = 0
    for group in groups:
        for member in group.members:
            layer, _, kind = member.parameter.rpartition(".")
            if member.axis == 1 and kind == "weight" and layer in places:
                owner_us = torch.arange(first, first + group.units)[:, None].expand_as(member.index_us)
                places[layer][member.index_us] = owner_us
        first += group.units
    return {name: index_f for name, index_f in places.items() if bool((index_f < units).any())}


def _gated(gates: list[Tensor], index_f: Tensor) -> Callable[..., tuple[Any, ...]]:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        gate_f = gates[0][index_f]
        x = args[0]
        return (x * (gate_f[:, None, None] if x.dim() == 4 else gate_f), *args[1:])

    return hook
