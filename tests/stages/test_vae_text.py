"""The parts around the denoiser: what the autoencoder is pulled towards, and how texts become tokens and labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.config.teacher import TextConfig, VaeConfig
from compress.data.scenes.captions import sample_t2i
from compress.data.scenes.edits import sample_edit
from compress.data.scenes.meaning import FIELDS, labels, vocabulary
from compress.data.scenes.world import HELD_OUT
from compress.progress import LineProgress
from compress.stages.text import TextStage, build_tokenizer, draw_texts, token_labels
from compress.stages.vae import CROWD, build, draw_scene, moments_penalty, round_trip


def test_the_pull_on_latents_vanishes_at_zero_mean_and_unit_variance():
    z_bchw = torch.randn(64, 3, 16, 16)
    z_bchw = (z_bchw - z_bchw.mean((0, 2, 3), keepdim=True)) / z_bchw.transpose(0, 1).flatten(1).std(1)[:, None, None]
    assert float(moments_penalty(z_bchw)) == pytest.approx(0.0, abs=1e-9)
    assert float(moments_penalty(z_bchw + 0.5)) == pytest.approx(0.25, rel=1e-4)
    assert float(moments_penalty(z_bchw * np.e)) == pytest.approx(4.0, rel=1e-4)  # log variance 2, squared


def test_the_autoencoder_has_the_documented_shape():
    vae = build(VaeConfig(steps=1, channels=(8, 8, 8, 8)))
    z_bchw = vae.encode(torch.zeros(2, 3, 64, 64)).latents
    assert z_bchw.shape == (2, 16, 8, 8) and vae.decode(z_bchw).sample.shape == (2, 3, 64, 64)
    assert round_trip(vae, images=20, seed=0, noise=0.0) == 0.0  # untrained: nothing is verified


def test_pictures_to_reconstruct_are_half_crowded_and_hold_nothing_out_of_bounds():
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng) for _ in range(400)]
    crowded = sum(len(scene.things) == CROWD for scene in scenes)
    assert 150 < crowded < 250
    looks_of = {len(scene.things) == CROWD: set() for scene in scenes}
    for scene in scenes:
        looks_of[len(scene.things) == CROWD] |= {(thing.color, thing.shape) for thing in scene.things}
    assert set(HELD_OUT) <= looks_of[True]  # an autoencoder carries whatever is drawn
    assert not set(HELD_OUT) & looks_of[False]


def test_every_word_of_the_world_has_a_token():
    tokenizer = build_tokenizer()
    rng = np.random.default_rng(1)
    texts = [text.tagged for text in draw_texts(500, rng) if text is not None]
    ids = tokenizer(texts, padding="max_length", max_length=32).input_ids
    assert max(len(row) for row in ids) == 32  # none is longer
    assert tokenizer.unk_token_id not in {token for row in ids for token in row}
    assert tokenizer("").input_ids == [tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert len(vocabulary()) == len(set(vocabulary()))


def test_labels_say_what_a_text_means():
    rng = np.random.default_rng(2)
    names = list(FIELDS)

    def meaning(text):
        return {name: FIELDS[name][value] for name, value in zip(names, labels(text), strict=True)}

    prompt = sample_t2i(rng, task="color_attr").prompt
    read = meaning(prompt)
    assert (read["task"], read["count"]) == ("generate", "two")
    assert (read["first_color"], read["second_shape"]) == (prompt.wanted[0].color, prompt.wanted[1].shape)
    instruction = sample_edit(rng, "move").instruction
    read = meaning(instruction)
    assert (read["task"], read["operation1_kind"], read["operation2_kind"]) == ("edit", "move", "none")
    assert read["operation1_edge"] == instruction.operations[0].edge
    assert set(labels(None)) == {0}


def test_token_labels_stand_at_the_words_tokens():
    tokenizer = build_tokenizer()
    prompt = sample_t2i(np.random.default_rng(4), task="color_attr").prompt
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(prompt.tagged, padding="max_length", max_length=32).input_ids)
    named = [token for token, classes in zip(tokens, token_labels(prompt, 32), strict=True) if classes[0]]
    assert named[:2] == [wanted.shape for wanted in prompt.wanted]
    assert token_labels(None, 5) == [[0] * 5] * 5


@pytest.mark.slow
def test_reading_gets_better_with_training():
    stage = TextStage(TextConfig(steps=30, batch_size=32, width=32, layers=1, heads=2), LineProgress(every_s=1e9))
    optimizer = torch.optim.AdamW(stage.trained.parameters(), 3e-3)
    losses = []
    for update in range(30):
        loss = stage.step(update, torch.Generator().manual_seed(update)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
