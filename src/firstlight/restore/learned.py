"""Denoising with a trained network: stabilise, one call of the network, exact inverse."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import nn

from firstlight import model_file
from firstlight.box import Box
from firstlight.errors import ModelError
from firstlight.frame import Frame
from firstlight.inference import predict, ready
from firstlight.model_file import Model
from firstlight.noise import Noise, Unmodelled, spread
from firstlight.restore.means import HUGE, _least, _plane, _plane_noise, _trusted

__all__ = ["denoise", "halo", "multiple"]

Array = NDArray[Any]
NEAR, FAR = 9, 33  # px, windows that holes are filled from: the mean of what is trusted in the nearer, else in the farther
REACH = 2 * (FAR // 2) + NEAR // 2  # px: FAR twice, at pixels whose noise is averaged over NEAR
LEAST = 1e-7  # of a window's mean weight, below which it holds none
BAND = 1 << 18  # px decoded at once: what is double precision stays in the cache


def denoise(frame: Frame, *, model: str | Model | None = None, std: bool = False, bf16: bool | None = None) -> Frame:
    """A restored frame: a network's estimate of the mean of each pixel, given the noise of each.

    frame: any axes, each YX plane on its own, on a mosaic each phase of its pattern on its own (colours are not mixed, and
    neither is what they share used); any linear unit; data integer or float. model: a model file or what `model_file.load`
    gives; None: the model that is shipped. std: whether error bars are wanted. bf16: whether the network runs in bfloat16,
    None: where the CPU is fast at it; it changes results by about 1 % of what the network corrects. Returns data float32
    [unit]; noise Unmodelled, since neighbours now share noise; std [unit] float32 or None; flags, geometry, header kept. The
    history names the model's digest.

    z = stabilise(y), of noise variance 1; the network's mean is an estimate of E[z | truth], which the exact unbiased
    inverse decodes (Makitalo & Foi 2013). std is half of what the inverse makes of mean +- exp(log_variance / 2).

    Where noise parameters differ from pixel to pixel (sCMOS maps, flat-fielded data), offsets are removed pixel by pixel and
    the other parameters averaged over 9 x 9 px before stabilising, so that equal light has equal values locally; a pixel
    whose own variance is k > 1 times what it is stabilised with is drawn to the mean of its surroundings, m + (y - m) /
    sqrt(k), so that its noise is 1. That assumes that equal light gives equal values: flat-field first.

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
    for lead in np.ndindex(frame.shape[:-2]):
        data, own = np.asarray(frame.data[lead]), _plane_noise(noise, frame.shape, lead)
        flags = _plane(frame.flags, frame.shape, lead)
        for part in _phases(frame.period()):
            mask = None if flags is None else np.broadcast_to(flags, data.shape)[part]
            into = None if error is None else error[lead][part]
            out[lead][part] = _restored(data[part], mask, _phase_noise(own, data.shape, part), found, net, into)
    params = {"model": _named(model), "std": std, "bf16": bf16, "weights": digest}
    return frame.then("restore.denoise", params, data=out, noise=Unmodelled("restored: pixels are correlated"), std=error)


def halo(frame: Frame, *, model: str | Model | None = None, std: bool = False, bf16: bool | None = None) -> int:
    """Pixels beyond its own, along Y and X, that a pixel of `denoise` depends on, where blocks start as `multiple` says."""
    return (_found(model, std).halo + REACH) * max(frame.period())


def multiple(frame: Frame, *, model: str | Model | None = None, std: bool = False, bf16: bool | None = None) -> int:
    """Blocks start at multiples of so many periods of the mosaic (pixels without one) to give what the whole frame gives."""
    return _found(model, std).multiple


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


def _restored(data: Array, flags: Any, noise: Noise, model: Model, net: nn.Module, error: Array | None) -> Array:
    """One plane or phase, float32 (Y, X) [unit]; its standard error goes into `error` where wanted."""
    if data.size == 0 or not any(np.any(np.asarray(p)) for p in (noise.a, noise.b, noise.c, noise.d)):
        if error is not None:
            error[...] = 0
        return data.astype(np.float32)
    offset = np.asarray(noise.offset)
    good, keep = _trusted(data, flags)
    good &= np.abs(np.where(good, data, offset) - offset) < HUGE * np.sqrt(_least(noise, data.shape))
    signal = np.where(good, data, offset).astype(np.result_type(data.dtype, np.float32), copy=False) - offset
    soft = _even_noise(noise)
    if any(np.ndim(p) for p in (noise.a, noise.b, noise.c, noise.d)):
        signal = _even(signal, good, noise, soft)
    z, lost = _filled(soft.stabilise(signal).astype(np.float32), good)
    mean, log_variance = predict(model, z[None], net=net)
    out, bars = _decoded(soft, mean[0], None if error is None or log_variance is None else log_variance[0])
    keep |= lost
    if error is not None and bars is not None:
        error[...] = np.where(good & ~keep, bars, np.nan)
    return np.where(keep, data, out + offset).astype(np.float32)


def _even_noise(noise: Noise) -> Noise:
    """Signal noise whose maps are averaged locally: harmonic means, so that a few noisy pixels do not set the scale."""
    if all(isinstance(p, float) for p in (noise.a, noise.b, noise.c, noise.d)):
        return Noise(noise.a, noise.b, 0.0, noise.c, noise.d)
    a, c, d = (p if isinstance(p, float) else _mean(p) for p in (noise.a, noise.c, noise.d))
    least = 0.375 * np.square(noise.a) + noise.b  # the variance that stabilises zero signal
    b = least if isinstance(least, float) or np.min(least) <= 0 else 1 / _mean(1 / least)
    return Noise(a, np.maximum(b - 0.375 * np.square(a), 0), 0.0, c, d)


def _mean(values: Array) -> Array:
    return np.asarray(uniform_filter(values, NEAR, mode="nearest"))


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
