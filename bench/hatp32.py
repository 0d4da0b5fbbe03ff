"""HAT-P-32, 50 frames of a drifting field: the noise from the data themselves, and what one restored frame is worth in frames.

The rows of `python bench/real.py DATA hatp32`. Frames are registered by whole pixels, so noise stays independent; the target of
frame k is the sigma-clipped mean of the 49 others, and stacks of n of those others against the rest show what n frames reach.

The headers state no gain. Registered frames cannot tell it: seeing and shifts below a pixel (FWHM 2 px) move a star's pixels by
more than photons do, and the temporal variance per pixel then looks like 1.2 e-/ADU, that of whole stars like 12 at least.
What stays on its pixel can: hot pixels, whose dark current is Poisson, and the sky as it darkens, both from one frame to the
next, unregistered. They agree on about 32 e-/ADU with 1.05 ADU of read noise, digitising included: a pixel of 650 x 500 is as
noisy as the mean of 2 x 2 of a 1300 x 1000 chip read at 8 e-/ADU, whose full well 12 bit then fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, median_filter, sobel, uniform_filter, zoom
from scipy.stats import sigmaclip

from firstlight import Frame, Noise, calibrate, io, model_file
from firstlight.frame import Flag
from firstlight.measure.doubts import flat_noise
from firstlight.restore import denoise, nonlocal_means

Array = NDArray[Any]
CELL = 25  # px, of the sky map
STAR = 8.0  # ADU above the sky in the stack: five of one frame's sigmas
TESTED, SIZES = (5, 24, 44), (1, 2, 4, 8, 16)


def sky_map(data: Array, good: Array) -> Array:
    """Clipped mean per cell, smooth in between; a median of whole numbers would be off by up to half an ADU."""
    rows, cols = data.shape[0] // CELL, data.shape[1] // CELL
    cells = np.where(good, data, np.nan).reshape(rows, CELL, cols, CELL).swapaxes(1, 2).reshape(rows, cols, -1)
    middle = np.nanmedian(cells, axis=-1, keepdims=True)
    level = np.nanmean(np.where(np.abs(cells - middle) < 3, cells, np.nan), axis=-1)
    return np.asarray(zoom(level, CELL, order=1, mode="nearest", grid_mode=True), dtype=np.float32)


def exposures(folder: Path) -> list[Frame]:
    return [io.read(p) for p in sorted(folder.glob("*.FITS.gz"))]


def prepared(raw: list[Frame]) -> tuple[list[Frame], list[float]]:
    """Frames less their sky, hot and saturated pixels flagged, registered by whole pixels; the sky levels [ADU]."""
    raw = [calibrate.flag_saturated(f.replace(observation=replace(f.observation, saturation=4095.0))) for f in raw]
    hot = np.asarray(calibrate.flag_hot_pixels(raw[0].replace(flags=None), reference=raw).flags)
    print(f"  {len(raw)} frames, {np.count_nonzero(hot)} fixed hot pixels flagged")
    out, levels = [], []
    for f in raw:
        flags = hot if f.flags is None else hot | np.asarray(f.flags)
        sky = sky_map(np.asarray(f.data, dtype=np.float32), flags == 0)
        out.append(f.replace(data=np.asarray(f.data, dtype=np.float32) - sky, flags=flags))
        levels.append(float(np.median(sky)))
    return calibrate.register(out), levels


def on_the_chip(raw: list[Frame]) -> tuple[float, float, float, float]:
    """(a, its standard error [ADU], b [ADU^2], a from the sky [ADU]): photon transfer on pixels that nothing moves across.

    Variance of differences of successive frames, halved, over the level above the surroundings, which are free of stars in
    both: a line through cold and hot pixels, medians of bins, by weight.
    """
    images = np.stack([np.asarray(f.data, dtype=np.float64) for f in raw])
    middle = np.median(images, axis=0)
    hot = middle - median_filter(middle, 7) >= 4
    near = uniform_filter((~hot).astype(np.float64), 5)
    around = np.stack([uniform_filter(np.where(hot, 0, y), 5) / near for y in images])
    spread = np.stack([uniform_filter(np.where(hot, 0, (y - m) ** 2), 5) / near for y, m in zip(images, around, strict=True)])
    calm = (spread[1:] < 2.6) & (spread[:-1] < 2.6)  # ADU^2: no star in 5 x 5 px
    excess = images - around
    step = np.where(calm, np.diff(excess, axis=0), np.nan)
    seen = np.isfinite(step).sum(axis=0)
    chosen = (seen >= 12) & (hot | (np.random.default_rng(1).random(hot.shape) < 0.01))
    pairs, level = step[:, chosen], np.nanmean(np.where(calm, excess[1:], np.nan)[:, chosen], axis=0)
    away = np.abs(pairs - np.nanmedian(pairs, axis=0))
    v = np.nanvar(np.where(away < 4.5 * (1.4826 * np.nanmedian(away, axis=0) + 0.5), pairs, np.nan), axis=0, ddof=1) / 2
    edges = np.array([-1.5, 4, 7, 10, 15, 25, 40, 70, 130])
    bins = [(level >= lo) & (level < hi) for lo, hi in pairwise(edges)]
    x, y = (np.array([np.median(q[m]) for m in bins]) for q in (level, v))
    error = np.array([1.25 * v[m].std() / np.sqrt(m.sum()) for m in bins])
    best, cov = np.polyfit(x, y, 1, w=1 / error, cov="unscaled")
    return float(best[0]), float(np.sqrt(cov[0, 0])), float(best[1]), _sky_transfer(images, around, calm & ~hot)


def _sky_transfer(images: Array, around: Array, calm: Array) -> float:
    """Variance of successive differences on the sky over its level, which falls by 16 ADU in the night."""
    rows = []
    for k, where in enumerate(calm):
        d = sigmaclip((np.diff(images[k : k + 2], axis=0)[0] - np.diff(around[k : k + 2], axis=0)[0])[where], 5, 5).clipped
        rows.append((around[k : k + 2, where].mean(), d.var() / 2 * 25 / 24))  # less the mean of 25 pixels, itself noisy
    return float(np.polyfit(*np.array(rows).T, 1)[0])


def steepness(image: Array) -> Array:
    return np.asarray((sobel(image, 0) / 8) ** 2 + (sobel(image, 1) / 8) ** 2)


def measured_noise(stack: Frame, used: Array) -> tuple[float, float, float]:
    """(a [ADU], b [ADU^2], share of misregistration): temporal variance per pixel = b + a s + k |grad s|^2, refitted by weight.

    The last term is what seeing and shifts below a pixel add where the image is steep.
    """
    count, s = 50.0, np.asarray(stack.data, dtype=np.float64)
    v = np.asarray(stack.std, dtype=np.float64) ** 2 * count
    steep = steepness(s)
    here = used & (s > -2) & (s < 300)
    x = np.stack([np.ones(here.sum()), np.maximum(s[here], 0), steep[here]], axis=1)
    y, fit = v[here], np.full(here.sum(), np.median(v[here]))
    for _ in range(8):
        w = 1 / np.maximum(fit, 0.5)
        ok = np.abs(y - fit) < 5 * fit
        best = np.linalg.lstsq(x[ok] * w[ok, None], y[ok] * w[ok], rcond=None)[0]
        fit = np.maximum(x @ best, 0.5)
    return float(best[1]), float(best[0]), float(best[2])


def correlations(frames: list[Frame], stack: Frame, used: Array) -> tuple[Array, float]:
    """(5, 7) autocorrelation of the noise on the sky, lags 0..4 in y and 0..6 in x; RMS [ADU] of what is fixed to the chip.

    Frames less the stack are moved back onto the chip, where their mean shows the fixed pattern, which is taken off.
    """
    planes, masks = [], []
    for f in frames:
        r = np.asarray(f.data) - np.asarray(stack.data)
        m = used & (np.asarray(f.flags) == 0) & (np.abs(r) < 5)
        r = np.where(m, r, 0)
        r = np.where(m, r - uniform_filter(r, 61) / np.maximum(uniform_filter(m.astype(np.float32), 61), 0.02), 0)
        back = (-f.history[-1].params["dy"], -f.history[-1].params["dx"])
        planes.append(np.roll(r, back, axis=(0, 1)))
        masks.append(np.roll(m, back, axis=(0, 1)))
    count = np.sum(masks, axis=0)
    fixed = np.sum(planes, axis=0) / np.maximum(count, 1)
    mean = np.mean([_lags(np.where(m, r - fixed, 0), m & (count > 20)) for r, m in zip(planes, masks, strict=True)], axis=0)
    variance = np.var(fixed[count > 20]) - mean[0, 0] * np.mean(1 / count[count > 20])
    return np.asarray(mean / mean[0, 0]), float(np.sqrt(max(variance, 0)))


def _lags(r: Array, m: Array) -> Array:
    (h, w), r = r.shape, np.where(m, r, 0)
    here = [[np.s_[: h - i, : w - j] for j in range(7)] for i in range(5)]
    pairs = [[(here[i][j], np.s_[i:, j:]) for j in range(7)] for i in range(5)]
    return np.array([[np.sum(r[p] * r[q]) / max(np.sum(m[p] & m[q]), 1) for p, q in line] for line in pairs])


def error(x: Array, target: Array, where: Array) -> float:
    """RMS difference [ADU], without its mean and without the 0.1 % that a cosmic ray or a hot pixel hit."""
    d = (x - target)[where]
    d = d[np.abs(d - np.median(d)) <= np.quantile(np.abs(d - np.median(d)), 0.999)]
    return float(d.std())


def worth(rms: float, curve: list[float]) -> str:
    """Frames whose plain mean has that RMS, by interpolation in logarithms; beyond the curve's end said so."""
    if rms < curve[-1]:
        return f"> {SIZES[-1]}"
    return f"{np.exp(np.interp(-np.log(rms), -np.log(curve), np.log(SIZES))):.1f}"


def noise_of(raw: list[Frame]) -> Noise:
    """Of a frame less its sky; printed with what speaks for it."""
    a, error, b, dark = on_the_chip(raw)
    print(
        f"  on the chip: a = {a:.4f} +- {error:.4f} ADU (gain {1 / a:.1f} e-/ADU) by hot pixels, {dark:.4f} by the sky's fall;"
    )
    print(f"  b = {b:.3f} ADU^2 ({np.sqrt(b):.3f} ADU RMS of a frame's sky)")
    return Noise(a, b, 0.0)


def run(folder: Path, models: Sequence[Path] = ()) -> None:
    """All figures of the frames; models: files of trained networks, a row each."""
    raw = exposures(folder)
    moved, levels = prepared(raw)
    print(f"  sky {min(levels):.1f} to {max(levels):.1f} ADU")
    stack = calibrate.combine(moved)
    signal = np.asarray(stack.data, dtype=np.float64)
    covered = np.sum([np.asarray(f.flags) == 0 for f in moved], axis=0) >= 45
    dark = covered & ~binary_dilation(signal > STAR, iterations=4)
    noise = noise_of(raw)
    a, b, k = measured_noise(stack, covered)
    clipped = sigmaclip((np.asarray(moved[25].data) - np.asarray(moved[24].data))[dark] / np.sqrt(2), 4, 4).clipped
    print(f"  registered, with seeing and shifts below a pixel: {a:.3f} ADU s + {b:.3f} ADU^2 + {k:.3f} x the squared gradient")
    print(f"  frame to frame on the sky: {clipped.std():.3f} ADU; the sky is {dark.mean():.0%} of the image")
    print("  autocorrelation of the noise on the sky, down y lag 0..4, across x lag 0..6:")
    lags, fixed = correlations(moved, stack, dark)
    for line in lags:
        print("    " + " ".join(f"{r:6.3f}" for r in line))
    print(f"  fixed to the chip, hot pixels apart: {fixed:.2f} ADU RMS")
    seen = [flat_noise(moved[i]) for i in TESTED]
    print("  as `info` sees single frames: " + ", ".join(f"{s.lag_y:.2f}/{s.lag_x:.2f}" for s in seen if s is not None))
    calm = covered & (k * steepness(signal) < 0.2 * noise.variance(signal))
    areas = {"sky": dark, "4-40 ADU": calm & (signal > 4) & (signal < 40), "40-400": calm & (signal > 40) & (signal < 400)}
    print("  pixels: " + ", ".join(f"{name} {np.count_nonzero(m)}" for name, m in areas.items()))
    known = [f.replace(noise=noise) for f in moved]
    ways = restorers(models)
    for title, sets in (
        ("the frames", [known] * len(TESTED)),
        ("white noise of that a, b on the stack", [simulated(known, stack, i) for i in TESTED]),
    ):
        table = np.mean([rows(frames, i, areas, ways) for frames, i in zip(sets, TESTED, strict=True)], axis=0)
        show(title, table, areas, list(ways))


def restorers(models: Sequence[Path]) -> dict[str, Callable[[Frame], Frame]]:
    """By name: non-local means at three strengths, the shipped network, then those of `models`."""
    ways: dict[str, Callable[[Frame], Frame]] = {
        f"NLM strength {s:g}": partial(nonlocal_means, strength=s, std=False) for s in (1.0, 0.5, 2.0)
    }
    return (
        ways | {p.stem: partial(denoise, model=model_file.load(p)) for p in models} | ({} if models else {"shipped": denoise})
    )


def simulated(frames: list[Frame], stack: Frame, seed: int) -> list[Frame]:
    """The stack with white noise of the frames' own law, with their flags: what the rows would be without a pattern."""
    rng = np.random.default_rng(seed)
    truth = np.asarray(stack.data, dtype=np.float64)
    return [f.replace(data=f.noise.sample(truth, rng).astype(np.float32)) for f in frames]


def rows(frames: list[Frame], k: int, areas: dict[str, Array], ways: dict[str, Callable[[Frame], Frame]]) -> list[list[float]]:
    """RMS by area of clipped means of n frames with k among them, and of frame k restored, against the mean of the rest."""
    order = [k, *[i for i in np.random.default_rng(k).permutation(len(frames)) if i != k]]
    rest = calibrate.combine([frames[i] for i in order[SIZES[-1] :]])
    frame = frames[k]
    flagged = np.asarray(frame.flags) & int(Flag.HOT | Flag.SATURATED | Flag.NO_DATA) != 0
    good = ~flagged if rest.flags is None else ~flagged & (np.asarray(rest.flags) == 0)
    images = [np.asarray(calibrate.combine([frames[i] for i in order[:n]]).data) for n in SIZES]
    weight = gaussian_filter((~flagged).astype(np.float32), 1.0)
    images.append(gaussian_filter(np.where(flagged, 0, frame.data), 1.0) / np.maximum(weight, 0.05))
    images += [np.asarray(way(frame).data) for way in ways.values()]
    target = np.asarray(rest.data, dtype=np.float64)
    return [[error(x, target, m & good) for m in areas.values()] for x in images]


def show(title: str, table: Array, areas: dict[str, Array], ways: list[str]) -> None:
    names = ["unchanged", *[f"mean of {n}" for n in SIZES[1:]], "gauss 1 px", *ways]
    print(f"  RMS [ADU] and worth in frames: {title}")
    print(f"  {'':16s}" + "".join(f"{name:>18s}" for name in areas))
    for name, line in zip(names, table, strict=True):
        cells = (f"{rms:11.3f}{worth(rms, list(table[: len(SIZES), i])):>7s}" for i, rms in enumerate(line))
        print(f"  {name:16s}" + "".join(cells))
