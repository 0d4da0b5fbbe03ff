"""Pictures that demosaicking finds hard: stripes, checkers, circles, edges, fractals and noise of two far colours.

Thirteen kinds, drawn at three times the size and averaged over pixels, as a sensor sees them. Two colours are drawn by hue,
saturation and value until one channel differs by CONTRAST or more; what a kind draws is drawn again until it shows both.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.simulate.scenes import linearise

__all__ = ["CONTRAST", "KINDS", "contrast", "torture"]

Array = NDArray[Any]
LEAST = 16  # px a side
SUPER = 3  # samples a pixel along each axis
CONTRAST = 0.3  # of sRGB values in the channel that differs most, from the second to the 98th percentile
APART = 0.5  # the same of the two colours, as fine patterns average out
TRIES = 200
STEPS = 48  # iterations of z^2 + c before a point counts as one that stays


def torture(kind: int, rng: np.random.Generator, *, side: int = 96, zoomed: bool | None = None) -> Array:
    """One picture (3, side, side) of linear light in [0, 1], float32, of kind 0..12: an index into KINDS.

    zoomed: whether a Julia set shows a detail, None: at random. Raises FrameError for another kind, or a side under 16 px.
    """
    if not 0 <= kind < len(KINDS) or side < LEAST:
        raise FrameError(
            f"torture: kind {kind}, side {side} px; expected a kind from 0 to {len(KINDS) - 1} and {LEAST} px or more"
        )
    for _ in range(TRIES):
        mask = _julia(rng, side, zoomed) if kind == JULIA else DRAW[kind](rng, side)
        first, second = (c[:, None, None] for c in _colors(rng))
        fine = first + (second - first) * mask
        rgb: Array = fine.reshape(3, side, SUPER, side, SUPER).mean(axis=(2, 4)).astype(np.float32)
        if contrast(rgb) >= CONTRAST:
            return rgb
    raise FrameError(f"torture: {KINDS[kind]} of {side} px gave no contrast in {TRIES} tries; take a larger side")


def contrast(rgb: Array) -> float:
    """Of linear light (3, Y, X): sRGB values from the second to the 98th percentile, in the channel where that is most."""
    low, high = np.quantile(rgb, (0.02, 0.98), axis=(-2, -1))
    return float(np.max(_encoded(high) - _encoded(low)))


def _encoded(linear: Array) -> Array:
    """The inverse of `linearise` (IEC 61966-2-1)."""
    x = np.asarray(linear, dtype=np.float64)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)


def _colors(rng: np.random.Generator) -> tuple[Array, Array]:
    """Two colours of linear light, one channel at least APART in sRGB values; a third of the pairs are grey."""
    while True:
        grey = rng.random() < 1 / 3
        pair = [colorsys.hsv_to_rgb(rng.random(), 0 if grey else rng.random() ** 0.5, rng.random()) for _ in range(2)]
        if np.max(np.abs(np.subtract(pair[0], pair[1]))) >= APART:
            return linearise(pair[0]), linearise(pair[1])


def _grid(rng: np.random.Generator, side: int) -> tuple[Array, Array]:
    """Coordinates [px] of the fine samples, from a random origin within the picture."""
    at = (np.arange(side * SUPER) + 0.5) / SUPER
    y, x = rng.uniform(0.2, 0.8, 2) * side
    return np.meshgrid(at - y, at - x, indexing="ij")


def _period(rng: np.random.Generator, side: int) -> float:
    return float(np.exp(rng.uniform(np.log(3.0), np.log(side / 4))))  # px, even in octaves


def _along(angle: float, rng: np.random.Generator, side: int) -> Array:
    y, x = _grid(rng, side)
    return np.asarray(y * np.sin(angle) + x * np.cos(angle))


def _square(t: Array, duty: float = 0.5) -> Array:
    return (t % 1.0 < duty).astype(np.float64)


def _vertical(rng: np.random.Generator, side: int) -> Array:
    return _square(_along(0.0, rng, side) / _period(rng, side))


def _horizontal(rng: np.random.Generator, side: int) -> Array:
    return _square(_along(np.pi / 2, rng, side) / _period(rng, side))


def _diagonal(rng: np.random.Generator, side: int) -> Array:
    return _square(_along(rng.uniform(0, np.pi), rng, side) / _period(rng, side))


def _checkers(rng: np.random.Generator, side: int) -> Array:
    y, x = _grid(rng, side)
    period = _period(rng, side)
    return np.asarray((_square(y / period) + _square(x / period)) % 2)


def _circles(rng: np.random.Generator, side: int) -> Array:
    return _square(np.hypot(*_grid(rng, side)) / _period(rng, side))


def _star(rng: np.random.Generator, side: int) -> Array:
    y, x = _grid(rng, side)
    return _square(np.arctan2(y, x) / (2 * np.pi) * rng.integers(5, 40))


def _edge(rng: np.random.Generator, side: int) -> Array:
    return (_along(rng.uniform(0, 2 * np.pi), rng, side) > 0).astype(np.float64)


def _lattice(rng: np.random.Generator, side: int) -> Array:
    y, x = _grid(rng, side)
    angle, period, width = rng.uniform(0, np.pi / 2), max(_period(rng, side), 4.0), rng.uniform(0.2, 0.5)
    u, v = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    return np.maximum(_square(u / period, width), _square(v / period, width))


def _dots(rng: np.random.Generator, side: int) -> Array:
    y, x = _grid(rng, side)
    period = max(_period(rng, side), 4.0)
    row = np.floor(y / period)
    u, v = y / period - row - 0.5, (x / period + 0.5 * (row % 2)) % 1 - 0.5
    return (np.hypot(u, v) < rng.uniform(0.25, 0.45)).astype(np.float64)


def _zone_plate(rng: np.random.Generator, side: int) -> Array:
    """Rings whose frequency grows from the centre to one period in 2.5 px or more at the far corner."""
    y, x = _grid(rng, side)
    finest = rng.uniform(2.5, 6.0)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * (y * y + x * x) / (finest * np.hypot(y, x).max())))


def _boxes(rng: np.random.Generator, side: int) -> Array:
    mask = np.zeros((side * SUPER,) * 2)
    for _ in range(int(rng.integers(6, 30))):
        y, x = rng.integers(0, side * SUPER, 2)
        h, w = rng.integers(SUPER, side * SUPER // 3, 2)
        mask[y : y + h, x : x + w] = rng.random() if rng.random() < 0.3 else float(rng.random() < 0.5)
    return mask


def _julia(rng: np.random.Generator, side: int, zoomed: bool | None = None) -> Array:
    """The smoothed count of steps that z^2 + c needs to leave |z| < 4, by rank; c lies near the border of Mandelbrot's set."""
    zoomed = bool(rng.random() < 0.5) if zoomed is None else zoomed
    angle = rng.uniform(0, 2 * np.pi)
    c = (0.5 * np.exp(1j * angle) - 0.25 * np.exp(2j * angle)) * rng.uniform(1.0, 1.08)  # the cardioid
    reach = rng.uniform(0.1, 0.5) if zoomed else 1.5
    middle = 0.5 * np.exp(1j * rng.uniform(0, 2 * np.pi)) if zoomed else 0.0
    y, x = np.meshgrid(*(np.linspace(-reach, reach, side * SUPER),) * 2, indexing="ij")
    z, count = x + 1j * y + middle, np.zeros((side * SUPER,) * 2)
    for _ in range(STEPS):
        inside = np.abs(z) < 4
        count += inside
        z = np.where(inside, z * z + c, z)
    smooth = np.where(
        np.abs(z) >= 4, count + 1 - np.log2(np.maximum(np.log(np.maximum(np.abs(z), 4)), 1e-9) / np.log(4)), count
    )
    _, rank = np.unique(np.round(smooth, 3), return_inverse=True)
    return np.asarray(rank.reshape(smooth.shape) / max(rank.max(), 1))


def _perlin(rng: np.random.Generator, side: int) -> Array:
    """Fractional Brownian motion: octaves of gradient noise, each half as large and twice as fine (Perlin 1985)."""
    total = np.zeros((side * SUPER,) * 2)
    first = int(rng.integers(2, 5))
    for octave in range(int(rng.integers(3, 6))):
        total += 0.5**octave * _gradient_noise(rng, side * SUPER, first * 2**octave)
    return np.asarray((total - total.min()) / np.ptp(total))


def _gradient_noise(rng: np.random.Generator, n: int, cells: int) -> Array:
    angle = rng.uniform(0, 2 * np.pi, (cells + 1, cells + 1))
    gy, gx = np.sin(angle), np.cos(angle)
    at = np.arange(n) * cells / n
    i, f = at.astype(int), at % 1
    fade = f * f * f * (f * (6 * f - 15) + 10)  # Perlin 2002
    corner = [[gy[i + a][:, i + b] * (f - a)[:, None] + gx[i + a][:, i + b] * (f - b)[None, :] for b in (0, 1)] for a in (0, 1)]
    top, low = (row[0] + (row[1] - row[0]) * fade for row in corner)
    return np.asarray(top + (low - top) * fade[:, None])


JULIA = 11
DRAW: tuple[Callable[[np.random.Generator, int], Array], ...] = (
    _vertical,
    _horizontal,
    _diagonal,
    _checkers,
    _circles,
    _star,
    _edge,
    _lattice,
    _dots,
    _zone_plate,
    _boxes,
    _julia,
    _perlin,
)
KINDS = tuple(draw.__name__.strip("_").replace("_", " ") for draw in DRAW)
