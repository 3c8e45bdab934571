"""Typed overrides of any recipe field from the command line: `--joint.steps 100 --teacher.folder runs/mine/30-teacher`.

Fields and types are read off the recipe's dataclasses, so there is no list of flags to keep up to date. Parsing and
type checking are jsonargparse's; all mistakes on one command line are reported together.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any, get_type_hints

from compress.errors import Problem, UserError
from compress.recipe import Recipe

_FIXED = ("name",)  # the name of a stage is its folder; a recipe is renamed in its file


def apply_overrides(recipe: Recipe, arguments: Sequence[str]) -> Recipe:
    """The recipe with `--<stage>.<field> value` (or `=value`), `--teacher.<field>` and `--live` applied.

    Raises one UserError for every unknown field and every value of the wrong type.
    """
    fields = overridable(recipe)
    changes: dict[str, Any] = {}
    problems: list[Problem] = []
    for option, text in _pairs(arguments, problems):
        field = _field_of(option, fields)
        if field is None:
            problems.append(_unknown(option, fields))
            continue
        kind, default = fields[field]
        try:
            changes[field] = _parse(option, text, field, kind, changes.get(field, default))
        except (argparse.ArgumentError, ValueError, TypeError) as error:
            problems.append(Problem(f"{text!r} is not accepted", f"--{option}", _expectation(error, kind, default)))
    if problems:
        raise UserError(*problems)
    return _replace(recipe, changes)


def overridable(recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted field -> (type, value now) of everything that can be changed from the command line."""
    found: dict[str, tuple[Any, Any]] = {"live": (tuple[str, ...], recipe.live)}
    groups: list[tuple[str, Any]] = [(stage.name, stage) for stage in recipe.stages]
    groups += [(name, part) for name, part in _parts(recipe).items()]
    for name, config in groups:
        hints = get_type_hints(type(config))
        for field in dataclasses.fields(config):
            if field.name not in _FIXED:
                found[f"{name}.{field.name}"] = (hints[field.name], getattr(config, field.name))
    return found


def _pairs(arguments: Sequence[str], problems: list[Problem]) -> list[tuple[str, str]]:
    pairs, rest = [], list(arguments)
    while rest:
        head = rest.pop(0)
        if not head.startswith("--"):
            remedy = "A recipe field is changed by --<stage>.<field> <value>."
            problems.append(Problem(f"{head!r} was not expected", "command line", remedy))
            continue
        option, equals, text = head.removeprefix("--").partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                problems.append(Problem("a value is missing", head, f"Write {head} <value>."))
                continue
            text = rest.pop(0)
        pairs.append((option, text))
    return pairs


def _field_of(option: str, fields: dict[str, Any]) -> str | None:
    """The longest known field that `option` names or goes into (`joint.mix.edit` goes into `joint.mix`)."""
    parts = option.split(".")
    candidates = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in candidates if name in fields), None)


def _parse(option: str, text: str, field: str, kind: Any, default: Any) -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{field}", type=kind, default=default)
    value: Any = parser.instantiate(parser.parse_args([f"--{option}={text}"]))
    for part in field.split("."):
        value = getattr(value, part)
    return value


def _unknown(option: str, fields: dict[str, Any]) -> Problem:
    stage = option.partition(".")[0]
    siblings = [name for name in fields if name.partition(".")[0] == stage]
    close = difflib.get_close_matches(option, siblings or fields, n=3, cutoff=0.5)
    if close:
        remedy = f"Did you mean {' or '.join(f'--{name}' for name in close)}?"
    else:
        remedy = f"Known are {', '.join(siblings or sorted({name.partition('.')[0] for name in fields}))}."
    return Problem("there is no such field", f"--{option}", remedy)


def _expectation(error: Exception, kind: Any, default: Any) -> str:
    last = str(error).strip().splitlines()[-1].strip()
    detail = f" ({last.partition('. Got')[0]})" if "option" in last else ""  # a mistake inside a nested value
    return f"It takes {type_name(kind)}{detail}, for example {_literal(default)}."


def type_name(kind: Any) -> str:
    """A type as a user would write it: int, float | None, tuple[int, ...]."""
    return kind.__name__ if type(kind) is type else str(kind).replace("typing.", "")


def _literal(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, tuple):
        return f"'[{', '.join(_literal(item) for item in value)}]'"
    return "null" if value is None else str(value)


def _parts(recipe: Recipe) -> dict[str, Any]:
    """What a recipe has beside its stages and can be changed field by field."""
    parts = {"teacher": recipe.teacher, "judge": recipe.judge}
    return {name: part for name, part in parts.items() if part is not None}


def _replace(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    def changed(name: str, config: Any) -> Any:
        own = {field.partition(".")[2]: value for field, value in changes.items() if field.startswith(f"{name}.")}
        return dataclasses.replace(config, **own)

    parts = {name: changed(name, part) for name, part in _parts(recipe).items()}
    stages = tuple(changed(stage.name, stage) for stage in recipe.stages)
    return dataclasses.replace(recipe, stages=stages, live=changes.get("live", recipe.live), **parts)
