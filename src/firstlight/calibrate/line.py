"""The line var = slope signal + intercept through noise variances, and what it says about the detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2 as chi2_law

from firstlight.calibrate.levels import Level
from firstlight.noise import Detector

__all__ = ["Line", "Transfer", "electrons", "weighted_line", "widened"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Transfer:
    """A photon-transfer curve and the detector it gives.

    detector: gain, read noise, offset and saturation, with standard errors. levels: every level, used or not. The line is
    var = slope (mean - offset) + intercept [ADU^2], its (slope, intercept) covariance (2, 2), chi2 with `dof` degrees of
    freedom. clipped_at [ADU]: the code where values pile up or that the file states as the last, or None. efficiency: quantum
    efficiency [e-/photon] where photons were given.
    doubts: what a careful reader should know, in words.
    """

    detector: Detector
    levels: tuple[Level, ...]
    slope: float
    intercept: float
    covariance: Array
    chi2: float
    dof: int
    clipped_at: float | None = None
    efficiency: float | None = None
    efficiency_std: float | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """A fitted line: slope, intercept, their covariance (2, 2), chi2 and its degrees of freedom."""

    slope: float
    intercept: float
    covariance: Array
    chi2: float
    dof: int


def weighted_line(design: Array, mix: Array, variance: Array, relative: Array, signal: Array) -> Line:
    """The line design @ (slope, intercept) = mix @ variance, of independent variances [unit^2] at signals [unit].

    relative: standard errors over variance; weights come from the fitted variance, iterated, because the measured one would
    favour levels that came out low.
    """
    model = variance
    for _ in range(50):
        errors = (relative * model) ** 2
        weight = 1 / (mix**2 @ errors)
        normal = np.linalg.inv(design.T @ (weight[:, None] * design))
        estimator = normal @ (design.T * weight) @ mix
        theta = estimator @ variance
        # the model may not fall to zero at a level that is there: a tenth of its variance keeps the weights finite
        new = np.maximum(theta[0] * signal + theta[1], 0.1 * variance)
        done = np.allclose(new, model, rtol=1e-9)
        model = new
        if done:
            break
    errors = (relative * model) ** 2
    rest = mix @ variance - design @ theta
    chi2, dof = float(np.sum(rest**2 / (mix**2 @ errors))), len(rest) - design.shape[1]
    return Line(float(theta[0]), float(theta[1]), (estimator * errors) @ estimator.T, chi2, dof)


def electrons(slope: float, intercept: float, covariance: Array) -> tuple[float, float, float, float]:
    """Gain, its error, read noise, its error [e-] of a line: gain = 1/K, read_noise = sqrt(b)/K."""
    gain, floor = 1 / slope, max(intercept, 0.0)
    gain_std = gain**2 * float(np.sqrt(covariance[0, 0]))
    b_std = float(np.sqrt(covariance[1, 1]))
    if floor <= b_std:  # no derivative at zero: the upper edge of the interval
        return gain, gain_std, gain * float(np.sqrt(floor)), gain * float(np.sqrt(floor + b_std) - np.sqrt(floor))
    read_noise = gain * float(np.sqrt(floor))
    slopes = np.array([-read_noise / slope, 0.5 * read_noise / floor])
    return gain, gain_std, read_noise, float(np.sqrt(slopes @ covariance @ slopes))


def widened(line: Line) -> tuple[Array, bool]:
    """The covariance (2, 2), times chi2/dof where the points do not lie on a line (p < 0.01), and whether they do not."""
    if line.dof > 0 and chi2_law.sf(line.chi2, line.dof) < 0.01:
        return line.covariance * (line.chi2 / line.dof), True
    return line.covariance, False
