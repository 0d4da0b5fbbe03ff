"""Reconstruction: CPU time and accuracy of filtered backprojection beside its peers, in one run.

python bench/tomography.py [--peers PYTHON] [--sizes 512 1024 2048] [--slices 16]

PYTHON is the interpreter of an environment with peers (pip install algotom astra-toolbox scikit-image finufft ducc0); without
it their rows are left out. Shepp-Logan head, projections averaged over the detector's pixels, 1.5 N angles; RMSE in a disc of
0.95 of the field against the head averaged over pixels. CPU ms a slice: user + system of all threads and children, best of
three, after one call to warm up; peers on one thread where they can. `floor`: one scipy.fft pass of the padded projections.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from firstlight import simulate
from firstlight.operators import Gridding
from firstlight.operators.ramp import angle_weights, response

Array = NDArray[Any]

SCRIPT = Path(__file__).with_name("tomography_peers.py")


def ours(sino: Array, theta: Array, slices: int, filter: str = "ramp") -> tuple[Array, float]:
    """The slice and CPU ms a slice, `slices` at a time on one thread."""
    stack = np.repeat(sino[:, None], slices, 1).astype(np.float32)
    grid = Gridding(theta, sino.shape[1], workers=1)
    waves = grid.phases((sino.shape[1] - 1) / 2) * (response(filter, grid.width) * angle_weights(theta)[:, None])
    waves = waves.astype(np.complex64)
    out = grid.adjoint(stack, waves)
    best = np.inf
    for _ in range(3):
        start = time.process_time()
        grid.adjoint(stack, waves, edge=4, out=out)
        best = min(best, time.process_time() - start)
    return out[0], best / slices * 1e3


def floor(angles: int, columns: int) -> float:
    """CPU ms of one real FFT pass over the padded projections of a slice."""
    rows = np.zeros((angles, 2 * columns), np.float32)
    best = np.inf
    for _ in range(4):
        start = time.process_time()
        fft.rfft(rows, axis=1)
        best = min(best, time.process_time() - start)
    return best * 1e3


def peer(python: str, folder: str, which: str) -> tuple[Array, float] | None:
    env = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run([python, str(SCRIPT), folder, which], capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        print(f"  {which}: not run ({done.stderr.strip().splitlines()[-1][:100] if done.stderr.strip() else 'no message'})")
        return None
    return np.load(Path(folder) / f"{which}.npy"), float(done.stdout.split()[-1])


def disc(n: int, share: float = 0.95) -> Array:
    c = np.arange(n) - (n - 1) / 2
    return np.asarray(np.hypot(c[None], c[:, None]) < share * n / 2)


def rmse(image: Array, truth: Array) -> float:
    error = (image - truth)[disc(len(truth))]
    return float(np.sqrt(np.mean(error**2)))


def aligned(image: Array, truth: Array) -> float:
    """RMSE of a peer's slice in its best orientation: conventions differ, accuracy is what counts."""
    turned = [np.rot90(f, k) for f in (image, image[::-1]) for k in range(4)]
    return min(rmse(t, truth) for t in turned)


def table(python: str | None, sizes: list[int], slices: int) -> None:
    print(f"{'N':>5s} {'method':>14s} {'CPU ms':>9s} {'over ours':>10s} {'RMSE':>8s}")
    for n in sizes:
        angles = 3 * n // 2
        theta = np.arange(angles) * np.pi / angles
        truth = simulate.shepp_logan(n)
        sino = simulate.projections(simulate.shepp_logan_ellipses(n), theta, n).astype(np.float32)
        image, cost = ours(sino, theta, slices)
        least = floor(angles, n)
        print(f"{n:5d} {'ours':>14s} {cost:9.2f} {'1.0':>10s} {rmse(image, truth):8.4f}")
        print(f"{n:5d} {'floor':>14s} {least:9.2f} {f'ours {cost / least:.2f} x':>10s}", flush=True)
        if python is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "sino.npy", sino)
            np.save(Path(folder) / "theta.npy", theta)
            names = ("algotom", "astra", "scikit-image") if n <= 512 else ()
            for which in (*names, "finufft", "ducc0"):
                found = peer(python, folder, which)
                if found is not None:
                    print(
                        f"{n:5d} {which:>14s} {found[1]:9.2f} {found[1] / cost:10.1f} {aligned(found[0], truth):8.4f}",
                        flush=True,
                    )


def exact() -> None:
    """A disc of value 1 and a smooth object against what they are."""
    for n in (500, 512, 1024):
        theta = np.arange(3 * n // 2) * np.pi / (3 * n // 2)
        row = simulate.projections([simulate.Ellipse(1.0, 0, 0, 0.45 * n, 0.45 * n)], theta, n)
        image, _ = ours(row, theta, 1)
        middle = image[n // 2 - 20 : n // 2 + 20, n // 2 - 20 : n // 2 + 20]
        print(f"disc of 1, radius 0.9, N = {n}: {middle.mean():.5f} +- {middle.std():.5f} at the centre")
    n = 512
    theta = np.arange(3 * n // 2) * np.pi / (3 * n // 2)
    s, c = np.arange(n) - (n - 1) / 2, np.arange(n) - (n - 1) / 2
    for x, y, width in ((66, -36, 26), (150, 80, 15)):
        p = np.sqrt(2 * np.pi) * width * np.exp(-((s - (x * np.cos(theta) + y * np.sin(theta))[:, None]) ** 2) / (2 * width**2))
        image, _ = ours(p, theta, 1)
        truth = np.exp(-((c[None] - x) ** 2 + (c[:, None] - y) ** 2) / (2 * width**2))
        print(f"smooth object of {width} px, N = {n}: rms {rmse(image, truth):.1e}, peak 1")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--slices", type=int, default=16)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {len(os.sched_getaffinity(0))} cores")
    exact()
    table(options.peers, options.sizes, options.slices)
