"""The history of a frame as a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstlight.errors import FirstlightError, RecipeError
from firstlight.frame import Frame, Record
from firstlight.noise import Detector
from firstlight.recipe.job import RUN
from firstlight.recipe.step import convert, file_kind, parameters
from firstlight.recipe.text import Recipe, Step, dumps, load

__all__ = ["from_history"]

READ = "io.read"  # a line of history that is no step: where the frame came from


def from_history(frame: Frame) -> str:
    """TOML text of the recipe that repeats the frame's history; what a step found by itself stands as a comment.

    Raises RecipeError listing the lines that no recipe can repeat: no step, or a map or frame that came from no file.
    """
    lines: list[tuple[Step, list[str]] | str] = []
    read = [f"read {name}, sha256 {digest}" for r in frame.history if r.step == READ for name, digest in r.inputs.items()]
    for record in frame.history:
        if record.step == READ:
            continue
        if record.step == RUN:
            kept = len(lines) - int(record.params["lines"])
            lines = [*lines[: max(0, kept)], *_ran(record)]
            continue
        try:
            lines.append(_line(record))
        except FirstlightError as error:
            lines.append(f"{record.step}: {error}")
    problems = [f"history line {i + 1}, {line}" for i, line in enumerate(lines) if isinstance(line, str)]
    if problems or not lines:
        raise RecipeError("\n".join(problems) or "the frame has no history: nothing to repeat")
    good = [line for line in lines if not isinstance(line, str)]
    return dumps(Recipe(tuple(step for step, _ in good)), [[*read, *good[0][1]], *(notes for _, notes in good[1:])])


def _ran(record: Record) -> list[tuple[Step, list[str]]]:
    """The steps of a recipe that was run, each with the sha256 of the files that it names."""
    steps = load(record.params["recipe"]).steps
    named = {str(v) for s in steps for value in s.params.values() for v in (value if isinstance(value, list) else [value])}
    notes = [f"run on {path}, sha256 {digest}" for path, digest in record.inputs.items() if path not in named]

    def own(step: Step) -> dict[str, str]:
        values = [v for value in step.params.values() for v in (value if isinstance(value, list) else [value])]
        return {str(v): record.inputs[v] for v in values if isinstance(v, str) and v in record.inputs}

    return [(Step(s.use, s.params, own(s), s.also), notes if i == 0 else []) for i, s in enumerate(steps)]


def _line(record: Record) -> tuple[Step, list[str]]:
    known = {p.name: p for p in parameters(record.step)}
    params = {k: v for k, v in record.params.items() if k in known and v is not None}
    missing = [name for name, p in known.items() if p.required and name not in params]
    if missing:
        raise RecipeError(f"the line does not say what {' and '.join(missing)} were; run the step from a recipe, which does")
    for name, value in params.items():
        _repeatable(known[name], value)
    notes = [f"found: {k} = {v}" for k, v in record.params.items() if k not in known]
    return Step(record.step, params, {k: v for k, v in record.inputs.items() if k in params}), notes


def _repeatable(parameter: Any, value: Any) -> None:
    kind = file_kind(parameter.annotation)
    if kind is Frame and not (isinstance(value, str) and not value.startswith("frame of shape")):
        raise RecipeError(f"{parameter.name} was a {value} that came from no file; write it to one and calibrate from there")
    if kind is Detector and isinstance(value, Mapping):
        Detector.from_dict(value)
    elif kind is None:
        convert(parameter, value)
