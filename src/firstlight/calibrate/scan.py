"""Counts to transmission: what tomography calls dark/flat correction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.calibrate.detector import (
    MAP_STEPS,
    carry_saturation,
    floated,
    mark,
    offset_removed,
    without_black,
)
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Record, Unit
from firstlight.noise import Noise, spread

__all__ = ["transmission"]

Array = NDArray[Any]
STEP = "calibrate.transmission"


class _Field(NamedTuple):
    """The mean of white or dark exposures: mean (Y, X) [ADU], its variance [ADU^2] or None, its flags or None, the number."""

    mean: Array
    variance: Array | None
    flags: Array | None
    exposures: int


def transmission(frame: Frame, *, white: Frame, dark: Frame) -> Frame:
    """(y - dark)/(white - dark) of raw projections [1], float; white and dark [ADU] are averaged over their leading axes.

    Flagged and non-finite exposures are left out of an average; where none is left, or a white is saturated, the flags go on.
    Noise: the frame's own scaled by 1/(white - dark), the shot noise of its dark current in b; white and dark by their own
    models, or the frame's where they have none: the white's mean adds to c, the dark's to d. That is an upper bound: the dark
    stands in numerator and denominator, so its true share is (1 - t)^2 of d. Saturated pixels are flagged first. Where
    white - dark is not positive the pixel is flagged DEAD (NO_DATA where it is not finite) and its transmission is 1.
    Raises FrameError for units, shapes or exposures that do not match, frames calibrated by maps already, or an offset that
    was removed from some of the three only.
    """
    _check(frame, white, dark)
    (w, var_w, flags_w, whites), (d, var_d, flags_d, darks) = _field(white, frame), _field(dark, frame)
    beam = w - d
    lost = ~np.isfinite(beam)
    bad = ~(beam > 0)
    beam = np.where(bad, 1, beam)
    frame = frame.replace(**without_black(frame, carry_saturation(frame)))
    data = floated(frame) - np.where(bad, 0, d).astype(floated(frame).dtype)
    data /= beam.astype(data.dtype)
    data[..., bad] = 1
    noise = frame.noise
    if isinstance(noise, Noise) and var_w is not None and var_d is not None:
        noise = _noise(noise, frame.shape, beam, *(np.where(bad, 0, part) for part in (d, var_w, var_d)))
    flags = mark(mark(frame.flags, bad & ~lost, Flag.DEAD, frame.shape), lost, Flag.NO_DATA, frame.shape)
    for more in (flags_w, flags_d):
        flags = more if flags is None else flags if more is None else np.bitwise_or(flags, more)
    std = None if frame.std is None else np.asarray(frame.std) / beam
    record = Record(STEP, {"whites": whites, "darks": darks}, {"white": white.digest(), "dark": dark.digest()})
    history = (*frame.history, record)
    return frame.replace(data=data, unit=Unit.TRANSMISSION, noise=noise, flags=flags, std=std, history=history)


def _check(frame: Frame, white: Frame, dark: Frame) -> None:
    for name, part in (("projections", frame), ("white", white), ("dark", dark)):
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


def _field(part: Frame, frame: Frame) -> _Field:
    """White or dark exposures averaged; the noise is their own, or that of the frame of the same detector."""
    noise = part.noise if isinstance(part.noise, Noise) else frame.noise
    part = part.replace(**carry_saturation(part))
    data, lead = np.asarray(part.data), tuple(range(len(part.shape) - 2))
    used: Any = np.isfinite(data) if part.flags is None else np.isfinite(data) & (np.asarray(part.flags) == 0)
    number = used.sum(axis=lead)
    used |= number == 0  # where no exposure is usable all are averaged, and flagged
    total = np.where(used, data, 0).sum(axis=lead, dtype=np.float64)
    mean, variance = total / used.sum(axis=lead), None
    if isinstance(noise, Noise):
        a, b, offset, c, d = (spread(p, mean.shape) for p in (noise.a, noise.b, noise.offset, noise.c, noise.d))
        s = np.nan_to_num(mean) - offset
        # shot noise may be negative in a noisy estimate, so that its average is right; only the sum is floored
        variance = np.maximum((a * s + b) / np.maximum(number, 1) + c * s * s + d, 0)
    flags = None
    if part.flags is not None:
        every = np.bitwise_or.reduce(np.broadcast_to(np.asarray(part.flags), data.shape), axis=lead) if lead else part.flags
        flags = np.where(number == 0, every, np.asarray(every) & int(Flag.SATURATED))
    return _Field(mean, variance, flags, int(np.prod(part.shape[:-2], dtype=int)))


def _noise(own: Noise, shape: tuple[int, ...], beam: Array, dark: Array, var_white: Array, var_dark: Array) -> Noise:
    a, b, offset, c, d = (spread(p, shape) for p in (own.a, own.b, own.offset, own.c, own.d))
    floor = np.maximum(b + a * (dark - offset), 0)  # the dark current's shot noise stays in the projection
    moved = Noise(a, floor, 0.0, c, d + var_dark).scaled(1 / beam)
    moved = replace(moved, c=moved.c + var_white / beam**2)
    return Noise(*(p if isinstance(p, float) else p.astype(np.float32) for p in (moved.a, moved.b, 0.0, moved.c, moved.d)))
