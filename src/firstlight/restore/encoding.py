"""The values in which colours are interpolated: square roots of light, as the noise sets them, common to all colours.

    e = (2 / (a span)) sqrt(a s + 3/8 a^2 + b)        a, b: green's noise; span: so that white lies 1 above black

Interpolating in e rather than in light is worth 2 dB, for the same reason that pictures are stored so: equal ratios become
near equal differences. One curve for all colours keeps grey grey; a colour whose own noise a', b' is larger (white balance
multiplies it) is lower on average by (a/4) (v' - v) q^-3/2, q = a s + 3/8 a^2 + b, which is given back. Where there is no shot
noise, e = s / white.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.geometry import Mosaic
from firstlight.noise import CELL, Noise, spread

__all__ = ["Encoding", "encoding"]

Array = NDArray[Any]
LOW = 10.0  # noise units above zero light, below which the inverse is taken from the exact table
MIDDLE = 0.18  # of white: where a colour's noise is compared with green's


@dataclass(frozen=True, eq=False)
class Encoding:
    """The curve of one frame. own (3, 2): a [unit] and b [unit^2] of R, G, B; white [unit]; sigma: noise of e for R, G, B."""

    own: Array
    white: float

    @property
    def common(self) -> Noise:
        """Green's noise."""
        return Noise(float(self.own[1, 0]), float(self.own[1, 1]))

    @property
    def curved(self) -> bool:
        """Whether there is shot noise."""
        return bool(self.own[1, 0] > 0)

    @property
    def span(self) -> float:
        """White over black in noise units."""
        ends = self.common.stabilise(np.array([0.0, self.white])) if self.curved else np.array([0.0, self.white])
        return float(ends[1] - ends[0])

    @property
    def sigma(self) -> tuple[float, float, float]:
        """The noise of encoded samples of R, G and B."""
        a, b = self.own.T
        variance = a * MIDDLE * self.white + b
        unit = variance[1] if self.curved else 1.0
        r, g, blue = (float(v) for v in np.sqrt(variance / unit) / self.span)
        return r, g, blue

    def encode(self, samples: Array, color: Array, *, noisy: bool = True) -> Array:
        """Samples [unit] of colours 0 1 2, a map of their shape: encoded, float32.

        noisy: whether they are to be denoised, so that means count; else the curve alone, odd about its start.
        """
        s = np.asarray(samples, dtype=np.float32)
        if not self.curved:
            return np.asarray(s / np.float32(self.white))
        a, b = (np.float32(v) for v in self.own[1])
        least = np.float32(0.375) * a * a + b
        q = a * s + least
        if not noisy:
            return np.asarray(np.copysign(np.sqrt(np.abs(q)), q) * np.float32(2 / a / self.span))
        q = np.maximum(q, 0)
        z = np.sqrt(q) * np.float32(2 / a)
        extra = (self.own - self.own[1]).astype(np.float32)
        if np.any(extra):
            z += a / 4 * (extra[color, 0] * np.maximum(s, 0) + extra[color, 1]) * np.maximum(q, least) ** np.float32(-1.5)
        return np.asarray(z * np.float32(1 / self.span))

    def decode(self, e: Array, *, noisy: bool = True) -> Array:
        """The light [unit] whose encoded samples average to e, float32: the exact unbiased inverse (Makitalo & Foi 2013).

        noisy: as for `encode`.
        """
        if not self.curved:
            return np.asarray(e * np.float32(self.white))
        a, b = self.own[1]
        z = e * np.float32(self.span)
        if not noisy:
            return np.asarray(np.float32(a / 4) * z * np.abs(z) - np.float32(0.375 * a + b / a))
        out = np.float32(a / 4) * z * z - np.float32(a / 8 + b / a)
        low = z < 2 * np.sqrt(0.375 + b / a**2) + LOW
        if np.any(low):
            out[low] = self.common.unstabilise(z[low])
        return np.asarray(out)

    def slope(self, e: Array) -> Array:
        """Light per encoded value [unit], at e."""
        if not self.curved:
            return np.full(e.shape, self.white, dtype=np.float32)
        a, b = self.own[1]
        least = 2 * np.sqrt(0.375 + b / a**2)
        return np.asarray(np.maximum(e * self.span, least) * (a / 2 * self.span), dtype=np.float32)


def encoding(frame: Frame, mosaic: Mosaic) -> Encoding:
    """The encoding of a mosaic frame (Y, X) whose colours are 0, 1 and 2.

    Noise that differs between pixels of a colour is averaged over them; c counts at a fifth of white. White is the lowest
    saturation level of the frame's observation, or where it states none what one value in a thousand exceeds. Raises
    FrameError for unmodelled noise, for noise whose offset is not 0, for a negative gain, and where there is no light.
    """
    noise = frame.known_noise("restore.demosaic")
    if np.any(np.asarray(noise.offset)):
        raise FrameError(f"restore.demosaic: black level {np.mean(noise.offset):g} is still in the data; subtract it first")
    level = frame.observation.saturation
    white = float(np.min(level)) if level is not None else float(np.quantile(frame.data, 0.999))
    if not white > 0:
        raise FrameError(f"restore.demosaic: white lies at {white:g}; expected light, and its level in observation.saturation")
    a, b, c, d = (_by_color(p, mosaic, frame.shape) for p in (noise.a, noise.b, noise.c, noise.d))
    if np.any(a < 0):
        raise FrameError("restore.demosaic: a negative gain; flag those pixels as defect and give them a positive gain")
    return Encoding(np.stack([a, b + d + c * (MIDDLE * white) ** 2], axis=1), white)


def _by_color(value: Any, mosaic: Mosaic, shape: tuple[int, ...]) -> Array:
    if np.ndim(value) == 0:
        return np.full(3, float(value))
    if max(value.shape) <= min(CELL, *shape):  # of a cell one whole period says it all, to the last bit for any frame
        shape = tuple(lcm(n, p) for n, p in zip(value.shape, mosaic.period, strict=True))
    value = np.broadcast_to(spread(value, shape), shape)
    color = mosaic.at((shape[0], shape[1]))
    return np.array([np.mean(value[color == k]) for k in range(3)])
