"""Zarr: our own frames (Zarr v3, OME-Zarr 0.5 where the axes allow), foreign arrays, OME-Zarr 0.4 and 0.5 at full size.

A frame is a group: array `0` with the data (levels `1`, `2` ... where there is a pyramid), one array per map, the description
in the group's attributes. How it is written: `zarr_write`. A missing chunk of a foreign array is its fill value, as Zarr
defines; in our own files, or where no chunk is there at all, it is damage and refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import ReadError, WriteError
from firstlight.frame import Frame, Observation, Unit
from firstlight.io import describe
from firstlight.io.lazy import Lazy
from firstlight.io.npy import PLAIN_AXES
from firstlight.io.partial import Partial
from firstlight.io.pyramid import OME_AXES
from firstlight.io.storage import BLOCK_BYTES, CODECS, Storage
from firstlight.io.writer import Format
from firstlight.noise import Unmodelled

__all__ = ["CODECS", "create", "read"]

Array = NDArray[Any]
NO_UNIT = "the file names no unit and no gain: pass a detector"
OURS = "firstlight"
MICROMETRE = {"meter": 1e6, "millimeter": 1e3, "micrometer": 1.0, "nanometer": 1e-3, "angstrom": 1e-4}


class _Part:
    """Reads parts of an array, opened on first use in each process."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._array: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}

    def __call__(self, key: Any) -> Array:
        try:
            if self._array is None:
                import zarr

                self._array = zarr.open_array(self._path / self._name, mode="r")
            return np.asarray(self._array[key])
        except (OSError, RuntimeError, ValueError) as error:
            raise ReadError(f"{self._path}: array {self._name!r} is damaged at {key} ({error}); copy it again") from error


def read(path: Path, ext: str | int | None = None) -> Frame:
    """The array of a .zarr folder, or `ext` in it (an array's or group's path). Data stay on disk.

    OME-Zarr: the largest level, axes and spacing [micrometre] as stated. Others: 2 to 5 axes, taken as (T)(C)(Z)YX, in
    arbitrary units. Raises ReadError for what is no Zarr folder, a damaged one, or several arrays without `ext`.
    """
    import zarr

    if not path.is_dir():
        raise ReadError(f"{path}: is a file, expected a Zarr folder; unpack it")
    node: Any = zarr.open(path, mode="r")
    for part in str(ext).split("/") if ext is not None else ():
        if isinstance(node, zarr.Array) or part not in node:
            raise ReadError(f"{path}: holds no {ext!r}; choose one of {', '.join(_names(node)) or '(nothing)'}")
        node = node[part]
    if isinstance(node, zarr.Array):
        return _plain(path, node)
    attrs: dict[str, Any] = dict(node.attrs)
    if OURS in attrs:
        return _described(path, node, attrs[OURS])
    levels = attrs.get("ome", attrs).get("multiscales")
    if levels:
        return _multiscale(path, node, levels[0])
    arrays = [name for name, _ in node.arrays()]
    if len(arrays) == 1:
        return _plain(path, node[arrays[0]])
    raise ReadError(f"{path}: a group of several images; choose one with ext: {', '.join(_names(node)) or '(it is empty)'}")


def _names(node: Any) -> list[str]:
    return sorted(name for name, _ in node.members())[:12] if hasattr(node, "members") else []


def _lazy(path: Path, array: Any, whole: bool = False) -> Lazy:
    """An array that stays on disk; `whole`: every chunk must be there."""
    name, kind = array.path, array.dtype.kind
    if kind not in "fiub" or array.ndim < 1:
        raise ReadError(f"{path}: array {name!r} is {array.shape} of {array.dtype}, expected an image of real numbers")
    have, want = array.nchunks_initialized, array.nchunks
    if want and (have == 0 or (whole and have < want)):
        raise ReadError(f"{path}: array {name!r} of shape {array.shape} holds {have} of {want} chunks; copy it again")
    return Lazy(array.shape, array.dtype.newbyteorder("="), _Part(path, name), array.shards or array.chunks)


def _frame(path: Path, data: Any, axes: str, spacing: dict[str, float]) -> Frame:
    return Frame(data, axes, Unit.ARBITRARY, Unmodelled(NO_UNIT), spacing=spacing, observation=Observation(source=str(path)))


def _plain(path: Path, array: Any) -> Frame:
    if array.ndim not in PLAIN_AXES:
        raise ReadError(f"{path}: array {array.path!r} has {array.ndim} axes, expected 2 to 5")
    return _frame(path, _lazy(path, array), PLAIN_AXES[array.ndim], {})


def _described(path: Path, group: Any, text: Any) -> Frame:
    arrays = {m: _lazy(path, group[m], whole=True) for m in describe.MAPS if m in group}
    kept = {m: a if m == "std" or a.size * a.dtype.itemsize > BLOCK_BYTES else a[...] for m, a in arrays.items()}
    return describe.attach(_lazy(path, group["0"], whole=True), json.dumps(text), kept, source=str(path))


def _multiscale(path: Path, group: Any, image: dict[str, Any]) -> Frame:
    """Level 0 of an OME-Zarr image; raises ReadError for axes that are not (t)(c)(z)yx."""
    axes = "".join(str(a["name"] if isinstance(a, dict) else a) for a in image.get("axes", "tczyx")).upper()
    array = group[image["datasets"][0]["path"]]
    if len(axes) != array.ndim or not axes.endswith("YX") or list(axes) != [a for a in OME_AXES if a in axes]:
        raise ReadError(f"{path}: an OME-Zarr image of {array.ndim} axes named {axes!r}, expected some of TCZ, then YX")
    return _frame(path, _lazy(path, array), axes, _spacing(axes, image))


def _spacing(axes: str, image: dict[str, Any]) -> dict[str, float]:
    """Micrometres per pixel of the space axes whose unit is stated: the level's scale times the image's."""
    scale = np.ones(len(axes))
    for place in (image["datasets"][0], image):
        for step in place.get("coordinateTransformations", ()):
            if step.get("type") == "scale":
                scale = scale * np.asarray(step["scale"])
    units = [a.get("unit") if isinstance(a, dict) else None for a in image.get("axes", axes)]
    return {a: float(s * MICROMETRE[u]) for a, s, u in zip(axes, scale, units, strict=True) if a in "ZYX" and u in MICROMETRE}


def create(
    path: Path,
    like: Frame,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    std: bool,
    *,
    storage: Storage,
    partial: Partial,
) -> Format:
    """A writer of one Zarr v3 group; the folder appears under its name when it is whole."""
    from firstlight.io.zarr_write import Writer

    if path.exists() and not path.is_dir():
        raise WriteError(f"{path}: is a file, and a Zarr output is a folder; remove it first")
    if 0 in shape or dtype.kind not in "fiub":
        raise WriteError(f"{path}: {shape} of {dtype}, expected at least one pixel of real numbers")
    return Writer(partial, like, shape, dtype, std, storage)
