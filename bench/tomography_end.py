"""A whole scan from HDF5 to a volume: wall time over what bounds it, and the memory it really takes.

python bench/tomography_end.py [--angles 512] [--rows 1024] [--columns 1024] [--memory 4G] [--recipe tomography] [--keep FOLDER]

A synthetic scan (projections of ellipses that change from row to row, photon noise, white and dark frames, a few stripes and
zingers; uint16, contiguous) goes through `firstlight run` in a process of its own, once to compile and once to count. Bound:
the larger of (CPU seconds / cores) and (reading the scan and writing the volume, nothing else). Memory: the process's peak
resident set against --memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from firstlight import io, simulate
from firstlight.frame import Frame, Unit
from firstlight.noise import Unmodelled

SEED = 11
CENTER = 3.4  # px beside the middle


def write_scan(path: Path, angles: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(SEED)
    theta = np.linspace(0, 180, angles, endpoint=False)
    middle = (columns - 1) / 2 + CENTER
    head = simulate.projections(simulate.shepp_logan_ellipses(int(0.9 * columns)), np.deg2rad(theta), columns, middle)
    depth = 1.5 * head / head.max()
    gain = rng.normal(1, 0.01, (rows, columns))
    with h5py.File(path, "w") as file:
        group = file.create_group("exchange")
        data = group.create_dataset("data", (angles, rows, columns), np.uint16)
        for y in range(0, rows, 64):
            many = min(64, rows - y)
            share = 0.6 + 0.4 * np.sin(np.pi * (y + np.arange(many)) / rows)
            mean = 20000 * gain[y : y + many] * np.exp(-depth[:, None] * share[:, None])
            block = mean + np.sqrt(mean) * rng.standard_normal(mean.shape, dtype=np.float32) + 100
            block[rng.random(block.shape, dtype=np.float32) < 1e-5] = 60000
            data[:, y : y + many] = np.clip(np.rint(block), 0, 65535).astype(np.uint16)
        white = 20000 * gain + np.sqrt(20000) * rng.standard_normal((10, rows, columns), dtype=np.float32) + 100
        group["data_white"] = np.rint(white).astype(np.uint16)
        group["data_dark"] = np.rint(100 + 2 * rng.standard_normal((10, rows, columns), dtype=np.float32)).astype(np.uint16)
        group["theta"] = theta
        group["theta"].attrs["units"] = "degrees"


def run(scan: Path, out: Path, options: argparse.Namespace) -> dict[str, object]:
    if out.exists():
        shutil.rmtree(out)
    code = "from firstlight.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", code, "run", options.recipe, str(scan), "-o", str(out)]
    command += ["--memory", options.memory, "--json"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "peak": after.ru_maxrss / 2**10, **json.loads(done.stdout)}


def read_and_write(scan: Path, out: Path, rows: int, columns: int) -> float:
    """Wall seconds to read the projections in sections of 64 rows and to write a volume of the same size and codec."""
    rng = np.random.default_rng(SEED)
    block = rng.standard_normal((64, columns, columns), dtype=np.float32)
    like = Frame(block, "ZYX", Unit.PER_PIXEL, Unmodelled("a bench"))
    start = time.perf_counter()
    with h5py.File(scan) as file, io.create(out, like, (rows, columns, columns), dtype=np.float32, section=8) as writer:
        from firstlight.box import Box

        for y in range(0, rows, 64):
            _ = file["exchange/data"][:, y : y + 64]
            stop = min(y + 64, rows)
            writer.put(Box((y, 0, 0), (stop, columns, columns)), block[: stop - y])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("angles", 512), ("rows", 1024), ("columns", 1024)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--memory", default="4G")
    parser.add_argument("--recipe", default="tomography")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    folder = options.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    scan = folder / "scan.h5"
    if not scan.exists():
        write_scan(scan, options.angles, options.rows, options.columns)
    print(f"{scan.stat().st_size / 2**30:.2f} GiB in, {cores} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    small = folder / "small.h5"
    write_scan(small, 64, 16, options.columns)
    run(small, folder / "small.zarr", options)
    found = run(scan, folder / "volume.zarr", options)
    bare = read_and_write(scan, folder / "bare.zarr", options.rows, options.columns)
    bound = max(float(found["cpu"]) / cores, bare)
    print(f"{'wall':24s} {found['wall']:8.1f} s")
    print(f"{'CPU / cores':24s} {float(found['cpu']) / cores:8.1f} s")
    print(f"{'read + write alone':24s} {bare:8.1f} s")
    print(f"{'wall over the larger':24s} {float(found['wall']) / bound:8.2f}")
    print(f"{'peak memory':24s} {found['peak']:8.0f} MiB of {options.memory}")
    truth = (options.columns - 1) / 2 + CENTER
    print(f"{'centre':24s} {found['center']:8.2f} px, truth {truth:.2f}, confidence {found['confidence']}")
    for name, s in found["seconds"].items():
        print(f"  {name:34s} {s['cpu']:8.2f} s CPU {s['wall']:8.2f} s wall")
    if options.keep is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
