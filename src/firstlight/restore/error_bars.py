"""Error bars that mean what they say: a network's log-variance, corrected by a table measured on scenes of known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import ModelError

__all__ = ["KEY", "calibrated", "corners"]

Array = NDArray[Any]
KEY = "error_scale"  # of a model's scaling: {"level": [...], "log_variance": [...], "log_scale": [[...], ...]}
Knots = Sequence[float] | Array
FLOOR = 0.1  # a stabilised level below which there is no signal to tell apart


def calibrated(scaling: Mapping[str, Any], mean: Array, log_variance: Array) -> Array:
    """The log-variance of a network's estimate, float32, both (Y, X): corrected where the model's `scaling` has a table.

    log_variance + 2 T(log mean, log_variance), T linear between the table's knots and constant beyond. mean: stabilised. Where
    scaling has no table the log-variance is returned as it is. Raises ModelError for a table that is none.
    """
    if KEY not in scaling:
        return log_variance
    level, spread, table = _table(scaling[KEY])
    out = np.array(log_variance, dtype=np.float32)
    for row, where in enumerate(mean):
        for index, weight in corners(level, spread, where, log_variance[row]):
            out[row] += 2 * weight * table.ravel()[index]
    return out


def corners(level: Knots, spread: Knots, mean: Array, log_variance: Array) -> list[tuple[Array, Array]]:
    """The four entries of a raveled table between which each pixel lies, and their weights, which add up to 1."""
    (i, u), (j, v) = _place(np.log(np.maximum(mean, FLOOR)), np.log(level)), _place(log_variance, np.asarray(spread))
    width = len(spread)
    return [
        ((i + di) * width + j + dj, (u if di else 1 - u) * (v if dj else 1 - v)) for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]


def _place(values: Array, knots: Array) -> tuple[Array, Array]:
    where = np.interp(values, knots, np.arange(len(knots)))
    low = np.minimum(where.astype(np.int64), len(knots) - 2)
    return low, (where - low).astype(np.float32)


def _table(given: Any) -> tuple[Array, Array, Array]:
    try:
        level, spread, table = (np.asarray(given[k], dtype=np.float32) for k in ("level", "log_variance", "log_scale"))
        good = table.shape == (len(level), len(spread)) and min(table.shape) > 1 and bool(np.isfinite(table).all())
        good = good and level[0] > 0 and bool((np.diff(level) > 0).all() and (np.diff(spread) > 0).all())
    except (KeyError, TypeError, ValueError, IndexError):
        good = False
    if not good:
        raise ModelError(
            f"model: {KEY} in its scaling is no table; expected rising knots level (positive) and log_variance and a finite "
            "log_scale for each pair: write it with scripts/calibrate_error_bars.py"
        )
    return level, spread, table
