"""`pocketdiff recipes [RECIPE]`: what can be run, and every field that can be changed."""

from __future__ import annotations

import argparse
import inspect

from rich.table import Table

from compress.overrides import overridable, type_name
from compress.progress import make_console
from compress.recipe import discover, first_line, load_module


def main(options: argparse.Namespace) -> int:
    """Prints the list, or one recipe in full."""
    console = make_console()
    if options.recipe is None:
        table = Table("recipe", "stages", "what it shows", box=None, padding=(0, 2, 0, 0))
        for name, module in discover().items():
            table.add_row(name, str(len(module.recipe().stages)), first_line(module))
        console.print(table)
        return 0
    module = load_module(options.recipe)
    recipe = module.recipe()
    console.print(inspect.getdoc(module) or recipe.description, highlight=False, markup=False)
    table = Table("field", "value", "type", box=None, padding=(0, 2, 0, 0))
    for name, (kind, value) in overridable(recipe).items():
        table.add_row(f"--{name}", repr(value), type_name(kind))
    console.print(table)
    return 0
