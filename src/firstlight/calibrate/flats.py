"""White and dark exposures of a scan made into fields: mean, median, groups in time, and eigen flat fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.calibrate.detector import carry_saturation
from firstlight.calibrate.outliers import factors
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame
from firstlight.geometry import WHITES_AT, Scan
from firstlight.noise import Noise, spread

__all__ = ["Field", "combined", "eigen_flats", "field", "groups", "pattern_weights", "places"]

Array = NDArray[Any]
EDGE = 1.1  # an eigenvalue counts from this multiple of noise's largest on, which fluctuates by some per cent
SMALL = 64  # rows or columns from which on patterns are compared on pixels binned by two


class Field(NamedTuple):
    """The mean of white or dark exposures: mean (Y, X) [ADU], its variance [ADU^2] or None, its flags or None, the number."""

    mean: Array
    variance: Array | None
    flags: Array | None
    exposures: int


def field(part: Frame, frame: Frame, how: str = "mean", chosen: Array | None = None) -> Field:
    """White or dark exposures averaged (those `chosen`); the noise is their own, or that of the frame of the same detector."""
    noise = part.noise if isinstance(part.noise, Noise) else frame.noise
    part = part.replace(**carry_saturation(part))
    stack = part.data if len(part.shape) == 3 else np.asarray(part.data).reshape(-1, *part.shape[-2:])
    bits = None if part.flags is None else np.broadcast_to(np.asarray(part.flags), part.shape).reshape(stack.shape)
    taken = np.arange(stack.shape[0]) if chosen is None else chosen
    if taken.size == 0:
        raise FrameError("calibrate.transmission: got no exposures for a field, expected one at least; leave it out instead")
    mean, number = (_mean if how == "mean" else _median)(stack, bits, taken)
    variance = None
    if isinstance(noise, Noise):
        a, b, offset, c, d = (spread(p, mean.shape) for p in (noise.a, noise.b, noise.offset, noise.c, noise.d))
        s = np.nan_to_num(mean) - offset
        # shot noise may be negative in a noisy estimate, so that its average is right; only the sum is floored
        variance = np.maximum((a * s + b) * factors(taken.size, how)[number] + c * s * s + d, 0)
    flags = None
    if bits is not None:
        every = np.bitwise_or.reduce(bits[taken], axis=0)
        flags = np.where(number == 0, every, every & int(Flag.SATURATED))
    return Field(mean, variance, flags, int(taken.size))


def _usable(stack: Any, bits: Array | None, i: int) -> tuple[Array, Array]:
    x = np.asarray(stack[i])
    return x, np.isfinite(x) if bits is None else np.isfinite(x) & (bits[i] == 0)


def _mean(stack: Any, bits: Array | None, taken: Array) -> tuple[Array, Array]:
    """(mean in float64, exposures used) of each pixel, one exposure in memory at a time; all are used where none is good."""
    total, every = np.zeros((2, *stack.shape[1:]))
    number = np.zeros(stack.shape[1:], dtype=np.intp)
    for i in taken:
        x, good = _usable(stack, bits, i)
        np.add(total, x, out=total, where=good)
        every += x
        number += good
    none = number == 0
    return np.where(none, every / taken.size, total / np.maximum(number, 1)), number


def _median(stack: Any, bits: Array | None, taken: Array) -> tuple[Array, Array]:
    kept = [_usable(stack, bits, i) for i in taken]
    number = np.sum([good for _, good in kept], axis=0)
    none = number == 0
    order = np.sort([np.where(good | none, x, np.inf) for x, good in kept], axis=0)
    last = np.where(none, taken.size, number)
    low, high = (np.take_along_axis(order, k[None], axis=0)[0] for k in ((last - 1) // 2, last // 2))
    return (low.astype(np.float64) + high) / 2, number


def places(frame: Frame, exposures: int, whites_at: Sequence[float] | None) -> tuple[Array, str]:
    """(Projections taken before each white exposure, who says so): the caller, the file, or by halves before and after."""
    count = frame.shape[0]
    extra = dict(frame.geometry.extra) if isinstance(frame.geometry, Scan) else {}
    if whites_at is not None:
        at, source = np.asarray(whites_at, dtype=np.float64), "given"
    elif WHITES_AT in extra:
        at, source = np.asarray(extra[WHITES_AT], dtype=np.float64), "the file"
    else:
        at, source = np.where(np.arange(exposures) < exposures // 2, 0.0, float(count)), "first half before, the others after"
    if at.shape != (exposures,) or not np.all(np.isfinite(at)):
        raise FrameError(
            f"calibrate.transmission: places of {at.shape} white exposures ({source}), expected {exposures} finite numbers: "
            "how many projections were taken before each"
        )
    return at, source


def groups(at: Array, count: int) -> tuple[list[Array], Array]:
    """(Exposures of each group, place (count,) of each projection between groups): whites without a projection in between."""
    times = np.unique(at)
    if times.size < 2:
        raise FrameError(
            "calibrate.transmission: flats='interpolated' needs white exposures at two times at least, all were taken at "
            f"projection {times[0]:g}; use flats='mean', or state whites_at"
        )
    where = np.interp(np.arange(count), times - 0.5, np.arange(times.size))
    return [np.flatnonzero(at == t) for t in times], where


def eigen_flats(whites: Array, beam: Array, components: int | None) -> Array:
    """Eigen flat fields (K, Y, X), float32, relative to the mean flat, rms 1: how the flats differ but for their intensity.

    whites: (T, Y, X) dark-subtracted, NaN where they do not count; beam: their mean (Y, X). Van Nieuwenhove et al., Opt.
    Express 23, 27975 (2015), with parallel analysis in its limit of many pixels: an eigenvalue counts where it exceeds the
    largest that noise of the same pixel variances would have (Marchenko & Pastur 1967), one component after the other.
    """
    relative = np.asarray(whites / np.where(beam > 0, beam, np.nan), dtype=np.float32)
    good = np.isfinite(relative)
    relative[~good] = 0
    relative /= relative.sum(axis=(1, 2), keepdims=True) / good.sum(axis=(1, 2), keepdims=True)
    relative[~good] = 1
    relative -= relative.mean(axis=0)
    x = relative.reshape(len(whites), -1)
    most = len(whites) - 1
    if components is not None and not 0 <= components <= most:
        raise FrameError(f"calibrate.transmission: {components} components of {most + 1} flats, expected 0 to {most}")
    values, vectors = np.linalg.eigh((x @ x.T).astype(np.float64))
    found = []
    for k in range(most if components is None else components):
        if components is None and not values[-1 - k] > EDGE * _noise_edge(x, most - k):
            break
        pattern = vectors[:, -1 - k].astype(np.float32) @ x
        x = x - np.outer(vectors[:, -1 - k].astype(np.float32), pattern)
        found.append(pattern / max(float(np.sqrt(np.mean(pattern**2))), 1e-30))
    return np.reshape(found, (len(found), *beam.shape)).astype(np.float32)


def _noise_edge(x: Array, ranks: int) -> float:
    power = np.sum(x**2, axis=0, dtype=np.float64) / ranks
    total = power.sum()
    pixels = total**2 / max(float(np.sum(power**2)), 1e-300)  # that many would count alike
    return float(total * (1 + np.sqrt(ranks / pixels)) ** 2)


def pattern_weights(projection: Array, patterns: Array, steps: int = 3, sweeps: int = 8) -> Array:
    """Weights (K,) with which `patterns` make projection / (1 + w . patterns) of least total variation (eq. 6 of the paper).

    projection (Y, X): dark-subtracted over the mean flat. The pattern's mean is left out, so that no weight can lower the
    variation by dimming. Gauss-Newton in w, each step a least-absolute-values fit by reweighting.
    """
    q, g = _binned(projection), _binned(patterns)
    g = g - g.mean(axis=(1, 2), keepdims=True)
    weights = np.zeros(len(g))
    for _ in range(steps):
        shape = np.maximum(1 + combined(weights, g), 0.1)
        now = q / shape
        b, a = _gradient(now[None])[0], _gradient(now * g / shape)
        step = np.zeros(len(g))
        soft = 0.01 * float(np.mean(np.abs(b))) + 1e-12
        for _ in range(sweeps):
            pull = a / np.maximum(np.abs(b - combined(step, a)), soft)
            step = np.linalg.lstsq(np.einsum("kn,ln->kl", pull, a), np.einsum("kn,n->k", pull, b), rcond=1e-6)[0]
        weights += step
    return weights


def combined(weights: Array, patterns: Array) -> Array:
    """The weighted sum of patterns (K, ...). Not by BLAS, whose threads would wait for each other on so few terms."""
    return np.asarray(np.einsum("k,k...->...", weights.astype(patterns.dtype), patterns))


def _binned(x: Array) -> Array:
    for axis in (-2, -1):
        n = x.shape[axis]
        if n >= SMALL:
            even, odd = (np.take(x, np.arange(k, n - 1 + k % 2, 2)[: n // 2], axis=axis) for k in (0, 1))
            x = (even + odd) / 2
    return x


def _gradient(x: Array) -> Array:
    flat = (len(x), -1)
    return np.concatenate([np.diff(x, axis=1).reshape(flat), np.diff(x, axis=2).reshape(flat)], axis=1)
