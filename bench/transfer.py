"""Photon transfer on a simulated 14-bit camera: bias, spread and honesty of the stated errors over many seeds.

python bench/transfer.py [SEEDS]      2.083 e-/ADU, 2.5 e-, 1 % PRNU, 30 % vignetting; 1 pair x 6 levels + a dark pair, 128 px
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import Frame, Unit, Unmodelled, simulate
from firstlight.calibrate.photon_transfer import transfer

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


if __name__ == "__main__":
    table(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
