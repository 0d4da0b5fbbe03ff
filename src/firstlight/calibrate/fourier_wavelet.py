"""Munch's Fourier-wavelet filter as a product of small matrices: B. Munch et al., Optics Express 17, 8567 (2009).

A sinogram (A, X) is split by wavelets along both axes; in the bands that are fine across columns and coarse along the angle,
where stripes lie, low frequencies k along the angle are damped by 1 - exp(-k^2 / (2 sigma^2)). What that removes is linear:

    removed = sum over levels l of  M_l  sinogram  P_l

P_l: the part of level l across columns. M_l along the angle: approximation to level l, exp(-k^2 / (2 sigma^2)) there, and
back; a Gaussian of few frequencies, so M_l has a low rank. All M_l share one basis of some tens of vectors: the transform
across columns runs on these, not on all angles. Nothing else of the sinogram is touched.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from firstlight.errors import FrameError

__all__ = ["Bands", "bands", "checked", "stripes"]

Array = NDArray[Any]
MODE = "symmetric"
TINY = 1e-7  # what float32 does not see


class Bands(NamedTuple):
    """The M_l = back mix[l] into: `into` (r, A), `back` (A, s), float32, and one (s, r) matrix a level, the finest first."""

    into: Array
    back: Array
    mix: tuple[Array, ...]


def _wavelet(name: str) -> Any:
    import pywt

    if name not in pywt.wavelist(kind="discrete"):
        raise FrameError(
            f"calibrate.remove_stripes_fourier_wavelet: wavelet {name!r}, expected one of PyWavelets: db5, sym8 ..."
        )
    return pywt.Wavelet(name)


def checked(shape: tuple[int, int], level: int, wavelet: str) -> int:
    """The number of levels for a sinogram (A, X); raises FrameError where it cannot be halved that often."""
    _wavelet(wavelet)
    most = int(np.log2(max(min(shape), 1)))
    if not 1 <= level <= most:
        raise FrameError(
            f"calibrate.remove_stripes_fourier_wavelet: level {level} on {shape[0]} angles x {shape[1]} px, "
            f"expected 1 to {most}"
        )
    return level


def _down(n: int, wavelet: Any) -> csr_array:
    """Approximation of a line of n, mirrored at its ends: y[k] = sum_j lo[j] x[2k + 1 - j]."""
    taps = np.asarray(wavelet.dec_lo)
    rows, j = np.indices(((n + taps.size - 1) // 2, taps.size))
    at = (2 * rows + 1 - j) % (2 * n)
    at = np.where(at < n, at, 2 * n - 1 - at)
    return csr_array((np.broadcast_to(taps, at.shape).ravel(), (rows.ravel(), at.ravel())), shape=(len(rows), n))


def _up(n: int, m: int, wavelet: Any) -> csr_array:
    """A line of n from its approximation of m: x[2k + j + 2 - taps] += lo[j] y[k], what falls outside left out."""
    taps = np.asarray(wavelet.rec_lo)
    k, j = np.indices((m, taps.size))
    at = 2 * k + j + 2 - taps.size
    inside = (at >= 0) & (at < n)
    return csr_array((taps[j[inside]], (at[inside], k[inside])), shape=(n, m))


def _waves(n: int, sigma: float) -> tuple[Array, Array]:
    """Real orthonormal waves (r, n) that the Gaussian exp(-k^2 / (2 sigma^2)) lets through, and its values (r,)."""
    k = np.arange(min(n // 2, int(np.ceil(sigma * np.sqrt(-2 * np.log(TINY))))) + 1)
    phase = 2 * np.pi * np.outer(k, np.arange(n)) / n
    norm = np.sqrt(np.where((k == 0) | (2 * k == n), 1, 2) / n)[:, None]
    odd = (k > 0) & (2 * k != n)
    damp = np.exp(-(k**2) / (2 * sigma**2))
    return np.concatenate([norm * np.cos(phase), (norm * np.sin(phase))[odd]]), np.concatenate([damp, damp[odd]])


def _basis(columns: Array) -> Array:
    """Orthonormal columns that span those given, to the precision of float32."""
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(u[:, s > TINY * s[0]])


@lru_cache(maxsize=4)
def bands(angles: int, level: int, wavelet: str, sigma: float) -> Bands:
    """The matrices along the angle; made once for a geometry."""
    taps = _wavelet(wavelet)
    analysis, synthesis, n = None, None, angles
    seen, given = [], []
    for _ in range(level):
        down = _down(n, taps)
        up = _up(n, down.shape[0], taps)
        n = down.shape[0]
        analysis = down if analysis is None else down @ analysis
        synthesis = up if synthesis is None else synthesis @ up
        waves, damp = _waves(n, sigma)
        seen.append((analysis.T @ waves.T) * damp)
        given.append(synthesis @ waves.T)
    into, back = _basis(np.hstack(seen)), _basis(np.hstack(given))
    mix = tuple(((back.T @ g) @ (s.T @ into)).astype(np.float32) for s, g in zip(seen, given, strict=True))
    return Bands(np.ascontiguousarray(into.T, dtype=np.float32), np.ascontiguousarray(back, dtype=np.float32), mix)


def stripes(plane: Array, part: Bands, wavelet: str) -> Array:
    """What the filter removes from a sinogram (A, X) float32, finite, in its unit."""
    import pywt

    from firstlight.calibrate.products import product

    def times(left: Array, right: Array) -> Array:
        out = np.empty((left.shape[0], right.shape[1]), dtype=np.float32)
        product(left, np.ascontiguousarray(right), out)
        return out

    coarse = times(part.into, plane)
    fine = []
    for mix in part.mix:
        coarse, detail = pywt.dwt(coarse, wavelet, MODE, axis=-1)
        fine.append(times(mix, detail))
    back = np.zeros((fine[-1].shape[0], coarse.shape[1]), dtype=np.float32)
    for detail in reversed(fine):
        back = pywt.idwt(back[:, : detail.shape[1]], detail, wavelet, MODE, axis=-1)
    return times(part.back, back[:, : plane.shape[1]])
