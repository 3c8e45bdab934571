"""TinyFusion: learn which layers to drop together with the recovery from dropping them (arXiv 2412.01199).

Every choice "N of M layers stay" is a categorical distribution over the masks that are legal. Masks are drawn with
straight-through Gumbel-softmax (Jang et al., arXiv 1611.01144), a masked layer passes its input on, low-rank updates
of the linear layers stand in for later fine-tuning, so that masks are judged by how well the network recovers and not
by the damage at once. In the end the most probable mask of each choice stays; the updates are dropped.
Shape suffixes: m masks, l layers, b batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.pruning.calibration import Noised, predict, predictions
from compress.pruning.criteria.layers import Choice, Layers, LayerTask, shortcut

Progress = Callable[[int, float], None]  # (step, loss)


@dataclass(frozen=True)
class DepthSearch:
    """How long and how fast masks are learnt. Weights of the two losses, the temperature's fall and AdamW's rate for
    the updates are the paper's; masks learn faster, since here they get hundreds of steps and not an epoch."""

    steps: int = 200
    rank: int = 8
    lr_updates: float = 2e-4
    lr_masks: float = 0.05
    temperatures: tuple[float, float] = (4.0, 0.1)
    weight_teacher: float = 0.9  # squared distance to the teacher's velocity; the rest to the true one
    clip: float = 1.0


def tiny_fusion(
    choices: Sequence[Choice],
    task: LayerTask,
    search: DepthSearch = DepthSearch(),
    on_step: Progress = lambda step, loss: None,
) -> dict[str, Layers]:
    """The most probable mask of each choice after the search. The network is left as it was."""
    masks = DepthMasks(choices, task.generator, next(task.network().parameters()).device)
    learn_depth(task.network(), task.batches, masks, task.generator, search, on_step)
    return masks.most_probable()


class DepthMasks:
    """A categorical distribution over the legal subsets of every choice."""

    def __init__(self, choices: Sequence[Choice], generator: torch.Generator, device: torch.device) -> None:
        self.choices, self.generator, self.device = choices, generator, device
        self.logits = [torch.zeros(len(choice.legal), device=device, requires_grad=True) for choice in choices]
        self.legal_ml = [_as_matrix(choice).to(device) for choice in choices]

    def draw(self, temperature: float) -> dict[str, Tensor]:
        """Name of a layer -> 1 where it stays in this draw and 0 where not, differentiable in the logits."""
        gates: dict[str, Tensor] = {}
        for choice, logits_m, legal_ml in zip(self.choices, self.logits, self.legal_ml, strict=True):
            uniform_m = torch.rand(len(logits_m), generator=self.generator).clamp(1e-6, 1 - 1e-6).to(self.device)
            soft_m = ((logits_m - (-uniform_m.log()).log()) / temperature).softmax(0)
            hard_m = nn.functional.one_hot(soft_m.argmax(), len(soft_m)).to(soft_m)
            gate_l = (hard_m + soft_m - soft_m.detach()) @ legal_ml
            gates |= {f"{choice.modules}.{layer}": gate_l[layer] for layer in range(choice.have)}
        return gates

    def most_probable(self) -> dict[str, Layers]:
        return {
            c.modules: c.legal[int(logits_m.argmax())] for c, logits_m in zip(self.choices, self.logits, strict=True)
        }


def learn_depth(
    unet: nn.Module,
    batches: Sequence[Noised],
    masks: DepthMasks,
    generator: torch.Generator,
    search: DepthSearch,
    on_step: Progress,
) -> None:
    """Trains the masks and low-rank updates of the network's maskable layers on the batches, in turn."""
    teacher = predictions(unet, batches)
    gates: dict[str, Tensor] = {}
    maskable = {name: unet.get_submodule(name) for name in masks.draw(1.0)}
    with ExitStack() as stack, torch.enable_grad():
        updates = stack.enter_context(low_rank_updates(maskable.values(), search.rank, generator))
        for name, layer in maskable.items():
            stack.callback(layer.register_forward_hook(_gated(gates, name)).remove)
        groups: list[dict[str, Any]] = [{"params": masks.logits, "lr": search.lr_masks, "weight_decay": 0.0}]
        groups += [{"params": updates, "lr": search.lr_updates}] if updates else []
        optimizer = torch.optim.AdamW(groups)
        for step in range(search.steps):
            gates |= masks.draw(temperature(step, search))
            batch, wanted_bchw = batches[step % len(batches)], teacher[step % len(batches)]
            made_bchw = predict(unet, batch)
            loss = search.weight_teacher * (made_bchw - wanted_bchw).square().mean()
            loss = loss + (1 - search.weight_teacher) * (made_bchw - batch.velocity_bchw).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(updates, search.clip)
            optimizer.step()
            on_step(step, float(loss.detach()))


def temperature(step: int, search: DepthSearch) -> float:
    """Falls evenly on a logarithmic scale, from the first to the last step."""
    first, last = search.temperatures
    return first * (last / first) ** (step / max(search.steps - 1, 1))


@contextmanager
def low_rank_updates(layers: Any, rank: int, generator: torch.Generator) -> Iterator[list[Tensor]]:
    """While open, every linear layer inside `layers` adds B A x to its output (LoRA, Hu et al., arXiv 2106.09685),
    B starting at zero. Yields the A and B of all."""
    linears = dict.fromkeys(m for layer in layers for m in layer.modules() if isinstance(m, nn.Linear))
    with ExitStack() as stack:
        tensors: list[Tensor] = []
        for linear in linears:
            device = linear.weight.device
            down = torch.randn(rank, linear.in_features, generator=generator) / math.sqrt(linear.in_features)
            down = down.to(device).requires_grad_(True)
            up = torch.zeros(linear.out_features, rank, device=device, requires_grad=True)
            stack.callback(linear.register_forward_hook(_updated(down, up)).remove)
            tensors += [down, up]
        yield tensors


def _updated(down: Tensor, up: Tensor) -> Callable[..., Tensor]:
    def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output + (args[0] @ down.T) @ up.T

    return hook


def _gated(gates: dict[str, Tensor], name: str) -> Callable[..., Any]:
    """The layer's residual branch times its gate."""

    def hook(module: Any, args: tuple[Any, ...], output: Any) -> Any:
        whole = output[0] if isinstance(output, tuple) else output
        passed = shortcut(module, args[0])
        masked = passed + gates[name] * (whole - passed)
        return (masked,) if isinstance(output, tuple) else masked

    return hook


def _as_matrix(choice: Choice) -> Tensor:
    """(masks, layers), 1 where a mask keeps a layer."""
    matrix_ml = torch.zeros(len(choice.legal), choice.have)
    for row, layers in enumerate(choice.legal):
        matrix_ml[row, list(layers)] = 1
    return matrix_ml
