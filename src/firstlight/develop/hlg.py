"""Hybrid log-gamma (ITU-R BT.2100) with diffuse white at 203 nits (BT.2408), and a shoulder above what a display can show.

Scene light goes in, relative to diffuse white; a display of peak Lw = 1000 nits applies the OOTF. Diffuse white has signal
0.75: E = 0.2650, 203 nits; 18 % grey E = 0.0477, signal 0.378, 26 nits. Peak is 3.77 times diffuse white, 1.92 stops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.develop.colour import LUMA
from firstlight.errors import FrameError

__all__ = ["GAMMA", "PEAK", "REFERENCE", "WHITE", "inverse_oetf", "oetf", "ootf", "scene", "shoulder"]

Array = NDArray[Any]
A, B, C = 0.17883277, 0.28466892, 0.55991073  # BT.2100-2, table 5
PEAK, GAMMA = 1000.0, 1.2  # nits of the reference display, and its system gamma
DIM = 1.0  # nits, below which a picture is black
WHITE = 203.0  # nits of diffuse white, BT.2408
REFERENCE = float((np.exp((0.75 - C) / A) + B) / 12)  # E of diffuse white: signal 0.75, 203.2 nits


def _real(x: ArrayLike) -> Array:
    x = np.asarray(x)
    return x.astype(np.result_type(x.dtype, np.float32), copy=False)


def oetf(light: ArrayLike) -> Array:
    """The signal 0..1 of scene light E 0..1: sqrt(3 E) up to 1/12, a ln(12 E - b) + c above. NaN for E < 0."""
    e = _real(light)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(e <= 1 / 12, np.sqrt(3 * e), A * np.log(np.maximum(12 * e - B, 1 - B)) + C), dtype=e.dtype)


def inverse_oetf(signal: ArrayLike) -> Array:
    """Scene light E of a signal: `oetf` backwards."""
    v = _real(signal)
    return np.asarray(np.where(v <= 0.5, v * v / 3, (np.exp((v - C) / A) + B) / 12), dtype=v.dtype)


def ootf(rgb: ArrayLike) -> Array:
    """Display light [nits] (3, ...) of Rec.2020 scene light E (3, ...): Lw Y^(gamma - 1) E, Y its luminance."""
    e = _real(rgb)
    luminance = np.tensordot(LUMA.astype(e.dtype), e, axes=1)
    return np.asarray(PEAK * np.maximum(luminance, 0) ** (GAMMA - 1) * e, dtype=e.dtype)


def scene(linear: ArrayLike, white_nits: float = WHITE) -> Array:
    """Scene light E of light relative to diffuse white, which is to be shown at `white_nits`: 0.2650 x linear at 203."""
    if not DIM <= white_nits < PEAK:
        raise FrameError(f"develop: diffuse white at {white_nits:g} nits, expected {DIM:g} to below the display's {PEAK:g}")
    e = REFERENCE * (white_nits / WHITE) ** (1 / GAMMA)
    x = _real(linear)
    return np.asarray(x * x.dtype.type(e))


def shoulder(rgb: ArrayLike, start: float = 0.5) -> Array:
    """Colours (3, ...) from 0 up with all channels below 1: the largest bent over above `start`, the others in proportion.

    n' = start + (1 - start) u / sqrt(1 + u^2) with u = (n - start) / (1 - start) of n = max(R, G, B) > start; rgb' = rgb n'/n:
    monotone, smooth at `start`, the same for every picture, and ratios (hue and saturation) stay.
    """
    x = _real(rgb)
    if not 0 <= start < 1:
        raise FrameError(f"develop.shoulder: start {start:g}, expected 0 to below 1")
    out = np.array(x, order="C")  # of which flat is a view
    flat = out.reshape(3, -1)
    top = flat.max(axis=0)
    high = np.flatnonzero(top > start)
    u = (top[high] - x.dtype.type(start)) / x.dtype.type(1 - start)
    flat[:, high] *= (start + (1 - start) * (u / np.hypot(u, 1))) / top[high]
    return out
