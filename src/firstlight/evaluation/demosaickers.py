"""Demosaickers side by side: checkpoints beside bilinear and linear MMSE, on pictures with known colours or on raw files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import io, model_file, outputs
from firstlight.atomic import replacing, write_text
from firstlight.calibrate.balance import multipliers_of
from firstlight.dataset.mosaics import linear, unbalanced
from firstlight.errors import FrameError, ModelError, WriteError
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import Mosaic, Pattern
from firstlight.model_file import Model
from firstlight.noise import Noise
from firstlight.restore import demosaic

__all__ = ["compare_demosaickers", "psnr"]

Array = NDArray[Any]
Tick = Callable[[int, int, str], None]
BORDER = 10  # px left out of a figure
PLAIN = ("bilinear", "lmmse")


def compare_demosaickers(
    checkpoints: Sequence[Path], images: Sequence[Path], out: Path, *, side: int = 256, tick: Tick | None = None
) -> list[dict[str, Any]]:
    """Write OUT/NAME.png, a middle part of `side` px by every method and the truth, and OUT/table.tsv; rows of the table.

    images: pictures, whose sRGB values are sampled as if linear by the checkpoints' pattern, or raw files of that pattern,
    without truth. A row: image, method, psnr [dB] of sRGB values, clipped to [0, 1], 10 px of border left out, or None.
    Raises ModelError for checkpoints of different patterns, FrameError, ReadError for an image that cannot be used, WriteError
    where a picture would replace another or an image.
    """
    models = {path.stem: model_file.load(path) for path in checkpoints}
    if len(models) < len(checkpoints) or not models:
        raise ModelError(f"compare: {len(checkpoints)} checkpoints of {len(models)} names; give one or more, each its own")
    if taken := models.keys() & set(PLAIN):
        raise ModelError(f"compare: a checkpoint named {taken.pop()}, as a method beside it is; name the file otherwise")
    pattern = _pattern(models)
    if side < 1:
        raise FrameError(f"compare: side {side} px, expected 1 or more")
    if out.exists() and not out.is_dir():
        raise WriteError(f"{out}: is a file, expected a folder for pictures and the table")
    goals = [out / f"{path.stem}.png" for path in images]
    outputs.apart(*goals)
    outputs.spare(goals, images)
    rows = list[dict[str, Any]]()
    for i, (path, goal) in enumerate(zip(images, goals, strict=True)):
        if tick:
            tick(i, len(images), path.name)
        with outputs.naming(path), outputs.placed(goal, out):
            rows += _compared(path, goal, models, pattern, side)
    text = "image\tmethod\tpsnr\n" + "".join(f"{r['image']}\t{r['method']}\t{_number(r['psnr'])}\n" for r in rows)
    write_text(outputs.folder(out) / "table.tsv", text)
    return rows


def _compared(path: Path, goal: Path, models: dict[str, Model], pattern: Pattern, side: int) -> list[dict[str, Any]]:
    raw, frame, truth = _mosaicked(path, pattern)
    found = {name: np.asarray(demosaic(frame, method=name).data) for name in PLAIN}  # type: ignore[arg-type]
    found |= {name: _learned(raw, frame, model) for name, model in models.items()}
    _draw(goal, [*found.values(), *([] if truth is None else [truth])], side, truth is None)
    return [{"image": path.name, "method": k, "psnr": None if truth is None else psnr(v, truth)} for k, v in found.items()]


def psnr(found: Array, truth: Array, border: int = BORDER) -> float:
    """Peak signal to noise [dB] of values in [0, 1]: one mean square over all channels, `found` clipped."""
    inside: Any = (..., slice(border, -border or None), slice(border, -border or None))
    error = (np.clip(found, 0, 1) - truth)[inside].astype(np.float64)
    return float(-10 * np.log10(max(np.mean(error**2), 1e-20)))


def _pattern(models: dict[str, Model]) -> Pattern:
    patterns = {str(m.scaling.get("pattern")) for m in models.values()}
    if len(patterns) > 1 or "None" in patterns:
        raise ModelError(f"compare: {', '.join(models)} are of different patterns, or of none; compare those of one")
    return tuple(tuple(row) for row in next(iter(models.values())).scaling["pattern"])


def _learned(raw: Frame, frame: Frame, model: Model) -> Array:
    """A network's colours; one that learned without white balance sees raw files without, and its colours are balanced."""
    if raw is frame or model.scaling.get("balanced", True):
        return np.asarray(demosaic(frame, method="net", model=model).data)
    plain = unbalanced(raw).replace(noise=Noise(0.0, 0.0))
    gains = np.asarray(multipliers_of(raw), dtype=np.float32)
    return np.asarray(demosaic(plain, method="net", model=model).data * gains[:, None, None])


def _mosaicked(path: Path, pattern: Pattern) -> tuple[Frame, Frame, Array | None]:
    """What the file holds, a mosaic to work on (the same where it is a picture's), and its colours (3, Y, X) if known."""
    frame = io.read(path)
    if frame.unit is not Unit.DISPLAY:
        light = linear(frame)
        return frame, light.replace(noise=Noise(0.0, 0.0)), None
    if frame.axes != "CYX" or min(frame.shape[1:]) <= 2 * BORDER:
        raise FrameError(
            f"{path}: axes {frame.axes!r} of {frame.shape}; expected a colour picture of more than {2 * BORDER} px"
        )
    codes = np.asarray(frame.data)
    truth = (codes / np.iinfo(codes.dtype).max if codes.dtype.kind == "u" else codes).astype(np.float32)
    mosaic = Mosaic(pattern)
    samples = np.take_along_axis(truth, mosaic.at((truth.shape[1], truth.shape[2]))[None], axis=0)[0]
    seen = Observation(saturation=1.0)
    made = Frame(samples, "YX", Unit.ARBITRARY, Noise(0.0, 0.0), geometry=mosaic, observation=seen)
    return made, made, truth


def _draw(path: Path, colors: list[Array], side: int, light: bool) -> None:
    """Middle parts side by side; of raw files brightened so that the 99th percentile is white, and encoded."""
    import cv2

    from firstlight.train.pictures import encoded

    starts = [max(0, (n - side) // 2) for n in colors[0].shape[1:]]
    parts = [c[:, starts[0] : starts[0] + side, starts[1] : starts[1] + side] for c in colors]
    if light:
        white = max(float(np.quantile(parts[-1], 0.99)), 1e-9)
        parts = [encoded(p / white) for p in parts]
    row = np.concatenate(parts, axis=2).transpose(1, 2, 0)[..., ::-1]
    _, png = cv2.imencode(".png", np.round(255 * np.clip(row, 0, 1)).astype(np.uint8))
    with replacing(path) as temp:
        temp.write_bytes(png.tobytes())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
