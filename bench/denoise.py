"""Non-local means against scikit-image's, both around the same generalised Anscombe transform, on every benchmark scene.

python bench/denoise.py           PSNR [dB], CPU time of one thread (least of --rounds interleaved runs), honesty of the std

scikit-image's filter strength is tuned per scene against the truth; ours is the default everywhere.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scenes import Scene, all_scenes
from scipy.ndimage import gaussian_filter, median_filter
from skimage.restoration import denoise_nl_means

from firstlight import Frame, Noise, Unit
from firstlight.restore import nonlocal_means

Array = NDArray[Any]
STRENGTHS = (0.5, 0.6, 0.7, 0.8)


def peer(y: Array, noise: Noise, h: float) -> Array:
    z = denoise_nl_means(noise.stabilise(y), patch_size=5, patch_distance=8, h=h, sigma=1.0, fast_mode=True)
    return noise.unstabilise(z)


def cpu(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def psnr(x: Array, scene: Scene) -> float:
    return float(10 * np.log10(scene.peak**2 / np.mean((x - scene.truth) ** 2)))


def row(scene: Scene, rounds: int) -> tuple[str, float, float]:
    y, noise = scene.noisy().astype(np.float32), Noise(1.0, scene.read_noise**2)
    frame = Frame(y, "YX", Unit.ELECTRON, noise)
    peers = {h: psnr(peer(y, noise, h), scene) for h in STRENGTHS}
    best = max(peers, key=lambda h: peers[h])
    ours = nonlocal_means(frame)
    times = [
        (
            cpu(lambda: peer(y, noise, best)),
            cpu(lambda: nonlocal_means(frame, std=False)),
            cpu(lambda: nonlocal_means(frame)),
        )
        for _ in range(rounds)
    ]
    theirs, plain, full = np.min(times, axis=0)
    v = noise.variance(ours.data)
    chi2 = np.mean((y - ours.data) ** 2 / v) / (1 - np.mean(ours.std**2 / v))
    error = ours.data - scene.truth
    pull = np.sqrt(np.mean((error / ours.std) ** 2))
    rms = np.sqrt(np.mean(error**2) / np.mean(ours.std**2))
    text = (
        f"{scene.name:24s}{scene.peak:6g}{psnr(y, scene):8.2f}{psnr(median_filter(y, 3), scene):8.2f}"
        f"{psnr(gaussian_filter(y, 1.0), scene):8.2f}{peers[best]:9.2f} ({best:g}){psnr(ours.data, scene):8.2f}"
        f"{theirs / plain:8.1f}{theirs / full:8.1f}{chi2:8.3f}{pull:7.2f}{rms:9.2f}"
    )
    return text, theirs / plain, y.size / plain / 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(
        f"{'':24s}{'':6s}{'':8s}{'':8s}{'':8s}{'GAT+':>9s} {'':5s}{'GAT+':>8s}{'speed':>8s}{'same':>8s}{'chi2/':>8s}{'rms':>7s}"
    )
    print(
        f"{'scene':24s}{'peak':>6s}{'as is':>8s}{'median3':>8s}{'gauss1':>8s}{'skimage':>9s} {'(h)':5s}{'ours':>8s}"
        f"{'ratio':>8s}{'+ std':>8s}{'expect':>8s}{'e/std':>7s}{'rms/std':>9s}"
    )
    ratios, rates = [], []
    for scene in all_scenes():
        text, ratio, rate = row(scene, rounds)
        print(text, flush=True)
        ratios.append(ratio)
        rates.append(rate)
    print(f"median CPU time ratio skimage / ours {np.median(ratios):.1f}; ours {np.median(rates):.1f} Mpx per core-second")


if __name__ == "__main__":
    main()
