"""The double wedge of a sinogram: how well half a turn joins its own mirror image, at every shift in one inverse FFT.

A sinogram p(theta, x) over half a turn and its mirror p(theta, 2c - x) make a whole turn, whose two-dimensional spectrum
is empty outside the double wedge |n| <= 2 pi R |f| (n harmonic of the angle, f frequency along x, R radius of the object;
Edholm, Lewitt and Lindholm 1986, Vo et al. 2014). With P the spectrum of the half turn padded with zeros to a whole one, the
whole has P(n, f) + (-1)^n P(n, -f) e^(-4 pi i f c), so its energy outside the wedge is constant but for
2 Re sum (-1)^n conj(P(n, f)) P(n, -f) e^(-4 pi i f c): one inverse FFT over f gives it for every c.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

__all__ = ["CLASSES", "Cross", "Curves", "cross_spectra", "curves", "roughness", "top"]

Array = NDArray[Any]
CLASSES = 8  # harmonics n are kept apart by n mod 8: equal shares of the same evidence, independent in their noise
FINE = 8  # points of a curve a pixel
MARGIN = 3  # harmonics beyond the wedge's edge that still leak
NEIGHBOURS = 15  # frequencies over which power is averaged
NOISE_PART = 0.8  # harmonics above this share of the highest are taken as noise


class Cross(NamedTuple):
    """Sums over rows: power (n, f) and the cross spectrum (n, f), n >= 0, each half turn of length `padded` along X [px]."""

    power: Array
    cross: Array
    padded: int
    width: int


class Curves(NamedTuple):
    """Minus the energy outside the wedge, for each class of harmonics: values (CLASSES, shifts); `energy` at no cancelling."""

    values: Array
    energy: Array


def cross_spectra(rows: list[Array], width: int) -> Cross:
    """Sinograms (N, X) of half a turn each, float32, summed; `width`: twice the largest radius [px] of the object."""
    number, columns = rows[0].shape
    padded = scipy.fft.next_fast_len(2 * columns, real=True)
    used = min(padded // 2 + 1, int((number - MARGIN) / (np.pi * width) * padded) + 2)  # beyond it all is inside the wedge
    power = np.zeros((number + 1, used), np.float32)
    cross = np.zeros((number + 1, used), np.complex64)
    back = -np.arange(number + 1) % (2 * number)
    for row in rows:
        spectrum = scipy.fft.rfft(row, padded, axis=1)[:, :used]
        spectrum = scipy.fft.fft(spectrum, 2 * number, axis=0, overwrite_x=True)
        plus, minus = spectrum[: number + 1], spectrum[back]
        power += plus.real**2 + plus.imag**2 + minus.real**2 + minus.imag**2
        cross += plus * minus
    return Cross(power, cross, padded, width)


def outside(number: int, used: int, padded: int, width: int) -> Array:
    """Mask (n, f) of what is empty in a whole turn."""
    n, f = np.arange(number + 1)[:, None], np.arange(used)[None] / padded
    return np.asarray(n > np.pi * width * f + MARGIN)


def curves(parts: list[Cross], *, white: bool, columns: int) -> list[Curves]:
    """Curves of each part over the centres 0, 1/FINE ... columns - 1 [px], weighted by the power of all parts together.

    Weights: signal S over noise N at (n, f), S falling as n^-2 (the jump where half turns join), measured apart for even and
    odd n; S/(N (2 S + N)) is the least-squares one, `white` S/(S + N)^2 gives all frequencies above the noise the same say,
    which resists what is not from the object (edges of a truncated field, rings).
    """
    power: Array = np.asarray(sum(p.power for p in parts))
    padded, number = parts[0].padded, parts[0].power.shape[0] - 1
    mask = outside(number, power.shape[1], padded, parts[0].width)
    n = np.maximum(np.arange(number + 1, dtype=np.float32), 1)[:, None]
    noise = _smooth(power[int(NOISE_PART * number) :].mean(axis=0))
    floor = 1e-12 * float(power.max()) + 1e-30
    weight = np.zeros_like(power)
    for odd in (0, 1):
        o, p, k = mask[odd::2], power[odd::2], n[odd::2] ** -2
        jump = np.maximum((o * (p - noise)).sum(axis=0), 0) / np.maximum((o * k).sum(axis=0), 1e-30)
        s = _smooth(jump) * k
        weight[odd::2] = o * (s / (s + noise + floor) ** 2 if white else s / ((noise + floor) * (2 * s + noise + floor)))
    return [_curves(part, weight, columns) for part in parts]


def _curves(part: Cross, weight: Array, columns: int) -> Curves:
    sign = np.where(np.arange(CLASSES) % 2, -1, 1)[:, None]
    spectra = np.stack([(weight[k::CLASSES] * part.cross[k::CLASSES]).sum(axis=0) for k in range(CLASSES)]) * sign
    energy = np.array([(weight[k::CLASSES] * part.power[k::CLASSES]).sum() for k in range(CLASSES)])
    length = part.padded * FINE // 2
    values = -scipy.fft.irfft(spectra.astype(np.complex64), length, axis=1) * length
    shifts = (columns - 1) * FINE + 1
    return Curves(np.take(values, np.arange(shifts) % length, axis=1), energy)


def _smooth(values: Array) -> Array:
    return np.asarray(uniform_filter1d(values, NEIGHBOURS, mode="nearest"))


def top(curve: Array, near: float | None = None, reach: float = 0.0) -> float:
    """The centre [px] of a curve's highest point, between pixels by a parabola; within `reach` of `near` where given."""
    first, last = 0, curve.size
    if near is not None:
        first, last = max(int((near - reach) * FINE), 0), min(int((near + reach) * FINE) + 2, curve.size)
    i = first + int(np.argmax(curve[first:last]))
    if not first < i < last - 1:
        return i / FINE
    a, b, c = (float(v) for v in curve[i - 1 : i + 2])
    bend = a - 2 * b + c
    return (i + (0.5 * (a - c) / bend if bend < 0 else 0.0)) / FINE


def roughness(row: Array, width: int, centers: Array) -> Array:
    """Mean amplitude outside the wedge (Vo et al. 2014, eq. 3) of sinogram (N, X) joined to its mirror at each centre [px]."""
    number, columns = row.shape
    padded = scipy.fft.next_fast_len(2 * columns, real=True)
    used = min(padded // 2 + 1, int((number - MARGIN) / (np.pi * width) * padded) + 2)
    spectrum = scipy.fft.fft(scipy.fft.rfft(row, padded, axis=1)[:, :used], 2 * number, axis=0, overwrite_x=True)
    mask = outside(number, used, padded, width)
    sign = np.where(np.arange(number + 1) % 2, -1, 1).astype(np.float32)[:, None] * np.ones((1, used), np.float32)
    plus = spectrum[: number + 1][mask]
    mirror = (sign * np.conj(spectrum[-np.arange(number + 1) % (2 * number)]))[mask]
    f = np.broadcast_to(np.arange(used), mask.shape)[mask]
    turns = np.exp(-4j * np.pi / padded * np.outer(centers, np.arange(used))).astype(np.complex64)
    return np.array([np.abs(plus + mirror * t[f]).mean() for t in turns])
