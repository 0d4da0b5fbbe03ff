"""Demosaicking as linear minimum mean square error estimation, in closed form for any pattern and any noise.

A model of colour images is all that is stored: their covariance C[c, k](dy, dx) at lags up to 17 px, the same everywhere. For
a window of samples y_j = x[c_j](p_j) + e_j, e_j of variance s[c_j]^2, the estimate of colour c at pixel q is sum_j w_j y_j with

    K w + F mu = k,   F' w = f      K_ij = C[c_i, c_j](p_j - p_i) + s_i^2 d_ij,   k_j = C[c_j, c](q - p_j)
    variance   = C[c, c](0) - 2 k' w + w' K w

F and f demand that a flat field of any colour comes out as it is: the mean of each colour is unknown (ordinary cokriging,
Matheron 1963; Myers 1982; as a Wiener filter for mosaics: Trussell & Hartwig 2002; Portilla, Otaduy & Dorronsoro 2005). All
cells of an image share one set of filters.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LAGS", "covariance", "filters", "model", "reach"]

Array = NDArray[Any]
LAGS = 17  # px, of the stored covariance
RIDGE = 1e-7  # of the variance: what keeps the system regular without noise; it costs the samples kept 1e-7 of a signal
HALF = 6  # px, of the window of samples around a pixel


def reach(period: int) -> tuple[int, int]:
    """Of a pattern of `period` px: the side [px] of a packed cell, at least 6, and how many cells a block is wide (odd)."""
    cell = period * max(1, 6 // period)
    return cell, 1 + 2 * -(-HALF // cell)


def covariance(patch: Array, lags: int = LAGS) -> Array:
    """Covariance (3, 3, 2 lags + 1, 2 lags + 1) of a patch (3, Y, X) about its means, [c, k, dy, dx]: of x_c(p) and x_k(p + d).

    Averaged over the eight flips and turns. The unit is the patch's squared.
    """
    side = patch.shape[-1] + lags
    height = patch.shape[-2] + lags
    x = patch - patch.mean((-2, -1), keepdims=True)
    spectrum = np.fft.rfft2(x, (height, side))
    product = np.conj(spectrum)[:, None] * spectrum[None]
    full = np.fft.irfft2(product, (height, side))
    place = np.arange(-lags, lags + 1)
    count = (patch.shape[-2] - np.abs(place))[:, None] * (patch.shape[-1] - np.abs(place))[None]
    part = full[:, :, place[:, None], place[None]] / count
    return np.asarray(_symmetric(part))


def _symmetric(c: Array) -> Array:
    c = c + np.swapaxes(c, -1, -2)
    c = c + c[..., ::-1]
    c = c + c[..., ::-1, :]
    return np.asarray((c + np.swapaxes(c, 0, 1)) / 16)  # a flip by both axes is the exchange of the colours


@lru_cache(maxsize=1)
def model() -> Array:
    """The covariance that is shipped, of encoded values in [0, 1]: (3, 3, 35, 35) float64."""
    path = Path(__file__).parents[1] / "weights" / "colour_covariance.npz"
    with np.load(path) as file:
        quarter = file["covariance"].astype(np.float64)
    return unfolded(quarter)


def folded(c: Array) -> Array:
    """The quarter (6, lags + 1, lags + 1) of a covariance that holds all of it: pairs of colours RR RG RB GG GB BB."""
    return np.asarray(c[(0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2), LAGS:, LAGS:])


def unfolded(quarter: Array) -> Array:
    """The inverse of `folded`."""
    place = np.abs(np.arange(-LAGS, LAGS + 1))
    pair = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
    return np.asarray(quarter[pair][:, :, place[:, None], place[None]])


def filters(cell: Array, sigma: tuple[float, float, float], c: Array | None = None) -> tuple[Array, Array]:
    """The filters of a mosaic whose cell (rows, cols) of colours 0 1 2 starts at the first pixel, for this noise [of white].

    Returns weights (3, side, side, block, block), [colour, pixel of a packed cell, sample of the block of cells around it],
    and the error's variance (3, side, side). sigma: of each colour's samples, in the unit of the covariance's root. Windows
    are centred on their pixel, so that pixels with like surroundings have like filters: crops, flips and turns commute.
    """
    c = model() if c is None else c
    side, cells = reach(max(cell.shape))
    block, start = side * cells, side * (cells // 2)
    rows, cols = cell.shape
    y, x = (p.ravel() for p in np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1])
    dy, dx = y[None] - y[:, None] + LAGS, x[None] - x[:, None] + LAGS
    weights, variance = np.zeros((3, side, side, block, block)), np.zeros((3, side, side))
    known: dict[bytes, tuple[Array, Array]] = {}
    for q in np.ndindex(side, side):
        color = cell[(q[0] + y) % rows, (q[1] + x) % cols]
        if color.tobytes() not in known:
            noise = np.square(np.asarray(sigma, dtype=np.float64))[color] + RIDGE * c[1, 1, LAGS, LAGS]
            matrix = c[color[:, None], color[None], dy, dx] + np.diag(noise)
            right = c[color, np.arange(3)[:, None], LAGS - y, LAGS - x].T
            known[color.tobytes()] = _solved(matrix, right, color, c[range(3), range(3), LAGS, LAGS])
        found, variance[:, q[0], q[1]] = known[color.tobytes()]
        weights[:, q[0], q[1], start + q[0] + y, start + q[1] + x] = found.T
    return weights, variance


def _solved(matrix: Array, right: Array, color: Array, least: Array) -> tuple[Array, Array]:
    """Weights (samples, 3) and variances (3,) of one pixel: `right` are its covariances with the samples, `least` its own."""
    from scipy.linalg import cho_factor, cho_solve

    flat = (color[:, None] == np.arange(3)).astype(np.float64)
    factor = cho_factor(matrix, lower=True)
    free, through = cho_solve(factor, right), cho_solve(factor, flat)
    weights = free - through @ np.linalg.solve(flat.T @ through, flat.T @ free - np.eye(3))
    variance = least - 2 * np.sum(right * weights, 0) + np.sum(weights * (matrix @ weights), 0)
    return weights, np.maximum(variance, 0)
