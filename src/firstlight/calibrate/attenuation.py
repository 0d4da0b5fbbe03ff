"""Transmission to optical depth: the guarded minus logarithm (Beer and Lambert), with its noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.calibrate.gaps import refuse_empty
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.needs import needs
from firstlight.noise import Noise, Unmodelled, spread

__all__ = ["attenuation"]

Array = NDArray[Any]
STEP = "calibrate.attenuation"
LEFT_OUT = "the variance was left out by calibrate.attenuation(variance=False)"


def _copies(frame: Frame, *, variance: bool = True, **_: Any) -> float:
    return 4.5 if variance else 3.25


def _keeps(frame: Frame, *, variance: bool = True, **_: Any) -> float:
    return float(variance)


@needs(halo=0, copies=_copies, keeps=_keeps)
def attenuation(frame: Frame, *, least: float = 1e-4, variance: bool = True) -> Frame:
    """-log of transmission (..., Y, X) [1]: optical depth [1], float32, the line integral of attenuation.

    A transmission of `least` or below becomes `least` and is flagged FLOORED; a non-finite one is interpolated along X (in
    transmission) and flagged NO_DATA. Noise to first order, var(T)/T^2 with T the data: the projection's own part a T + b,
    and d, over T^2 in the new b, for each pixel; the flat's c T^2 / T^2 = c is the new d, common to all angles, so that it
    makes rings and is no weight. With counts N of N0 that is 1/N + 1/N0. std over T likewise. The logarithm of noisy data is
    too high by var(T)/(2 T^2), .005 at 100 counts and .05 at 10; it is left as it is. variance=False spares the memory of
    the map, one float32 a pixel; the noise is then unmodelled. Raises FrameError for another unit, a `least` outside
    0 < least < 1, or a row without any finite pixel.
    """
    frame.need(STEP, Unit.TRANSMISSION)
    if not 0 < least < 1:
        raise FrameError(f"{STEP}: least {least}, expected a transmission above 0 and below 1, such as one count of the beam's")
    from firstlight.calibrate.scan_kernels import minus_log

    data = np.asarray(frame.data, dtype=np.float32)
    count = int(np.prod(data.shape[:-2], dtype=int))
    stack, laws = data.reshape(count, *data.shape[-2:]), _laws(frame, count, variance)
    out, bits = np.empty_like(stack), np.zeros(stack.shape, dtype=np.uint8)
    var, found = np.empty(stack.shape if laws[0].size else (0, 0, 0), dtype=np.float32), 0
    for i, law in enumerate(laws):
        own = slice(None) if len(laws) == 1 else slice(i, i + 1)
        flagged, empty = minus_log(
            stack[own], np.float32(least), int(Flag.FLOORED), int(Flag.NO_DATA), law, out[own], bits[own], var[own]
        )
        refuse_empty(empty + i * stack.shape[1] if empty >= 0 else -1, stack.shape[1], STEP)
        found += flagged
    flags = frame.flags
    if found:
        flags = bits.reshape(data.shape) if flags is None else np.bitwise_or(flags, bits.reshape(data.shape))
    std = None
    if frame.std is not None:
        std = np.exp(out.reshape(data.shape))
        std *= frame.std
    params = {"least": least, "variance": variance}
    noise = _noise(frame, var, variance)
    return frame.then(STEP, params, data=out.reshape(data.shape), unit=Unit.OPTICAL_DEPTH, noise=noise, std=std, flags=flags)


def _laws(frame: Frame, count: int, variance: bool) -> list[Array]:
    """a and b + d of the frame's noise, (2, Y or 1, X or 1): one law for all projections, or one for each of `count`; an empty
    one where there is none to carry."""
    if not variance or not isinstance(frame.noise, Noise):
        return [np.empty((0, 1, 1), dtype=np.float32)]
    a, b, offset, d = (
        np.asarray(spread(p, frame.shape)) for p in (frame.noise.a, frame.noise.b, frame.noise.offset, frame.noise.d)
    )
    if np.any(offset):
        raise FrameError(
            f"{STEP}: the noise model has an offset, expected zero signal at 0; make it with calibrate.transmission"
        )
    maps = [_projections(p, frame.shape) for p in (a, b, d)]
    size = (1, 1) if all(p[0].size == 1 for p in maps) else frame.shape[-2:]
    each = max(len(p) for p in maps)
    parts = [[np.broadcast_to(p[min(i, len(p) - 1)], size) for p in maps] for i in range(each)]
    return [np.stack([p, q + r]).astype(np.float32) for p, q, r in parts]


def _projections(part: Array, shape: tuple[int, ...]) -> Array:
    """A parameter (1 or all projections, Y or 1, X or 1)."""
    part = part.reshape((1,) * (2 - part.ndim) + part.shape)
    several = part.ndim > 2 and np.prod(part.shape[:-2]) > 1
    return (np.broadcast_to(part, shape[:-2] + part.shape[-2:]) if several else part).reshape(-1, *part.shape[-2:])


def _noise(frame: Frame, var: Array, variance: bool) -> Noise | Unmodelled:
    if isinstance(frame.noise, Unmodelled):
        return frame.noise
    return Noise(0.0, var.reshape(frame.shape), 0.0, 0.0, frame.noise.c) if variance else Unmodelled(LEFT_OUT)
