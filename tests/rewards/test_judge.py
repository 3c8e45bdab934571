"""What the judge is told: agreements are probabilities that specs decide exactly; and it learns from them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from compress.data.scenes.meaning import FIELDS
from compress.rewards import examples
from compress.rewards.judge import CELL_CLASSES, ITEMS, MEANING_CLASSES, Judge, Look, agreements, split_meaning
from tests.tiny import tiny_system


def one_hot(classes, count):
    return F.one_hot(classes.clamp(min=0), count).float() * (classes >= 0).unsqueeze(-1)


def looks(specs):
    return (
        Look(one_hot(specs.cells_bg, CELL_CLASSES), one_hot(specs.background_b, 4)),
        Look(one_hot(specs.source_cells_bg, CELL_CLASSES), one_hot(specs.source_background_b, 4)),
        torch.cat([one_hot(specs.meaning_bf[:, i], len(options)) for i, options in enumerate(FIELDS.values())], dim=1),
    )


def drawn(count, seed=0):
    rng = np.random.default_rng(seed)
    return [examples.draw_example(rng, edit=bool(index % 2)) for index in range(count)]


def test_the_meaning_splits_into_its_fields():
    fields = split_meaning(torch.arange(MEANING_CLASSES).expand(2, -1))
    assert list(fields) == list(FIELDS)
    assert [part.shape[1] for part in fields.values()] == [len(options) for options in FIELDS.values()]


def test_agreements_are_decided_by_the_specs():
    batch = drawn(60)
    cells, backgrounds = agreements(*looks(examples.encode_specs(tiny_system(), batch)))
    assert cells.shape == (60, 16, 2 * len(ITEMS) + 4) and backgrounds.shape == (60, 4)
    assert set(cells.unique().tolist()) <= {0, 1} and set(backgrounds.unique().tolist()) <= {0, 1}
    for row, example in enumerate(batch):
        things = {t.row * 4 + t.col: t for t in example.shown.things if t.row * 4 + t.col not in example.broken_cells}
        if example.source is None:
            wanted = example.meaning.wanted[0]
            named = {c for c, t in things.items() if t.shape == wanted.shape and wanted.color in (None, t.color)}
            assert set(cells[row, :, 0].nonzero().flatten().tolist()) == named
        else:
            assert backgrounds[row, 3] == (example.source.background == example.shown.background)
            old = example.meaning.operations[0].old
            named = {t.row * 4 + t.col for t in example.source.things if (t.color, t.shape) == old}
            assert set(cells[row, :, 2 * ITEMS.index("operation1_old") + 1].nonzero().flatten().tolist()) == named


def test_half_a_probability_is_half_an_agreement():
    picture, source, meaning = looks(examples.encode_specs(tiny_system(), drawn(8)))
    whole = agreements(picture, source, meaning)[0]
    half = agreements(Look(picture.cells_bgk / 2, picture.background_bk), source, meaning)[0]
    torch.testing.assert_close(half[:, :, 0], whole[:, :, 0] / 2)
    torch.testing.assert_close(half[:, :, 1], whole[:, :, 1])  # the source's


@pytest.mark.slow
def test_it_learns_in_minutes_what_a_symbolic_judge_knows():
    torch.manual_seed(0)
    system, judge = tiny_system(), Judge(64)
    train, held_out = (examples.encode_specs(system, drawn(count, seed)) for count, seed in ((4000, 1), (1000, 2)))
    seen, truth = looks(train), train.right_b
    applies = ~train.parts_bp.isnan()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3)
    for _ in range(300):
        rows = torch.randint(len(truth), (128,))
        picture, source = (Look(look.cells_bgk[rows], look.background_bk[rows]) for look in seen[:2])
        judged = judge(picture, source, seen[2][rows])
        loss = F.binary_cross_entropy_with_logits(judged.right_b, truth[rows]) + 2 * F.binary_cross_entropy_with_logits(
            judged.parts_bp[applies[rows]], train.parts_bp[rows][applies[rows]]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    verdict = judge(*looks(held_out)).right_b > 0
    assert (verdict == held_out.right_b.bool()).float().mean() > 0.85
