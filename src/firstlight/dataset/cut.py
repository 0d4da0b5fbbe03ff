"""A prepared image as tile files and their rows. Each file is written beside its final name and renamed."""

from __future__ import annotations

import hashlib
import io as memory
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import groupby, pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.atomic import replacing
from firstlight.box import Box
from firstlight.dataset.prepare import TILE, Prepared
from firstlight.dataset.rows import Source, TileRow
from firstlight.dataset.store import flags_file
from firstlight.frame import Flag
from firstlight.noise import Noise, Param, Unmodelled, spread
from firstlight.scaling import Scaling
from firstlight.tiles import Tile

__all__ = ["MAPS", "cut", "save", "stem"]

Array = NDArray[Any]
MAPS = "noise_maps"  # OUT/noise_maps/HASH.npy: (Y, X) or (C, Y, X) float32 [e-] or [e-^2], shared by sources that agree
BLOCK = 1 << 15  # values at a time
LONGEST = 150  # of 255 bytes that a file name may have


def stem(source: Source, plane: int | None = None) -> str:
    """domain_PATH_HASH, the tile_id without its number: the path below the root, each run of other characters than letters,
    digits and "-" as one "_", and eight digits of the path's sha256, so that no two files collide; then _plane_000.
    """
    flat = re.sub(r"[^A-Za-z0-9-]+", "_", source.path)[-LONGEST:].strip("_")
    digest = hashlib.sha256(source.path.encode()).hexdigest()[:8]
    return f"{source.domain}_{flat}_{digest}" + ("" if plane is None else f"_plane_{plane:03d}")


def cut(one: Prepared, source: Source, out: Path, *, profile: str, put: Callable[[str, Array], None]) -> Iterator[TileRow]:
    """The rows of an image's tiles, each once its file below `out` has been `put` there (name relative to `out`, array).

    An array that is put is overwritten by the next. Split, scene and pair are the set's to say and stay empty. Statistics
    leave out pixels that are not finite.
    """
    noise_a, noise_b = _noise(one, put)
    seen = datetime.now(UTC).isoformat()
    name, folder = stem(source, one.plane), f"npy_tiles/{source.domain}/{source.data_type}"
    scaling, overlaps, (height, width) = one.scaling, _overlaps(one), one.shape[-2:]
    scaled = np.empty((*one.shape[:-2], TILE, TILE), dtype=np.float32)
    for tile, data, flags in _pieces(one, width):
        figures, finite = _scaled(data, scaling, scaled)
        counts, valid, marked = _flagged(flags, data, finite)
        tile_id = f"{name}_tile_{tile.number:04d}"
        path = f"{folder}/{tile_id}.npy"
        put(path, scaled)
        if marked is not None:
            put(flags_file(path), marked)
        (y, x), (row, col) = tile.read.start, tile.index
        yield TileRow(
            tile_id=tile_id,
            domain=source.domain,
            scene_id=source.scene,
            data_type=source.data_type,
            split="",
            npy_path=path,
            tile_size=TILE,
            channels=1 if data.ndim == 2 else data.shape[0],
            grid_x=col,
            grid_y=row,
            image_x=x,
            image_y=y,
            gain=one.gain,
            read_noise=one.read_noise,  # type: ignore[arg-type]  # None where unknown
            calibration_method=one.method,
            valid_ratio=valid,
            is_edge_tile=tile.read.stop[0] == height or tile.read.stop[1] == width,
            overlap_ratio=overlaps[col],
            source_file=source.path,
            processing_timestamp=seen,
            fixed_scale=scaling.scale,
            original_min=one.original[0],  # type: ignore[arg-type]  # None where no pixel is finite
            original_max=one.original[1],  # type: ignore[arg-type]
            **figures,
            noise_a=noise_a,
            noise_b=noise_b,
            flags=counts,
            profile=profile,
            source_sha256=source.sha256,
            fixed_offset=scaling.offset,
            view=source.view,
            level=source.level,
            channel=source.channel,
        )


def save(path: Path, array: Array) -> int:
    """Write a .npy file, whole or not at all; returns its bytes. Raises WriteError naming the file."""
    head = memory.BytesIO()
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    with replacing(path) as temp, temp.open("wb") as file:  # not numpy.save, whose error on a full disk has no cause
        file.write(head.getbuffer())
        file.write(array.data)
    return head.tell() + array.nbytes


def _pieces(one: Prepared, width: int) -> Iterator[tuple[Tile, Array, Array | None]]:
    """Each tile's electrons and flags (or None), made a row of tiles at a time."""
    for _, row in groupby(one.grid, key=lambda t: t.index[0]):
        tiles = list(row)
        (y0, _), (y1, _) = tiles[0].read.start, tiles[0].read.stop
        frame = one.electrons(Box((y0, 0), (y1, width)))
        data = np.asarray(frame.data)
        flags = None if frame.flags is None else np.broadcast_to(np.asarray(frame.flags), data.shape)
        for tile in tiles:
            x = slice(tile.read.start[1], tile.read.stop[1])
            yield tile, data[..., x], None if flags is None else flags[..., x]


def _overlaps(one: Prepared) -> list[float]:
    """Per column the share of a tile's area that its right neighbour covers too, 0 for the last."""
    starts = [t.read.start[1] for t in one.grid if t.index[0] == 0]
    return [max(0, a + TILE - b) / TILE for a, b in pairwise(starts)] + [0.0]


def _scaled(data: Array, scaling: Scaling, out: Array) -> tuple[dict[str, Any], bool]:
    """A tile's scaled values into `out`; electron_* [e-] of its finite values and norm_* of the same scaled, None where there
    are none; and whether all are finite. Block by block, so that what is computed on the way stays in the cache.
    """
    parts, every = [], True
    for where in _blocks(data.shape):
        block = np.ascontiguousarray(data[where])
        out[where] = scaling.apply(block)
        total = float(block.sum())  # by halves, so that single precision loses nothing
        if not isfinite(total):
            every, block = False, block[np.isfinite(block)]
            total = float(block.sum(dtype=np.float64))
        if block.size:
            rest = block - block.dtype.type(total / block.size)
            parts.append((block.size, total, float(np.square(rest, out=rest).sum()), float(block.min()), float(block.max())))
    return _statistics(np.array(parts), scaling), every


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Rows of one channel, BLOCK values or so at a time."""
    step = max(1, BLOCK // shape[-1])
    for lead in np.ndindex(shape[:-2]):
        yield from ((*lead, slice(y, y + step)) for y in range(0, shape[-2], step))


def _statistics(parts: Array, scaling: Scaling) -> dict[str, Any]:
    """The figures of a tile from those of its blocks: count, sum, sum of squares about the block's mean, least, greatest."""
    if not parts.size:
        return {f"{k}_{m}": None for k in ("electron", "norm") for m in ("min", "max", "mean", "std")} | {"quality_score": None}
    n, total, squares, low, high = parts.T
    mean = float(total.sum() / n.sum())
    std = float(np.sqrt((squares.sum() + np.sum(n * (total / n - mean) ** 2)) / n.sum()))
    norm = (mean + scaling.offset) / scaling.scale
    return {
        "electron_min": float(low.min()),
        "electron_max": float(high.max()),
        "electron_mean": mean,
        "electron_std": std,
        "norm_min": float(scaling.apply(low.min())),  # scaling rounds monotonically
        "norm_max": float(scaling.apply(high.max())),
        "norm_mean": norm,
        "norm_std": std / scaling.scale,
        "quality_score": norm,
    }


def _flagged(flags: Array | None, data: Array, finite: bool) -> tuple[dict[str, int], float, Array | None]:
    """Pixels of each flag by name, the share without any (and finite), and the flags where some are set."""
    if flags is None or not flags.max():
        return {}, 1.0 if finite else float(np.isfinite(data).mean()), None
    some = int(np.bitwise_or.reduce(flags, axis=None))
    counts = {f.name.lower(): int(np.count_nonzero(flags & f)) for f in Flag if f.name and f & some}
    return counts, float(((flags == 0) & np.isfinite(data)).mean()), flags


def _noise(one: Prepared, put: Callable[[str, Array], None]) -> tuple[Any, Any]:
    """noise_a [e-] and noise_b [e-^2] for a row: numbers, lists per channel, paths of maps; None where unmodelled.

    A law about another zero, a (e - offset) + b (documented values keep the black level), or with a master's shared noise
    cannot be said with two numbers, and is None as well.
    """
    noise = one.electrons(one.grid[0].read).noise
    if isinstance(noise, Unmodelled) or np.any(noise.offset) or np.any(noise.c) or np.any(noise.d):
        return None, None
    if any(_plain(p) is None for p in (noise.a, noise.b)):
        noise = one.noise()
        assert isinstance(noise, Noise)
    return _stated(noise.a, one.shape, put), _stated(noise.b, one.shape, put)


def _plain(value: Param) -> Any:
    """A number or a list per channel; None for what varies over the image."""
    if isinstance(value, float):
        return value
    if value.ndim == 3 and value.shape[-2:] == (1, 1):
        return [float(v) for v in value.ravel()]
    return float(value.flat[0]) if value.size == 1 else None


def _stated(value: Param, shape: tuple[int, ...], put: Callable[[str, Array], None]) -> Any:
    plain = _plain(value)
    if plain is not None:
        return plain
    shared_out = np.asarray(spread(value, shape), dtype=np.float32)
    full = np.ascontiguousarray(np.broadcast_to(shared_out, (*shared_out.shape[:-2], *shape[-2:])))
    path = f"{MAPS}/{hashlib.sha256(full.tobytes() + repr(full.shape).encode()).hexdigest()[:24]}.npy"
    put(path, full)
    return path
