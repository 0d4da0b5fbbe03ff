"""Whole images by parent or path, and pairs of patches before and after."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import intake, outputs
from firstlight.dataset.manifest import Patch, patch_frame, read_patches
from firstlight.errors import FrameError
from firstlight.evaluation.images import Given, Parent, cleaned, goal_of, load, png, saved
from firstlight.measure.pictures import picture, stretch_of
from firstlight.measure.residual import residual
from firstlight.model_file import Model

__all__ = ["preview", "whole"]

Tick = Callable[[int, int, str], None]


def whole(parent: Parent, model: Model, out: Path, *, given: Given, to: str | None = None) -> dict[str, Any]:
    """Restore one whole image into `out`, a file or folder, in its own format (a JPEG as PNG); returns a row as `restore`'s.

    The self-check is in the row and in the last line of history; one that fails is a warning.
    """
    goal = goal_of(parent.path, out, to)
    outputs.spare([goal], [parent.path])
    frame = load(parent, given)
    restored = cleaned(frame, model, given)
    check = residual(frame, restored)
    if check.problems:
        warnings.warn(f"{parent.path}: the self-check failed: {'; '.join(check.problems)}", stacklevel=2)
    last = restored.history[-1]
    told = replace(last, params={**last.params, "check": check.line()})
    with outputs.placed(goal, out):
        saved(restored.replace(history=(*restored.history[:-1], told)), frame, goal)
    unit, line = str(frame.unit), check.line()
    row = {
        "input": str(parent.path),
        "output": str(goal),
        "unit": unit,
        "check": {"line": line, "problems": list(check.problems)},
    }
    return row | {"summary": f"[{unit}] {' x '.join(str(n) for n in frame.shape)}\n  self-check {line}"}


def preview(
    patches: Path,
    model: Model,
    out: Path,
    *,
    given: Given,
    n: int = 10,
    split: str = "test",
    tick: Tick = lambda done, total, what: None,
) -> list[dict[str, Any]]:
    """n patches of a split, evenly over the list, as in_ID.png and out_ID.png of one stretch, in the folder `out`.

    Raises FrameError for a split without patches.
    """
    rows = read_patches(patches)
    rows = [r for r in rows if r.split == split] if any(r.split for r in rows) else rows
    if not rows or n < 1:
        raise FrameError(f"{patches}: {len(rows)} patches in split {split!r}, {n} wanted; expected one at least of each")
    outputs.folder(out)
    picked = [rows[int(i)] for i in np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))]
    done = []
    for i, row in enumerate(picked):
        tick(i, len(picked), row.patch_id)
        done.append(_pair(row, model, out, given))
    return done


def _pair(row: Patch, model: Model, out: Path, given: Given) -> dict[str, Any]:
    frame = intake.complete(patch_frame(row), detector=given.detector, unit=given.unit).frame
    after = cleaned(frame, model, replace(given, assume_white=True))  # a patch is too small to tell
    stretch = stretch_of(frame)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in row.patch_id)
    pair = [
        png(out / f"{k}_{name}.png", picture(f, stretch=stretch, size=max(f.shape))) for k, f in (("in", frame), ("out", after))
    ]
    change = float(np.nanmean(np.abs(np.asarray(after.data, dtype=np.float64) - np.asarray(frame.data, dtype=np.float64))))
    return {
        "patch": row.patch_id,
        "parent": row.parent_id,
        "in": str(pair[0]),
        "out": str(pair[1]),
        "mae": change,
        "unit": str(frame.unit),
    }
