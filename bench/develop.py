"""A raw file to HLG AVIF: CPU and wall seconds of each stage, memory, and LibRaw's AHD develop to 16 bits beside it.

python bench/develop.py PHOTO [--methods net lmmse] [--model MODEL.safetensors] [--bf16 | --float32] [--threads 1]

Each method runs in a process of its own: read, develop (noise estimated from the picture), render, write. A stage's memory is
the most that the process held during it (VmHWM, cleared before), the interpreter and packages included; the first use of a
package counts to its stage. The peer is rawpy's postprocess: AHD (X-Trans: Markesteijn, 3 passes), the camera's balance, sRGB,
16 bits, no denoising, nothing written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

STAGES = {
    "read": "firstlight.io.read",
    "saturated samples": "firstlight.calibrate.flag_saturated",
    "noise estimate": "firstlight.calibrate.transfer_single",
    "black level": "firstlight.calibrate.subtract_offset",
    "white balance": "firstlight.calibrate.white_balance",
    "where saturated": "firstlight.develop.pipeline.reached",
    "demosaic": "firstlight.develop.pipeline.demosaic",
    "highlights": "firstlight.develop.pipeline.neutral",
    "matrix": "firstlight.develop.pipeline.to_rec2020",
    "exposure": "firstlight.develop.pipeline.expose",
    "orientation": "firstlight.develop.pipeline.upright",
    "render": "firstlight.develop.render",
    "encode": "firstlight.io.rendered.write_rendered",
}
Row = tuple[float, float, float]


def peak() -> float:
    """MiB that the process has held at most since `forget`."""
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def measured(rows: dict[str, Row], name: str) -> Iterator[None]:
    forget()
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    rows[name] = time.process_time() - cpu, time.perf_counter() - wall, peak()


def watched(rows: dict[str, Row], name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    def step(*args: Any, **params: Any) -> Any:
        with measured(rows, name):
            return run(*args, **params)

    return step


def ours(photo: Path, params: dict[str, Any], threads: int) -> dict[str, Row]:
    import torch

    torch.set_num_threads(threads)
    rows: dict[str, Row] = {}
    for name, where in STAGES.items():
        room, _, function = where.rpartition(".")
        module = import_module(room)
        setattr(module, function, watched(rows, name, getattr(module, function)))
    io, develop, rendered = (import_module(f"firstlight.{m}") for m in ("io", "develop", "io.rendered"))
    cpu, wall = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        picture = develop.render(develop.develop(io.read(photo), **params))
        path = rendered.write_rendered(picture, Path(folder) / "picture.avif", to="avif")
        rows[f"in all, {path.stat().st_size / 2**20:.1f} MiB"] = (
            time.process_time() - cpu,
            time.perf_counter() - wall,
            max(row[2] for row in rows.values()),
        )
    return rows


def peer(photo: Path) -> dict[str, Row]:
    import rawpy

    rows: dict[str, Row] = {}
    with measured(rows, "LibRaw AHD, 16 bits"), rawpy.imread(str(photo)) as raw:
        raw.postprocess(demosaic_algorithm=rawpy.DemosaicAlgorithm.AHD, use_camera_wb=True, output_bps=16)
    return rows


def apart(method: str) -> dict[str, Row]:
    """The rows of one method, from a process of its own."""
    asked = [sys.executable, __file__, *sys.argv[1:], "--one", method]
    found: dict[str, Row] = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photo", type=Path)
    parser.add_argument("--methods", nargs="+", default=["net", "lmmse"])
    parser.add_argument("--model")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        model = options.model if options.one == "net" else None
        params = {"method": options.one, "model": model, "bf16": options.bf16}
        print(json.dumps(peer(options.photo) if options.one == "peer" else ours(options.photo, params, options.threads)))
        return
    [(name, reference)] = apart("peer").items()
    print(f"{'':32s}{'CPU s':>8s}{'wall s':>8s}{'MiB':>8s}{'of LibRaw':>11s}")
    for title in (name, *options.methods):
        rows = {name: reference} if title == name else apart(title)
        print(title)
        for stage, (cpu, wall, held) in rows.items():
            print(f"  {stage:30s}{cpu:8.2f}{wall:8.2f}{held:8.0f}{cpu / reference[0]:11.2f}", flush=True)


if __name__ == "__main__":
    main()
