"""The noise of a detector, closed under what calibration does to it.

    s   = mean - offset                       [unit of the data]
    var = a s + b + c s^2 + d                 [unit^2]

a: shot noise, b: read noise squared, both independent from frame to frame. c and d: the noise of a master flat and of
a master bias or dark, which every frame that shares the master has in common, so that averaging does not lower them.
In raw counts a = 1/gain and b = (read_noise/gain)^2 with the gain in e-/ADU; in electrons a = 1 and b = read_noise^2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.box import Box
from firstlight.errors import FrameError

__all__ = ["Detector", "Noise", "Unmodelled", "crop_map", "spread"]

Array = NDArray[Any]
Param = float | Array
CELL = 8  # a map no larger than this that does not fit the data is a CFA cell, tiled from the data's origin


def _param(name: str, value: Any) -> Param:
    try:
        array = np.asarray(value, dtype=np.float64 if np.ndim(value) == 0 else None)
    except (ValueError, TypeError):
        raise FrameError(f"noise: {name} is {value!r}, expected a number, or rows of numbers") from None
    if array.dtype.kind not in "fiu":
        raise FrameError(f"noise: {name} is {array.dtype}, expected numbers")
    if not np.all(np.isfinite(array)):
        raise FrameError(f"noise: {name} holds NaN or infinite values; flag those pixels and give them a finite value")
    return float(array) if array.ndim == 0 else array.astype(np.result_type(array.dtype, np.float32), copy=False)


def _fits(map_shape: Sequence[int], shape: Sequence[int]) -> bool:
    tail = shape[len(shape) - len(map_shape) :] if len(map_shape) <= len(shape) else ()
    return len(map_shape) <= len(shape) and all(m in (1, n) for m, n in zip(map_shape, tail, strict=True))


def spread(value: Param, shape: Sequence[int]) -> Param:
    """A parameter as a scalar or an array that broadcasts to `shape`; a CFA cell (rows, cols) is tiled over (Y, X).

    Raises FrameError where the parameter neither broadcasts nor is a cell.
    """
    if isinstance(value, float) or _fits(value.shape, shape):
        return value
    if len(shape) < 2 or value.ndim != 2 or max(value.shape) > CELL:
        raise FrameError(
            f"a map of shape {value.shape} does not fit data of shape {tuple(shape)}; give a scalar, an array that broadcasts, "
            f"or a CFA cell of at most {CELL} x {CELL}"
        )
    reps = [ceil(n / k) for n, k in zip(shape[-2:], value.shape, strict=True)]
    return np.tile(value, reps)[: shape[-2], : shape[-1]]


def crop_map(value: Any, shape: Sequence[int], box: Box) -> Any:
    """The part of a parameter or map inside `box`, for data of `shape`; a CFA cell is rolled to the new origin."""
    if value is None or np.ndim(value) == 0:
        return value
    if not _fits(value.shape, shape):
        return np.roll(value, [-box.start[-2], -box.start[-1]], axis=(0, 1)) if np.ndim(value) == 2 else spread(value, shape)
    tail = box.slices[box.ndim - len(value.shape) :]
    return value[tuple(slice(0, 1) if m == 1 else s for m, s in zip(value.shape, tail, strict=True))]


def _matched(p: Param, q: Param) -> tuple[Param, Param]:
    """Two parameters of one frame; where one is a CFA cell and the other a map of the data, the cell is tiled over the map."""
    if isinstance(p, float) or np.ndim(q) == 0 or _fits(p.shape, np.shape(q)) or _fits(np.shape(q), p.shape):
        return p, q
    q = np.asarray(q)
    return (spread(p, q.shape), q) if p.size < q.size else (p, spread(q, p.shape))


def _times(p: Param, k: Param) -> Param:
    if isinstance(p, float) and p == 0:  # no map of zeros
        return p
    p, k = _matched(p, k)
    return p * k


def _single(x: ArrayLike) -> Array:
    """As an array, half floats as float32: they end at 65504."""
    x = np.asarray(x)
    return x.astype(np.float32) if x.dtype == np.float16 else x


@dataclass(frozen=True)
class Unmodelled:
    """The noise is unknown or correlated; `reason` says why, and every refusal repeats it."""

    reason: str


@dataclass(frozen=True, eq=False)
class Noise:
    """Poisson-Gaussian noise of independent pixels: var = a (mean - offset) + b + c (mean - offset)^2 + d.

    a [unit], b and d [unit^2], offset [unit], c [1]: each a scalar, an array that broadcasts to the data, or a CFA cell
    (rows, cols) of the data's own origin. Raises FrameError for NaN, or for negative b, c or d.
    """

    a: Param
    b: Param
    offset: Param = 0.0
    c: Param = 0.0
    d: Param = 0.0

    def __post_init__(self) -> None:
        for name in ("a", "b", "offset", "c", "d"):
            object.__setattr__(self, name, _param(name, getattr(self, name)))
        for name in ("b", "c", "d"):
            if np.any(np.asarray(getattr(self, name)) < 0):
                raise FrameError(f"noise: {name} has negative values, expected a variance; is the read noise given as its RMS?")

    def _each(self, shape: Sequence[int]) -> tuple[Param, ...]:
        return tuple(spread(p, shape) for p in (self.a, self.b, self.offset, self.c, self.d))

    def variance(self, mean: ArrayLike) -> Array:
        """Variance [unit^2] of a pixel whose mean is `mean` [unit]; no shot noise where the mean lies below the offset."""
        mean = _single(mean)
        a, b, offset, c, d = self._each(mean.shape)
        s = mean - offset
        s = np.where(a * s < 0, 0, s)  # the sign of a pixel's gain may be negative on sCMOS maps
        return np.asarray(a * s + b + c * s * s + d, dtype=np.result_type(mean.dtype, np.float32))

    def sample(self, mean: ArrayLike, rng: np.random.Generator) -> Array:
        """One noisy realisation [unit] of `mean` [unit]: Poisson shot noise plus Gaussian terms."""
        mean = np.asarray(mean, dtype=np.float64)
        a, b, offset, c, d = (np.asarray(p, dtype=np.float64) for p in self._each(mean.shape))
        s = mean - offset
        s = np.where(a * s < 0, 0, s)
        quanta = np.divide(s, a, out=np.zeros(np.broadcast_shapes(s.shape, a.shape)), where=a != 0)
        shot = np.where(a != 0, a * rng.poisson(quanta), s)
        return np.asarray(offset + shot + rng.standard_normal(mean.shape) * np.sqrt(b + d + c * s * s))

    def shifted(self, k: Param) -> Noise:
        """The noise after adding `k` [unit] to the data."""
        offset, k = _matched(self.offset, k)
        return replace(self, offset=offset + k)

    def scaled(self, k: Param) -> Noise:
        """The noise after multiplying the data by `k` [new unit / unit]."""
        a, b, offset, d = (_times(p, q) for p, q in ((self.a, k), (self.b, k * k), (self.offset, k), (self.d, k * k)))
        return replace(self, a=a, b=b, offset=offset, d=d)

    def averaged(self, n: int) -> Noise:
        """The noise of the mean of `n` frames with independent noise and shared master frames."""
        if n < 1:
            raise FrameError(f"noise: averaged over {n} frames, expected 1 or more")
        return replace(self, a=self.a / n, b=self.b / n)

    def crop(self, shape: Sequence[int], box: Box) -> Noise:
        """The noise of the part of an array of `shape` inside `box`."""
        return Noise(*(crop_map(getattr(self, k), shape, box) for k in ("a", "b", "offset", "c", "d")))

    def stabilise(self, y: ArrayLike) -> Array:
        """Generalised Anscombe transform of data `y` [unit]: about unit variance at every signal level.

        (2/a) sqrt(a s + 3/8 a^2 + b), Starck, Murtagh & Bijaoui 1998; with c > 0 the integral of 1/sqrt(var). Raises
        FrameError for a negative gain, or where there is no noise at zero signal and none from photons.
        """
        y = _single(y)
        a, b, offset, c, d = self._each(y.shape)
        _stabilisable(a, b, d)
        z = _stabilise(y - offset, a, b + d, c)
        return np.asarray(z, dtype=np.result_type(y.dtype, np.float32))

    def unstabilise(self, z: ArrayLike) -> Array:
        """The mean [unit] whose stabilised data average to `z`: the exact unbiased inverse, by table.

        Makitalo & Foi 2013 with E[stabilise(Y) | mean] computed for this read noise; continued as a straight line below
        zero signal, where clipping would bias dark regions upwards. With c > 0 or a = 0 somewhere the inverse is of second
        order instead. Raises FrameError as `stabilise` does.
        """
        z = np.asarray(z, dtype=np.float64)
        a, b, offset, c, d = self._each(z.shape)
        _stabilisable(a, b, d)
        if np.any(np.asarray(c) > 0) or not np.all(np.asarray(a) > 0):
            return np.asarray(_invert_general(z, a, b + d, c) + offset)
        return np.asarray(a * _invert_exact(z, np.sqrt(b + d) / a) + offset)


def _stabilisable(a: Param, b: Param, d: Param) -> None:
    if np.any(np.asarray(a) < 0):
        raise FrameError(
            "noise: a negative gain cannot be stabilised; flag those pixels as defect and give them a positive gain"
        )
    if np.any((np.asarray(a) == 0) & (np.asarray(b) + d == 0)):
        raise FrameError("noise: a pixel without noise (a, b and d are 0) cannot be stabilised; give it its read noise")


def _stabilise(s: Array, a: Param, b: Param, c: Param) -> Array:
    if np.all(np.asarray(a) > 0) and not np.any(np.asarray(c) > 0):
        return np.asarray((2 / a) * np.sqrt(np.maximum(a * s + (0.375 * a * a + b), 0)))
    # integral of ds / sqrt(v), v = c s^2 + a s + v0, v0 = b + 3/8 a^2, in a form that is stable as c -> 0 and a -> 0
    s = s.astype(np.float64)
    c, v0 = np.maximum(c, 1e-12), np.asarray(b + 0.375 * a * a)
    v = np.maximum(c * s * s + a * s + v0, 0)
    root = np.sqrt(c)
    inner = (2 * root * (np.sqrt(v) - np.sqrt(v0)) + 2 * c * s) / (2 * root * np.sqrt(v0) + a)
    return np.asarray(np.log1p(np.maximum(inner, -1 + 1e-12)) / root)


def _invert_general(z: Array, a: Param, b: Param, c: Param) -> Array:
    # inverse of the integral: with u = exp(sqrt(c) z) (2 sqrt(c v0) + a), s = (u - a)^2/(4 c u) - v0/u. Second-order delta
    # method: E f(Y) = f(m) - (a + 2 c m)/(4 sqrt(v)), and ds = sqrt(v) dz, hence the last term (a/4 for Anscombe's own case).
    c, v0 = np.maximum(c, 1e-12), np.asarray(b + 0.375 * a * a)
    u0 = 2 * np.sqrt(c * v0) + a
    grow = np.expm1(np.sqrt(c) * z)
    u = u0 * (1 + grow)
    # (u - a)^2 - 4 c v0 = (u - u0)(u + u0 - 2a): no cancellation for small c
    s = u0 * grow * (u + u0 - 2 * a) / (4 * c * u)
    return np.asarray(s + (a + 2 * c * s) / 4)


def _invert_exact(z: Array, sigma: Param) -> Array:
    if np.size(sigma) == 1:
        return _lookup(z, float(np.reshape(sigma, -1)[0]))
    levels = np.unique(np.asarray(sigma))
    if levels.size <= 64:
        out = np.empty(np.broadcast_shapes(z.shape, np.shape(sigma)))
        for level in levels:
            here = np.broadcast_to(np.asarray(sigma) == level, out.shape)
            out[here] = _lookup(np.broadcast_to(z, out.shape)[here], float(level))
        return out
    return _invert_map(z, np.asarray(sigma), levels)


def _invert_map(z: Array, sigma: Array, levels: Array) -> Array:
    # The closed form holds to a small remainder r(t, sigma), t = z - 2 sqrt(3/8 + sigma^2); r is tabulated at 33 levels evenly
    # spaced in log(sigma + .1), linear in both.
    lo, hi = np.log(levels[0] + 0.1), np.log(levels[-1] + 0.1)
    tables = np.stack([_remainder(float(k)) for k in np.exp(np.linspace(lo, hi, 33)) - 0.1])
    place = np.clip((np.log(sigma + 0.1) - lo) / max(hi - lo, 1e-12) * 32, 0, 32)
    j = np.minimum(place.astype(int), 31)
    g, step = place - j, _GRID[1] - _GRID[0]
    under = np.minimum(z - 2 * np.sqrt(0.375 + sigma**2) - _GRID[0], 0)  # below the table on in a straight line
    z = z - under
    pos = np.clip((z - 2 * np.sqrt(0.375 + sigma**2) - _GRID[0]) / step, 0, _GRID.size - 1.000001)
    i = pos.astype(int)
    f = pos - i
    low, high = (tables[j + k, i] * (1 - f) + tables[j + k, i + 1] * f for k in (0, 1))
    rise = z / 2 + ((tables[j, 1] - tables[j, 0]) * (1 - g) + (tables[j + 1, 1] - tables[j + 1, 0]) * g) / step
    return np.asarray(_far(z, sigma) + low * (1 - g) + high * g + under * rise)


_GRID = np.linspace(-8.0, 120.0, 6401)


def _far(z: Array, sigma: Param) -> Array:
    # closed form for large counts: (z/2)^2 - 1/8 - sigma^2 (Makitalo & Foi 2013, eq. 6, leading terms)
    return np.asarray((z / 2) ** 2 - 0.125 - np.square(sigma))


@lru_cache(maxsize=256)
def _remainder(sigma: float) -> Array:
    z = _GRID + 2 * np.sqrt(0.375 + sigma**2)
    return _lookup(z, sigma) - _far(z, sigma)


def _lookup(z: Array, sigma: float) -> Array:
    first, step, x, slope = _even_table(sigma)
    place = (z - first) / step
    i = np.clip(np.where(np.isnan(place), 0, place), 0, x.size - 2).astype(np.intp)
    inside = x[i] + (place - i) * slope[i]  # a straight line below the first entry
    beyond = place > x.size - 1
    return np.where(beyond, _far(z, sigma), inside) if np.any(beyond) else inside


@lru_cache(maxsize=256)
def _even_table(sigma: float) -> tuple[float, float, Array, Array]:
    """The inverse at even steps of z: (first z, step, x [e-], forward differences of x)."""
    x, mean_z = _table(sigma)
    z, step = np.linspace(mean_z[0], mean_z[-1], 16385, retstep=True)
    # what the closed form leaves over is smooth, so that linear steps between the table's entries are exact enough
    even = _far(z, sigma) + np.interp(z, mean_z, x - _far(mean_z, sigma))
    return float(mean_z[0]), float(step), even, np.diff(even)


@lru_cache(maxsize=256)
def _table(sigma: float) -> tuple[Array, Array]:
    """Counts x [e-] and E[2 sqrt(max(Y + 3/8 + sigma^2, 0)) | x] for Y = Poisson(x) + N(0, sigma^2)."""
    x = np.concatenate([np.linspace(0, 0.2, 21)[:-1], np.geomspace(0.2, 2500.0, 900)])
    width = 2500 + 12 * 50
    k = np.arange(width + 1)
    mean_given_k = _gauss_mean(k.astype(np.float64), sigma)
    log_fact = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, width + 1)))])
    mean_z = np.empty_like(x)
    for i, m in enumerate(x):
        lo, hi = max(0, int(m - 12 * np.sqrt(m) - 12)), min(width, int(m + 12 * np.sqrt(m) + 40))
        kk = k[lo : hi + 1]
        log_p = kk * np.log(m) - m - log_fact[lo : hi + 1] if m > 0 else np.where(kk == 0, 0.0, -np.inf)
        p = np.exp(log_p)
        mean_z[i] = (p * mean_given_k[lo : hi + 1]).sum() / p.sum()
    return x, mean_z


def _gauss_mean(k: Array, sigma: float) -> Array:
    shift = 0.375 + sigma**2
    if sigma == 0:
        return np.asarray(2 * np.sqrt(k + shift))
    node = np.linspace(-7, 7, 701)
    weight = np.exp(-0.5 * node**2)
    weight /= weight.sum()
    out = np.empty_like(k)
    for i in range(0, k.size, 512):
        out[i : i + 512] = (2 * np.sqrt(np.maximum(k[i : i + 512, None] + sigma * node + shift, 0))) @ weight
    return out


@dataclass(frozen=True, eq=False)
class Detector:
    """What a detector does to light: a row of a table, a photon-transfer result and `--detector` alike.

    gain [e-/ADU], read_noise [e- RMS], offset [ADU], saturation [ADU or None], each a scalar, a CFA cell or a map; their
    standard errors in the same units or None; `source` says where the figures come from. `step` [ADU] is the quantisation
    step whose variance, step^2/12, read_noise leaves out (as `transfer` does); 0 where read_noise holds everything.
    """

    gain: Param
    read_noise: Param
    offset: Param = 0.0
    saturation: Param | None = None
    gain_std: float | None = None
    read_noise_std: float | None = None
    offset_std: float | None = None
    saturation_std: float | None = None
    source: str = ""
    step: float = 0.0

    def __post_init__(self) -> None:
        for name in ("gain", "read_noise", "offset", "step"):
            object.__setattr__(self, name, _param(name, getattr(self, name)))
        if self.saturation is not None:
            object.__setattr__(self, "saturation", _param("saturation", self.saturation))
        if np.any(np.asarray(self.gain) == 0) or (isinstance(self.gain, float) and self.gain < 0):
            raise FrameError(f"detector: gain {self.gain} e-/ADU, expected a positive number")
        if np.any(np.asarray(self.read_noise) < 0):
            raise FrameError("detector: read noise is negative, expected its RMS in electrons")

    def noise(self) -> Noise:
        """The noise of this detector's raw counts [ADU]: a = 1/gain, b = (read_noise/gain)^2 + step^2/12."""
        return Noise(1 / self.gain, (self.read_noise / self.gain) ** 2 + self.step**2 / 12, self.offset)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for a JSON file."""
        return {
            k: v.tolist() if isinstance(v, np.ndarray) else v
            for k in self.__dataclass_fields__
            if (v := getattr(self, k)) is not None
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Detector:
        """The inverse of `to_dict`; raises FrameError for unknown or missing keys."""
        unknown = set(fields) - set(cls.__dataclass_fields__)
        missing = {"gain", "read_noise"} - set(fields)
        if unknown or missing:
            raise FrameError(
                f"detector: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}; expected gain, read_noise and "
                f"optionally {', '.join(k for k in cls.__dataclass_fields__ if k not in ('gain', 'read_noise'))}"
            )
        return cls(**fields)
