"""Writing and reading volumes: MB/s, MB per CPU second and ratio of each format and codec.

python bench/volume_io.py [--slices 32] [--side 1024] [--rounds 3]      noisy float32 slices, sections of 16, files synchronised
                                                                        as a resumable run does where named "resumed"
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import io
from firstlight.box import Box
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.noise import Unmodelled

SECTION = 16
PLANS: list[tuple[str, str, dict[str, Any]]] = [
    *((f"zarr {c}", "a.zarr", {"codec": c}) for c in ("bitshuffle-lz4", "zstd", "gzip", "none")),
    ("zarr, no pyramid", "a.zarr", {"levels": 1}),
    ("zarr, 12 bits", "a.zarr", {"bits": 12}),
    ("zarr, 8 bits", "a.zarr", {"bits": 8}),
    ("zarr zstd, 8 bits", "a.zarr", {"bits": 8, "codec": "zstd"}),
    ("zarr, resumed", "a.zarr", {"resume": "k"}),
    *((f"hdf5 {c}", "a.h5", {"codec": c}) for c in ("bitshuffle-lz4", "lz4", "zstd", "gzip", "none")),
    ("hdf5, resumed", "a.h5", {"resume": "k"}),
    ("tiff", "a.tif", {}),
    ("tiff, resumed", "a.tif", {"resume": "k"}),
    ("tiff slices", "a_#####.tif", {}),
]


def slices(n: int, side: int, seed: int = 3) -> np.ndarray[Any, Any]:
    """Discs in noise of a tenth of their contrast, as a reconstruction has them."""
    y, x = np.ogrid[:side, :side]
    body = ((y - side / 2) ** 2 + (x - side / 2) ** 2 < (0.45 * side) ** 2).astype(np.float32)
    noise = np.random.default_rng(seed).standard_normal((n, side, side), dtype=np.float32)
    return np.asarray(body + np.float32(0.1) * noise, dtype=np.float32)


def written(path: Path, frame: Frame, asked: dict[str, Any]) -> int:
    """Write section by section; returns the bytes on disk."""
    with io.create(path, frame, section=SECTION, **asked) as out:
        for box in out.sections(SECTION):
            out.put(box, frame.data[box.slices])
    return sum(p.stat().st_size for p in path.parent.rglob("*") if p.is_file())


def read(path: Path) -> None:
    data = io.read(path).data
    for i in range(0, data.shape[0], SECTION):
        np.asarray(data[i : i + SECTION]).sum()


def timed(action: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, CPU seconds of all threads, and the answer."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = action()
    return time.perf_counter() - wall, time.process_time() - cpu, answer


def measure(n: int = 32, side: int = 1024, rounds: int = 3, folder: Path | None = None) -> dict[str, dict[str, float]]:
    """For each plan: MB/s and MB per CPU second of writing and of reading (least of the rounds), and the ratio."""
    data = slices(n, side)
    frame = Frame(data, "ZYX", Unit.ATTENUATION, Unmodelled("bench"), spacing=dict.fromkeys("ZYX", 1.0))
    size, found = data.nbytes / 1e6, {}
    for name, file, asked in PLANS:
        runs = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(dir=folder) as temp:
                path = Path(temp) / file
                put = timed(lambda path=path, asked=asked: written(path, frame, asked))
                got = timed(lambda path=path: read(path))
                runs.append((*put[:2], *got[:2], put[2]))
        least = np.min(np.array(runs), axis=0)
        keys = ("write MB/s", "write MB/CPU s", "read MB/s", "read MB/CPU s")
        found[name] = dict(zip(keys, size / least[:4], strict=True)) | {"ratio": data.nbytes / least[4]}
    return found


LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunks of a projection": {"chunks": (1, 256, 1024)},
    "the same, bitshuffle-LZ4": {"chunks": (1, 256, 1024), "packed": True},
    "chunks of 8 rows, bitshuffle-LZ4": {"chunks": (32, 8, 1024), "packed": True},
}


def rows(angles: int = 256, step: int = 16, folder: Path | None = None) -> dict[str, dict[str, float]]:
    """MB/s and MB per CPU second of a scan (angles, 256, 1024) uint16 read in sections of rows with all angles, by layout."""
    import h5py
    import hdf5plugin

    data = np.random.default_rng(1).integers(900, 1100, (angles, 256, 1024)).astype(np.uint16)
    found = {}
    for name, layout in LAYOUTS.items():
        packed = dict(hdf5plugin.Bitshuffle(cname="lz4")) if layout.get("packed") else {}
        with tempfile.TemporaryDirectory(dir=folder) as temp:
            path = Path(temp) / "scan.h5"
            with h5py.File(path, "w") as file:
                file.create_dataset("exchange/data", data=data, chunks=layout.get("chunks"), **packed)
                file["exchange/theta"] = np.linspace(0, 180, angles)
            frame = io.read(path)
            assert isinstance(frame.geometry, Scan)
            natural = io.section(frame)
            for rows_ in sorted({step, natural} - {1}):
                boxes = [Box((0, y, 0), (angles, min(256, y + rows_), 1024)) for y in range(0, 256, rows_)]
                wall, cpu, _ = timed(lambda boxes=boxes, frame=frame: [frame.crop(b) for b in boxes])
                said = f"{name}, {rows_} rows" + (" (its section)" if rows_ == natural else "")
                found[said] = {"MB/s": data.nbytes / 1e6 / wall, "MB/CPU s": data.nbytes / 1e6 / cpu}
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """Rows of figures."""
    keys = list(next(iter(found.values())))
    lines = [f"{'':48s}" + "".join(f"{k:>16s}" for k in keys)]
    lines += [f"{n:48s}" + "".join(f"{row[k]:16.4g}" for k in keys) for n, row in found.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=32)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    print(f"{args.slices} x {args.side}^2 float32, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print(table(measure(args.slices, args.side, args.rounds, args.folder)))
    print(table(rows(folder=args.folder)))


if __name__ == "__main__":
    main()
