"""Denoising with a trained network: stabilise, one call of the network (samples: a few), exact inverse."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, uniform_filter
from torch import nn

from firstlight import model_file
from firstlight.box import Box
from firstlight.errors import FrameError, ModelError
from firstlight.frame import Frame
from firstlight.inference import predict, ready
from firstlight.model_file import Model
from firstlight.noise import Noise, Param, Unmodelled, spread
from firstlight.restore.error_bars import calibrated
from firstlight.restore.means import HUGE, _least, _plane, _plane_noise, _trusted
from firstlight.restore.symmetries import averaged

__all__ = ["denoise", "halo", "multiple", "samples"]

Array = NDArray[Any]
NEAR, FAR = 9, 33  # px, windows that holes are filled from: the mean of what is trusted in the nearer, else in the farther
REACH = 2 * (FAR // 2) + 2 * (NEAR // 2)  # px: FAR twice, at pixels whose noise is averaged over NEAR, around medians of NEAR
LIKE = 0.95  # relative distance to the local median within which a noise parameter counts
LEAST = 1e-7  # of a window's mean weight, below which it holds none
BAND = 1 << 18  # px decoded at once: what is double precision stays in the cache


def denoise(
    frame: Frame,
    *,
    model: str | Model | None = None,
    std: bool = False,
    bf16: bool | None = None,
    ensemble: bool = False,
) -> Frame:
    """A restored frame: a network's estimate of the mean of each pixel, given the noise of each.

    frame: any axes, each YX plane on its own, on a mosaic each phase of its pattern on its own (colours are not mixed, and
    neither is what they share used); any linear unit; data integer or float. model: a model file or what `model_file.load`
    gives; None: the model that is shipped. std: whether error bars are wanted. bf16: whether the network runs in bfloat16,
    None: where the CPU is fast at it; it changes results by about 1 % of what the network corrects. ensemble: whether the
    estimate is the mean over flips and quarter turns, at 8 times the cost (`symmetries`). Returns data float32 [unit]; noise
    Unmodelled, since neighbours now share noise; std [unit] float32 or None; flags, geometry, header kept. The history names
    the model's digest.

    z = stabilise(y), of noise variance 1; the network's mean is an estimate of E[z | truth], which the exact unbiased
    inverse decodes (Makitalo & Foi 2013). std is half of what the inverse makes of mean +- exp(log_variance / 2), the
    log-variance corrected by the model's table where it has one (`error_bars`).

    Where noise parameters differ from pixel to pixel (sCMOS maps, flat-fielded data), offsets are removed pixel by pixel and
    the other parameters averaged over 9 x 9 px (less what is far from their median) before stabilising, so that equal light
    has equal values locally; a pixel whose own variance is k > 1 times what it is stabilised with is drawn to the mean of its
    surroundings, m + (y - m) / sqrt(k), so that its noise is 1. That assumes that equal light gives equal values: flat-field
    first.

    Flagged pixels (saturated, cosmic ray, hot, dead, defect, no data) and non-finite ones are filled from trusted neighbours
    before the network sees them, and get its estimate, with std NaN, since they were not measured; saturated ones keep their
    value, a lower bound; where nothing trusted lies within 16 px, the input stays.
    Raises FrameError where the noise is unmodelled or cannot be stabilised, ModelError for a model that is no denoiser of
    stabilised YX planes of one channel or, with `std`, gives no error bars.
    """
    noise = frame.known_noise("restore.denoise")
    found = _found(model, std)
    net, digest = ready(found.net, bf16=bf16), found.digest()
    out = np.empty(frame.shape, dtype=np.float32)
    error = np.empty(frame.shape, dtype=np.float32) if std else None
    for lead, part, (data, flags, own) in _parts(frame, noise):
        into = None if error is None else error[lead][part]
        out[lead][part] = _restored(data, flags, own, _Asked(found, net, ensemble), into)
    params = {"model": _named(model), "std": std, "bf16": bf16, "ensemble": ensemble, "weights": digest}
    return frame.then("restore.denoise", params, data=out, noise=Unmodelled("restored: pixels are correlated"), std=error)


def samples(
    frame: Frame, *, n: int = 8, steps: int = 8, seed: int = 0, model: str | Model | None = None, bf16: bool | None = None
) -> Frame:
    """`n` draws from what the truth may be, given the data: with an axis S, first but for T; their spread is the error.

    frame, model, bf16: as in `denoise`. steps: calls of the network for one sample; seed: of the draws. Returns data float32
    [unit], with the axis S, noise Unmodelled, std None. Unlike `std`, samples carry how errors of neighbouring pixels go
    together: sums, profiles and counts of each sample spread as those of the truth may.

    x starts as z, at level s = 1. At each level the network gives m = E[truth | x] and V = Var[truth | x] of x / s, whose
    noise has variance 1, as it would be seen in s^-2 times the light, and with a = (t / s)^2::

        x <- m + a (x - m) + sqrt(t^2 (1 - a) + (1 - a)^2 V) n,    n ~ N(0, 1)

    at the next level t, the last of which is 0 (a diffusion truncated at the data; without the term in V, as in Ho, Jain &
    Abbeel 2020, draws are too narrow; Peng et al. 2024 on the optimal variance). Truths are decoded by the exact inverse.
    Flagged pixels get a draw too, from their surroundings alone; saturated ones and those without trusted ones near stay.
    Raises as `denoise` does, and FrameError for n or steps below 1 or a frame that has an axis S.
    """
    if n < 1 or steps < 1 or seed < 0 or "S" in frame.axes:
        raise FrameError(f"samples: n {n}, steps {steps}, seed {seed}, axes {frame.axes}; expected at least 1, 1, 0, no axis S")
    noise = frame.known_noise("restore.samples")
    found = _found(model, True)
    net, digest = ready(found.net, bf16=bf16), found.digest()
    out = np.empty((n, *frame.shape), dtype=np.float32)
    for k, (lead, part, drawn) in enumerate(_parts(frame, noise)):
        for i, one in enumerate(_drawn(*drawn, found, net, _Draw(n, steps, (seed, k)))):
            out[i][lead][part] = one
    params = {"n": n, "steps": steps, "seed": seed, "model": _named(model), "bf16": bf16, "weights": digest}
    place = int(frame.axes.startswith("T"))  # a Frame's axes are T S C Z A Y X
    axes = frame.axes[:place] + "S" + frame.axes[place:]
    unmodelled = Unmodelled("restored: pixels are correlated")
    return frame.then("restore.samples", params, data=np.moveaxis(out, 0, place), axes=axes, noise=unmodelled, std=None)


class _Draw(NamedTuple):
    n: int
    steps: int
    seed: tuple[int, ...]

    def streams(self) -> Iterator[np.random.Generator]:
        return (np.random.default_rng((*self.seed, i)) for i in range(self.n))


Part = tuple[tuple[int, ...], tuple[slice, slice], tuple[Array, Any, Noise]]


def _parts(frame: Frame, noise: Noise) -> Iterator[Part]:
    """Every plane, on a mosaic every phase of it: its leading index, its slices, and its data, flags and noise."""
    for lead in np.ndindex(frame.shape[:-2]):
        data, own = np.asarray(frame.data[lead]), _plane_noise(noise, frame.shape, lead)
        flags = _plane(frame.flags, frame.shape, lead)
        for part in _phases(frame.period()):
            mask = None if flags is None else np.broadcast_to(flags, data.shape)[part]
            yield lead, part, (data[part], mask, _phase_noise(own, data.shape, part))


class _Asked(NamedTuple):
    """A model, its network ready to run, and whether it is asked under every symmetry."""

    model: Model
    net: nn.Module
    ensemble: bool

    def __call__(self, z: Array, std: bool) -> tuple[Array, Array | None]:
        """Mean and calibrated log-variance of the truth given z, all (Y, X)."""
        one = partial(self._one, std=std)
        return averaged(one, z, self.model.multiple) if self.ensemble else one(z)

    def _one(self, z: Array, std: bool) -> tuple[Array, Array | None]:
        mean, log_variance = predict(self.model, z[None], net=self.net)
        if not std or log_variance is None:
            return mean[0], None
        return mean[0], calibrated(self.model.scaling, mean[0], log_variance[0])


def halo(
    frame: Frame,
    *,
    model: str | Model | None = None,
    std: bool = False,
    bf16: bool | None = None,
    ensemble: bool = False,
) -> int:
    """Pixels beyond its own, along Y and X, that a pixel of `denoise` depends on, where blocks start as `multiple` says."""
    return (_found(model, std).halo + REACH) * max(frame.period())


def multiple(
    frame: Frame,
    *,
    model: str | Model | None = None,
    std: bool = False,
    bf16: bool | None = None,
    ensemble: bool = False,
) -> int:
    """Blocks start at multiples of so many periods of the mosaic (pixels without one) to give what the whole frame gives."""
    return _found(model, std).multiple


def gives_std(model: str | Model | None) -> bool:
    """Whether a model has a log-variance head, and with it error bars."""
    return _found(model, False).outputs > 1


def _found(model: str | Model | None, std: bool) -> Model:
    found = model if isinstance(model, Model) else _loaded(model)
    domain, outputs = found.scaling["domain"], found.outputs
    if domain != "stabilised" or found.axes != "YX" or found.channels != 1:
        raise ModelError(
            f"restore.denoise: a model of {found.channels} channels, axes {found.axes}, domain {domain}; expected one channel, "
            "axes YX, domain stabilised: train one with firstlight train"
        )
    if std and outputs < 2:
        raise ModelError(
            "restore.denoise: this model gives no error bars; leave std out, or train one with a log-variance head"
        )
    return found


def _loaded(model: str | None) -> Model:
    path = model_file.shipped() if model is None else Path(model)
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return _load(str(path), stamp)


@lru_cache(maxsize=4)
def _load(path: str, stamp: int) -> Model:
    return model_file.load(path)


def _named(model: str | Model | None) -> str | None:
    return f"model in memory: {model.card['net']['name']}" if isinstance(model, Model) else model


def _phases(period: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    for y, x in np.ndindex(period):
        yield slice(y, None, period[0]), slice(x, None, period[1])


def _phase_noise(noise: Noise, shape: tuple[int, ...], part: tuple[slice, slice]) -> Noise:
    """The noise of one phase: numbers where its pixels agree, else maps of the phase's shape."""
    params = {}
    for name in ("a", "b", "offset", "c", "d"):
        value = spread(getattr(noise, name), shape)
        if not isinstance(value, float):
            value = np.broadcast_to(value, shape)[part]
            value = float(value.flat[0]) if value.size and np.ptp(value) == 0 else np.ascontiguousarray(value)
        params[name] = value
    return Noise(**params)


class _Seen(NamedTuple):
    """One plane or phase as a network is given it: z stabilised with the noise `soft` of the signal, data - offset."""

    z: Array  # (Y, X) float32
    soft: Noise
    offset: Array
    good: Array
    keep: Array  # where the input stays


def _restored(data: Array, flags: Any, noise: Noise, ask: _Asked, error: Array | None) -> Array:
    """One plane or phase, float32 (Y, X) [unit]; its standard error goes into `error` where wanted."""
    if _exact(data, noise):
        if error is not None:
            error[...] = 0
        return data.astype(np.float32)
    seen = _seen(data, flags, noise)
    out, bars = _decoded(seen.soft, *ask(seen.z, error is not None))
    if error is not None and bars is not None:
        error[...] = np.where(seen.good & ~seen.keep, bars, np.nan)
    return np.where(seen.keep, data, out + seen.offset).astype(np.float32)


def _exact(data: Array, noise: Noise) -> bool:
    return data.size == 0 or not any(np.any(np.asarray(p)) for p in (noise.a, noise.b, noise.c, noise.d))


def _seen(data: Array, flags: Any, noise: Noise) -> _Seen:
    offset = np.asarray(noise.offset)
    good, keep = _trusted(data, flags)
    good &= np.abs(np.where(good, data, offset) - offset) < HUGE * np.sqrt(_least(noise, data.shape))
    signal = np.where(good, data, offset).astype(np.result_type(data.dtype, np.float32), copy=False) - offset
    soft = _even_noise(noise)
    if any(np.ndim(p) for p in (noise.a, noise.b, noise.c, noise.d)):
        signal = _even(signal, good, noise, soft)
    z, lost = _filled(soft.stabilise(signal).astype(np.float32), good)
    return _Seen(z, soft, offset, good, keep | lost)


def _drawn(data: Array, flags: Any, noise: Noise, model: Model, net: nn.Module, draw: _Draw) -> Iterator[Array]:
    """Samples of one plane or phase, float32 (Y, X) [unit], one after the other."""
    if _exact(data, noise):
        yield from (data.astype(np.float32) for _ in range(draw.n))
        return
    seen = _seen(data, flags, noise)
    levels = np.sqrt(np.linspace(1, 0, draw.steps + 1))
    first = _moments(seen.z, 1.0, model, net)
    for rng in draw.streams():
        x, moments = seen.z, first
        for at, to in pairwise(levels):
            mean, variance = _moments(x, float(at), model, net) if at < 1 else moments
            a = np.float32((to / at) ** 2)
            spread_ = np.sqrt(np.float32(to) ** 2 * (1 - a) + (1 - a) ** 2 * variance)
            x = mean + a * (x - mean) + spread_ * rng.standard_normal(x.shape, dtype=np.float32)
        out, _ = _decoded(seen.soft, x, None)
        yield np.where(seen.keep, data, out + seen.offset).astype(np.float32)


def _moments(x: Array, level: float, model: Model, net: nn.Module) -> tuple[Array, Array]:
    """Mean and variance of the truth given x, in which noise has the standard deviation `level`."""
    mean, log_variance = predict(model, x[None] / np.float32(level), net=net)
    assert log_variance is not None
    own = calibrated(model.scaling, mean[0], log_variance[0])
    return mean[0] * np.float32(level), np.exp(own) * np.float32(level**2)


def _even_noise(noise: Noise) -> Noise:
    """Signal noise, d within b, maps averaged locally over pixels like their surroundings: harmonic for the variances."""
    own = (noise.a, noise.b, noise.c, noise.d)
    if all(isinstance(p, float) for p in own):
        return Noise(noise.a, noise.b, 0.0, noise.c, noise.d)
    a, c = _typical(noise.a), _typical(noise.c)
    least = 0.375 * np.square(noise.a) + noise.b + noise.d  # the variance that stabilises zero signal
    return Noise(a, np.maximum(_typical(least, -1) - 0.375 * np.square(a), 0), 0.0, c)


def _typical(values: Param, power: int = 1) -> Param:
    """The mean (power -1: harmonic) over NEAR px of those within LIKE of their local median, which stays where none is.

    All others are left out: z of equal light would step at the edges of the window around a hot or dead pixel, and the
    estimate, smooth in z, would show the window.
    """
    if np.ndim(values) == 0:
        return values
    middle = median_filter(median_filter(values, (NEAR, 1), mode="nearest"), (1, NEAR), mode="nearest")
    like = (np.abs(values - middle) < LIKE * np.abs(middle)).astype(np.result_type(values, np.float32))
    total = uniform_filter(like, NEAR, mode="nearest")
    terms = np.power(values, power, out=np.zeros_like(like), where=like > 0)
    mean = np.divide(uniform_filter(terms, NEAR, mode="nearest"), total, out=np.ones_like(like), where=total > LEAST)
    return np.asarray(np.where(total > LEAST, np.power(mean, power), middle))


def _even(signal: Array, good: Array, noise: Noise, soft: Noise) -> Array:
    """The signal with each pixel's excess over the noise `soft` taken out: drawn to its surroundings, without bias."""
    own = Noise(noise.a, noise.b, 0.0, noise.c, noise.d)
    least = _least(soft, signal.shape)
    level, _ = _level(signal, (good * (least / _least(own, signal.shape))).astype(np.float32))
    mean = np.maximum(level, 0)
    excess = own.variance(mean) / np.maximum(soft.variance(mean), least)
    return np.asarray(level + (signal - level) / np.sqrt(np.maximum(excess, 1)), dtype=signal.dtype)


def _filled(z: Array, good: Array) -> tuple[Array, Array]:
    """z with untrusted pixels filled from trusted neighbours, and the mask of those with none in reach."""
    if good.all():
        return z, ~good
    level, some = _level(z, good.astype(np.float32))
    return np.where(good, z, level), ~(good | some)


def _level(values: Array, weight: Array) -> tuple[Array, Array]:
    """The weighted local mean, from the least window that holds any weight, and where one did."""
    level, some = np.zeros_like(values, dtype=np.float32), np.zeros(values.shape, dtype=bool)
    for width in (NEAR, FAR):
        total = uniform_filter(weight, width, mode="constant")
        new = (total > LEAST) & ~some
        np.divide(uniform_filter(weight * values, width, mode="constant"), total, out=level, where=new)
        some |= new
        if some.all():
            return level, some
    total = uniform_filter(some.astype(np.float32), FAR, mode="constant")  # beyond: no edge beside what was filled
    near = uniform_filter(np.where(some, level, 0), FAR, mode="constant")
    return np.divide(near, total, out=level, where=~some & (total > LEAST)), some


def _decoded(noise: Noise, mean: Array, log_variance: Array | None) -> tuple[Array, Array | None]:
    """Signal [unit] of a stabilised mean, and its standard error, (Y, X) float32."""
    out = np.empty_like(mean)
    bars = None if log_variance is None else np.empty_like(mean)
    rows = max(1, BAND // max(1, mean.shape[1]))
    for i in range(ceil(mean.shape[0] / rows)):
        part = slice(i * rows, min((i + 1) * rows, mean.shape[0]))
        own = noise.crop(mean.shape, Box((part.start, 0), (part.stop, mean.shape[1])))
        out[part] = own.unstabilise(mean[part])
        if bars is not None and log_variance is not None:
            width = np.exp(log_variance[part] / 2)
            bars[part] = (own.unstabilise(mean[part] + width) - own.unstabilise(mean[part] - width)) / 2
    return out, bars
