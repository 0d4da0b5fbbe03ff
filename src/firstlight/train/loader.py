"""Patches read as training reads them: in batches, in any order, flipped and turned; what comes out, and how fast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from firstlight.dataset.load import DiffusionTileDataset
from firstlight.dataset.manifest import NAMES, Patch, read_patches, read_splits
from firstlight.dataset.qc import strays, tile_rows
from firstlight.errors import FrameError
from firstlight.train.augment import turned

__all__ = ["Loaded", "check_loader"]


@dataclass(frozen=True)
class Loaded:
    """{split: what its batches were}; passed where every batch has one shape and holds finite numbers alone."""

    splits: Mapping[str, Mapping[str, Any]]

    @property
    def passed(self) -> bool:
        """True where every split that has patches gave them, all finite."""
        return all(s["finite"] for s in self.splits.values() if s["patches"])

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {"passed": self.passed, "splits": {k: dict(v) for k, v in self.splits.items()}}

    def text(self) -> str:
        """For people: a line a split."""
        lines = []
        for name, s in self.splits.items():
            if not s["patches"]:
                lines.append(f"{name:<12}no patches")
                continue
            rest = f"; {s['other_shapes']} patches of other shapes left out" if s["other_shapes"] else ""
            lines.append(
                f"{name:<12}{s['batches']} batches {tuple(s['shape'])} {s['dtype']}, {s['min']:.4g} to {s['max']:.4g}, mean "
                f"{s['mean']:.4g}, {'finite' if s['finite'] else 'NOT FINITE'}, {s['rate']:.0f} patches/s{rest}"
            )
        return "\n".join(lines)


class _Image(NamedTuple):
    image: NDArray[Any]


class _Turned(Dataset[torch.Tensor]):
    """A data set's images under a symmetry drawn for (seed, index)."""

    def __init__(self, tiles: DiffusionTileDataset, seed: int) -> None:
        self._tiles, self._seed = tiles, seed

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, i: int) -> torch.Tensor:
        image = self._tiles[i]["image"].numpy()
        which = int(np.random.default_rng([self._seed, i]).integers(8))
        if image.shape[-2] != image.shape[-1]:
            which = 4 if which >= 4 else 0  # a quarter turn would give another shape
        return torch.from_numpy(np.ascontiguousarray(turned(_Image(image), which).image))


def check_loader(
    path: str | Path, splits: str | Path, *, batch: int = 8, batches: int = 20, workers: int = 0, seed: int = 0
) -> Loaded:
    """Read at most `batches` batches of each split of patches_splits.csv by torch's loader, augmented as in training.

    Patches of one shape make a batch: the commonest of a split. Raises FrameError for numbers that are none, patches without
    splits or in another split than splits.json says, ReadError naming a file that is absent or damaged.
    """
    if min(batch, batches) < 1 or workers < 0:
        raise FrameError(f"qc: batch {batch}, batches {batches}, workers {workers}; expected at least 1, 1 and 0")
    patches = read_patches(path)
    if not any(p.split for p in patches):
        raise FrameError(f"{path}: no patch has a split; give the file that `firstlight split` wrote")
    if other := strays(patches, read_splits(splits)):
        first, what = next(iter(other.items()))
        raise FrameError(f"{path}: {len(other)} patches are not where {splits} says (patch {first}: {what}); split them again")
    names = [*NAMES, *sorted({p.split for p in patches} - {*NAMES})]
    return Loaded({k: _read([p for p in patches if p.split == k], k, batch, batches, workers, seed) for k in names})


def _read(patches: Sequence[Patch], split: str, batch: int, batches: int, workers: int, seed: int) -> dict[str, Any]:
    shapes = Counter((p.channels, p.height, p.width) for p in patches)
    if not shapes:
        return {"patches": 0}
    shape, count = shapes.most_common(1)[0]
    rows = tile_rows(p for p in patches if (p.channels, p.height, p.width) == shape)
    data = _Turned(DiffusionTileDataset(rows, split), seed)
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(data, batch, shuffle=True, num_workers=workers, generator=order)
    seen, low, high, total, finite, dtype = 0, np.inf, -np.inf, 0.0, True, ""
    begin, given = perf_counter(), list[int]()
    for one, _ in zip(loader, range(batches), strict=False):
        seen, given, dtype = seen + len(one), given or list(one.shape), str(one.dtype)
        finite = finite and bool(torch.isfinite(one).all())
        low, high, total = (
            min(low, float(one.min())),
            max(high, float(one.max())),
            total + float(one.double().mean()) * len(one),
        )
    return {
        "patches": len(patches),
        "batches": -(-seen // batch),
        "shape": given,
        "dtype": dtype.removeprefix("torch."),
        "min": low,
        "max": high,
        "mean": total / seen,
        "finite": finite,
        "rate": round(seen / max(perf_counter() - begin, 1e-9), 1),
        "other_shapes": len(patches) - count,
    }
