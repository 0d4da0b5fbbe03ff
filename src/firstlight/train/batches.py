"""Patches of planes as batches, each a function of (seed, step) alone: a resumed training draws what it would have drawn.

Augmentation is by flips, quarter turns and whole-pixel shifts only: whatever interpolates correlates the noise.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstlight.errors import FrameError
from firstlight.train.augment import turned

__all__ = ["Batch", "Batches", "Plane", "Planes"]

Array = NDArray[Any]
CACHE = 1 << 29  # bytes of planes kept
DRAWS = 64  # positions tried at once


class Plane(NamedTuple):
    """z float32 (C, Y, X): stabilised data; target alike or None; valid bool (C, Y, X) or None: all; sigma float32 (C, Y, X):
    standard deviation of z's noise, or None: 1."""

    z: Array
    target: Array | None = None
    valid: Array | None = None
    sigma: Array | None = None


@dataclass(frozen=True)
class Batch:
    """z float32 (B, C, Y, X), stabilised; target alike or None; valid bool (B, C, Y, X), True where trusted, or None: all;
    sigma float32 (B, C, Y, X), standard deviation of z's noise, or None: 1."""

    z: Tensor
    target: Tensor | None = None
    valid: Tensor | None = None
    sigma: Tensor | None = None

    def to(self, device: str | torch.device) -> Batch:
        """The batch on a device."""
        target, valid, sigma = (None if t is None else t.to(device) for t in (self.target, self.valid, self.sigma))
        return replace(self, z=self.z.to(device), target=target, valid=valid, sigma=sigma)

    def part(self, which: slice) -> Batch:
        """Some of its patches."""
        parts = (None if t is None else t[which] for t in (self.target, self.valid, self.sigma))
        return Batch(self.z[which], *parts)

    def spread(self) -> Tensor | float:
        """Standard deviation of z's noise."""
        return 1.0 if self.sigma is None else self.sigma


class Planes:
    """A sequence of planes, each loaded when asked for; the last ones asked for are kept, up to CACHE bytes."""

    def __init__(self, loaders: Sequence[Callable[[], Plane]]) -> None:
        if not loaders:
            raise FrameError("training: no plane of data to learn from; give a file, a folder of images or a tile set")
        self._loaders = list(loaders)
        self._kept: OrderedDict[int, Plane] = OrderedDict()

    def __len__(self) -> int:
        return len(self._loaders)

    def __getitem__(self, i: int) -> Plane:
        if i not in self._kept:
            self._kept[i] = self._loaders[i]()
            while len(self._kept) > 1 and sum(_size(p) for p in self._kept.values()) > CACHE:
                self._kept.popitem(last=False)
        self._kept.move_to_end(i)
        return self._kept[i]


def _size(plane: Plane) -> int:
    return sum(part.nbytes for part in plane if part is not None)


@dataclass(frozen=True, eq=False)
class Batches:
    """`batches(step)`: `batch` patches of side `patch` [px] at random places of random planes, flipped and turned.

    colour: all channels of a plane together; else one of them, at random.
    held: share of each plane's cells of patch x patch pixels that no training patch touches; `held_out` returns patches of
    those. Raises FrameError where a plane is too small for both.
    """

    planes: Planes
    batch: int = 8
    patch: int = 64
    seed: int = 0
    held: float = 0.1
    augment: bool = True
    colour: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1 or self.patch < 8 or not 0 <= self.held < 1:
            raise FrameError(
                f"training: batch {self.batch}, patch {self.patch} px, held {self.held}; expected at least 1, 8, and 0 to 1"
            )

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        return _stacked([self._patch(rng) for _ in range(self.batch)])

    def per_epoch(self) -> int:
        """Steps in which as many pixels are seen as there are, taking the first plane's size for all."""
        _, height, width = self.planes[0].z.shape
        return max(1, len(self.planes) * int(height) * int(width) // (self.batch * self.patch**2))

    def held_out(self, count: int = 64) -> list[Batch]:
        """At most `count` held-out patches in batches, spread over the planes; the same ones whenever asked."""
        rng = np.random.default_rng([self.seed, 1 << 40])
        chosen = rng.permutation(len(self.planes))[:count]
        places = [(int(i), y, x) for i in chosen for y, x in self._places(int(i))]
        keep = sorted(rng.permutation(len(places))[:count])
        patches = [self._cut(self.planes[i], y, x, rng) for i, y, x in (places[k] for k in keep)]
        return [_stacked(patches[k : k + self.batch]) for k in range(0, len(patches), self.batch)]

    def _grid(self, i: int) -> tuple[int, int]:
        _, height, width = self.planes[i].z.shape
        rows, cols = height // self.patch, width // self.patch
        if rows * cols < (2 if self.held else 1):
            raise FrameError(
                f"training: a plane of {height} x {width} px holds {rows * cols} patches of {self.patch} px, expected one to "
                f"learn from{' and one to be judged by' if self.held else ''}; give a smaller patch"
            )
        return rows, cols

    def _held(self, i: int) -> NDArray[np.bool_]:
        """Cells (rows, cols) of a plane that are held out."""
        rows, cols = self._grid(i)
        cells = np.zeros(rows * cols, dtype=bool)
        if self.held:
            rng = np.random.default_rng([self.seed, 1 << 41, i])
            cells[rng.permutation(cells.size)[: max(1, round(self.held * cells.size))]] = True
        return cells.reshape(rows, cols)

    def _places(self, i: int) -> list[tuple[int, int]]:
        cells = self._held(i) if self.held else np.ones(self._grid(i), dtype=bool)
        return [(int(y) * self.patch, int(x) * self.patch) for y, x in np.argwhere(cells)]

    def _patch(self, rng: np.random.Generator) -> Plane:
        i = int(rng.integers(len(self.planes)))
        plane = self.planes[i]
        y, x = self._place(plane.z.shape[1:], self._held(i), rng)
        found = self._cut(plane, y, x, rng)
        return turned(found, int(rng.integers(8))) if self.augment else found

    def _cut(self, plane: Plane, y: int, x: int, rng: np.random.Generator) -> Plane:
        c = 0 if self.colour or len(plane.z) == 1 else int(rng.integers(len(plane.z)))
        here = (slice(None) if self.colour else slice(c, c + 1), slice(y, y + self.patch), slice(x, x + self.patch))
        return Plane(*(None if part is None else part[here] for part in plane))  # type: ignore[arg-type]

    def _place(self, shape: Sequence[int], held: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
        table = np.pad(held, 1)  # what lies beyond the last whole cell is never held out
        for _ in range(1000):
            y, x = (rng.integers(n - self.patch + 1, size=DRAWS) for n in shape)
            rows, cols = (np.stack([v // self.patch, (v + self.patch - 1) // self.patch]) for v in (y, x))
            touched = table[np.minimum(rows + 1, held.shape[0] + 1)[:, None], np.minimum(cols + 1, held.shape[1] + 1)[None]]
            free = np.flatnonzero(~touched.any(axis=(0, 1)))
            if free.size:
                return int(y[free[0]]), int(x[free[0]])
        raise FrameError(f"training: no patch of {self.patch} px avoids the held-out cells; give a smaller patch or held share")


def _stacked(patches: Sequence[Plane]) -> Batch:
    z = torch.from_numpy(np.stack([p.z for p in patches]))
    target = None if patches[0].target is None else torch.from_numpy(np.stack([_given(p.target) for p in patches]))
    valid, sigma = (_filled([getattr(p, name) for p in patches], patches[0].z, kind) for name, kind in WHERE.items())
    return Batch(z, target, valid, sigma)


WHERE = {"valid": np.bool_, "sigma": np.float32}


def _given(target: Array | None) -> Array:
    if target is None:
        raise FrameError("training: some planes have a target and some have none; take those that have one, or r2r")
    return target


def _filled(parts: Sequence[Array | None], like: Array, kind: Any) -> Tensor | None:
    """Stacked, ones where a patch has none; None where none has any."""
    if all(part is None for part in parts):
        return None
    return torch.from_numpy(np.stack([np.ones(like.shape, kind) if part is None else part for part in parts]))
