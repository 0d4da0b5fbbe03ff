"""Steps: finding the function that a recipe names, its parameters, and values of the right kind for them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, is_dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import ArrayLike

from firstlight.errors import FirstlightError, RecipeError
from firstlight.frame import Frame
from firstlight.noise import Detector

__all__ = ["Parameter", "convert", "file_kind", "near", "parameters", "resolve", "steps", "takes_many"]

Step = Callable[..., Frame]
ROOMS = ("calibrate", "restore", "scaling")
_DOTTED = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+")
_ARRAY_LIKE = frozenset(get_args(ArrayLike))


@dataclass(frozen=True)
class Parameter:
    """One keyword of a step: `default` is dataclasses.MISSING where it must be given; `kind` and `doc` are for people."""

    name: str
    annotation: Any
    default: Any
    kind: str
    doc: str

    @property
    def required(self) -> bool:
        """True where the step has no default for it."""
        return self.default is MISSING


@lru_cache(maxsize=1)
def steps() -> tuple[str, ...]:
    """Every public step of firstlight, as recipes name them: "calibrate.subtract_offset"."""
    found = []
    for room in ROOMS:
        module = import_module(f"firstlight.{room}")
        found += [f"{room}.{name}" for name in module.__all__ if _fault(getattr(module, name)) is None]
    return tuple(sorted(found))


def resolve(use: str) -> Step:
    """The function that `use` names: of firstlight ("calibrate.subtract_offset"), else by its full dotted path.

    Raises RecipeError where there is none, or where it is no step: its first parameter must be a Frame.
    """
    function = _imported(f"firstlight.{use}") or (_imported(use) if _DOTTED.fullmatch(use) else None)
    if function is None:
        raise RecipeError(f"unknown step {use!r}{near(use, steps())}")
    fault = _fault(function)
    if fault is not None:
        raise RecipeError(f"{use!r} is no step: {fault}, expected a function whose first parameter is a Frame")
    return function  # type: ignore[no-any-return]


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    if not _DOTTED.fullmatch(path):
        return None
    try:
        return getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            return None
        raise RecipeError(f"step {path!r} needs the package {error.name!r}, which is not installed; install it") from error


def _fault(function: Any) -> str | None:
    if not inspect.isroutine(function):
        return f"it is a {type(function).__name__}"
    try:
        given = list(inspect.signature(function).parameters)
        hints = get_type_hints(function)
    except (NameError, TypeError, ValueError) as error:
        return f"its signature cannot be read ({error})"
    if not given:
        return "it takes no parameters"
    if hints.get(given[0]) is not Frame:
        return f"its first parameter is {given[0]!r}"
    return None if hints.get("return") is Frame else "it does not say that it returns a Frame"


def parameters(step: str | Step) -> tuple[Parameter, ...]:
    """A step's keywords in the order of its signature; raises RecipeError as `resolve` does."""
    function = resolve(step) if isinstance(step, str) else step
    hints = get_type_hints(function)
    given = list(inspect.signature(function).parameters.values())[1:]
    return tuple(
        Parameter(
            p.name,
            hints.get(p.name, Any),
            MISSING if p.default is inspect.Parameter.empty else p.default,
            kind(hints.get(p.name, Any)),
            _sentence(function, p.name),
        )
        for p in given
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    )


def _sentence(function: Step, name: str) -> str:
    text = " ".join((inspect.getdoc(function) or "").split())
    return next((s for s in re.split(r"(?<=[.;])\s+", text) if re.search(rf"\b{re.escape(name)}\b", s)), "")


def near(got: str, known: Any) -> str:
    """ "; did you mean 'x'?" for the closest of `known`, by whole name, else by its last part, else the list."""
    known = list(known)
    last = {k.rpartition(".")[2]: k for k in known}
    close = get_close_matches(got, known, 1) or [last[k] for k in get_close_matches(got.rpartition(".")[2], last, 1)]
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of: {', '.join(known) or 'none'}"


def _options(annotation: Any) -> tuple[Any, ...]:
    union = get_origin(annotation) in (Union, UnionType)
    return tuple(a for a in get_args(annotation) if a is not type(None)) if union else (annotation,)


def file_kind(annotation: Any) -> type[Frame] | type[Detector] | None:
    """Frame or Detector where the parameter takes one: its value in a recipe names a file or an input."""
    options = _options(annotation)
    if Frame in options or takes_many(annotation):
        return Frame
    return Detector if Detector in options else None


def takes_many(annotation: Any) -> bool:
    """True where the parameter takes a sequence of frames."""
    return any(get_origin(o) is Sequence and get_args(o) == (Frame,) for o in _options(annotation))


def _takes_array(annotation: Any) -> bool:
    options = _options(annotation)
    return any(get_origin(o) is np.ndarray for o in options) or set(options) >= _ARRAY_LIKE


_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", Frame: "a frame's file or name"}


def kind(annotation: Any) -> str:
    """What a parameter takes, in words."""
    if _takes_array(annotation):
        return "a number or a list of numbers"
    if takes_many(annotation):
        return "a frame's file or name, or a list of them"
    words = [
        f"one of {', '.join(map(repr, get_args(o)))}"
        if get_origin(o) is Literal
        else _WORDS.get(o, "a table or a file" if is_dataclass(o) else re.sub(r"\b\w+\.", "", inspect.formatannotation(o)))
        for o in _options(annotation)
    ]
    return " or ".join(dict.fromkeys(words))


def convert(parameter: Parameter, value: Any) -> Any:
    """A recipe's value as the parameter's type: strict, no number from text; raises RecipeError with got and expected."""
    wrong = RecipeError(f"{parameter.name} is {_shown(value)}, expected {parameter.kind}")
    if _takes_array(parameter.annotation):
        return _array(value, wrong)
    tables = [o for o in _options(parameter.annotation) if is_dataclass(o) and o is not Frame]
    if tables and isinstance(value, Mapping):
        return _built(tables[0], value, parameter.name)
    return _strict(parameter.annotation, value, wrong)


def _array(value: Any, wrong: RecipeError) -> Any:
    try:
        array = np.asarray(value)
    except ValueError:
        raise wrong from None
    if array.dtype.kind not in "fiu" or array.size == 0:
        raise wrong
    return float(array) if array.ndim == 0 else array.astype(np.float64)


def _built(table: Any, value: Mapping[str, Any], name: str) -> Any:
    try:
        return table.from_dict(value) if hasattr(table, "from_dict") else table(**value)
    except (FirstlightError, TypeError, ValueError) as error:
        raise RecipeError(f"{name}: {error}") from error


def _strict(annotation: Any, value: Any, wrong: RecipeError) -> Any:
    from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

    try:
        adapter = TypeAdapter(annotation)
        # as JSON, so that a list may become a tuple while "3" never becomes 3
        return adapter.validate_json(json.dumps(value), strict=True)
    except PydanticUserError:  # a class holds its own configuration
        return TypeAdapter(annotation).validate_python(value, strict=True)
    except PydanticSchemaGenerationError:
        loose: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        try:
            return loose.validate_python(value, strict=True)
        except ValidationError:
            raise wrong from None
    except (ValidationError, TypeError):
        raise wrong from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
