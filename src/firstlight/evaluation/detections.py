"""Thresholds swept: how many stars are found and how many of those are real, on the image as it is and as restored."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import outputs
from firstlight.atomic import write_text
from firstlight.errors import FirstlightError, FrameError
from firstlight.evaluation import figures
from firstlight.evaluation.evaluate import plain, table
from firstlight.evaluation.field import counted, field, known_by, total
from firstlight.evaluation.images import Given, Parent, load
from firstlight.evaluation.stars import Counts
from firstlight.model_file import Model

__all__ = ["COLUMNS", "detections"]

Tick = Callable[[int, int, str], None]
COLUMNS = ("image", "threshold", "tp", "fp", "fn", "precision", "recall", "f1")


def detections(
    many: Sequence[Parent],
    model: Model,
    out: Path,
    *,
    given: Given,
    thresholds: Sequence[float],
    listed: Path | None = None,
    fwhm: float = 3.0,
    seed: int = 0,
    tick: Tick = lambda done, total, what: None,
) -> dict[str, Any]:
    """Counts at each threshold [sigma of the input's sky] of stars `fwhm` [px] wide; tables and plots into the folder `out`.

    Truth as in `field`. An image that fails is warned of and left out; where all do, the last error is raised.
    """
    if listed is not None and len(many) > 1:
        raise FrameError(f"--catalogue {listed}: is of one image, there are {len(many)}; take them one by one")
    outputs.folder(out)
    rng, each = np.random.default_rng(seed), []
    for i, parent in enumerate(many):
        tick(i, len(many), parent.id)
        try:
            f = field(load(parent, given), model, given, fwhm=fwhm, rng=rng, listed=listed)
            each.append([counted(f, t, fwhm) for t in thresholds])
        except FirstlightError as error:
            if i + 1 == len(many) and not each:
                raise
            warnings.warn(f"{parent.path}: left out: {error}", stacklevel=2)
    sums = [total([c[k] for c in each]) for k in range(len(thresholds))]
    curves = {name: [s[name] for s in sums] for name in sums[0]}
    return _written(out, thresholds, curves, known_by(given, listed), fwhm, len(each))


def _written(
    out: Path, thresholds: Sequence[float], curves: figures.Curve, known: str, fwhm: float, images: int
) -> dict[str, Any]:
    rows = [{"image": k, "threshold": t, **plain(c)} for k, row in curves.items() for t, c in zip(thresholds, row, strict=True)]
    best = {k: _best(thresholds, row) for k, row in curves.items()}
    text = [f"DAOStarFinder, FWHM {fwhm:g} px, {images} images; thresholds in sigma of the input's sky", known, ""]
    text += [_words(k, v) for k, v in best.items()]
    note = known.partition(";")[0]
    files = [
        table(out / "detection_threshold_sweep.csv", COLUMNS, rows),
        figures.pr_curve(out / "pr_curve.png", thresholds, curves, note),
        figures.prf(out / "prf_vs_threshold.png", thresholds, curves, note),
        figures.counts(out / "detection_counts_vs_threshold.png", thresholds, curves, note),
        write_text(out / "summary_metrics.txt", "\n".join(text) + "\n"),
    ]
    told = {k: None if v is None else {"threshold": v[0], **plain(v[1])} for k, v in best.items()}
    return {"known_by": known, "rows": rows, "best": told, "files": [str(f) for f in files]}


def _best(thresholds: Sequence[float], row: Sequence[Counts]) -> tuple[float, Counts] | None:
    """The threshold of the highest F1, the lowest such; None where F1 is defined nowhere."""
    scored = [(c.f1, -t, c) for t, c in zip(thresholds, row, strict=True) if np.isfinite(c.f1)]
    if not scored:
        return None
    _, t, c = max(scored, key=lambda s: s[:2])
    return -t, c


def _words(name: str, best: tuple[float, Counts] | None) -> str:
    if best is None:
        return f"{name:12s} no star was there or found at any threshold"
    t, c = best
    return (
        f"{name:12s} best F1 {c.f1:.3f} at threshold {t:g}: precision {c.precision:.3f}, recall {c.recall:.3f}, "
        f"TP {c.tp}, FP {c.fp}, FN {c.fn}"
    )
