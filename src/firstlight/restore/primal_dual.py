"""Total variation from few or noisy views: a primal-dual iteration whose steps know the projector's spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from firstlight.frame import Frame
from firstlight.needs import needs
from firstlight.operators import Gridding, Normal
from firstlight.operators.normal import pack, power, unpack
from firstlight.restore.driver import Iterates, Rays, disc, fixed, iterate, level, positive
from firstlight.restore.reconstruct import volume

__all__ = ["total_variation"]

Array = NDArray[Any]
STEP = "restore.total_variation"
SIGMA, SIGN = 1.25, 0.6  # steps of the two duals, of the number of angles [px]: fastest on the Shepp-Logan head at N = 512
FIRST, EVERY = 10, 5  # the weight is looked at after so many iterations, then each so many
RANGE = (0.5, 16.0)  # of the first guess; rings or cut projections keep the residual above the noise whatever the weight
GUESS, STEEP = 2.0, 4.0  # weight = GUESS noise sqrt(angles) to begin with; the residual grows about as weight^(1 / (2 STEEP))


@dataclass(frozen=True, eq=False)
class Metric:
    """1 / (theta C + sigma |k|^2 + sign): the step of the primal variable for each frequency, C the symbol of A^T A."""

    symbol: Array  # (side, side) float32
    sigma: float
    sign: float

    def __call__(self, x: Array, work: Array) -> None:
        """Multiply the spectra of (S, size, size), S 1 or 2, in place; work (side, side) complex64."""
        n = x.shape[1]
        if n < len(work):
            work[:] = 0
        pack(x, work[:n, :n])
        fft.fft2(work, overwrite_x=True)
        work *= self.symbol
        fft.ifft2(work, norm="forward", overwrite_x=True)
        unpack(work[:n, :n], x)


@needs(halo=0, copies=3, fixed=fixed(9))
def total_variation(
    frame: Frame,
    *,
    weight: float | None = None,
    noise: float | None = None,
    iterations: int = 40,
    tolerance: float = 2e-3,
    center: float | Sequence[float] | None = None,
    size: int | None = None,
    start: str = "fbp",
    pair: bool = False,
    workers: int | None = None,
) -> Frame:
    """Attenuation (Z, Y, X) [1/mm, float32] of optical depth (A, Y, X): least squares plus total variation, not negative.

    min |A x - b|^2 / 2 + weight |grad x|_1 over x >= 0, isotropic, x in 1/px and grad between neighbours. weight [px]: by
    default chosen for each slice so that |A x - b|^2 is what the noise explains (Morozov's discrepancy principle): the
    frame's noise model without the part that all angles share, else `noise`, the standard deviation of a projection's
    pixels, else that of what a local parabola along X leaves over; the history says which. iterations: at most; tolerance:
    a slice ends when its relative change falls below. start: fbp (hann) or zero. pair: the projector pair for scans whose
    projections the detector cuts, else the convolution. Condat (2013) and Vu (2013), preconditioned by the circulant of
    A^T A. Raises FrameError for another unit, no centre, cut projections, or numbers that are not finite.
    """
    positive(STEP, weight=weight, noise=noise)
    source: set[str] = set()
    chosen: list[Array] = []

    def run(rays: Rays) -> Iterates:
        sigma, origin = level(rays, noise) if weight is None else (None, "no need")
        source.add(origin)
        return descend(rays, weight, sigma, chosen)

    slices, found = iterate(
        frame,
        STEP,
        run,
        iterations=iterations,
        tolerance=tolerance,
        center=center,
        size=size,
        start=start,
        pair=pair,
        workers=workers,
    )
    params = {"weight": weight, "noise": noise, "iterations": iterations, "tolerance": tolerance, "start": start, "pair": pair}
    if weight is None:
        used = np.concatenate(chosen)
        found |= {"weights": [float(f"{w:.4g}") for w in (used.min(), used.max())], "noise_from": ", ".join(sorted(source))}
    return volume(frame, slices, None, STEP, params | found)


def descend(rays: Rays, weight: float | None, noise: Array | None, chosen: list[Array]) -> Iterates:
    """Iterates of every slice; where weight is None it follows the discrepancy from `noise` (S,), the RMS expected.

    chosen: collects the weights.
    """
    from firstlight.restore.iterative_kernels import dual, gradient

    metric = _metric(rays.grid, rays.circle is not None)
    work = np.empty(metric.symbol.shape, np.complex64)
    c, x = rays.right(), np.maximum(rays.first(), 0)
    u, v, w, d = (np.zeros_like(x) for _ in range(4))
    hx, row, k = np.empty_like(x), np.zeros((2, x.shape[2]), np.float32), 0
    guess = GUESS * np.sqrt(rays.grid.angles.size) * (1.0 if noise is None else noise)
    much = np.full(len(x), weight, dtype=np.float64) if noise is None else guess.copy()
    chosen.append(much)
    while True:
        k += 1
        rays.gram(x, hx)
        for i in range(len(x)):
            gradient(hx[i], c[i], u[i], v[i], w[i], d[i])
        for i in range(0, len(x), 2):
            metric(d[i : i + 2], work)
        if rays.circle is not None:
            d *= rays.circle
        moved = np.array([dual(x[i], d[i], u[i], v[i], w[i], row, metric.sigma, metric.sign, much[i]) for i in range(len(x))])
        residual = None
        if noise is not None and k >= FIRST and (k - FIRST) % EVERY == 0:
            residual = rays.misfit(x)
            much *= np.clip(noise / np.maximum(residual, 1e-30), 0.5, 2) ** STEEP
            np.clip(much, RANGE[0] * guess, RANGE[1] * guess, out=much)
        change = np.sqrt(moved[:, 0] / np.maximum(moved[:, 1], 1e-30))
        if noise is not None and k <= FIRST:
            change[:] = np.inf
        yield np.maximum(x, 0), residual, change


@lru_cache(maxsize=2)
def _metric(grid: Gridding, masked: bool) -> Metric:
    """theta so that the metric bounds A^T A / 2 + sigma D^T D + sign, as convergence demands."""
    normal, angles = Normal(grid), grid.angles.size
    side = normal.side // 2
    symbol = np.maximum(normal.circulant(), 4 * angles / np.pi)  # twice what it is at Nyquist: no spoke, no step
    ratio = power(lambda x: _filtered(normal(x), 1 / symbol), grid.size)
    wave = 4 * np.sin(np.pi * fft.fftfreq(side)) ** 2
    sigma, sign = SIGMA * angles, SIGN * angles
    duals = sigma * (wave[:, None] + wave) + sign
    bound = 0.55 * ratio * symbol + duals
    inside = disc(grid) if masked else np.ones((1, 1), np.float32)
    left = power(lambda x: inside * _filtered(normal(x) / 2 + _filtered(x, duals), 1 / bound), grid.size)
    bound *= max(1.0, 1.02 * left)  # the symbol is that of a torus, the image is not
    return Metric((1 / (bound * side**2)).astype(np.float32), sigma, sign)


def _filtered(x: Array, symbol: Array) -> Array:
    n = x.shape[1]
    return np.asarray(fft.ifft2(fft.fft2(x[0], s=symbol.shape) * symbol)[:n, :n].real.astype(np.float32))[None]
