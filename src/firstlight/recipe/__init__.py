"""Recipes: linear lists of steps in TOML. Load, check, run; the history of every output is one.

    domain = "astronomy"
    [[step]]
    use = "calibrate.subtract_offset"
    [[step]]
    use = "restore.nonlocal_means"
    strength = 1.0

`use` is the import path of a function whose first parameter is a Frame, inside firstlight or by its full dotted path; the
other keys are its parameters. A Frame parameter takes a file (beside the recipe, else in the working folder), the name of an
input, the name of another frame in the light's file, or a list where it takes several; a Detector parameter takes a JSON
file, a table, or "camera" for what the frame itself tells: its noise, its header, the table's row of its camera.

`also = ["white", "dark"]` sends these inputs of later steps through a step too. A table [reconstruction] stands for the last
step of a scan's recipe, and says how to run it (firstlight/recipe/reconstruction.py).
"""

from __future__ import annotations

from firstlight.recipe.job import Call, Problem, bound, check, entered, files_of, raise_all, resolved, run
from firstlight.recipe.past import from_history
from firstlight.recipe.reconstruction import Options, options
from firstlight.recipe.step import Parameter, parameters, steps
from firstlight.recipe.text import Recipe, Step, dumps, flag, load, shipped, source

__all__ = [
    "Call",
    "Options",
    "Parameter",
    "Problem",
    "Recipe",
    "Step",
    "bound",
    "check",
    "dumps",
    "entered",
    "files_of",
    "flag",
    "from_history",
    "load",
    "options",
    "parameters",
    "raise_all",
    "resolved",
    "run",
    "shipped",
    "source",
    "steps",
]
