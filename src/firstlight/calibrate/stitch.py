"""A scan all the way round as one over half a turn with a wider field; projections taken twice at one angle as one."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, floor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.calibrate.detector import mark
from firstlight.calibrate.gaps import filled
from firstlight.calibrate.turn import Turn, arc_of, half_turns
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame
from firstlight.geometry import Scan
from firstlight.needs import needs
from firstlight.noise import Noise, Unmodelled, spread

__all__ = ["merge_repeated", "stitch_360"]

Array = NDArray[Any]
STEP = "calibrate.stitch_360"
LEAST = 4  # px of overlap


class _Join(NamedTuple):
    """On the new columns (X,), `start` the first as an old one: own weight, the opposite's column below, share of the next."""

    start: int
    own: Array
    low: Array
    share: Array


@needs(halo=0, copies=5.0)
def stitch_360(frame: Frame, *, center: float | None = None) -> Frame:
    """Half a turn (A/2, Y, X') [unit kept, float32] from a scan (A, Y, X) over 360 degrees whose axis is off the middle.

    Each projection is continued by the mirror image of the one half a turn on, p(theta, x) = p(theta + pi, 2c - x), linear
    between columns (and between angles where the grid asks for it), blended over the overlap by a raised cosine. center
    [px], None: as Scan.center says; `find_center` finds it on the whole turn. The result's Scan.center counts from its first
    column. Noise becomes unmodelled and std is dropped: the overlap is an average of two. Flags of both go on. Raises
    FrameError for less than a whole turn, an axis that is unknown, differs from row to row or leaves under 4 px of overlap.
    """
    if frame.axes != "AYX" or not isinstance(frame.geometry, Scan):
        raise FrameError(f"{STEP}: got axes {frame.axes}, expected a scan AYX with its angles")
    scan, axis = frame.geometry, frame.geometry.center if center is None else center
    if axis is None or np.size(axis) != 1:
        raise FrameError(f"{STEP}: got axis {axis}, expected one column; give center= or run calibrate.find_center first")
    arc = arc_of(scan.angles, STEP)
    if not arc.full:
        raise FrameError(f"{STEP}: the angles cover {np.degrees(arc.span):.1f} degrees, expected 360; nothing to stitch")
    turns = half_turns(scan.angles, STEP)
    join = _join(float(np.ravel(axis)[0]), frame.shape[2])
    raw = np.asarray(frame.data, dtype=np.float32)
    data, bits = (raw, None) if np.isfinite(raw.sum(dtype=np.float64)) else filled(raw, STEP)
    flags = frame.flags if bits is None else bits if frame.flags is None else np.bitwise_or(frame.flags, bits)
    angles = scan.angles[arc.order[0]] + np.arange(len(turns[0].low)) * np.pi / len(turns[0].low)
    moved = replace(scan, angles=angles, center=float(np.ravel(axis)[0]) - join.start, extra=())
    return frame.then(
        STEP,
        {"center": float(np.ravel(axis)[0])},
        data=_stitched(data, turns, join),
        flags=None if flags is None else _flagged(np.asarray(flags), turns, join),
        noise=Unmodelled(f"{STEP}: the overlap is an average of two projections, the mirrored half is interpolated"),
        std=None,
        geometry=moved,
    )


@needs(halo=0, copies=3.0)
def merge_repeated(frame: Frame, *, tolerance: float = 1e-5) -> Frame:
    """Projections at one angle (within `tolerance` [rad]) averaged: (A', Y, X), float32, the others as they are.

    Angles a whole turn apart are not one: a sample may have moved on. Noise: a and b over the number averaged, c and d are
    shared and stay; flags are joined, std over the root of the number. What is not finite is left out of the mean and flagged
    NO_DATA; where nothing is finite the mean is not either. Raises FrameError for other axes or a negative tolerance.
    """
    step = "calibrate.merge_repeated"
    if not tolerance >= 0:
        raise FrameError(f"{step}: tolerance {tolerance}, expected an angle [rad] of 0 or more")
    if frame.axes != "AYX" or not isinstance(frame.geometry, Scan):
        raise FrameError(f"{step}: got axes {frame.axes}, expected a scan AYX with its angles")
    angles, groups = frame.geometry.angles, list[list[int]]()
    for i in np.argsort(angles, kind="stable"):
        if groups and angles[i] - angles[groups[-1][0]] <= tolerance:
            groups[-1].append(int(i))
        else:
            groups.append([int(i)])
    groups.sort(key=min)
    number = np.array([len(g) for g in groups])
    if number.max() == 1:
        return frame.then(step, {"tolerance": tolerance})
    raw, flags, std = np.asarray(frame.data), frame.flags, frame.std
    data = np.empty((len(groups), *raw.shape[1:]), dtype=np.float32)
    lost = np.zeros(data.shape, dtype=bool)
    for k, g in enumerate(groups):
        data[k], lost[k] = _mean(raw[g])
    if flags is not None and _per_angle(flags, frame):
        flags = np.stack([np.bitwise_or.reduce(np.asarray(flags)[g], axis=0) for g in groups])
    flags = mark(flags, lost, Flag.NO_DATA, data.shape)
    many = number.reshape(-1, 1, 1)
    if std is not None:
        std = np.asarray(std)
        squares = np.stack([np.square(std[g]).mean(axis=0) for g in groups]) if _per_angle(std, frame) else np.square(std)
        std = np.sqrt(squares / many)
    first = [min(g) for g in groups]
    geometry = replace(frame.geometry, angles=angles[first], extra=())
    return frame.then(
        step, {"tolerance": tolerance}, data=data, flags=flags, std=std, geometry=geometry, noise=_noise(frame, groups)
    )


def _mean(part: Array) -> tuple[Array, Array]:
    """(The mean (Y, X) of what is finite among projections, where something is not)."""
    good = np.isfinite(part)
    if good.all():
        return part.mean(axis=0, dtype=np.float64), np.zeros(part.shape[1:], dtype=bool)
    total = np.where(good, part, 0).sum(axis=0, dtype=np.float64)
    mean = np.divide(total, good.sum(axis=0), out=np.full(total.shape, np.nan), where=good.any(axis=0))
    return mean, np.asarray(~good.all(axis=0))


def _per_angle(part: Any, frame: Frame) -> bool:
    return len(part.shape) == 3 and part.shape[0] == frame.shape[0] > 1


def _noise(frame: Frame, groups: list[list[int]]) -> Noise | Unmodelled:
    if isinstance(frame.noise, Unmodelled):
        return frame.noise
    many = np.array([len(g) for g in groups], dtype=np.float32).reshape(-1, 1, 1)

    def over(value: Any, shared: bool) -> Any:
        value = spread(value, frame.shape)
        if np.ndim(value) and _per_angle(value, frame):
            value = np.stack([np.asarray(value)[g].mean(axis=0) for g in groups])
        return value if shared else value / many

    own = frame.noise
    return Noise(over(own.a, False), over(own.b, False), over(own.offset, True), over(own.c, True), over(own.d, True))


def _join(center: float, columns: int) -> _Join:
    first, last = 2 * center - (columns - 1), 2 * center  # what the mirror image covers, in old columns
    if not 0 <= center <= columns - 1 or min(last, columns - 1) - max(first, 0) < LEAST:
        raise FrameError(f"{STEP}: axis {center:g} of {columns} columns leaves under {LEAST} px of overlap; check the centre")
    start, stop = min(0, ceil(first)), max(columns - 1, floor(last))
    x = np.arange(start, stop + 1)
    share = np.clip((x - max(first, 0)) / (min(last, columns - 1) - max(first, 0)), 0, 1)
    falling = 0.5 + 0.5 * np.cos(np.pi * share)
    own = falling if center >= (columns - 1) / 2 else 1 - falling
    own = np.where((x < 0) | (x > columns - 1), 0.0, np.where((x < first) | (x > last), 1.0, own))
    at = np.clip(2 * center - x, 0, columns - 1)
    low = np.minimum(np.floor(at).astype(np.intp), columns - 2)
    return _Join(start, own.astype(np.float32), low, (at - low).astype(np.float32))


def _stitched(data: Array, turns: list[Turn], join: _Join) -> Array:
    columns, number = data.shape[2], len(turns[0].low)
    out = np.empty((number, data.shape[1], join.own.size), dtype=np.float32)
    inside = slice(-join.start, columns - join.start)
    for k in range(number):
        other = _between(data, turns[1], k)
        out[k] = (1 - join.own) * (other[:, join.low] * (1 - join.share) + other[:, join.low + 1] * join.share)
        out[k][:, inside] += join.own[inside] * _between(data, turns[0], k)
    return out


def _between(data: Array, turn: Turn, k: int) -> Array:
    low, share = data[turn.low[k]], turn.share[k]
    return np.asarray(low if share == 0 else low + share * (data[turn.high[k]] - low))


def _flagged(flags: Array, turns: list[Turn], join: _Join) -> Array:
    """Bits of every pixel that takes part, (1 or A/2, Y or 1, X')."""
    flags = flags.reshape((1,) * (3 - flags.ndim) + flags.shape)
    if flags.shape[2] == 1:
        return flags[:1] | np.bitwise_or.reduce(flags, axis=0, keepdims=True)
    one, two = (flags, flags) if flags.shape[0] == 1 else (flags[t.low] | np.where(_mixed(t), flags[t.high], 0) for t in turns)
    mirrored = two[..., join.low] | np.where(join.share > 0, two[..., join.low + 1], 0)
    out = np.where(join.own < 1, mirrored, 0).astype(flags.dtype)
    inside = slice(-join.start, flags.shape[2] - join.start)
    out[..., inside] |= np.where(join.own[inside] > 0, one, 0).astype(flags.dtype)
    return out


def _mixed(turn: Turn) -> Array:
    return np.asarray((turn.share > 0).reshape(-1, 1, 1))
