"""Stripes of sinograms, which reconstruct as rings: columns of the detector whose response is off at all or many angles.

Every step takes a scan AYX in transmission or optical depth, works on each detector row's sinogram (A, X) by itself and returns
float32 in the same unit. A wrong gain multiplies transmission and adds to optical depth: on transmission, what is additive in a
paper is found on -log(transmission) and multiplied back. Which one: `remove_stripes` for all kinds together (tuned windows),
`remove_stripes_fourier_wavelet` for many weak ones, `remove_stripes_titarenko` for the gentlest touch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded

from firstlight.calibrate.detector import carry_saturation, mark
from firstlight.calibrate.gaps import fill
from firstlight.calibrate.ranks import Found, correct, fluctuating, interpolate
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.needs import needs
from firstlight.noise import Noise

__all__ = [
    "remove_stripes",
    "remove_stripes_dead",
    "remove_stripes_fourier_wavelet",
    "remove_stripes_large",
    "remove_stripes_sorting",
    "remove_stripes_titarenko",
]

Array = NDArray[Any]
Rule = Callable[[Array], tuple[Array, Found]]
FEWEST = 8  # angles: with fewer an edge of the object that does not move is a stripe
PLANES = 7  # sinograms at work at a time, one row after the other
MAPS = 40  # float32 numbers of each detector pixel: noise, levels, flags
DROP = 0.1  # Vo's share of the lowest and highest values that a column's level leaves out


def _copies(frame: Frame, **_: Any) -> float:
    return 3.25 + MAPS / frame.shape[0]


def _planes(frame: Frame, **_: Any) -> float:
    return 4 * PLANES * frame.shape[0] * frame.shape[-1]


@needs(halo=0, copies=_copies, fixed=_planes)
def remove_stripes(frame: Frame, *, snr: float = 3.0, large: int = 61, small: int = 21) -> Frame:
    """Dead, large and all other stripes, by Vo et al. 2018 (algorithms 6, 5 and 3 in turn); AYX, float32, unit unchanged.

    snr: how far, in spans of the noise, a column must stand out to be called large or dead: a lower one calls more. large,
    small: widths [px] of the medians across columns, above the widest large stripe and the widest other stripe. Non-finite
    pixels are interpolated along their row (NO_DATA), dead columns too (DEAD: flagged DEAD or NO_DATA, or not positive in
    transmission, at every angle; found fluctuating: DEFECT); large stripes are replaced by their neighbours' median
    (DEFECT). Noise: as in `remove_stripes_large` and `_sorting`. Of all methods this one changes most where there are no
    stripes: what of the object stays near the axis stands still like one. Where no stripe is wide, `remove_stripes_dead`
    and `remove_stripes_sorting` leave more of it. Raises FrameError for another unit or axes, fewer
    than 8 angles, or a window wider than the detector.
    """
    params = {"snr": snr, "large": large, "small": small}
    step, divide = "calibrate.remove_stripes", frame.unit is Unit.TRANSMISSION
    _check_windows(step, frame, snr, large=large, small=small)

    def rule(plane: Array) -> tuple[Array, Found]:
        lost = fluctuating(plane, snr, large)
        plane = interpolate(plane, lost)
        found = correct(plane, snr=snr, large=large, small=small, drop=DROP, divide=divide)
        return plane, found._replace(replaced=found.replaced | lost)

    return _each(frame, step, params, rule)


@needs(halo=0, copies=_copies, fixed=_planes)
def remove_stripes_sorting(frame: Frame, *, size: int = 21) -> Frame:
    """Full and partial stripes up to size/2 wide by Vo's sorting method (algorithm 3); AYX, float32, unit unchanged.

    Each column is sorted along the angle, each rank takes the median of `size` [px] columns, and goes back to its angle.
    Gaps as in `remove_stripes`. Noise: kept, since every value keeps its rank, and neighbours stay uncorrelated; what
    happens to rims of the object is bias, which no noise model states. Raises FrameError as there.
    """
    step = "calibrate.remove_stripes_sorting"
    _check_windows(step, frame, 1.0, size=size)

    def rule(plane: Array) -> tuple[Array, Found]:
        return plane, correct(plane, snr=1.0, large=0, small=size, drop=0.0, divide=True)

    return _each(frame, step, {"size": size}, rule)


@needs(halo=0, copies=_copies, fixed=_planes)
def remove_stripes_large(frame: Frame, *, snr: float = 3.0, size: int = 61, drop: float = DROP) -> Frame:
    """Large stripes by Vo's method (algorithm 5); AYX, float32, unit unchanged.

    Every column's level against the median of `size` [px] sorted columns, its lowest and highest values left out (a share
    of `drop` together), is divided out of transmission and subtracted from optical depth. Columns whose level stands out by
    `snr`, and by steep edges where the paper takes them without (an object about the axis has gradual ones), are replaced by
    the median (DEFECT). Gaps as in `remove_stripes`. Noise: scaled (or shifted) with the column,
    whose flags say where it was replaced. Raises FrameError as `remove_stripes`, or for a share outside 0..0.9.
    """
    step, divide = "calibrate.remove_stripes_large", frame.unit is Unit.TRANSMISSION
    _check_windows(step, frame, snr, size=size)
    if not 0 <= drop <= 0.9:
        raise FrameError(f"{step}: drop {drop}, expected a share from 0 to 0.9")

    def rule(plane: Array) -> tuple[Array, Found]:
        return plane, correct(plane, snr=snr, large=size, small=0, drop=drop, divide=divide)

    return _each(frame, step, {"snr": snr, "size": size, "drop": drop}, rule)


@needs(halo=0, copies=_copies, fixed=_planes)
def remove_stripes_dead(frame: Frame, *, snr: float = 3.0, size: int = 61) -> Frame:
    """Unresponsive and fluctuating columns by Vo's method (algorithm 6), interpolated; AYX, float32, unit unchanged.

    A column whose difference from its own running mean over 10 angles stands out by `snr` from the median of `size` [px]
    columns, and by a factor of 2 from the nearest 10 on either side, is replaced (DEFECT), its neighbours too; a stripe
    that is left around it is for `remove_stripes_large`. Gaps as in `remove_stripes`. Noise: kept; the columns that have
    none of their own are flagged. Raises FrameError as there.
    """
    step = "calibrate.remove_stripes_dead"
    _check_windows(step, frame, snr, size=size)

    def rule(plane: Array) -> tuple[Array, Found]:
        lost = fluctuating(plane, snr, size)
        return interpolate(plane, lost), Found(_neutral(frame.unit, plane), lost)

    return _each(frame, step, {"snr": snr, "size": size}, rule)


@needs(halo=0, copies=_copies, fixed=_planes)
def remove_stripes_titarenko(frame: Frame, *, alpha: float = 0.05, chunks: int = 1) -> Frame:
    """Full stripes by Titarenko's regularised formula; AYX, float32, unit unchanged.

    The stripe q (X,) of the mean m over angles minimises |D (m - q)|^2 + alpha |q|^2, D the difference of neighbours
    (Titarenko, Withers & Yagola, Appl. Math. Lett. 23, 1489, 2010; 1-D filter of 2016). Less alpha removes more: stripes up
    to about 1/sqrt(alpha) [px] wide. `chunks` parts of the scan are treated by themselves, for partial stripes. Gaps as in
    `remove_stripes`. Noise: scaled (or shifted) with the column; the mean's own noise is a share of chunks/angles of it.
    Raises FrameError as there, for alpha <= 0, or for parts of fewer than 8 angles.
    """
    step = "calibrate.remove_stripes_titarenko"
    _check(step, frame)
    if not alpha > 0 or not 1 <= chunks <= frame.shape[0] // FEWEST:
        raise FrameError(
            f"{step}: alpha {alpha}, chunks {chunks} of {frame.shape[0]} angles; "
            f"expected alpha above 0, parts of {FEWEST} or more"
        )

    def rule(plane: Array) -> tuple[Array, Found]:
        depth = _depth(plane, frame.unit)
        removed = np.empty_like(plane)
        parts = np.array_split(np.arange(plane.shape[0]), chunks)
        means = np.stack([np.mean(depth[p[0] : p[-1] + 1], axis=0, dtype=np.float64) for p in parts])
        for p, q in zip(parts, _regularised(means, alpha), strict=True):
            removed[p[0] : p[-1] + 1] = q
        return _without(plane, removed, frame.unit)

    return _each(frame, step, {"alpha": alpha, "chunks": chunks}, rule)


def _regularised(means: Array, alpha: float) -> Array:
    """q of (D'D + alpha) q = D'D m for each row of `means` (n, X)."""
    slope = np.diff(means, axis=1, prepend=means[:, :1], append=means[:, -1:])
    diagonal = np.full(means.shape[1], 2.0 + alpha)
    diagonal[[0, -1]] = 1.0 + alpha
    if means.shape[1] == 1:
        return np.zeros_like(means)
    band = np.stack([np.full(means.shape[1], -1.0), diagonal])
    return np.asarray(solveh_banded(band, -np.diff(slope, axis=1).T).T)


@needs(halo=0, copies=_copies, fixed=_planes)
def remove_stripes_fourier_wavelet(frame: Frame, *, level: int = 4, wavelet: str = "db5", sigma: float = 2.0) -> Frame:
    """Stripes by the combined wavelet and Fourier filter of Munch et al. 2009; AYX, float32, unit unchanged.

    level: wavelet levels, stripes up to about 2^level [px] wide (and as wide a part of the object). sigma: width [cycles a
    scan] of the Gaussian that takes low frequencies along the angle; more removes shorter partial stripes, and more of the
    object. Gaps as in `remove_stripes`. Noise: scaled (or shifted) with the column's mean correction, of which its own
    noise is a few 1/angles. Raises FrameError as there, for an unknown wavelet, a level beyond the size, or sigma <= 0.
    """
    from firstlight.calibrate.fourier_wavelet import bands, checked, stripes

    step = "calibrate.remove_stripes_fourier_wavelet"
    _check(step, frame)
    if not 0 < sigma < np.inf:
        raise FrameError(f"{step}: sigma {sigma} cycles, expected a positive number, such as 2")
    angles, _, width = frame.shape
    part = bands(angles, checked((angles, width), level, wavelet), wavelet, float(sigma))

    def rule(plane: Array) -> tuple[Array, Found]:
        return _without(plane, stripes(_depth(plane, frame.unit), part, wavelet), frame.unit)

    return _each(frame, step, {"level": level, "wavelet": wavelet, "sigma": sigma}, rule)


def _check(step: str, frame: Frame) -> None:
    frame.need(step, Unit.TRANSMISSION, Unit.OPTICAL_DEPTH)
    if frame.axes != "AYX":
        raise FrameError(f"{step}: got axes {frame.axes}, expected AYX: projections, detector rows, columns")
    if frame.shape[0] < FEWEST:
        raise FrameError(
            f"{step}: {frame.shape[0]} angles, expected {FEWEST} or more: with so few a stripe cannot be told from the object"
        )


def _check_windows(step: str, frame: Frame, snr: float, **sizes: int) -> None:
    _check(step, frame)
    if not 0 < snr < np.inf:
        raise FrameError(f"{step}: snr {snr}, expected a positive number, such as 3")
    for name, size in sizes.items():
        if not 1 < size <= frame.shape[-1]:
            raise FrameError(f"{step}: {name} = {size} px on a detector of {frame.shape[-1]} px, expected 2 to its width")


def _neutral(unit: Unit, plane: Array) -> Array:
    return np.full(plane.shape[1], 1.0 if unit is Unit.TRANSMISSION else 0.0)


def _depth(plane: Array, unit: Unit) -> Array:
    """The plane as optical depth; where transmission is not positive, that of its neighbours."""
    if unit is Unit.OPTICAL_DEPTH:
        return plane
    low = ~(plane > 0)
    plane = fill(plane, low, 1.0) if low.any() else plane
    return np.asarray(-np.log(plane))


def _without(plane: Array, removed: Array, unit: Unit) -> tuple[Array, Found]:
    """The plane less `removed` [optical depth], and its mean over angles as `Found` states it."""
    mean = np.asarray(np.mean(removed, axis=0, dtype=np.float64))
    none = np.zeros(plane.shape[1], dtype=bool)
    if unit is Unit.OPTICAL_DEPTH:
        return plane - removed, Found(mean, none)
    return plane * np.exp(removed), Found(np.exp(-mean), none)


def _each(frame: Frame, step: str, params: dict[str, Any], rule: Rule) -> Frame:
    """`rule` on every sinogram, gaps filled before; the noise goes along with each column's level."""
    _check(step, frame)
    frame = frame.replace(**carry_saturation(frame))
    neutral = 1.0 if frame.unit is Unit.TRANSMISSION else 0.0
    data, (_, rows, width) = np.asarray(frame.data), frame.shape
    out = np.empty(data.shape, dtype=np.float32)
    level, replaced, dead = np.empty((rows, width)), np.empty((rows, width), bool), _flagged_dead(frame)
    gaps = None
    for y in range(rows):
        plane = np.array(data[:, y], dtype=np.float32)
        holes = ~np.isfinite(plane)
        dead[y] |= (holes | (plane <= 0)).all(axis=0) if frame.unit is Unit.TRANSMISSION else False
        if holes.any():
            gaps = np.zeros(data.shape, dtype=bool) if gaps is None else gaps
            gaps[:, y] = holes
        lost = holes | dead[y]
        plane = fill(plane, lost, neutral) if lost.any() else plane
        out[:, y], (level[y], replaced[y]) = rule(plane)
    flags = frame.flags if gaps is None else mark(frame.flags, gaps, Flag.NO_DATA, frame.shape)
    flags = mark(mark(flags, dead, Flag.DEAD, frame.shape), replaced, Flag.DEFECT, frame.shape)
    return frame.then(step, params, data=out, flags=flags, **_noise(frame, level))


def _flagged_dead(frame: Frame) -> Array:
    """Columns (Y, X) whose flags call them dead or without data at every angle."""
    if frame.flags is None:
        return np.zeros(frame.shape[1:], dtype=bool)
    bad = (np.asarray(frame.flags) & int(Flag.DEAD | Flag.NO_DATA)) != 0
    return np.array(np.broadcast_to(bad.all(axis=0) if bad.ndim == 3 else bad, frame.shape[1:]))


def _noise(frame: Frame, level: Array) -> dict[str, Any]:
    gain = frame.unit is Unit.TRANSMISSION
    noise, std, level = frame.noise, frame.std, level.astype(np.float32)
    if isinstance(noise, Noise) and np.any(level != gain):
        noise = noise.scaled(1 / level) if gain else noise.shifted(-level)
    return {"noise": noise, "std": np.asarray(std) / level if gain and std is not None else std}
