"""What is left of the signal's influence on noise once data are stabilised: a skewness, and below 5 e- a variance not 1."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.noise import Noise, spread

__all__ = ["deviation", "skewness"]

Array = NDArray[Any]
SIGNAL = np.concatenate([[0.0], np.geomspace(0.05, 60, 40)])  # e-
READ_NOISE = np.concatenate([[0.0], np.geomspace(0.1, 8, 28)])  # e-
NODE = np.linspace(-6, 6, 241)


def deviation(noise: Noise, mean: Array) -> Array:
    """Standard deviation of noise.stabilise(y) where y has this mean [unit of the noise], float32, by table.

    Within .005 of sums over the Poisson and the Gaussian distribution; 1 beyond 60 e-. With c > 0 or a = 0, where the
    transform is of another kind and steady, 1.
    """
    found = _found(noise, mean)
    if found is None:
        return np.ones(mean.shape, dtype=np.float32)
    signal, own = found
    return np.where(signal < SIGNAL[-1], own[..., 0], 1).astype(np.float32)


def skewness(noise: Noise, mean: Array) -> Array:
    """Third central moment of noise.stabilise(y) over its deviation^3 where y has this mean [unit of the noise], float32.

    By table, beyond 60 e- as signal^(-1/2); with c > 0 or a = 0, 0.
    """
    found = _found(noise, mean)
    if found is None:
        return np.zeros(mean.shape, dtype=np.float32)
    signal, own = found
    return np.asarray(own[..., 1] * np.sqrt(SIGNAL[-1] / np.maximum(signal, SIGNAL[-1])), dtype=np.float32)


def _found(noise: Noise, mean: Array) -> tuple[Array, Array] | None:
    """Signal [counts], and deviation and skewness (..., 2) up to SIGNAL's end; None for a transform of another kind."""
    a, b, offset, c = (
        np.asarray(spread(p, mean.shape)) for p in (noise.a, noise.b + np.asarray(noise.d), noise.offset, noise.c)
    )
    if np.any(c > 0) or not np.all(a > 0):
        return None
    signal = np.broadcast_to((mean - offset) / a, mean.shape)
    read_noise = np.broadcast_to(np.minimum(np.sqrt(b) / a, READ_NOISE[-1]), mean.shape)
    return signal, np.asarray(_table()((_even(read_noise), _even(np.clip(signal, 0, SIGNAL[-1])))))


def _even(x: Array) -> Array:
    return np.asarray(np.arcsinh(10 * x))


@lru_cache(maxsize=1)
def _table() -> Any:
    from scipy.interpolate import RegularGridInterpolator
    from scipy.stats import poisson

    k = np.arange(160)
    share = poisson.pmf(k, SIGNAL[:, None])  # (signal, k)
    weight = np.exp(-0.5 * NODE**2) / np.exp(-0.5 * NODE**2).sum()
    rows = []
    for s in READ_NOISE:
        z = 2 * np.sqrt(np.maximum(k[:, None] + s * NODE + 0.375 + s * s, 0))
        first, second, third = (share @ (z**n @ weight) for n in (1, 2, 3))
        width = np.sqrt(second - first**2)
        moment = third - 3 * first * width**2 - first**3
        rows.append(np.stack([width, np.divide(moment, width**3, out=np.zeros_like(width), where=width > 0)], axis=-1))
    return RegularGridInterpolator((_even(READ_NOISE), _even(SIGNAL)), np.array(rows))
