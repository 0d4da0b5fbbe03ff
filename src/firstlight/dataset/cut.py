"""A prepared image as tile files and their rows. Each file is written beside its final name and renamed."""

from __future__ import annotations

import hashlib
import io as memory
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.atomic import replacing
from firstlight.dataset.prepare import TILE, Prepared
from firstlight.dataset.rows import Source, TileRow
from firstlight.dataset.store import flags_file
from firstlight.frame import Flag, Frame
from firstlight.noise import Noise, Param, Unmodelled, spread
from firstlight.scaling import Scaling

__all__ = ["MAPS", "cut", "save", "stem"]

Array = NDArray[Any]
MAPS = "noise_maps"  # OUT/noise_maps/HASH.npy: (Y, X) or (C, Y, X) float32 [e-] or [e-^2], shared by sources that agree
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

    Split, scene and pair are the set's to say and stay empty. Statistics leave out pixels that are not finite.
    """
    noise_a, noise_b = _noise(one, put)
    seen = datetime.now(UTC).isoformat()
    name, folder = stem(source, one.plane), f"npy_tiles/{source.domain}/{source.data_type}"
    scaling, overlaps = one.scaling, _overlaps(one)
    for tile in one.grid:
        frame = one.electrons(tile.read)
        data = np.asarray(frame.data)
        counts, valid, flags = _flagged(frame, data)
        tile_id = f"{name}_tile_{tile.number:04d}"
        path = f"{folder}/{tile_id}.npy"
        put(path, scaling.apply(data))
        if flags is not None:
            put(flags_file(path), flags)
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
            is_edge_tile=tile.read.stop[0] == one.image.shape[-2] or tile.read.stop[1] == one.image.shape[-1],
            overlap_ratio=overlaps[col],
            source_file=source.path,
            processing_timestamp=seen,
            fixed_scale=scaling.scale,
            original_min=one.original[0],  # type: ignore[arg-type]  # None where no pixel is finite
            original_max=one.original[1],  # type: ignore[arg-type]
            **_statistics(data, scaling),
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


def save(path: Path, array: Array) -> None:
    """Write a .npy file, whole or not at all. Raises WriteError naming the file."""
    head = memory.BytesIO()
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    with replacing(path) as temp, temp.open("wb") as file:  # not numpy.save, whose error on a full disk has no cause
        file.write(head.getbuffer())
        file.write(array.data)


def _overlaps(one: Prepared) -> list[float]:
    """Per column the share of a tile's area that its right neighbour covers too, 0 for the last."""
    starts = [t.read.start[1] for t in one.grid if t.index[0] == 0]
    return [max(0, a + TILE - b) / TILE for a, b in pairwise(starts)] + [0.0]


def _statistics(data: Array, scaling: Scaling) -> dict[str, Any]:
    """electron_* [e-] of a tile's finite values, norm_* of the same values scaled; None where there are none."""
    total = float(data.sum(dtype=np.float64))
    if not np.isfinite(total):
        data = data[np.isfinite(data)]
        if not data.size:
            return {f"{k}_{m}": None for k in ("electron", "norm") for m in ("min", "max", "mean", "std")} | {
                "quality_score": None
            }
        total = float(data.sum(dtype=np.float64))
    low, high, mean = data.min(), data.max(), total / data.size
    std = float(np.sqrt(np.mean(np.square(data - np.float32(mean)), dtype=np.float64)))
    norm = (mean + scaling.offset) / scaling.scale
    return {
        "electron_min": float(low),
        "electron_max": float(high),
        "electron_mean": mean,
        "electron_std": std,
        "norm_min": float(scaling.apply(low)),  # scaling rounds monotonically
        "norm_max": float(scaling.apply(high)),
        "norm_mean": norm,
        "norm_std": std / scaling.scale,
        "quality_score": norm,
    }


def _flagged(frame: Frame, data: Array) -> tuple[dict[str, int], float, Array | None]:
    """Pixels of each flag by name, the share without any (and finite), and the flags (shape of the data) where some are set."""
    if frame.flags is None or not np.any(frame.flags):
        return {}, 1.0 if np.isfinite(data.sum()) else float(np.isfinite(data).mean()), None
    flags = np.broadcast_to(np.asarray(frame.flags), data.shape)
    counts = {f.name.lower(): n for f in Flag if f.name and (n := int(np.count_nonzero(flags & f)))}
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
    return _stated(noise.a, one.image.shape, put), _stated(noise.b, one.image.shape, put)


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
    spreaded = np.asarray(spread(value, shape), dtype=np.float32)
    full = np.ascontiguousarray(np.broadcast_to(spreaded, (*spreaded.shape[:-2], *shape[-2:])))
    path = f"{MAPS}/{hashlib.sha256(full.tobytes() + repr(full.shape).encode()).hexdigest()[:24]}.npy"
    put(path, full)
    return path
