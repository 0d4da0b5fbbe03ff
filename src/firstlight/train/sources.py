"""Planes to learn from: of frames, of a folder of files, of a tile set; stabilised with the noise that each brings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from firstlight import intake, io
from firstlight.box import Box
from firstlight.errors import FirstlightError, FrameError, ReadError
from firstlight.frame import Frame
from firstlight.noise import Noise, spread
from firstlight.restore.means import UNTRUSTED
from firstlight.train.batches import Plane, Planes
from firstlight.train.unsteady import deviation

__all__ = ["expected", "files", "folder", "frames", "pairs", "stabilised", "tile_set"]

Array = NDArray[Any]
ODD = 1e6  # stabilised: beyond it a number is no measurement but what a file fills holes with
CLOSE = 5  # px, over which the signal is averaged that says how large stabilised noise is
STEADY = 0.01  # of a standard deviation: less is not worth telling
WINDOW = 9  # px, of the local mean that holes are filled with
APART = 0.3  # px, or of a mosaic's period, that may remain between two exposures of a pair
SURE = 8.0  # confidence of a registration; frames of pure noise stay below about 6
PLAIN = 4.0  # standard errors by which a frame must be better explained once it is shifted
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
    sigma = deviation(noise, _near(data, good, frame.period()))
    return [p for lead in _leads(frame, colour) for p in _phases(z[lead], good[lead], sigma[lead], frame.period())]


def _near(data: Array, good: Array, period: tuple[int, int]) -> Array:
    """The mean of the good pixels of the same phase within CLOSE px; where there are none, 0."""
    from scipy.ndimage import uniform_filter

    out = np.zeros(data.shape, dtype=np.float32)
    size = (0,) * (data.ndim - 2) + (CLOSE, CLOSE)
    for y, x in np.ndindex(period):
        part = (..., slice(y, None, period[0]), slice(x, None, period[1]))
        here = good[part]
        total, weight = (
            uniform_filter(v.astype(np.float32), size, mode="nearest") for v in (np.where(here, data[part], 0), here)
        )
        out[part] = np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-3)
    return out


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


def _phases(z: Array, good: Array, sigma: Array, period: tuple[int, int]) -> list[Plane]:
    every = []
    for y, x in np.ndindex(period):
        part, valid, own = (np.ascontiguousarray(a[:, y :: period[0], x :: period[1]]) for a in (z, good, sigma))
        every.append(_plane(part, None, valid, own))
    return every


def _plane(z: Array, target: Array | None, valid: Array, sigma: Array) -> Plane:
    """With holes filled, and without what says nothing."""
    told = None if np.all(np.abs(sigma - 1) < STEADY) else sigma
    return Plane(z, target, None, told) if valid.all() else Plane(_filled(z, valid), target, valid, told)


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
    """Exposures of one scene, each with another one as its target, moved onto it by whole pixels where it has drifted.

    Whole pixels, since interpolated noise correlates; of the others, the one is taken whose drift lies nearest to whole pixels.
    One frame with axis T is a series of exposures. Raises FrameError for fewer than two, different shapes, a drift that leaves
    more than APART px, or two whose difference is more than their noise explains.
    """
    many = [part for frame in many for part in _exposures(frame)] if len(many) == 1 else many
    if len(many) < 2 or len({f.shape for f in many}) > 1:
        raise FrameError(
            f"n2n: {len(many)} frames of shapes {sorted({f.shape for f in many})}, expected two or more of one shape"
        )
    made = []
    for i, (j, other) in enumerate(_partners(many)):
        for k, (one, two) in enumerate(zip(stabilised(many[i]), stabilised(other), strict=True)):
            both = None if one.valid is None and two.valid is None else _valid(one) & _valid(two)
            _same_scene((one.z - two.z)[slice(None) if both is None else both], i, j, k)
            made.append(Plane(one.z, two.z, both, two.sigma))
    return Planes([partial(_as_is, p) for p in made])


def _exposures(frame: Frame) -> list[Frame]:
    if "T" not in frame.axes:
        return [frame]
    at, whole = frame.axes.index("T"), Box.whole(frame.shape)
    starts = [tuple(t if k == at else 0 for k in range(whole.ndim)) for t in range(frame.shape[at])]
    return [frame.crop(Box(s, tuple(s[at] + 1 if k == at else n for k, n in enumerate(whole.stop)))) for s in starts]


def _partners(many: Sequence[Frame]) -> Iterator[tuple[int, Frame]]:
    """For each frame another one's number, and that one moved onto it."""
    from firstlight.calibrate import register

    period = np.array(many[0].period())
    drift = [_drift(many[0], frame) / period for frame in many]
    for i, frame in enumerate(many):
        left = {j: float(np.abs(_part(drift[j] - drift[i]) * period).max()) for j in range(len(many)) if j != i}
        j = min(left, key=lambda k: (round(left[k], 1), (k - i) % len(many)))
        other = many[j] if not np.any(np.rint(drift[j] - drift[i])) else register([frame, many[j]])[1]
        rest = _drift(frame, other)  # large drifts are measured less well than small ones
        if np.abs(rest).max() > APART * period.max():
            (dy, dx), most = (drift[j] - drift[i]) * period, APART * period.max()
            raise FrameError(
                f"n2n: frame {j} lies ({dy:.2f}, {dx:.2f}) px from frame {i}; whole pixels leave ({rest[0]:.2f}, "
                f"{rest[1]:.2f}) px and no other frame leaves less, expected at most {most:g}; take one pointing, or r2r"
            )
        yield j, other


def _part(shift: Array) -> Array:
    return np.asarray(shift - np.rint(shift))


def _drift(reference: Frame, frame: Frame) -> Array:
    """Shift (2,) [px] that moves a frame onto the reference; 0 where the frames do not show plainly that there is one."""
    from firstlight.calibrate import measure_shift
    from firstlight.dataset.proof import evidence

    try:
        shift = measure_shift(reference, frame)
    except FrameError:  # no structure at all
        return np.zeros(2)
    plain = shift.confidence >= SURE and evidence(frame, reference, shift) > PLAIN
    return np.array([shift.dy, shift.dx]) if plain else np.zeros(2)


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
    return _plane(z, target, valid, deviation(noise, _near(image, valid, (1, 1))))
