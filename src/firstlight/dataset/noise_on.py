"""The noise that a tile's row states, in the unit in which the tile is handed out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.dataset.store import column
from firstlight.errors import FrameError, ReadError
from firstlight.scaling import Scaling

__all__ = ["NoiseOn"]

Array = NDArray[Any]


class NoiseOn:
    """Noise and scaling of tiles by number; holds arrays only, so that it travels to worker processes cheaply.

    Electrons: var = a max(mean, 0) + b. Scaled values x = (e + o)/k: a/k, b/k^2, about the offset o/k.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], *, scaled: bool) -> None:
        self._scaled = scaled
        self._scale = np.array(column(rows, "fixed_scale"), dtype=np.float64)
        self._offset = np.array([row.get("fixed_offset") or 0.0 for row in rows], dtype=np.float64)
        self._start = np.array([(row.get("image_y") or 0, row.get("image_x") or 0) for row in rows], dtype=np.int64).reshape(
            -1, 2
        )
        # a source's tiles share their model: keep each once
        models: dict[str, int] = {}
        self._model = np.array(
            [models.setdefault(json.dumps([row.get("noise_a"), row.get("noise_b")]), len(models)) for row in rows],
            dtype=np.int64,
        )
        self._models = [json.loads(text) for text in models]
        self._known: dict[Any, dict[str, Array]] = {}  # of sources without maps; (C, 1, 1) each
        self._maps = any(isinstance(value, str) for model in self._models for value in model)

    def values(self, i: int, tile: Array) -> Array:
        """Scaled values as they are, or in electrons, float32."""
        return tile if self._scaled else Scaling(self._scale[i], self._offset[i]).invert(tile)

    def parameters(self, i: int, shape: tuple[int, ...]) -> dict[str, Array]:
        """a, b and offset of tile `i` of `shape` (C, H, W), float32, (1, 1, 1), (C, 1, 1) or, where maps occur, (C, H, W)."""
        if self._maps:
            return self._made(i, shape)
        key = int(self._model[i]), float(self._scale[i]), float(self._offset[i]), shape
        if key not in self._known:
            self._known[key] = self._made(i, shape)
        return {name: value.copy() for name, value in self._known[key].items()}

    def _made(self, i: int, shape: tuple[int, ...]) -> dict[str, Array]:
        a, b = (self._part(value, i, shape) for value in self._models[self._model[i]])
        k = self._scale[i] if self._scaled else 1.0
        offset = np.full((1, 1, 1), self._offset[i] / k if self._scaled else 0.0, dtype=np.float32)
        return {"a": self._spread(a / k, shape), "b": self._spread(b / k**2, shape), "offset": offset}

    def _spread(self, value: Array, shape: tuple[int, ...]) -> Array:
        return np.array(np.broadcast_to(value, shape if self._maps else (shape[0], 1, 1)), dtype=np.float32)

    def _part(self, value: Any, i: int, shape: tuple[int, ...]) -> Array:
        if isinstance(value, str):
            return _crop(value, self._start[i], shape)
        part = np.array(np.nan if value is None else value, dtype=np.float64).reshape(-1, 1, 1)
        if part.size not in (1, shape[0]):
            raise FrameError(f"tiles: noise of {part.size} channels on a tile of {shape[0]}; the row contradicts its tile")
        return part


def _crop(path: str, start: Array, shape: tuple[int, ...]) -> Array:
    """The part of a source's map, (Y, X) or (C, Y, X), under a tile of `shape` at `start` (y, x)."""
    try:
        full = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise ReadError(
            f"{path}: the noise map cannot be read ({' '.join(str(error).split())}); build the set again"
        ) from error
    (y, x), (h, w) = start, shape[-2:]
    part = np.asarray(full[..., y : y + h, x : x + w], dtype=np.float64)
    part = part[None] if part.ndim == 2 else part
    if part.ndim != 3 or part.shape[0] not in (1, shape[0]) or part.shape[1:] != (h, w):
        raise ReadError(f"{path}: a noise map of {full.shape} does not reach under the tile at y, x {y}, {x} of {shape}")
    return part
