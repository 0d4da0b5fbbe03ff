"""Large developed pictures in each format: CPU seconds, memory, and what an independent decoder finds in the file.

python bench/writers.py [--sizes 4000x6000 5472x7296 8736x11648] [--to avif jxl ultrahdr jpeg]

A picture of gradients and noise (seed 1), made in memory. Each write runs in a process of its own; "more MiB" is what its peak
adds to the picture itself. AVIF is decoded again by libavif (imagecodecs), its size read by Pillow; error: root mean square
[codes] everywhere, and of the two rows and columns at borders of a grid's cells, which shows seams.
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
    x = np.linspace(0.1, 0.8, width, dtype=np.float32)
    for y in range(0, height, ROWS):
        rows = min(ROWS, height - y)
        noise = rng.standard_normal((3, rows, width), dtype=np.float32) * np.float32(0.01)
        light = np.clip(x * (1 - np.float32(0.5 * y / height)) + noise, 0, 1) * np.float32(top)
        out[:, y : y + rows] = light if kind.bits == 32 else np.rint(light)
    return Rendered(Frame(out, "CYX", Unit.DISPLAY, Unmodelled("a test picture")), kind)


def seams(found: Array, wanted: Array) -> dict[str, Any]:
    """Root mean square errors of (Y, X, 3) codes against (3, Y, X): in all, and at the borders of a grid's cells."""
    shape = found.shape[:2]
    cells = [-(-n // k) for n, k in zip(shape, avif._grid(*shape), strict=True)]
    square = np.zeros(shape, dtype=np.float32)
    for k in range(3):
        square += (found[..., k].astype(np.float32) - wanted[k]) ** 2 / 3
    edges = [e for axis in (0, 1) for c in range(cells[axis], shape[axis], cells[axis]) for e in _pair(square, axis, c)]
    told = {"rms": float(np.sqrt(square.mean())), "cells": "x".join(map(str, avif._grid(*shape)))}
    return told | ({"rms at borders": float(np.sqrt(np.concatenate(edges).mean()))} if edges else {})


def _pair(square: Array, axis: int, at: int) -> list[Array]:
    return [np.take(square, at - 1, axis), np.take(square, at, axis)]


def one(height: int, width: int, to: str) -> dict[str, Any]:
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
        return told | (decoded(path, shown.frame.data) if to == "avif" else {})


def decoded(path: Path, codes: Array) -> dict[str, Any]:
    from imagecodecs import avif_decode
    from PIL import Image

    with Image.open(path) as seen:
        size = "x".join(map(str, reversed(seen.size)))
    found = avif_decode(path.read_bytes())
    if found.shape[:2] != codes.shape[1:]:
        return {"wrong": f"decoded {found.shape}"}
    return {"Pillow": size, **seams(found, codes)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="+", default=["4000x6000", "5472x7296", "8736x11648"], help="rows x columns")
    parser.add_argument("--to", nargs="+", choices=sorted(TARGETS), default=["avif", "jxl", "ultrahdr", "jpeg"])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for to in options.to:
        for size in options.sizes:
            height, width = (int(n) for n in size.split("x"))
            if options.one:
                print(json.dumps(one(height, width, to)))
                return
            asked = [sys.executable, __file__, "--to", to, "--sizes", size, "--one"]
            told = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
            words = (f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in told.items())
            print(f"{to:10s}{size:>12s} {height * width / 1e6:6.1f} Mpx  {'  '.join(words)}", flush=True)


if __name__ == "__main__":
    main()
