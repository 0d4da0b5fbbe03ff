"""Whole images through any network: of several channels, of volumes, of percentile-scaled pictures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import FrameError, ModelError
from firstlight.frame import Frame
from firstlight.geometry import Mosaic
from firstlight.inference import predict, ready
from firstlight.measure.white import noise_scale
from firstlight.model_file import Model
from firstlight.noise import Noise, Unmodelled
from firstlight.restore.learned import _filled, _loaded, _named
from firstlight.restore.means import _trusted
from firstlight.scaling import Scaling
from firstlight.tiles import strides

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PROFILES", "cosine", "denoise_picture", "percentiles"]

Array = NDArray[Any]
Profile = Literal["physical", "documented"]
PROFILES = ("physical", "documented")
TILE, STRIDE = 512, 256  # px, of the documented pipeline
MARGIN = 4.0  # noise's standard deviations beyond the percentiles that a network sees; what is further passes by it unchanged
_BLENDED = (
    "profile documented: tiles of 512 px every 256 are blended by cosine windows, so that values depend on where tiles lie"
)
DOCUMENTED = {
    "percentile": f"{_BLENDED}; each is scaled by its own percentiles and clipped: light above the upper one is lost",
    "stabilised": _BLENDED,
}


def denoise_picture(
    frame: Frame, *, model: str | Model | None = None, profile: Profile = "physical", bf16: bool | None = None
) -> Frame:
    """A frame as a network estimates it: percentile-scaled or stabilised models, of any channels, YX or ZYX.

    frame: any axes that hold the model's, any unit; data integer or float, in memory whole. A model of one channel takes each
    channel on its own, one of several takes axis C, or a frame without C as that many equal channels, whose outputs are
    averaged. model: a model file, what `model_file.load` gives, or None for the shipped one. profile: "physical": one scaling
    for the whole image, z = (y - p_low) / (p_high - p_low); what lies more than 4 standard deviations of its noise beyond
    [0, 1] passes by the network, net(clip z) + (z - clip z), so that stars keep their light; tiles equal to the whole.
    "documented": see DOCUMENTED. A stabilised model needs the frame's noise, z = stabilise(y), in both.

    Returns data float32 [unit], noise Unmodelled; flags, geometry and header kept. Flagged and non-finite pixels are filled
    from their neighbours for the network and get its estimate; saturated ones and those without trusted neighbours keep their
    value. Raises FrameError for a mosaic, or unknown noise where it is needed, ModelError where frame and model do not fit.
    """
    if profile not in PROFILES:
        raise FrameError(f"restore: profile {profile!r}, expected one of {', '.join(PROFILES)}")
    found = model if isinstance(model, Model) else _loaded(model)
    _check(frame, found)
    if found.scaling["domain"] == "stabilised":
        frame.known_noise("restore.denoise_picture")
    if profile == "documented":
        warnings.warn(DOCUMENTED[found.scaling["domain"]], UserWarning, stacklevel=2)
    if bf16 is None and found.scaling["prefilter"] == "zero":
        bf16 = False  # the network says the image itself, not a correction to it: 8 binary digits would be too few
    net, out = ready(found.net, bf16=bf16), np.empty(frame.shape, dtype=np.float32)
    flags = None if frame.flags is None else np.broadcast_to(np.asarray(frame.flags), frame.shape)
    for at in _stacks(frame, found):
        data = np.asarray(frame.data[at])
        good, keep = _trusted(data, None if flags is None else flags[at])
        noise = frame.noise.crop(frame.shape, _box(frame.shape, at)) if isinstance(frame.noise, Noise) else None
        out[at], lost = _stack(data, good, noise, found, net, profile)
        out[at] = np.where(keep | lost, data, out[at])
    params = {"model": _named(model), "profile": profile, "bf16": bf16, "weights": found.digest()}
    unknown = Unmodelled("restored: pixels are correlated")
    return frame.then("restore.denoise_picture", params, data=out, noise=unknown, std=None)


def _check(frame: Frame, model: Model) -> None:
    channels = frame.shape[frame.axes.index("C")] if "C" in frame.axes else 1
    if isinstance(frame.geometry, Mosaic):
        raise FrameError("restore: a colour mosaic, expected whole colours or grey; use a model of one channel, stabilised")
    if "Z" in model.axes and "Z" not in frame.axes:
        raise ModelError(f"restore: a model of volumes (ZYX), the image has axes {frame.axes}; give a stack or a model of YX")
    if model.channels not in (1, channels) and channels != 1:
        raise ModelError(f"restore: a model of {model.channels} channels, the image has {channels}; give one of that many")


def _stacks(frame: Frame, model: Model) -> Iterator[tuple[Any, ...]]:
    """The index of each (C, Z, Y, X), (C, Y, X) or (Y, X) part that the network sees at once."""
    inner = model.axes + ("C" if model.channels > 1 else "")
    choices = [[slice(None)] if a in inner else range(n) for a, n in zip(frame.axes, frame.shape, strict=True)]
    yield from product(*choices)


def _box(shape: tuple[int, ...], at: tuple[Any, ...]) -> Box:
    ends = [(0, n) if isinstance(k, slice) else (k, k + 1) for k, n in zip(at, shape, strict=True)]
    return Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))


def _stack(
    data: Array, good: Array, noise: Noise | None, model: Model, net: nn.Module, profile: Profile
) -> tuple[Array, Array]:
    """One stack [unit], float32, and the mask of pixels that nothing trusted is near."""
    if data.size == 0 or not good.any():
        return data.astype(np.float32), np.ones(data.shape, dtype=bool)
    planes = data.reshape(-1, *data.shape[-2:])
    masks = good.reshape(planes.shape)
    parts = [_filled(np.where(m, p, 0).astype(np.float32), m) for p, m in zip(planes, masks, strict=True)]
    y, lost = (np.stack([p[i] for p in parts]).reshape(data.shape) for i in (0, 1))
    run = _documented if profile == "documented" else _physical
    return run(y, good, noise, model, net), lost


def _physical(y: Array, good: Array, noise: Noise | None, model: Model, net: nn.Module) -> Array:
    if model.scaling["domain"] == "stabilised":
        return _stabilised(y, noise, model, net, _whole)
    rule = percentiles(y[good], model)
    z = rule.apply(y)
    margin = MARGIN * noise_scale(z)
    seen = np.clip(z, -margin, 1 + margin)
    return rule.invert(_whole(seen, model, net) + (z - seen))


def _documented(y: Array, good: Array, noise: Noise | None, model: Model, net: nn.Module) -> Array:
    if model.scaling["domain"] == "stabilised":
        return _stabilised(y, noise, model, net, _cosine_blended)

    def each(tile: Array, model: Model, net: nn.Module) -> Array:
        rule = percentiles(tile, model)
        return rule.invert(np.clip(_whole(np.clip(rule.apply(tile), 0, 1), model, net), 0, 1))

    return _cosine_blended(y, model, net, each)


def _stabilised(y: Array, noise: Noise | None, model: Model, net: nn.Module, run: Any) -> Array:
    assert noise is not None
    shape = (1,) * (len(_shape_of(noise)) - y.ndim) + y.shape
    z = noise.stabilise(y.reshape(shape)).reshape(y.shape).astype(np.float32)
    return np.asarray(noise.unstabilise(run(z, model, net).reshape(shape)).reshape(y.shape), dtype=np.float32)


def _shape_of(noise: Noise) -> tuple[int, ...]:
    return max((np.shape(p) for p in (noise.a, noise.b, noise.offset, noise.c, noise.d)), key=len)


def _whole(z: Array, model: Model, net: nn.Module) -> Array:
    """The network's mean of (C, Z, Y, X), (C, Y, X) or, as equal channels, (Y, X)."""
    alone = z.ndim == len(model.axes)
    stack = np.stack([z] * model.channels) if alone else z
    mean, _ = predict(model, stack, net=net)
    return np.asarray(mean.mean(axis=0) if alone else mean, dtype=np.float32)


def _cosine_blended(z: Array, model: Model, net: nn.Module, each: Any = _whole) -> Array:
    """Tiles of 512 px every 256, the last at the border, averaged with `cosine` weights."""
    sides = [min(TILE, n) for n in z.shape[-2:]]
    total, weights = np.zeros(z.shape), np.zeros(z.shape[-2:])
    window = np.outer(*(cosine(n) for n in sides))
    for y, x in product(*(strides(n, s, STRIDE) for n, s in zip(z.shape[-2:], sides, strict=True))):
        here = np.s_[..., y : y + sides[0], x : x + sides[1]]
        total[here] += window * each(np.ascontiguousarray(z[here]), model, net)
        weights[here] += window
    return np.asarray(total / weights, dtype=np.float32)


def cosine(n: int) -> Array:
    """Weights of n pixels, 1/2 - 1/2 cos(2 pi (i + 1/2) / n): the half keeps them above 0 at both ends."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n))


def percentiles(values: Array, model: Model) -> Scaling:
    """The scaling of values that puts the model's low percentile at 0 and its high one at 1; of equal ones, the value at 0."""
    found = np.percentile(values, (float(model.scaling.get("low", 1.0)), float(model.scaling.get("high", 99.5))))
    low, high = (float(v) for v in found)
    return Scaling(high - low if high > low else 1.0, -low)
