"""Reading tiles back in random order: packs against single files, tiles per CPU second.

python bench/tiles_read.py [--tiles 2000] [--rounds 5]      256 x 256 float32; the least of interleaved rounds, files cached
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

SIZE = 256
FIELDS = {"domain": "microscopy", "split": "train", "data_type": "noisy", "gain": 1.0, "read_noise": 1.5, "tile_size": SIZE}


def write_set(out: Path, tiles: int, seed: int = 5) -> None:
    """A tile set of noise, one file a tile, and its packs beside it."""
    from firstlight.dataset.metadata import write_metadata
    from firstlight.dataset.pack import write_pack

    rng, rows = np.random.default_rng(seed), []
    (out / "npy_tiles").mkdir(parents=True)
    for i in range(tiles):
        np.save(out / f"npy_tiles/t{i:05d}.npy", rng.standard_normal((SIZE, SIZE), dtype=np.float32))
        name = {"tile_id": f"t{i:05d}", "npy_path": f"npy_tiles/t{i:05d}.npy", "scene_id": f"s{i // 16}"}
        rows.append({**FIELDS, **name, "fixed_scale": 66000.0, "noise_a": 1.0, "noise_b": 2.25})
    write_metadata(out, {"tiles": rows})
    write_pack(out)


def readers(out: Path) -> dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]]:
    """What is read, by name: from files, from packs. Each answer is an array or item of the caller's own, filled."""
    import torch

    from firstlight.dataset.load import DiffusionTileDataset, NoiseTileDataset, load_npy_tile
    from firstlight.dataset.metadata import METADATA, read_metadata
    from firstlight.dataset.pack import PackDataset, open_pack

    paths = [row["npy_path"] for row in read_metadata(out)["tiles"]]
    packs, shared = open_pack(out), open_pack(out, copy=False)
    diffusion = DiffusionTileDataset(out / METADATA), PackDataset(out)
    noise = NoiseTileDataset(out / METADATA), PackDataset(out, items="noise")
    return {
        "array, own memory": (lambda i: np.load(paths[i]), packs.read),
        "array, its sum": (lambda i: np.load(paths[i]).sum(), lambda i: shared.read(i).sum()),
        "tensor (document 0's loader)": (
            lambda i: load_npy_tile(paths[i]),
            lambda i: torch.from_numpy(packs.read(i)).float().unsqueeze(0),
        ),
        "DiffusionTileDataset item": (diffusion[0].__getitem__, diffusion[1].__getitem__),
        "NoiseTileDataset item": (noise[0].__getitem__, noise[1].__getitem__),
    }


def measure(tiles: int = 2000, rounds: int = 5, folder: Path | None = None) -> dict[str, dict[str, float]]:
    """For each way of reading: tiles per CPU second of files and of packs, and their ratio."""
    with tempfile.TemporaryDirectory(dir=folder) as temp:
        out = Path(temp) / "set"
        write_set(out, tiles)
        order = [int(i) for i in np.random.default_rng(1).permutation(tiles)]
        found = {}
        for name, pair in readers(out).items():
            least = [min(t) for t in zip(*[[_cpu(read, order) for read in pair] for _ in range(rounds)], strict=True)]
            files, packs = (tiles / t for t in least)
            found[name] = {"files": files, "packs": packs, "ratio": packs / files}
    return found


def _cpu(read: Callable[[int], Any], order: list[int]) -> float:
    start = time.process_time()
    for i in order:
        read(i)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"{'tiles per CPU second':30s}{'files':>10s}{'packs':>10s}{'ratio':>8s}")
    for name, row in measure(args.tiles, args.rounds).items():
        print(f"{name:30s}{row['files']:10.0f}{row['packs']:10.0f}{row['ratio']:8.1f}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
