"""A user's mistake is one clear message with its remedy and exit code 2, and leaves what exists untouched."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress import cli
from compress.commands import generate
from compress.errors import Problem, UserError, disk_error

TOY = "from tests.toy import toy_recipe\n\ndef recipe():\n    return toy_recipe('a', 'b')\n"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a toy recipe that has been run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("compress.commands.run.write", lambda folder: None)
    Path("toy.py").write_text(TOY)
    assert cli.main(["run", "toy.py"]) == 0
    return tmp_path


def state(folder: Path) -> dict[Path, bytes]:
    """Every byte of the artefacts in the toy run."""
    return {path: path.read_bytes() for path in folder.glob("runs/toy/*-*/**/*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "tois"], "there is no recipe 'tois'"),
        (["run", "toy.py", "--a.stepz", "3"], "--a.stepz: there is no such field. Did you mean --a.steps"),
        (["run", "toy.py", "--a.steps", "three"], "--a.steps: 'three' is not accepted. It takes int"),
        (["run", "toy.py", "--a.width", "33"], "stage 'a': width is 33. Use a multiple of 32."),
        (["run", "toy.py", "--until", "z"], "--until: there is no stage 'z' in toy. Choose one of: a, b."),
        (["run", "toy.py", "--out", "toy.py/x"], "the run folder cannot be written"),
        (["eval", "nowhere"], "nowhere: there is no such folder. Name an artefact"),
        (["eval", "runs/toy/10-a"], "runs/toy/10-a: it cannot be loaded"),
        (["eval", "runs/toy/10-a", "--n", "0"], "--n is 0. Give at least 7, one a task."),
        (["generate", "runs/toy/10-a", "a circle", "-o", "no/out.png"], "no: there is no such folder. Create it"),
        (["generate", "runs/toy/10-a", "a circle", "-o", "out.xyz"], "'.xyz' is no kind of picture"),
        (["report", "nowhere"], "nowhere: there is no such folder. Name a run folder"),
        (["sweep", "nothing"], "there is no sweep 'nothing'"),
        (
            ["sweep", "scenes_ratio", "--storage", "redis://x"],
            "--storage: there is no storage of the kind 'redis://x'.",
        ),
        (["sweep", "scenes_ratio", "--trials", "0"], "--trials is 0. Ask for at least 1 trial."),
        (["sweep", "scenes_ratio", "--workers", "0"], "--workers: workers is 0. Give 1 or more."),
        (["sweep", "scenes_ratio", "--disk-gb", "0"], "--disk-gb: disk-gb is 0. Give a positive number"),
        (["sweep-server", "journal"], "the proxy cannot stand in front of journal. Give a database"),
        (["gc", "--keep-gb", "-1"], "--keep-gb: keep-gb is -1. Give 0 or more"),
        (["recipes", "nothing"], "there is no recipe 'nothing'"),
    ],
)
def test_one_message_exit_code_2_nothing_touched(
    toy: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    before = state(toy)
    capsys.readouterr()
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("error: ") and says in said[0]
    assert state(toy) == before


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_weight_file_is_named_with_its_remedy(
    toy: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    weights = toy / "runs/toy/10-a/weights.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:40])
    before = state(toy)
    for arguments in (["run", "toy.py"], ["run", "toy.py", "--dry-run"], ["eval", "runs/toy/10-a"]):
        capsys.readouterr()
        assert cli.main(arguments) == 2
        said = capsys.readouterr().err
        assert f"weights.safetensors: the file is {damage}" in said and "Traceback" not in said
    assert state(toy) == before
    assert cli.main(["run", "toy.py", "--from", "a"]) == 0


def test_several_problems_are_listed_under_their_number(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["run", "toy.py", "--a.width", "33", "--b.steps", "0"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: 2 problems",
        "  - stage 'a': width is 33. Use a multiple of 32.",
        "  - stage 'b': steps is 0. Give at least 1.",
    ]


def test_a_full_disk_is_the_users_to_mend_and_other_failures_are_ours(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(number: int) -> object:
        def main(options: object) -> int:
            raise OSError(number, "it failed", "runs/x")

        return main

    monkeypatch.setattr("compress.commands.recipes.main", fail(errno.ENOSPC))
    assert cli.main(["recipes"]) == 2
    assert "runs/x: it failed. Free some space, then run again." in capsys.readouterr().err
    monkeypatch.setattr("compress.commands.recipes.main", fail(errno.EIO))
    with pytest.raises(OSError, match="it failed"):
        cli.main(["recipes"])


@pytest.mark.parametrize(
    ("size", "says"),
    [((100, 80), "the picture is 100 x 80 pixels. Scale or cut it to 64 x 64"), (None, "the picture cannot be read")],
)
def test_pictures_of_the_wrong_size_or_damaged_are_refused(
    tmp_path: Path, size: tuple[int, int] | None, says: str
) -> None:
    path = tmp_path / "source.png"
    Image.new("RGB", size or (64, 64)).save(path)
    if size is None:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=says):
        generate.read_picture(path, 64)


def test_a_good_picture_is_read_as_rgb(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (255, 0, 0, 128)).save(tmp_path / "source.png")
    pixels = generate.read_picture(tmp_path / "source.png", 64)
    assert pixels.shape == (64, 64, 3) and np.array_equal(pixels[0, 0], [255, 0, 0])
    with pytest.raises(UserError, match="there is no such file"):
        generate.read_picture(tmp_path / "none.png", 64)


def test_prompts_get_their_task_tag_once() -> None:
    assert generate.tagged("a red circle", editing=False) == "[generate] a red circle"
    assert generate.tagged("remove the circle", editing=True) == "[edit] remove the circle"
    assert generate.tagged("[edit] remove the circle", editing=False) == "[edit] remove the circle"


def test_a_user_error_needs_a_problem_and_shows_all_of_them() -> None:
    with pytest.raises(ValueError, match="at least one"):
        UserError()
    error = UserError(Problem("x is 1", "here", "Use 2."), Problem("y is 1", "there", "Use 3."))
    assert str(error) == "here: x is 1. Use 2.\nthere: y is 1. Use 3."


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow  # imports torch
def test_a_full_disk_is_known_whoever_complains(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    large = {"x": torch.zeros(100_000)}
    for write in (
        lambda path: path.write_bytes(bytes(400_000)),
        lambda path: save_file(large, path),
        lambda path: torch.save(large, path),
    ):
        with small_files(65_536), pytest.raises(Exception) as raised:
            write(tmp_path / "large")
        told = disk_error(raised.value)
        assert told is not None and str(told).endswith(", then run again.")
    assert disk_error(OSError(errno.ENOENT, "not there")) is None and disk_error(RuntimeError("shape")) is None
