"""A teacher with exact answers: data that is a mixture of Gaussians. The oracle of the tests.

With x_sigma = (1 - sigma) * x0 + sigma * eps and x0 ~ sum_k w_k N(mu_k, std_k**2 I) every marginal is a mixture too,
so the density, the score, the posterior mean and the velocity are closed forms.
Shape suffixes: b batch, k components, d = c * h * w dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from teachers.base import Condition


class GaussianTeacher:
    """Exact velocity of a Gaussian mixture whose means have the samples' shape (c, h, w).

    `means` is (k, c, h, w), `std_k` the standard deviation of each component (or one number), `weights_k` the masses
    (uniform when absent). `log_prior`, given a condition, returns (b, k) log masses to be added per row: this is how
    a prompt can select components, so that guidance has something to act on.
    """

    def __init__(
        self,
        means: Tensor,
        std_k: Tensor | float,
        weights_k: Tensor | None = None,
        log_prior: Callable[[Condition], Tensor] | None = None,
    ) -> None:
        self.shape = means.shape[1:]
        self.means_kd = means.flatten(1)
        count = len(means)
        self.std_k = torch.as_tensor(std_k, dtype=means.dtype).expand(count)
        weights_k = means.new_full((count,), 1.0) if weights_k is None else weights_k
        self.weights_k = weights_k / weights_k.sum()
        self.log_prior = log_prior

    def _log_weights(self, rows: int, condition: Condition | None) -> Tensor:
        log_bk = self.weights_k.log().expand(rows, -1)
        if condition is not None and self.log_prior is not None:
            log_bk = torch.log_softmax(log_bk + self.log_prior(condition), dim=1)
        return log_bk

    def _log_joint(self, x_bd: Tensor, sigma_b: Tensor, condition: Condition | None) -> Tensor:
        """log w_k N(x; (1 - sigma) mu_k, v_k), v_k = (1 - sigma)^2 std_k^2 + sigma^2; shape (b, k)."""
        keep_b1 = 1 - sigma_b[:, None]
        variance_bk = keep_b1**2 * self.std_k**2 + sigma_b[:, None] ** 2
        square_bk = ((x_bd[:, None] - keep_b1[:, :, None] * self.means_kd) ** 2).sum(dim=2)
        log_normal_bk = -0.5 * (square_bk / variance_bk + x_bd.shape[1] * torch.log(2 * math.pi * variance_bk))
        return self._log_weights(len(x_bd), condition) + log_normal_bk

    def log_density(self, x_bchw: Tensor, sigma_b: Tensor, condition: Condition | None = None) -> Tensor:
        """log p_sigma(x), shape (b,)."""
        return torch.logsumexp(self._log_joint(x_bchw.flatten(1), sigma_b, condition), dim=1)

    def posterior_mean(self, x_bchw: Tensor, sigma_b: Tensor, condition: Condition | None = None) -> Tensor:
        """E[x0 | x_sigma = x] = sum_k r_k (mu_k + (1 - sigma) std_k^2 / v_k * (x - (1 - sigma) mu_k)), x's shape."""
        x_bd = x_bchw.flatten(1)
        keep_b1 = 1 - sigma_b[:, None]
        share_bk = torch.softmax(self._log_joint(x_bd, sigma_b, condition), dim=1)
        variance_bk = keep_b1**2 * self.std_k**2 + sigma_b[:, None] ** 2
        gain_bk1 = (keep_b1 * self.std_k**2 / variance_bk)[:, :, None]
        mean_bkd = self.means_kd + gain_bk1 * (x_bd[:, None] - keep_b1[:, :, None] * self.means_kd)
        return (share_bk[:, :, None] * mean_bkd).sum(dim=1).reshape(x_bchw.shape)

    def velocity(self, x_bchw: Tensor, sigma_b: Tensor, condition: Condition | None = None) -> Tensor:
        """E[eps - x0 | x], x's shape; sigma in (0, 1]."""
        sigma_b111 = sigma_b.reshape(-1, *[1] * (x_bchw.dim() - 1))
        return (x_bchw - self.posterior_mean(x_bchw, sigma_b, condition)) / sigma_b111

    def score(self, x_bchw: Tensor, sigma_b: Tensor, condition: Condition | None = None) -> Tensor:
        """grad log p_sigma(x) = -(x - (1 - sigma) E[x0 | x]) / sigma^2, x's shape."""
        sigma_b111 = sigma_b.reshape(-1, *[1] * (x_bchw.dim() - 1))
        mean_bchw = self.posterior_mean(x_bchw, sigma_b, condition)
        return -(x_bchw - (1 - sigma_b111) * mean_bchw) / sigma_b111**2

    def draw(self, count: int, generator: torch.Generator, condition: Condition | None = None) -> Tensor:
        """`count` samples of the data, shape (count, c, h, w); `condition`, if given, has `count` rows."""
        masses_bk = self._log_weights(count, condition).exp()
        pick_b = torch.multinomial(masses_bk, 1, generator=generator).flatten()
        noise_bd = torch.randn(count, self.means_kd.shape[1], generator=generator, dtype=self.means_kd.dtype)
        return (self.means_kd[pick_b] + self.std_k[pick_b, None] * noise_bd).reshape(count, *self.shape)
