"""Photon transfer: gain, read noise, offset and saturation of a detector from flats and darks.

var = (mean - offset)/gain + (read_noise/gain)^2 [ADU^2]: a line through the levels' temporal variances and means.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.atomic import replacing
from firstlight.calibrate.levels import Level, check_frames, group, lattice, measure_level, typical
from firstlight.calibrate.line import Line, Transfer, electrons, weighted_line, widened
from firstlight.errors import FrameError, WriteError
from firstlight.frame import Frame
from firstlight.noise import Detector

__all__ = ["Transfer", "plot", "transfer"]

Array = NDArray[Any]


def transfer(
    flats: Sequence[Frame],
    *,
    darks: Sequence[Frame] = (),
    levels: Sequence[Hashable] | None = None,
    photons: Sequence[float] | None = None,
    offset: float | None = None,
    top: float = 0.9,
    clip: float = 5.0,
) -> Transfer:
    """Gain [e-/ADU], read noise [e-], offset and saturation [ADU] from flats and darks, each (Y, X) [ADU], any number.

    Two flats or more a level: by `levels` (one label per flat), else by exposure and mean. Darks or bias frames give the
    offset (their shortest exposure) and the read noise; darks of each flat's own exposure are subtracted level by level. With
    no darks give `offset` [ADU]. `photons` (mean per pixel, one per flat) adds the quantum efficiency. Levels above `top` of
    the range are left out where the flats reach saturation; `clip` [sigma] drops outlying pixels. Raises FrameError for fewer
    than two flats a level, mixed shapes, a unit other than ADU, no offset, or a variance that does not rise with the mean.
    Janesick 2007; EMVA 1288 release 4.
    """
    _check(flats, darks, photons, offset)
    stride = max(1, len(flats) * flats[0].data.size // 2_000_000)
    step = lattice(np.concatenate([np.asarray(f.data).ravel()[::stride] for f in flats]))
    full = _full_scale(flats, step)
    dark_sets = group(darks, None if _timed(darks) else [0] * len(darks), 0.0)
    dark_sets.sort(key=lambda members: darks[members[0]].observation.exposure or 0.0)
    zero, zero_std = _offset([darks[i] for i in dark_sets[0]] if darks else [], offset)
    limit = np.inf if full is None else full
    options: dict[str, Any] = {"stuck": _stuck(darks, flats[0].shape, limit), "top": limit, "step": step, "clip": clip}
    bright_sets = group(flats, levels, zero)
    _need_pairs(flats, bright_sets)
    bright = [measure_level([flats[i] for i in s], dark=False, **options) for s in bright_sets]
    if photons is not None:
        light = [float(np.mean([photons[i] for i in s])) for s in bright_sets]
        bright = [replace(v, photons=p) for v, p in zip(bright, light, strict=True)]
    dark_levels = [_dark_level([darks[i] for i in s], options) for s in dark_sets]
    bright, saturation, saturation_std = _leave_out(bright, zero, full, top)
    if bright[-1].mean <= zero:
        raise FrameError(
            f"transfer: flats of at most {bright[-1].mean:.6g} ADU are no brighter than the darks ({zero:.6g} ADU); are they "
            "swapped?"
        )
    matched = _matched(bright, dark_levels)
    fit = _fit(bright, dark_levels, matched, zero)
    result = _result(fit, bright, dark_levels, (zero, zero_std), step)
    if full is not None and any(v.clipped > 0.001 for v in bright):
        saturation, saturation_std = _hard_end(result, full, saturation, saturation_std)
    detector = replace(result.detector, saturation=saturation, saturation_std=saturation_std)
    result = replace(result, detector=detector, clipped_at=full)
    return result if photons is None else _with_efficiency(result, bright, dark_levels, matched)


def _check(flats: Sequence[Frame], darks: Sequence[Frame], photons: Sequence[float] | None, offset: float | None) -> None:
    if len(flats) < 2:
        raise FrameError(f"transfer: {len(flats)} flats, expected two or more of each level; for one image use transfer_single")
    check_frames([*flats], "flats")
    check_frames([flats[0], *darks], "darks")
    if not darks and offset is None:
        raise FrameError(
            "transfer: no darks and no offset, so read noise and offset cannot be told apart; give darks or offset="
        )
    if photons is not None and (len(photons) != len(flats) or min(photons) < 0):
        raise FrameError(f"transfer: {len(photons)} photon numbers for {len(flats)} flats; give one per flat, 0 or more")


def _timed(frames: Sequence[Frame]) -> bool:
    return all(f.observation.exposure is not None for f in frames)


def _need_pairs(flats: Sequence[Frame], sets: Sequence[Sequence[int]]) -> None:
    for members in sets:
        if len(members) < 2:
            mean = typical(flats[members[0]])
            raise FrameError(
                f"transfer: flat {members[0]} (mean {mean:.6g} ADU) is alone at its level, expected two or more flats of each "
                "level; take a second one, leave it out, or say which belong together with levels="
            )
        first = np.asarray(flats[members[0]].data)
        if any(np.array_equal(first, flats[i].data) for i in members[1:]) and np.ptp(first) > 0:
            raise FrameError(f"transfer: flats {list(members)} hold the same image twice; give separate exposures")


def _full_scale(flats: Sequence[Frame], step: float) -> float | None:
    """The code [ADU] where values pile up: stated by the file, else the largest one if it outnumbers the one below it."""
    stated = [float(np.min(f.observation.saturation)) for f in flats if f.observation.saturation is not None]
    if stated:
        return min(stated)
    top = max(float(np.max(f.data)) for f in flats)
    for frame in flats:
        data = np.asarray(frame.data)
        at, below = np.count_nonzero(data >= top), np.count_nonzero((data < top) & (data >= top - 1.5 * step))
        if at > 0.001 * data.size and at > 2 * below:
            return top
    return None


def _offset(darks: Sequence[Frame], offset: float | None) -> tuple[float, float | None]:
    if offset is not None or not darks:
        return float(offset or 0.0), None
    means = np.array([typical(f) for f in darks])
    n = len(means)
    low, high = np.percentile(np.asarray(darks[0].data), [16, 84])
    white = float(high - low) ** 2 / 4 / (n * darks[0].data.size)
    drift = float(means.var(ddof=1)) / n if n > 1 else 0.0
    return float(means.mean()), float(np.sqrt(max(white, drift)))


def _stuck(darks: Sequence[Frame], shape: tuple[int, ...], limit: float) -> Array:
    """Pixels (Y, X) that are at the end of the range without light."""
    bad = np.zeros(shape, dtype=bool)
    for dark in darks:
        bad |= np.asarray(dark.data) >= limit
    return bad


def _dark_level(frames: Sequence[Frame], options: dict[str, Any]) -> Level:
    if len(frames) > 1:
        return measure_level(frames, dark=True, **options)
    data = np.asarray(frames[0].data, dtype=np.float64)
    why = "one dark of this exposure: its mean counts, its variance would hold fixed patterns"
    exposure = frames[0].observation.exposure
    return Level(typical(frames[0]), np.nan, np.nan, exposure, 1, data.size, dark=True, used=False, reason=why)


def _leave_out(
    levels: list[Level], zero: float, full: float | None, top: float
) -> tuple[list[Level], float | None, float | None]:
    """Marks the levels beyond the range; returns them by mean, and the saturation [ADU] with its standard error, or None.

    EMVA 1288: saturation is the level of the largest variance; it lies somewhere between that level's neighbours.
    """
    levels = sorted(levels, key=lambda v: v.mean)
    means = np.array([v.mean for v in levels])
    variances, errors = np.array([v.variance for v in levels]), np.array([v.variance_std for v in levels])
    peak = int(np.argmax(variances))
    fallen = [j for j in range(peak + 1, len(levels)) if variances[peak] - variances[j] > 5 * np.hypot(errors[peak], errors[j])]
    saturation = saturation_std = None
    if fallen:
        saturation = float(means[peak])
        saturation_std = float((means[fallen[0]] - means[max(peak - 1, 0)]) / np.sqrt(12))
    end = full if full is not None else (saturation if saturation is not None else np.inf)
    out = []
    for j, level in enumerate(levels):
        reason = ""
        if fallen and j >= (fallen[0] if full is not None else peak):
            reason = "at or beyond the largest variance: saturated"
        elif level.clipped > 1e-4:
            reason = f"{100 * level.clipped:.2g} % of its values are clipped"
        elif level.reason:
            reason = level.reason
        elif level.mean - zero > top * (end - zero):
            reason = f"above {top:g} of the range"
        out.append(replace(level, used=not reason, reason=reason))
    return out, saturation, saturation_std


def _matched(bright: Sequence[Level], darks: Sequence[Level]) -> dict[int, int]:
    """For each level the dark level of its exposure; empty unless every used level has one with a variance."""
    pairs = {}
    for i, level in enumerate(bright):
        for j, dark in enumerate(darks):
            timed = level.exposure is not None and dark.exposure is not None and dark.used
            if timed and abs(float(level.exposure or 0) - float(dark.exposure or 0)) <= 1e-6 * float(level.exposure or 0):
                pairs[i] = j
    return pairs if all(i in pairs for i, level in enumerate(bright) if level.used) else {}


def _hard_end(result: Transfer, full: float, low: float | None, low_std: float | None) -> tuple[float, float]:
    """Saturation [ADU] and its error where values pile up at the code `full`: widely spaced levels say little by themselves.

    Means up to six sigma below the code are unclipped for certain; saturation lies between there, or the level of the largest
    variance where that is higher, and the code.
    """
    reach = full - 6 * float(np.sqrt(result.slope * (full - float(result.detector.offset)) + max(result.intercept, 0.0)))
    value = reach if low is None else max(low, reach)
    error = (full - value) / float(np.sqrt(12))
    return value, error if low_std is None else min(error, low_std)


def _fit(bright: Sequence[Level], darks: Sequence[Level], matched: dict[int, int], zero: float) -> Line:
    """Weighted line through variance against signal.

    Rows: a level and a dark, v = K (m - zero) + b. With darks of every exposure, v - v_dark = K (m - m_dark) for the levels,
    and v = b for those darks whose mean has not moved: an offset may drift with exposure, so the others fix no line.
    """
    points = [v for v in [*bright, *darks] if v.used]
    signal = np.array([v.mean - zero for v in points])
    design, mix = np.stack([signal, np.ones_like(signal)], axis=1), np.eye(len(points))
    if matched:
        design, mix, signal = _subtracted(points, [(bright[i], darks[j]) for i, j in matched.items() if bright[i].used], zero)
    if np.linalg.matrix_rank(design / np.maximum(np.abs(design).max(axis=0), 1e-300)) < 2:
        left = [v.reason for v in [*bright, *darks] if not v.used]
        raise FrameError(
            f"transfer: {sum(v.used for v in bright)} usable flat levels and {sum(v.used for v in darks)} dark pairs fix no "
            f"line; give flats of more levels, or two darks. Left out: {'; '.join(left) or 'none'}"
        )
    variance = np.array([v.variance for v in points])
    relative = np.array([v.variance_std / max(v.variance, 1e-300) for v in points])
    if not np.all(relative > 0):
        raise FrameError("transfer: frames of a level do not differ, so they hold no noise; give separate raw exposures")
    return weighted_line(design, mix, variance, relative, signal)


def _subtracted(points: list[Level], pairs: list[tuple[Level, Level]], zero: float) -> tuple[Array, Array, Array]:
    where = {id(v): k for k, v in enumerate(points)}
    slope = sum(v.variance - d.variance for v, d in pairs) / max(sum(v.mean - d.mean for v, d in pairs), 1e-300)
    floor = min(v.variance for v in points if v.dark)
    signal, rows, sums = np.zeros(len(points)), [], []
    for v in (p for p in points if p.dark):
        signal[where[id(v)]] = max(v.variance - floor, 0.0) / slope if slope > 0 else 0.0
        if abs(v.mean - zero) * slope < 3 * v.variance_std:
            rows.append((0.0, 1.0))
            sums.append({where[id(v)]: 1.0})
    for v, d in pairs:
        signal[where[id(v)]] = v.mean - d.mean + signal[where[id(d)]]
        rows.append((v.mean - d.mean, 0.0))
        sums.append({where[id(v)]: 1.0, where[id(d)]: -1.0})
    mix = np.zeros((len(rows), len(points)))
    for k, terms in enumerate(sums):
        mix[k, list(terms)] = list(terms.values())
    return np.array(rows), mix, signal


def _result(
    fit: Line, bright: Sequence[Level], darks: Sequence[Level], zero: tuple[float, float | None], step: float
) -> Transfer:
    slope_std = float(np.sqrt(fit.covariance[0, 0]))
    if not fit.slope > 3 * slope_std:
        raise FrameError(
            f"transfer: variance does not rise with the mean (slope {fit.slope:.3g} +- {slope_std:.2g} ADU); "
            "are these raw flats of several light levels, and the darks of the same camera and setting?"
        )
    doubts = [v.reason for v in darks if v.reason.startswith("darks")]
    covariance, bent = widened(fit)
    if bent:
        doubts.append(
            f"variance is no straight line in the mean (chi-square {fit.chi2:.3g} for {fit.dof} degrees of freedom): "
            "nonlinear, or an unsteady lamp; the errors are widened to match"
        )
    lag = max((v.lag1 for v in [*bright, *darks] if v.used), key=abs)
    if abs(lag) > 0.02 + 5 / np.sqrt(bright[0].pixels):
        doubts.append(f"noise of neighbouring pixels correlates ({lag:.2f}): the gain is off by up to {400 * abs(lag):.0f} %")
    if step and 0 < fit.intercept < (0.5 * step) ** 2:
        doubts.append("read noise below half a count: quantisation is no longer independent of the signal, the figure is rough")
    if fit.intercept < 0:
        doubts.append("the line meets zero signal below zero variance: read noise is not measured here; add dark or bias pairs")
    gain, gain_std, read_noise, read_noise_std = electrons(fit.slope, fit.intercept, covariance)
    source = f"photon transfer, {sum(v.used for v in bright)} levels, {sum(v.frames for v in darks)} darks"
    detector = Detector(gain, read_noise, zero[0], None, gain_std, read_noise_std, zero[1], source=source, step=step)
    return Transfer(detector, (*darks, *bright), fit.slope, fit.intercept, covariance, fit.chi2, fit.dof, doubts=tuple(doubts))


def _with_efficiency(result: Transfer, bright: Sequence[Level], darks: Sequence[Level], matched: dict[int, int]) -> Transfer:
    """Quantum efficiency = responsivity [ADU/photon] x gain [e-/ADU]; responsivity = sum of signals / sum of photons."""
    rows = [
        (level.photons, level.mean - (darks[matched[i]].mean if i in matched else result.detector.offset))
        for i, level in enumerate(bright)
        if level.used and level.photons
    ]
    if not rows:
        raise FrameError("transfer: no usable level has photons above 0; leave photons out")
    light, signal = np.array(rows, dtype=np.float64).T
    response = signal.sum() / light.sum()
    n = len(rows)
    # residuals of a ratio estimator, variance proportional to the signal
    spread = np.sqrt(np.sum((signal - response * light) ** 2 / light) / max(n - 1, 1) / light.sum())
    gain, gain_std = float(result.detector.gain), float(result.detector.gain_std or 0.0)
    error = float(np.hypot(spread * gain, response * gain_std))
    return replace(result, efficiency=float(response * gain), efficiency_std=error)


def plot(result: Transfer, path: str | Path) -> None:
    """Draws variance against signal, the fitted line, the levels left out and saturation to an image file (PNG, PDF, SVG)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    zero, full = result.detector.offset, result.detector.saturation
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="mean - offset [ADU]", ylabel="temporal variance [ADU$^2$]")
    for used, dark, style, label in (
        (True, False, "o", "flats"),
        (True, True, "s", "darks"),
        (False, False, "x", "left out"),
    ):
        chosen = [v for v in result.levels if v.used == used and v.dark == dark]
        if chosen:
            x, y, e = np.array([(v.mean - zero, v.variance, v.variance_std) for v in chosen], dtype=np.float64).T
            axes.errorbar(x, y, e, fmt=style, label=label)
    end = max((v.mean for v in result.levels), default=1.0) - zero
    line = np.array([0.0, end])
    gain = f"{result.detector.gain:.4g} e$^-$/ADU, read noise {result.detector.read_noise:.3g} e$^-$"
    axes.plot(line, result.slope * line + result.intercept, "-", color="0.3", label=f"gain {gain}")
    for place, style, name in ((full, "--", "saturation"), (result.clipped_at, ":", "values end")):
        if place is not None:
            axes.axvline(float(place) - float(zero), linestyle=style, color="0.5", label=name)
    axes.legend()
    try:
        with replacing(Path(path)) as temp:
            figure.savefig(temp, dpi=120)
    except ValueError as error:  # matplotlib's word for a format it does not know
        raise WriteError(f"{path}: the plot cannot be written ({error}); give a .png, .pdf or .svg") from error
