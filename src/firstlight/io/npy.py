"""NumPy .npy: an array, its description in companions; without one, arbitrary units and the last axes YX."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.errors import ReadError
from firstlight.frame import Frame, Observation, Unit
from firstlight.io.contiguous import refuse_ext
from firstlight.io.partial import MappedWriter, read_described
from firstlight.noise import Unmodelled

__all__ = ["create", "read"]

PLAIN_AXES = {2: "YX", 3: "CYX", 4: "CZYX", 5: "TCZYX"}


def read(path: Path, ext: str | int | None = None) -> Frame:
    """The array of a .npy file, memory-mapped; 2 to 5 axes, taken as (T)(C)(Z)YX where no companion says otherwise."""
    refuse_ext(path, ext)
    data = np.load(path, mmap_mode="r", allow_pickle=False)
    if data.ndim not in PLAIN_AXES or data.dtype.kind not in "fiub":
        raise ReadError(f"{path}: an array of {data.ndim} axes of {data.dtype}, expected 2 to 5 axes of real numbers")
    noise = Unmodelled("the file names no unit and no gain: pass a detector")
    plain = Frame(data, PLAIN_AXES[data.ndim], Unit.ARBITRARY, noise, observation=Observation(source=str(path)))
    return read_described(data, path, plain)


def create(path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> MappedWriter:
    """A writer of one .npy array with companions."""
    return MappedWriter(path, like, shape, std, partial(np.lib.format.open_memmap, mode="w+", dtype=dtype, shape=shape))
