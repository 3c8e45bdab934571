"""Flow matching: the loss's minimum is the exact velocity; DreamLite's foreground weight on hand-made masks."""

import pytest
import torch

from compress.diffusion.prediction import add_noise
from compress.objectives import flow_matching


def test_the_target_is_the_paths_derivative():
    x0, eps = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    high, low = (add_noise(x0, eps, torch.tensor([sigma])) for sigma in (0.6, 0.4))
    torch.testing.assert_close((high - low) / 0.2, flow_matching.velocity_target(x0, eps))


def test_loss_is_unreduced_over_the_batch_and_zero_at_the_target():
    target = torch.randn(3, 2, 4, 4)
    prediction = target.clone()
    prediction[1] += 2.0
    assert flow_matching.velocity_loss(prediction, target).tolist() == pytest.approx([0, 4, 0])


def test_a_prediction_over_both_panels_is_refused_rather_than_broadcast():
    with pytest.raises(ValueError, match="differ"):
        flow_matching.velocity_loss(torch.zeros(1, 2, 4, 8), torch.zeros(1, 2, 4, 4))


def test_half_precision_is_squared_in_single():
    loss = flow_matching.velocity_loss(
        torch.full((1, 1, 2, 2), 300.0, dtype=torch.float16), torch.zeros(1, 1, 2, 2).half()
    )
    assert loss.dtype == torch.float32 and loss.item() == 90_000  # beyond float16's range


def test_an_edit_of_a_quarter_weighs_three_inside_and_one_outside():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = 1
    weight = flow_matching.foreground_weight(mask)
    assert weight[..., :2, :2].unique().tolist() == [3.0]  # log2(4) + 1
    assert weight[0, 0, 3].unique().tolist() == [1.0]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_no_edit_and_a_whole_edit_weigh_one_everywhere(value):
    mask = torch.full((2, 1, 4, 4), value)
    assert torch.equal(flow_matching.foreground_weight(mask), torch.ones(2, 1, 4, 4))


def test_masks_are_weighed_row_by_row():
    mask = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    mask[1, 0, 0, 0] = True
    weight = flow_matching.foreground_weight(mask)
    assert weight[0].unique().tolist() == [1.0]
    assert weight[1, 0].tolist() == [[3.0, 1.0], [1.0, 1.0]]


def test_the_weight_enters_the_loss_position_by_position():
    mask = torch.zeros(1, 1, 2, 2)
    mask[..., 0, 0] = 1
    error = torch.tensor([[[[2.0, 1.0], [0.0, 0.0]]]])
    loss = flow_matching.velocity_loss(error, torch.zeros_like(error), flow_matching.foreground_weight(mask))
    assert loss.item() == pytest.approx((3 * 4 + 1) / 4)


def test_a_latent_cell_is_edited_when_any_of_its_pixels_is():
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[0, 0, 3, 4] = True
    assert flow_matching.latent_mask(mask, 4)[0, 0].tolist() == [[0, 1], [0, 0]]
