"""Photon transfer on a simulated 14-bit camera: bias, spread and honesty of the stated errors over many seeds.

python bench/transfer.py [SEEDS]          2.083 e-/ADU, 2.5 e-, 1 % PRNU, 30 % vignetting; 1 pair x 6 levels + a dark pair
python bench/transfer.py single           one image: the benchmark scenes, slope and floor against the truth
python bench/transfer.py w2s FOLDER       one image: W2S fields, against the residual from the mean of 400 frames
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import FirstlightError, Frame, Unit, Unmodelled, simulate
from firstlight.calibrate.photon_transfer import transfer
from firstlight.calibrate.single import transfer_single

GAIN, READ_NOISE, SHAPE = 2.083, 2.5, (128, 128)
LEVELS = (300.0, 1000.0, 3000.0, 8000.0, 16000.0, 24000.0)  # e- in the middle of the field; full scale is 34000 e-
BARS = {"gain": (0.15, 0.6), "read noise": (0.3, 1.0)}  # |bias| and spread in %


def frame(data: NDArray[Any]) -> Frame:
    return Frame(data, "YX", Unit.ADU, Unmodelled("raw counts, gain unknown"))


def one(seed: int) -> tuple[float, ...]:
    """(gain, its std, read noise, its std, naive gain, naive read noise) of one simulated camera."""
    rng = np.random.default_rng(seed)
    camera = simulate.make_sensor(SHAPE, rng, gain=GAIN, read_noise=READ_NOISE, bits=14, vignetting=0.3)
    flats = [frame(camera.expose(np.full(SHAPE, e), rng)) for e in LEVELS for _ in range(2)]
    darks = [frame(camera.bias(rng)) for _ in range(2)]
    d = transfer(flats, darks=darks).detector
    mean = np.array([np.mean(f.data) for f in [*darks[:1], *flats[::2]]]) - d.offset
    variance = np.array([np.var(f.data) for f in [*darks[:1], *flats[::2]]])
    slope, floor = np.polyfit(mean, variance, 1)
    return d.gain, d.gain_std, d.read_noise, d.read_noise_std, 1 / slope, float(np.sqrt(max(floor, 0)) / slope)


def table(seeds: int) -> None:
    start = time.process_time()
    runs = np.array([one(seed) for seed in range(seeds)])
    seconds = (time.process_time() - start) / seeds
    print(f"{seeds} seeds, {seconds:.2f} s CPU each (simulation included)")
    print(f"{'':12s}{'truth':>8s}{'mean':>9s}{'bias %':>9s}{'+-':>7s}{'spread %':>10s}{'covered %':>11s}{'naive':>9s}")
    for name, truth, k, naive in (("gain", GAIN, 0, 4), ("read noise", READ_NOISE, 2, 5)):
        value, std = runs[:, k], runs[:, k + 1]
        bias, spread = 100 * (value.mean() / truth - 1), 100 * value.std(ddof=1) / truth
        covered = 100 * np.mean(np.abs(value - truth) < std)
        top_bias, top_spread = BARS[name]
        good = abs(bias) < top_bias and spread < top_spread and 60 <= covered <= 76
        error = spread / np.sqrt(seeds)
        print(
            f"{name:12s}{truth:8.3f}{value.mean():9.4f}{bias:9.3f}{error:7.3f}{spread:10.3f}{covered:11.0f}"
            f"{runs[:, naive].mean():9.3f}  {'within' if good else 'OUTSIDE'} bias {top_bias}, spread {top_spread}, cover 60-76"
        )


def single() -> None:
    import scenes

    print(f"{'scene (gain 1)':28s}{'read noise':>11s}   one image")
    for scene in scenes.all_scenes():
        print(f"{scene.name:28s}{scene.read_noise:11.2f}   {found(scene.noisy(), offset=0.0)}")
        print(f"{'':39s}   gain given: {found(scene.noisy(), offset=0.0, gain=1.0)}")


def found(data: NDArray[Any], **given: float) -> str:
    try:
        t = transfer_single(frame(data), **given)
    except FirstlightError as error:
        return f"refused: {str(error)[17:150]} ..."
    d = t.detector
    return (
        f"gain {d.gain:.3f} +- {d.gain_std or 0:.3f}, read noise {d.read_noise:.2f} +- {d.read_noise_std:.2f}; "
        f"a {t.slope:.3f}, zero at {d.offset:.2f}, chi2 {t.chi2:.0f}/{t.dof}"
    )


def direct(noisy: NDArray[Any], target: NDArray[Any]) -> tuple[float, float]:
    """Slope and zero of the variance of noisy - (p target + q), p and q fitted, against the mean; means clear of 255 only."""
    p, q = np.polyfit(target.ravel(), noisy.ravel(), 1)
    mean, rest = p * target + q, noisy - (p * target + q)
    edges = np.linspace(np.sqrt(max(mean.min(), 0)), np.sqrt(mean.max()), 25) ** 2
    rows = [(mean[k].mean(), rest[k].var()) for a, b in pairwise(edges) if (k := (mean >= a) & (mean < b)).sum() > 500]
    rows = [(m, v) for m, v in rows if m + 3 * np.sqrt(v) < 255]
    if len(rows) < 3:
        return np.nan, np.nan
    m, v = np.array(rows).T
    slope, floor = np.polyfit(m, v, 1, w=1 / v)
    return slope, -floor / slope


def w2s(folder: Path) -> None:
    import tifffile

    for path in sorted(folder.glob("input_avg1_*.tif")):
        noisy = tifffile.imread(path)
        target = tifffile.imread(path.with_name(path.name.replace("input_avg1", "target_avg400")))
        slope, zero = direct(noisy.astype(float), target.astype(float))
        print(f"{path.stem[-5:]}  from the pair: a {slope:6.2f}, zero at {zero:6.2f};  one image: {found(noisy)}")


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "100"
    if what == "single":
        single()
    elif what == "w2s":
        w2s(Path(sys.argv[2]))
    else:
        table(int(what))
