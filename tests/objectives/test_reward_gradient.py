"""Both sign conventions of ReFL's hinge, and the gradient through a sampler's end against finite differences."""

import pytest
import torch

from compress.diffusion.sampler import sample
from compress.objectives.reward_gradient import equalise, refl_loss
from teachers.base import Condition


@pytest.mark.parametrize(
    "hinge, loss, gradient",
    [
        ("below", [1.5, 0.0, 0.0], [-1, 0, 0]),
        ("above", [0.0, 0.0, -1.0], [0, 0, -1]),
        ("all", [-0.5, -2.0, -3.0], [-1] * 3),
    ],
)
def test_each_hinge_says_which_samples_learn(hinge, loss, gradient):
    reward = torch.tensor([0.5, 2.0, 3.0], requires_grad=True)
    loss_b = refl_loss(reward, 2.0, hinge)
    loss_b.sum().backward()
    assert loss_b.tolist() == loss
    ours, expected = reward.grad.tolist(), gradient
    assert [ours[0], ours[2]] == [expected[0], expected[2]]  # at the threshold itself either slope is right


def test_an_unknown_hinge_is_refused():
    with pytest.raises(ValueError, match="below, above or all"):
        refl_loss(torch.zeros(1), 0.0, "both")


class Affine:
    def __init__(self, gain):
        self.gain = gain

    def velocity(self, x_bchw, sigma_b, condition):
        return self.gain * x_bchw + sigma_b.reshape(-1, 1, 1, 1)


def test_the_gradient_through_the_sampler_matches_finite_differences():
    noise = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    condition = Condition(torch.zeros(4, 1, 1, dtype=torch.float64))

    def loss(gain):
        x0 = sample(Affine(gain), noise, condition, [1.0, 0.6, 0.2, 0.0])
        return refl_loss(-(x0**2).flatten(1).mean(dim=1), 0.0, "below").mean()

    gain = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    loss(gain).backward()
    step = 1e-6
    with torch.no_grad():
        difference = (loss(gain + step) - loss(gain - step)) / (2 * step)
    assert gain.grad.item() == pytest.approx(difference.item(), rel=1e-7)


def test_equalised_gradients_have_length_one_in_every_sample_and_values_stay() -> None:
    x_bchw = torch.randn(3, 2, 4, 4, requires_grad=True)
    weights_b = torch.tensor([1e-3, 50.0, 0.0]).view(3, 1, 1, 1)
    through = equalise(x_bchw * 1.0)
    assert torch.equal(through, x_bchw)
    (through.sin() * weights_b).sum().backward()
    assert x_bchw.grad is not None
    torch.testing.assert_close(x_bchw.grad.flatten(1).norm(dim=1), torch.tensor([1.0, 1.0, 0.0]))
    direction = torch.nn.functional.cosine_similarity(x_bchw.grad[:2].flatten(1), x_bchw[:2].cos().flatten(1))
    torch.testing.assert_close(direction, torch.ones(2))  # only the length is changed
    assert equalise(torch.ones(1, 1, 1, 1)).requires_grad is False
