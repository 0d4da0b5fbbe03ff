"""Images and their patches as CSV: images.csv, patches.csv, patches_splits.csv and splits.json, read and written.

Paths in a CSV are relative to its own folder, or absolute where the two share nothing but the root of the file system. Readers
give them absolute. Columns beyond the known ones are left alone.
"""

from __future__ import annotations

import csv
import io as memory
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from firstlight.atomic import write_text
from firstlight.dataset.listing import SPLITS
from firstlight.dataset.store import load_tile
from firstlight.errors import FirstlightError, FrameError, ReadError
from firstlight.frame import Frame, Unit
from firstlight.noise import Noise, Unmodelled
from firstlight.scaling import Scaling

__all__ = [
    "Image",
    "Patch",
    "load_patch",
    "patch_frame",
    "patch_values",
    "read_images",
    "read_patches",
    "read_splits",
    "scalings",
    "write_images",
    "write_patches",
    "write_splits",
]

Array = NDArray[Any]
CLIPPED = "the patches were clipped to percentiles: noise is cut off at both ends"
NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Image:
    """A line of images.csv. id: the first 12 hexadecimal digits of sha1. telescope, band: "" where unknown. mtime: ISO, UTC."""

    id: str
    sha1: str
    path: str
    filename: str
    fmt: str
    mode: str
    width: int
    height: int
    channels: int
    telescope: str
    band: str
    bytes: int
    mtime: str


@dataclass(frozen=True)
class Patch:
    """A line of patches.csv: the rectangle (y, x, height, width) of its parent, whose values are (x + offset) / scale.

    path: a .npy file, (height, width) or (channels, height, width). scaling: JSON, an object for all channels or a list of one
    each: {"scale", "offset"} in the parent's unit, "clip" [low, high] where scaled values were clipped, "low" and "high" the
    percentiles. noise: JSON of the parent's values, {"a", "b", "offset"} or {"unmodelled": reason}. valid: its finite share.
    """

    patch_id: str
    parent_id: str
    parent_path: str
    path: str
    y: int
    x: int
    height: int
    width: int
    channels: int
    dtype: str
    scaling: str
    parent_height: int
    parent_width: int
    parent_dtype: str = ""
    unit: str = ""
    noise: str = ""
    valid: float = 1.0
    split: str = ""


Row = TypeVar("Row", Image, Patch)
_KINDS: dict[str, Any] = {"int": int, "float": float, "str": str}


def read_images(path: str | Path) -> list[Image]:
    """The lines of images.csv. Raises ReadError with the column or line that is none."""
    return _read(Path(path), Image, ("path",))


def read_patches(path: str | Path) -> list[Patch]:
    """The lines of patches.csv or patches_splits.csv; split is train, validation, test, or "". Raises ReadError."""
    return [_named(p) for p in _read(Path(path), Patch, ("path", "parent_path"))]


def _named(patch: Patch) -> Patch:
    split = SPLITS.get(patch.split.lower(), patch.split)
    return patch if split == patch.split else Patch(**{**vars(patch), "split": split})


def _read(path: Path, kind: type[Row], paths: Sequence[str]) -> list[Row]:
    try:
        table = csv.DictReader(memory.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        lines = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); expected CSV") from error
    needed = [f.name for f in fields(kind) if f.default is MISSING]
    if missing := [n for n in needed if n not in (table.fieldnames or ())]:
        raise ReadError(f"{path}: has no column {', '.join(missing)}; expected {', '.join(needed)}")
    return [_row(path, number, line, kind, paths) for number, line in enumerate(lines, 2)]


def _row(path: Path, number: int, line: Mapping[str, Any], kind: type[Row], paths: Sequence[str]) -> Row:
    found: dict[str, Any] = {}
    for f in fields(kind):
        text = line.get(f.name)
        if f.name not in line and f.default is not MISSING:
            continue
        try:
            if text is None:
                raise ValueError
            found[f.name] = _KINDS[str(f.type)](text)
        except ValueError:
            raise ReadError(f"{path}, line {number}: {f.name} is {text!r}, expected {_EXPECTED[str(f.type)]}") from None
    return kind(**found | {n: _absolute(path, found[n]) for n in paths})


_EXPECTED = {"int": "a whole number", "float": "a number", "str": "a text"}


def _absolute(csv_file: Path, text: str) -> str:
    return os.path.normpath(csv_file.absolute().parent / text)


def _relative(csv_file: Path, text: str) -> str:
    base, path = str(csv_file.absolute().parent), str(Path(text).absolute())
    shared = os.path.commonpath([base, path]) != Path(path).anchor
    return Path(os.path.relpath(path, base) if shared else path).as_posix()


def write_images(path: str | Path, images: Iterable[Image]) -> Path:
    """Write images.csv, whole or not at all; returns its path. Raises WriteError."""
    return _write(Path(path), Image, images, ("path",))


def write_patches(path: str | Path, patches: Iterable[Patch], *, split: bool = False) -> Path:
    """Write patches.csv, with `split` patches_splits.csv, whole or not at all; returns its path. Raises WriteError."""
    return _write(Path(path), Patch, patches, ("path", "parent_path"), () if split else ("split",))


def _write(path: Path, kind: type[Any], rows: Iterable[Any], paths: Sequence[str], without: Sequence[str] = ()) -> Path:
    text = memory.StringIO()
    names = [f.name for f in fields(kind) if f.name not in without]
    table = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow(asdict(row) | {n: _relative(path, getattr(row, n)) for n in paths})
    return write_text(path, text.getvalue())


def read_splits(path: str | Path) -> dict[str, list[str]]:
    """{"train" | "validation" | "test": [parent id, ...]} of splits.json. Raises ReadError for anything else."""
    path = Path(path)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReadError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); expected JSON") from error
    found = {SPLITS.get(str(k).lower(), k): v for k, v in tree.items()} if isinstance(tree, dict) else {}
    lists = {k: found.get(k, []) for k in NAMES}
    if not any(k in found for k in NAMES) or not all(
        isinstance(v, list) and all(isinstance(x, str) for x in v) for v in lists.values()
    ):
        raise ReadError(f'{path}: expected {{"train": [id, ...], "validation": [...], "test": [...]}}')
    return lists


def write_splits(path: str | Path, splits: Mapping[str, Sequence[str]], rule: Mapping[str, Any]) -> Path:
    """Write splits.json: the ids of each split, and under "rule" how they were drawn. Raises WriteError."""
    return write_text(Path(path), json.dumps({**{k: list(v) for k, v in splits.items()}, "rule": dict(rule)}, indent=1) + "\n")


def scalings(patch: Patch) -> tuple[list[Scaling], bool]:
    """A patch's scalings, one for all channels or one each, and whether values were clipped. Raises ReadError."""
    try:
        tree = json.loads(patch.scaling)
        many = tree if isinstance(tree, list) else [tree]
        found = [Scaling(float(s["scale"]), float(s["offset"])) for s in many]
        if len(found) not in (1, patch.channels) or not all(np.isfinite([s.scale, s.offset]).all() for s in found):
            raise ValueError(f"{len(found)} scalings for {patch.channels} channels")
    except (ValueError, KeyError, TypeError, FirstlightError) as error:
        raise ReadError(
            f'{patch.path}: scaling {patch.scaling!r} is none ({error}); expected {{"scale": positive, "offset": number}}'
        ) from None
    return found, any(s.get("clip") is not None for s in many)


def patch_values(patch: Patch) -> Array:
    """The parent's values [its unit] of a patch, (Y, X) or (C, Y, X): its scaling undone, whole numbers as whole numbers again.

    Values that were clipped come back as the clipping left them, float32. Raises ReadError for a file that is absent, damaged,
    or of another shape or type than the row says.
    """
    return _unscaled(patch, load_patch(patch))


def load_patch(patch: Patch) -> Array:
    """The scaled values of a patch as they lie in its file; raises ReadError as `patch_values` does."""
    data = load_tile(patch.path)
    here = (patch.height, patch.width)
    expected = [(patch.channels, *here)] + ([here] if patch.channels == 1 else [])
    if data.shape not in expected or str(data.dtype) != patch.dtype:
        raise ReadError(
            f"{patch.path}: holds {data.dtype} {data.shape}, its row says {patch.dtype} {expected[-1]}; cut the patches again"
        )
    return data


def _unscaled(patch: Patch, data: Array) -> Array:
    rules, clipped = scalings(patch)
    if len(rules) == 1:
        values = rules[0].invert(data)
    else:
        values = np.stack([rule.invert(plane) for rule, plane in zip(rules, data, strict=True)])
    if clipped or data.dtype == np.float16 or patch.parent_dtype[:1] not in ("i", "u"):
        return values
    return np.asarray(np.rint(values), dtype=patch.parent_dtype)


def patch_frame(patch: Patch) -> Frame:
    """A patch as a Frame in its parent's unit, with the noise that its row states. Raises ReadError as `patch_values` does."""
    data = patch_values(patch)
    noise: Noise | Unmodelled
    try:
        unit = Unit(patch.unit or Unit.ARBITRARY)
        said = json.loads(patch.noise or "{}")
        noise = Unmodelled(said.get("unmodelled") or "the patch's row states no noise: pass a detector")
        if "a" in said:
            noise = Noise(*(_cells(said[k]) for k in ("a", "b", "offset")))
    except (ValueError, KeyError, TypeError, FrameError) as error:
        raise ReadError(f"{patch.path}: unit {patch.unit!r} or noise {patch.noise!r} is none ({error})") from None
    if scalings(patch)[1]:
        noise = Unmodelled(CLIPPED)
    return Frame(data, "YX" if data.ndim == 2 else "CYX", unit, noise)


def _cells(value: Any) -> Any:
    """A number, or a list of one a channel."""
    return float(value) if not isinstance(value, list) else np.array(value, dtype=np.float64).reshape(-1, 1, 1)
