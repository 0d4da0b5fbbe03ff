"""Plots of a judgement, one function a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.atomic import replacing
from firstlight.evaluation.stars import Counts

__all__ = ["checks", "confusion", "counts", "flux_scatter", "histogram", "pr_curve", "prf", "psnr_vs_ssim"]

Array = NDArray[Any]
Curve = Mapping[str, Sequence[Counts]]  # by what was searched, one a threshold
INK = {"restored": "#1d5fbf", "unchanged": "#8a929c", "nonlocal means": "#2c9a5a", "median 3x3": "#c9822b"}


def _axes(columns: int = 1, **more: Any) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * columns, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, **more)


def _save(figure: Any, path: Path) -> Path:
    with replacing(path) as temp:
        figure.savefig(temp, dpi=110, format="png")
    return path


def histogram(path: Path, name: str, values: Mapping[str, Sequence[float]], note: str) -> Path:
    """One figure per parent as a histogram, a colour each of what was judged."""
    figure, axes = _axes()
    finite = {k: [v for v in vs if np.isfinite(v)] for k, vs in values.items()}
    every = [v for vs in finite.values() for v in vs]
    if every:
        edges = np.linspace(min(every), max(every) + 1e-9, 21) if np.ptp(every) > 0 else np.array([-0.5, 0.5]) + every[0]
        for k, vs in finite.items():
            axes.hist(vs, bins=edges, histtype="stepfilled", alpha=0.45, label=f"{k} ({len(vs)})", color=INK.get(k))
        axes.legend(fontsize=8)
    axes.set(xlabel=name, ylabel="images")
    axes.set_title(note, fontsize=8)
    return _save(figure, path)


def psnr_vs_ssim(path: Path, rows: Mapping[str, Sequence[tuple[float, float]]], note: str) -> Path:
    """A point an image: PSNR [dB] along, SSIM up."""
    figure, axes = _axes()
    for name, points in rows.items():
        x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
        axes.scatter(x, y, s=22, label=name, color=INK.get(name))
    axes.legend(fontsize=8)
    axes.set(xlabel="PSNR [dB]", ylabel="SSIM")
    axes.set_title(note, fontsize=8)
    return _save(figure, path)


def checks(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """What needs no truth, a point an image: chi-square over its expectation, lag-1 correlation, flux balance; lines: ideal."""
    figure, panels = _axes(3)
    wanted = (("chi2_ratio", "chi-square / expected", 1.0), ("lag1", "lag-1 correlation of the residual", 0.0))
    for axes, (key, name, line) in zip(panels, (*wanted, ("flux_balance", "light after / before", 1.0)), strict=True):
        axes.axhline(line, color="0.6", lw=1)
        for method, colour in INK.items():
            mine = [(i, r[key]) for i, r in enumerate(r for r in rows if r["method"] == method) if r.get(key) is not None]
            if mine:
                axes.plot(*np.array(mine, dtype=np.float64).T, "o", ms=4, color=colour, label=method)
        if axes.has_data() and axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
        else:
            axes.text(0.5, 0.4, "the noise of the images is unknown", ha="center", transform=axes.transAxes, fontsize=9)
        axes.set(xlabel="image", title=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return _save(figure, path)


def flux_scatter(path: Path, true: Array, measured: Mapping[str, Array], words: tuple[str, str]) -> Path:
    """Fluxes of matched stars: measured against `true`, and their ratio; words: the axes' names."""
    figure, (left, right) = _axes(2)
    for name, flux in measured.items():
        ok = np.isfinite(true) & np.isfinite(flux) & (true > 0)
        left.scatter(true[ok], flux[ok], s=9, alpha=0.6, label=f"{name} ({np.count_nonzero(ok)})", color=INK.get(name))
        right.scatter(true[ok], flux[ok] / true[ok], s=9, alpha=0.6, color=INK.get(name))
    known = true[np.isfinite(true) & (true > 0)]
    if known.size:
        ends = np.array([known.min(), known.max()])
        left.plot(ends, ends, color="0.3", lw=1)
        left.set(xscale="log", yscale="log")
        right.set(xscale="log", ylim=(-0.5, 2.5))
        left.legend(fontsize=8)
    right.axhline(1, color="0.3", lw=1)
    left.set(xlabel=words[0], ylabel=words[1])
    right.set(xlabel=words[0], ylabel="ratio")
    return _save(figure, path)


def confusion(path: Path, found: Mapping[str, Counts], note: str) -> Path:
    """Found and missed against real and not, a table for each image searched; what is neither has no number."""
    figure, panels = _axes(len(found), squeeze=False)
    for axes, (name, c) in zip(panels[0], found.items(), strict=True):
        cells = np.array([[c.tp, c.fn], [c.fp, np.nan]])
        axes.imshow(np.nan_to_num(cells), cmap="Blues", vmin=0, vmax=max(1, c.tp, c.fn, c.fp) * 1.6)
        for (i, j), value in np.ndenumerate(cells):
            axes.text(j, i, "not defined" if np.isnan(value) else f"{value:.0f}", ha="center", va="center", fontsize=13)
        axes.set(xticks=[0, 1], yticks=[0, 1], title=name)
        axes.set_xticklabels(["detected", "not detected"])
        axes.set_yticklabels(["star", "no star"], rotation=90, va="center")
    figure.supxlabel(note, fontsize=8)
    return _save(figure, path)


def pr_curve(path: Path, thresholds: Sequence[float], curves: Curve, note: str) -> Path:
    """Precision against recall, the thresholds beside their points."""
    figure, axes = _axes()
    for name, row in curves.items():
        axes.plot([c.recall for c in row], [c.precision for c in row], "o-", ms=4, label=name, color=INK.get(name))
    first = next(iter(curves.values()))
    for t, c in zip(thresholds, first, strict=True):
        if np.isfinite(c.recall + c.precision):
            axes.annotate(f"{t:g}", (c.recall, c.precision), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.legend(fontsize=8)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.03), ylim=(0, 1.03))
    axes.set_title(note, fontsize=8)
    return _save(figure, path)


def prf(path: Path, thresholds: Sequence[float], curves: Curve, note: str) -> Path:
    """Precision, recall and F1 against the threshold, a panel for each image searched."""
    figure, panels = _axes(len(curves), squeeze=False, sharey=True)
    for axes, (name, row) in zip(panels[0], curves.items(), strict=True):
        for key, style in (("precision", "o-"), ("recall", "s-"), ("f1", "^-")):
            axes.plot(thresholds, [getattr(c, key) for c in row], style, ms=4, label=key)
        axes.set(xlabel="threshold [sigma of the sky before]", title=name, ylim=(0, 1.03))
        axes.legend(fontsize=8)
    figure.supxlabel(note, fontsize=8)
    return _save(figure, path)


def counts(path: Path, thresholds: Sequence[float], curves: Curve, note: str) -> Path:
    """True and false positives and false negatives against the threshold, a panel for each image searched."""
    figure, panels = _axes(len(curves), squeeze=False, sharey=True)
    for axes, (name, row) in zip(panels[0], curves.items(), strict=True):
        for key, style in (("tp", "o-"), ("fp", "s-"), ("fn", "^-")):
            axes.plot(thresholds, [getattr(c, key) for c in row], style, ms=4, label=key.upper())
        axes.set(xlabel="threshold [sigma of the sky before]", title=name, yscale="symlog")
        axes.legend(fontsize=8)
    panels[0][0].set_ylabel("number")
    figure.supxlabel(note, fontsize=8)
    return _save(figure, path)
