"""Learning to denoise: one loop, objectives as short functions, batches, validation without truth. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_NAMES = {
    "learn_demosaic": "demosaic",
    "Learning": "options",
    "METHODS": "objectives",
    "Batch": "batches",
    "Batches": "batches",
    "Budget": "budget",
    "Fitted": "loop",
    "Options": "options",
    "Plane": "batches",
    "Planes": "batches",
    "budget": "budget",
    "changed": "options",
    "finetune": "adapt",
    "fit": "loop",
    "frames": "sources",
    "r2r_risk": "validation",
    "tile_set": "sources",
    "told": "job",
    "train": "job",
}

__all__ = [
    "METHODS",
    "Batch",
    "Batches",
    "Budget",
    "Fitted",
    "Learning",
    "Options",
    "Plane",
    "Planes",
    "budget",
    "changed",
    "finetune",
    "fit",
    "frames",
    "learn_demosaic",
    "r2r_risk",
    "tile_set",
    "told",
    "train",
]

if TYPE_CHECKING:
    from firstlight.train.adapt import finetune
    from firstlight.train.batches import Batch, Batches, Plane, Planes
    from firstlight.train.budget import Budget
    from firstlight.train.demosaic import learn_demosaic
    from firstlight.train.job import told, train
    from firstlight.train.loop import Fitted, fit
    from firstlight.train.objectives import METHODS
    from firstlight.train.options import Learning, Options, changed
    from firstlight.train.sources import frames, tile_set
    from firstlight.train.validation import r2r_risk
else:

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(import_module(f"firstlight.train.{_NAMES[name]}"), name)
        raise AttributeError(f"module 'firstlight.train' has no attribute {name!r}")


# A function named like its file: bound here for good, or the first import of the file would put the module in its place.
from firstlight.train.budget import budget as budget  # noqa: E402
