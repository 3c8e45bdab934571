"""SHA256SUMS: what it lists, what it notices, and that it is the list that `sha256sum` reads."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from compress.bundle.checksums import FILE, check_files, listed, write_checksums
from compress.errors import UserError

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.txt").write_text("abc")
    (tmp_path / "inner" / "two words.bin").write_bytes(bytes(range(256)))
    write_checksums(tmp_path)
    return tmp_path


def test_every_file_is_listed_with_its_sha256(folder: Path) -> None:
    found = listed(folder)
    assert list(found) == ["a.txt", "inner/two words.bin"] and found["a.txt"] == ABC
    check_files(folder)


def test_sha256sum_agrees(folder: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum on this machine")
    assert subprocess.run(["sha256sum", "-c", FILE], cwd=folder, capture_output=True, check=False).returncode == 0
    (folder / "a.txt").write_text("abd")
    assert subprocess.run(["sha256sum", "-c", FILE], cwd=folder, capture_output=True, check=False).returncode == 1


def test_all_damage_is_named_at_once(folder: Path) -> None:
    (folder / "a.txt").write_text("abcd")
    (folder / "inner" / "two words.bin").unlink()
    with pytest.raises(UserError) as raised:
        check_files(folder)
    changed, missing = raised.value.problems
    assert changed.where.endswith("a.txt") and "damaged" in changed.what
    assert missing.where.endswith("two words.bin") and "missing" in missing.what
    assert "Copy the whole bundle again" in changed.remedy == missing.remedy


@pytest.mark.parametrize(
    "content, words", [(b"abc  a.txt\n", "line 1"), (b"", "lists nothing"), (b"\xff\xfe", "no text"), (None, "missing")]
)
def test_a_damaged_list_is_named_too(folder: Path, content: bytes | None, words: str) -> None:
    if content is None:
        (folder / FILE).unlink()
    else:
        (folder / FILE).write_bytes(content)
    with pytest.raises(UserError, match=words) as raised:
        check_files(folder)
    assert raised.value.problems[0].where.endswith(FILE)
