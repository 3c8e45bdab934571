"""Specs: to and from diffusers' configs, the lattice, and the published parameter count."""

from dataclasses import replace

import pytest
from diffusers import UNet2DConditionModel

from compress.cost import parameters, skeleton
from students.presets import dreamlite_full, sdxl_full
from students.spec import CROSS, NONE, SELF_CROSS, StudentSpec, with_heads
from tests.pruning.nets import STUDENT, TEACHER

SDXL_CONFIG = {  # stabilityai/stable-diffusion-xl-base-1.0/unet/config.json, what differs from the defaults
    "_class_name": "UNet2DConditionModel",
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}


def test_the_full_student_has_exactly_the_published_number_of_parameters():
    assert parameters(dreamlite_full()) == 389_968_388


def test_sdxl_is_read_from_its_config_and_counted_right():
    assert StudentSpec.from_config(SDXL_CONFIG) == sdxl_full()
    assert parameters(sdxl_full()) == 2_567_463_684


@pytest.mark.parametrize("spec", [dreamlite_full(), sdxl_full(), TEACHER, STUDENT])
def test_a_spec_survives_its_config(spec):
    assert StudentSpec.from_config(skeleton(spec).config, spec.pooled_dim) == spec
    assert StudentSpec.from_config(spec.to_config(), spec.pooled_dim) == spec


def test_a_teacher_in_the_students_class_has_the_teachers_tensors():
    spec = TEACHER
    teacher = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(1, 3),
        use_linear_projection=True,
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=32 + 2 * 32,
    )
    assert StudentSpec.from_config(teacher.config, pooled_dim=32) == spec
    ours = {name: tensor.shape for name, tensor in skeleton(spec).state_dict().items()}
    assert ours == {name: tensor.shape for name, tensor in teacher.state_dict().items()}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"time_embedding_type": "fourier"}, "time_embedding_type='fourier'"),
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "mid_block_type='UNetMidBlock2DSimpleCrossAttn'"),
        ({"num_class_embeds": 1000}, "num_class_embeds=1000"),
        ({"encoder_hid_dim": 4096}, "encoder_hid_dim=4096 without encoder_hid_dim_type"),
        ({"_class_name": "UNetSpatioTemporalConditionModel"}, "UNetSpatioTemporalConditionModel"),
        ({"_class_name": "DiTTransformer2DModel"}, "DiTTransformer2DModel"),
        ({"down_block_types": ["AttnDownBlock2D", "DownBlock2D", "DownBlock2D"]}, "AttnDownBlock2D"),
        ({"_class_name": "UNet3DConditionModel"}, "UNet3DConditionModel"),
        ({"transformer_layers_per_block": [1, 2, [4, 4]]}, "differs within a stage"),
    ],
)
def test_a_network_of_another_family_is_refused_by_name(change, named):
    with pytest.raises(ValueError, match="family") as caught:
        StudentSpec.from_config(SDXL_CONFIG | change)
    assert named in str(caught.value)


def test_hashes_tell_architectures_apart():
    specs = [TEACHER, STUDENT, replace(STUDENT, ff_mult=4), replace(STUDENT, widths=(64, 64))]
    assert len({spec.hash for spec in specs}) == len(specs)
    assert replace(TEACHER).hash == TEACHER.hash


def test_the_published_student_and_ours_are_legal():
    assert dreamlite_full().problems() == [] == STUDENT.problems()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"widths": (64, 96), "heads": (1, 1)}, "width 96 of stage 1"),  # 3 channels a norm group: odd
        ({"widths": (32, 64)}, "width 32 of stage 0"),
        ({"heads": (1, 3)}, "3 heads at width 128"),
        ({"widths": (64, 128), "heads": (1, 2), "kv_heads": 3}, "3 kv_heads do not divide"),
        ({"layers_per_block": (1, 0)}, "layers_per_block"),
        ({"cross_dim": 40}, "cross_dim 40"),
        ({"down_attention": (CROSS, CROSS), "up_attention": (NONE, CROSS)}, "no self-attention"),
        ({"widths": (64, 64, 64)}, "entries for 3 stages"),
    ],
)
def test_what_is_not_legal_is_named_with_a_remedy(change, what):
    problems = replace(STUDENT, **change).problems()
    assert any(what in text for text, _ in problems)
    assert all(remedy.endswith(".") for _, remedy in problems)


def test_a_width_between_two_legal_ones_is_told_both():
    (_, remedy), *_ = replace(STUDENT, widths=(64, 160), heads=(1, 2)).problems()
    assert "128 or 192" in remedy


def test_heads_follow_the_width():
    assert with_heads(replace(STUDENT, widths=(64, 192))).heads == (1, 3)
    assert SELF_CROSS in STUDENT.down_attention
