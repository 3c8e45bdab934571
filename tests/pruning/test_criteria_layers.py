"""Layer rules: patterns by hand, LAPTOP's knapsack against all mixes, and refitting where a criterion can."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from compress.cost import parameters
from compress.pruning.calibration import predictions, velocity_mse
from compress.pruning.criteria import LAYER_RULES
from compress.pruning.criteria.layers import Choice, LayerTask, plan_depth, skip_errors, subsets
from compress.pruning.importance import Saliency
from compress.pruning.surgery import OPERATORS, Bench
from tests.pruning.nets import TEACHER, batches, draft

STACK = "mid_block.attentions.0.transformer_blocks"


def choose(rule, *choices, saliency=None):
    task = LayerTask(torch.nn.Identity, [], torch.Generator(), lambda: saliency)
    return [tuple(kept) for kept in LAYER_RULES[rule](choices, task).values()]


def choice(modules, have, want):
    return Choice(modules, have, subsets(have, want))


@pytest.mark.parametrize("rule", ["bk_sdm", "koala"])
def test_hand_made_rules_keep_the_first_layers_and_going_up_the_last(rule):
    layers = choice("down_blocks.1.resnets", 3, 1), choice("up_blocks.1.attentions", 4, 2)
    assert choose(rule, *layers) == [(0,), (0, 3)]


def test_bk_sdm_thins_a_stack_and_koala_cuts_its_end():
    assert choose("bk_sdm", choice(STACK, 10, 5)) == [(0, 2, 4, 6, 8)]
    assert choose("koala", choice(STACK, 10, 6)) == [(0, 1, 2, 3, 4, 5)]


def test_a_pattern_yields_to_what_is_legal():
    assert choose("koala", Choice("up_blocks.0.resnets", 3, ((0, 1), (1, 2)))) == [(0, 1)]


def test_scores_decide_by_their_sum():
    entries = {f"{STACK}.{block}.w": torch.tensor([score]) for block, score in enumerate([1.0, 5.0, 2.0])}
    assert choose("weights", choice(STACK, 3, 2), saliency=Saliency.of(entries)) == [(1, 2)]


def test_rules_reach_the_operator():
    start, goal = draft(), replace(TEACHER, transformer_layers=(1, 1))
    for rule, kept in (("koala", [0]), ("bk_sdm", [0])):
        workbench = Bench(batches(1, 2), "taylor", torch.Generator(), layer_rule=rule)
        OPERATORS["depth"].apply(start, goal, workbench)
        assert workbench.report["depth"][STACK] == kept


def test_a_layer_that_adds_nothing_is_skipped_for_free():
    net = draft().unet
    blocks = net.mid_block.attentions[0].transformer_blocks
    for part in (blocks[0].attn1.to_out[0], blocks[0].attn2.to_out[0], blocks[0].ff.net[2]):
        part.weight.zero_()
        part.bias.zero_()
    error = skip_errors(net, batches(1, 2))
    assert error(f"{STACK}.0") == 0 < error(f"{STACK}.1")


def test_the_knapsack_finds_the_best_depths():
    spec = replace(TEACHER, layers_per_block=(2, 2), transformer_layers=(1, 3))
    generator = torch.Generator().manual_seed(0)
    errors = {}

    def error(name):
        return errors.setdefault(name, float(torch.rand((), generator=generator)))

    whole = parameters(spec)
    assert plan_depth(spec, parameters, error, whole) == spec
    found = plan_depth(spec, parameters, error, round(0.6 * whole))
    assert parameters(found) <= 0.6 * whole

    def cost(layers, blocks):
        """Spelt out for this network: only the lower stage has transformers."""
        total = 0.0
        for lists, keep in (
            ([("down_blocks.0.resnets", 2), ("up_blocks.1.resnets", 3)], (layers[0], layers[0] + 1)),
            ([("down_blocks.1.resnets", 2), ("up_blocks.0.resnets", 3)], (layers[1], layers[1] + 1)),
            ([("down_blocks.1.attentions", 2), ("up_blocks.0.attentions", 3)], (layers[1], layers[1] + 1)),
        ):
            for (name, have), stay in zip(lists, keep, strict=True):
                total += sum(sorted(errors[f"{name}.{i}"] for i in range(have))[: have - stay])
        stacks = [f"down_blocks.1.attentions.{i}" for i in range(2)] + [f"up_blocks.0.attentions.{i}" for i in range(3)]
        for stack in (*stacks, "mid_block.attentions.0"):
            total += sum(sorted(errors[f"{stack}.transformer_blocks.{i}"] for i in range(3))[: 3 - blocks])
        return total

    mixes = {
        ((a, b), t): cost((a, b), t)
        for a, b, t in product((1, 2), (1, 2), (1, 2, 3))
        if parameters(replace(spec, layers_per_block=(a, b), transformer_layers=(1, t))) <= 0.6 * whole
    }
    assert cost(found.layers_per_block, found.transformer_layers[1]) == pytest.approx(min(mixes.values()))


def test_depths_that_cannot_be_met_are_refused():
    with pytest.raises(ValueError, match="smallest mix"):
        plan_depth(TEACHER, parameters, lambda name: 1.0, 1000)


@pytest.mark.slow
def test_obs_makes_up_for_what_it_cuts():
    start, goal = draft(), replace(TEACHER, ff_mult=2)
    held_out = batches(1, 8, seed=9)
    reference = predictions(start.unet, held_out)
    workbench, without = (Bench(batches(4, 16), "obs_diff", torch.Generator()) for _ in range(2))
    done, transplant = OPERATORS["feed_forward"].apply(start, goal, workbench)
    without.refit = lambda *_: None
    sliced, _ = OPERATORS["feed_forward"].apply(start, goal, without)
    assert velocity_mse(done.unet, held_out, reference) < velocity_mse(sliced.unet, held_out, reference)
    _, step = transplant.origins["mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight"]
    assert step.method.startswith("sliced 384/768, made up for") and 0 < step.relative_error < 1
