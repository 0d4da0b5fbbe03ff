"""A set of torture pictures as one .npz: colours and the mosaic that samples them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.atomic import replacing, writable
from firstlight.errors import FrameError, ReadError, WriteError
from firstlight.geometry import XTRANS, Mosaic, Pattern
from firstlight.simulate import KINDS, torture
from firstlight.simulate.torture import LEAST

__all__ = ["read_torture", "write_torture"]

Array = NDArray[Any]
Tick = Callable[[int, int, str], None]


def write_torture(
    out: Path, *, count: int = 5000, seed: int = 0, side: int = 128, pattern: Pattern = XTRANS, tick: Tick | None = None
) -> dict[str, Any]:
    """Write rgb float16 (N, 3, Y, X), cfa float16 (N, Y, X) = rgb at the pattern's colours, kind uint8 (N,), pattern, seed.

    Picture i is of kind i mod 13, from the seed (seed, i): a longer set begins with a shorter one. Half of the Julia sets are
    zoomed. Linear light in [0, 1]. Raises FrameError for a seed below 0 or sides under 16 px, WriteError.
    """
    if out.suffix != ".npz" or count < 1:
        raise WriteError(f"{out}, {count} pictures: expected a name that ends in .npz, and one picture or more")
    if seed < 0 or side < LEAST:
        raise FrameError(f"torture: seed {seed}, side {side} px; expected a seed of 0 or more, and {LEAST} px or more")
    writable(out)
    color = Mosaic(pattern).at((side, side))
    rgb = np.empty((count, 3, side, side), dtype=np.float16)
    kind = (np.arange(count) % len(KINDS)).astype(np.uint8)
    for i in range(count):
        rgb[i] = torture(int(kind[i]), np.random.default_rng([seed, i]), side=side, zoomed=i // len(KINDS) % 2 == 1)
        if tick:
            tick(i + 1, count, KINDS[kind[i]])
    cfa = np.take_along_axis(rgb, color[None, None], axis=1)[:, 0]
    with replacing(out) as temp:
        np.savez_compressed(
            temp, rgb=rgb, cfa=cfa, kind=kind, kinds=np.array(KINDS), pattern=np.array(pattern, dtype=np.uint8), seed=seed
        )
    return {"output": str(out), "pictures": count, "side": side, "seed": seed, "kinds": list(KINDS)}


def read_torture(path: Path) -> tuple[Array, Array]:
    """rgb float16 (N, 3, Y, X) of linear light, and its kinds uint8 (N,). Raises ReadError for another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            rgb, kind = file["rgb"], file["kind"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ReadError(f"{path}: no whole set of `firstlight torture` ({error}); write it again") from error
    if rgb.ndim != 4 or rgb.shape[1] != 3 or kind.shape != rgb.shape[:1]:
        raise ReadError(f"{path}: rgb of shape {rgb.shape}, kind {kind.shape}; expected (N, 3, Y, X) and (N,)")
    return rgb, kind
