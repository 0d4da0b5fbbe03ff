"""A network judged on whole images: against clean targets, by checks that need none, and by the stars that are found."""

from __future__ import annotations

import csv
import io as memory
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import measure as mea
from firstlight import outputs
from firstlight.atomic import write_text
from firstlight.errors import FirstlightError, FrameError
from firstlight.evaluation import figures
from firstlight.evaluation.field import Field, counted, field, fluxes_of, known_by, total
from firstlight.evaluation.images import Given, Parent, cleaned, load
from firstlight.evaluation.quality import METRICS, quality, reference, truth_of
from firstlight.evaluation.stars import Counts
from firstlight.frame import Frame
from firstlight.measure.report import _plain
from firstlight.measure.white import with_white_noise
from firstlight.model_file import Model
from firstlight.noise import Noise, Unmodelled
from firstlight.restore.means import nonlocal_means

__all__ = ["COLUMNS", "evaluate", "plain", "table", "told"]

Array = NDArray[Any]
Tick = Callable[[int, int, str], None]
CHECKS = ("chi2_ratio", "lag1", "bias", "bias_error", "flux_balance", "passed")
COLUMNS = ("parent_id", "method", *METRICS, "peak", "unit", "reference", *CHECKS)
AGAINST_INPUT = (
    "profile documented: PSNR, SSIM, MSE and MAE are taken against the noisy input, in its percentile-scaled units clipped to "
    "0..1; an image that is not touched scores best, so they say nothing about quality"
)


def evaluate(
    many: Sequence[Parent],
    model: Model,
    out: Path,
    *,
    given: Given,
    truth: Path | None = None,
    listed: Path | None = None,
    fwhm: float = 3.0,
    threshold: float = 3.0,
    seed: int = 0,
    tick: Tick = lambda done, total, what: None,
) -> dict[str, Any]:
    """Judge a model on images; writes tables and plots into the folder `out` and returns them as plain values.

    truth: a clean image, or a folder of them named as the parents; without one, profile documented takes the noisy input, with
    a warning, and the physical profile gives no PSNR but checks: chi-square over its expectation, lag-1 correlation of what was
    taken off, bias and flux balance. Stars as `field`, with `fwhm` [px] and `threshold` [sigma of the input's sky]. An image
    that fails is warned of and left out; where all do, the last error is raised.
    """
    if given.profile == "documented" and truth is None:
        warnings.warn(AGAINST_INPUT, UserWarning, stacklevel=2)
    if listed is not None and len(many) > 1:
        raise FrameError(f"--catalogue {listed}: is of one image, there are {len(many)}; evaluate them one by one")
    outputs.folder(out)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    fields: list[Field] = []
    for i, parent in enumerate(many):
        tick(i, len(many), parent.id)
        try:
            frame = load(parent, given)
            restored = cleaned(frame, model, given)
            rows += _rows(parent, frame, restored, truth_of(parent, truth), given)
        except FirstlightError as error:
            if len(many) == 1 or (i + 1 == len(many) and not rows):
                raise
            warnings.warn(f"{parent.path}: left out: {error}", stacklevel=2)
            continue
        try:
            fields.append(field(frame, model, given, fwhm=fwhm, rng=rng, listed=listed, restored=restored))
        except FirstlightError as error:
            warnings.warn(f"{parent.path}: no stars counted: {error}", stacklevel=2)
    files = [table(out / "per_parent_metrics.csv", COLUMNS, rows), *_plots(out, rows)]
    found, words = _stars(out, fields, known_by(given, listed), fwhm, threshold)
    return {"rows": _plain(rows), "detection": found, "files": [str(f) for f in files + words]}


def table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as CSV: numbers to six digits, "nan" for what is no number, nothing for None."""
    text = memory.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = (row.get(c) for c in columns)
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else "" if v is None else v for v in values])
    return write_text(path, text.getvalue())


def _rows(parent: Parent, frame: Frame, restored: Frame, clean: Path | None, given: Given) -> list[dict[str, Any]]:
    """A row for each of: the network, nothing, non-local means, a 3 x 3 median."""
    noisy = np.asarray(frame.data, dtype=np.float64)
    known = frame if isinstance(frame.noise, Noise) else with_white_noise(frame)
    methods = {
        "restored": restored,
        "unchanged": frame.replace(data=noisy, std=None),
        "nonlocal means": nonlocal_means(known, std=False),
        "median 3x3": frame.replace(data=mea.median3(frame), std=None),
    }
    target, source, peak, scaled = reference(frame, clean, given)
    rows = []
    for name, image in methods.items():
        x = np.asarray(image.data, dtype=np.float64)
        figures_ = dict.fromkeys(METRICS, float("nan")) if target is None else quality(scaled(x), target, peak=peak)
        shown = {"peak": None if target is None else peak, "unit": str(frame.unit), "reference": source}
        checks = _checks(frame, image) if name != "unchanged" else dict.fromkeys(CHECKS)
        rows.append({"parent_id": parent.id, "method": name, **figures_, **shown, **checks})
    return rows


def _checks(frame: Frame, image: Frame) -> dict[str, Any]:
    found = mea.measure(frame, image)
    offset = 0.0 if isinstance(frame.noise, Unmodelled) else float(np.mean(np.asarray(frame.noise.offset)))
    before, after = (np.asarray(f.data, dtype=np.float64) - offset for f in (frame, image))
    good = np.isfinite(before) & np.isfinite(after)
    light = float(before[good].sum())
    return {k: found[k] for k in CHECKS if k in found} | {"flux_balance": float(after[good].sum()) / light if light else None}


def _plots(out: Path, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Histograms where there is something to compare with; the checks always."""
    made = [figures.checks(out / "checks.png", rows)]
    used = [r for r in rows if r["reference"] != "none"]
    if not used:
        return made
    said = {"reference": {str(r["reference"]) for r in used}, "peak": {f"{r['peak']:.4g}" for r in used}}
    note = "; ".join(f"{k} {', '.join(sorted(v)[:3])}" for k, v in said.items())
    names = list(dict.fromkeys(r["method"] for r in used))
    for key, label in (("psnr", "PSNR [dB]"), ("ssim", "SSIM")):
        values = {n: [float(r[key]) for r in used if r["method"] == n] for n in names}
        made.append(figures.histogram(out / f"{key}_hist.png", label, values, note))
    points = {n: [(float(r["psnr"]), float(r["ssim"])) for r in used if r["method"] == n] for n in names}
    finite = {n: [p for p in ps if np.isfinite(p).all()] for n, ps in points.items()}
    return [*made, figures.psnr_vs_ssim(out / "psnr_vs_ssim.png", finite, note)]


def _stars(
    out: Path, fields: Sequence[Field], known: str, fwhm: float, threshold: float
) -> tuple[dict[str, Any] | None, list[Path]]:
    if not fields:
        return None, []
    found = total([counted(f, threshold, fwhm) for f in fields])
    parts = [fluxes_of(f, threshold, fwhm) for f in fields]
    true = np.concatenate([p[0] for p in parts])
    measured = {k: np.concatenate([p[1][k] for p in parts]) for k in parts[0][1]}
    words = ("true flux", "aperture flux") if fields[0].mirrored else ("flux on the input", "flux on the restored image")
    text = [
        f"DAOStarFinder, FWHM {fwhm:g} px, threshold {threshold:g} sigma of the input's sky, {len(fields)} images",
        known,
        "",
    ]
    text += [_line(k, c) for k, c in found.items()] + [""] + [_flux_line(k, v, true) for k, v in measured.items()]
    made = [
        figures.flux_scatter(out / "flux_scatter.png", true, measured, words),
        figures.confusion(out / "detection_confusion.png", found, known),
        write_text(out / "detection_summary.txt", "\n".join(text) + "\n"),
    ]
    return {"known_by": known, **{k: plain(c) for k, c in found.items()}}, made


def plain(c: Counts) -> dict[str, Any]:
    """Counts with precision, recall and F1 as plain values; None where one is not defined."""
    ratios = {k: float(getattr(c, k)) for k in ("precision", "recall", "f1")}
    return {"tp": c.tp, "fp": c.fp, "fn": c.fn, **{k: v if np.isfinite(v) else None for k, v in ratios.items()}}


def _line(name: str, c: Counts) -> str:
    return f"{name:15s} precision {c.precision:.3f}  recall {c.recall:.3f}  F1 {c.f1:.3f}  TP {c.tp}  FP {c.fp}  FN {c.fn}"


def _flux_line(name: str, flux: Array, true: Array) -> str:
    ok = np.isfinite(flux) & np.isfinite(true) & (true > 0)
    if np.count_nonzero(ok) < 3:
        return f"{name:15s} flux ratio not measured: {np.count_nonzero(ok)} stars"
    ratio = flux[ok] / true[ok]
    bright = ratio[true[ok] >= np.median(true[ok])]
    spread = 1.4826 * float(np.median(np.abs(bright - np.median(bright))))
    linked = float(np.corrcoef(flux[ok], true[ok])[0, 1])
    return f"{name:15s} flux ratio of the brighter half {np.median(bright):.3f}, scatter {spread:.3f}; correlation {linked:.4f}"


def told(row: Mapping[str, Any]) -> str:
    """An evaluation as text for a terminal: medians over the images, stars, files."""
    out = []
    for name in dict.fromkeys(r["method"] for r in row["rows"]):
        mine = [r for r in row["rows"] if r["method"] == name]
        said = [
            f"{k} {_median(mine, k):.4g}"
            for k in (*METRICS, "chi2_ratio", "lag1", "flux_balance")
            if np.isfinite(_median(mine, k))
        ]
        out.append(f"{name:15s} {len(mine)} images, medians: {', '.join(said) or 'nothing to compare with'}")
    if row["detection"]:
        out += [row["detection"]["known_by"]]
        out += [_line(k, Counts(v["tp"], v["fp"], v["fn"])) for k, v in row["detection"].items() if k != "known_by"]
    return "\n".join([*out, *row["files"]])


def _median(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    values = [float(r[key]) for r in rows if r.get(key) is not None and np.isfinite(r[key])]
    return float(np.median(values)) if values else float("nan")
