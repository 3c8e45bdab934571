"""OBS-Diff: what it costs to remove an input of a layer when its other inputs may make up for it (arXiv 2510.06751).

Each layer is a least-squares problem: keep W x for the x that really arrive. Its Hessian is
H = 2 sum_t a_t E[x_t x_t^T], with weights a_t that fall with the logarithm of the steps already taken, since an early
error is carried through all later steps. A unit scores the sum of |w_j|^2 / (2 [H^-1]_jj) over the columns that read
it (optimal brain surgeon's saliency, Hassibi and Stork 1993): it counts where a unit is read, not where it is made.

A convolution is treated as if every tap saw the same channel statistics and taps were uncorrelated: H is then one
matrix of channels, with a ninth of the rows that the unfolded taps would have.
Shape suffixes: b batch, n positions, f features (input channels), o output channels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.pruning.calibration import Noised
from compress.pruning.criteria.base import Criterion, Refit, Waiting, is_depthwise, readers, rows
from compress.pruning.importance import Saliency

STEPS = 1000  # the timesteps that noise levels are counted in
STEP_WEIGHTS = (1.0, 2.0)  # a_min at the cleanest level, a_max at pure noise; the paper leaves both open
MOST_ENTRIES = 1 << 29  # of Hessians at a time, 2 GB, where memory is scarce
DAMPING = 0.01  # the least share of its own diagonal that is mixed into H


def step_weights(sigma_b: Tensor) -> Tensor:
    """a_t = a_min + (a_max - a_min) ln(T - t + 1) / ln T, with t = 1 for pure noise (arXiv 2510.06751, its
    logarithmic-decrease scheme)."""
    low, high = STEP_WEIGHTS
    return low + (high - low) * torch.log(1 + (STEPS - 1) * sigma_b) / math.log(STEPS)


class ObsDiff(Criterion):
    """Scores with the timestep-aware Hessian, and the optimal change of the weights that remain."""

    sees_inputs = True
    refits = True

    def __init__(self, unet: nn.Module, generator: torch.Generator) -> None:
        super().__init__(unet, generator)
        self.layers = {name: layer for name, layer in readers(unet).items() if not is_depthwise(layer)}
        self.same: dict[str, str] = {}  # layers fed with the very tensor that another is: query, key and value
        self.waiting = Waiting(self._add_up)
        self.sums: dict[str, Tensor] = {}
        self.weights: dict[str, float] = {}
        self.positions: dict[str, int] = {}
        self.groups: list[set[str]] = [set(self.layers)]  # the layers of each round still to come, this one first
        self.scores = Saliency()
        self._last: tuple[Tensor, str] | None = None
        self._step: tuple[Tensor, Tensor, float] | None = None  # noise levels, roots of their weights, the weights' sum

    def prepare(self, batches: Sequence[Noised]) -> None:
        if self.frugal:
            self.waiting.patient = False
            self.groups = share_out({name: self._inputs(name) ** 2 for name in self.layers}, MOST_ENTRIES)
            self.rounds = len(self.groups)

    def _inputs(self, layer: str) -> int:
        return int(self.parameters[f"{layer}.weight"].shape[1])

    def end_round(self) -> None:
        """Turns the Hessians that are complete into scores, and where memory is scarce lets go of them."""
        if self.frugal:
            self._score(self.groups.pop(0))
            for kept in (self.sums, self.weights, self.positions, self.same):
                kept.clear()
            self._last = None

    def see_input(self, layer: str, x: Tensor, sigma_b: Tensor) -> None:
        if not self.groups or layer not in self.groups[0]:
            return
        if layer not in self.weights and layer not in self.same and self._last and self._last[0] is x:
            self.same[layer] = self._last[1]
        if layer in self.same:
            return
        self._last = (x, layer)
        if self._step is None or self._step[0] is not sigma_b:
            a_b = step_weights(sigma_b.float())
            self._step = (sigma_b, a_b.sqrt()[:, None, None], float(a_b.sum()))
        x_bnf = rows(x).float()
        self.waiting.put(layer, (x_bnf * self._step[1]).flatten(0, 1))
        self.weights[layer] = self.weights.get(layer, 0.0) + self._step[2] * x_bnf.shape[1]
        self.positions[layer] = self.positions.get(layer, 0) + x_bnf.shape[0] * x_bnf.shape[1]

    def _add_up(self, layer: str, scaled_nf: Tensor) -> None:
        if layer not in self.sums:
            self.sums[layer] = scaled_nf.T @ scaled_nf
        else:
            self.sums[layer].addmm_(scaled_nf.T, scaled_nf)

    def hessian(self, layer: str) -> Tensor | None:
        """2 sum_t a_t E[x_t x_t^T] of a layer, (f, f); None where no sample reached it."""
        layer = self.same.get(layer, layer)
        self.waiting.flush(layer)
        return self.sums[layer] * (2 / self.weights[layer]) if layer in self.sums else None

    def shrunk(self, layer: str) -> Tensor | None:
        """The Hessian as it is inverted, between what was seen of it and its diagonal."""
        hessian = self.hessian(layer)
        return None if hessian is None else shrink(hessian, self.positions[self.same.get(layer, layer)])

    def saliency(self) -> Saliency:
        if not self.frugal:
            self.scores = Saliency()
            self._score(self.layers)
        return self.scores

    def _score(self, layers: Collection[str]) -> None:
        inverses = dict[str, Tensor]()
        for layer in (name for name in self.layers if name in layers):
            source = self.same.get(layer, layer)
            if source not in inverses:
                hessian = self.shrunk(source)
                if hessian is None:
                    continue
                inverses[source] = inverse_diagonal(hessian)
            weight = self.parameters[f"{layer}.weight"].float()
            energy_f = weight.square().sum([axis for axis in range(weight.dim()) if axis != 1]).double()
            self.scores.add_along(f"{layer}.weight", 1, column_saliency(energy_f, inverses[source]))

    def refit(self, parameter: str, kept: Tensor) -> Refit | None:
        layer = parameter.removesuffix(".weight")
        hessian = self.hessian(layer) if layer in self.layers else None
        shrunk = self.shrunk(layer) if layer in self.layers else None
        if hessian is None or shrunk is None:
            return None
        hessian, shrunk = hessian.double(), shrunk.double()
        weight, kept = self.parameters[parameter], kept.to(hessian.device)
        by_tap = weight.double().movedim(1, -1)
        refitted = by_tap @ make_up(shrunk, kept).T
        missing, missed = by_tap.clone(), by_tap.clone()
        missing[..., kept] = 0
        missed[..., kept] -= refitted
        wanted = max(_energy(by_tap, hessian), 1e-300)
        errors = _energy(missing, hessian) / wanted, _energy(missed, hessian) / wanted
        return Refit(refitted.movedim(-1, 1).to(weight), *errors)


def share_out(sizes: Mapping[str, int], most: int) -> list[set[str]]:
    """The names in order, in groups whose sizes sum to at most `most`; what is larger has a group of its own."""
    groups: list[set[str]] = [set()]
    left = most
    for name, size in sizes.items():
        if size > left and groups[-1]:
            groups.append(set())
            left = most
        groups[-1].add(name)
        left -= size
    return groups


def shrink(hessian: Tensor, positions: int) -> Tensor:
    """(1 - r) H + r diag(H), with r = f / (f + n): correlations of f features seen at n positions are trusted the less
    the fewer positions there are. Without any the score is `activation`'s, w^2 times the energy of the input, and
    nothing is made up for. Identity damping, as in the paper, would tend to bare magnitudes instead."""
    share = max(DAMPING, len(hessian) / (len(hessian) + positions))
    return torch.lerp(hessian, hessian.diagonal().diag(), share)


def inverse_diagonal(hessian: Tensor) -> Tensor:
    """[H^-1]_jj; infinite for inputs that are always zero, which cost nothing."""
    energy = hessian.diagonal()
    alive = energy > 0
    scale = torch.where(alive, energy, 1.0).rsqrt()
    # With a unit diagonal the matrix is so well conditioned (by `shrink`) that single precision does.
    correlation = (hessian * scale[:, None]).mul_(scale).float()
    correlation.diagonal()[~alive] = 1
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(correlation)).diagonal().double()
    return torch.where(alive, inverse * scale.square(), math.inf)


def column_saliency(energy_f: Tensor, inverse_f: Tensor) -> Tensor:
    """w^2 / (2 [H^-1]_jj) summed over a column, for columns of squared norm `energy_f`."""
    return energy_f / (2 * inverse_f)


def make_up(hessian: Tensor, kept: Tensor) -> Tensor:
    """M of shape (kept, f): with x replaced by its kept part, W M^T in place of W changes the output least.

    M = H_KK^-1 H_Kf, which is OBS's update of the weights that remain for all removed inputs at once:
    W_K + W_Q H_QK H_KK^-1.
    """
    dead = (hessian.diagonal()[kept] <= 0).to(hessian).diag()  # an input that is always zero helps with none
    change = torch.linalg.solve(hessian[kept][:, kept] + dead, hessian[kept])
    change[:, kept] = torch.eye(len(kept), dtype=hessian.dtype, device=hessian.device)
    return change


def _energy(by_tap: Tensor, hessian: Tensor) -> float:
    """Output energy sum w^T H w over outputs and taps, features last."""
    return float(((by_tap @ hessian) * by_tap).sum())
