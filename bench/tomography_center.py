"""The rotation axis: CPU time against Vo's search in algotom on the same rows, and how often an answer is wrong.

python bench/tomography_center.py [--algotom PYTHON] [--seeds 60]

PYTHON is the interpreter of an environment that has algotom (pip install algotom); without it its column is left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import simulate
from firstlight.calibrate import center_of
from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.noise import Unmodelled

Array = NDArray[Any]
SEED = 77
PEER = """
import sys, time, numpy as np
from algotom.prep.calculation import find_center_vo
stack = np.load(sys.argv[1])
find_center_vo(stack[:64, 0, :64].copy(), ncore=1)
t = time.process_time()
found = [find_center_vo(stack[:, r], ncore=1) for r in range(stack.shape[1])]
print(float(np.median(found)), time.process_time() - t)
"""


def shapes(rng: np.random.Generator, reach: float) -> list[simulate.Ellipse]:
    """A body and 4 to 24 random ellipses within a circle of `reach` [px]."""
    out = [simulate.Ellipse(1.0, 0.02 * reach, 0, 0.9 * reach, 0.9 * reach * rng.uniform(0.6, 1), rng.uniform(0, np.pi))]
    for _ in range(int(rng.integers(4, 25))):
        a, t = reach * rng.uniform(0.02, 0.3), rng.uniform(0, 2 * np.pi)
        r = (reach - a) * np.sqrt(rng.random())
        out.append(simulate.Ellipse(rng.uniform(-0.5, 1), r * np.cos(t), r * np.sin(t), a, a * rng.uniform(0.3, 1), t))
    return out


def sinogram(rng: np.random.Generator, angles: Array, columns: int, center: float, reach: float) -> Array:
    data = simulate.projections(shapes(rng, reach), angles, columns, center)
    return data / np.abs(data).max()


def frame(data: Array, angles: Array) -> Frame:
    data = np.float32(data if data.ndim == 3 else data[:, None])
    return Frame(data, "AYX", Unit.OPTICAL_DEPTH, Unmodelled("phantom"), geometry=Scan(angles))


def speed(python: str | None) -> None:
    """720 projections of 1024 columns, 1 and 4 rows; CPU seconds, load of the machine stated."""
    rng, angles, center = np.random.default_rng(SEED), np.arange(720) * np.pi / 720, 519.3
    clean = sinogram(rng, angles, 1024, center, 480)
    print(f"720 x 1024, axis {center}, load {os.getloadavg()[0]:.1f}")
    for rows, noise in ((1, 0.0), (1, 0.1), (4, 0.1), (16, 0.1), (32, 0.1)):
        data = clean[:, None] + noise * rng.normal(size=(720, rows, 1024))
        scan, times = frame(data, angles), []
        for _ in range(4):
            start = time.process_time()
            found = center_of(scan)
            times.append(time.process_time() - start)
        line = f"  {rows:2d} rows, noise {noise}: {found.center:8.2f} ({found.confidence:.2f})  {min(times):.3f} CPU-s"
        if python and rows <= 4:
            value, seconds = peer(python, np.float32(data))
            line += f"; algotom {value:.2f}  {seconds:.2f} CPU-s: {seconds / min(times):.0f}x"
        print(line, flush=True)


def peer(python: str, stack: Array) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stack.npy"
        np.save(file, stack)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        said = subprocess.run([python, "-c", PEER, str(file)], check=True, capture_output=True, text=True, env=environment)
    value, seconds = said.stdout.split()[-2:]
    return float(value), float(seconds)


def cases(rng: np.random.Generator, angles: Array, columns: int) -> Iterator[tuple[str, Array, float]]:
    center = columns * rng.uniform(0.2, 0.8)
    inside = sinogram(rng, angles, columns, center, 0.97 * min(center, columns - 1 - center))
    yield "inside, clean", inside, center
    for rows in (1, 16):
        for noise in (0.02, 0.1, 0.3):
            data = inside[:, None] + noise * rng.normal(size=(len(angles), rows, columns))
            yield f"inside, noise {noise}, {rows} rows", data, center
    yield "inside, rings .05", inside + 0.05 * rng.normal(size=columns) + 0.02 * rng.normal(size=inside.shape), center
    for name, off, reach in (
        ("truncated, radius .6 W", 0.05, 0.6),
        ("truncated, radius 1 W", 0.05, 1.0),
        ("truncated, axis 15 % off", 0.15, 0.6),
        ("truncated, axis 30 % off", 0.3, 0.5),
    ):
        center = columns * (0.5 + off * rng.choice([-1, 1])) + rng.uniform(-2, 2)
        cut = sinogram(rng, angles, columns, center, reach * columns)
        yield name, cut + 0.02 * rng.normal(size=cut.shape), center
    yield "pure noise, 4 rows", rng.normal(size=(len(angles), 4, columns)), -np.inf


def errors(seeds: int, columns: int = 256, views: int = 256) -> None:
    """Random phantoms, axis anywhere in the middle 60 %: errors of what is answered, by confidence."""
    angles, table = np.arange(views) * np.pi / views, {}
    for seed in range(seeds):
        for name, data, center in cases(np.random.default_rng([SEED, seed]), angles, columns):
            try:
                found = center_of(frame(data, angles))
                table.setdefault(name, []).append((abs(found.center - center), found.confidence))
            except FrameError:
                table.setdefault(name, []).append((np.nan, -1.0))
    print(f"{views} x {columns}, {seeds} phantoms; wrong: off by more than 1 px")
    print(f"{'':28s} refused  median off  worst off   wrong at conf. .9  wrong at .5-.9 (of)   mean conf.  within 1 px")
    for name, rows in table.items():
        off, sure = np.transpose(rows)
        told, high, mid = sure >= 0, sure >= 0.9, (sure >= 0.5) & (sure < 0.9)
        median, worst = (np.median(off[told]), off[told].max()) if told.any() else (np.nan, np.nan)
        wrong = f"{np.sum(off[high] > 1):3d} of {high.sum():3d}       {np.sum(off[mid] > 1):3d} of {mid.sum():3d}"
        share = (sure[told].mean(), np.mean(off[told] < 1)) if told.any() else (np.nan, np.nan)
        print(f"{name:28s} {np.mean(~told):7.2f} {median:10.3f} {worst:10.2f}   {wrong:>30s} {share[0]:14.2f} {share[1]:11.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algotom", metavar="PYTHON")
    parser.add_argument("--seeds", type=int, default=60)
    given = parser.parse_args()
    speed(given.algotom)
    errors(given.seeds)


if __name__ == "__main__":
    main()
