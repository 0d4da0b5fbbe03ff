"""Figures of a frame, its restoration and the truth: as plain values for JSON, as a text table, as one HTML page."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from firstlight.atomic import write_text
from firstlight.frame import Frame
from firstlight.measure.doubts import flat_noise, plausibility
from firstlight.measure.fidelity import fidelity
from firstlight.measure.residual import residual
from firstlight.noise import Noise

__all__ = ["Entry", "html", "measure", "table"]

Figures = dict[str, Any]
ALONE = "there is no restored image to compare with"


class Entry(NamedTuple):
    """One piece of a report: noisy and restored frames, their figures (measured if None), the truth where it is known."""

    title: str
    frame: Frame
    restored: Frame
    figures: Figures | None = None
    truth: Frame | None = None
    note: str = ""


def measure(
    frame: Frame,
    restored: Frame | None = None,
    truth: Frame | None = None,
    *,
    bins: int = 8,
    edge: int = 0,
    peak: float | None = None,
) -> Figures:
    """Every figure that the arguments allow, as plain Python values for JSON; None where it cannot be had, `reason` says why.

    Keys: unit, chi2, chi2_error, chi2_expected, chi2_ratio, chi2_by_signal, has_std, passed, reason, lag1, lag1_y, lag1_x,
    bias, bias_error, flux, flux_error, n, excluded, doubts; with `truth` also psnr [dB], ssim, peak [unit], peak_source, and psnr, ssim, peak
    under `unchanged` and `median3`. Without `restored`, lag1 is that of the frame's own noise, and psnr that of the frame.
    Raises FrameError where the frames do not match.
    """
    figures: Figures = {"unit": str(frame.unit)}
    figures |= _alone(frame) if restored is None else _residual(frame, restored, bins, edge)
    figures["doubts"] = plausibility(frame)
    if truth is not None:
        rows = fidelity(frame, restored or frame, truth, peak=peak, edge=edge)
        figures |= {**rows["restored"], "peak": rows["peak"], "peak_source": rows["peak_source"]}
        figures |= {name: {**rows[name], "peak": rows["peak"]} for name in ("unchanged", "median3")}
    return dict(_plain(figures))


def _residual(frame: Frame, restored: Frame, bins: int, edge: int) -> Figures:
    found = residual(frame, restored, bins=bins, edge=edge).to_dict()
    return {
        **{k: found[k] for k in ("chi2", "chi2_error", "chi2_expected")},
        "chi2_ratio": found["ratio"],
        "chi2_by_signal": found["by_signal"],
        **{k: found[k] for k in ("has_std", "passed", "reason", "lag1", "lag1_y", "lag1_x")},
        **{k: found[k] for k in ("bias", "bias_error", "flux", "flux_error", "n", "excluded")},
    }


def _alone(frame: Frame) -> Figures:
    keys = ("chi2", "chi2_error", "chi2_expected", "chi2_ratio", "flux", "flux_error")
    noise = flat_noise(frame)
    return {
        **dict.fromkeys(keys),
        "chi2_by_signal": [],
        "has_std": False,
        "passed": None,
        "reason": ALONE,
        "lag1": None if noise is None else (noise.lag_y + noise.lag_x) / 2,
        "lag1_y": None if noise is None else noise.lag_y,
        "lag1_x": None if noise is None else noise.lag_x,
        **dict.fromkeys(("bias", "bias_error", "n", "excluded")),
    }


def _plain(value: Any) -> Any:
    """Python numbers only; None for what JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def figure(value: Any, digits: int = 4) -> str:
    """A number as text, a dash for None."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def verdict(figures: Mapping[str, Any]) -> str:
    """good, failed, or not judged with the reason."""
    if figures["passed"] is None:
        return f"not judged: {figures['reason']}"
    return "good" if figures["passed"] else "failed"


def _rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, what it should be) of the figures that need no truth."""
    spread = f" ± {figure(figures['chi2_error'], 2)}" if figures["chi2_error"] is not None else ""
    expected = figure(figures["chi2_expected"]) + ("" if figures["has_std"] else ", an upper bound: there is no std")
    wanted = "0.9 to 1.1" if figures["has_std"] else "at most 1.1"
    bias = f"{figure(figures['bias'])} ± {figure(figures['bias_error'], 2)} {figures['unit']}"
    rows = [("lag-1 correlation (y, x)", f"{_lag(figures['lag1_y'])}, {_lag(figures['lag1_x'])}", "0")]
    if figures["chi2"] is not None:
        chi2 = ("chi-square of the residual", figure(figures["chi2"]) + spread, expected)
        rows = [chi2, ("over its expectation", figure(figures["chi2_ratio"]), wanted), *rows]
    return rows if figures["bias"] is None else [*rows, ("bias, noisy - restored", bias, "0")]


def _lag(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _quality(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(row, PSNR, SSIM), best PSNR not sorted: restored, unchanged, median 3x3."""
    if "peak" not in figures:
        return []
    rows = (("restored", figures), ("unchanged", figures["unchanged"]), ("median 3x3", figures["median3"]))
    return [(name, _fixed(row["psnr"], 2), _fixed(row["ssim"], 4)) for name, row in rows]


def _fixed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def table(figures: Mapping[str, Any], *, title: str = "") -> Any:
    """A rich renderable of what `measure` returned: print it with rich.print or a rich Console."""
    from rich.console import Group
    from rich.table import Table

    main = Table("figure", "value", "expected", title=title or None, title_justify="left")
    for row in _rows(figures):
        main.add_row(*row)
    main.add_row("verdict", verdict(figures), "good")
    parts: list[Any] = [main]
    if figures["chi2_by_signal"]:
        bins = Table(f"signal [{figures['unit']}]", "pixels", "chi2", "expected", "ratio", "bias")
        for b in figures["chi2_by_signal"]:
            parts_of = (b["chi2"], b["expected"], b["ratio"], b["bias"])
            bins.add_row(f"{figure(b['low'])} .. {figure(b['high'])}", str(b["n"]), *(figure(v, 3) for v in parts_of))
        parts.append(bins)
    if "peak" in figures:
        quality = Table(f"peak {figure(figures['peak'])} {figures['unit']}", "PSNR [dB]", "SSIM")
        for row in _quality(figures):
            quality.add_row(*row)
        parts.append(quality)
    parts += [f"doubt: {doubt}" for doubt in figures["doubts"]]
    return Group(*parts)


def html(entries: Iterable[Entry], path: str | os.PathLike[str], *, title: str = "firstlight report") -> Path:
    """Write one self-contained page: per entry the pictures before, after and residual, figures, noise, verdict, history.

    Everything is inside the file. It appears whole or not at all. Raises WriteError where it cannot be written.
    """
    from importlib.resources import files

    from jinja2 import Environment

    from firstlight import __version__
    from firstlight.measure.page import context

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("firstlight.measure").joinpath("page.html").read_text(encoding="utf-8"))
    shown = []
    for entry in entries:
        figures = entry.figures or measure(entry.frame, entry.restored, entry.truth)
        words = {
            "rows": _rows(figures),
            "quality": _quality(figures),
            "verdict": verdict(figures),
            "noise": _noise(entry.frame),
        }
        shown.append(
            {**context(entry.frame, entry.restored, entry.truth, figures), **words, "title": entry.title, "note": entry.note}
        )
    return write_text(Path(path), template.render(title=title, entries=shown, version=__version__))


def _noise(frame: Frame) -> list[tuple[str, str]]:
    o, rows = frame.observation, []
    if isinstance(frame.noise, Noise):
        gain = 1 / np.asarray(frame.noise.a, dtype=np.float64) if np.all(np.asarray(frame.noise.a) != 0) else np.nan
        rows += [
            (f"quanta per {frame.unit} (1/a)", _range(gain)),
            (f"read noise [{frame.unit} RMS]", _range(np.sqrt(frame.noise.b))),
        ]
        rows += [(f"offset [{frame.unit}]", _range(frame.noise.offset))]
        if np.any(np.asarray(frame.noise.c) > 0) or np.any(np.asarray(frame.noise.d) > 0):
            rows += [
                ("shared by the master flat (c)", _range(frame.noise.c)),
                ("shared by bias and dark (d)", _range(frame.noise.d)),
            ]
    else:
        rows += [("noise", f"not modelled: {frame.noise.reason}")]
    facts = (("instrument", o.instrument), ("setting", o.setting), ("band", o.band), ("time", o.time), ("source", o.source))
    rows += [(name, str(value)) for name, value in facts if value]
    return rows if o.exposure is None else [*rows, ("exposure [s]", f"{o.exposure:g}")]


def _range(value: Any) -> str:
    low, high = float(np.min(value)), float(np.max(value))
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g} (map)"
