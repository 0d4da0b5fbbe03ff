"""From scaled values back to electrons: the scaling of a tile is stored with its row and is undone exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from firstlight.dataset.metadata import METADATA, write_metadata
from firstlight.dataset.pack import PackWriter, stamped
from firstlight.dataset.rows import TileRow
from firstlight.dataset.store import INDEX, flags_file, open_set
from firstlight.dataset.whole import copy_maps, new_folder, save_tile
from firstlight.errors import FrameError
from firstlight.scaling import Scaling

__all__ = ["unscale", "unscale_set"]

Array = NDArray[Any]


def unscale(tile: Array, row: TileRow | Mapping[str, Any]) -> Array:
    """The electrons, float32, of a tile's scaled values: tile * fixed_scale - fixed_offset of its row.

    Within 2 ulp of max(|e|, fixed_offset), as long as scaled values are 0 or at least 1e-38 in size.
    Raises FrameError for a row without a scale, or one that is not positive.
    """
    scale, offset = (getattr(row, k, None) if isinstance(row, TileRow) else row.get(k) for k in ("fixed_scale", "fixed_offset"))
    if scale is None:
        raise FrameError("tiles: the row has no fixed_scale, expected the row of the tile's own metadata")
    try:
        return Scaling(float(scale), float(offset or 0.0)).invert(tile)
    except (TypeError, ValueError, FrameError):
        name = getattr(row, "tile_id", None) if isinstance(row, TileRow) else row.get("tile_id")
        raise FrameError(
            f"tiles: {name or 'a row'} has fixed_scale {scale!r} and fixed_offset {offset!r}, expected a positive number and a "
            "number; build the set again"
        ) from None


def unscale_set(out: str | Path, dest: str | Path, *, tick: Callable[[int, int, str], None] | None = None) -> dict[str, Any]:
    """Write the tile set in `out` in electrons into the new folder `dest`: tiles, flags, noise maps and metadata.

    Rows keep their fields; fixed_scale becomes 1, fixed_offset 0, norm_* and quality_score those of the electrons. A packed
    set gives packs. Returns {"tiles": n, "store": "npy" | "pack"}. Raises ReadError naming a tile that is absent or damaged,
    WriteError where `dest` holds something already.
    """
    meta, store, source = open_set(out)
    packed = (source / INDEX).is_file()
    rows = [_in_electrons(row) for row in meta["tiles"]]
    with new_folder(dest) as folder, PackWriter(folder) if packed else nullcontext() as packs:
        for i, (row, old) in enumerate(zip(rows, meta["tiles"], strict=True)):
            if tick:
                tick(i, len(rows), row["npy_path"])
            tile, flags = unscale(store.read(i), old), store.flags(i)
            if packs is not None:
                packs.add(row, tile, flags)
                continue
            save_tile(folder, row["npy_path"], tile)
            if flags is not None:
                save_tile(folder, flags_file(row["npy_path"]), flags)
        copy_maps(rows, source, folder)
        write_metadata(folder, meta := {**meta, "tiles": rows})
        if packs is not None:
            packs.close(stamped(meta, folder / METADATA))
    return {"tiles": len(rows), "store": "pack" if packed else "npy"}


def _in_electrons(row: Mapping[str, Any]) -> dict[str, Any]:
    figures = {f"norm_{k}": row[f"electron_{k}"] for k in ("min", "max", "mean", "std") if f"electron_{k}" in row}
    return {**row, **figures, "quality_score": row.get("electron_mean"), "fixed_scale": 1.0, "fixed_offset": 0.0}
