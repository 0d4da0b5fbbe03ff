"""Denoising with the detector's own noise: non-local means around the generalised Anscombe transform."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame
from firstlight.geometry import Mosaic
from firstlight.noise import Noise, Unmodelled, spread

__all__ = ["halo", "nonlocal_means"]

Array = NDArray[Any]
UNTRUSTED = Flag.SATURATED | Flag.COSMIC_RAY | Flag.HOT | Flag.DEAD | Flag.DEFECT | Flag.NO_DATA
# Fitted on the mean square error over scenes of seeds of their own (docs/decisions/003), never on the benchmark's:
START = 2.0  # patch distance per pixel at which weights begin to fall: its expectation for two equal patches, noise 1
FALL = 12.0  # further distance per pixel over which they fall to zero
TINY = np.float32(1e-30)
OWN = 0.5  # a pixel's own weight; it always resembles itself, so its measured distance says nothing
GAP_NOISE = 0.3  # Var(tight mean - wide mean) times the sum of tight weights
RESIDUAL = 7  # window [px] over which the residual is compared with noise
LEFT = 1.2  # its mean square beyond which it holds signal
ERROR = (-1.09, -0.140, 0.649, -0.116, -0.087, 0.677, 4.73, 0.0682, -0.0098, -0.0728)
EDGE = 1 + RESIDUAL // 2  # the two means are compared over 3 x 3
HUGE = 1e15  # standard deviations at zero signal: squares beyond overflow float32, so that one such pixel makes others NaN
PILOT = 9  # window [px] of the local mean that precisions are taken from, three pixels of a phase at least


def nonlocal_means(frame: Frame, *, patch: int = 5, search: int = 15, strength: float = 1.0, std: bool = True) -> Frame:
    """A restored frame: each pixel the mean of pixels whose surroundings look alike, given the noise of each.

    frame: any axes, each YX plane on its own; any linear unit; data integer or float. patch and search: odd widths [px] of
    the compared patch and of the search window; on a mosaic the window widens to hold as many pixels of the same colour and
    only shifts that map the colour pattern onto itself are used, so that like is compared and averaged with like. strength:
    scales the tolerated patch distance. Returns data float32 [unit]; noise Unmodelled, since neighbours now share noise;
    std [unit], None where `std` is False; flags, geometry, header kept.

    Where noise parameters agree from pixel to pixel: stabilise (generalised Anscombe), average, exact unbiased inverse.
    Where they differ (sCMOS maps, flat-fielded data, noise of master frames) equal light has unequal stabilised values, so
    the data themselves are averaged, each weighed by the inverse of its variance, and distances are (y_i - y_j)^2 /
    (v_i + v_j): of expectation 1 for equal Poisson means. That assumes that equal light gives equal values: flat-field first.

    Flagged pixels (saturated, cosmic ray, hot, dead, defect, no data) and non-finite ones (or 1e15 standard deviations and
    more from zero signal, as files fill holes with -3e38) weigh nothing in distances or means; each gets the estimate from
    its unflagged neighbours, saturated ones keep their value, a lower bound. Where no unflagged pixel lies in the window, the
    input stays.

    The estimate is Buades, Coll & Morel 2005 with two weightings at once, mixed by their local difference; `std` is the root
    of a local error model of those two means (`_error_model`), calibrated against truth on other scenes than the benchmark's:
    rms(error / std) 0.6 to 1.3 by scene; too large in flat surroundings, where hidden texture cannot be told from none. NaN
    where the input was kept.
    Raises FrameError where the noise is unmodelled or a parameter is no odd width or not positive.
    """
    noise = frame.known_noise("nonlocal_means")
    shifts = _shifts(frame, patch, search)
    if not strength > 0:
        raise FrameError(f"nonlocal_means: strength {strength}, expected a positive number")
    out = np.empty(frame.shape, dtype=np.float32)
    error = np.zeros(frame.shape, dtype=np.float32) if std else None
    for lead in np.ndindex(frame.shape[:-2]):
        plane = _plane_noise(noise, frame.shape, lead)
        flags = _plane(frame.flags, frame.shape, lead)
        into = None if error is None else error[lead]
        out[lead] = _restore(np.asarray(frame.data[lead]), flags, plane, frame.period(), shifts, patch, strength, into)
    params = {"patch": patch, "search": search, "strength": strength, "std": std}
    restored = Unmodelled("restored: pixels are correlated")
    return frame.then("restore.nonlocal_means", params, data=out, noise=restored, std=error)


def halo(frame: Frame, *, patch: int = 5, search: int = 15, strength: float = 1.0, std: bool = True) -> int:
    """Pixels beyond its own, along Y and X, that a pixel of `nonlocal_means` depends on, for the same parameters."""
    pilot = max(max(p, PILOT // 2) if p > 1 else PILOT // 2 for p in frame.period())
    return int(np.abs(_shifts(frame, patch, search)).max()) + max(patch // 2, pilot) + EDGE


def _shifts(frame: Frame, patch: int, search: int) -> Array:
    """Half of the search window, (n, 2) int64: shifts after the centre in row-major order that keep the colour pattern."""
    for name, width in (("patch", patch), ("search", search)):
        if not isinstance(width, int) or width < 3 or width % 2 == 0:
            raise FrameError(f"nonlocal_means: {name} {width}, expected an odd number of pixels of at least 3")
    cell = frame.geometry.cell() if isinstance(frame.geometry, Mosaic) else np.zeros((1, 1))
    alike = np.array([[_same(cell, (i, j)) for j in range(cell.shape[1])] for i in range(cell.shape[0])])
    radius = ceil((search // 2) * np.sqrt(alike.size / alike.sum()))
    dy, dx = np.mgrid[0 : radius + 1, -radius : radius + 1]
    keep = ((dy > 0) | (dx > 0)) & alike[dy % cell.shape[0], dx % cell.shape[1]]
    return np.stack([dy[keep], dx[keep]], axis=1).astype(np.int64)


def _same(cell: Any, shift: tuple[int, int]) -> bool:
    return bool(np.all(np.roll(cell, shift, axis=(0, 1)) == cell))


def _plane(part: Any, shape: tuple[int, ...], lead: tuple[int, ...]) -> Any:
    if part is None or len(part.shape) <= 2:
        return part
    index = tuple(0 if n == 1 else i for i, n in zip(lead[len(shape) - len(part.shape) :], part.shape[:-2], strict=True))
    return np.asarray(part[index])


def _plane_noise(noise: Noise, shape: tuple[int, ...], lead: tuple[int, ...]) -> Noise:
    parts = {}
    for name in ("a", "b", "offset", "c", "d"):
        value = getattr(noise, name)
        if not isinstance(value, float):
            value = _plane(value if value.ndim <= 2 else spread(value, shape), shape, lead)
            value = float(value.reshape(-1)[0]) if value.size == 1 else value
        parts[name] = value
    return Noise(**parts)


def _uniform(noise: Noise, shifts: Array) -> bool:
    """Every pixel has the noise parameters of those it is compared with, and the exact inverse covers them."""
    maps = [p for p in (noise.a, noise.b, noise.d, noise.offset) if not isinstance(p, float)]
    if np.any(np.asarray(noise.c) > 0) or not np.all(np.asarray(noise.a) > 0):
        return False
    return all(max(p.shape) <= 8 and all(_same(p, (int(y), int(x))) for y, x in shifts) for p in maps)


def _restore(
    data: Array,
    flags: Any,
    noise: Noise,
    period: tuple[int, int],
    shifts: Array,
    patch: int,
    strength: float,
    error: Array | None,
) -> Array:
    """One plane, float32 (Y, X) [unit]; its standard error goes into `error` where wanted, NaN where the input was kept."""
    if not any(np.any(np.asarray(p)) for p in (noise.a, noise.b, noise.c, noise.d)):
        return data.astype(np.float32)
    offset = spread(noise.offset, data.shape)
    good, keep = _trusted(data, flags)
    good &= np.abs(np.where(good, data, offset) - offset) < HUGE * np.sqrt(_least(noise, data.shape))
    values = np.where(good, data, offset).astype(np.result_type(data.dtype, np.float32), copy=False)
    signal = (values - offset).astype(np.float32)
    if _uniform(noise, shifts):
        z, ones = (noise.stabilise(values) * good).astype(np.float32), np.ones(data.shape, np.float32)
        mean, features = _average(z, ones, good.astype(np.float32), shifts, patch, strength)
        mean = (noise.unstabilise(mean) - offset).astype(np.float32)
        variance = noise.variance(mean + offset).astype(np.float32)
    else:
        var, prec = _weights(values, good, noise, period)
        mean, (share, gap, wide, tight, own) = _average(signal, var, prec, shifts, patch, strength)
        variance = noise.variance(mean + offset).astype(np.float32)
        unit = np.maximum(variance, TINY)
        features = (share, gap / unit, wide * unit, tight * unit, own)
    texture = _return_texture(signal, good, mean, variance, noise)
    keep |= features[2] < TINY  # the sum of weights: nothing trusted in reach
    if error is not None:
        error[...] = np.where(keep, np.nan, np.sqrt(variance * _error_model(features, texture)))
    return np.where(keep, data, mean + offset).astype(np.float32)


def _trusted(data: Array, flags: Any) -> tuple[Array, Array]:
    """Where a pixel is trusted, and where its value is kept whatever the neighbours say: two masks (Y, X)."""
    good, keep = np.isfinite(data), np.zeros(data.shape, dtype=bool)
    if flags is not None:
        good &= (np.asarray(flags) & int(UNTRUSTED)) == 0
        keep |= (np.asarray(flags) & int(Flag.SATURATED)) != 0
    return good, keep


def _return_texture(signal: Array, good: Array, mean: Array, variance: Array, noise: Noise) -> tuple[Array, Array]:
    """Adds to `mean`, in place, the residual's excess over noise; see `nlm.add_back`."""
    from firstlight.restore import nlm

    quantum = np.float32(0.5) * np.square(spread(noise.a, signal.shape))  # a lone photon in the dark is no texture
    prec = (good / np.maximum(np.maximum(variance, quantum), TINY)).astype(np.float32)
    back, left = nlm.add_back(signal, prec, mean, RESIDUAL // 2, LEFT)
    return back, left


def _weights(values: Array, good: Array, noise: Noise, period: tuple[int, int]) -> tuple[Array, Array]:
    """Variances for distances, from each pixel's own value, and precisions for means, from a local mean: (Y, X) float32."""
    least = np.maximum(0.1 * np.square(spread(noise.a, values.shape)), 1e-20)  # a tenth of one quantum: two zeros are alike
    trust = good / _least(noise, values.shape)
    pilot = values.astype(trust.dtype)
    for phase in np.ndindex(period):
        own = tuple(slice(first, None, step) for first, step in zip(phase, period, strict=True))
        size = [2 * (PILOT // 2 // p) + 1 if p <= PILOT // 2 else 3 for p in period]
        weight = uniform_filter(trust[own], size, mode="constant")
        total = uniform_filter((trust * values)[own], size, mode="constant")
        np.divide(total, weight, out=pilot[own], where=weight > 0)
    var = np.maximum(noise.variance(values), least)
    return var.astype(np.float32), (good / np.maximum(noise.variance(pilot), least)).astype(np.float32)


def _least(noise: Noise, shape: tuple[int, ...]) -> Array:
    """Variance [unit^2] at zero signal, (Y, X), a tenth of one quantum at least."""
    offset = np.broadcast_to(spread(noise.offset, shape), shape)
    return np.maximum(noise.variance(offset), np.maximum(0.1 * np.square(spread(noise.a, shape)), 1e-20))


def _average(z: Array, var: Array, prec: Array, shifts: Array, patch: int, strength: float) -> tuple[Array, tuple[Array, ...]]:
    """The mixed mean of `z` and what its error is judged by, NaN where no pixel of the window is trusted."""
    from firstlight.restore import nlm

    area = patch * patch
    sums = np.zeros((4, *z.shape), dtype=np.float32)
    sums[1] = sums[3] = OWN * prec
    nlm.accumulate(z, var, prec, shifts, patch // 2, START * area, 1 / (FALL * strength * area), sums)
    _fill(z, prec, shifts, sums)
    wide, tight = sums[:2], sums[2:]
    mean, share, gap = nlm.mix(z, wide, tight, GAP_NOISE)
    own = OWN * prec * ((1 - share) / np.maximum(wide[1], TINY) + share / np.maximum(tight[1], TINY))
    return mean, (share, gap, wide[1], tight[1], own)


def _fill(z: Array, prec: Array, shifts: Array, sums: Array) -> None:
    """Sums for untrusted pixels that resemble nothing: their window's trusted pixels, by inverse squared distance."""
    y, x = np.nonzero((prec == 0) & (sums[1] == 0))
    for dy, dx in [*shifts, *(-shifts)] if y.size else ():
        q, p = y + dy, x + dx
        ok = (q >= 0) & (q < z.shape[0]) & (p >= 0) & (p < z.shape[1])
        w = np.where(ok, prec[q * ok, p * ok], 0) / np.float32(dy * dy + dx * dx)
        sums[0::2, y, x] += w * z[q * ok, p * ok]
        sums[1::2, y, x] += w


def _error_model(means: tuple[Array, ...], texture: tuple[Array, Array]) -> Array:
    """Mean square error in units of the noise variance, float32 (Y, X).

    exp of a quadratic form in what is seen without truth: log 1/sum(w) of the two means (their variance), the log of their
    squared difference over 3 x 3 (bias of the wide one), the log of the mean squared residual, and the mixing shares. Not
    below the square of a pixel's own weight in its estimate: where nothing resembles it, its noise is all there.
    """
    (share, gap, wide, tight, own), (back, left) = means, texture
    a, b = (-np.log(np.maximum(w, np.float32(0.5))) for w in (wide, tight))
    d, r = np.log(gap / 9 + np.float32(1e-4)), np.log(np.maximum(left, np.float32(0.1)))
    log_mse = np.full(share.shape, ERROR[0], dtype=np.float32)
    for k, term in zip(ERROR[1:7], (a, b, d, r, share, back), strict=True):
        log_mse += np.float32(k) * term
    for k, (one, two) in zip(ERROR[7:], ((a, a), (d, d), (a, d)), strict=True):
        log_mse += np.float32(k) * one * two
    del a, b, d, r
    own = back + (1 - back) * np.minimum(own, 1)
    mse = np.exp(np.clip(log_mse, -8, np.float32(0.3) * (1 - own)))  # alone, a pixel errs by its noise and no more
    return np.asarray(np.maximum(mse, own * own))
