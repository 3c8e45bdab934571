"""What can be said of activations without having seen any.

What leaves a norm is known up to correlations: channel i is gamma_i u_i + beta_i, with u_i of mean 0 and variance 1.
Taking the u_i as uncorrelated ("white") gives the mean and the variance of any linear map of it in closed form, and so
what an operator would otherwise fit to calibration samples. Text tokens are taken to have a root mean square of 1.

Shape suffixes: o outputs, i inputs (channels that a norm writes).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class White:
    """What a norm called `norm` writes; without a norm, white tokens."""

    def __init__(self, state: Mapping[str, Tensor], norm: str | None) -> None:
        self.gamma_i = None if norm is None else state[f"{norm}.weight"].detach().double()
        self.beta_i = None if norm is None else state[f"{norm}.bias"].detach().double()

    def mean(self, weight_oi: Tensor) -> Tensor:
        """E of each output of a linear map without bias, (o,)."""
        return weight_oi.new_zeros(len(weight_oi)) if self.beta_i is None else weight_oi @ self.beta_i

    def variance(self, weight_oi: Tensor) -> Tensor:
        """Variance of each output, (o,)."""
        scaled_oi = weight_oi if self.gamma_i is None else weight_oi * self.gamma_i
        return scaled_oi.square().sum(1)

    def mean_square(self, weight_oi: Tensor) -> float:
        """Mean over the outputs of the expected square."""
        return float((self.variance(weight_oi) + self.mean(weight_oi).square()).mean())


def expected_layer_norm(state: Mapping[str, Tensor], transformer: str) -> tuple[float, float]:
    """(scale, shift), the same for all channels, of the LayerNorm that maps a transformer's hidden state closest to
    itself: its expected spread and mean over channels.

    h = W x + b with x from the transformer's GroupNorm. LayerNorm divides by s, s^2 = mean_o h_o^2 - (mean_o h_o)^2;
    the second term's expectation comes from the average row of W.
    """
    white = White(state, f"{transformer}.norm")
    weight_oi = state[f"{transformer}.proj_in.weight"].detach().double().flatten(1)
    bias_o = state[f"{transformer}.proj_in.bias"].detach().double()
    mean_o = white.mean(weight_oi) + bias_o
    row_1i = weight_oi.mean(0, keepdim=True)
    shift = float(mean_o.mean())
    square = float((white.variance(weight_oi) + mean_o.square()).mean())
    spread = square - shift**2 - float(white.variance(row_1i))
    return max(spread, 1e-12) ** 0.5, shift
