"""Filters of filtered backprojection: the exact band-limited ramp times a window; weights of the angles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError

__all__ = ["FILTERS", "angle_weights", "response"]

Array = NDArray[np.float64]


def _parzen(u: Array) -> Array:
    return np.where(u < 0.5, 1 - 6 * u**2 * (1 - u), 2 * (1 - u) ** 3)


FILTERS: dict[str, Callable[[Array], Array]] = {  # u: frequency over Nyquist, 0..1
    "ramp": np.ones_like,
    "shepp": lambda u: np.sinc(u / 2),
    "cosine": lambda u: np.cos(np.pi * u / 2),
    "cosine2": lambda u: np.cos(np.pi * u / 2) ** 2,
    "hann": lambda u: 0.5 + 0.5 * np.cos(np.pi * u),
    "hamming": lambda u: 0.54 + 0.46 * np.cos(np.pi * u),
    "parzen": _parzen,
    "butterworth": lambda u: 1 / (1 + (2 * u) ** 8),  # order 4, half amplitude at half of Nyquist
    "none": np.ones_like,
}


def response(filter: str, width: int) -> Array:
    """The filter at frequencies m / width cycles per pixel, m = 0 .. width / 2; "none" has no ramp.

    The ramp is the transform of the sampled band-limited kernel (Ramachandran and Lakshminarayanan 1971; Kak and Slaney 1988,
    eq. 61): 1/4 at 0, -1/(pi n)^2 at odd n. Sampling |f| itself would lose the mean. Raises FrameError for unknown names.
    """
    if filter not in FILTERS:
        raise FrameError(f"filter {filter!r}: expected one of {', '.join(FILTERS)}")
    u = np.arange(width // 2 + 1) / (width // 2)
    window = FILTERS[filter](u)
    if filter == "none":
        return window
    n = np.minimum(np.arange(width), width - np.arange(width)).astype(np.float64)
    taps = np.zeros(width)
    taps[0], odd = 0.25, n % 2 == 1
    taps[odd] = -1 / (np.pi * n[odd]) ** 2
    return np.asarray(np.fft.rfft(taps).real * window)


def angle_weights(angles: Array) -> Array:
    """The share [rad] of the half turn that each angle [rad] stands for: half the way to its neighbours, modulo pi.

    Repeated angles share, those that repeat to some jitter nearly so; a gap of more than five steps is a missing wedge, whose
    edges count one step, not half the wedge.
    """
    angles = np.asarray(angles, dtype=np.float64)
    if angles.size == 1:
        return np.array([np.pi])
    turned = np.mod(angles, np.pi)
    turned[np.pi - turned < 1e-9 * np.pi] = 0.0
    order = np.argsort(turned, kind="stable")
    gaps = np.diff(turned[order], append=turned[order[0]] + np.pi)
    usual = _usual(gaps)
    gaps[gaps > 5 * usual] = usual
    weights = np.empty(angles.size)
    weights[order] = (gaps + np.roll(gaps, 1)) / 2
    return _shared(turned, order, weights)


def _usual(gaps: Array) -> float:
    """The step [rad] that half of what the angles cover is in, the largest gap left out: where a turn is repeated with some
    jitter, the many tiny gaps cover nothing."""
    steps = np.sort(gaps)[:-1]
    covered = np.cumsum(steps)
    return float(steps[np.searchsorted(covered, covered[-1] / 2)]) if covered[-1] > 1e-9 else float(np.pi)


def _shared(turned: Array, order: NDArray[np.intp], weights: Array) -> Array:
    """Angles that coincide get equal parts of their weight."""
    steps = np.diff(turned[order]) > 1e-9
    group = np.concatenate([[0], np.cumsum(steps)])
    total = np.bincount(group, weights[order]) / np.bincount(group)
    weights[order] = total[group]
    return weights


def squared(response: Array) -> Array:
    """The response whose taps are those of `response` squared, averaged over where a pixel falls between two samples."""
    fine = 8
    width = 2 * (response.size - 1)
    taps = np.fft.irfft(response, width * fine) * fine
    moved = np.roll(taps**2, fine // 2).reshape(width, fine).mean(axis=1)
    return np.asarray(np.fft.rfft(moved).real)
