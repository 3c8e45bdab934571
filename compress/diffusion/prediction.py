"""What a network predicts, and how to turn one prediction into another.

Every path is x = a * x0 + s * eps; every prediction is p * x0 + q * eps. Two equations, two unknowns: one table of
(p, q) is the whole subject. Flow has (a, s) = (1 - sigma, sigma), variance preserving has a**2 + s**2 = 1, and
TrigFlow (sCM, arXiv 2410.11081) is variance preserving with (cos tau, sin tau) and the prediction "v".
Conversions are in float64 and cast back: near the ends of the path they divide by small numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from teachers.base import Condition

Kind = Literal["eps", "x0", "v", "flow"]
# kind -> (p, q) from (a, s)
TABLE: dict[Kind, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "eps": lambda a, s: (torch.zeros_like(a), torch.ones_like(a)),
    "x0": lambda a, s: (torch.ones_like(a), torch.zeros_like(a)),
    "v": lambda a, s: (-s, a),  # Salimans and Ho, arXiv 2202.00512, appendix D
    "flow": lambda a, s: (-torch.ones_like(a), torch.ones_like(a)),
}


def like(value_b: Tensor, x_bchw: Tensor) -> Tensor:
    """A per-sample number shaped to multiply a batch of any rank."""
    return value_b.reshape(-1, *[1] * (x_bchw.dim() - 1))


def convert(output: Tensor, x: Tensor, a_b: Tensor, s_b: Tensor, source: Kind, target: Kind) -> Tensor:
    """Turns a prediction of kind `source` at x = a * x0 + s * eps into kind `target`; x's shape and dtype.

    "eps" needs a > 0 and "x0" needs s > 0 as sources; "v" and "flow" are defined on the whole path.
    """
    if source == target:
        return output
    a, s = like(a_b.double(), x), like(s_b.double(), x)
    x64, output64 = x.double(), output.double()
    p, q = TABLE[source](a, s)
    determinant = a * q - s * p
    x0 = (q * x64 - s * output64) / determinant
    eps = (a * output64 - p * x64) / determinant
    p, q = TABLE[target](a, s)
    return (p * x0 + q * eps).to(x.dtype)


def x0_of_velocity(x: Tensor, velocity: Tensor, sigma_b: Tensor) -> Tensor:
    """x0 = x - sigma * v."""
    return x - like(sigma_b, x) * velocity


def eps_of_velocity(x: Tensor, velocity: Tensor, sigma_b: Tensor) -> Tensor:
    """eps = x + (1 - sigma) * v."""
    return x + (1 - like(sigma_b, x)) * velocity


def velocity_of_x0(x: Tensor, x0: Tensor, sigma_b: Tensor) -> Tensor:
    """v = (x - x0) / sigma, sigma > 0."""
    return (x - x0) / like(sigma_b, x)


def add_noise(x0: Tensor, noise: Tensor, sigma_b: Tensor) -> Tensor:
    """x_sigma = (1 - sigma) * x0 + sigma * eps."""
    sigma = like(sigma_b, x0)
    return (1 - sigma) * x0 + sigma * noise


def vp_of_sigma(sigma_b: Tensor) -> tuple[Tensor, Tensor]:
    """(a, s) of the variance-preserving path at flow's signal-to-noise ratio: a / s = (1 - sigma) / sigma."""
    norm_b = torch.sqrt((1 - sigma_b) ** 2 + sigma_b**2)
    return (1 - sigma_b) / norm_b, sigma_b / norm_b


def sigma_of_vp(a_b: Tensor, s_b: Tensor) -> Tensor:
    """The flow level of the same signal-to-noise ratio; x_flow = x_vp / (a + s)."""
    return s_b / (a_b + s_b)


def trig_of_flow(x: Tensor, velocity: Tensor, sigma_b: Tensor, data_std: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """(x_trig, F, tau) of SANA-Sprint (arXiv 2503.09641): TrigFlow's state, prediction and angle."""
    a_b, s_b = vp_of_sigma(sigma_b.double())
    x_trig = x.double() * like(a_b + s_b, x)
    prediction = convert(velocity.double(), x_trig, a_b, s_b, "flow", "v")
    return (x_trig * data_std).to(x.dtype), prediction.to(x.dtype), torch.atan2(s_b, a_b).to(sigma_b.dtype)


def flow_of_trig(
    x_trig: Tensor, prediction: Tensor, tau_b: Tensor, data_std: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """(x, velocity, sigma) of flow matching from TrigFlow; the inverse of `trig_of_flow`."""
    a_b, s_b = torch.cos(tau_b.double()), torch.sin(tau_b.double())
    x64 = x_trig.double() / data_std
    velocity = convert(prediction.double(), x64, a_b, s_b, "v", "flow")
    x = x64 / like(a_b + s_b, x64)
    return x.to(x_trig.dtype), velocity.to(x_trig.dtype), sigma_of_vp(a_b, s_b).to(tau_b.dtype)


class EpsilonVelocity:
    """Presents an epsilon network on a discrete variance-preserving schedule (SDXL) as a velocity model.

    `network(x_vp, timestep_b, condition) -> eps`, timesteps 0 .. len - 1 as floats; `alphas_cumprod` decreases.
    The schedule of SDXL ends before pure noise, so levels above its last one are shown to the network at the last
    timestep, and the velocity is then the one that leads to the predicted x0 from where the sampler really is.
    """

    def __init__(self, network: Callable[[Tensor, Tensor, Condition], Tensor], alphas_cumprod: Tensor) -> None:
        alphas = alphas_cumprod.detach().double()
        self.network = network
        self.levels = sigma_of_vp(alphas.sqrt(), (1 - alphas).sqrt())
        if not bool((self.levels.diff() > 0).all()):
            raise ValueError("alphas_cumprod has to decrease from data to noise")

    def timestep(self, sigma_b: Tensor) -> Tensor:
        """The continuous timestep of a flow level by linear interpolation; clamped to the schedule's ends."""
        levels = self.levels.to(sigma_b.device)
        sigma64_b = sigma_b.double().clamp(levels[0], levels[-1])
        upper_b = torch.searchsorted(levels, sigma64_b).clamp(1, len(levels) - 1)
        below_b, above_b = levels[upper_b - 1], levels[upper_b]
        return (upper_b - 1 + (sigma64_b - below_b) / (above_b - below_b)).to(sigma_b.dtype)

    def velocity(self, x_bchw: Tensor, sigma_b: Tensor, condition: Condition) -> Tensor:
        """The flow velocity at sigma in (0, 1], x's shape."""
        sigma64_b = sigma_b.double()
        x_vp = x_bchw.double() / like(torch.sqrt((1 - sigma64_b) ** 2 + sigma64_b**2), x_bchw)
        eps = self.network(x_vp.to(x_bchw.dtype), self.timestep(sigma_b), condition)
        a_b, s_b = vp_of_sigma(sigma64_b.clamp(max=float(self.levels[-1])))
        x0 = convert(eps.double(), x_vp, a_b, s_b, "eps", "x0")
        return velocity_of_x0(x_bchw.double(), x0, sigma64_b).to(x_bchw.dtype)
