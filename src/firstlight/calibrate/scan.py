"""Counts to transmission: what tomography calls dark/flat correction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.calibrate.detector import floated, mark
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.noise import Noise, Unmodelled

__all__ = ["transmission"]

Array = NDArray[Any]


def transmission(frame: Frame, *, white: Frame, dark: Frame) -> Frame:
    """(y - dark)/(white - dark) of raw projections, float32 [1]; white and dark [ADU] are averaged over their leading axes.

    Noise from the frame's own model: scaled by 1/(white - dark), the white's mean adding to c and the dark's to d, as an
    upper bound: the dark stands in numerator and denominator, so its true share is (1 - t)^2 of d. Where white - dark is not
    positive the pixel is flagged DEAD and its transmission is 1. Raises FrameError for units or shapes that do not match.
    """
    for name, part in (("projections", frame), ("white", white), ("dark", dark)):
        part.need(f"calibrate.transmission: {name}", Unit.ADU)
        if part.shape[-2:] != frame.shape[-2:]:
            raise FrameError(f"calibrate.transmission: {name} of {part.shape[-2:]} px, the projections have {frame.shape[-2:]}")
    (w, n_white), (d, n_dark) = _mean(white), _mean(dark)
    beam = w - d
    dead = ~(beam > 0)
    beam = np.where(dead, 1, beam).astype(np.float32)
    data = np.where(dead, np.float32(1), (floated(frame) - d) / beam)
    noise = _noise(frame, w, d, beam, n_white, n_dark)
    flags = mark(frame.flags, dead, Flag.DEAD, frame.shape) if dead.any() else frame.flags
    params = {"whites": n_white, "darks": n_dark}
    std = None if frame.std is None else np.asarray(frame.std) / beam
    return frame.then("calibrate.transmission", params, data=data, unit=Unit.TRANSMISSION, noise=noise, flags=flags, std=std)


def _mean(frame: Frame) -> tuple[Array, int]:
    lead = tuple(range(len(frame.shape) - 2))
    count = int(np.prod(frame.shape[:-2], dtype=int))
    return np.asarray(frame.data).mean(axis=lead, dtype=np.float64).astype(np.float32) if lead else floated(frame), count


def _noise(frame: Frame, w: Array, d: Array, beam: Array, n_white: int, n_dark: int) -> Noise | Unmodelled:
    if isinstance(frame.noise, Unmodelled):
        return frame.noise
    own = frame.noise
    var_white, var_dark = own.averaged(n_white).variance(w), own.averaged(n_dark).variance(d)
    flat = Noise(own.a, own.b, 0.0, own.c, own.d + var_dark).scaled(1 / beam)
    return Noise(flat.a, flat.b, 0.0, flat.c + var_white / beam**2, flat.d)
