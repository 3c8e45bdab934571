"""AdaRound: learn for every weight whether it is rounded up or down (arXiv 2004.10568), by AIMET's wrapper and loss.

AIMET's driver runs the whole network twice a layer to record what goes in and out. Here one pass stops at every layer,
and the layer learns from what has just arrived, in float.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.quantization.aimet import Simulation
from compress.quantization.host import Inputs
from compress.quantization.ranges import visit_layers

STEPS, BATCH, LEARNING_RATE = 300, 16, 1e-2
ROUND_WEIGHT, BETAS, WARM_START = 0.01, (20, 2), 0.2  # of the loss that pushes to 0 or 1; AIMET's defaults


def ada_round(simulation: Simulation, inputs: Inputs, seed: int = 0, steps: int = STEPS) -> dict[str, Tensor]:
    """The integers of every layer on its calibrated grid, by "node.weight"; nothing is put into the simulation."""
    generator = torch.Generator().manual_seed(seed)
    chosen: dict[str, Tensor] = {}

    def visit(node: fx.Node, module: Any, x: Tensor) -> None:
        chosen[f"{node.name}.weight"] = learn_rounding(module, x, generator, steps)

    visit_layers(simulation, inputs, visit)
    return chosen


def learn_rounding(module: Any, x: Tensor, generator: torch.Generator, steps: int = STEPS) -> Tensor:
    """The integers with which a layer answers to `x` (calls first) most nearly as in float, of the module's shape."""
    from aimet_torch.adaround.adaround_loss import AdaroundHyperParameters, AdaroundLoss
    from aimet_torch.adaround.adaround_weight import AdaroundWrapper

    wrapper = AdaroundWrapper(module)
    settings = AdaroundHyperParameters(steps, ROUND_WEIGHT, BETAS, WARM_START)
    optimizer = torch.optim.Adam([wrapper.alpha], lr=LEARNING_RATE)
    wanted = _apply(module, x, module.weight)
    with torch.enable_grad():
        for step in range(steps):
            rows = torch.randperm(len(x), generator=generator)[:BATCH]
            made = _apply(module, x[rows], wrapper.apply_adaround(module.weight))
            loss = AdaroundLoss.compute_recon_loss(made, wanted[rows])
            loss = loss + AdaroundLoss.compute_round_loss(wrapper.alpha, settings, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    wrapper.use_soft_rounding = False
    rounded = wrapper.apply_adaround(module.weight).detach()
    scale = module.param_quantizers["weight"].get_encodings().scale.detach()
    return (rounded / scale).round().to(torch.int8)


def _apply(module: Any, x: Tensor, weight: Tensor) -> Tensor:
    """A layer with another weight, channels second as AdaRound's loss expects them."""
    if isinstance(module, nn.Linear):
        return nn.functional.linear(x, weight, module.bias).movedim(-1, 1)
    settings = (module.stride, module.padding, module.dilation, module.groups)
    return nn.functional.conv2d(x, weight, module.bias, *settings)
