"""Iterative reconstruction: steps from optical depth to a volume, by the projector or by A^T A as a convolution.

All end after `iterations`, or where the relative change of the residual |A x - b| falls below `tolerance`, or with
`discrepancy` where the residual is what the noise model explains; each slice by itself. The history keeps what it came to.
`driver.progress` listens. With pair=False A^T A is a convolution (two FFTs),
right for objects inside the circle that the detector sees; outside it the slice is 0. With tolerance and discrepancy the
residual costs a projection an iteration there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.needs import needs
from firstlight.operators import Gridding, Normal
from firstlight.operators.normal import power
from firstlight.restore import solvers
from firstlight.restore.driver import Iterates, Rays, fixed, iterate, positive
from firstlight.restore.reconstruct import volume

__all__ = ["cgls", "landweber", "least_squares", "mlem", "osem", "sirt", "tikhonov"]

Center = float | Sequence[float] | None


@needs(halo=0, copies=3, fixed=fixed(6))
def cgls(
    frame: Frame,
    *,
    iterations: int = 10,
    tolerance: float = 0.0,
    discrepancy: bool = False,
    center: Center = None,
    size: int | None = None,
    start: str = "zero",
    pair: bool = False,
    workers: int | None = None,
) -> Frame:
    """Attenuation (Z, Y, X) [1/mm, float32] of optical depth (A, Y, X) by conjugate gradients on |A x - b|^2.

    Noise grows with the iterations: few of them are the regularisation. iterations, tolerance, discrepancy: when a slice
    ends. start: zero or fbp (hann). pair: the projector pair for cut projections. Hestenes and Stiefel (1952). Raises
    FrameError for another unit, no centre, cut projections or numbers that are not finite.
    """
    own = {"tolerance": tolerance, "discrepancy": discrepancy, "pair": pair}
    options = {"center": center, "size": size, "pair": pair, "workers": workers, "discrepancy": discrepancy}
    return _solved(frame, "restore.cgls", solvers.conjugate_gradients, iterations, tolerance, start, own, options)


@needs(halo=0, copies=3, fixed=fixed(6))
def tikhonov(
    frame: Frame,
    *,
    iterations: int = 30,
    tolerance: float = 0.0,
    discrepancy: bool = False,
    weight: float | None = None,
    center: Center = None,
    size: int | None = None,
    start: str = "zero",
    pair: bool = False,
    workers: int | None = None,
) -> Frame:
    """Attenuation (Z, Y, X) [1/mm, float32] of optical depth (A, Y, X): min |A x - b|^2 + weight |x|^2, by conjugate gradients.

    weight [px^2]: structures finer than about pi weight / angles [px] are damped; the number of angles by default.
    iterations, tolerance, discrepancy: when a slice ends. start: zero or fbp (hann). pair: the projector pair for cut
    projections. Tikhonov (1963). Raises FrameError for another unit, no centre, cut projections or numbers that are not
    finite.
    """
    positive("restore.tikhonov", weight=weight)
    damping = float(frame.shape[0] if weight is None else weight)
    own = {"tolerance": tolerance, "discrepancy": discrepancy, "weight": damping, "pair": pair}
    options = {"center": center, "size": size, "pair": pair, "workers": workers, "discrepancy": discrepancy}
    return _solved(
        frame,
        "restore.tikhonov",
        lambda rays: solvers.conjugate_gradients(rays, damping),
        iterations,
        tolerance,
        start,
        own,
        options,
    )


@needs(halo=0, copies=3, fixed=fixed(6))
def landweber(
    frame: Frame,
    *,
    iterations: int = 100,
    tolerance: float = 0.0,
    discrepancy: bool = False,
    relaxation: float = 1.0,
    nonnegative: bool = False,
    center: Center = None,
    size: int | None = None,
    start: str = "zero",
    pair: bool = False,
    workers: int | None = None,
) -> Frame:
    """Attenuation (Z, Y, X) [1/mm, float32] of optical depth (A, Y, X) by gradient steps of relaxation / |A^T A|.

    relaxation: between 0 and 2. nonnegative: each iterate is projected on x >= 0. The residual is that of the iterate before.
    iterations, tolerance, discrepancy: when a slice ends. start: zero or fbp (hann). pair: the projector pair for cut
    projections. Landweber (1951). Raises FrameError for another unit, no centre, cut projections or numbers that are not
    finite.
    """
    _between("restore.landweber", relaxation)
    own = {
        "tolerance": tolerance,
        "discrepancy": discrepancy,
        "relaxation": relaxation,
        "nonnegative": nonnegative,
        "pair": pair,
    }
    options = {"center": center, "size": size, "pair": pair, "workers": workers, "discrepancy": discrepancy}
    return _solved(
        frame,
        "restore.landweber",
        lambda rays: solvers.landweber(rays, relaxation / _largest(rays.grid), nonnegative),
        iterations,
        tolerance,
        start,
        own,
        options,
    )


@needs(halo=0, copies=3, fixed=fixed(5, 5))
def sirt(
    frame: Frame,
    *,
    iterations: int = 50,
    tolerance: float = 0.0,
    discrepancy: bool = False,
    relaxation: float = 1.0,
    nonnegative: bool = False,
    center: Center = None,
    size: int | None = None,
    start: str = "zero",
    workers: int | None = None,
) -> Frame:
    """Attenuation (Z, Y, X) [1/mm, float32] of optical depth (A, Y, X) by SIRT: corrections over ray length and number of rays.

    relaxation between 0 and 2; nonnegative: each iterate is projected on x >= 0. The residual is that of the iterate before.
    iterations, tolerance, discrepancy: when a slice ends. start: zero or fbp (hann). Gilbert (1972); Gregor and Benson
    (2008). Raises FrameError for another unit, no centre, or numbers that are not finite.
    """
    _between("restore.sirt", relaxation)
    own = {"tolerance": tolerance, "discrepancy": discrepancy, "relaxation": relaxation, "nonnegative": nonnegative}
    options = {"center": center, "size": size, "pair": True, "workers": workers, "discrepancy": discrepancy}
    return _solved(
        frame,
        "restore.sirt",
        lambda rays: solvers.simultaneous(rays, relaxation, nonnegative),
        iterations,
        tolerance,
        start,
        own,
        options,
    )


@needs(halo=0, copies=3, fixed=fixed(5, 3))
def mlem(
    frame: Frame,
    *,
    iterations: int = 30,
    tolerance: float = 0.0,
    discrepancy: bool = False,
    center: Center = None,
    size: int | None = None,
    start: str = "zero",
    workers: int | None = None,
) -> Frame:
    """Attenuation (Z, Y, X) [1/mm, float32], positive, of optical depth (A, Y, X) by the EM algorithm for Poisson data.

    Negative line integrals count as 0; the history says how many. The residual is that of the iterate before. iterations,
    tolerance, discrepancy: when a slice ends. start: zero or fbp (hann). Shepp and Vardi (1982). Raises FrameError for
    another unit, no centre, or numbers that are not finite.
    """
    own = {"tolerance": tolerance, "discrepancy": discrepancy, "negative": _negative(frame)}
    options = {"center": center, "size": size, "pair": True, "workers": workers, "discrepancy": discrepancy}
    return _solved(frame, "restore.mlem", lambda rays: solvers.expectation(rays, 1), iterations, tolerance, start, own, options)


def _subsets(frame: Frame, *, subsets: int = 8, **params: Any) -> float:
    """Bytes of osem: each subset keeps its own sum of rays."""
    return fixed(6 + subsets, 3)(frame, **params)


@needs(halo=0, copies=3, fixed=_subsets)
def osem(
    frame: Frame,
    *,
    iterations: int = 4,
    tolerance: float = 0.0,
    discrepancy: bool = False,
    subsets: int = 8,
    center: Center = None,
    size: int | None = None,
    start: str = "zero",
    workers: int | None = None,
) -> Frame:
    """Attenuation (Z, Y, X) [1/mm, float32], positive, of optical depth (A, Y, X) by EM steps on interleaved subsets of angles.

    About `subsets` times fewer iterations than mlem, which it does not quite converge to. Negative line integrals count as 0;
    the history says how many. iterations, tolerance, discrepancy: when a slice ends. start: zero or fbp (hann). Hudson and
    Larkin (1994). Raises FrameError for another unit, no centre, or numbers that are not finite.
    """
    if not 1 <= subsets <= frame.shape[0]:
        raise FrameError(f"restore.osem: {subsets} subsets of {frame.shape[0]} angles, expected 1 to one of each angle")
    own = {"tolerance": tolerance, "discrepancy": discrepancy, "subsets": subsets, "negative": _negative(frame)}
    options = {"center": center, "size": size, "pair": True, "workers": workers, "discrepancy": discrepancy}
    return _solved(
        frame, "restore.osem", lambda rays: solvers.expectation(rays, subsets), iterations, tolerance, start, own, options
    )


@needs(halo=0, copies=3, fixed=fixed(6, 6))
def least_squares(
    frame: Frame,
    *,
    iterations: int = 15,
    tolerance: float = 0.0,
    weight: float = 0.0,
    center: Center = None,
    size: int | None = None,
    start: str = "zero",
    workers: int | None = None,
) -> Frame:
    """Attenuation (Z, Y, X) [1/mm, float32] of optical depth (A, Y, X): min sum w (A x - b)^2 + weight |x|^2, w = 1/var.

    var: of each pixel by the noise model, 1/N after the logarithm, without the flat's 1/N0, which all angles share; w is
    scaled to mean 1 in each slice, and the residual is weighted. weight [px^2] as in tikhonov. Conjugate gradients through
    the projector. iterations, tolerance, discrepancy: when a slice ends. start: zero or fbp (hann). Sauer and Bouman (1993).
    Raises FrameError where the noise is unmodelled or 0, for another unit, no centre, or numbers that are not finite.
    """
    frame.known_noise("restore.least_squares")
    if weight < 0:
        raise FrameError(f"restore.least_squares: weight {weight}, expected 0 or more")
    own = {"tolerance": tolerance, "weight": weight}
    options = {"center": center, "size": size, "pair": True, "workers": workers, "discrepancy": False}
    return _solved(
        frame,
        "restore.least_squares",
        lambda rays: solvers.weighted(rays, _weights(rays), weight),
        iterations,
        tolerance,
        start,
        own,
        options,
    )


def _solved(
    frame: Frame,
    step: str,
    method: Callable[[Rays], Iterates],
    iterations: int,
    tolerance: float,
    start: str,
    own: dict[str, Any],
    options: dict[str, Any],
) -> Frame:
    slices, found = iterate(frame, step, method, iterations=iterations, tolerance=tolerance, start=start, **options)
    return volume(frame, slices, None, step, {"iterations": iterations, "start": start} | own | found)


def _weights(rays: Rays) -> Any:
    """1 / var of mean 1 for each slice."""
    var = rays.variance()
    if not np.all(var > 0):
        raise FrameError(
            "restore.least_squares: the noise of some pixels is 0 or less, so that they would weigh everything; "
            "check the noise model, or use cgls"
        )
    w = np.reciprocal(var, out=var)
    w /= np.mean(w, axis=(0, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    return w


def _between(step: str, relaxation: float) -> None:
    if not 0 < relaxation < 2:
        raise FrameError(f"{step}: relaxation {relaxation}, expected above 0 and below 2, else it diverges")


def _negative(frame: Frame) -> int:
    return int(np.count_nonzero(np.asarray(frame.data) < 0))


@lru_cache(maxsize=2)
def _largest(grid: Gridding) -> float:
    """|A^T A| with a margin, as power iterations end a little low."""
    return 1.02 * power(Normal(grid), grid.size, steps=20)
