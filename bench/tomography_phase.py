"""Paganin's filter: CPU time against a plain padded filter in SciPy for each projection, and the filter of algotom.

python bench/tomography_phase.py [--algotom PYTHON]

PYTHON is the interpreter of an environment that has algotom (pip install algotom); without it its row is left out. SciPy
stands twice: with all arrays in float32, and as it is mostly written, where a filter in float64 makes the product complex128.
algotom has no Paganin filter: its Fresnel filter is the same padded two-dimensional transform with another response.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from firstlight.calibrate import paganin
from firstlight.frame import Frame, Unit
from firstlight.noise import Unmodelled

Array = NDArray[Any]
PAD = 64
SHAPE = (16, 512, 1024)
OPTICS = {"delta_beta": 300.0, "energy": 20.0, "distance": 50.0, "pixel": 1.0}
PEER = """
import time, numpy as np
from algotom.prep.filtering import fresnel_filter, make_fresnel_window
data = np.random.default_rng(1).normal(1, 0.1, {shape}).astype(np.float32)
window = make_fresnel_window({shape}[1], {shape}[2], 100.0, 2)
fresnel_filter(data[0], 100.0, dim=2, window=window, pad={pad}, apply_log=False)
times = []
for _ in range(3):
    start = time.process_time()
    for one in data:
        fresnel_filter(one, 100.0, dim=2, window=window, pad={pad}, apply_log=False)
    times.append(time.process_time() - start)
print(min(times))
"""


def plain(data: Array, kind: Any) -> Array:
    shape = [scipy.fft.next_fast_len(n + 2 * PAD) for n in data.shape[1:]]
    wide = [(PAD, n - m - PAD) for n, m in zip(shape, data.shape[1:], strict=True)]
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    h = (1 / (1 + np.pi * 6.1992e-5 * 50e3 * 300 * (fy**2 + fx**2))).astype(kind)
    out = np.empty_like(data)
    for one, two in zip(data, out, strict=True):
        spectrum = scipy.fft.rfft2(np.pad(one, wide, mode="edge")) * h
        two[:] = scipy.fft.irfft2(spectrum, shape)[PAD : PAD + one.shape[0], PAD : PAD + one.shape[1]]
    return out


def seconds(run: Callable[[], Any], repeat: int = 5) -> float:
    """CPU seconds, the least of a few."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def peer(python: str) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [python, "-c", PEER.format(shape=SHAPE, pad=PAD)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algotom", metavar="PYTHON")
    given = parser.parse_args()
    data = np.random.default_rng(1).normal(1, 0.1, SHAPE).astype(np.float32)
    frame = Frame(data, "AYX", Unit.TRANSMISSION, Unmodelled("bench"))
    print(f"{SHAPE}, padding {PAD} px, load {os.getloadavg()[0]:.1f}")
    difference = np.abs(paganin(frame, **OPTICS, pad=PAD).data - plain(data, np.float32)).max()
    print(f"largest difference from SciPy {difference:.1e}")
    ours = seconds(lambda: paganin(frame, **OPTICS, pad=PAD))
    rows = {"firstlight": ours, "scipy float32": seconds(lambda: plain(data, np.float32))}
    rows["scipy, filter float64"] = seconds(lambda: plain(data, np.float64))
    if given.algotom:
        rows["algotom fresnel"] = peer(given.algotom)
    for name, value in rows.items():
        print(f"  {name:24s} {value / data.size * 1e9:7.1f} CPU-ms/Mpix  {value / ours:5.1f}x")


if __name__ == "__main__":
    main()
