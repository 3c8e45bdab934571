"""Every checkpoint's card tells its cost, and its scores unless the stage has scored itself."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch

from compress.artifact import load_card
from compress.cost import cost
from compress.errors import UserError
from compress.judge import cost_of, examine
from compress.overrides import apply_overrides
from compress.pipeline import run
from compress.progress import LineProgress
from compress.recipe import Judge, stage_key
from compress.stages.context import StageContext, StageResult
from students.spec import StudentSpec
from tests.toy import ToyConfig, options, toy_recipe

SMALL = StudentSpec(
    widths=(64, 64),
    layers_per_block=(1, 1),
    transformer_layers=(1, 1),
    heads=(1, 1),
    down_attention=("none", "self+cross"),
    up_attention=("none", "self+cross"),
    cross_dim=64,
    text_dim=64,
    size_dim=32,
    size_values=2,
    in_channels=4,
    out_channels=4,
    sample_size=8,
)


def checkpoint(folder: Path, spec: StudentSpec = SMALL, kind: str = "DreamLiteUNetModel") -> None:
    """The configurations of a checkpoint; its cost needs no weights."""
    for part, config in (
        ("unet", {"_class_name": kind, **spec.to_config()}),
        ("text_encoder", {"hidden_size": 64, "max_position_embeddings": 16}),
    ):
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(config))


def score(folder: Path, images: int, device: object, progress: object) -> dict[str, float]:
    """A judge for these tests: it counts."""
    return {"overall": 0.5, "scored_images": float(images)}


def run_checkpoint(config: ToyConfig, ctx: StageContext) -> StageResult:
    """A stage that makes a checkpoint; with scale, it scores itself."""
    checkpoint(ctx.out)
    return StageResult(metrics={"overall": config.scale} if config.scale else {})


def test_the_cost_of_a_student_is_that_of_a_picture_pair(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    assert cost_of(tmp_path) == cost(SMALL, 8, 16, 16).metrics()
    parameters = sum(p.numel() for p in SMALL.build().parameters())
    assert cost_of(tmp_path)["parameters_m"] == parameters / 1e6


def test_there_is_no_cost_without_a_network(tmp_path: Path) -> None:
    assert examine(tmp_path, Judge(), torch.device("cpu"), LineProgress(io.StringIO())) == {}


@pytest.mark.parametrize(("scale", "overall", "images"), [(None, 0.5, 7.0), (0.9, 0.9, None)])
def test_a_stage_is_scored_unless_it_did_so_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float | None, overall: float, images: float | None
) -> None:
    monkeypatch.setattr(ToyConfig, "runner", f"{__name__}:run_checkpoint")
    judge = Judge(runner=f"{__name__}:score", images=7)
    run(
        dataclasses.replace(toy_recipe("a", scale=scale), judge=judge),
        options(tmp_path),
        LineProgress(io.StringIO()),
    )
    metrics = load_card(tmp_path / "runs" / "toy" / "10-a").metrics
    assert metrics["overall"] == overall and metrics.get("scored_images") == images
    assert metrics["macs_g"] == cost(SMALL, 8, 16, 16).macs_g


def test_the_judge_is_a_field_of_the_recipe_but_not_of_any_key() -> None:
    recipe = dataclasses.replace(toy_recipe("a"), judge=Judge())
    changed = apply_overrides(recipe, ["--judge.images", "20"])
    assert changed.judge == Judge(images=20)
    assert stage_key(changed.stages[0], ()) == stage_key(recipe.stages[0], ())
    with pytest.raises(UserError, match=r"judge: images is -1"):
        apply_overrides(recipe, ["--judge.images", "-1"]).check()


def test_a_stage_may_be_judged_on_another_number_of_pictures() -> None:
    judge = Judge(images=20, images_of={"a": 3})
    assert [judge.of(name).images for name in ("a", "b")] == [3, 20]
    misnamed = dataclasses.replace(toy_recipe("a"), judge=Judge(images_of={"b": -3}))
    with pytest.raises(UserError, match=r"judge: b is -3.*\n.*judge.images_of names 'b'") as found:
        misnamed.check()
    assert len(found.value.problems) == 2
