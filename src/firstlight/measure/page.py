"""What the HTML page shows of one entry: pictures as data URIs, the chi-square plot's coordinates, history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstlight.box import Box
from firstlight.frame import Frame
from firstlight.measure.pictures import PULL, Stretch, data_uri, detail_box, picture, residual_picture, stretch_of
from firstlight.noise import Unmodelled

__all__ = ["context"]

SIZE = 640  # px a side of the overviews
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 460, 230, 40, 12, 30  # px of the plot


def context(frame: Frame, restored: Frame, truth: Frame | None, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The template's values for one entry; before, after and truth share one stretch."""
    stretch = stretch_of(restored, frame)
    box = detail_box(restored, stretch=stretch)
    lead = len(frame.shape) - 2
    at = tuple(n // 2 for n in frame.shape[:lead])
    middle = Box((*_first(frame, at), *box.start), (*_last(frame, at), *box.stop))
    close = None if truth is None else truth.crop(middle)
    block = max(1, round(max(frame.shape[-2:]) / 160))  # residual: as coarse as the detail beside it
    whole = _panels(frame, restored, truth, stretch, block=block)
    detail = _panels(frame.crop(middle), restored.crop(middle), close, stretch, block=1)
    y, x, top, left = (box.shape[0], box.shape[1], box.start[0], box.start[1])
    return {
        "panels": whole,
        "block": block,
        "detail": detail,
        "detail_words": f"{y} x {x} px from row {top}, column {left}",
        "stretch": f"{stretch.words} {frame.unit}",
        "pull": f"{PULL:g}",
        "normalised": not isinstance(frame.noise, Unmodelled),
        "shape": f"{' x '.join(str(n) for n in frame.shape)} {frame.axes}, {frame.unit}",
        "plot": _plot(figures["chi2_by_signal"]),
        "has_std": figures["has_std"],
        "doubts": figures["doubts"],
        "excluded": figures["excluded"],
        "n": figures["n"],
        "peak": figures.get("peak"),
        "peak_source": figures.get("peak_source"),
        "unit": str(frame.unit),
        "passed": figures["passed"],
        "gain": _gain(figures),
        "ratio": figures["chi2_ratio"],
        "history": [(r.step, ", ".join(f"{k} = {v}" for k, v in r.params.items())) for r in restored.history],
    }


def _first(frame: Frame, at: tuple[int, ...]) -> tuple[int, ...]:
    # channels stay together, they are shown as colours
    return tuple(0 if axis == "C" else i for axis, i in zip(frame.axes, at, strict=False))


def _last(frame: Frame, at: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n if axis == "C" else i + 1 for axis, i, n in zip(frame.axes, at, frame.shape, strict=False))


def _panels(frame: Frame, restored: Frame, truth: Frame | None, stretch: Stretch, *, block: int) -> list[tuple[str, str]]:
    named = [("before", frame), ("after", restored), *([] if truth is None else [("truth", truth)])]
    shown = [(name, picture(f, stretch=stretch, size=SIZE)) for name, f in named]
    shown.append(("residual", residual_picture(frame, restored, block=block)))
    return [(name, data_uri(image, lossless=block == 1)) for name, image in shown]


def _gain(figures: Mapping[str, Any]) -> float | None:
    after, before = figures.get("psnr"), figures.get("unchanged", {}).get("psnr")
    return None if after is None or before is None else float(after - before)


def _plot(bins: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Points of chi-square per signal bin, its expectation and the band of +- 10 % about it, in pixels."""
    if not bins or any(b["chi2"] is None for b in bins):
        return None
    top = max(1.25, *(1.1 * b["chi2"] for b in bins), *(1.2 * b["expected"] for b in bins))
    slot = (WIDTH - LEFT - 8) / len(bins)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - max(value, 0.0) / float(top)), 1)

    marks = [
        {
            "x": round(LEFT + (i + 0.5) * slot, 1),
            "left": round(LEFT + i * slot, 1),
            "right": round(LEFT + (i + 1) * slot, 1),
            "y": y(b["chi2"]),
            "expected": y(b["expected"]),
            "band": (y(1.1 * b["expected"]), y(0.9 * b["expected"])),
            "label": f"{b['low']:.3g}",
            "words": f"{b['low']:.4g} to {b['high']:.4g}: chi2 {b['chi2']:.3f}, expected {b['expected']:.3f}, {b['n']} pixels",
        }
        for i, b in enumerate(bins)
    ]
    step = 0.25 if top <= 2 else 10.0 ** len(str(int(top))) / 20
    count = min(int(top / step), 40)
    ticks = [{"y": y(k * step), "label": f"{k * step:g}"} for k in range(0, count + 1, max(1, count // 8))]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - 8,
        "bottom": HEIGHT - BOTTOM,
        "marks": marks,
        "ticks": ticks,
    }
