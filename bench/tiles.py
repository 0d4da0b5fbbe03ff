"""Tile sets: what building, reading back and checking cost, as ratios in one run.

python bench/tiles.py [build|memory|workers|read|rows ...]     all parts where none is named; real photo from FIRSTLIGHT_DATA

build    CPU time of a build over its floor: decode the raw files and write the same bytes of tiles with numpy, nothing else
memory   peak memory of a one-worker build over one full frame in float32 (beyond what importing costs)
workers  wall time of one worker over that of two: means something on a quiet machine with two cores
read     reading tiles back in random order, packs over files (bench/tiles_read.py has more)
rows     CPU seconds to load and verify the metadata of the documented 78,806 tiles
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import dataset, io
from firstlight.dataset.metadata import METADATA, domain_file, write_rows
from firstlight.dataset.store import TileFiles
from firstlight.dataset.verify import verify
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import BAYER, Mosaic
from firstlight.noise import Unmodelled

Array = NDArray[Any]
DETECTOR = "gain=0.5,read_noise=2"
COPIES = 4
ROWS = 78806
SHORT, LONG = "SID/Sony/short/{:05d}_00_0.04s{}", "SID/Sony/long/{:05d}_00_10s{}"


def photo(work: Path) -> Path:
    """The real ARW, or where there is none a DNG of its size."""
    data = Path(os.environ.get("FIRSTLIGHT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    real = data / "raw" / "sony_ilce-7rm3_iso3200.ARW"
    if real.exists():
        print(f"photo: {real.name}")
        return real
    rng = np.random.default_rng(1)
    counts = (512 + rng.poisson(rng.gamma(2.0, 400.0, (54, 81)).repeat(65, 0).repeat(64, 1)[:3464, :5184])).astype(np.uint16)
    seen = Observation(instrument="ILCE-7RM3", setting="ISO 3200", offset=512.0, saturation=16383.0)
    path = io.write(
        Frame(counts, "YX", Unit.ADU, Unmodelled("no gain"), geometry=Mosaic(BAYER), observation=seen), work / "x.dng"
    )
    print(
        "photo: the real ARW is absent (set FIRSTLIGHT_DATA); a synthetic DNG of its size, whose decoding costs less, stands in"
    )
    return path


def tree(work: Path, copies: int = COPIES) -> Path:
    """A SID tree of the photo: a noisy and a clean file for each view, every file with bytes of its own."""
    source, root = photo(work), work / "root"
    for i in range(copies):
        path = root / (SHORT, LONG)[i % 2].format(1 + i // 2, source.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes() + bytes([i]))  # readers ignore what follows the end
    return root


def cpu(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def fresh(out: Path) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    return out


def built(root: Path, out: Path, *, pairs: Any = (), workers: int = 1) -> dataset.Summary:
    summary = dataset.build(root, out, detector=DETECTOR, pairs=pairs, workers=workers)
    assert summary.ok, summary.text()
    return summary


def floor(root: Path, out: Path, tiles: list[Array], per_file: int) -> None:
    import rawpy

    out.mkdir(parents=True)
    for n, path in enumerate(sorted(p for p in root.rglob("*") if p.is_file())):
        with rawpy.imread(str(path)) as raw:
            raw.raw_image_visible.copy()
        for i in range(per_file):
            np.save(out / f"{n}_{i}.npy", tiles[i % len(tiles)])


def bench_build(work: Path, rounds: int) -> None:
    root, out = tree(work), work / "out"
    summary = built(root, out)
    rows = json.loads((out / METADATA).read_text())["tiles"]
    tiles = [np.load(out / row["npy_path"]) for row in rows[:8]]
    size = summary.tiles * tiles[0].nbytes / 1e6
    jobs = {
        "floor": lambda: floor(root, work / "floor", tiles, summary.tiles // COPIES),
        "without pairing": lambda: built(root, out),
        "with pairing": lambda: built(root, out, pairs=None),
    }
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            for folder in (out, work / "floor"):
                fresh(folder)
            times[name].append(cpu(job))
    least = {name: min(t) for name, t in times.items()}
    print(f"build: {COPIES} photos, {summary.tiles} tiles, {size:.0f} MB; least of {rounds} interleaved rounds [CPU s]")
    for name, limit in (("floor", 1.0), ("without pairing", 1.7), ("with pairing", 2.5)):
        print(f"  {name:16s}{least[name]:7.2f}   x {least[name] / least['floor']:.2f} (goal {limit:g})")


CHILD = """
import re, sys
from firstlight import dataset, io, intake
def kb(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
from pathlib import Path
root, out, pairs = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "pairs"
import rawpy, tifffile, scipy.ndimage, cv2, pydantic
path = next(p for p in root.rglob("*") if p.is_file())
with rawpy.imread(str(path)) as raw:
    shape = raw.raw_image_visible.shape
open("/proc/self/clear_refs", "w").write("5")
before = kb("VmRSS")
dataset.build(root, out, detector=sys.argv[4], pairs=None if pairs else (), workers=int(sys.argv[5]))
print((kb("VmHWM") - before) * 1024 / (4 * shape[0] * shape[1]))
"""


def bench_memory(work: Path, rounds: int) -> None:
    root = tree(work)
    print("memory: peak beyond the imports, in full frames of float32 (goal: under 3 a worker)")
    for kind in ("alone", "pairs"):
        for workers in (1, 2):
            line = [sys.executable, "-c", CHILD, root, fresh(work / "out"), kind, DETECTOR, str(workers)]
            found = subprocess.run(line, check=True, capture_output=True, text=True).stdout
            name = "with pairing" if kind == "pairs" else "without pairing"
            print(f"  {name:16s} {workers} worker{'s' * (workers > 1)}: {float(found) / workers:.2f} a worker")


def bench_workers(work: Path, rounds: int) -> None:
    root = tree(work, 2 * COPIES)
    walls: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for n, times in walls.items():
            fresh(work / "out")
            start = time.perf_counter()
            built(root, work / "out", workers=n)
            times.append(time.perf_counter() - start)
    ratio, load = min(walls[1]) / min(walls[2]), os.getloadavg()[0]
    print(f"workers: two are {ratio:.2f} x one (goal 1.7 on a quiet machine; load average {load:.1f}, {os.cpu_count()} cores)")


def bench_read(work: Path, rounds: int, count: int = 4096) -> None:
    rng = np.random.default_rng(2)
    folder = work / "read" / "npy_tiles"
    folder.mkdir(parents=True)
    names = [str(folder / f"{i:05d}.npy") for i in range(count)]
    with dataset.PackWriter(work / "read") as packs:
        for i, name in enumerate(names):
            tile = rng.random((256, 256), dtype=np.float32)
            np.save(name, tile)
            packs.add({"tile_id": str(i), "domain": "d", "data_type": "noisy", "npy_path": name}, tile)
    files, packed, shared = TileFiles(names), dataset.open_pack(work / "read"), dataset.open_pack(work / "read", copy=False)
    order = [int(i) for i in rng.permutation(count)]
    ways: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
        "into memory of one's own": (files.read, packed.read),
        "the same, each then summed": (lambda i: files.read(i).sum(), lambda i: packed.read(i).sum()),
        "each summed, packs not copied": (lambda i: files.read(i).sum(), lambda i: shared.read(i).sum()),
    }
    print(f"read: {count} tiles in random order, packs over files (goal 3)")
    for name, both in ways.items():
        rows = [[cpu(partial(_each, read, order)) for read in both] for _ in range(rounds)]
        least = [min(times) for times in zip(*rows, strict=True)]
        print(f"  {name:30s} x {least[0] / least[1]:.1f}")


def _each(read: Callable[[int], Any], order: list[int]) -> None:
    for i in order:
        read(i)


def bench_rows(work: Path, rounds: int) -> None:
    """The documented set with every tile a link to one of a few files, so that 78,806 need no disk."""
    out = work / "rows"
    root = tree(work, 2)
    built(root, work / "one")
    seed = json.loads((work / "one" / METADATA).read_text())
    rows, names = [], dict[str, Path]()
    for n in range(ROWS // 2):
        for row in (r for r in seed["tiles"] if r["tile_id"].endswith("_0000")):
            kind, view = row["data_type"], f"photo_{n // 54:05d}"
            name = f"{row['domain']}_{kind}_{n // 54:05d}_tile_{n % 54:04d}"
            path = f"npy_tiles/{row['domain']}/{kind}/{name}.npy"
            own = {"tile_id": name, "npy_path": path, "scene_id": view, "view": view, "source_file": f"{kind}/{view}.ARW"}
            place = {"image_x": n % 54, "grid_x": n % 54, "source_sha256": f"{kind}{view}"}
            rows.append({**row, "flags": {}, "pair_id": None, **own, **place})
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            if n % 30000 == 0:  # a file has at most so many names
                names[kind] = Path(shutil.copy(work / "one" / row["npy_path"], out / path))
            else:
                os.link(names[kind], out / path)
    head = {k: v for k, v in seed.items() if k != "tiles"} | {"pairs": [], "unreadable": []}
    write_rows(out / METADATA, head, rows)
    write_rows(domain_file(out, "photography"), head, rows)
    rows, count = [], len(rows)  # what is measured goes by what it loads alone
    size = (out / METADATA).stat().st_size / 1e6
    load = min(cpu(lambda: dataset.read_metadata(out)) for _ in range(rounds))
    print(f"rows: {count} rows, {size:.0f} MB: load {load:.1f} CPU s", end="", flush=True)
    seconds = min(cpu(lambda: verify(out, sample=64, content=64, pairs=0)) for _ in range(rounds))
    print(f", load and verify {seconds:.1f} CPU s (goal about 5; values of 64 tiles read)")


PARTS = {"build": bench_build, "memory": bench_memory, "workers": bench_workers, "read": bench_read, "rows": bench_rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder on the disk to measure; default: a temporary one")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in chosen.parts or PARTS:
        with tempfile.TemporaryDirectory(dir=chosen.work) as work:
            PARTS[name](Path(work), chosen.rounds)


if __name__ == "__main__":
    main()
