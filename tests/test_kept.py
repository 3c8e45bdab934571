"""Slow results are computed once, also by a process that comes after the one that was killed."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread, get_ident

import pytest
import torch

from compress.kept import Kept, digest


def test_a_result_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> torch.Tensor:
        made.append(1)
        return torch.arange(6.0).reshape(2, 3).T  # not contiguous

    assert torch.equal(Kept(tmp_path / "deep" / "er").tensor("a", make), torch.arange(6.0).reshape(2, 3).T)
    assert torch.equal(Kept(tmp_path / "deep" / "er").tensor("a", make), torch.arange(6.0).reshape(2, 3).T)
    Kept(tmp_path / "deep" / "er").tensor("b", make)
    assert len(made) == 2
    assert [Kept(tmp_path / "deep" / "er").has(name) for name in "abc"] == [True, True, False]


def test_infinity_is_kept_too(tmp_path: Path) -> None:
    for _ in range(2):
        assert float(Kept(tmp_path).tensor("x", lambda: torch.tensor(torch.inf, dtype=torch.float64))) == torch.inf


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Kept(tmp_path / "kept").tensor("a", fail)
    assert not list(tmp_path.rglob("*"))


def test_several_tensors_are_one_result(tmp_path: Path) -> None:
    found = Kept(tmp_path).tensors("pair", lambda: {"a": torch.ones(2), "b": torch.zeros(())})
    again = Kept(tmp_path).tensors("pair", dict)
    assert {name: tensor.tolist() for name, tensor in again.items()} == {"a": [1.0, 1.0], "b": 0.0}
    assert found.keys() == again.keys() and len(list(tmp_path.iterdir())) == 1


def test_a_digest_tells_names_types_shapes_and_values_apart() -> None:
    base = {"a": torch.arange(6.0)}
    others = [
        {"b": torch.arange(6.0)},
        {"a": torch.arange(6.0).double()},
        {"a": torch.arange(6.0).reshape(2, 3)},
        {"a": torch.arange(6.0) + 1e-6},
        {"a": torch.arange(6.0), "c": torch.zeros(0)},
    ]
    assert len({digest(tensors) for tensors in [base, *others]}) == 6
    assert digest({"a": torch.arange(12.0)[::2] / 2}) == digest(base)


def test_who_shares_a_folder_does_not_make_what_another_is_at(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> torch.Tensor:
        made.append(get_ident())
        time.sleep(0.3)
        return torch.tensor([1.5])

    found: list[torch.Tensor] = []
    threads = [Thread(target=lambda: found.append(Kept(tmp_path, share=True).tensor("slow", make))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 1 and [value.tolist() for value in found] == [[1.5]] * 4
