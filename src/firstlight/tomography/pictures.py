"""Pictures of volumes for people: three orthogonal slices, a sheet of slices around the rotation axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.atomic import replacing
from firstlight.box import Box
from firstlight.io import Writer

__all__ = ["Middle", "save_middle", "save_sheet"]

Array = NDArray[Any]
LARGEST = 900  # px a side of a panel
THIN = 8  # px: a cut through fewer slices is drawn as tall as this


class Middle:
    """The three middle slices of a volume, kept while it passes to its writer."""

    def __init__(self, out: Writer, shape: Sequence[int]) -> None:
        self._out, self._at = out, [n // 2 for n in shape]
        z, y, x = shape
        self.planes = [np.zeros((y, x), np.float32), np.zeros((z, x), np.float32), np.zeros((z, y), np.float32)]
        self._there = np.zeros(z, dtype=bool)

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Slices (Z, Y, X) at `box`, to the writer."""
        self._keep(box.start[0], block)
        self._out.put(box, block, std)

    def _keep(self, first: int, block: Any) -> None:
        z, y, x = self._at
        stop = first + len(block)
        if first <= z < stop:
            self.planes[0][:] = block[z - first]
        self.planes[1][first:stop], self.planes[2][first:stop] = block[:, y], block[:, :, x]
        self._there[first:stop] = True

    def fill(self, data: Any, step: int) -> None:
        """What an earlier run has written, read back `step` slices at a time."""
        for first in range(0, len(self._there), step):
            if not self._there[first : first + step].all():
                self._keep(first, np.asarray(data[first : first + step]))


def save_middle(planes: Sequence[Array], path: Path, unit: str) -> None:
    """A PNG of the slices XY, XZ and YZ, in one grey scale."""
    names = ("x, y: the middle slice", "x, z: the middle row", "y, z: the middle column")
    low, high = _range(planes[0])
    figure, axes = _stacked(planes)
    for axis, plane, name in zip(axes, planes, names, strict=True):
        shown = _small(plane)
        shown = np.repeat(shown, -(-THIN // shown.shape[0]), axis=0) if shown.shape[0] < THIN else shown
        axis.imshow(shown, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    figure.suptitle(f"{path.stem}: {low:.3g} to {high:.3g} {unit}", fontsize=10)
    _save(figure, path)


def _stacked(planes: Sequence[Array]) -> tuple[Any, Any]:
    """Three panels side by side; one under the other where the volume is thin."""
    slices, width = planes[1].shape
    if slices > width / 3:
        figure, axes = _figure(1, 3, 4.6)
        return figure, axes.ravel()
    share = max(slices, THIN) / width
    figure, axes = _figure(3, 1, 6.0, height_ratios=(1.0, share, share))
    figure.set_size_inches(6.4, 6.0 * (1 + 2 * share) + 1.2)
    return figure, axes.ravel()


def save_sheet(slices: Array, labels: Sequence[str], path: Path) -> None:
    """A PNG of slices (K, Y, X), each with its label."""
    columns = int(np.ceil(np.sqrt(len(slices))))
    figure, axes = _figure(-(-len(slices) // columns), columns, 3.4)
    low, high = _range(slices)
    for axis in axes.ravel():
        axis.axis("off")
    for axis, plane, label in zip(axes.ravel(), slices, labels, strict=False):
        axis.imshow(_small(plane), cmap="gray", vmin=low, vmax=high)
        axis.set_title(label, fontsize=9)
    _save(figure, path)


def _figure(rows: int, columns: int, side: float, **more: Any) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * side, rows * side + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **more)


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as temp:
        figure.savefig(temp, dpi=110, format="png")


def _range(values: Any) -> tuple[float, float]:
    """Grey scale: all but the extremes of what is finite."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, (0.5, 99.7)))
    return (low, high) if high > low else (low, low + 1)


def _small(plane: Array) -> Array:
    step = -(-max(plane.shape) // LARGEST)
    return plane[::step, ::step] if min(plane.shape) > step else plane[:, ::step]
