"""Counts to transmission: what tomography calls dark/flat correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from firstlight.calibrate.detector import (
    MAP_STEPS,
    carry_saturation,
    mark,
    offset_removed,
    without_black,
)
from firstlight.calibrate.flats import Field, combined, eigen_flats, field, groups, pattern_weights, places
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Record, Unit
from firstlight.needs import needs
from firstlight.noise import Noise, spread

__all__ = ["transmission"]

Array = NDArray[Any]
Flats = Literal["mean", "median", "interpolated", "pca"]
STEP = "calibrate.transmission"
MAPS = 50  # float32 numbers of each detector pixel
COPIES = {"mean": 0, "median": 5, "interpolated": 6, "pca": 8}  # of the white exposures as float32


def _rows_beyond(frame: Frame, *, flats: Flats = "mean", **_: Any) -> int:
    return frame.shape[-2] if flats == "pca" else 0


def _copies(frame: Frame, *, white: Frame, flats: Flats = "mean", **_: Any) -> float:
    """Raw and transmission with flags; maps of the detector in double precision; copies of the white exposures."""
    exposures = int(np.prod(white.shape[:-2], dtype=int))
    return 3.5 + (MAPS + COPIES[flats] * exposures) / frame.shape[0]


@needs(halo=_rows_beyond, copies=_copies)
def transmission(
    frame: Frame,
    *,
    white: Frame,
    dark: Frame | None = None,
    flats: Flats = "mean",
    whites_at: Sequence[float] | None = None,
    components: int | None = None,
) -> Frame:
    """(y - dark)/(white - dark) of raw projections [1], float; white and dark [ADU] are averaged over their leading axes.

    flats: 'mean'; 'median'; 'interpolated', a mean of each group of whites and straight lines in time between them, where
    whites_at says how many projections were taken before each white exposure (None: as the file says, else the first half
    before and the others after, and history says which); 'pca', the mean flat times 1 + its eigen flat fields, weighted in
    each projection for least total variation (Van Nieuwenhove et al. 2015): follows a beam whose pattern moves, not its
    intensity (`normalize_air` does). components: their number, None by parallel analysis. PCA looks at whole projections.
    dark None: the offset that the frame knows; the dark current then stays in.

    Flagged and non-finite exposures are left out of an average; where none is left, or a white is saturated, the flags go on.
    Noise: the frame's own scaled by 1/(white - dark), the shot noise of its dark current in b; white and dark by their own
    models, or the frame's where they have none: the white's mean adds to c, the dark's to d. That is an upper bound: the dark
    stands in numerator and denominator, so its true share is (1 - t)^2 of d. Interpolated flats: beam and c are means over
    the projections; PCA: each component adds to c as much as the mean does. Saturated pixels are flagged first. Where
    white - dark is not positive the pixel is flagged DEAD (NO_DATA where it is not finite) and its transmission is 1; where
    a projection is not finite it stays and is flagged NO_DATA. Raises FrameError for units, shapes or exposures that do not
    match, frames calibrated by maps already, an offset that was removed from some of the three only, no dark and no offset,
    or flats that the whites are too few for.
    """
    _check(frame, white, dark, flats, whites_at, components)
    d = _offset_as_dark(frame) if dark is None else field(dark, frame)
    found = _flats(frame, white, d, flats, whites_at, components)
    lost, bad = ~np.isfinite(found.beam), ~(found.beam > 0)
    for part in found.steps:
        lost, bad = lost | ~np.isfinite(part), bad | ~(part > 0)
    frame = frame.replace(**without_black(frame, carry_saturation(frame)))
    data, not_finite = _divided(frame, found, np.where(bad, 0, d.mean), bad)
    beam = np.where(bad, 1, found.beam)
    noise = frame.noise
    if isinstance(noise, Noise) and found.variance is not None and d.variance is not None:
        noise = _noise(noise, frame.shape, beam, *(np.where(bad, 0, part) for part in (d.mean, found.variance, d.variance)))
    flags = mark(mark(frame.flags, bad & ~lost, Flag.DEAD, frame.shape), lost, Flag.NO_DATA, frame.shape)
    if not_finite:
        flags = mark(flags, ~np.isfinite(np.asarray(frame.data)), Flag.NO_DATA, frame.shape)
    for more in (found.flags, d.flags):
        flags = more if flags is None else flags if more is None else np.bitwise_or(flags, more)
    std = None if frame.std is None else np.asarray(frame.std) / beam
    inputs = {"white": white.digest()} | ({} if dark is None else {"dark": dark.digest()})
    record = Record(STEP, found.params | {"darks": d.exposures}, inputs)
    history = (*frame.history, record)
    return frame.replace(data=data, unit=Unit.TRANSMISSION, noise=noise, flags=flags, std=std, history=history)


class _Flats(NamedTuple):
    """The beam [ADU]: its mean (Y, X), variance, flags; its steps in time (G, Y, X) and the place of each projection between
    them; or eigen flat fields (K, Y, X) relative to it."""

    beam: Array
    variance: Array | None
    flags: Array | None
    params: dict[str, Any]
    steps: Array
    at: Array
    patterns: Array


def _flats(
    frame: Frame, white: Frame, dark: Field, flats: Flats, whites_at: Sequence[float] | None, components: int | None
) -> _Flats:
    count, none = int(np.prod(frame.shape[:-2], dtype=int)), np.empty((0, 1, 1), dtype=np.float32)
    if flats == "interpolated":
        return _interpolated(frame, white, dark, whites_at, count)
    w = field(white, frame, "median" if flats == "median" else "mean")
    params: dict[str, Any] = {"whites": w.exposures} | ({} if flats == "mean" else {"flats": flats})
    if flats != "pca":
        return _Flats(w.mean - dark.mean, w.variance, w.flags, params, none, np.zeros(count), none)
    if w.exposures < 3:
        raise FrameError(f"{STEP}: flats='pca' of {w.exposures} white exposures, expected 3 at least; use flats='mean'")
    beam = w.mean - dark.mean
    stack = np.asarray(white.data, dtype=np.float32) - dark.mean.astype(np.float32)
    patterns = eigen_flats(stack if white.flags is None else np.where(white.flags == 0, stack, np.nan), beam, components)
    variance = None if w.variance is None else w.variance * (1 + len(patterns))
    return _Flats(beam, variance, w.flags, params | {"components": len(patterns)}, none, np.zeros(count), patterns)


def _interpolated(frame: Frame, white: Frame, dark: Field, whites_at: Sequence[float] | None, count: int) -> _Flats:
    times, source = places(frame, int(np.prod(white.shape[:-2], dtype=int)), whites_at)
    members, at = groups(times, count)
    parts = [field(white, frame, "mean", chosen) for chosen in members]
    share = np.maximum(1 - np.abs(at - np.arange(len(parts))[:, None]), 0)  # (groups, projections)
    steps = np.stack([p.mean - dark.mean for p in parts])
    beam = np.tensordot(share.mean(axis=1), steps, 1)
    variance = None
    if all(p.variance is not None for p in parts):
        variance = np.tensordot((share**2).mean(axis=1), np.stack([p.variance for p in parts if p.variance is not None]), 1)
    flags = None if parts[0].flags is None else np.bitwise_or.reduce([np.asarray(p.flags) for p in parts])
    params = {"whites": len(times), "flats": "interpolated", "whites_at": source, "groups": len(parts)}
    return _Flats(beam, variance, flags, params, steps, at, np.empty((0, 1, 1), dtype=np.float32))


def _divided(frame: Frame, found: _Flats, dark: Array, bad: Array) -> tuple[Array, int]:
    """(Transmission, number of results that are not finite), one pass over the projections."""
    from firstlight.calibrate.scan_kernels import divide_fields

    raw = np.asarray(frame.data)
    real: Any = np.result_type(raw.dtype, np.float32)
    stack, dark = raw.reshape(-1, *raw.shape[-2:]), dark.astype(real)
    out = np.empty(stack.shape, dtype=real)
    if len(found.patterns):
        not_finite = _divide_patterns(stack, found, dark, bad, out)
    elif len(found.steps):
        not_finite = divide_fields(stack, dark, np.where(bad, 1, found.steps).astype(real), found.at, out)
    else:
        not_finite = divide_fields(stack, dark, (1 / np.where(bad, 1, found.beam)).astype(real)[None], found.at, out)
    if bad.any():
        out[:, bad] = 1
    return out.reshape(raw.shape), int(not_finite)


def _divide_patterns(stack: Array, found: _Flats, dark: Array, bad: Array, out: Array) -> int:
    from firstlight.calibrate.scan_kernels import divide_fields

    factor, patterns = (1 / np.where(bad, 1, found.beam)).astype(out.dtype), np.where(bad, 0, found.patterns)
    not_finite = 0
    for a in range(len(stack)):
        flat = divide_fields(stack[a : a + 1], dark, factor[None], found.at[:1], out[a : a + 1])
        not_finite += flat
        shown = np.where(bad | ~np.isfinite(out[a]), 1, out[a]) if flat or bad.any() else out[a]
        weights = pattern_weights(shown.astype(np.float32), patterns)
        out[a] /= 1 + combined(weights, patterns)
    return not_finite


def _offset_as_dark(frame: Frame) -> Field:
    """The frame's own offset in the place of dark exposures; raises FrameError where it is unknown."""
    known = frame.noise.offset if isinstance(frame.noise, Noise) else 0.0 if offset_removed(frame) else frame.observation.offset
    if known is None:
        raise FrameError(
            f"{STEP}: no dark frames, and neither the file nor a detector states the offset; measure darks with the beam off, "
            "or calibrate.assign a detector with an offset"
        )
    mean = np.broadcast_to(np.asarray(spread(known, frame.shape[-2:]), dtype=np.float64), frame.shape[-2:])
    return Field(mean, np.zeros(mean.shape), None, 0)


def _check(
    frame: Frame,
    white: Frame,
    dark: Frame | None,
    flats: Flats,
    whites_at: Sequence[float] | None,
    components: int | None,
) -> None:
    if flats not in get_args(Flats):
        raise FrameError(f"{STEP}: flats {flats!r}, expected one of {', '.join(get_args(Flats))}")
    if (whites_at is not None and flats != "interpolated") or (components is not None and flats != "pca"):
        raise FrameError(f"{STEP}: whites_at goes with flats='interpolated', components with 'pca'; got flats={flats!r}")
    if flats in ("interpolated", "pca") and frame.axes != "AYX":
        raise FrameError(f"{STEP}: flats={flats!r} of axes {frame.axes}, expected projections AYX")
    parts = (("projections", frame), ("white", white), *((("dark", dark),) if dark is not None else ()))
    for name, part in parts:
        part.need(f"{STEP}: {name}", Unit.ADU)
        if part.shape[-2:] != frame.shape[-2:]:
            raise FrameError(f"{STEP}: {name} of {part.shape[-2:]} px, the projections have {frame.shape[-2:]}; crop alike")
        done = sorted({r.step for r in part.history} & (MAP_STEPS - {"calibrate.master"} if part is not frame else MAP_STEPS))
        if done:
            raise FrameError(f"{STEP}: the {name} has been through {', '.join(done)}; give raw counts")
        if offset_removed(part) != offset_removed(frame):
            raise FrameError(f"{STEP}: the offset was removed from some of projections, white and dark; give all three raw")
        t, own = part.observation.exposure, frame.observation.exposure
        if t is not None and own is not None and not np.isclose(t, own, rtol=1e-3):
            raise FrameError(f"{STEP}: {name} of {t:g} s, projections of {own:g} s; expected one exposure for all")


def _noise(own: Noise, shape: tuple[int, ...], beam: Array, dark: Array, var_white: Array, var_dark: Array) -> Noise:
    a, b, offset, c, d = (spread(p, shape) for p in (own.a, own.b, own.offset, own.c, own.d))
    floor = np.maximum(b + a * (dark - offset), 0)  # the dark current's shot noise stays in the projection
    moved = Noise(a, floor, 0.0, c, d + var_dark).scaled(1 / beam)
    moved = replace(moved, c=moved.c + var_white / beam**2)
    return Noise(*(p if isinstance(p, float) else p.astype(np.float32) for p in (moved.a, moved.b, 0.0, moved.c, moved.d)))
