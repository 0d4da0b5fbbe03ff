"""Recipes as TOML: reading, with every fault of the form at once, and writing."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from firstlight.errors import RecipeError
from firstlight.recipe.step import near

__all__ = ["Recipe", "Step", "dumps", "flag", "load", "shipped", "source"]

RESERVED = ("use", "inputs", "also")
WIDTH = 100  # columns; longer lists stand one value a line


@dataclass(frozen=True)
class Step:
    """One line of a recipe: the step's name, its parameters, and sha256 of input files by parameter, to be checked.

    also: names of inputs of later steps (white, dark) that go through this step before they are used.
    """

    use: str
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("params", "inputs"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


@dataclass(frozen=True)
class Recipe:
    """Steps in order, the domain and preset whose rows give defaults, and where relative paths start.

    The preset is a published pipeline's constants by name (`firstlight.domains.presets`). reconstruction: the table of that
    name, the last step and how to run all of them on a scan, see recipe/reconstruction.py.
    """

    steps: tuple[Step, ...]
    domain: str | None = None
    preset: str | None = None
    name: str = field(default="recipe", compare=False)
    folder: Path = field(default=Path(), compare=False)
    reconstruction: Mapping[str, Any] | None = None


def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with firstlight."""
    folder = files("firstlight.domains") / "recipes"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def load(path_or_text: str | Path) -> Recipe:
    """A recipe from a TOML file, from TOML text (more than one line), or by the name of a shipped one.

    Raises RecipeError listing every unknown key and missing entry; steps and parameters are `check`'s matter.
    """
    text, name, folder = source(path_or_text)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name}: not valid TOML: {error}") from error
    faults = _faults(tree)
    if faults:
        raise RecipeError("\n".join(f"{name}: {fault}" for fault in faults))
    lines = tuple(
        Step(s["use"], {k: v for k, v in s.items() if k not in RESERVED}, s.get("inputs", {}), tuple(s.get("also", ())))
        for s in tree.get("step", ())
    )
    return Recipe(lines, tree.get("domain"), tree.get("preset"), name, folder, tree.get("reconstruction"))


def source(path_or_text: str | Path) -> tuple[str, str, Path]:
    """The text of a recipe, its name and its folder, as `load` finds it; raises RecipeError where there is none."""
    if isinstance(path_or_text, str) and "\n" in path_or_text:
        return path_or_text, "recipe", Path()
    path = Path(path_or_text)
    if str(path_or_text) in shipped():
        resource = files("firstlight.domains") / "recipes" / f"{path_or_text}.toml"
        return resource.read_text(encoding="utf-8"), str(path_or_text), Path()
    if path.suffix != ".toml" and not path.is_file():
        raise RecipeError(f"unknown recipe {str(path_or_text)!r}{near(str(path_or_text), shipped())} (or give a .toml file)")
    try:
        return path.read_text(encoding="utf-8"), path.name, path.parent
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "not UTF-8 text"
        raise RecipeError(f"{path}: cannot be read ({cause})") from error


def _faults(tree: Mapping[str, Any]) -> list[str]:
    """Everything wrong with the form of a recipe, one line each."""
    from pydantic import BaseModel, ConfigDict, Field, ValidationError

    bare = "reconstruction" in tree  # the table alone will do

    class Line(BaseModel):
        model_config = ConfigDict(extra="allow", strict=True)
        use: str
        inputs: dict[str, str] = {}
        also: list[str] = []

    class File(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        domain: str | None = None
        preset: str | None = None
        reconstruction: dict[str, Any] | None = None
        step: list[Line] = Field([] if bare else ..., min_length=0 if bare else 1)

    try:
        File.model_validate(tree)
    except ValidationError as error:
        return [_fault(e) for e in error.errors()]
    return []


def _fault(error: Any) -> str:
    loc = error["loc"]
    where = f"step {loc[1] + 1}: " if len(loc) > 1 and loc[0] == "step" else ""
    key = loc[-1] if not where or len(loc) > 2 else "step"
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}{near(str(key), ('domain', 'preset', 'step', 'reconstruction'))}"
    if error["type"] in ("missing", "too_short") and key == "step":
        return 'holds no step; begin one with a line [[step]] and give it use = "..."'
    if error["type"] == "missing":
        return f'{where}{key!r} is missing; give it use = "calibrate.subtract_offset" or another step'
    expected = (
        "a table [reconstruction]"
        if key == "reconstruction"
        else "a list of names"
        if "also" in loc
        else "tables [[step]]"
        if key == "step"
        else "a table of sha256 texts by parameter"
        if "inputs" in loc
        else "text"
    )
    return f"{where}{key!r} is {error['input']!r}, expected {expected}"


def flag(text: str) -> tuple[str, Any]:
    """An override from a command line: "2.strength=1.5" gives ("2.strength", 1.5); what is no TOML value is text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"flag {text!r}, expected STEP.PARAMETER=VALUE such as 2.strength=1.5")
    try:
        return key.strip(), tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def dumps(recipe: Recipe, comments: Sequence[Sequence[str]] = ()) -> str:
    """The TOML text of a recipe; `comments`: lines to stand above the first step and above each of the next."""
    head = [f"{k} = {_value(v)}" for k in ("domain", "preset") if (v := getattr(recipe, k)) is not None]
    blocks = ["\n".join(head)] if head else []
    for i, step in enumerate(recipe.steps):
        lines = [f"# {' '.join(c.split())}" for c in (comments[i] if i < len(comments) else ())]
        lines += ["[[step]]", f"use = {_value(step.use)}", *([f"also = {_value(step.also)}"] if step.also else [])]
        lines += [f"{_key(k)} = {_wrapped(v)}" for k, v in step.params.items()]
        if step.inputs:
            lines += ["[step.inputs]", *(f"{_key(k)} = {_value(v)}" for k, v in step.inputs.items())]
        blocks.append("\n".join(lines))
    if recipe.reconstruction is not None:
        blocks.append("\n".join(["[reconstruction]", *(f"{_key(k)} = {_value(v)}" for k, v in recipe.reconstruction.items())]))
    return "\n\n".join(blocks) + "\n"


def _wrapped(value: Any) -> str:
    line = _value(value)
    if not isinstance(value, list | tuple) or len(line) <= WIDTH:
        return line
    return "\n".join(["[", *(f"  {_value(v)}," for v in value), "]"])


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return repr(value)  # inf and nan are TOML too
        case str():  # JSON's escapes are TOML's, but for DEL
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            pairs = ", ".join(f"{_key(str(k))} = {_value(v)}" for k, v in value.items() if v is not None)
            return f"{{ {pairs} }}" if pairs else "{}"
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
    raise RecipeError(f"a {type(value).__name__} cannot be written in a recipe; give a number, text, a list or a table")
