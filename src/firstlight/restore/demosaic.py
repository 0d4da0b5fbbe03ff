"""Colours of every pixel of a mosaic, from its samples and their noise: one signature, from bilinear to a network."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from firstlight import cfa
from firstlight.errors import FrameError, ModelError
from firstlight.frame import Flag, Frame
from firstlight.geometry import Mosaic
from firstlight.noise import Unmodelled
from firstlight.restore import lmmse
from firstlight.restore.bilinear import interpolate
from firstlight.restore.encoding import Encoding, encoding

if TYPE_CHECKING:
    from firstlight.model_file import Model

__all__ = ["demosaic"]

Array = NDArray[Any]
LOST = Flag.COSMIC_RAY | Flag.HOT | Flag.DEAD | Flag.DEFECT | Flag.NO_DATA
CORRELATED = "demosaicked: neighbouring pixels are correlated"


def demosaic(
    frame: Frame,
    *,
    method: Literal["net", "lmmse", "bilinear"] = "lmmse",
    model: str | Model | None = None,
    std: bool = False,
    keep_samples: bool = False,
    bf16: bool | None = None,
) -> Frame:
    """R, G and B (C, Y, X) of a mosaic (Y, X), denoised as far as its noise asks for; same unit, float32.

    frame: one mosaic image of colours R, G and B in any pattern, white-balanced, the black level subtracted, linear, with
    its noise; where the noise is 0 the data are interpolated as they are. method: "lmmse", the linear minimum mean square
    error estimate for this pattern and noise in square roots of light (`restore.lmmse`, `restore.encoding`); "net", a
    network's correction to it, for the pattern that it was trained on, in any phase; "bilinear", means of the nearest samples,
    not denoised. model: of "net", a model file or what `model_file.load` gives, None: the one that is shipped for the pattern.
    std: whether the standard error of each colour is wanted, of "lmmse" alone: that of a mean photograph. keep_samples:
    whether samples come out as they went in, noise included. bf16: as in `restore.denoise`.

    Defect, hot, dead, cosmic ray, no-data and non-finite pixels are replaced by means of their own colour first. Noise is
    Unmodelled after it; flags, header and levels are kept, the geometry is dropped.
    Raises FrameError for another frame, ModelError for a model of another pattern.
    """
    mosaic = _rgb(frame)
    if std and method != "lmmse":
        raise FrameError(f"restore.demosaic: method {method!r} gives no standard error; leave std out or use lmmse")
    color = mosaic.at((frame.shape[0], frame.shape[1]))
    data, lost = _filled(frame, mosaic)
    params: dict[str, Any] = {"method": method, "model": None, "std": std, "keep_samples": keep_samples, "bf16": bf16}
    if method == "bilinear":
        return _told(frame, params, interpolate(data, mosaic), None)
    code = encoding(frame, color)
    samples = code.encode(data, color)
    if method == "lmmse":
        out, error = _linear(samples, mosaic, code, std)
    else:
        found, name = _model(model, mosaic)
        params |= {"model": name, "weights": found.digest()}
        out, error = _learned(samples, mosaic, code, found, bf16), None
    if keep_samples:
        keep = (np.arange(3)[:, None, None] == color) & ~lost
        out = np.where(keep, samples, out)
        error = None if error is None else np.where(keep, np.array(code.sigma, dtype=np.float32)[:, None, None], error)
    bars = None if error is None else error * code.slope(out)
    light = code.decode(out)
    if keep_samples:
        light = np.where(keep, data, light)
    return _told(frame, params, light, bars)


def _told(frame: Frame, params: dict[str, Any], light: Array, bars: Array | None) -> Frame:
    observation = replace(frame.observation, offset=None, saturation=_least(frame.observation.saturation))
    return frame.then(
        "restore.demosaic",
        params,
        data=np.asarray(light, dtype=np.float32),
        axes="CYX",
        noise=Unmodelled(CORRELATED),
        std=bars,
        geometry=None,
        psf=None,
        observation=observation,
    )


def _least(level: Any) -> float | None:
    """Channels saturate at levels of their own; where the first does, colours end."""
    return None if level is None else float(np.min(level))


def _rgb(frame: Frame) -> Mosaic:
    """The frame's mosaic with colours numbered R 0, G 1, B 2."""
    mosaic = frame.geometry
    if not isinstance(mosaic, Mosaic) or frame.axes != "YX":
        kind = "a mosaic" if isinstance(mosaic, Mosaic) else "no mosaic"
        raise FrameError(f"restore.demosaic: got {kind} with axes {frame.axes!r}, expected one mosaic image (YX)")
    used = {mosaic.colors[i] for row in mosaic.pattern for i in row}
    if used != set("RGB"):
        raise FrameError(f"restore.demosaic: a mosaic of colours {''.join(sorted(used))}, expected R, G and B")
    pattern = tuple(tuple("RGB".index(mosaic.colors[i]) for i in row) for row in mosaic.pattern)
    return Mosaic(pattern, mosaic.phase, "RGB")


def _filled(frame: Frame, mosaic: Mosaic) -> tuple[Array, Array]:
    """The data as float32 with lost pixels replaced by means of their own colour over 3 periods, and which those are."""
    data = np.asarray(frame.data).astype(np.float32)
    lost = ~np.isfinite(data)
    if frame.flags is not None:
        lost |= (np.broadcast_to(frame.flags, data.shape) & int(LOST)) != 0
    if not lost.any():
        return data, lost
    rows, cols = mosaic.period
    for y, x in zip(*np.nonzero(lost), strict=True):
        near = (slice(max(0, y - rows), y + rows + 1), slice(max(0, x - cols), x + cols + 1))
        like = mosaic.at(data.shape)[near] == mosaic.cell()[y % rows, x % cols]
        like &= ~lost[near]
        if not like.any():
            raise FrameError(f"restore.demosaic: no trusted sample of its colour near pixel ({y}, {x}); crop the frame")
        data[y, x] = np.mean(data[near][like])
    return data, lost


def _linear(samples: Array, mosaic: Mosaic, code: Encoding, std: bool) -> tuple[Array, Array | None]:
    from firstlight.restore.packed import demosaicked

    weights, variance = _filters(_key(mosaic.cell()), code.sigma)
    out = demosaicked(samples, mosaic, weights, code.sigma)
    if not std:
        return out, None
    side = variance.shape[-1]
    tiles = [-(-n // side) for n in samples.shape]
    error = np.tile(np.sqrt(variance).astype(np.float32), (1, *tiles))
    return out, error[:, : samples.shape[0], : samples.shape[1]]


def _learned(samples: Array, mosaic: Mosaic, code: Encoding, model: Model, bf16: bool | None) -> Array:
    from firstlight.restore.packed import demosaicked

    pattern = np.array(model.scaling["pattern"])
    start = cfa.shift_to(mosaic, pattern)
    assert start is not None  # _model has seen to it
    weights, _ = _filters(_key(pattern), code.sigma)
    return demosaicked(samples, mosaic, weights, code.sigma, net=model.net, start=start, bf16=bf16)


def _key(cell: Array) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(i) for i in row) for row in cell)


@lru_cache(maxsize=8)
def _filters(cell: tuple[tuple[int, ...], ...], sigma: tuple[float, float, float]) -> tuple[Array, Array]:
    return lmmse.filters(np.array(cell), sigma)


def _model(model: str | Model | None, mosaic: Mosaic) -> tuple[Model, str | None]:
    from firstlight import model_file

    if isinstance(model, str) or model is None:
        kinds = {(2, 2): "demosaic_bayer", (6, 6): "demosaic_xtrans"}
        found = model_file.load(model_file.shipped(kinds.get(mosaic.period, "demosaic")) if model is None else model)
    else:
        found = model
    if found.scaling["domain"] != "mosaic" or "pattern" not in found.scaling:
        raise ModelError(f"restore.demosaic: a model of domain {found.scaling['domain']!r}, expected one trained on mosaics")
    if cfa.shift_to(mosaic, np.array(found.scaling["pattern"])) is None:
        rows = "/".join("".join("RGB"[i] for i in row) for row in found.scaling["pattern"])
        raise ModelError(f"restore.demosaic: this model was trained on {rows}, which this mosaic is in no phase; use lmmse")
    return found, model if isinstance(model, str) else None
