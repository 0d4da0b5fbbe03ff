"""What all iterative reconstructions share: batches of slices with their operator, threads, stopping, progress, history."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.noise import Noise
from firstlight.operators import Gridding, Normal
from firstlight.operators.ramp import angle_weights, response
from firstlight.restore.reconstruct import scan_of

__all__ = ["Iterates", "Rays", "disc", "fixed", "iterate", "level", "positive", "progress"]

Array = NDArray[Any]
# images (S, size, size); residual RMS (S,), None where it would cost a projection; relative change (S,), None: of the residual
Iterates = Iterator[tuple[Array, Array | None, Array | None]]
Tick = Callable[[int, int], None]
BATCH = 8  # slices at a time: they share the weights of the projector
CUT = 0.1  # of the largest mean projection: what the outer columns may hold before a convolution is wrong
EDGE = 64  # the outer columns are one in so many, at least one
_TICK: ContextVar[Tick | None] = ContextVar("tick", default=None)


@contextmanager
def progress(tick: Tick) -> Iterator[None]:
    """Iterative steps within call tick(iterations done, iterations at most), from any thread, one call at a time."""
    token = _TICK.set(tick)
    try:
        yield
    finally:
        _TICK.reset(token)


@dataclass(frozen=True, eq=False)
class Rays:
    """A batch of slices: its projections (A, S, X) float32 and the projector, in units of 1/px."""

    piece: Frame
    data: Array
    grid: Gridding
    normal: Normal | None
    waves: Array  # (A, width / 2 + 1)
    circle: Array | None  # (size, size): 1 where the convolution holds, inside what the detector sees
    turns: Array | None
    start: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the images: slices, rows, columns."""
        return self.data.shape[1], self.grid.size, self.grid.size

    def forward(self, x: Array, out: Array | None = None) -> Array:
        """A x."""
        return self.grid.forward(x, self.waves, turns=self.turns, out=out)

    def adjoint(self, y: Array, out: Array | None = None) -> Array:
        """A^T y."""
        return self.grid.adjoint(y, self.waves, turns=self.turns, out=out)

    def gram(self, x: Array, out: Array | None = None) -> Array:
        """A^T A x; as a convolution, for images that are 0 outside the circle, and 0 there."""
        if self.normal is None or self.circle is None:
            return self.adjoint(self.forward(x), out)
        out = self.normal(x, out)
        out *= self.circle
        return out

    def right(self) -> Array:
        """A^T b, the right-hand side that goes with `gram`."""
        out = self.adjoint(self.data)
        return out if self.circle is None else np.multiply(out, self.circle, out=out)

    def misfit(self, x: Array) -> Array:
        """RMS (S,) of A x - b, through the projector."""
        left = self.forward(x)
        left -= self.data
        return np.asarray(np.sqrt(np.einsum("asx,asx->s", left, left, dtype=np.float64) / left[:, 0].size))

    def first(self) -> Array:
        """The image to start from."""
        if self.start == "zero":
            return np.zeros(self.shape, np.float32)
        ramp = response("hann", self.grid.width) * angle_weights(self.grid.angles)[:, None]
        out = self.grid.adjoint(self.data, self.waves * ramp.astype(np.float32), turns=self.turns)
        return out if self.circle is None else np.multiply(out, self.circle, out=out)

    def subset(self, every: int, first: int) -> Rays:
        """Each `every`-th projection from `first` on."""
        part = slice(first, None, every)
        grid, data, waves = self.grid.subset(part), self.data[part], self.waves[part]
        return replace(self, data=data, grid=grid, waves=waves, normal=None)

    def variance(self) -> Array:
        """Variance (A, S, X) float32 of the projections' own noise; what all share (the flat's) is no weight."""
        own = self.piece.known_noise("variance of the projections")
        return np.asarray(Noise(own.a, own.b, own.offset).variance(self.data), dtype=np.float32)


def iterate(
    frame: Frame,
    step: str,
    method: Callable[[Rays], Iterates],
    *,
    iterations: int,
    tolerance: float,
    center: float | Sequence[float] | None,
    size: int | None,
    start: str = "zero",
    pair: bool = True,
    workers: int | None = None,
    discrepancy: bool = False,
) -> tuple[Array, dict[str, Any]]:
    """Slices (S, size, size) [1/px, float32] and what the history says of them.

    method: yields one iterate at a time for a batch. A slice ends where its change is below `tolerance`, or with
    `discrepancy` where its residual is that of the noise; it does not depend on the slices beside it.
    """
    scan, data, centers = scan_of(frame, step, center)
    positive(step, iterations=iterations)
    if start not in ("zero", "fbp"):
        raise FrameError(f"{step}: start {start!r}, expected zero or fbp")
    if not np.isfinite(np.sum(data, dtype=np.float64)):
        raise FrameError(f"{step}: the projections are not finite; replace what is not, or flag and floor it before")
    if not pair:
        _uncut(data, step)
    side = data.shape[2] if size is None else size
    grid, normal, waves, circle = _geometry(scan.angles.tobytes(), data.shape[2], side, not pair)
    out = np.empty((data.shape[1], side, side), np.float32)
    parts = [slice(i, min(i + BATCH, len(out))) for i in range(0, len(out), BATCH)]
    count = _Count(iterations * len(parts))

    def one(part: slice) -> tuple[list[Array], Array]:
        piece = frame.crop(Box((0, part.start, 0), (len(scan.angles), part.stop, data.shape[2])))
        mine = centers[part] - (grid.columns - 1) / 2
        turns = None if not np.any(mine) else mine / grid.width
        rays = Rays(piece, data[:, part], grid, normal, waves, circle, turns, start)
        goal = np.sqrt(np.mean(rays.variance(), axis=(0, 2))) if discrepancy else None
        return _run(rays, method, out[part], iterations, tolerance, goal, count)

    threads = min(len(parts), workers or len(os.sched_getaffinity(0)))
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(one, parts))
    else:
        found = [one(part) for part in parts]
    return out, _said(found) | {"center": _plain(centers), "size": side}


def level(rays: Rays, noise: float | None) -> tuple[Array, str]:
    """Noise of the projections (S,), RMS over each slice, and where it is from.

    Without a model or `noise`: what the local parabola along X leaves over, by the median, as edges are few.
    """
    if noise is not None:
        return np.full(rays.data.shape[1], noise), "noise"
    if isinstance(rays.piece.noise, Noise):
        return np.sqrt(np.mean(rays.variance(), axis=(0, 2))), "the noise model"
    left = np.abs(np.diff(rays.data, 3, axis=2)) / np.sqrt(20)  # 1 + 9 + 9 + 1
    return np.median(left, axis=(0, 2)) / 0.6745, "a local parabola along X"


def positive(step: str, **values: float | None) -> None:
    """Raises FrameError where a parameter is given and not above 0."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise FrameError(f"{step}: {name} {value}, expected a number above 0")


def fixed(images: float, projections: float = 1) -> Callable[..., float]:
    """Bytes of workspaces: so many arrays of a batch's slices and of its projections, and the gridding's."""

    def bytes_of(frame: Frame, *, size: int | None = None, **_: Any) -> float:
        side = frame.shape[2] if size is None else size
        field = max(side, frame.shape[2])
        rays = frame.shape[0] * frame.shape[2]
        return 4 * (BATCH * (images * side**2 + projections * rays) + BATCH * (2 * field + 6) ** 2 + 8 * side**2)

    return bytes_of


def disc(grid: Gridding) -> Array:
    """1 inside the circle around the axis that every projection sees, else 0: (size, size) float32."""
    c = np.arange(grid.size) - (grid.size - 1) / 2
    return np.asarray(np.hypot(c, c[:, None]) < grid.columns / 2, dtype=np.float32)


class _Count:
    """Iterations done of all batches, for whoever listens."""

    def __init__(self, total: int) -> None:
        self.tick, self.total, self.done, self.lock = _TICK.get(), total, 0, Lock()

    def add(self, n: int) -> None:
        with self.lock:
            self.done += n
            if self.tick is not None:
                self.tick(self.done, self.total)


@lru_cache(maxsize=2)
def _geometry(angles: bytes, columns: int, size: int, convolution: bool) -> tuple[Gridding, Normal | None, Array, Array | None]:
    grid = Gridding(np.frombuffer(angles), columns, size=size, filtered=False, pairs=BATCH // 2, workers=1)
    waves = grid.phases((columns - 1) / 2, nyquist=0.0)
    if not convolution:
        return grid, None, waves, None
    return grid, Normal(grid), waves, disc(grid)


def _run(
    rays: Rays,
    method: Callable[[Rays], Iterates],
    out: Array,
    iterations: int,
    tolerance: float,
    goal: Array | None,
    count: _Count,
) -> tuple[list[Array], Array]:
    """Fills `out`; the residuals of each iteration (S,), NaN where nobody asked, and when each slice ended."""
    ended = np.zeros(len(out), dtype=int)
    history: list[Array] = []
    for k, (x, known, change) in enumerate(method(rays), 1):
        asked = goal is not None or (change is None and tolerance > 0)
        residual = rays.misfit(x) if known is None and (asked or k == iterations) else known
        moved = _moved(history, residual) if change is None else change
        stop = (np.abs(moved) < tolerance) | (k == iterations)
        if goal is not None:
            stop |= residual <= goal
        if residual is None and np.any(stop & (ended == 0)):
            residual = rays.misfit(x)
        value = np.full(len(out), np.nan) if residual is None else residual
        history.append(np.where(ended > 0, history[-1], value) if history else value)
        for i in np.flatnonzero(stop & (ended == 0)):
            out[i], ended[i] = x[i], k
        count.add(1)
        if np.all(ended):
            break
    count.add(iterations - len(history))
    return history, ended


def _moved(history: list[Array], residual: Array | None) -> Array:
    if not history or residual is None:
        return np.asarray(np.inf)
    return np.asarray(1 - residual / np.maximum(history[-1], 1e-30))


def _said(found: list[tuple[list[Array], Array]]) -> dict[str, Any]:
    """How many iterations the slices took and the median residual [RMS] after 1, 2, 4, ... and the last of them, as known."""
    ended = np.concatenate([e for _, e in found])
    last = int(ended.max())
    marks = sorted({min(2**k, last) for k in range(last.bit_length() + 1)})
    at = {m: float(np.median(np.concatenate([h[min(m, len(h)) - 1] for h, _ in found]))) for m in marks}
    residuals = {str(m): float(f"{r:.4g}") for m, r in at.items() if np.isfinite(r)}
    return {"ended": [int(ended.min()), last], "residuals": residuals}


def _uncut(data: Array, step: str) -> None:
    mean = np.abs(np.mean(data, axis=0))
    edge = -(-mean.shape[1] // EDGE)
    outer = max(float(mean[:, :edge].mean()), float(mean[:, -edge:].mean()))
    if outer > CUT * float(mean.max()):
        share = outer / float(mean.max())
        raise FrameError(
            f"{step}: the detector cuts the projections (its outer columns hold {share:.0%} of the largest), "
            "and a convolution is then wrong; give pair=True, which takes the projector itself"
        )


def _plain(centers: Array) -> float | list[float]:
    return float(centers[0]) if np.ptp(centers) == 0 else [float(c) for c in centers]
