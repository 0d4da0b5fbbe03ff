"""Tiles as PyTorch training data, with the noise that is on them.

The only module of this room that loads torch with itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from firstlight.dataset.join import targets
from firstlight.dataset.metadata import read_metadata
from firstlight.dataset.noise_on import NoiseOn
from firstlight.dataset.store import column, load_tile, open_store
from firstlight.errors import FrameError

__all__ = ["DiffusionTileDataset", "NoiseTileDataset", "TileShapeError", "load_npy_tile", "read_metadata"]

Array = NDArray[Any]
SPLITS = ("train", "validation", "test")
FIELDS = ("domain", "scene_id", "gain", "read_noise", "tile_id")
NUMBERS = ("gain", "read_noise")


class TileShapeError(FrameError, ValueError):
    """A tile is neither (H, W) nor (C, H, W)."""


def load_npy_tile(npy_path: str | Path) -> Tensor:
    """A tile as a float32 tensor: (H, W) becomes (1, H, W), (C, H, W) stays.

    Raises ReadError naming a file that is absent or damaged, TileShapeError (a ValueError) for other ranks.
    """
    return _tensor(load_tile(npy_path), str(npy_path))


def _tensor(tile: Array, name: str) -> Tensor:
    if tile.ndim not in (2, 3):
        raise TileShapeError(f"{name}: Unexpected tile shape: {tile.shape}, expected (H, W) or (C, H, W)")
    tensor = torch.from_numpy(tile).float()
    return tensor.unsqueeze(0) if tile.ndim == 2 else tensor


class _Columns:
    """FIELDS of the chosen rows as arrays: no Python object a tile, so that worker processes share the memory."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        kinds = {name: np.float64 if name in NUMBERS else np.dtypes.StringDType() for name in FIELDS}
        self._columns = {name: np.array(column(rows, name), dtype=kind) for name, kind in kinds.items()}

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {name: float(c[i]) if name in NUMBERS else str(c[i]) for name, c in self._columns.items()}


def _of_split(rows: Sequence[Mapping[str, Any]], split: str, **wanted: str | None) -> NDArray[np.int64]:
    """Numbers of the rows of a split (and of what else is wanted), in their own order."""
    known = {*SPLITS, *column(rows, "split")}
    if split not in known:
        raise FrameError(f"tiles: got split {split!r}, expected one of {', '.join(sorted(known))}")
    asked = {"split": split} | {name: value for name, value in wanted.items() if value is not None}
    return np.array([i for i, row in enumerate(rows) if all(row.get(k) == v for k, v in asked.items())], dtype=np.int64)


class DiffusionTileDataset(Dataset[dict[str, Any]]):
    """The tiles of a split: image float32 (C, H, W) in scaled values, domain, scene_id, gain, read_noise, tile_id.

    `tiles_df`: a DataFrame or rows (relative paths are relative to `root`, else to the working folder), or the path of a tile
    set or of its JSON. Order: the rows' own. Raises FrameError for an unknown split or rows without a needed field,
    ReadError, naming the file, for a tile that is absent or damaged.
    """

    def __init__(self, tiles_df: Any, split: str = "train", root: str | Path | None = None) -> None:
        meta, self._store = open_store(tiles_df, root)
        rows = meta["tiles"]
        self._chosen = _of_split(rows, split)
        self._columns = _Columns([rows[i] for i in self._chosen])

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        row = self._columns[idx]
        return {"image": _tensor(self._store.read(int(self._chosen[idx])), row["tile_id"]), **row}


class NoiseTileDataset(Dataset[dict[str, Any]]):
    """The tiles of a split with the noise that is on them, and where asked the clean tile of the same view and position.

    image: float32 (C, H, W), scaled or, with unit="electron", in electrons (`target` alike). a, b, offset: float32,
    broadcastable to the image, in its unit: var = a max(mean - offset, 0) + b; full maps (C, H, W) where any tile of the
    split has maps. valid: bool (C, H, W), False where flagged; absent where the set counts flags but does not store them.
    target: the clean tile; target_ratio: the noisy tile's electrons over it, as the pair was proved (exposures differ), NaN
    where it was not. Then the fields of DiffusionTileDataset.

    Tiles whose noise is unknown: unmodelled="refuse" raises, "drop" leaves them out, "nan" gives NaN. With target=True noisy
    tiles without a clean tile in their own split are left out. `left_out` counts what was, by reason. Raises FrameError where
    nothing is left, and as DiffusionTileDataset does.
    """

    def __init__(
        self,
        tiles: Any,
        split: str = "train",
        root: str | Path | None = None,
        *,
        unit: Literal["scaled", "electron"] = "scaled",
        data_type: str | None = "noisy",
        domain: str | None = None,
        target: bool = False,
        unmodelled: Literal["refuse", "drop", "nan"] = "refuse",
    ) -> None:
        if unit not in ("scaled", "electron"):
            raise FrameError(f"tiles: got unit {unit!r}, expected 'scaled' or 'electron'")
        meta, self._store = open_store(tiles, root)
        rows, left_out = meta["tiles"], Counter[str]()
        chosen = _of_split(rows, split, data_type="noisy" if target else data_type, domain=domain)
        clean, ratio = targets(meta) if target else (np.full(len(rows), -1), np.full(len(rows), np.nan))
        chosen = _kept(chosen, clean[chosen] >= 0, left_out, "no clean tile in the same split") if target else chosen
        chosen = _modelled(rows, chosen, unmodelled, left_out)
        if left_out and not len(chosen):
            reasons = ", ".join(f"{n} tiles: {reason}" for reason, n in left_out.items())
            raise FrameError(f"tiles: nothing is left of split {split!r} ({reasons}); choose another split, target or profile")
        self.left_out = dict(left_out)
        self._chosen, self._clean, self._ratio = chosen, clean[chosen] if target else None, ratio[chosen]
        mine = [rows[i] for i in chosen]
        self._columns = _Columns(mine)
        self._noise = NoiseOn(mine, scaled=unit == "scaled")
        self._goal = NoiseOn([rows[i] for i in clean[chosen]], scaled=unit == "scaled") if target else None
        self._valid = all(self._store.has_flags(int(i)) for i in chosen if rows[i].get("flags"))

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        i, row = int(self._chosen[idx]), self._columns[idx]
        image = _tensor(self._store.read(i), row["tile_id"])
        noise = self._noise.parameters(idx, tuple(image.shape))
        item: dict[str, Any] = {"image": _tensor(self._noise.values(idx, image.numpy()), row["tile_id"])}
        item |= {name: torch.from_numpy(value) for name, value in noise.items()}
        if self._valid:
            item["valid"] = _valid(self._store.flags(i), image)
        if self._clean is not None and self._goal is not None:
            clean = _tensor(self._store.read(int(self._clean[idx])), f"{row['tile_id']} (its target)")
            item["target"] = _tensor(self._goal.values(idx, clean.numpy()), row["tile_id"])
            item["target_ratio"] = float(self._ratio[idx])
        return {**item, **row}


def _modelled(
    rows: Sequence[Mapping[str, Any]], chosen: NDArray[np.int64], how: str, left_out: Counter[str]
) -> NDArray[np.int64]:
    known = np.array([rows[i].get("noise_a") is not None and rows[i].get("noise_b") is not None for i in chosen], dtype=bool)
    if how not in ("refuse", "drop", "nan"):
        raise FrameError(f"tiles: got unmodelled={how!r}, expected 'refuse', 'drop' or 'nan'")
    if how == "refuse" and not known.all():
        first = rows[int(chosen[np.argmin(known)])]["tile_id"]
        raise FrameError(
            f"tiles: the noise of {np.sum(~known)} of {known.size} tiles is unknown, the first is {first}; "
            "pass unmodelled='drop' or 'nan', or build the set with a detector"
        )
    return chosen if how == "nan" else _kept(chosen, known, left_out, "noise unknown")


def _kept(chosen: NDArray[np.int64], good: NDArray[np.bool_], left_out: Counter[str], reason: str) -> NDArray[np.int64]:
    if not good.all():
        left_out[reason] += int(np.sum(~good))
    return chosen[good]


def _valid(flags: Array | None, image: Tensor) -> Tensor:
    return (
        torch.ones((), dtype=torch.bool).expand(image.shape)
        if flags is None
        else torch.from_numpy(flags == 0).expand(image.shape)
    )
