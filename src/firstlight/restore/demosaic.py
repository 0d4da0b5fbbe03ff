"""Colours of every pixel of a mosaic, from its samples and their noise: one signature, from bilinear to a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from firstlight import cfa
from firstlight.errors import FrameError, ModelError
from firstlight.frame import Flag, Frame
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.noise import Unmodelled
from firstlight.restore import libraw, lmmse
from firstlight.restore.bilinear import interpolate
from firstlight.restore.encoding import Encoding, encoding

if TYPE_CHECKING:
    from firstlight.model_file import Model

__all__ = ["demosaic"]

Array = NDArray[Any]
Sigma = tuple[float, float, float]
Estimate = Callable[[Array, Mosaic], Array]
Method = Literal["auto", "net", "lmmse", "bilinear", "markesteijn", "markesteijn1", "vng", "ppg", "ahd", "dcb", "dht", "aahd"]
SHIPPED = {BAYER: "demosaic_bayer", XTRANS: "demosaic_xtrans"}
LOST = Flag.COSMIC_RAY | Flag.HOT | Flag.DEAD | Flag.DEFECT | Flag.NO_DATA
ROWS = 64  # rows worked on at once, where a step looks at pixels one by one
CORRELATED = "demosaicked: neighbouring pixels are correlated"


def demosaic(
    frame: Frame,
    *,
    method: Method = "auto",
    model: str | Model | None = None,
    strength: float = 1.0,
    ensemble: bool = False,
    std: bool = False,
    keep_samples: bool = False,
    bf16: bool | None = None,
) -> Frame:
    """R, G and B (C, Y, X) of a mosaic (Y, X), denoised as far as its noise asks for; same unit, float32.

    frame: one mosaic image of colours R, G and B in any pattern, white-balanced, the black level subtracted, linear, with
    its noise; where the noise is 0 the data are interpolated as they are. method: "auto", net for Bayer and X-Trans or where a
    model is named, lmmse for other patterns and where std is wanted; "lmmse", the linear minimum mean square error estimate
    for this pattern and noise in square roots of light (`restore.lmmse`, `restore.encoding`); "net", a
    network's correction to it, for the pattern that it was trained on, in any phase; "bilinear", means of the nearest samples,
    not denoised; for comparison LibRaw's (`restore.libraw`): "markesteijn", "markesteijn1" (one pass) and "vng" of X-Trans,
    "ahd", "ppg", "dcb", "dht", "aahd" and "vng" of Bayer mosaics, not denoised. model: of "net", a model file or what
    `model_file.load` gives, None: the one that is shipped for the pattern. strength: times the noise's standard deviation that
    lmmse and net take off; 0 interpolates, in the curve that the noise sets. ensemble: whether the mean over the mosaic's eight
    flips and turns is taken, eight times the work; lmmse and bilinear are the same in each. std: whether the standard error of
    each colour is wanted, of "lmmse" at strength 1 alone: that of a mean photograph. keep_samples: whether samples come out as
    they went in, noise included. bf16: as in `restore.denoise`.

    Defect, hot, dead, cosmic ray, no-data and non-finite pixels are replaced by means of their own colour first. Noise is
    Unmodelled after it; flags, header and levels are kept, the geometry is dropped; the history names what ran.
    Raises FrameError for another frame or a method that does not apply to it, ModelError for a model of another pattern.
    """
    mosaic = _rgb(frame)
    method = _chosen(mosaic, model, std) if method == "auto" else method
    if std and (method != "lmmse" or strength != 1):
        raise FrameError(f"restore.demosaic: {method} at strength {strength:g} gives no standard error; leave std out")
    if not (np.isfinite(strength) and strength >= 0):
        raise FrameError(f"restore.demosaic: strength {strength}, expected 0 (no denoising), 1, or another factor above 0")
    params: dict[str, Any] = {"method": method, "model": None, "strength": strength, "ensemble": ensemble, "std": std}
    params |= {"keep_samples": keep_samples, "bf16": bf16}
    if method in ("bilinear", *libraw.METHODS):
        return _told(frame, *_interpolated(frame, mosaic, params))
    if method not in ("lmmse", "net"):
        raise FrameError(
            f"restore.demosaic: method {method!r}, expected auto, net, lmmse, bilinear, {', '.join(libraw.METHODS)}"
        )
    return _told(frame, *_estimated(frame, mosaic, params, model))


def _chosen(mosaic: Mosaic, model: str | Model | None, std: bool) -> Method:
    """What "auto" means: the network that is named, or shipped for the pattern; none gives a standard error."""
    learned = any(cfa.shift_to(mosaic, np.array(pattern)) is not None for pattern in SHIPPED)
    return "net" if model is not None or (learned and not std) else "lmmse"


def _interpolated(frame: Frame, mosaic: Mosaic, params: dict[str, Any]) -> tuple[dict[str, Any], Array, None]:
    """Parameters for the history, and light (3, Y, X) by methods that know no noise."""
    method = params["method"]
    if method != "bilinear":
        params["ran"] = libraw.ran(method, mosaic)
    data, lost = _filled(frame, mosaic)
    way: Estimate = interpolate if method == "bilinear" else lambda s, m: libraw.colours(s, m, method)
    light = _turned(way, data, mosaic) if params["ensemble"] else way(data, mosaic)
    if params["keep_samples"]:
        _keep(light, data, lost, mosaic)
    return params, light, None


def _estimated(
    frame: Frame, mosaic: Mosaic, params: dict[str, Any], model: str | Model | None
) -> tuple[dict[str, Any], Array, Array | None]:
    """Parameters for the history, light (3, Y, X), and its standard error, by an estimate in encoded samples."""
    code, noisy = encoding(frame, mosaic), params["strength"] > 0
    r, g, b = (params["strength"] * v for v in code.sigma)
    sigma = (r, g, b)
    data, lost = _filled(frame, mosaic)
    if params["method"] == "net":
        found, name = _model(model, mosaic)
        _balanced_as(found, frame)
        params |= {"model": name, "weights": found.digest()}
        code, noisy = _own_light(found, code), noisy and _is_packed(found)
    samples = _encoded(code, data, mosaic, noisy)
    if params["method"] == "net":
        way: Estimate = lambda s, m: _learned(s, m, sigma, found, params["bf16"])  # noqa: E731
    else:
        way = lambda s, m: _linear(s, m, sigma)  # noqa: E731
    out = _turned(way, samples, mosaic) if params["ensemble"] else way(samples, mosaic)
    bars = _bars(out, samples, lost, mosaic, code, params["keep_samples"]) if params["std"] else None
    del samples
    for y in range(0, out.shape[1], ROWS):
        out[:, y : y + ROWS] = code.decode(out[:, y : y + ROWS], noisy=noisy)
    if params["keep_samples"]:
        _keep(out, data, lost, mosaic)
    return params, out, bars


def _encoded(code: Encoding, data: Array, mosaic: Mosaic, noisy: bool) -> Array:
    out = np.empty_like(data)
    rows = ROWS * mosaic.period[0]
    color = mosaic.at((min(rows, len(data)), data.shape[1]))
    for y in range(0, len(data), rows):
        part = data[y : y + rows]
        out[y : y + rows] = code.encode(part, color[: len(part)], noisy=noisy)
    return out


def _keep(out: Array, samples: Array, lost: Array, mosaic: Mosaic) -> None:
    """Puts the samples that were not lost into their colour of `out` (3, Y, X)."""
    rows, cols = mosaic.period
    for (y, x), k in np.ndenumerate(mosaic.cell()):
        here = (slice(y, None, rows), slice(x, None, cols))
        np.copyto(out[k][here], samples[here], where=~lost[here])


def _turned(way: Estimate, samples: Array, mosaic: Mosaic) -> Array:
    """The mean of `way` over the eight flips and turns of samples and mosaic."""
    total = np.zeros((3, *samples.shape), dtype=np.float32)
    for quarters in range(4):
        turned, seen = np.rot90(samples, quarters), cfa.turn(mosaic, (samples.shape[0], samples.shape[1]), quarters)
        for side in (1, -1):
            pattern = seen if side > 0 else cfa.flip(seen, (turned.shape[0], turned.shape[1]), 1)
            part = np.ascontiguousarray(turned[:, ::side])
            total += np.rot90(way(part, pattern)[..., ::side], -quarters, axes=(1, 2))
    total /= 8
    return total


def _bars(out: Array, samples: Array, lost: Array, mosaic: Mosaic, code: Encoding, kept: bool) -> Array:
    """Standard error [unit] of each colour of the linear estimate `out`, encoded; of samples that are kept, their noise."""
    variance = _filters(_key(mosaic.cell()), code.sigma)[1]
    side = variance.shape[-1]
    tiles = [-(-n // side) for n in samples.shape]
    error = np.tile(np.sqrt(variance).astype(np.float32), (1, *tiles))[:, : samples.shape[0], : samples.shape[1]]
    light = out
    if kept:
        light = out.copy()
        _keep(light, samples, lost, mosaic)
        noise = np.array(code.sigma, dtype=np.float32)[mosaic.at((samples.shape[0], samples.shape[1]))]
        _keep(error, noise, lost, mosaic)
    return np.asarray(error * code.slope(light))


def _told(frame: Frame, params: dict[str, Any], light: Array, bars: Array | None) -> Frame:
    seen, colors = frame.observation, frame.geometry.colors if isinstance(frame.geometry, Mosaic) else "RGB"
    observation = replace(
        seen,
        offset=None,
        saturation=_least(seen.saturation),
        white_balance=_as_rgb(seen.white_balance, colors),
        color_matrix=_as_rgb(seen.color_matrix, colors),
    )
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


def _as_rgb(values: Any, colors: str) -> Any:
    """What the observation states of each colour of the mosaic, in the order of the planes."""
    return values if values is None or len(values) != len(colors) else tuple(values[colors.index(c)] for c in "RGB")


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
    if frame.shape[0] < mosaic.period[0] or frame.shape[1] < mosaic.period[1]:
        raise FrameError(f"restore.demosaic: {frame.shape} px is smaller than the mosaic's period {mosaic.period}; crop less")
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
    (rows, cols), cell = mosaic.period, mosaic.cell()
    for y, x in zip(*np.nonzero(lost), strict=True):
        near = (slice(max(0, y - rows), y + rows + 1), slice(max(0, x - cols), x + cols + 1))
        part = lost[near]
        color = cell[
            (near[0].start + np.arange(part.shape[0])[:, None]) % rows, (near[1].start + np.arange(part.shape[1])) % cols
        ]
        like = (color == cell[y % rows, x % cols]) & ~part
        if not like.any():
            raise FrameError(f"restore.demosaic: no trusted sample of its colour near pixel ({y}, {x}); crop the frame")
        data[y, x] = np.mean(data[near][like])
    return data, lost


def _linear(samples: Array, mosaic: Mosaic, sigma: Sigma) -> Array:
    from firstlight.restore.packed import demosaicked

    weights, _ = _filters(_key(mosaic.cell()), sigma)
    return demosaicked(samples, mosaic, weights, sigma)


def _learned(samples: Array, mosaic: Mosaic, sigma: Sigma, model: Model, bf16: bool | None) -> Array:
    from firstlight.restore.packed import demosaicked

    pattern = np.array(model.scaling["pattern"])
    start = cfa.shift_to(mosaic, pattern)
    if start is None:
        raise ModelError("restore.demosaic: a flip or turn of this model's pattern is in no phase of it; leave ensemble out")
    if not _is_packed(model):
        from firstlight.restore.mosaic_unet import through_unet

        return through_unet(samples, mosaic, model.net, start=start, documented=model.scaling.get("light") == "linear")
    weights, _ = _filters(_key(pattern), sigma)
    return demosaicked(samples, mosaic, weights, sigma, net=model.net, start=start, bf16=bf16)


def _is_packed(model: Model) -> bool:
    """Whether it is ours, which takes noise off; the documented U-Net knows none."""
    return bool(model.card["net"]["name"] == "packed")


def _balanced_as(model: Model, frame: Frame) -> None:
    """Raises ModelError for a balanced frame where the model learned on mosaics that were not, as profile documented's did."""
    balanced = any(record.step == "calibrate.white_balance" for record in frame.history)
    if balanced and not model.scaling.get("balanced", True):
        raise ModelError(
            "restore.demosaic: this model learned on mosaics without white balance (profile documented), the frame has it; "
            "take `develop --profile documented`, or give the frame before calibrate.white_balance and balance its colours"
        )


def _own_light(model: Model, code: Encoding) -> Encoding:
    """The encoding that a model was trained in: of profile documented linear light."""
    return Encoding(np.zeros((3, 2)), code.white) if model.scaling.get("light") == "linear" else code


def _key(cell: Array) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(i) for i in row) for row in cell)


@lru_cache(maxsize=8)
def _filters(cell: tuple[tuple[int, ...], ...], sigma: Sigma) -> tuple[Array, Array]:
    return lmmse.filters(np.array(cell), sigma)


def network(model: str | Model) -> Model:
    """A network that demosaicks, from its file where it is named. Raises ModelError for another."""
    from firstlight import model_file

    found = model_file.load(model) if isinstance(model, str) else model
    if found.scaling["domain"] != "mosaic" or "pattern" not in found.scaling:
        name = model if isinstance(model, str) else "restore.demosaic"
        raise ModelError(f"{name}: a model of domain {found.scaling['domain']!r}, expected one trained on mosaics")
    return found


def _model(model: str | Model | None, mosaic: Mosaic) -> tuple[Model, str | None]:
    if model is None:
        from firstlight import model_file

        name = next((n for p, n in SHIPPED.items() if Mosaic(p).period == mosaic.period), "demosaic")
        found = network(model_file.load(model_file.shipped(name)))
    else:
        found = network(model)
    if cfa.shift_to(mosaic, np.array(found.scaling["pattern"])) is None:
        rows = "/".join("".join("RGB"[i] for i in row) for row in found.scaling["pattern"])
        raise ModelError(f"restore.demosaic: this model was trained on {rows}, which this mosaic is in no phase; use lmmse")
    return found, model if isinstance(model, str) else None
