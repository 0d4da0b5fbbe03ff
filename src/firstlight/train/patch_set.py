"""The patches of a patches_splits.csv as planes to learn from."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from firstlight import intake
from firstlight.dataset.manifest import Patch, patch_frame, read_patches, scalings
from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.noise import Noise
from firstlight.train.batches import Plane, Planes
from firstlight.train.sources import stabilised

__all__ = ["chosen", "known", "planes", "several"]


def chosen(path: Path, split: str, *, detector: str | None = None, colour: bool = False) -> list[Patch]:
    """The patches of a split. Raises FrameError where there are none, or they are not what detector and colour need."""
    every = read_patches(path)
    found = [p for p in every if p.split == split]
    if not found:
        said = ", ".join(sorted({p.split for p in every} - {""})) or "no split"
        raise FrameError(f"{path}: no patch in split {split!r}, it has {said}; split the images with `firstlight split`")
    if colour and len({p.channels for p in found}) > 1:
        raise FrameError(f"{path}: patches of {sorted({p.channels for p in found})} channels, colour needs one number of them")
    if detector is not None and any(scalings(p)[1] for p in found):
        raise FrameError(f"{path}: its patches were clipped, no detector describes them; cut them with profile physical")
    return found


def known(patches: list[Patch], detector: str | None) -> bool:
    """True where the noise of every patch is: the user's, or its row's, and not clipped."""
    return detector is not None or all("a" in json.loads(p.noise or "{}") and not scalings(p)[1] for p in patches)


def several(patches: list[Patch], count: int, detector: str | None, unit: str | None) -> list[Frame]:
    """`count` patches, spread evenly, as frames with their noise completed; see `intake.complete`."""
    return [_frame(patches[i], detector, unit) for i in np.unique(np.linspace(0, len(patches) - 1, count).astype(int))]


def planes(
    patches: list[Patch], measured: Callable[[Frame], Frame], *, detector: str | None, unit: str | None, colour: bool
) -> Planes:
    """Each patch stabilised when asked for, all channels in one plane; `measured` gives noise to a frame without."""
    return Planes([partial(_plane, p, measured, detector, unit, colour) for p in patches])


def _plane(patch: Patch, measured: Callable[[Frame], Frame], detector: str | None, unit: str | None, colour: bool) -> Plane:
    frame = _frame(patch, detector, unit)
    frame = frame if isinstance(frame.noise, Noise) else measured(frame)
    return stabilised(frame, colour=colour or frame.axes == "CYX")[0]


def _frame(patch: Patch, detector: str | None, unit: str | None) -> Frame:
    return intake.complete(patch_frame(patch), detector=detector, unit=unit).frame
