"""What every stage's configuration has in common: inert, frozen, validated, hashable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compress.errors import Problem


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of a recipe.

    `kind` and `runner` say which code runs it; `code_version` is raised by hand when that code's result changes, so
    that artefacts made by older code are not reused. Kind, code version and fields make up the stage's key; where the
    code lies (`runner`) does not, and neither do fields whose metadata says so (`compress.recipe.stage_key`).
    A stage that makes no network may declare `uses_torch` False: then torch, which takes seconds, is not loaded for it.
    """

    kind: ClassVar[str]
    runner: ClassVar[str]  # "module:function", imported only when the stage runs
    code_version: ClassVar[int] = 1
    uses_torch: ClassVar[bool] = True

    name: str  # the folder's suffix: runs/<recipe>/40-<name>
    seed: int = 0

    def problems(self) -> list[Problem]:
        """Every mistake in this configuration, each with its remedy; empty when it is sound."""
        return []

    def expect(self, holds: bool, field: str, remedy: str) -> list[Problem]:
        """A list with one problem about `field` unless `holds`; meant to be concatenated in `problems`."""
        if holds:
            return []
        return [Problem(f"{field} is {getattr(self, field)!r}", f"stage {self.name!r}", remedy)]
