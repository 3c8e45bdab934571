"""The three regressions that carry a student's layers towards its teacher's features.

Shape suffixes: n samples (pixels or tokens), f features, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from students.init import relative_error


def affine_fit(unit_nc: Tensor, wanted_nc: Tensor) -> tuple[Tensor, Tensor, float]:
    """(scale_c, shift_c, relative squared error) of the best scale and shift of each channel by itself."""
    unit_nc, wanted_nc = unit_nc.double(), wanted_nc.double()
    mean_c, wanted_mean_c = unit_nc.mean(0), wanted_nc.mean(0)
    spread_c = (unit_nc - mean_c).square().mean(0).clamp_min(1e-12)
    scale_c = ((unit_nc - mean_c) * (wanted_nc - wanted_mean_c)).mean(0) / spread_c
    shift_c = wanted_mean_c - scale_c * mean_c
    return scale_c, shift_c, relative_error(unit_nc * scale_c + shift_c, wanted_nc)


def ridge_fit(
    phi_nf: Tensor, wanted_nc: Tensor, start_cf: Tensor, ridges: Sequence[float]
) -> tuple[Tensor, float, float]:
    """The weights w_cf that minimise |phi w^T - wanted|^2 + ridge * n * sum_f e_f |w_f - start_f|^2, e_f being the
    feature's mean square (so that the result does not depend on units).

    The ridge is the one of `ridges` whose fit to the first four fifths of the rows does best on the last fifth; where
    none of them beats the start there, the start is returned. Rows of one sample should be neighbours. Also returns
    the relative squared errors of the start and of the result on all rows.
    """
    missing_nc = wanted_nc - phi_nf @ start_cf.T
    split = len(phi_nf) * 4 // 5
    fit, check = (_Moments.of(phi_nf[rows], missing_nc[rows]) for rows in (slice(0, split), slice(split, None)))
    gains = [check.gain(fit.solve(ridge)) for ridge in ridges]
    energy = float(wanted_nc.double().square().sum().clamp_min(1e-300))
    missing = float(missing_nc.double().square().sum())
    if max(gains) <= 0:
        return start_cf, missing / energy, missing / energy
    both = _Moments(fit.gram + check.gram, fit.right + check.right)
    delta_fc = both.solve(ridges[gains.index(max(gains))])
    return start_cf + delta_fc.T.to(start_cf), missing / energy, (missing - both.gain(delta_fc)) / energy


@dataclass(frozen=True)
class _Moments:
    """What a linear regression needs to know about its rows: phi^T phi and phi^T missing, in double precision."""

    gram: Tensor
    right: Tensor

    @staticmethod
    def of(phi_nf: Tensor, missing_nc: Tensor) -> _Moments:
        return _Moments((phi_nf.T @ phi_nf).double(), (phi_nf.T @ missing_nc).double())

    def solve(self, ridge: float) -> Tensor:
        """The change of weights, (f, c)."""
        energy_f = self.gram.diagonal()
        scale_f = energy_f.clamp_min(1e-12 * energy_f.max().clamp_min(1e-30)).sqrt()
        normed = self.gram / scale_f[:, None] / scale_f[None]
        normed.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(normed)
        return torch.cholesky_solve(self.right / scale_f[:, None], factor) / scale_f[:, None]

    def gain(self, delta_fc: Tensor) -> float:
        """By how much a change of weights lowers the squared error on these rows."""
        return float(2 * (delta_fc * self.right).sum() - (delta_fc * (self.gram @ delta_fc)).sum())
