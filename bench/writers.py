"""Large developed pictures in each format: CPU seconds, memory, and what an independent decoder finds in the file.

python bench/writers.py [--sizes 4000x6000 5472x7296 8736x11648] [--to avif jxl ultrahdr jpeg tiff] [--avifdec PROGRAM]

A gradient, made in memory, with noise (seed 1, 1 % of white) on every other square of 256 px. Each write runs in a process of
its own; "more MiB" is what its peak adds to the picture itself. AVIF is decoded again by avifdec where it is given, else by
libavif (imagecodecs), its size read by Pillow; error: root mean square [codes] everywhere, of the squares without noise, and
of the two rows and columns of these at borders of a grid's cells, which shows seams.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from develop import forget, peak
from numpy.typing import NDArray

from firstlight.errors import WriteError
from firstlight.frame import Frame, Unit
from firstlight.io import avif
from firstlight.io.rendered import TARGETS, Rendered, write_rendered
from firstlight.noise import Unmodelled

Array = NDArray[Any]
ROWS = 256
DTYPE = {8: np.uint8, 10: np.uint16, 16: np.uint16, 32: np.float32}


def picture(height: int, width: int, to: str) -> Rendered:
    kind, rng = TARGETS[to].kinds[0], np.random.default_rng(1)
    top = 1 if kind.bits == 32 else 2**kind.bits - 1
    out = np.empty((3, height, width), dtype=DTYPE[kind.bits])
    noise = rng.standard_normal((3, ROWS, width), dtype=np.float32) * np.float32(0.01)
    fall = np.linspace(0, 0.5 * ROWS / height, ROWS, dtype=np.float32)[:, None]
    x = np.linspace(0.1, 0.8, width, dtype=np.float32)
    for y in range(0, height, ROWS):
        rows = min(ROWS, height - y)
        light = x * (1 - np.float32(0.5 * y / height) - fall) + np.where(smooth(y, width), 0, noise)
        light = np.clip(light[:, :rows], 0, 1) * np.float32(top)
        out[:, y : y + rows] = light if kind.bits == 32 else np.rint(light)
    return Rendered(Frame(out, "CYX", Unit.DISPLAY, Unmodelled("a test picture")), kind)


def smooth(y: int, width: int) -> Array:
    """Where the row has no noise."""
    return (np.arange(width) // ROWS + y // ROWS) % 2 == 0


def seams(found: Array, wanted: Array) -> dict[str, Any]:
    """Root mean square errors of (Y, X, 3) codes against (3, Y, X): in all, without noise, and there at borders of cells."""
    rows, cols = avif._grid(*found.shape[:2])
    size = [-(-n // k) for n, k in zip(found.shape, (rows, cols), strict=False)]
    beside = [_beside(n, s) for n, s in zip(found.shape, size, strict=False)]
    sums = dict.fromkeys(("rms", "smooth", "smooth at borders"), (0.0, 0))
    for y in range(found.shape[0]):
        square = ((found[y].astype(np.float32) - wanted[:, y].T) ** 2).mean(axis=1)
        plain = smooth(y, found.shape[1])
        for name, where in {"rms": None, "smooth": plain, "smooth at borders": plain & (beside[0][y] | beside[1])}.items():
            part = square if where is None else square[where]
            sums[name] = sums[name][0] + float(part.sum()), sums[name][1] + part.size
    return {"cells": f"{rows}x{cols}"} | {name: float(np.sqrt(total / n)) for name, (total, n) in sums.items() if n}


def _beside(length: int, cell: int) -> Array:
    """Which rows or columns touch a border of cells of `cell` px."""
    at = np.arange(length)
    return ((at % cell == 0) & (at > 0)) | (((at + 1) % cell == 0) & (at < length - 1))


def one(height: int, width: int, to: str, avifdec: str | None) -> dict[str, Any]:
    shown = picture(height, width, to)
    forget()
    before, cpu = peak(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{TARGETS[to].suffixes[0]}"
        try:
            write_rendered(shown, path, to=to)
        except WriteError as error:
            return {"refused": str(error).replace(folder, "")}
        told = {"CPU s": time.process_time() - cpu, "more MiB": peak() - before, "peak MiB": peak()}
        told["MiB"] = path.stat().st_size / 2**20
        return told | (decoded(path, shown.frame.data, avifdec) if to == "avif" else {})


def decoded(path: Path, codes: Array, avifdec: str | None) -> dict[str, Any]:
    from imagecodecs import avif_decode, png_decode
    from PIL import Image

    with Image.open(path) as seen:
        size = "x".join(map(str, reversed(seen.size)))
    if avifdec:
        png = path.with_suffix(".png")
        subprocess.run([avifdec, "--depth", "16", "--png-compress", "0", path, png], check=True, stdout=subprocess.DEVNULL)
        found = png_decode(png.read_bytes())  # codes 0..1023 as 0..65535
        for rows in np.array_split(found, max(1, len(found) // ROWS)):
            rows[:] = np.rint(rows * np.float32(1023 / 65535))
    else:
        found = avif_decode(path.read_bytes())
    if found.shape[:2] != codes.shape[1:]:
        return {"wrong": f"decoded {found.shape}"}
    return {"Pillow": size, **seams(found, codes)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="+", default=["4000x6000", "5472x7296", "8736x11648"], help="rows x columns")
    parser.add_argument("--to", nargs="+", choices=sorted(TARGETS), default=["avif", "jxl", "ultrahdr", "jpeg", "tiff"])
    parser.add_argument("--avifdec", help="libavif's program, which decodes by itself")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for to in options.to:
        for size in options.sizes:
            height, width = (int(n) for n in size.split("x"))
            if options.one:
                print(json.dumps(one(height, width, to, options.avifdec)))
                return
            asked = [sys.executable, __file__, "--to", to, "--sizes", size, "--one"]
            asked += ["--avifdec", options.avifdec] if options.avifdec else []
            told = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
            words = (f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in told.items())
            print(f"{to:10s}{size:>12s} {height * width / 1e6:6.1f} Mpx  {'  '.join(words)}", flush=True)


if __name__ == "__main__":
    main()
