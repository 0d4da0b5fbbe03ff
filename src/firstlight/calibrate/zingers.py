"""Zingers: single pixels that stray X-rays hit on the detector, bright in one exposure, isolated in space and time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, ndtr

from firstlight.calibrate.detector import floated
from firstlight.calibrate.gaps import filled
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame
from firstlight.needs import needs
from firstlight.noise import Noise, spread

__all__ = ["Along", "remove_zingers"]

Array = NDArray[Any]
Along = Literal["both", "image", "angle"]
STEP = "calibrate.remove_zingers"
KEPT = (np.float32, np.float64, np.uint8, np.uint16, np.int16)  # types that the working precision holds exactly
HEAVY = 4.5  # standard deviations that an outlier counts for in the local scale


def _rows_beyond(frame: Frame, *, size: int = 3, along: Along = "both", **_: Any) -> int:
    return 0 if along == "angle" else size // 2


def _lines(frame: Frame, *, size: int = 3, **_: Any) -> float:
    """Rows and blocks of columns at work."""
    return 8.0 * (size + 16) * frame.shape[-1] + 3000 * size * size


@needs(halo=_rows_beyond, copies=4.25, fixed=_lines)
def remove_zingers(
    frame: Frame, *, size: int = 3, threshold: float = 6.0, along: Along = "both", both_signs: bool = False
) -> Frame:
    """Pixels far above a median of their neighbours replaced by it and flagged COSMIC_RAY; projections, whites or darks.

    frame: (A, Y, X), (T, Y, X) or (Y, X), any unit; data keep their type. size: odd width [px, projections] of the medians.
    along: 'image', size x size pixels of one projection; 'angle', the same pixel in `size` projections; 'both', only where
    a pixel stands out of both, as zingers do and thin lines and moving edges do not; the smaller excess of the two goes, so
    the lower median stands in. A single exposure has no neighbours in time: 'both' is then 'image', and history says so.
    both_signs: dark outliers too. Beyond the image's borders the data are mirrored at the outermost pixel; the first and last
    projections are compared with the `size` nearest, themselves included.

    threshold: in standard deviations, those of the noise model at the median where the frame has one. Otherwise of a local
    scale: the mean |data - median| over 128 columns of the row (outliers winsorised at 4.5) over its expectation for normal
    noise, for integers at least the rounding error, 1/sqrt(12). Non-finite pixels are interpolated along X first and
    flagged NO_DATA. Noise and std stay: they are those of the data, not of what stands in. Raises FrameError for other axes,
    a mosaic, an even size, a threshold that is not positive, or a row without any finite pixel.
    """
    along = _checked(frame, size, threshold, along)
    raw = np.asarray(frame.data)
    stack = (raw if raw.dtype in KEPT else floated(frame)).reshape(-1, *frame.shape[-2:])
    rule = (size, threshold, along, both_signs)
    done, bits, found = _run(frame, stack, *rule)
    lost = None
    if found < 0:  # NaN somewhere
        del done, bits  # their memory before the next
        stack, lost = filled(stack, STEP)
        done, bits, found = _run(frame, stack, *rule)
        bits |= lost
    flags = frame.flags
    if found or lost is not None:
        flags = bits.reshape(frame.shape) if flags is None else np.bitwise_or(flags, bits.reshape(frame.shape))
    scale = "noise model" if isinstance(frame.noise, Noise) else "local spread"
    params = {"size": size, "threshold": threshold, "along": along, "both_signs": both_signs, "scale": scale}
    return frame.then(STEP, params, data=done.reshape(frame.shape), flags=flags)


def _checked(frame: Frame, size: int, threshold: float, along: Along) -> Along:
    """`along` as it can be had; raises FrameError for what cannot be."""
    if frame.axes not in ("AYX", "TYX", "YX") or 0 in frame.shape:
        raise FrameError(f"{STEP}: axes {frame.axes} of {frame.shape}, expected AYX, TYX or YX and at least one pixel")
    if frame.period() != (1, 1):
        raise FrameError(f"{STEP}: got a colour mosaic, whose neighbours differ; calibrate.flag_cosmic_rays knows mosaics")
    if size < 3 or size % 2 == 0 or not threshold > 0:
        raise FrameError(f"{STEP}: size {size}, threshold {threshold}; expected an odd size from 3 and a positive threshold")
    if along not in get_args(Along):
        raise FrameError(f"{STEP}: along {along!r}, expected one of {', '.join(get_args(Along))}")
    single = frame.shape[:-2] in ((), (1,))
    if single and along == "angle":
        raise FrameError(f"{STEP}: one exposure has no neighbours along the angle; use along='image'")
    return "image" if single else along


def _run(frame: Frame, stack: Array, size: int, threshold: float, along: Along, both_signs: bool) -> tuple[Array, Array, int]:
    """(data, flag bits, number replaced), -1 where the stack holds NaN."""
    from firstlight.calibrate.zinger_kernels import BLOCK, replace_outliers

    image, angle = (0 if along == "angle" else size), (0 if along == "image" else size)
    real, width = (np.float64 if stack.dtype == np.float64 else np.float32), stack.shape[2]
    least = threshold / np.sqrt(12) if stack.dtype.kind in "iu" else 0.0
    limits = np.array([(threshold / k, HEAVY / k, least) for k in (_residual(image * image), _residual(angle))], dtype=real)
    networks = (_network(image * image), _network(angle))
    work = (
        np.empty((max(image, 1), width + max(image - 1, 0)), dtype=real),
        np.empty((max(image * image, angle), BLOCK), dtype=real),
        np.empty((5, width), dtype=real),
    )
    out, bits, found = stack.copy(), np.zeros(stack.shape, dtype=np.uint8), 0
    signs = np.array([1, -1] if both_signs else [1], dtype=real)
    for first, last, law in _laws(frame, stack.shape, threshold, real):
        run, bit = (first, last), int(Flag.COSMIC_RAY)
        n = replace_outliers(stack, run, (image, angle), networks, law, limits, signs, bit, work, out, bits)
        if n < 0:
            return out, bits, -1
        found += n
    return out, bits, found


def _laws(frame: Frame, shape: tuple[int, ...], threshold: float, real: Any) -> Iterator[tuple[int, int, Array]]:
    """(first, last, law) for runs of projections of one noise law: threshold^2 times a and b + d, offset, c."""
    if not isinstance(frame.noise, Noise):
        yield 0, shape[0], np.empty((0, 1, 1), dtype=real)
        return
    n = frame.noise
    square = threshold * threshold
    maps = [np.asarray(spread(p, frame.shape)) for p in (n.a, n.b, n.offset, n.c, n.d)]
    inner = (1, 1) if all(p.size == np.prod(p.shape[:-2]) for p in maps) else shape[1:]
    several = any(p.ndim == 3 and p.shape[0] > 1 for p in maps)
    for i in range(shape[0] if several else 1):
        a, b, offset, c, d = (p[min(i, len(p) - 1)] if p.ndim == 3 else p for p in maps)
        parts = (square * a, square * (b + d), offset, square * c)
        yield i, i + 1 if several else shape[0], np.stack([np.broadcast_to(p, inner) for p in parts]).astype(real)


@lru_cache(maxsize=32)
def _network(n: int) -> Array:
    from firstlight.calibrate.zinger_kernels import network

    return network(max(n, 1))


@lru_cache(maxsize=32)
def _residual(n: int) -> float:
    """E|x - median of n| / sigma for a normal x among the n: (2/n) times the sum of the expected upper order statistics."""
    x, step = np.linspace(-9, 9, 3601, retstep=True)
    pdf, m = np.exp(-x * x / 2) / np.sqrt(2 * np.pi), (n + 1) // 2
    # of the n - 1 others at least m lie below: sum over j > m of E x_(j) = n * integral of x pdf P(Binomial(n - 1, cdf) >= m)
    above = bdtrc(m - 1, n - 1, ndtr(x)) if n > 1 else np.ones_like(x)
    return float(2 * np.sum(x * pdf * above) * step) if n > 1 else 1.0
