"""Planes to learn from: of frames, of a folder of files, of a tile set; stabilised with the noise that each brings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from firstlight import intake, io
from firstlight.errors import FirstlightError, FrameError, ReadError
from firstlight.frame import Frame
from firstlight.noise import Noise, spread
from firstlight.restore.means import UNTRUSTED
from firstlight.train.batches import Plane, Planes

__all__ = ["expected", "files", "folder", "frames", "pairs", "stabilised", "tile_set"]

Array = NDArray[Any]
ODD = 1e6  # stabilised: beyond it a number is no measurement but what a file fills holes with
WINDOW = 9  # px, of the local mean that holes are filled with
SAME = 1.25  # rms difference of two exposures over what their noise makes, beyond which they show different scenes


def stabilised(frame: Frame, *, colour: bool = False) -> list[Plane]:
    """Every YX plane of a frame as z (1, Y, X), or with `colour` every CYX as z (C, Y, X); a mosaic phase by phase.

    z = noise.stabilise(data), the generalised Anscombe transform. Flagged or non-finite pixels are not valid and are filled
    with their neighbours' mean. Raises FrameError where the noise is unmodelled or `colour` is asked without axis C.
    """
    noise = frame.known_noise("training")
    data = np.asarray(frame.data)
    finite = np.isfinite(data)
    z = noise.stabilise(np.where(finite, data, 0)).astype(np.float32)
    good = finite & _measurable(data, z, noise)
    if frame.flags is not None:
        good &= (np.asarray(frame.flags) & int(UNTRUSTED)) == 0
    return [p for lead in _leads(frame, colour) for p in _phases(z[lead], good[lead], frame.period())]


def _measurable(data: Array, z: Array, noise: Noise) -> Array:
    """Neither ODD standard deviations above zero signal nor as far below, where the transform is flat."""
    a, b, offset = (spread(p, data.shape) for p in (noise.a, noise.b, noise.offset))
    return np.asarray((np.abs(z) < ODD) & (data - offset > -ODD * np.sqrt(b + 0.375 * np.square(a))))


def _leads(frame: Frame, colour: bool) -> list[tuple[Any, ...]]:
    """Index of each (C, Y, X) stack of the data."""
    if not colour:
        return [(*lead, None) for lead in np.ndindex(frame.shape[:-2])]
    if "C" not in frame.axes:
        raise FrameError(f"training in colour: got axes {frame.axes}, expected one named C")
    axis = frame.axes.index("C")
    shape = [1 if k == axis else n for k, n in enumerate(frame.shape[:-2])]
    return [tuple(slice(None) if k == axis else i for k, i in enumerate(lead)) for lead in np.ndindex(*shape)]


def _phases(z: Array, good: Array, period: tuple[int, int]) -> list[Plane]:
    found = []
    for y, x in np.ndindex(period):
        part, valid = (np.ascontiguousarray(a[:, y :: period[0], x :: period[1]]) for a in (z, good))
        found.append(Plane(part) if valid.all() else Plane(_filled(part, valid), None, valid))
    return found


def _filled(z: Array, valid: Array) -> Array:
    from scipy.ndimage import uniform_filter

    size = (0, WINDOW, WINDOW)
    weight = uniform_filter(valid.astype(np.float32), size, mode="nearest")
    total = uniform_filter(np.where(valid, z, 0), size, mode="nearest")
    level = np.float32(np.median(z[valid])) if valid.any() else np.float32(0)
    near = np.divide(total, weight, out=np.full_like(z, level), where=weight > 1e-3)
    return np.where(valid, z, near)


def frames(many: Sequence[Frame], *, colour: bool = False) -> Planes:
    """Planes of frames in memory; see `stabilised`."""
    ready = [p for frame in many for p in stabilised(frame, colour=colour)]
    return Planes([partial(_as_is, p) for p in ready])


def _as_is(plane: Plane) -> Plane:
    return plane


def files(path: Path) -> list[Path]:
    """A file alone, or the readable images of a folder, in order. Raises ReadError where there are none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ReadError(f"{path}: no such file or folder")
    found = sorted(p for p in path.iterdir() if p.is_file() and io.kind(p) in io.FORMATS and not p.name.startswith("."))
    if not found:
        raise ReadError(f"{path}: holds no image that can be read; give a file, a folder of images or a tile set")
    return found


def folder(path: Path, *, detector: str | None = None, unit: str | None = None, ext: str | None = None) -> list[Frame]:
    """The frames of a file or folder in electrons, their noise completed as `intake.load` does; errors name the file."""
    found = []
    for each in files(path):
        try:
            found.append(intake.to_electrons(intake.load(each, detector=detector, unit=unit, ext=ext).frame))
        except FirstlightError as error:
            raise type(error)(str(error) if str(each) in str(error) else f"{each}: {error}") from error
    return found


def pairs(many: Sequence[Frame]) -> Planes:
    """Exposures of one registered scene, each with the next one as its target.

    Raises FrameError for fewer than two, different shapes, or two whose difference is more than their noise explains.
    """
    if len(many) < 2 or len({f.shape for f in many}) > 1:
        raise FrameError(
            f"n2n: {len(many)} frames of shapes {sorted({f.shape for f in many})}, expected two or more of one shape"
        )
    every = [stabilised(f) for f in many]
    made = []
    for i, mine in enumerate(every):
        other = every[(i + 1) % len(every)]
        for k, (one, two) in enumerate(zip(mine, other, strict=True)):
            _same_scene(one.z - two.z, i, (i + 1) % len(every), k)
            both = None if one.valid is None and two.valid is None else _valid(one) & _valid(two)
            made.append(Plane(one.z, two.z, both))
    return Planes([partial(_as_is, p) for p in made])


def _valid(plane: Plane) -> Array:
    return np.ones(plane.z.shape, dtype=bool) if plane.valid is None else plane.valid


def _same_scene(difference: Array, i: int, j: int, plane: int) -> None:
    spread = 1.4826 * float(np.median(np.abs(difference))) / np.sqrt(2)  # about zero, so that a change of level counts
    if spread > SAME:
        raise FrameError(
            f"n2n: frames {i} and {j} differ by {spread:.2f} times their noise (plane {plane}), expected less than {SAME}; "
            "register them and scale them to one exposure, or check the gain"
        )


def expected(noise: Noise, mean: Array) -> Array:
    """E[noise.stabilise(y) | mean], float32: what a network learns to predict, the inverse of noise.unstabilise."""
    a, b, offset = noise.a, noise.b, noise.offset
    z = np.asarray(noise.stabilise(mean), dtype=np.float64)
    for _ in range(6):  # Newton's steps with the slope of the variance: du/dz = sqrt(var) to first order
        slope = np.sqrt(noise.variance(np.maximum(noise.unstabilise(z), np.asarray(offset))) + 0.125 * np.square(a))
        z = z - (noise.unstabilise(z) - mean) / np.maximum(slope, np.sqrt(np.asarray(b) + 0.375 * np.square(a)))
    return z.astype(np.float32)


def tile_set(path: Path, split: Literal["train", "validation", "test"] = "train", *, target: bool = False) -> Planes:
    """The tiles of a split, in electrons, each with its own noise; with `target` the clean tile as E[stabilise(y) | clean].

    Tiles without a noise model are left out. Raises as `dataset.NoiseTileDataset` does.
    """
    from firstlight.dataset import NoiseTileDataset

    tiles = NoiseTileDataset(path, split, unit="electron", target=target, unmodelled="drop")
    if not len(tiles):
        raise FrameError(f"{path}: no tile in split {split!r}; build the set with more scenes, or take another")
    return Planes([partial(_tile, tiles, i) for i in range(len(tiles))])


def _tile(tiles: Any, i: int) -> Plane:
    item = tiles[i]
    noise = Noise(*(item[name].numpy() for name in ("a", "b", "offset")))
    image = item["image"].numpy()
    finite = np.isfinite(image)
    z = noise.stabilise(np.where(finite, image, 0)).astype(np.float32)
    valid = finite & _measurable(image, z, noise)
    if "valid" in item:
        valid &= item["valid"].numpy()
    target = None
    if "target" in item:
        ratio = item["target_ratio"]
        clean = item["target"].numpy() * (ratio if np.isfinite(ratio) else 1.0)
        valid &= np.isfinite(clean)
        target = expected(noise, np.where(np.isfinite(clean), clean, 0))
    return Plane(z, target) if valid.all() else Plane(_filled(z, valid), target, valid)
