"""What is left of the signal's influence on noise once data are stabilised: below 5 e- its variance is not 1."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.noise import Noise, spread

__all__ = ["deviation"]

Array = NDArray[Any]
SIGNAL = np.concatenate([[0.0], np.geomspace(0.05, 60, 40)])  # e-
READ_NOISE = np.concatenate([[0.0], np.geomspace(0.1, 8, 28)])  # e-
NODE = np.linspace(-6, 6, 241)


def deviation(noise: Noise, mean: Array) -> Array:
    """Standard deviation of noise.stabilise(y) where y has this mean [unit of the noise], float32, by table.

    Within .005 of sums over the Poisson and the Gaussian distribution; 1 beyond 60 e-. With c > 0 or a = 0, where the
    transform is of another kind and steady, 1.
    """
    a, b, offset, c = (
        np.asarray(spread(p, mean.shape)) for p in (noise.a, noise.b + np.asarray(noise.d), noise.offset, noise.c)
    )
    if np.any(c > 0) or not np.all(a > 0):
        return np.ones(mean.shape, dtype=np.float32)
    signal = np.broadcast_to(np.clip((mean - offset) / a, 0, SIGNAL[-1]), mean.shape)
    read_noise = np.broadcast_to(np.minimum(np.sqrt(b) / a, READ_NOISE[-1]), mean.shape)
    found: Array = _table()((_even(read_noise), _even(signal)))
    return np.where((mean - offset) / a < SIGNAL[-1], found, 1).astype(np.float32)


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
        first, second = share @ (z @ weight), share @ (z**2 @ weight)
        rows.append(np.sqrt(second - first**2))
    return RegularGridInterpolator((_even(READ_NOISE), _even(SIGNAL)), np.array(rows))
