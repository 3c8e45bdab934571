from reports.layers import before, brief, by_block, in_order


def test_groups_stand_in_the_order_in_which_a_sample_meets_them():
    attention = "down_blocks.0.attentions.0"
    order = [
        "time_embedding.linear_1",
        "down_blocks.0.resnets.0.conv1",
        f"{attention}.proj_in",
        f"{attention}.transformer_blocks.0.attn1",
        f"{attention}.transformer_blocks.0.ff",
        f"{attention}.transformer_blocks.2.attn1",
        f"{attention}.transformer_blocks.10.attn1",
        f"{attention}.proj_out",
        "down_blocks.0.resnets.1.conv1",
        "down_blocks.0.downsamplers.0.conv",
        "down_blocks.10.resnets.0.conv1",
        "mid_block.resnets.0.conv1",
        "mid_block.attentions.0.proj_in",
        "mid_block.resnets.1.conv1",
        "up_blocks.0.resnets.0.conv1",
    ]
    assert in_order(sorted(order)) == in_order(reversed([*order, *order])) == order
    assert [len(layers) for layers in by_block(dict.fromkeys(order)).values()] == [1, 9, 1, 3, 1]


def test_names_are_short_within_their_block():
    assert brief("down_blocks.2.attentions.0.transformer_blocks.1.ff") == "attn 0 · 1 · ff"
    assert brief("mid_block.resnets.1.conv1") == "res 1 · conv1"
    assert brief("up_blocks.0.upsamplers.0.conv") == "upsampler"
    assert brief("conv_in") == "conv_in"


def test_a_student_s_layers_bear_the_teacher_s_numbers():
    """The lists are as stage prune writes them: blocks under the name that their transformer has in the teacher."""
    kept = {
        "up_blocks.0.attentions": [0, 2],
        "up_blocks.0.attentions.0.transformer_blocks": [0],
        "up_blocks.0.attentions.2.transformer_blocks": [3, 5],
    }
    assert before("up_blocks.0.attentions.1.transformer_blocks.1.ff", kept) == (
        "up_blocks.0.attentions.2.transformer_blocks.5.ff"
    )
    assert before("up_blocks.0.attentions.0.transformer_blocks.0.ff", kept).endswith("0.transformer_blocks.0.ff")
    assert before("up_blocks.0.resnets.1.conv1", kept) == "up_blocks.0.resnets.1.conv1"
    assert before("conv_in", {}) == "conv_in"
