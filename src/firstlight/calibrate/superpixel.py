"""Colour filter arrays binned to superpixels: windows that do not overlap, so that the noise stays white and known.

Each window of k x k pixels gives one value per colour, the mean of the n pixels of that colour in it. Of independent pixels

    var(mean) = sum(var_i) / n^2  =  var / n

so a and b are divided by n exactly, which differs between colours and, where k is no multiple of the pattern's period (an
X-Trans mosaic in windows of 4 px), from window to window with a period of its own. Anything that interpolates between
windows correlates the noise, and is not done here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import BAYER, Mosaic
from firstlight.noise import CELL, Noise, Param

__all__ = ["FACTORS", "downsample_documented", "superpixels"]

Array = NDArray[Any]
FACTORS = {(2, 2): 2, (6, 6): 4}  # by the pattern's period: the least windows that hold every colour wherever they lie


def superpixels(frame: Frame, *, factor: int | None = None) -> Frame:
    """A mosaic (Y, X) as superpixels (C, Y/factor, X/factor): per colour the mean of its pixels in each window; same unit.

    `factor` [px] None: 2 for a Bayer pattern (R, mean of two G, B), 4 for X-Trans. Noise a, b, c, d are divided by the
    number of pixels (exact for a, b and d where pixels of a colour share a, and for c where the window is evenly lit);
    flags are OR-ed per colour, saturated pixels flagged first and the level dropped; std is averaged, as if fully
    correlated; psf and geometry are dropped. Rows and columns past the last whole window are left out. Channels stand in
    the mosaic's order of colours. Raises FrameError where a window lacks a colour, as an X-Trans mosaic's of 2 px do.
    """
    mosaic = _mosaic(frame, "calibrate.superpixels")
    k = FACTORS.get(mosaic.period) if factor is None else factor
    if k is None:
        raise FrameError(f"calibrate.superpixels: a pattern of {mosaic.period} px is not known; pass factor= in px")
    return _binned(frame, _Windows.of(frame, mosaic, k, "calibrate.superpixels"), "calibrate.superpixels")


def downsample_documented(frame: Frame, *, factor: int) -> Frame:
    """The documented profile: a mosaic (Y, X) taken for RGGB from its first pixel, as area means (3, Y/factor, X/factor).

    Each 2x2 cell's red, mean green and blue stand for its four pixels, and `factor` x `factor` of them are averaged: the
    plainest reading of a document that names neither filter nor demosaicking. Wrong where the mosaic is not RGGB (X-Trans:
    every channel becomes a mixture of colours), and says so in a UserWarning. Noise, flags and the rest as in `superpixels`.
    """
    step = "calibrate.downsample_documented"
    mosaic, taken = _mosaic(frame, step), Mosaic(BAYER)
    if factor < 2 or factor % 2:
        raise FrameError(f"{step}: factor {factor}, expected an even number: each window holds whole 2 x 2 cells")
    windows = _Windows.of(frame, taken, factor, step)
    if not _same(mosaic, taken):
        seen = "/".join("".join(mosaic.colors[i] for i in row) for row in mosaic.cell())
        warnings.warn(
            f"{step}: takes the mosaic {seen} for RG/GB, so that its channels are mixtures of colours; physical is "
            "calibrate.superpixels",
            UserWarning,
            stacklevel=2,
        )
    return _binned(frame, windows, step)


def _mosaic(frame: Frame, step: str) -> Mosaic:
    if frame.unit is Unit.DISPLAY:
        raise FrameError(f"{step}: display values are no amounts of light; start from the raw file")
    if not isinstance(frame.geometry, Mosaic) or frame.axes != "YX":
        kind = "a mosaic" if isinstance(frame.geometry, Mosaic) else "no mosaic"
        raise FrameError(f"{step}: got {kind} with axes {frame.axes!r}, expected one mosaic image (YX)")
    return frame.geometry


def _same(mosaic: Mosaic, taken: Mosaic) -> bool:
    def letters(m: Mosaic) -> list[list[str]]:
        return [[m.colors[i] for i in row] for row in m.cell()]

    return letters(mosaic) == letters(taken)


STRIP = 256  # rows whose saturated pixels are looked for at a time


@dataclass(frozen=True)
class _Windows:
    """Windows of `size` px over a mosaic's `cell`, `shape` of them; all that varies repeats every `period` px.

    counts (C, period / size): pixels of each colour in each window of one period, none of them 0.
    """

    cell: Array
    size: int
    shape: tuple[int, int]
    period: tuple[int, int]
    counts: Array

    @classmethod
    def of(cls, frame: Frame, mosaic: Mosaic, size: int, step: str) -> _Windows:
        """The windows of a frame; raises FrameError where one lacks a colour or none fits."""
        if size < 1 or min(frame.shape) < size:
            raise FrameError(f"{step}: windows of {size} px in an image of {frame.shape}, expected at least one")
        cells = [mosaic.period, *(np.shape(p) for p in _params(frame) if _is_cell(p, frame.shape))]
        period = (lcm(size, *(c[0] for c in cells)), lcm(size, *(c[1] for c in cells)))
        cell = mosaic.cell()
        counts = np.zeros((len(mosaic.colors), period[0] // size, period[1] // size), dtype=np.intp)
        for y, x in np.ndindex(*period):
            counts[cell[y % cell.shape[0], x % cell.shape[1]], y // size, x // size] += 1
        if not counts.all():
            lacking = "".join(c for c, n in zip(mosaic.colors, counts, strict=True) if not n.all())
            raise FrameError(
                f"{step}: windows of {size} px of a {mosaic.period[0]} x {mosaic.period[1]} pattern lack {lacking}; use "
                f"windows of {FACTORS.get(mosaic.period, max(mosaic.period))} px (an X-Trans mosaic cannot be packed as 2 x 2)"
            )
        return cls(cell, size, (frame.shape[0] // size, frame.shape[1] // size), period, counts)

    @property
    def full(self) -> tuple[int, int, int]:
        """Shape (C, Y, X) of the result."""
        return (len(self.counts), *self.shape)

    def phases(self) -> Iterator[tuple[tuple[int, int], Any, Any]]:
        """Each pixel of a period: its place, the slices of the image that repeat it, and where they add to the result."""
        (rows, cols), k = self.shape, self.size
        for y, x in np.ndindex(*self.period):
            color = int(self.cell[y % self.cell.shape[0], x % self.cell.shape[1]])
            source = (slice(y, rows * k, self.period[0]), slice(x, cols * k, self.period[1]))
            yield (y, x), source, (color, slice(y // k, None, self.period[0] // k), slice(x // k, None, self.period[1] // k))

    def divide(self, total: Array, power: int = 1) -> Array:
        """Sums (C, Y, X) over n^power, in place."""
        for c, i, j in np.ndindex(*self.counts.shape):
            n = int(self.counts[c, i, j])
            if n > 1:
                total[c, i :: self.counts.shape[1], j :: self.counts.shape[2]] /= n**power
        return total


def _params(frame: Frame) -> list[Any]:
    noise = frame.noise
    own = [noise.a, noise.b, noise.offset, noise.c, noise.d] if isinstance(noise, Noise) else []
    return [p for p in (*own, frame.observation.offset, frame.observation.saturation) if p is not None]


def _is_cell(value: Any, shape: tuple[int, ...]) -> bool:
    return np.ndim(value) == 2 and max(np.shape(value)) <= CELL and not _fits_map(value, shape)


def _fits_map(value: Any, shape: tuple[int, ...]) -> bool:
    return all(m in (1, n) for m, n in zip(np.shape(value)[::-1], shape[::-1], strict=False))


def _binned(frame: Frame, windows: _Windows, step: str) -> Frame:
    data, noise, seen = np.asarray(frame.data), frame.noise, frame.observation
    small = data.dtype.kind in "iu" and data.dtype.itemsize <= 2
    means = windows.divide(_total(windows, data, np.dtype(np.float32) if small else np.result_type(data.dtype, np.float32)))
    if isinstance(noise, Noise):
        a, b, c, d = (_combined(windows, p, frame.shape, 2) for p in (noise.a, noise.b, noise.c, noise.d))
        noise = Noise(a, b, _combined(windows, noise.offset, frame.shape, 1), c, d)
    black = None if seen.offset is None else _combined(windows, seen.offset, frame.shape, 1)
    std = frame.std
    return frame.then(
        step,
        {"factor": windows.size},
        data=means,
        axes="CYX",
        noise=noise,
        std=None if std is None else windows.divide(_total(windows, np.broadcast_to(std, frame.shape), np.dtype(np.float32))),
        flags=_flags(frame, windows, data),
        geometry=None,
        psf=None,
        spacing={k: v * windows.size if k in "YX" else v for k, v in frame.spacing.items()},
        observation=replace(seen, offset=black, saturation=None),
    )


def _total(windows: _Windows, plane: Array, dtype: np.dtype[Any]) -> Array:
    total, begun = np.empty(windows.full, dtype=dtype), set[tuple[int, int, int]]()
    for _, source, target in windows.phases():
        cell = (target[0], target[1].start, target[2].start)
        if cell in begun:
            total[target] += plane[source]
        else:  # every window holds every colour: each value is set before it is added to
            total[target] = plane[source]
            begun.add(cell)
    return total


def _combined(windows: _Windows, value: Param, shape: tuple[int, ...], power: int) -> Param:
    """sum(value) / n^power per window: a number, (C, 1, 1), or a map (C, Y, X) where windows differ."""
    single = np.ndim(value) == 0
    if single or _is_cell(value, shape):
        cells = np.zeros(windows.counts.shape)
        for place, _, (c, rows, cols) in windows.phases():
            cells[c, rows.start, cols.start] += _cell_value(value, place)
        return _least(cells / windows.counts**power, windows.full)
    return windows.divide(_total(windows, np.broadcast_to(value, shape), np.dtype(np.float32)), power)


def _least(cells: Array, full: tuple[int, int, int]) -> Param:
    """Values (C, rows, cols) of one period in their smallest exact form."""
    if np.all(cells == cells.flat[0]):
        return float(cells.flat[0])
    if np.all(cells == cells[:, :1, :1]):
        return np.asarray(cells[:, :1, :1])
    _, rows, cols = full
    y, x = np.arange(rows) % cells.shape[1], np.arange(cols) % cells.shape[2]
    return np.asarray(cells.astype(np.float32)[:, y[:, None], x])


def _cell_value(value: Any, place: tuple[int, int]) -> float:
    """What a number or a CFA cell is at one place of the period."""
    return float(value) if np.ndim(value) == 0 else float(value[place[0] % value.shape[0], place[1] % value.shape[1]])


def _flags(frame: Frame, windows: _Windows, data: Array) -> Array | None:
    """Flag bits (C, Y, X) of each colour's pixels, SATURATED where one of them reaches the level; None where none is set."""
    old, level = frame.flags, frame.observation.saturation
    flags = np.zeros(windows.full, dtype=np.uint8 if old is None else np.asarray(old).dtype)
    if old is not None:
        old = np.broadcast_to(old, frame.shape)
        for _, source, target in windows.phases():
            flags[target] |= old[source]
    reached = False if level is None else _mark_saturated(flags, windows, data, level)
    return flags if reached or (old is not None and flags.any()) else None


def _mark_saturated(flags: Array, windows: _Windows, data: Array, level: Any) -> bool:
    """Sets SATURATED in place; True where a pixel reaches its level (a number, a cell or a map). Saturated pixels are few."""
    (rows, cols), k = windows.shape, windows.size
    cell = not (np.ndim(level) and _fits_map(level, data.shape))
    whole = level if cell else np.broadcast_to(level, data.shape)
    least, found = _tolerant(np.min(level), data), False
    for start in range(0, rows * k, STRIP):
        strip = data[start : min(start + STRIP, rows * k), : cols * k]
        if not np.fmax.reduce(strip, axis=None) >= least:
            continue
        y, x = np.divmod(np.flatnonzero(strip >= least), cols * k)  # of one axis: several times faster than of two
        if np.ndim(level) and y.size:
            at = level[(y + start) % level.shape[0], x % level.shape[1]] if cell else whole[y + start, x]
            high = strip[y, x] >= _tolerant(at, data)
            y, x = y[high], x[high]
        if y.size:
            y += start
            color = windows.cell[y % windows.cell.shape[0], x % windows.cell.shape[1]]
            flags[color, y // k, x // k] |= np.uint8(Flag.SATURATED)  # the same bit, so that doubles do no harm
            found = True
    return found


def _tolerant(level: Any, data: Array) -> Any:
    # of float data the level was rounded another way than the data
    return level - 4 * np.spacing(np.abs(level).astype(np.float32)) if data.dtype.kind == "f" else level
