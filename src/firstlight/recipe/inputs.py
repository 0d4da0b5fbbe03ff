"""What a recipe names but does not hold: frames and detectors from files, from the light's own file, or from the caller."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import domains, io
from firstlight.errors import FirstlightError, RecipeError
from firstlight.frame import Frame, Unit
from firstlight.noise import Detector, Noise
from firstlight.recipe.step import Parameter, takes_many

__all__ = ["Inputs", "Place", "find_detector", "find_frames"]

Inputs = Mapping[str, Any]  # a Frame, a Detector, a path, or a list of frames or paths


@dataclass(frozen=True)
class Place:
    """Where inputs are looked for: the recipe's folder, the caller's inputs by name, and the light frame (None: a check).

    `bias`: what the step at hand names as its bias, for the offset of a header that states a gain and no offset.
    """

    folder: Path
    inputs: Inputs
    frame: Frame | None
    bias: Any = None


@dataclass(frozen=True)
class Found:
    """A value ready for a step, how a recipe names it so that it is found again, and the files behind it."""

    value: Any
    written: Any
    files: tuple[Path, ...] = ()


def find_frames(parameter: Parameter, value: Any, place: Place) -> Found:
    """The frame, or the list of frames where the parameter takes several; raises RecipeError where one is not there."""
    value = _given(value, place)
    many = isinstance(value, Sequence) and not isinstance(value, str)
    if many and not takes_many(parameter.annotation):
        raise RecipeError(f"{parameter.name}: {len(value)} frames, expected one; average them with calibrate.master first")
    found = [_frame(parameter, v, place) for v in (value if many else [value])]
    files = tuple(dict.fromkeys(f for one in found for f in one.files))
    frames = [one.value for one in found]
    if not many and takes_many(parameter.annotation) and frames[0] is not None:
        frames = _planes(frames[0])
    single = len(frames) == 1
    return Found(frames[0] if single else frames, [f.written for f in found] if many else found[0].written, files)


def _given(value: Any, place: Place) -> Any:
    """What the caller gives under that name; else the value itself."""
    return place.inputs.get(value, value) if isinstance(value, str) else value


def _path(value: str | Path, place: Place) -> Path:
    """A file beside the recipe, else in the working folder, where flags and inputs mean it."""
    beside = place.folder / value
    return Path(value) if not beside.exists() and Path(value).exists() else beside


def _frame(parameter: Parameter, value: Any, place: Place) -> Found:
    if isinstance(value, Frame):
        source = file_of(value)
        return Found(value, str(source) if source is not None else parameter.name, () if source is None else (source,))
    if not isinstance(value, str | Path):
        raise RecipeError(f"{parameter.name} is {value!r}, expected {parameter.kind}")
    path = _path(value, place)
    if path.exists():
        return Found(io.read(path), str(path), (path,))
    bare = path.suffix == "" and Path(value).name == str(value)
    if bare and place.frame is None:
        return Found(None, str(value))
    return _sibling(parameter, str(value), path, place.frame if bare else None)


def _sibling(parameter: Parameter, value: str, path: Path, frame: Frame | None) -> Found:
    missing = f"{parameter.name}: no input named {value!r}, no file {path}"
    source = None if frame is None else file_of(frame)
    if source is None:
        raise RecipeError(f"{missing}; give one of them")
    siblings = io.read_set(source)
    if value not in siblings:
        raise RecipeError(f"{missing}, and {source.name} holds {', '.join(siblings)}; give one of them")
    return Found(siblings[value], value, (source,))


def _planes(frame: Frame) -> list[Frame]:
    """A stack of exposures (TYX, AYX) as its exposures (YX); another frame as it is."""
    if frame.axes not in ("TYX", "AYX"):
        return [frame]

    def part(plane: Any, i: int) -> Any:
        if isinstance(plane, float) or plane is None or len(plane.shape) < 3:
            return plane
        return plane[0 if plane.shape[0] == 1 else i]

    def one(i: int) -> Frame:
        noise = frame.noise
        if isinstance(noise, Noise):
            noise = replace(noise, **{k: part(getattr(noise, k), i) for k in ("a", "b", "offset", "c", "d")})
        std, flags = part(frame.std, i), part(frame.flags, i)
        return frame.replace(data=frame.data[i], axes="YX", noise=noise, std=std, flags=flags, geometry=None)

    return [one(i) for i in range(frame.shape[0])]


def find_detector(parameter: Parameter, value: Any, place: Place) -> Found:
    """A Detector from a table, a JSON file, the caller's inputs, or, for "camera", from what the frame itself tells."""
    value = _given(value, place)
    if isinstance(value, Detector):
        return Found(value, value.to_dict())
    if isinstance(value, Mapping):
        return Found(_row(value) if "camera" in value else Detector.from_dict(value), dict(value))
    if value == "camera":
        own = None if place.frame is None else _own_detector(parameter, place.frame, place)
        plain = own is not None and not any(isinstance(v, np.ndarray) for v in vars(own).values())
        return Found(own, own.to_dict() if own is not None and plain else "camera")
    if not isinstance(value, str | Path):
        raise RecipeError(f"{parameter.name} is {value!r}, expected {parameter.kind}")
    path = _path(value, place)
    if not path.exists():
        raise RecipeError(f"{parameter.name}: no input named {str(value)!r}, no file {path}; give one of them")
    return Found(_read_detector(path), str(path), (path,))


def _row(value: Mapping[str, Any]) -> Detector:
    try:
        return domains.detector(**value)
    except TypeError as error:
        raise RecipeError(f"detector: {error}; expected camera, setting, profile, read_noise, offset") from error


def _own_detector(parameter: Parameter, frame: Frame, place: Place) -> Detector:
    """The detector that the frame itself tells: by its noise, by its header, by the table's row of its camera."""
    frame.need("detector = 'camera'", Unit.ADU)
    seen, facts = frame.observation, io.stated(frame)
    if isinstance(frame.noise, Noise):
        if not np.all(np.asarray(frame.noise.a) > 0):
            raise RecipeError(
                "detector = 'camera': the frame's noise model has no shot noise, so no gain; give a file or a table"
            )
        gain = 1 / frame.noise.a
        return Detector(
            gain, np.sqrt(frame.noise.b) * gain, frame.noise.offset, seen.saturation, source="the frame's own noise"
        )
    offset = seen.offset if seen.offset is not None else facts.get("offset")
    if {"gain", "read_noise"} <= set(facts):
        if np.ndim(facts["gain"]) or np.ndim(facts["read_noise"]):
            raise RecipeError("detector = 'camera': the header states several amplifiers; crop to one and give its detector")
        source = "header" if offset is not None else "header, offset from the bias"
        offset = _bias_level(parameter, place) if offset is None else offset
        return Detector(facts["gain"], facts["read_noise"], offset, facts.get("saturation"), source=source)
    if seen.instrument is None:
        raise RecipeError(f"detector = 'camera': {frame.noise.reason}, and the file names no camera; give a file or a table")
    return domains.detector(seen.instrument, seen.setting, offset=offset)


def _bias_level(parameter: Parameter, place: Place) -> float:
    if place.bias is None:
        raise RecipeError("detector = 'camera': the header states no offset; give a bias, or a detector's file or table")
    found = find_frames(replace(parameter, name="bias", annotation=Frame | Sequence[Frame]), place.bias, place).value
    return float(np.median(np.asarray((found[0] if isinstance(found, list) else found).data)))


def _read_detector(path: Path) -> Detector:
    try:
        return Detector.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FirstlightError as error:
        raise RecipeError(f"{path}: {error}") from error
    except (OSError, ValueError, TypeError) as error:
        raise RecipeError(f"{path}: is no detector file ({error}); expected JSON with gain and read_noise") from error


def file_of(frame: Frame) -> Path | None:
    """The file that a frame came from, where it is still there."""
    source = frame.observation.source
    return Path(source) if source is not None and Path(source).exists() else None
