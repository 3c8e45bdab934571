"""Operators: the identity where nothing is taken away, exact where the teacher already has the student's form."""

from dataclasses import replace

import pytest
import torch
from diffusers.models.normalization import RMSNorm
from torch import nn

from compress.pruning.criteria.layers import skipped
from compress.pruning.surgery import OPERATORS
from compress.pruning.surgery.base import Draft
from compress.pruning.surgery.multi_query import merge_mean, merge_svd
from compress.pruning.surgery.qk_norm import fit_scales
from compress.pruning.surgery.self_attention import fit_layer_norm
from compress.pruning.surgery.separable import SILU_ONE, doubled, split_dense
from compress.pruning.surgery.size_embedding import size_columns
from compress.pruning.surgery.text_projection import fit_scale, projection
from students.init import relative_error
from students.spec import CROSS, NONE, SELF_CROSS
from tests.pruning.nets import TEACHER, batches, bench, draft, outputs

CLOSE = 1e-5


def apply(name, start, goal, workbench=None):
    done, transplant = OPERATORS[name].apply(start, goal, workbench or bench())
    assert set(transplant.made) == set(done.unet.state_dict())
    return done


@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in ("text_projection", "size_embedding")])
def test_an_operator_with_nothing_to_do_is_the_identity(name):
    start = draft()
    done = apply(name, start, TEACHER)
    assert done.spec == TEACHER
    assert torch.equal(outputs(done.unet), outputs(start.unet))


def test_depth_drops_the_block_whose_absence_shows_least():
    start = draft()
    blocks = start.unet.mid_block.attentions[0].transformer_blocks
    for part in (blocks[0].attn1.to_out[0], blocks[0].attn2.to_out[0], blocks[0].ff.net[2]):
        part.weight.zero_()
        part.bias.zero_()  # block 0 passes on what it is given
    workbench = bench("taylor")
    done = apply("depth", start, replace(TEACHER, transformer_layers=(1, 1)), workbench)
    assert workbench.report["depth"]["mid_block.attentions.0.transformer_blocks"] == [1]
    assert torch.equal(done.unet.mid_block.attentions[0].transformer_blocks[0].norm1.weight, blocks[1].norm1.weight)


@pytest.mark.slow
def test_depth_keeps_the_layers_whose_shapes_no_other_has():
    deep = draft(replace(TEACHER, layers_per_block=(3, 3)))
    workbench = bench("random")
    done = apply("depth", deep, TEACHER, workbench)
    kept = workbench.report["depth"]
    assert kept["down_blocks.1.resnets"] == [0]  # it alone takes the upper stage's width
    assert kept["up_blocks.0.resnets"][-1] == 3  # it alone meets the skip of the stage above
    assert outputs(done.unet).isfinite().all()


def test_a_skipped_residual_block_leaves_its_shortcut():
    block = draft().unet.down_blocks[1].resnets[0]
    x, time = torch.randn(1, 64, 4, 4), torch.randn(1, 256)
    with skipped(block):
        assert torch.equal(block(x, time), block.conv_shortcut(x))


@pytest.mark.slow
def test_width_slices_what_it_kept_on_both_sides_of_a_concatenation():
    start, workbench = draft(), bench("magnitude")
    done = apply("width", start, replace(TEACHER, widths=(64, 128), heads=(1, 2)), workbench)
    kept = workbench.report["kept"]["width"]
    first = kept["up_blocks.0.resnets.0.conv1"]["units_kept"]
    stream = next(
        row["units_kept"] for name, row in kept.items() if name.startswith("down_blocks.1.attentions.0.proj_out")
    )
    reads = torch.tensor([*stream, *(192 + unit for unit in stream)])  # the middle's output and the lowest skip
    old, new = (net.up_blocks[0].resnets[0].conv1.weight for net in (start.unet, done.unet))
    assert torch.equal(new, old[first][:, reads])
    assert all(len([unit for unit in stream if unit // 6 == group]) == 4 for group in range(32))


@pytest.mark.slow
def test_neurons_that_do_nothing_can_go_for_free():
    start = draft()
    for name, module in start.unet.named_modules():
        if name.endswith("ff.net.2"):
            module.weight[:, ::4] = 0
    done = apply("feed_forward", start, replace(TEACHER, ff_mult=3), bench("taylor"))
    assert torch.allclose(outputs(done.unet), outputs(start.unet), atol=CLOSE)


@pytest.mark.slow
def test_a_narrower_first_stage_hears_almost_the_same_time():
    wide = replace(TEACHER, widths=(128, 192), heads=(2, 3))
    workbench = bench()
    transplant = OPERATORS["width"].transplant(draft(wide), TEACHER, workbench)
    _, step = transplant.origins["time_embedding.linear_1.weight"]
    assert step.method.startswith("refitted") and step.relative_error < 0.25


def test_a_fitted_layer_norm_recovers_its_own_scale_and_shift():
    h, scale, shift = torch.randn(200, 8), torch.rand(8) + 0.5, torch.randn(8)
    target = nn.functional.layer_norm(h, (8,), scale, shift)
    found = fit_layer_norm(h, target, 1e-5)
    assert torch.allclose(found[0], scale, atol=CLOSE) and torch.allclose(found[1], shift, atol=CLOSE)
    assert found[2] < 1e-9


def test_without_self_attention_the_mean_of_what_it_added_stays():
    """A hidden state of constant mean and spread plus a constant: the new LayerNorm is exact."""
    start = draft()
    goal = replace(TEACHER, down_attention=(NONE, CROSS), up_attention=(NONE, CROSS))
    h = nn.functional.layer_norm(torch.randn(400, 16), (16,)) * 3 + 2
    scale, _, error = fit_layer_norm(h, h + torch.arange(16.0), 1e-5)
    assert error < 1e-6 and torch.allclose(scale, torch.full((16,), 3.0), atol=1e-3)
    done = apply("self_attention", start, goal)
    assert done.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1 is None
    assert done.unet.mid_block.attentions[0].transformer_blocks[0].attn1 is not None


def test_separable_terms_are_the_best_of_their_rank():
    weight = torch.randn(12, 5, 3, 3)
    pointwise, depthwise, energy, error = split_dense(weight, 2)
    values = torch.linalg.svdvals(weight.permute(1, 0, 2, 3).reshape(5, 12, 9))
    assert error == pytest.approx(float(values[:, 2:].square().sum() / weight.square().sum()), rel=1e-5)
    made = torch.einsum("roi,rikl->oikl", pointwise, depthwise)
    assert relative_error(made, weight) == pytest.approx(error, rel=1e-5)
    assert torch.allclose(energy.float(), values[:, :2].square().T, rtol=1e-4)


def test_copies_share_a_norm_group():
    first, second = doubled(64, 32)
    assert torch.equal(torch.cat([first, second]).sort().values, torch.arange(128))
    assert torch.equal(first // 4, second // 4) and torch.equal(first // 4, torch.arange(64) // 2)


@pytest.mark.parametrize("biased", [True, False])
def test_separable_is_exact_where_the_dense_kernels_already_are(biased):
    """Rank 1 in the first convolution, rank 2 in the second; their biases included, with and without a shortcut."""
    start = draft()
    for name, module in start.unet.named_modules():
        if name.endswith((".conv1", ".conv2")):
            rank = 1 if name.endswith("conv1") else 2
            pointwise, depthwise, _, _ = split_dense(module.weight, rank)
            if rank == 2:
                depthwise[1, 3] = 0  # one channel has room for the bias
            module.weight.copy_(torch.einsum("roi,rikl->oikl", pointwise, depthwise))
            if not biased:
                module.bias.zero_()
    done = apply("separable", start, replace(TEACHER, separable=True))
    assert torch.allclose(outputs(done.unet), outputs(start.unet), atol=CLOSE)


def test_the_constant_channel_is_one():
    assert float(nn.functional.silu(torch.tensor(SILU_ONE))) == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("kv_merge", ["mean", "svd"])
def test_heads_that_are_alike_can_share(kv_merge):
    start = draft()
    for name, module in start.unet.named_modules():
        if name.endswith(("to_k", "to_v")):
            module.weight.copy_(module.weight[:64].repeat(len(module.weight) // 64, 1))
    done = apply("multi_query", start, replace(TEACHER, kv_heads=1), bench(kv_merge=kv_merge))
    assert torch.allclose(outputs(done.unet), outputs(start.unet), atol=CLOSE)


def test_svd_merging_is_nowhere_worse_than_the_mean_and_exact_up_to_the_rank():
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 8, 12, dtype=torch.float64) for _ in range(3))
    out = torch.randn(12, 3, 8, dtype=torch.float64)
    eye = torch.eye(12, dtype=torch.float64)

    def gaps(parts):
        new_q, new_k, new_v, new_out = parts
        logits = torch.einsum("hdx,hdy->hxy", new_q, new_k.expand(3, -1, -1))
        values = torch.einsum("xhd,hdy->hxy", new_out, new_v.expand(3, -1, -1))
        return (
            relative_error(logits, torch.einsum("hdx,hdy->hxy", q, k)),
            relative_error(values, torch.einsum("xhd,hdy->hxy", out, v)),
        )

    by_svd, by_mean = gaps(merge_svd(q, k, v, out, eye, eye, eye)), gaps(merge_mean(q, k, v, out))
    assert by_svd[0] < by_mean[0] and by_svd[1] < by_mean[1]
    one = q[:1], k[:1], v[:1], out[:, :1]
    new_q, new_k, _, _ = merge_svd(*one, eye, eye, eye)
    logits = torch.einsum("hdx,hdy->hxy", new_q, new_k)
    assert relative_error(logits, torch.einsum("hdx,hdy->hxy", q[:1], k[:1])) < 1e-12


def test_qk_norm_is_exact_for_queries_and_keys_of_constant_length():
    """Directions on a sphere: the logits are those of the normed vectors times the product of both lengths."""
    torch.manual_seed(0)
    unit = nn.functional.normalize(torch.randn(2, 3, 9, 16, dtype=torch.float64), dim=-1) * 4
    q, k = unit[:1] * 2, unit[1:, :1] * 0.5
    scale, error = fit_scales([(q, k)])
    assert error < 1e-6
    assert torch.allclose(scale, torch.full((16,), 2.0 * 0.5, dtype=torch.float64) * 2 * 0.5, rtol=1e-2)


def test_cross_attention_starts_as_the_identity():
    start = draft()
    done = apply("cross_attention", start, replace(TEACHER, down_attention=(CROSS, SELF_CROSS)))
    assert "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight" in done.unet.state_dict()
    assert torch.allclose(outputs(done.unet), outputs(start.unet), atol=CLOSE)


def test_a_projection_of_tokens_of_constant_length_changes_nothing():
    start = draft()
    done = apply("text_projection", start, replace(TEACHER, text_dim=64))
    assert torch.allclose(outputs(done.unet), outputs(start.unet), atol=1e-4)


@pytest.mark.parametrize("width", [96, 64])
def test_a_wider_context_still_says_the_same(width):
    start = draft()
    done = apply("text_projection", start, replace(TEACHER, text_dim=64, cross_dim=width))
    assert torch.allclose(outputs(done.unet), outputs(start.unet), atol=1e-3)


def test_a_narrower_context_keeps_the_tokens_main_directions():
    tokens = torch.randn(50, 4, dtype=torch.float64) @ torch.randn(4, 16, dtype=torch.float64)
    map_cd = projection(tokens, 4)
    assert torch.allclose(tokens @ map_cd.T @ map_cd, tokens)


def test_the_fitted_rms_norm_is_diffusers_own():
    context = torch.randn(30, 8, dtype=torch.float64)
    scale, error = fit_scale(context, context)
    norm = RMSNorm(8, eps=1e-5).double()
    norm.weight.data.copy_(scale)
    assert relative_error(norm(context).detach(), context) == pytest.approx(error)


def test_without_pooled_text_the_size_is_read_as_before():
    start = draft()
    question = batches()
    same = torch.cat([batch.condition.pooled_bd for batch in question]).mean(0)
    done = apply("size_embedding", start, replace(TEACHER, pooled_dim=None))
    held_out = batches(1, seed=5)[0]
    held_out.condition.pooled_bd.copy_(same.expand_as(held_out.condition.pooled_bd))
    from compress.pruning.calibration import predict

    assert torch.allclose(predict(done.unet, held_out), predict(start.unet, held_out), atol=CLOSE)


def test_sdxls_six_numbers_become_two():
    """Original and target size add up; a crop of zero is a constant."""
    spec = replace(TEACHER, pooled_dim=3, size_values=6, size_dim=4)
    weight, pooled = torch.randn(5, 3 + 24), torch.randn(7, 3)
    columns, shift, _ = size_columns(weight, pooled, spec)
    wave = {"w": torch.randn(4), "h": torch.randn(4), "0": torch.tensor([1.0, 1.0, 0.0, 0.0])}
    six = torch.cat([pooled.mean(0), *(wave[key] for key in "hw00hw")])
    assert torch.allclose(weight @ six, columns @ torch.cat([wave["w"], wave["h"]]) + shift, atol=CLOSE)


def test_an_operator_leaves_its_draft_untouched():
    start = draft()
    before = {k: v.clone() for k, v in start.unet.state_dict().items()}
    for name, goal in (("separable", replace(TEACHER, separable=True)), ("multi_query", replace(TEACHER, kv_heads=1))):
        apply(name, Draft(TEACHER, start.unet), goal)
    assert all(torch.equal(before[k], v) for k, v in start.unet.state_dict().items())
