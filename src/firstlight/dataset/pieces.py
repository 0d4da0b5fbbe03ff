"""Pieces of a noisy and a clean frame, pixel beside pixel, and what they measure of both.

Noise of each without any flat region: noisy = scale clean + offset, both noises independent. With H a filter that differs
pixels (Haar's diagonal detail, gain 1 for white noise) what both share is the scene, so
    var(noisy) = <Hn Hn> - scale <Hn Hc>,    var(clean) = <Hc Hc> - <Hn Hc> / scale.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.frame import Frame
from firstlight.noise import Noise

__all__ = ["BLOCKS", "TILE", "Piece", "boxes", "cells", "chi2", "lags", "median", "noises", "piece"]

Array = NDArray[Any]
BLOCKS = 4  # of a plane that holds more pixels than are looked at
TILE = 16  # px of one colour, a piece whose noise is measured


class Piece(NamedTuple):
    """One block of both frames: (positions, Y, X) with one position per pixel of the CFA's period, 1 without a mosaic."""

    noisy: Array
    clean: Array
    good: Array
    frames: tuple[Frame, Frame]
    moments: tuple[Array, Array, Array]  # of each tile: <Hn Hn>, <Hc Hc>, <Hn Hc>


def boxes(frame: Frame, limit: int) -> list[Box]:
    """The whole plane, first and last of a stack, of small frames; of large ones the blocks with most structure."""
    lead, (h, w) = frame.shape[:-2], frame.shape[-2:]
    every = list(product(*(range(n) for n in lead)))
    corners = [(0, 0, h, w)] if h * w <= limit else _corners(frame, every[0], limit)
    chosen = list(dict.fromkeys((every[0], every[-1])))
    return [Box((*i, y, x), (*(k + 1 for k in i), y + high, x + wide)) for i in chosen for y, x, high, wide in corners]


def _corners(frame: Frame, plane: tuple[int, ...], limit: int) -> list[tuple[int, int, int, int]]:
    """Blocks on the mosaic's period, by the spread of a thinned-out plane, its brightest thousandth set back."""
    (h, w), (py, px) = frame.shape[-2:], frame.period()
    side = int((limit / BLOCKS) ** 0.5)
    high, wide = (min(n // p * p, side // p * p) for n, p in ((h, py), (w, px)))
    step = (8 * py, 8 * px)
    thin = np.asarray(frame.data[(*plane, slice(None, None, step[0]), slice(None, None, step[1]))], dtype=np.float64)
    thin = np.minimum(thin, np.nanquantile(thin, 0.999))
    found = []
    for y, x in product(range(0, h - high + 1, high), range(0, w - wide + 1, wide)):
        part = thin[-(-y // step[0]) : (y + high) // step[0], -(-x // step[1]) : (x + wide) // step[1]]
        found.append((-float(np.nanstd(part)) if np.isfinite(part).any() else 0.0, y, x))
    return [(y, x, high, wide) for _, y, x in sorted(found)[:BLOCKS]]


def piece(noisy: Frame, clean: Frame, box: Box) -> Piece:
    """The pixels of both frames inside `box`, which begins on the mosaic's period."""
    frames = noisy.crop(box), clean.crop(box)
    n, c = (np.asarray(f.data, dtype=np.float32).reshape(f.shape[-2:]) for f in frames)
    good = _usable(frames[0], n) & _usable(frames[1], c)
    n, c, good = (_positions(k, noisy.period()) for k in (n, c, good))
    return Piece(n, c, good, frames, _moments(n, c, good))


def _usable(frame: Frame, plane: Array) -> Array:
    """Finite, unflagged, below saturation, and not at an end of the range where values pile up."""
    good = np.isfinite(plane)
    if frame.flags is not None:
        good &= np.broadcast_to(np.asarray(frame.flags), frame.shape).reshape(plane.shape) == 0
    if not good.any():
        return good
    for end in (plane[good].min(), plane[good].max()):
        if np.count_nonzero(plane == end) > max(8, 1e-4 * plane.size):
            good &= plane != end
    if frame.observation.saturation is not None:
        good &= plane < 0.98 * float(np.min(frame.observation.saturation))
    return good


def _positions(plane: Array, period: tuple[int, int]) -> Array:
    """(Y, X) as (position in the period, Y / rows, X / cols)."""
    (py, px), (h, w) = period, (n // p for n, p in zip(plane.shape, period, strict=True))
    cut = plane[: h * py, : w * px].reshape(h, py, w, px)
    return cut.transpose(1, 3, 0, 2).reshape(py * px, h, w)


def cells(pieces: list[Piece], k: int) -> tuple[Array, Array, float]:
    """Means of noisy and clean over cells of k x k periods without a bad pixel, and the number of pixels in each."""
    out = []
    for p in pieces:
        h, w = (n // k for n in p.good.shape[1:])
        cut = np.s_[:, : h * k, : w * k]
        n, c, g = (
            np.asarray(a[cut], dtype=np.float64).reshape(-1, h, k, w, k).mean(axis=(0, 2, 4))
            for a in (p.noisy, p.clean, p.good)
        )
        out.append((n[g == 1], c[g == 1]))
    n, c = (np.concatenate(v) for v in zip(*out, strict=True))
    return n, c, float(k * k * pieces[0].good.shape[0])


def noises(pieces: list[Piece], scale: float) -> tuple[float, float]:
    """Variance of the noise of both frames [units of each, squared]: medians over tiles, 0 if below; NaN without a tile."""
    nn, cc, nc = (np.concatenate(v) for v in zip(*(p.moments for p in pieces), strict=True))
    if not nn.size:
        return float("nan"), float("nan")
    return max(float(np.median(nn - scale * nc)), 0.0), max(float(np.median(cc - nc / scale)), 0.0)


def _moments(noisy: Array, clean: Array, good: Array) -> tuple[Array, Array, Array]:
    whole = good[:, :-1, :-1] & good[:, 1:, :-1] & good[:, :-1, 1:] & good[:, 1:, 1:]
    n, c = (np.where(whole, _haar(a), 0) for a in (noisy, clean))
    count = _tiles(whole).sum(axis=-1)
    some = count > TILE * TILE / 2
    nn, cc, nc = (_tiles(a).sum(axis=-1, dtype=np.float64)[some] / count[some] for a in (n * n, c * c, n * c))
    return nn, cc, nc


def _haar(a: Array) -> Array:
    a = np.where(np.isfinite(a), a, 0)
    return np.asarray((a[:, :-1, :-1] - a[:, 1:, :-1] - a[:, :-1, 1:] + a[:, 1:, 1:]) / 2)


def _tiles(a: Array) -> Array:
    """(positions, Y, X) as (tiles, pixels of a tile); what does not fill a tile is left out."""
    k, (h, w) = a.shape[0], (n // TILE for n in a.shape[1:])
    cut = a[:, : h * TILE, : w * TILE].reshape(k, h, TILE, w, TILE)
    return np.asarray(cut.transpose(0, 1, 3, 2, 4).reshape(k * h * w, TILE * TILE))


def median(rows: Array) -> Array:
    """The lower median of each row's numbers, 0 where it has none."""
    ordered = np.sort(rows, axis=-1)  # NaN at the end
    last = np.isfinite(rows).sum(axis=-1) - 1
    return np.where(last >= 0, ordered[np.arange(len(rows)), np.maximum(last, 0) // 2], 0)


def lags(r: Array) -> Array:
    """Sums over neighbours along y and x, (products, squares), of residuals scaled by each tile's noise; outliers left out."""
    h, w = (n // TILE * TILE for n in r.shape[1:])
    tiles = _tiles(r)
    sd = 1.4826 * median(np.abs(tiles))
    sd = sd.reshape(r.shape[0], h // TILE, w // TILE).repeat(TILE, axis=1).repeat(TILE, axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = r[:, :h, :w] / sd
    u = np.where(np.abs(u) < 6, u, np.nan)
    out = []
    for a, b in ((u[:, 1:], u[:, :-1]), (u[:, :, 1:], u[:, :, :-1])):
        both = np.isfinite(a) & np.isfinite(b)
        out.append((float(a[both] @ b[both]), float((a[both] @ a[both] + b[both] @ b[both]) / 2)))
    return np.array(out)


def chi2(p: Piece, r: Array, scale: float, offset: float, clean_noise: float) -> Array:
    """Mean of r^2 / v of each tile, v by the noise model at the clean frame's brightness, plus the clean frame's own."""
    noisy, clean = p.frames
    assert isinstance(noisy.noise, Noise)
    mean = np.nan_to_num(scale * np.asarray(clean.data, dtype=np.float64) + offset)
    v = _positions(noisy.noise.variance(mean).reshape(noisy.shape[-2:]), noisy.period()) + (scale * clean_noise) ** 2
    q = r * r / v
    q = _tiles(np.where(q < 36, q, np.nan))
    count = np.isfinite(q).sum(axis=-1)
    return np.asarray(np.nansum(q, axis=-1)[count > TILE * TILE / 2] / count[count > TILE * TILE / 2])
