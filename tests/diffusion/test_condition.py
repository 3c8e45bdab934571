"""Condition's batch operations, with every optional field present and absent."""

import pytest
import torch

from teachers.base import Condition


def full(rows: int, start: float = 1.0) -> Condition:
    number = torch.arange(rows, dtype=torch.float32) + start
    return Condition(
        number.reshape(-1, 1, 1).expand(rows, 2, 3),
        number[:, None],
        number[:, None].expand(rows, 2) * 64,
        number.reshape(-1, 1, 1, 1).expand(rows, 1, 2, 2),
        torch.ones(rows, 2),
    )


def test_rows_are_kept_as_batches():
    condition = full(3)
    assert len(condition[1]) == 1 and condition[1].pooled_bd.item() == 2
    assert condition[[2, 0]].pooled_bd.flatten().tolist() == [3, 1]
    assert condition[torch.tensor([False, True, True])].pooled_bd.flatten().tolist() == [2, 3]
    assert condition[:0].tokens_btd.shape == (0, 2, 3)


def test_repeat_cycles_through_the_batch():
    assert full(2).repeat(2).pooled_bd.flatten().tolist() == [1, 2, 1, 2]


def test_cat_fills_a_missing_source_with_the_generation_panel_and_a_missing_mask_with_ones():
    bare = Condition(torch.zeros(1, 2, 3), torch.zeros(1, 1), torch.zeros(1, 2))
    joined = Condition.cat([bare, full(2)])
    assert joined.edits_b.tolist() == [False, True, True]
    assert joined.mask_bt.tolist() == [[1, 1]] * 3


def test_cat_of_bare_conditions_stays_bare_and_undoes_indexing():
    bare = Condition(torch.randn(3, 2, 3))
    joined = Condition.cat([bare[0], bare[1:]])
    assert torch.equal(joined.tokens_btd, bare.tokens_btd)
    assert joined.source_bchw is None and joined.pooled_bd is None
    assert joined.edits_b.tolist() == [False] * 3


def test_cat_refuses_what_has_no_neutral_value():
    with pytest.raises(ValueError, match="pooled_bd is given in 1 of 2"):
        Condition.cat([Condition(torch.zeros(1, 2, 3)), Condition(torch.zeros(1, 2, 3), torch.zeros(1, 1))])
    with pytest.raises(ValueError, match="nothing"):
        Condition.cat([])


def test_text_is_swapped_without_touching_size_and_source():
    swapped = full(2).with_text(Condition(torch.full((1, 2, 3), 9.0), torch.full((1, 1), 9.0)))
    assert swapped.tokens_btd.unique().tolist() == [9] and swapped.mask_bt is None
    assert torch.equal(swapped.source_bchw, full(2).source_bchw) and torch.equal(swapped.size_b2, full(2).size_b2)


def test_without_source_is_generation():
    assert not full(2).without_source().edits_b.any()


def test_casting_spares_the_pixel_size():
    cast = full(2).to("cpu", torch.bfloat16)
    assert cast.tokens_btd.dtype == torch.bfloat16 and cast.size_b2.dtype == torch.float32
