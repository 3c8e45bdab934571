"""Scores are computed once for the same weights, samples and chance, and are the same either way."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from compress.kept import Kept
from compress.pruning.importance import Saliency
from compress.pruning.remembered import RememberedScores
from compress.pruning.surgery import Bench, Draft
from tests.pruning.nets import batches, draft


def bench(folder: Path | None, criterion: str = "taylor", seed: int = 0) -> Bench:
    samples = batches(1, 4, seed=seed)
    made = Bench(samples, criterion, torch.Generator().manual_seed(0))
    made.remembered = None if folder is None else RememberedScores(Kept(folder), samples)
    return made


def files(folder: Path) -> int:
    return len(list(folder.glob("*"))) if folder.exists() else 0


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
def test_what_is_remembered_is_what_was_said(criterion: str, tmp_path: Path) -> None:
    student = draft()
    plain, first, second = bench(None, criterion), bench(tmp_path, criterion), bench(tmp_path, criterion)
    expected = plain.saliency(student).along
    for other in (first, second):
        found = other.saliency(student).along
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[place], expected[place]) for place in expected)
    assert files(tmp_path) == 1


def test_chance_goes_on_as_if_scores_had_been_computed(tmp_path: Path) -> None:
    unet, generators = draft().unet, [torch.Generator().manual_seed(0) for _ in range(3)]

    def learn(generator: torch.Generator) -> Saliency:
        return Saliency({("weight", 0): torch.rand(3, generator=generator, dtype=torch.float64)})

    remembered = RememberedScores(Kept(tmp_path), batches(1, 4))
    found = [remembered.saliency("eco_diff", unet, each, partial(learn, each)).along for each in generators]
    assert all(torch.equal(each["weight", 0], found[0]["weight", 0]) for each in found)
    assert len({torch.rand((), generator=each).item() for each in generators}) == 1
    later = remembered.saliency("eco_diff", unet, generators[0], partial(learn, generators[0])).along
    assert not torch.equal(later["weight", 0], found[0]["weight", 0]) and files(tmp_path) == 2


def test_anything_else_is_scored_anew(tmp_path: Path) -> None:
    student = draft()
    bench(tmp_path).saliency(student)
    bench(tmp_path, seed=1).saliency(student)
    bench(tmp_path, "activation").saliency(student)
    with torch.no_grad():
        next(student.unet.parameters()).view(-1)[0] += 1.0
    bench(tmp_path).saliency(Draft(student.spec, student.unet))
    assert files(tmp_path) == 4


@pytest.mark.parametrize("criterion", ["magnitude", "random", "obs_diff"])
def test_what_costs_nothing_or_leaves_more_than_scores_is_not_remembered(criterion: str, tmp_path: Path) -> None:
    scored = bench(tmp_path, criterion)
    assert scored.saliency(draft()).along and files(tmp_path) == 0
