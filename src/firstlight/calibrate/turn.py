"""Angles of a scan as turns: which projections make up half a turn, resampled to a uniform grid where they are not on one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError

__all__ = ["Arc", "Turn", "arc_of", "half_turns", "resampled"]

Array = NDArray[Any]
SAME = 1e-6  # rad: closer angles are one angle, repeated
LACK = 0.012  # share of half a turn that may be missing: 2 degrees


class Arc(NamedTuple):
    """Projections by angle [rad] from the arc's first; `order` (A,) are their indices, `step` the median step [rad]."""

    angles: Array
    order: Array
    step: float

    @property
    def span(self) -> float:
        """What the projections cover [rad], one step for each of them."""
        return float(self.angles[-1] - self.angles[0] + self.step)

    @property
    def full(self) -> bool:
        """Whether they go all the way round."""
        return self.span > 2 * np.pi * (1 - LACK / 2)


class Turn(NamedTuple):
    """Half a turn: grid point k is (1 - share[k]) of projection low[k] and share[k] of projection high[k]; all (N,)."""

    low: Array
    high: Array
    share: Array


def arc_of(angles: Array, what: str) -> Arc:
    """The angles sorted round the circle, from behind their largest gap (or from the first); repeated ones stay in file order.

    Raises FrameError for fewer than 8 different angles (an angle twice counts once), which is too few for anything here.
    """
    turn = np.mod(angles - angles[0] + SAME, 2 * np.pi) - SAME
    if angles.size > 1 and np.isclose(np.ptp(angles), 2 * np.pi, atol=SAME):
        turn = np.where(np.abs(angles - angles[0]) > 2 * np.pi - SAME, 2 * np.pi, turn)
    order = np.argsort(turn, kind="stable")
    turn = turn[order]
    steps = np.diff(turn)
    if np.count_nonzero(steps > SAME) < 7:
        raise FrameError(f"{what}: {angles.size} projections at fewer than 8 different angles; give the whole scan")
    step = float(np.median(steps[steps > SAME]))
    gaps = np.append(steps, 2 * np.pi - turn[-1] + turn[0])
    first = (int(np.argmax(gaps)) + 1) % turn.size if gaps.max() > 1.5 * step else 0  # all the way round: from the file's first
    turn = np.roll(turn, -first)
    turn = np.where(turn < turn[0] - SAME, turn + 2 * np.pi, turn)
    return Arc(turn - turn[0], np.roll(order, -first), step)


def half_turns(angles: Array, what: str) -> list[Turn]:
    """One half turn, or two where the scan goes all the way round. Raises FrameError where less is covered or gaps are wide.

    angles [rad] in any order, any start; 180 degrees included or not. Repeated angles: the first of them is taken.
    """
    arc = arc_of(angles, what)
    if arc.span < np.pi * (1 - LACK) - arc.step / 2:
        raise FrameError(
            f"{what}: the angles cover {np.degrees(arc.span):.1f} degrees, expected 180 (or 360); are they in radians, and "
            "is this the whole scan? Give the centre by hand where it is known"
        )
    keep = np.append(True, np.diff(arc.angles) > SAME)
    theta, order = arc.angles[keep], arc.order[keep]
    gap = float(np.diff(theta[theta < np.pi + arc.step]).max())
    if gap > max(4 * arc.step, np.radians(2)):
        raise FrameError(
            f"{what}: a gap of {np.degrees(gap):.1f} degrees between projections, expected {np.degrees(arc.step):.2f}"
        )
    number = max(round(np.pi / arc.step), 8)
    starts = (0.0, np.pi) if arc.full else (0.0,)
    return [_turn(theta, order, start + np.arange(number) * np.pi / number) for start in starts]


def _turn(theta: Array, order: Array, grid: Array) -> Turn:
    at = np.interp(grid, theta, np.arange(theta.size))
    near = np.rint(at)
    at = np.where(np.abs(at - near) < 0.02, near, at)  # a grid that is uniform to 2 % of its step is not interpolated
    low = np.floor(at).astype(np.intp)
    return Turn(order[low], order[np.minimum(low + 1, theta.size - 1)], (at - low).astype(np.float32))


def resampled(rows: Array, turn: Turn) -> Array:
    """Sinogram (A, X) on the turn's grid (N, X), float32."""
    low = rows[turn.low].astype(np.float32, copy=False)
    if not turn.share.any():
        return np.asarray(low)
    return np.asarray(low + turn.share[:, None] * (rows[turn.high].astype(np.float32, copy=False) - low))
