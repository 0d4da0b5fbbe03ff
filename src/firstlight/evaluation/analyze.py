"""One image before and after, side by side on a page, with the stars found in both at the same setting."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import measure as mea
from firstlight import outputs
from firstlight.atomic import write_text
from firstlight.errors import FrameError
from firstlight.evaluation.images import Given, Parent, cleaned, goal_of, load, named_model, saved
from firstlight.evaluation.quality import peak_of, quality
from firstlight.evaluation.stars import Stars, background, find, fluxes, grey
from firstlight.frame import Frame
from firstlight.measure.match import match
from firstlight.measure.pictures import data_uri, picture, residual_picture, stretch_of
from firstlight.measure.report import _plain, verdict
from firstlight.noise import Noise

__all__ = ["analyze", "compared", "told", "words"]

Array = NDArray[Any]
SIZE = 900  # px a side of a picture on the page
SHOWN = 2000  # stars drawn
BRIGHTER = 0.01  # change of the mean that is told
SNR = "median star's flux over its sky's scatter; after cleaning neighbours share noise, so that it flatters"
NO_MODEL = (
    "the universal denoiser needs the noise of each pixel, and there is none: {reason}. Say what the detector does "
    "(--detector gain=..,read_noise=..,offset=.., and --unit adu for raw counts in a picture file), or give --model, a "
    "network trained on such pictures"
)


def analyze(
    path: Path, model: str | None, out: Path, *, given: Given, fwhm: float = 3.0, threshold: float = 5.0
) -> dict[str, Any]:
    """Clean an image and write cleaned_NAME, NAME_report.json and NAME.html into the folder `out`; returns the report.

    model: a model file; None: the shipped one, which refuses an image of unknown noise. Stars: DAOStarFinder with `fwhm`
    [px] and `threshold` [sigma of the sky before] on both. Raises FrameError where the image is no plane or colour picture.
    """
    frame = load(Parent(outputs.stem(path), path), given)
    if model is None and not isinstance(frame.noise, Noise):
        raise FrameError(NO_MODEL.format(reason=frame.noise.reason))
    grey(frame)  # said before the work is done
    restored = cleaned(frame, named_model(model), given)
    stem, goal = outputs.stem(path), goal_of(path, out, several=True)
    goal = goal.with_name(f"cleaned_{goal.name}")
    outputs.spare([goal], [path])
    found, both = compared(frame, restored, fwhm=fwhm, threshold=threshold)
    page, note = out / f"{stem}.html", out / f"{stem}_report.json"
    report = {"input": str(path), "cleaned": str(goal), "page": str(page), "report": str(note), **found}
    for doubt in _brightness([found["brightness"][k] for k in ("before", "after")]):
        warnings.warn(f"{path}: {doubt}", stacklevel=2)
    with outputs.placed(goal, out):
        saved(restored, frame, goal)
        write_text(note, json.dumps(report, indent=1, allow_nan=False) + "\n")
        _page(page, path.name, frame, restored, both, report)
    return report


def compared(frame: Frame, restored: Frame, *, fwhm: float, threshold: float) -> tuple[dict[str, Any], tuple[Stars, Stars]]:
    """Figures of a frame and its restoration, for JSON, and the stars found in each.

    change: mae, mse, psnr, ssim between the two: what was done, not how good it is; peak [unit]. brightness: means, and
    change_percent. snr: (median aperture flux of stars found in both) over (an image's sky sigma x sqrt(aperture area)).
    checks: as `measure` gives.
    """
    planes = [np.asarray(grey(f).data) for f in (frame, restored)]
    skies = [background(p) for p in planes]
    level = threshold * skies[0][1]
    stars = [find(p, fwhm=fwhm, threshold=level) for p in planes]
    i, _ = match(stars[0].places, stars[1].places, radius=fwhm)
    x, y = (np.asarray(f.data, dtype=np.float64) for f in (restored, frame))
    peak = peak_of(frame, y)
    means = [float(np.nanmean(v)) for v in (y, x)]
    checks = mea.measure(frame, restored)
    report = {
        "unit": str(frame.unit),
        "change": {**quality(x, y, peak=peak), "peak": peak, "is": "cleaned against input: how much was changed, no quality"},
        "brightness": {
            "before": means[0],
            "after": means[1],
            "change_percent": 100 * (means[1] / means[0] - 1) if means[0] else None,
        },
        "snr": _snr(planes, [s[1] for s in skies], stars[0].places[i], fwhm),
        "stars": {
            "fwhm": fwhm,
            "threshold_sigma": threshold,
            "threshold": level,
            "before": len(stars[0].y),
            "after": len(stars[1].y),
            "both": len(i),
        },
        "sky": [{"median": m, "sigma": s} for m, s in skies],
        "checks": {
            k: checks[k] for k in ("passed", "problems", "reason", "chi2_ratio", "lag1_y", "lag1_x", "bias", "bias_error")
        },
        "doubts": [*checks["doubts"], *_brightness(means)],
    }
    return dict(_plain(report)), (stars[0], stars[1])


def _brightness(means: list[float]) -> list[str]:
    change = means[1] / means[0] - 1 if means[0] else 0.0
    told = f"the mean brightness changed by {100 * change:+.2f} %: this network does not keep light, measure fluxes before it"
    return [told] if abs(change) > BRIGHTER else []


def _snr(planes: list[Array], sigmas: list[float], places: Array, fwhm: float) -> dict[str, Any]:
    """Of the median star found in both: its flux over the scatter of the sky in its aperture, before and after."""
    if not len(places):
        return {"before": None, "after": None, "stars": 0, "is": SNR}
    area = math.pi * (1.6 * fwhm) ** 2
    got = [
        float(np.nanmedian(fluxes(p, places, fwhm=fwhm))) / (s * math.sqrt(area)) for p, s in zip(planes, sigmas, strict=True)
    ]
    return {"before": got[0], "after": got[1], "stars": len(places), "is": SNR}


def _page(path: Path, title: str, frame: Frame, restored: Frame, both: tuple[Stars, Stars], report: Mapping[str, Any]) -> Path:
    """One self-contained page: before and after of one stretch with circles round the stars, the residual, the figures."""
    from importlib.resources import files

    from jinja2 import Environment

    from firstlight import __version__

    stretch = stretch_of(frame)
    i, j = match(both[0].places, both[1].places, radius=report["stars"]["fwhm"])
    shown = [picture(f, stretch=stretch, size=SIZE) for f in (frame, restored)]
    panels = [
        {"name": name, "uri": data_uri(image, lossless=False), "stars": _circles(s, k)}
        for name, image, s, k in zip(("before", "after"), shown, both, (i, j), strict=True)
    ]
    panels.append({"name": "taken off", "uri": data_uri(residual_picture(frame, restored), lossless=False), "stars": []})
    rows, cols = frame.shape[-2:]
    values = {
        "rows": rows,
        "cols": cols,
        "radius": 2.5 * report["stars"]["fwhm"],
        "table": words(report),
        "doubts": report["doubts"],
    }
    text = files("firstlight.evaluation").joinpath("analyze.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
    stretched = f"{stretch.words} {frame.unit}"
    return write_text(path, page.render(title=title, panels=panels, stretch=stretched, version=__version__, **values))


def _circles(stars: Stars, matched: Array) -> list[tuple[float, float, bool]]:
    twin = set(matched.tolist())
    places = [(round(float(x) + 0.5, 1), round(float(y) + 0.5, 1), k in twin) for k, (y, x) in enumerate(stars.places)]
    return places[:SHOWN]


def words(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The report as (name, value) texts."""

    def number(value: float | None, form: str = ".4g", end: str = "") -> str:
        return "-" if value is None else f"{value:{form}}{end}"

    c, b, n, k, s = (report[x] for x in ("change", "brightness", "snr", "checks", "stars"))
    unit = report["unit"]
    return [
        ("stars before / after / in both", f"{s['before']} / {s['after']} / {s['both']}"),
        (
            "detector setting of both",
            f"FWHM {s['fwhm']:g} px, threshold {s['threshold']:.4g} {unit} ({s['threshold_sigma']:g} sigma)",
        ),
        ("mean absolute change (MAE)", number(c["mae"], end=f" {unit}")),
        ("mean squared change (MSE)", number(c["mse"], end=f" {unit}^2")),
        (
            "PSNR against the input",
            number(c["psnr"], ".2f", f" dB, peak {c['peak']:.4g}; tells how much was changed, no quality"),
        ),
        ("SSIM against the input", number(c["ssim"], ".4f")),
        ("SNR of the median star", f"{number(n['before'])} before, {number(n['after'])} after; the latter flatters"),
        ("scatter of the sky", f"{report['sky'][0]['sigma']:.4g} before, {report['sky'][1]['sigma']:.4g} {unit} after"),
        ("brightness", number(b["change_percent"], "+.3f", " %")),
        ("chi-square over its expectation", number(k["chi2_ratio"], ".3f")),
        ("residual's correlation (y, x)", f"{number(k['lag1_y'], '+.3f')}, {number(k['lag1_x'], '+.3f')}"),
        ("self-check", verdict(k)),
    ]


def told(report: Mapping[str, Any]) -> str:
    """The report as text for a terminal."""
    return "\n".join([*(f"{k:33s}{v}" for k, v in words(report)), *(str(report[k]) for k in ("cleaned", "report", "page"))])
