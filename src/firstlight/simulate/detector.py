"""A physical detector: photons in, counts out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import FrameError
from firstlight.noise import Detector

__all__ = ["Sensor", "make_sensor", "read_out"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Sensor:
    """A detector with its fixed patterns: ADU = clip(round(offset + (Poisson(response e + dark t) + N(0, rn)) / gain)).

    gain [e-/ADU], read_noise [e-], offset and saturation [ADU]; dark [e-/s] and response [1] are (Y, X) maps, hot pixels
    in the dark map, PRNU and vignetting in the response. Raises FrameError for a saturation that 16 bits do not hold.
    """

    gain: float
    read_noise: float
    offset: float
    saturation: int
    dark: Array
    response: Array

    def __post_init__(self) -> None:
        if not 0 < self.saturation < 1 << 16:
            raise FrameError(f"simulate: saturation {self.saturation} ADU, expected 1 to 65535: exposures are uint16")

    @property
    def detector(self) -> Detector:
        """The true calibration of this sensor, its quantisation by whole ADU included."""
        return Detector(self.gain, self.read_noise, self.offset, self.saturation, source="simulation", step=1.0)

    def mean(self, electrons: ArrayLike, exposure: float = 0.0) -> Array:
        """Expected counts [ADU], unclipped, for a scene [e-, axes ... Y X] and `exposure` [s] of dark current."""
        return np.asarray(self.offset + (np.asarray(electrons) * self.response + self.dark * exposure) / self.gain)

    def expose(self, electrons: ArrayLike, rng: np.random.Generator, exposure: float = 0.0) -> Array:
        """One raw exposure, uint16 [ADU], of a scene [e-, axes ... Y X] and `exposure` [s] of dark current."""
        quanta = rng.poisson(np.asarray(electrons, dtype=np.float64) * self.response + self.dark * exposure)
        volts = quanta + rng.normal(0, self.read_noise, quanta.shape)
        return np.clip(np.rint(self.offset + volts / self.gain), 0, self.saturation).astype(np.uint16)

    def bias(self, rng: np.random.Generator) -> Array:
        """A zero-second exposure, uint16 [ADU]."""
        return self.expose(np.zeros(self.dark.shape), rng)


def make_sensor(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    gain: float = 2.0,
    read_noise: float = 3.0,
    offset: float = 200.0,
    bits: int = 16,
    dark: float = 0.02,
    hot: float = 0.0005,
    prnu: float = 0.01,
    vignetting: float = 0.0,
) -> Sensor:
    """A Sensor with random fixed patterns: gain [e-/ADU], read_noise [e-], offset [ADU], dark [e-/s], hot fraction, PRNU rms.

    Hot pixels have 50 to 1000 times the dark current plus 1 e-/s; `vignetting` is the response lost in the corners;
    the median response is 1, as flat-field division assumes.
    """
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    response = (1 - vignetting * (y**2 + x**2) / 2) * (1 + prnu * rng.standard_normal(shape))
    response /= np.median(response)
    current = np.full(shape, float(dark))
    pixels = rng.random(shape) < hot
    current[pixels] = 1 + dark * rng.uniform(50, 1000, int(pixels.sum()))
    return Sensor(gain, read_noise, offset, 2**bits - 1, current, response)


def read_out(
    electrons: ArrayLike,
    rng: np.random.Generator,
    *,
    read_noise: float,
    tails: float = 0.0,
    rows: float = 0.0,
    step: float = 0.0,
    full_well: float = np.inf,
) -> Array:
    """Counts [e-], float64, of a scene [e-, axes ... Y X] through an amplifier that is not quite Gaussian.

    read_noise [e- RMS] is the whole spread of a pixel but for `step`: rows, the share of its variance that a row has in
    common; tails >= 0, the rest drawn from Tukey's lambda distribution of -tails scaled to its variance (0.14 would be
    Gaussian if positive; real sensors lie at 0 to 0.1; below 0.4); step [e-], rounding; full_well [e-], where counts end.
    Source: Wei et al. 2020, "A Physics-Based Noise Formation Model for Extreme Low-Light Raw Denoising".
    """
    scene = np.asarray(electrons, dtype=np.float64)
    counts = rng.poisson(scene).astype(np.float64)
    own = read_noise * np.sqrt(1 - rows)
    counts += own * (_tukey(scene.shape, rng, tails) if tails else rng.standard_normal(scene.shape))
    if rows:
        counts += read_noise * np.sqrt(rows) * rng.standard_normal((*scene.shape[:-1], 1))
    if step:
        counts = np.rint(counts / step) * step
    return np.minimum(counts, full_well)


def _tukey(shape: tuple[int, ...], rng: np.random.Generator, tails: float) -> Array:
    """Tukey's lambda distribution of -tails, of variance 1: Q(p) = (p^l - (1 - p)^l) / l."""
    from scipy.special import beta

    shape_ = -tails
    variance = 2 / shape_**2 * (1 / (1 + 2 * shape_) - beta(shape_ + 1, shape_ + 1))
    p = rng.uniform(size=shape)
    return np.asarray((p**shape_ - (1 - p) ** shape_) / shape_ / np.sqrt(variance))
