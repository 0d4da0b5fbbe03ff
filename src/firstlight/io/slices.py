"""A volume as one TIFF a slice: `recon_#####.tif` stands for recon_00000.tif, recon_00001.tif and so on.

The marks (three or more, at the end of the name) are the slice's number in as many digits. Slices along Z, uncompressed; the
description and maps stand in companions of the name with its marks, `recon_#####.tif.json`. Slices of other programs are
read too, numbered from anything without a gap, as Z in arbitrary units. For the shell: `#` inside a word needs no quotes.
"""

from __future__ import annotations

import os
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Frame
from firstlight.io.lazy import Lazy
from firstlight.io.partial import Partial, companions, read_described
from firstlight.io.storage import Storage

__all__ = ["CODECS", "Writer", "create", "names", "read"]

Array = NDArray[Any]
CODECS = ("none",)


def names(path: Path) -> list[Path]:
    """The slices there are of a name with marks, by number."""
    lead, marks, tail = _parts(path)
    pattern = re.compile(rf"{re.escape(lead)}(\d{{{len(marks)},}}){re.escape(tail)}")
    found = {int(m[1]): p for p in path.parent.iterdir() if (m := pattern.fullmatch(p.name))} if path.parent.is_dir() else {}
    return [found[i] for i in sorted(found)]


def _parts(path: Path) -> tuple[str, str, str]:
    match = re.fullmatch(r"(.*?)(#{3,})([^#]*)", path.name)
    assert match
    return match[1], match[2], match[3]


def _name(path: Path, index: int) -> str:
    lead, marks, tail = _parts(path)
    return f"{lead}{index:0{len(marks)}d}{tail}"


class _Slices:
    """Reads the slices asked for, each file when it is needed."""

    def __init__(self, files: list[Path], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._files, self._shape, self._dtype = files, shape, dtype

    def __call__(self, key: Any) -> Array:
        key = key if isinstance(key, tuple) else (key,)
        if not key or key[0] is Ellipsis:
            key = (slice(None), *(key if len(key) > 1 else (Ellipsis,)))
        chosen = np.arange(len(self._files))[key[0]]
        if np.ndim(chosen) == 0:
            return np.asarray(self._one(int(chosen))[key[1:]])
        if not len(chosen):
            return np.zeros((0, *self._shape), self._dtype)[(slice(None), *key[1:])]
        return np.stack([self._one(int(i))[key[1:]] for i in chosen])

    def _one(self, index: int) -> Array:
        import tifffile

        file = self._files[index]
        try:
            image = np.asarray(tifffile.imread(file))
        except Exception as error:
            raise ReadError(f"{file}: cannot be read, damaged or no TIFF ({' '.join(str(error).split())})") from error
        if image.shape != self._shape or image.dtype != self._dtype:
            raise ReadError(
                f"{file}: a slice of {image.shape} {image.dtype}, expected {self._shape} {self._dtype} "
                f"as in {self._files[0].name}; put them into different folders"
            )
        return image


def read(path: Path, ext: str | int | None = None) -> Frame:
    """The slices of a name with marks as ZYX, each read when it is needed; our companions say unit, noise and history.

    Raises ReadError where there are none, a number is missing, or a slice differs from the first in size or type.
    """
    from firstlight import io
    from firstlight.io.contiguous import refuse_ext

    refuse_ext(path, ext)
    files = names(path)
    if not files:
        raise ReadError(f"{path}: no such file, and no slices of that name")
    numbers = [int(re.findall(r"\d+", f.name[len(_parts(path)[0]) :])[0]) for f in files]
    if (gap := next((a + 1 for a, b in pairwise(numbers) if b != a + 1), None)) is not None:
        raise ReadError(f"{path}: slice {gap} is missing between {numbers[0]} and {numbers[-1]}; put it back")
    first = io.read(files[0])
    if first.axes != "YX":
        raise ReadError(f"{files[0]}: a slice of axes {first.axes}, expected one image (Y, X) a file")
    shape, dtype = (len(files), *first.shape), np.dtype(first.data.dtype)
    data = Lazy(shape, dtype, _Slices(files, first.shape, dtype))
    observation = first.observation.__class__(source=str(path))
    plain = Frame(data, "ZYX", first.unit, first.noise, spacing=first.spacing, observation=observation)
    return read_described(data, path, plain)


class Writer:
    """One TIFF a slice, in a folder beside the goal until all are there."""

    def __init__(self, partial: Partial, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> None:
        self._partial, self._shape, self._dtype = partial, shape, dtype
        self._options: dict[str, Any] = {
            "photometric": "minisblack",
            "software": "firstlight",
            "resolution": tuple(1e4 / like.spacing[a] if like.spacing.get(a) else 1.0 for a in "XY"),
            "resolutionunit": "CENTIMETER" if {"X", "Y"} <= set(like.spacing) else "NONE",
            "metadata": None,
        }
        partial.temp.mkdir(exist_ok=True)
        self._std = partial.describe(like, shape, std)

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write whole slices, and their standard error where the output has one."""
        import tifffile

        if box.shape[1:] != self._shape[1:]:
            raise WriteError(f"{self._partial.path}: a block {box.shape} of slices {self._shape[1:]}; put whole slices")
        block = np.broadcast_to(np.asarray(block, dtype=self._dtype), box.shape)
        for i, image in enumerate(block, box.start[0]):
            target = self._partial.temp / _name(self._partial.path, i)
            temp = target.with_suffix(".new")
            tifffile.imwrite(temp, np.ascontiguousarray(image), **self._options)
            temp.replace(target)
        if self._std is not None:
            self._std[box.slices] = std

    def flush(self, box: Box) -> None:
        """What was put at `box` has reached the disk."""
        for i in range(box.start[0], box.stop[0]):
            with (self._partial.temp / _name(self._partial.path, i)).open("rb") as file:
                os.fsync(file.fileno())
        if self._std is not None:
            self._std.flush()

    def close(self) -> None:
        """Move the slices to their final names; those of an earlier, longer volume are removed."""
        finish(self._partial, self._shape[0])

    def keep(self) -> None:
        """Leave what was written for another run."""
        self._partial.keep()

    def abort(self) -> None:
        """Remove what was written."""
        self._partial.abort()


def finish(partial: Partial, count: int) -> None:
    """Move `count` slices to their final names; those of an earlier, longer volume are removed."""

    def move() -> None:
        goal = partial.path
        for file in names(partial.temp / goal.name) if partial.temp.is_dir() else ():
            file.replace(goal.parent / file.name)
        for old in names(goal)[count:]:
            old.unlink()
        shutil.rmtree(partial.temp, ignore_errors=True)

    partial.commit(move)


def create(
    path: Path,
    like: Frame,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    std: bool,
    *,
    storage: Storage,
    partial: Partial,
) -> Writer:
    """A writer of one TIFF a slice. Raises WriteError for other axes than ZYX, and where other slices of that name stand."""
    if like.axes != "ZYX" or 0 in shape:
        raise WriteError(f"{path}: one file a slice holds ZYX, got {like.axes} of {shape}; choose one file")
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise WriteError(f"{path}: TIFF holds real numbers, got {dtype}; cast the data")
    if storage.levels is not None:
        raise WriteError(f"{path}: TIFF is written with one level; leave levels out or choose .zarr")
    there = names(path)
    if there and companions(path)[0] is None and not partial.resumed:
        raise WriteError(f"{path}: {len(there)} slices of that name are there and not ours, such as {there[0].name}; move them")
    return Writer(partial, like, shape, dtype, std)
