"""How much each channel, head and neuron matters: every criterion scores single weights, groups add them up.

One interface: a criterion maps a network and calibration batches to a saliency per parameter entry (same shapes as the
parameters, non-negative, comparable across layers); `unit_scores` sums it over everything that a unit owns,
`layer_score` over a whole layer. Criteria that need gradients or activations get them from one pass over the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.pruning.calibration import Noised, predict, rows_of
from compress.pruning.groups import Group

Saliency = dict[str, Tensor]
Criterion = Callable[[nn.Module, Sequence[Noised], torch.Generator], Saliency]


def random(unet: nn.Module, batches: Sequence[Noised], generator: torch.Generator) -> Saliency:
    """The control: scores that know nothing. Drawn per entry and heavy-tailed, so that sums differ between units."""
    return {
        name: torch.rand(parameter.shape, generator=generator).double().pow(-0.9)
        for name, parameter in unet.named_parameters()
    }


def magnitude(unet: nn.Module, batches: Sequence[Noised], generator: torch.Generator) -> Saliency:
    """Squared weights (Han et al., arXiv 1506.02626). Norms and biases do not count: their scale is another."""
    return {
        name: parameter.detach().square() if parameter.dim() > 1 else torch.zeros_like(parameter)
        for name, parameter in unet.named_parameters()
    }


@torch.no_grad()
def activation(unet: nn.Module, batches: Sequence[Noised], generator: torch.Generator) -> Saliency:
    """Squared weight times the mean square of the input that it meets: Wanda (Sun et al., arXiv 2306.11695), squared.

    Summed over a row it is the energy of that output, had its inputs been uncorrelated.
    """
    readers = {name: m for name, m in unet.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    energy = input_energy(unet, readers, batches)
    saliency = {name: torch.zeros_like(parameter) for name, parameter in unet.named_parameters()}
    for name, module in readers.items():
        if name not in energy:
            continue  # not reached by any forward
        weight = module.weight.detach()
        depthwise = isinstance(module, nn.Conv2d) and module.groups > 1  # one input channel an output channel
        shape = (-1, 1) if depthwise else (1, -1)
        per_input = energy[name].reshape(*shape, *[1] * (weight.dim() - 2))
        saliency[f"{name}.weight"] = weight.square() * per_input
    return saliency


def taylor(unet: nn.Module, batches: Sequence[Noised], generator: torch.Generator) -> Saliency:
    """|weight * gradient| of the flow-matching loss, averaged over batches: the first-order change of the loss when a
    weight is set to zero (Molchanov et al., arXiv 1906.10771, eq. 8, without the square)."""
    return _gradients(unet, batches, lambda weight, gradient: (weight * gradient).abs())


def fisher(unet: nn.Module, batches: Sequence[Noised], generator: torch.Generator) -> Saliency:
    """(weight * gradient)^2 averaged over single samples: the second-order change of the loss with the empirical Fisher
    matrix's diagonal for the Hessian (optimal brain damage, LeCun et al. 1990, eq. 5)."""
    singles = [rows_of(batch, slice(row, row + 1)) for batch in batches for row in range(len(batch.sigma_b))]
    return _gradients(unet, singles, lambda weight, gradient: (weight * gradient).square())


CRITERIA: dict[str, Criterion] = {
    "random": random,
    "magnitude": magnitude,
    "activation": activation,
    "taylor": taylor,
    "fisher": fisher,
}


def unit_scores(group: Group, saliency: Mapping[str, Tensor]) -> Tensor:
    """One score a unit, shape (units,): the saliency of all entries that it owns, in double precision."""
    total = torch.zeros(group.units, dtype=torch.float64)
    for member in group.members:
        per_entry = (
            saliency[member.parameter]
            .double()
            .movedim(member.axis, 0)
            .reshape(saliency[member.parameter].shape[member.axis], -1)
            .sum(1)
            .cpu()
        )
        total += per_entry[member.index_us].sum(dim=1)
    return total


def layer_score(prefix: str, saliency: Mapping[str, Tensor]) -> float:
    """The saliency of everything under a module's name."""
    return float(sum(s.double().sum() for name, s in saliency.items() if name.startswith(f"{prefix}.")))


def input_energy(unet: nn.Module, modules: Mapping[str, nn.Module], batches: Iterable[Noised]) -> dict[str, Tensor]:
    """Mean square of each input channel of each module (channel axis 1 of maps, the last of token sequences)."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def listener(name: str, is_conv: bool) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0].double()
            axes = [a for a in range(x.dim()) if a != (1 if is_conv else x.dim() - 1)]
            sums[name] = sums.get(name, 0) + x.square().sum(dim=axes)
            counts[name] = counts.get(name, 0) + x.numel() // x.shape[1 if is_conv else -1]

        return hook

    handles = [m.register_forward_pre_hook(listener(n, isinstance(m, nn.Conv2d))) for n, m in modules.items()]
    try:
        for batch in batches:
            predict(unet, batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: (total / counts[name]).float() for name, total in sums.items()}


def _gradients(unet: nn.Module, batches: Sequence[Noised], score: Callable[[Tensor, Tensor], Tensor]) -> Saliency:
    saliency = {name: torch.zeros_like(parameter) for name, parameter in unet.named_parameters()}
    named = [(name, p) for name, p in unet.named_parameters()]
    unet.requires_grad_(True)
    with torch.enable_grad():
        for batch in batches:
            loss = (predict(unet, batch) - batch.velocity_bchw).square().mean()
            gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
            for (name, parameter), gradient in zip(named, gradients, strict=True):
                if gradient is not None:
                    saliency[name] += score(parameter.detach(), gradient) / len(batches)
    unet.requires_grad_(False)
    return saliency
