"""Running a recipe on a frame: precedence, inputs, and every problem before the first step."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from firstlight import domains, io
from firstlight.box import Box
from firstlight.errors import FirstlightError, RecipeError
from firstlight.frame import Frame, Record
from firstlight.noise import Detector
from firstlight.recipe.inputs import Found, Inputs, Place, file_of, find_detector, find_frames
from firstlight.recipe.reconstruction import expanded
from firstlight.recipe.step import Parameter, convert, file_kind, near, parameters, resolve
from firstlight.recipe.text import Recipe, Step, dumps

__all__ = ["Call", "Problem", "bound", "check", "entered", "files_of", "raise_all", "resolved", "run"]

RUN = "recipe.run"
DRY_RUN = 64  # px, the side of the part that a check is tried on


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe: where, and what."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass(frozen=True)
class Call:
    """A step ready to run; `step` names its inputs so that they are found again, `files` are those that enter.

    before: by parameter, the calls that its frames go through first, as those steps' `also` says. whole: nothing is wrong
    with its parameters, so that it can be tried.
    """

    where: str
    function: Any
    values: Mapping[str, Any]
    step: Step
    files: tuple[Path, ...]
    before: Mapping[str, tuple[Call, ...]]
    whole: bool = True

    def ready(self) -> dict[str, Any]:
        """Its parameters, their frames having been through the calls before."""
        return {k: _through(v, self.before.get(k, ())) for k, v in self.values.items()}


def _through(value: Any, calls: Sequence[Call]) -> Any:
    if isinstance(value, list):
        return [_through(v, calls) for v in value]
    for call in calls:
        value = call.function(value, **call.values)
    return value


def check(
    recipe: Recipe, frame: Frame | None = None, *, inputs: Inputs | None = None, overrides: Mapping[str, Any] | None = None
) -> list[Problem]:
    """Every problem of a recipe at once; with a frame, also the first that a dry run on a 64 px part of it meets.

    inputs and overrides as in `run`. Without a frame, a name that may be a sibling of the light ("dark") is taken on trust.
    """
    calls, problems = bound(recipe, frame, inputs=inputs, overrides=overrides)
    return problems or ([] if frame is None else _dry_run(calls, frame))


def bound(
    recipe: Recipe, frame: Frame | None, *, inputs: Inputs | None = None, overrides: Mapping[str, Any] | None = None
) -> tuple[list[Call], list[Problem]]:
    """The recipe's steps with their parameters, and every problem of them; inputs and overrides as in `run`."""
    return _prepare(recipe, Place(recipe.folder, inputs or {}, frame), overrides or {})


def run(recipe: Recipe, frame: Frame, *, inputs: Inputs | None = None, overrides: Mapping[str, Any] | None = None) -> Frame:
    """The frame after every step; its history ends with a line that holds the resolved recipe and sha256 of the files.

    inputs: frames, detectors, paths, or lists of frames or paths, by the name that the recipe uses. overrides:
    {"2.strength": ...} or {"restore.nonlocal_means.strength": ...}. Precedence: signature < domain row < recipe <
    override. Raises RecipeError listing every problem before the first step runs, or naming the step that refuses the frame.
    """
    calls, problems = bound(recipe, frame, inputs=inputs, overrides=overrides)
    raise_all(problems)
    before = len(frame.history)
    files = files_of(frame, calls)
    for call in calls:
        try:
            frame = call.function(frame, **call.ready())
        except FirstlightError as error:
            raise RecipeError(f"{call.where}: {error}") from error
    return entered(frame, calls, before, {str(f): io.sha256(f) for f in files})


def entered(frame: Frame, calls: Sequence[Call], before: int, files: Mapping[str, str]) -> Frame:
    """The frame with the line of the run in its history: the resolved recipe for its lines from `before`, files by sha256."""
    text = dumps(Recipe(tuple(call.step for call in calls)))
    record = Record(RUN, {"recipe": text, "lines": len(frame.history) - before}, files)
    return frame.replace(history=(*frame.history, record))


def files_of(frame: Frame, calls: Sequence[Call]) -> list[Path]:
    """The files that enter and are not in the history yet, each once."""
    light = file_of(frame)
    known = {name for record in frame.history for name in record.inputs}
    own = [] if light is None or {light.name, str(light)} & known else [light]
    return list(dict.fromkeys([*own, *(f for call in calls for f in call.files)]))


def resolved(recipe: Recipe, *, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe with domain rows, preset and overrides written out; raises RecipeError listing what does not resolve."""
    recipe, steps, problems = _merge(recipe, overrides or {})
    raise_all(problems)
    return replace(recipe, steps=steps, domain=None, preset=None, reconstruction=None)


def raise_all(problems: Sequence[Problem]) -> None:
    """Raises RecipeError with every problem, where there are some."""
    if problems:
        raise RecipeError("\n".join(map(str, problems)))


def _merge(recipe: Recipe, overrides: Mapping[str, Any]) -> tuple[Recipe, tuple[Step, ...], list[Problem]]:
    recipe, faults = expanded(recipe)
    problems = [Problem(recipe.name, fault) for fault in faults]
    rows: Mapping[str, Mapping[str, Any]] = {}
    try:
        rows = domains.defaults(recipe.domain, recipe.preset)
    except FirstlightError as error:
        problems.append(Problem(recipe.name, str(error)))
    flags: list[dict[str, Any]] = [{} for _ in recipe.steps]
    for key, value in overrides.items():
        place, _, name = key.rpartition(".")
        found = [i for i, s in enumerate(recipe.steps) if place in (str(i + 1), s.use)]
        if len(found) == 1:
            flags[found[0]][name] = value
        else:
            problems.append(Problem(f"flag {key}", _which(recipe, place, name, found)))
    steps = tuple(replace(s, params={**rows.get(s.use, {}), **s.params, **f}) for s, f in zip(recipe.steps, flags, strict=True))
    return recipe, steps, problems


def _which(recipe: Recipe, place: str, name: str, found: Sequence[int]) -> str:
    if found:
        return f"{len(found)} steps are {place}; say which: {' or '.join(f'{i + 1}.{name}' for i in found)}"
    known = list(dict.fromkeys(s.use for s in recipe.steps))
    close = get_close_matches(place, known, 1)
    hint = (
        f"did you mean {close[0]!r}?" if close else f"expected {', '.join(known)}, or its number from 1 to {len(recipe.steps)}"
    )
    return f"names no step of {recipe.name}; {hint}"


def _prepare(recipe: Recipe, place: Place, overrides: Mapping[str, Any]) -> tuple[list[Call], list[Problem]]:
    recipe, steps, problems = _merge(recipe, overrides)
    calls: list[Call] = []
    for i, step in enumerate(steps):
        try:
            function = resolve(step.use)
            known = parameters(function)
        except FirstlightError as error:
            problems.append(Problem(f"{recipe.name}: step {i + 1}", str(error)))
            continue
        where = f"{recipe.name}: step {i + 1} ({step.use})"
        found, faults = _bind(step, known, place)
        problems += [Problem(where, fault) for fault in faults]
        written = replace(step, params={k: f.written for k, f in found.items()}, inputs={})
        files = tuple(path for f in found.values() for path in f.files)
        before = {
            k: done
            for k, v in step.params.items()
            if (done := tuple(c for c in calls if isinstance(v, str) and v in c.step.also))
        }
        calls.append(Call(where, function, {k: f.value for k, f in found.items()}, written, files, before, not faults))
    return calls, [*problems, *_unused(recipe.name, steps)]


def _unused(name: str, steps: Sequence[Step]) -> list[Problem]:
    """Names of `also` that no later step takes."""
    out = []
    for i, step in enumerate(steps):
        later = [v for s in steps[i + 1 :] for v in s.params.values() if isinstance(v, str)]
        out += [
            Problem(f"{name}: step {i + 1} ({step.use})", f"also {n!r}: no later step takes that input{near(n, later)}")
            for n in step.also
            if n not in later
        ]
    return out


def _bind(step: Step, known: Sequence[Parameter], place: Place) -> tuple[dict[str, Found], list[str]]:
    names = {p.name: p for p in known}
    faults = [f"unknown parameter {k!r}{near(k, names)}" for k in step.params if k not in names]
    faults += [f"parameter {p.name!r} is missing; give {p.kind}" for p in known if p.required and p.name not in step.params]
    place = replace(place, bias=step.params.get("bias"))
    out: dict[str, Found] = {}
    for name in (k for k in step.params if k in names):
        try:
            out[name] = _find(names[name], step.params[name], place)
            _verify(name, out[name], step.inputs)
        except FirstlightError as error:
            faults.append(str(error))
    return out, list(dict.fromkeys(faults))


def _find(parameter: Parameter, value: Any, place: Place) -> Found:
    kind = file_kind(parameter.annotation)
    if kind is Frame:
        return find_frames(parameter, value, place)
    if kind is Detector:
        return find_detector(parameter, value, place)
    return Found(convert(parameter, value), value)


def _verify(name: str, found: Found, expected: Mapping[str, str]) -> None:
    """Input files against the recipe's sha256: by path, or by parameter for the data of one frame."""
    got = {str(f): io.sha256(f) for f in found.files if str(f) in expected}
    if name in expected and isinstance(found.value, Frame):
        got[name] = found.value.digest()
    for key, digest in got.items():
        if digest != expected[key]:
            raise RecipeError(f"{key} has sha256 {digest[:12]}..., the recipe says {expected[key][:12]}...: not the same data")


def _dry_run(calls: Sequence[Call], frame: Frame) -> list[Problem]:
    shape = frame.shape[-2:]
    start = tuple(max(0, (n - DRY_RUN) // 2) // 12 * 12 for n in shape)  # a multiple of every CFA period
    box = Box(start, tuple(min(n, a + DRY_RUN) for n, a in zip(shape, start, strict=True)))

    def small(value: Any) -> Any:
        if isinstance(value, list):
            return [small(v) for v in value]
        return value.crop(box) if isinstance(value, Frame) and value.shape[-2:] == shape else value

    part = frame.crop(box)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in calls:
            try:
                values = {k: _through(small(v), call.before.get(k, ())) for k, v in call.values.items()}
                part = call.function(part, **values)
            except FirstlightError as error:
                return [Problem(call.where, str(error))]
    return []
