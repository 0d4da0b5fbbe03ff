"""How many tiles a build would make, by shapes alone."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from firstlight.dataset.prepare import CAMERAS, SONY, grid_of
from firstlight.dataset.rows import Pair, Source
from firstlight.errors import FrameError

__all__ = ["plan"]

RAW = frozenset({".arw", ".dng", ".nef", ".cr2", ".cr3", ".raf"})


def plan(sources: Iterable[Source], pairs: Iterable[Pair] = (), *, profile: str = "physical") -> dict[str, Any]:
    """How many tiles a build would make, by shapes alone: {"tiles": n, "domains": {domain: {data_type: n}}}.

    Exact for the documented profiles; for physical a raw photo counts as Bayer (as X-Trans where named .raf), and axes before
    the last two as images. What is smaller than a tile counts none.
    """
    partners = {path for p in pairs for path in (p.noisy, p.clean)}
    counts: dict[str, Counter[str]] = {}
    with warnings.catch_warnings(action="ignore"):
        for source in sources:
            if profile == "physical" or source.path in partners:
                counts.setdefault(source.domain, Counter())[source.data_type] += _tiles_of(source, profile)
    return {
        "tiles": sum(c.total() for c in counts.values()),
        "domains": {d: dict(sorted(counts[d].items())) for d in sorted(counts)},
    }


def _tiles_of(source: Source, profile: str) -> int:
    suffix, images = Path(source.path).suffix.lower(), 1
    name, factor = CAMERAS.get(suffix, SONY)
    if source.domain != "photography" or suffix not in RAW:
        factor = 1
        if profile == "physical" and source.domain != "photography":
            for n in source.shape[:-2]:
                images *= n
    shape = tuple(n // factor for n in source.shape[-2:])
    try:
        return images * len(grid_of(shape, source.domain, profile, name if source.domain == "photography" else None))
    except FrameError:
        return 0
