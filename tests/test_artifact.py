"""Artefacts appear whole or not at all, know their own bytes, and name what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.artifact import (
    CARD,
    Card,
    forget_paths,
    hash_of,
    load_card,
    recover,
    save_card,
    verify,
    write_artifact,
)
from compress.errors import UserError


def card(**fields: object) -> Card:
    return Card(name="40-joint", stage="flow", key="k" * 64, **fields)  # type: ignore[arg-type]


def fill(text: str = "weights") -> object:
    def build(out: Path) -> None:
        (out / "unet").mkdir()
        (out / "unet" / "model.safetensors").write_text(text)
        (out / "config.json").write_text("{}")
        (out / "grid.png").write_bytes(b"picture")

    return build


def write(folder: Path, text: str = "weights", **arguments: object) -> Card:
    return write_artifact(folder, fill(text), card(), **arguments)  # type: ignore[arg-type]


def test_card_lists_every_file_with_size_and_hash(tmp_path: Path) -> None:
    written = write(tmp_path / "x")
    assert sorted(written.files) == ["config.json", "grid.png", "unet/model.safetensors"]
    assert written.files["unet/model.safetensors"]["bytes"] == len("weights")
    # sha256("{}"), computed with coreutils
    expected = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert written.files["config.json"]["sha256"] == expected
    assert load_card(tmp_path / "x") == written == verify(tmp_path / "x")


def test_content_hash_ignores_pictures_and_time_but_not_weights(tmp_path: Path) -> None:
    first, same, other = write(tmp_path / "a"), write(tmp_path / "b"), write(tmp_path / "c", text="Weights")
    assert first.content_hash == same.content_hash != other.content_hash
    (tmp_path / "d").mkdir()

    def without_picture(out: Path) -> None:
        fill()(out)  # type: ignore[operator]
        (out / "grid.png").write_bytes(b"another")

    assert write_artifact(tmp_path / "d" / "x", without_picture, card()).content_hash == first.content_hash


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "the file is missing"),
        (lambda path: path.write_text("wei"), "truncated: 3 of 7 bytes"),
        (lambda path: path.write_text("weightz"), "has changed"),
        (lambda path: path.write_text("weights!"), "has changed"),
    ],
)
def test_verify_names_the_damaged_file_and_a_remedy(tmp_path: Path, damage: object, says: str) -> None:
    write(tmp_path / "x")
    damage(tmp_path / "x" / "unet" / "model.safetensors")  # type: ignore[operator]
    with pytest.raises(UserError, match=says) as caught:
        verify(tmp_path / "x")
    (problem,) = caught.value.problems
    assert problem.where.endswith("x/unet/model.safetensors")
    assert "run its recipe again" in problem.remedy


def test_verify_names_all_damaged_files_at_once(tmp_path: Path) -> None:
    write(tmp_path / "x")
    for name in ("config.json", "grid.png"):
        (tmp_path / "x" / name).unlink()
    with pytest.raises(UserError) as caught:
        verify(tmp_path / "x")
    assert len(caught.value.problems) == 2


def test_a_failing_build_leaves_the_old_artefact_as_it_was(tmp_path: Path) -> None:
    before = write(tmp_path / "x")

    def build(out: Path) -> None:
        (out / "half").write_text("written")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_artifact(tmp_path / "x", build, card())
    assert verify(tmp_path / "x") == before
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_replaced_artefact_is_kept_under_its_key(tmp_path: Path) -> None:
    before = write(tmp_path / "x")
    after = write(tmp_path / "x", text="new", keep=tmp_path / "kept")
    assert verify(tmp_path / "x") == after
    assert verify(tmp_path / "kept" / ("x-" + "k" * 12)) == before


def test_recover_undoes_a_swap_that_was_killed_between_its_renames(tmp_path: Path) -> None:
    before = write(tmp_path / "x")
    (tmp_path / "x").rename(tmp_path / ".old-x")
    (tmp_path / ".tmp-x").mkdir()
    recover(tmp_path)
    assert verify(tmp_path / "x") == before
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_recover_finishes_a_swap_that_was_killed_after_its_renames(tmp_path: Path) -> None:
    write(tmp_path / "x")
    (tmp_path / "x").rename(tmp_path / ".old-x")
    after = write(tmp_path / "x", text="new")
    (tmp_path / "y").mkdir()
    assert not (tmp_path / ".old-x").exists()
    assert verify(tmp_path / "x") == after
    recover(tmp_path, tmp_path / "kept")
    assert verify(tmp_path / "x") == after


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is no card.json"),
        ("{", "cannot be read"),
        ("[]", "does not hold an object"),
        ('{"name": "x", "stage": "toy"}', r"lacks \['key'\]"),
        ('{"name": "x", "stage": "toy", "key": "k", "colour": 1}', r"unknown fields \['colour'\]"),
    ],
)
def test_bad_cards_are_user_errors(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / CARD).write_text(text)
    with pytest.raises(UserError, match=says):
        load_card(tmp_path)


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    save_card(tmp_path, card(metrics={"loss": float("nan")}, curves={"loss": [[0.0, float("inf")]]}))
    raw = json.loads((tmp_path / CARD).read_text())
    assert raw["metrics"] == {"loss": None}
    assert raw["curves"] == {"loss": [[0.0, None]]}


def test_hash_of_does_not_depend_on_the_order_of_keys() -> None:
    assert hash_of({"a": 1, "b": [2.5, None]}) == hash_of({"b": [2.5, None], "a": 1})
    assert hash_of({"a": 1}) != hash_of({"a": 1.5})


def test_configurations_forget_where_they_were_loaded_from(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"_name_or_path": "/tmp/x/unet", "widths": [64]}')
    (tmp_path / "config.json").write_text("[]")
    forget_paths(tmp_path)
    assert json.loads((tmp_path / "unet" / "config.json").read_text()) == {"widths": [64]}
    assert (tmp_path / "config.json").read_text() == "[]"
