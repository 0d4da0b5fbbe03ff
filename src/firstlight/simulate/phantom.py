"""Phantoms of ellipses for tomography, with exact images and exact projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import FrameError

__all__ = ["Ellipse", "phantom", "projections", "shepp_logan", "shepp_logan_ellipses"]

Array = NDArray[Any]
LINES = 16  # lines through each pixel, each cut exactly


@dataclass(frozen=True)
class Ellipse:
    """value [1/px]; x, y: of its middle from the rotation axis [px], y down the rows; a, b: half axes [px]; angle [rad].

    The axis a points along (cos angle, sin angle). Ellipses that overlap add up.
    """

    value: float
    x: float
    y: float
    a: float
    b: float
    angle: float = 0.0


# Shepp and Logan (1974) with the contrast of Toft (1996), table B.3: value, a, b, x, y (up), angle [degrees], in half fields
TOFT = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)


def shepp_logan_ellipses(size: int) -> list[Ellipse]:
    """The Shepp-Logan head in a field of `size` pixels, contrast of Toft: 0 to 1 [1/px]."""
    h = size / 2
    return [Ellipse(v, h * x, -h * y, h * a, h * b, -np.deg2rad(t)) for v, a, b, x, y, t in TOFT]


def shepp_logan(size: int) -> Array:
    """The Shepp-Logan head (size, size) [1/px, float64], each pixel the mean over its area."""
    return phantom(shepp_logan_ellipses(size), size)


def phantom(ellipses: Sequence[Ellipse], size: int) -> Array:
    """The image (size, size) [1/px, float64], each pixel the mean over its area; the rotation axis lies at (size - 1) / 2."""
    if size < 1:
        raise FrameError(f"phantom: size {size}, expected at least 1 pixel")
    out = np.zeros((size, size))
    edges = np.arange(size + 1) - size / 2
    for e in ellipses:
        for line in (np.arange(LINES) + 0.5) / LINES:
            cut = np.clip(edges, *_chord(e, edges[:-1] + line))
            out += np.diff(cut, axis=1) * (e.value / LINES)
    return out


def projections(ellipses: Sequence[Ellipse], angles: ArrayLike, columns: int, center: float | None = None) -> Array:
    """Line integrals (A, X) [1, float64] at `angles` (A,) [rad], each the mean over its column.

    center [px]: of the rotation axis, (columns - 1) / 2 by default; the detector sees x cos t + y sin t + center. The
    projection of an ellipse is half an ellipse, Kak and Slaney (1988), eq. 3.5; its integral over a column is exact here.
    """
    t = np.asarray(angles, dtype=np.float64).reshape(-1, 1)
    if columns < 1 or t.size < 1:
        raise FrameError(f"projections: {t.size} angles and {columns} columns, expected at least one of each")
    axis = (columns - 1) / 2 if center is None else center
    edges = np.arange(columns + 1) - 0.5 - axis
    out = np.zeros((t.size, columns))
    for e in ellipses:
        reach = np.hypot(e.a * np.cos(t - e.angle), e.b * np.sin(t - e.angle))
        u = np.clip((edges - e.x * np.cos(t) - e.y * np.sin(t)) / reach, -1, 1)
        out += e.value * e.a * e.b * np.diff(u * np.sqrt(1 - u * u) + np.arcsin(u), axis=1)
    return out


def _chord(e: Ellipse, y: Array) -> tuple[Array, Array]:
    """Both ends (Y, 1) of the ellipse on lines y; equal where they miss it."""
    # |(u/a, v/b)| = 1 with u, v along the axes: p x^2 - 2 q y x + r y^2 = 1 from the middle
    c, s, y = np.cos(e.angle), np.sin(e.angle), y[:, None] - e.y
    p = (c / e.a) ** 2 + (s / e.b) ** 2
    half = np.sqrt(np.maximum(p - (y / (e.a * e.b)) ** 2, 0)) / p
    middle = e.x - y * c * s * (1 / e.a**2 - 1 / e.b**2) / p
    return middle - half, middle + half
