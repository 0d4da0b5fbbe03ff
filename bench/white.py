"""How much correlation between neighbouring pixels' noise a white-noise restorer bears: intake.WHITE rests on this.

python bench/white.py             lag-1 correlation in both axes against loss of PSNR, chi-square over expectation, the std

Noise of the scene's own variance, made correlated over one pixel (two taps each way: beyond lag 1 none) or by a narrow Gaussian
(resampling with a smooth kernel: farther lags too). Losses are against white noise on the same scene.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scenes import Scene, all_scenes
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq

from firstlight import Frame, Noise, Unit
from firstlight.measure.doubts import flat_noise
from firstlight.restore import nonlocal_means

Array = NDArray[Any]
LAGS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
PICKED = (0, 2, 4, 6, 7, 8)  # of the benchmark scenes: photographs at 30 and 300 e-, tubules, spots, stars


def two_taps(white: Array, lag: float) -> Array:
    k = (1 - np.sqrt(1 - 4 * lag * lag)) / (2 * lag)
    for axis in (0, 1):
        white = (white + k * np.roll(white, 1, axis)) / np.sqrt(1 + k * k)
    return white


def gaussian(white: Array, lag: float) -> Array:
    impulse = np.zeros(65)
    impulse[32] = 1

    def own(sigma: float) -> float:
        line = gaussian_filter(impulse, sigma)
        return float(line[1:] @ line[:-1] / (line @ line) - lag)

    smooth = gaussian_filter(white, brentq(own, 0.2, 2.0), mode="wrap")
    return np.asarray(smooth / smooth.std())


def figures(scene: Scene, noise_of: Callable[[Array], Array]) -> tuple[float, float, float, float]:
    """(PSNR [dB], chi-square over its expectation, rms error over rms std, lag-1 correlation as `flat_noise` sees it)."""
    truth, noise = scene.truth[:384, :384], Noise(1.0, scene.read_noise**2)
    white = np.random.default_rng(7).standard_normal(truth.shape)
    y = (truth + np.sqrt(noise.variance(truth)) * noise_of(white)).astype(np.float32)
    frame = Frame(y, "YX", Unit.ELECTRON, noise)
    done = nonlocal_means(frame)
    v, error, found = noise.variance(done.data), done.data - truth, flat_noise(frame)
    chi2 = np.mean((y - done.data) ** 2 / v) / (1 - np.mean(done.std**2 / v))
    psnr = 10 * np.log10(scene.peak**2 / np.mean(error**2))
    seen = float("nan") if found is None else (found.lag_y + found.lag_x) / 2
    return float(psnr), float(chi2), float(np.sqrt(np.mean(error**2) / np.mean(done.std**2))), seen


def main() -> None:
    scenes = [s for i, s in enumerate(all_scenes()) if i in PICKED]
    print("scenes:", ", ".join(s.name for s in scenes))
    white = np.array([figures(s, lambda w: w) for s in scenes])
    heads = ("loss [dB] mean", 15), ("worst", 7), ("chi2/expected", 17), ("rms e/std", 15), ("as seen", 15)
    print(f"{'lag 1':>6s}  {'noise':10s}" + "".join(f"{name:>{width}s}" for name, width in heads))
    print(line(0.0, "white", white, white))
    for kind in (two_taps, gaussian):
        for lag in LAGS:
            print(line(lag, kind.__name__, np.array([figures(s, lambda w: kind(w, lag)) for s in scenes]), white), flush=True)  # noqa: B023


def line(lag: float, kind: str, rows: Array, white: Array) -> str:
    loss = white[:, 0] - rows[:, 0]
    spans = "".join(f"{low:9.2f} to{high:5.2f}" for low, high in zip(rows.min(0)[1:], rows.max(0)[1:], strict=True))
    return f"{lag:6.2f}  {kind:10s}{loss.mean():15.2f}{loss.max():7.2f}{spans}"


if __name__ == "__main__":
    main()
