"""Recipes are inert, complete and checked: keys depend on what decides a result, and mistakes come all at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from compress.errors import UserError
from compress.overrides import apply_overrides, overridable, type_name
from compress.recipe import Recipe, TeacherRef, discover, load_recipe, resolved_config, stage_key
from tests.toy import ToyConfig, toy_recipe


def key(parents: tuple[str, ...] = (), **fields: object) -> str:
    return stage_key(ToyConfig(name="a", **fields), parents)  # type: ignore[arg-type]


def test_the_key_depends_on_every_field_that_decides_and_on_the_parents() -> None:
    keys = [
        key(),
        key(steps=4),
        key(seed=1),
        key(scale=1.0),
        key(sizes=(2, 1)),
        key(parents=("p",)),
        key(added_later=1),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(one) == 64 for one in keys)


def test_the_key_ignores_fields_that_cannot_change_the_result() -> None:
    assert key() == key(log_every=5) == key(step_s=1.0)
    assert key(scale=1.0) == key(scale=1) != key(scale=1.5)


def test_a_field_added_later_leaves_old_keys_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Younger(ToyConfig):
        option: str = dataclasses.field(default="off", metadata={"absent_means": "off"})

    assert stage_key(Younger(name="a"), ()) == key()
    assert stage_key(Younger(name="a", option="on"), ()) != key()


def test_keys_are_the_same_on_every_machine() -> None:
    # written down once: a change here means that no shipped artefact is found any more
    assert key(("p",)) == stage_key(ToyConfig(name="a"), ["p"])
    assert key()[:16] == "4f515ff2510ee1c2"


def test_resolved_config_holds_every_field_as_plain_json() -> None:
    resolved = resolved_config(ToyConfig(name="a", sizes=(3, 4)))
    assert resolved["sizes"] == [3, 4]
    assert {"kind": "toy", "runner": "tests.toy:run", "code_version": 1}.items() <= resolved.items()
    assert {field.name for field in dataclasses.fields(ToyConfig)} <= set(resolved)


def test_all_problems_of_all_stages_come_together() -> None:
    stages = (ToyConfig(name="a", steps=0, width=33), ToyConfig(name="a", width=65))
    recipe = Recipe(name="bad", description="", teacher=None, stages=stages, live=("b",))
    with pytest.raises(UserError) as caught:
        recipe.check()
    assert [str(problem) for problem in caught.value.problems] == [
        "recipe 'bad': two stages are called 'a'. Rename one of them.",
        "recipe 'bad': live names 'b'. Choose one of: a.",
        "stage 'a': steps is 0. Give at least 1.",
        "stage 'a': width is 33. Use a multiple of 32.",
        "stage 'a': width is 65. Use a multiple of 32.",
    ]


def test_a_recipe_without_stages_is_a_mistake() -> None:
    with pytest.raises(UserError, match="there are no stages"):
        Recipe(name="none", description="", teacher=None, stages=()).check()


def test_folders_are_numbered_by_their_place_in_the_flow() -> None:
    recipe = toy_recipe("prune", "joint", "deploy")
    assert [recipe.folder_of(stage) for stage in recipe.stages] == ["10-prune", "40-joint", "90-deploy"]
    rounds = toy_recipe("edit", "joint_1", "joint", "joint_2", "sft")
    assert [rounds.folder_of(stage) for stage in rounds.stages] == [
        "30-edit",
        "31-joint_1",
        "40-joint",
        "42-joint_2",
        "50-sft",
    ]
    others = toy_recipe("x", "y")
    assert [others.folder_of(stage) for stage in others.stages] == ["10-x", "20-y"]


def test_overrides_are_typed_by_the_recipe() -> None:
    recipe = dataclasses.replace(toy_recipe("a", "b"), teacher=TeacherRef(folder="x"))
    arguments = ["--a.steps", "7", "--b.scale=0.5", "--a.sizes", "[4, 5]", "--teacher.folder", "y", "--live", '["b"]']
    changed = apply_overrides(recipe, arguments)
    a, b = changed.stages
    assert (a.steps, a.sizes, b.scale) == (7, (4, 5), 0.5)  # type: ignore[attr-defined]
    assert changed.teacher == TeacherRef(folder="y") and changed.live == ("b",)
    assert apply_overrides(recipe, []) == recipe
    assert apply_overrides(changed, ["--b.scale", "null"]).stages[1].scale is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--a.stepz", "1"], "--a.stepz: there is no such field. Did you mean --a.steps"),
        (["--c.steps", "1"], "--c.steps: there is no such field. Did you mean --b.steps or --a.steps"),
        (["--zzz", "1"], "--zzz: there is no such field. Known are a, b, live."),
        (["--a.steps", "many"], "--a.steps: 'many' is not accepted. It takes int, for example 3."),
        (["--a.steps", "1.5"], "--a.steps: '1.5' is not accepted. It takes int, for example 3."),
        (["--a.sizes", "7"], "--a.sizes: '7' is not accepted. It takes tuple[int, ...], for example '[1, 2]'."),
        (["--a.scale", "big"], "--a.scale: 'big' is not accepted. It takes float | None, for example null."),
        (["--a.steps"], "--a.steps: a value is missing. Write --a.steps <value>."),
        (
            ["a.steps"],
            "command line: 'a.steps' was not expected. A recipe field is changed by --<stage>.<field> <value>.",
        ),
        (["--a.name", "z"], "--a.name: there is no such field."),
    ],
)
def test_bad_overrides_say_what_is_accepted(arguments: list[str], says: str) -> None:
    with pytest.raises(UserError) as caught:
        apply_overrides(toy_recipe("a", "b"), arguments)
    (problem,) = caught.value.problems
    assert str(problem).startswith(says)


def test_all_bad_overrides_come_together() -> None:
    with pytest.raises(UserError) as caught:
        apply_overrides(toy_recipe("a", "b"), ["--a.steps", "x", "--q", "1", "--b.width", "y"])
    assert len(caught.value.problems) == 3


def test_every_field_but_the_name_can_be_overridden() -> None:
    fields = {f"a.{field.name}" for field in dataclasses.fields(ToyConfig)} - {"a.name"}
    assert set(overridable(toy_recipe("a"))) == fields | {"live"}
    assert type_name(int) == "int" and type_name(tuple[int, ...]) == "tuple[int, ...]"


def test_nested_values_can_be_changed_one_at_a_time() -> None:
    @dataclasses.dataclass(frozen=True)
    class Mix:
        t2i: float = 0.5
        edit: float = 0.5

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mixed(ToyConfig):
        mix: Mix = Mix(t2i=0.9)

    globals().update(Mix=Mix)  # so that the annotation can be resolved
    recipe = Recipe(name="r", description="", teacher=None, stages=(Mixed(name="a"),))
    changed = apply_overrides(recipe, ["--a.mix.edit", "0.2"])
    assert changed.stages[0].mix == Mix(t2i=0.9, edit=0.2)  # type: ignore[attr-defined]


def test_recipes_are_discovered_by_name_and_by_path(tmp_path: Path) -> None:
    assert "teacher_scenes" in discover()
    assert load_recipe("teacher_scenes").name == "teacher_scenes"
    path = tmp_path / "mine.py"
    path.write_text("from tests.toy import toy_recipe as recipe\n")
    assert load_recipe(str(path)).name == "toy"


def test_unknown_recipes_name_the_closest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no recipe 'teacher_scene'. Did you mean .*teacher_scenes"):
        load_recipe("teacher_scene")
    with pytest.raises(UserError, match="there is no such file"):
        load_recipe(str(tmp_path / "none.py"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match=r"defines no recipe\(\)"):
        load_recipe(str(tmp_path / "empty.py"))
