"""The rules that keep the code readable, as far as a machine can check them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

from compress.recipe import HEADINGS, Recipe, discover
from compress.sweep import Sweep

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("compress", "recipes", "teachers", "students", "reports")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
# Which of our own packages each may import. `compress` reaches `recipes` by name and `reports` in its subcommands.
ALLOWED = {
    "compress": {"compress", "teachers", "students"},
    "recipes": {"recipes", "compress"},
    "teachers": {"teachers"},
    "students": {"students", "teachers"},
    "reports": {"reports"},
}
COMMANDS = ROOT / "compress" / "commands"
STAGES = ROOT / "compress" / "stages"  # a LightningModule cannot be defined without importing its base
REPORTS_MAY_USE = {"jinja2", "markupsafe", "plotly", "matplotlib", "PIL", "numpy", "scipy", "reports"}
HEAVY = {"aimet_torch", "aimet_onnx", "nncf", "openvino", "onnxruntime", "onnxruntime_qnn", "torch_pruning"}
HEAVY |= {"optuna", "lightning"}
WARN_LINES, FAIL_LINES, FUNCTION_LINES = 300, 400, 50


@cache
def tree_of(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text())


def imports(path: Path, top_level: bool = False) -> set[str]:
    """Names of the packages a file imports; with `top_level`, only what importing it loads."""
    lazy: set[ast.AST] = set()
    if top_level:
        for node in ast.walk(tree_of(path)):
            type_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            if type_only or isinstance(node, ast.FunctionDef):
                lazy.update(ast.walk(node))
    found = set()
    for node in ast.walk(tree_of(path)):
        if node in lazy:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def functions(path: Path) -> list[ast.FunctionDef]:
    """Every function in a file, methods and nested ones included."""
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 40 and len(TESTS) > 10


def test_imports_point_one_way() -> None:
    wrong = []
    for path in SOURCES:
        allowed = ALLOWED[path.relative_to(ROOT).parts[0]] | ({"reports"} if COMMANDS in path.parents else set())
        wrong += [f"{shown(path)} imports {name}" for name in imports(path) & set(PACKAGES) - allowed]
    assert wrong == []


def test_reports_read_files_and_need_no_torch() -> None:
    allowed = REPORTS_MAY_USE | set(sys.stdlib_module_names)
    wrong = {shown(path): imports(path) - allowed for path in SOURCES if shown(path).startswith("reports/")}
    assert wrong and not any(wrong.values()), wrong


def test_heavy_libraries_load_inside_the_function_that_needs_them() -> None:
    wrong = []
    for path in SOURCES:
        allowed = {"lightning"} if path.parent == STAGES else set()
        wrong += [f"{shown(path)} imports {name}" for name in imports(path, top_level=True) & (HEAVY - allowed)]
    assert wrong == []


def test_the_command_line_imports_no_heavy_library() -> None:
    code = (
        "import sys, compress.cli, compress.recipe, compress.plan, compress.commands.run, compress.commands.recipes;"
        "from compress.recipe import discover; discover(); discover('recipes.sweeps', 'sweep');"
        "heavy = {'torch', 'lightning', 'diffusers', 'transformers', 'optuna', 'jsonargparse'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_top_level_folder_explains_itself() -> None:
    readmes = {name: ROOT / name / "README.md" for name in (*PACKAGES, "tests")}
    missing = [name for name, path in readmes.items() if not path.is_file() or len(path.read_text()) < 100]
    assert missing == []


def test_files_stay_readable() -> None:
    lines = {shown(path): len(path.read_text().splitlines()) for path in [*SOURCES, *TESTS]}
    for name, count in lines.items():
        if WARN_LINES < count <= FAIL_LINES:
            warnings.warn(f"{name} has {count} lines: think again above {WARN_LINES}", stacklevel=1)
    too_long = {name: count for name, count in lines.items() if count > FAIL_LINES}
    assert too_long == {}, "split them by what changes together"


def test_functions_fit_on_a_screen() -> None:
    too_long = []
    for path in SOURCES:
        for node in functions(path):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            too_long += [f"{shown(path)}: {node.name} has {lines} lines"] if lines > FUNCTION_LINES else []
    assert too_long == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [shown(path) for path in SOURCES if path.read_text().strip() and not ast.get_docstring(tree_of(path))]
    assert silent == []


def test_every_test_can_fail() -> None:
    silent = []
    for path in TESTS:
        helpers = {node.name for node in functions(path) if asserts(node, set())}
        tests = [node for node in functions(path) if node.name.startswith("test_")]
        silent += [] if tests else [f"{shown(path)} has no tests"]
        silent += [f"{shown(path)}: {test.name}" for test in tests if not asserts(test, helpers)]
    assert silent == []


def asserts(function: ast.FunctionDef, helpers: set[str]) -> bool:
    """Whether a test can fail by its own words: an assert, an expected error, or a helper that asserts."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in helpers or name.startswith("assert_") or name in ("raises", "warns"):
                return True
    return False


def test_nothing_is_unpickled() -> None:
    wrong = []
    for path in [*SOURCES, *TESTS]:
        wrong += [f"{shown(path)} imports pickle"] if "pickle" in imports(path) else []
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = any(keyword.arg == "weights_only" for keyword in node.keywords)
                wrong += [] if safe else [f"{shown(path)}:{node.lineno} loads without weights_only"]
    assert wrong == []


def test_every_recipe_builds_is_sound_and_says_what_to_expect() -> None:
    recipes = discover()
    assert {"teacher_scenes", "scenes", "scenes_fast", "scenes_full"} <= set(recipes)
    for name, module in recipes.items():
        recipe = module.recipe()
        assert isinstance(recipe, Recipe) and recipe == module.recipe(), f"{name} is not a value"
        assert recipe.name == name and recipe.problems() == []
        for heading in HEADINGS:
            assert f"\n{heading}\n" in (module.__doc__ or ""), f"{name}: its docstring lacks {heading}"
        json.dumps(recipe.resolved(), allow_nan=False)


def test_every_sweep_builds_and_says_what_to_expect() -> None:
    sweeps = discover("recipes.sweeps", "sweep")
    assert "scenes_ratio" in sweeps
    for name, module in sweeps.items():
        sweep = module.sweep()
        assert isinstance(sweep, Sweep) and sweep.name == name and sweep.objectives
        for heading in HEADINGS:
            assert f"\n{heading}\n" in (module.__doc__ or ""), f"{name}: its docstring lacks {heading}"


def test_shipped_cards_name_no_place_on_the_machine_that_made_them() -> None:
    cards = [*ROOT.glob("teachers/weights/**/card.json"), *ROOT.glob("students/weights/**/card.json")]
    configs = [path for card in cards for path in card.parent.rglob("*.json")]
    private = ("/home/", "/root/", "/tmp/", "/work/")
    found = [shown(path) for path in configs if any(word in path.read_text() for word in private)]
    assert found == []
