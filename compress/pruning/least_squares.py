"""The three regressions that carry a student's layers towards its teacher's features.

Shape suffixes: n samples (pixels or tokens), f features, c channels.
"""

from __future__ import annotations

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


def ridge_fit(phi_nf: Tensor, wanted_nc: Tensor, start_cf: Tensor, ridge: float) -> tuple[Tensor, float, float]:
    """The weights w_cf that minimise |phi w^T - wanted|^2 + ridge * n * sum_f e_f |w_f - start_f|^2, e_f being the
    feature's mean square (so that the result does not depend on units); and the relative squared errors of the start
    and of the result."""
    gram = (phi_nf.T @ phi_nf).double()
    missing_nc = wanted_nc - phi_nf @ start_cf.T
    right = (phi_nf.T @ missing_nc).double()
    scale_f = gram.diagonal().clamp_min(1e-12 * gram.diagonal().max().clamp_min(1e-30)).sqrt()
    normed = gram / scale_f[:, None] / scale_f[None]
    normed.diagonal().add_(ridge)
    delta_fc = torch.linalg.solve(normed, right / scale_f[:, None]) / scale_f[:, None]
    fitted_cf = start_cf + delta_fc.T.to(start_cf)
    energy = wanted_nc.double().square().sum().clamp_min(1e-300)
    before = float(missing_nc.double().square().sum() / energy)
    after = float((wanted_nc - phi_nf @ fitted_cf.T).double().square().sum() / energy)
    return fitted_cf, before, after
