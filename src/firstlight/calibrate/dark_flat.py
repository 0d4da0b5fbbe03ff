"""Bias, dark and flat: master frames, and what their own noise adds.

A master's noise is common to every frame calibrated with it: a bias or dark adds to Noise.d, a flat to Noise.c, and an
average over frames lowers neither. Dark current's shot noise in the light frame itself stays in Noise.b.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.calibrate.detector import (
    assign,
    carry_saturation,
    flag_saturated,
    floated,
    mark,
    noted,
    offset_free,
    offset_removed,
    refuse_twice,
    subtract_offset,
    to_electrons,
    without_black,
)
from firstlight.calibrate.outliers import stacked
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Record, Unit
from firstlight.geometry import Mosaic
from firstlight.noise import Detector, Noise, Unmodelled, spread

__all__ = ["calibrate", "divide_flat", "master", "subtract_bias", "subtract_dark"]

Array = NDArray[Any]
Masters = Frame | Sequence[Frame] | None


def master(frames: Sequence[Frame], *, method: str = "clip", sigma: float = 5.0) -> Frame:
    """One bias, dark or flat from many: 'clip' (mean without outliers beyond `sigma`), 'mean' or 'median'.

    Noise: a and b divided by the frames used at each pixel, for the median times its inefficiency (pi/2 for many); where
    the noise is unknown, std from the scatter. Medians of Poisson counts lie up to 1/6 e- low. Raises FrameError for no
    frames, or frames that differ in shape, unit or offset.
    """
    return stacked("calibrate.master", frames, method, sigma)


def subtract_bias(frame: Frame, *, bias: Frame) -> Frame:
    """ADU minus a master bias [ADU], float; it removes the offset, once. Negatives are kept, flags joined.

    Where the bias is not finite nothing is subtracted and NO_DATA set. The bias's noise goes to d; saturated pixels are
    flagged first where their level is known. Raises FrameError where the offset was removed before, or shapes or units
    differ.
    """
    step = "calibrate.subtract_bias"
    frame.need(step, Unit.ADU)
    refuse_twice(frame, step)
    _match(step, frame, bias, "bias")
    if offset_removed(bias):
        raise FrameError(f"{step}: the bias frame has had its own offset removed; give the raw master")
    var = _own_variance(bias, dark=False)
    noise = frame.noise
    if isinstance(noise, Noise):
        noise = _unmodelled(step, "bias") if var is None else replace(noise, offset=0.0, d=_small(noise.d + var))
    return _subtracted(frame, bias, floated(bias), noise, Record(step, {"bias": noted(bias)}, {"bias": bias.digest()}))


def subtract_dark(frame: Frame, *, dark: Frame, scale: float | None = None) -> Frame:
    """The frame minus `scale` times a master dark, float; scale None: the ratio of their exposures [s]. Negatives are kept.

    Either both have had their offset removed; or neither, and then the dark's own bias goes with it, which asks for scale 1.
    Where the dark is not finite nothing is subtracted and NO_DATA set. Noise: the dark current's shot noise goes to b (a
    scale dark), the master's own to d. Where frame and dark have had the same master bias subtracted, its noise in both is
    one and the same: (1 - scale)^2 of it stays. Raises FrameError where the exposures are unknown, units or shapes differ, or
    only one of the two still has its offset.
    """
    step = "calibrate.subtract_dark"
    frame.need(step, Unit.ADU, Unit.ELECTRON)
    _match(step, frame, dark, "dark")
    scale = _exposure_ratio(step, frame, dark) if scale is None else float(scale)
    raw = not offset_free(dark)
    if raw == offset_free(frame) or (raw and scale != 1):
        got = ["with its offset" if not offset_free(f) else "without offset" for f in (frame, dark)]
        raise FrameError(
            f"{step}: got a frame {got[0]}, a dark {got[1]} and scale {scale:g}; subtract the bias from both first, or from "
            "neither where the exposures are equal"
        )
    counts = floated(dark)
    current = counts - spread(dark.noise.offset, dark.shape) if raw and isinstance(dark.noise, Noise) else counts
    current = np.where(np.isfinite(current), current, 0)
    var = _own_variance(dark, dark=True)
    noise = frame.noise
    if isinstance(noise, Noise):
        unknown = var is None or (raw and isinstance(dark.noise, Unmodelled))
        noise = _unmodelled(step, "dark") if unknown else _with_dark(frame, dark, current * scale, scale)
    record = Record(step, {"dark": noted(dark), "scale": scale}, {"dark": dark.digest()})
    return _subtracted(frame, dark, counts * counts.dtype.type(scale), noise, record)


def _with_dark(frame: Frame, dark: Frame, current: Array, scale: float) -> Noise:
    noise, var = frame.known_noise("calibrate.subtract_dark"), _own_variance(dark, dark=True)
    b = np.maximum(spread(noise.b, frame.shape) + spread(noise.a, frame.shape) * current, 0)
    d = noise.d + scale * scale * var
    shared = _bias_of(frame)
    if shared is not None and shared == _bias_of(dark) and isinstance(dark.noise, Noise):
        d = np.maximum(d - 2 * scale * np.asarray(dark.noise.d), 0)  # cov of light and scaled dark through their bias
    return replace(noise, offset=0.0, b=_small(b), d=_small(d))


def divide_flat(frame: Frame, *, flat: Frame, least: float = 0.05) -> Frame:
    """The frame divided by a flat whose median over good pixels is made 1 (per channel, and colour of a mosaic); unit kept.

    The flat's relative variance goes to c. Where the flat is below `least` of its median the pixel is flagged DEAD, where it
    is not finite NO_DATA, and the value stays undivided. Raises FrameError where frame or flat still has its offset, shapes
    differ, or the flat is not positive.
    """
    step = "calibrate.divide_flat"
    if not 0 <= least < 1:
        raise FrameError(f"{step}: least {least}, expected a fraction of the flat's median, such as 0.05")
    _match(step, frame, flat, "flat", units=False)
    for name, part in (("frame", frame), ("flat", flat)):
        if not offset_free(part):
            raise FrameError(f"{step}: the {name} still holds its offset; subtract_bias or subtract_offset it first")
    values = floated(flat)
    norm = _norm(frame, flat, values)
    low, lost = ~(values > least * norm), ~np.isfinite(values)
    share = np.where(low, 1, values / norm).astype(values.dtype)
    noise = _flattened(frame, flat, share, low)
    frame = frame.replace(**carry_saturation(frame))
    flags = mark(mark(_joined(frame, flat), low & ~lost, Flag.DEAD, frame.shape), lost, Flag.NO_DATA, frame.shape)
    std = None if frame.std is None else np.asarray(frame.std) / share
    record = Record(step, {"flat": noted(flat), "least": least}, {"flat": flat.digest()})
    history = (*frame.history, record)
    return frame.replace(data=floated(frame) / share, noise=noise, std=std, flags=flags, history=history)


def _flattened(frame: Frame, flat: Frame, share: Array, low: Array) -> Noise | Unmodelled:
    if isinstance(frame.noise, Unmodelled):
        return frame.noise
    var, values = _own_variance(flat, dark=True), floated(flat)
    if var is None:
        return _unmodelled("calibrate.divide_flat", "flat")
    c = np.divide(var, values * values, out=np.zeros(np.broadcast_shapes(np.shape(var), values.shape)), where=~low)
    k = 1 / share
    cells = (spread(p, frame.shape) for p in (frame.noise.a, frame.noise.b, 0.0, frame.noise.c, frame.noise.d))
    noise = Noise(*cells).scaled(k)
    return replace(noise, a=_small(noise.a), b=_small(noise.b), c=_small(noise.c + c), d=_small(noise.d))


def _norm(frame: Frame, flat: Frame, values: Array) -> Array:
    """Median of the flat's good pixels, of each channel and each colour of the frame's (or flat's) mosaic; broadcasts."""
    good = np.isfinite(values) & (values > 0)
    if flat.flags is not None:
        good &= np.asarray(flat.flags) == 0
    mosaic = frame.geometry if isinstance(frame.geometry, Mosaic) else flat.geometry
    channel = flat.axes.find("C")
    if channel < 0:
        return _median(mosaic, values, good)
    planes = zip(*(np.moveaxis(part, channel, 0) for part in (values, good)), strict=True)
    return np.stack([_median(mosaic, v, g) for v, g in planes], axis=channel)


def _median(mosaic: Any, values: Array, good: Array) -> Array:
    shape = (values.shape[-2], values.shape[-1])
    colour = mosaic.at(shape) if isinstance(mosaic, Mosaic) else np.zeros((1, 1), dtype=int)
    norm = np.ones(colour.shape, dtype=values.dtype)
    for index in np.unique(colour):
        here = good & (colour == index)
        if not here.any():
            raise FrameError("calibrate.divide_flat: the flat has no good positive pixel; is it a bias-subtracted exposure?")
        norm[colour == index] = np.median(values[here])
    return norm.reshape((1,) * (values.ndim - 2) + norm.shape)


def calibrate(
    light: Frame, *, bias: Masters = None, dark: Masters = None, flat: Masters = None, detector: Detector | None = None
) -> Frame:
    """The whole chain: detector -> saturation flags -> bias or offset -> dark scaled by exposure -> electrons -> flat.

    bias, dark, flat: a master frame [ADU, raw, or calibrated as far as its history says], or raw exposures that are
    averaged here. detector: noise and saturation of every raw frame without. Without a noise model the result stays in ADU
    and a UserWarning says so. Raises FrameError as the single steps do.
    """
    light = _given(light, detector)
    bias, dark, flat = (_one(f, detector) for f in (bias, dark, flat))
    known = isinstance(light.noise, Noise)
    if light.observation.saturation is not None:
        light = flag_saturated(light)
    if isinstance(dark, Frame) and bias is None and not (offset_free(dark) or _states_offset(light)):
        light = subtract_dark(light, dark=dark)  # an offset that nobody knows can only go with the dark that holds it
    else:
        light = _without_offset(light, bias)
        if isinstance(dark, Frame):
            dark = _without_offset(dark, bias)
            light = subtract_dark(light, dark=dark)
    if known and light.unit is Unit.ADU and isinstance(light.noise, Noise):
        light = to_electrons(light)
    elif light.unit is Unit.ADU and isinstance(light.noise, Unmodelled):
        warnings.warn(f"calibrate: the result stays in ADU: {light.noise.reason}", UserWarning, stacklevel=2)
    if not isinstance(flat, Frame):
        return light
    flat = _without_offset(flat, bias)
    same_unit = isinstance(dark, Frame) and dark.unit == flat.unit
    if isinstance(dark, Frame) and same_unit and None not in (dark.observation.exposure, flat.observation.exposure):
        flat = subtract_dark(flat, dark=dark) if offset_free(dark) else flat
    return divide_flat(light, flat=flat)


def _one(frames: Masters, detector: Detector | None) -> Frame | None:
    """A frame as it is, or the master of several; the detector is given to raw frames that know no noise."""
    if frames is None:
        return None
    given = [_given(f, detector) for f in ([frames] if isinstance(frames, Frame) else frames)]
    return given[0] if len(given) == 1 else master(given)


def _given(frame: Frame, detector: Detector | None) -> Frame:
    raw = frame.unit is Unit.ADU and not any(r.step.startswith("calibrate.") for r in frame.history)
    return frame if detector is None or not raw else assign(frame, detector=detector)


def _without_offset(frame: Frame, bias: Frame | None) -> Frame:
    if frame.unit is not Unit.ADU or offset_removed(frame) or (bias is None and offset_free(frame)):
        return frame
    return subtract_offset(frame) if bias is None else subtract_bias(frame, bias=bias)


def _states_offset(frame: Frame) -> bool:
    return isinstance(frame.noise, Noise) or frame.observation.offset is not None or offset_free(frame)


def _match(step: str, frame: Frame, other: Frame, name: str, units: bool = True) -> None:
    if not isinstance(other, Frame):
        raise FrameError(f"{step}: {name} is {type(other).__name__}, expected a Frame; average several with calibrate.master")
    if other.shape != frame.shape[len(frame.shape) - len(other.shape) :]:
        raise FrameError(f"{step}: {name} of shape {other.shape} does not fit a frame of {frame.shape}; crop both alike")
    if units and other.unit != frame.unit:
        raise FrameError(f"{step}: {name} in {other.unit}, frame in {frame.unit}; bring both to one unit")
    if any(r.step == "calibrate.register" for r in frame.history):
        raise FrameError(f"{step}: the frame has been registered, so its pixels no longer lie on the {name}'s; calibrate first")
    phases = [f.geometry.cell().tolist() for f in (frame, other) if isinstance(f.geometry, Mosaic)]
    if len(phases) == 2 and phases[0] != phases[1]:
        raise FrameError(f"{step}: frame and {name} have different mosaics or phases; crop both alike")


def _exposure_ratio(step: str, frame: Frame, dark: Frame) -> float:
    times = frame.observation.exposure, dark.observation.exposure
    if times[0] is None or not times[1]:
        raise FrameError(f"{step}: exposures of frame and dark are {times[0]} and {times[1]} s; pass scale=")
    return times[0] / times[1]


def _own_variance(part: Frame, dark: bool) -> Any:
    """Variance [unit^2] of a master: of its signal where it is a dark or flat, at zero signal for a bias; None if unknown."""
    noise = part.noise
    if isinstance(noise, Unmodelled):
        return None if part.std is None else np.square(np.asarray(part.std))
    a, b, offset, c, d = (spread(p, part.shape) for p in (noise.a, noise.b, noise.offset, noise.c, noise.d))
    if not dark:
        return b + d
    s = floated(part) - offset
    s = np.where(np.isfinite(s), s, 0)
    # shot noise may be negative in a noisy estimate, so that its average is right; only the sum is floored
    return np.maximum(a * s + b + c * s * s + d, 0)


def _unmodelled(step: str, name: str) -> Unmodelled:
    return Unmodelled(
        f"{step}: the {name} has no noise model, so what it adds is unknown; assign its detector, or build it with master()"
    )


def _small(value: Any) -> Any:
    return value if np.ndim(value) == 0 else np.asarray(value, dtype=np.float32)


def _joined(frame: Frame, other: Frame) -> Any:
    if frame.flags is None or other.flags is None:
        return other.flags if frame.flags is None else frame.flags
    return np.bitwise_or(frame.flags, other.flags)


def _bias_of(frame: Frame) -> str | None:
    """The pixels' digest of the master bias that was subtracted, None if there was none or other masters too."""
    masters = [r for r in frame.history if {"bias", "dark", "flat"} & set(r.inputs)]
    return masters[0].inputs.get("bias") if len(masters) == 1 else None


def _subtracted(frame: Frame, part: Frame, values: Array, noise: Noise | Unmodelled, record: Record) -> Frame:
    frame = frame.replace(**without_black(frame, carry_saturation(frame)))
    lost = ~np.isfinite(values)
    data = floated(frame) - np.where(lost, 0, values).astype(floated(frame).dtype, copy=False)
    flags = mark(_joined(frame, part), lost, Flag.NO_DATA, frame.shape)
    return frame.replace(data=data, noise=noise, flags=flags, history=(*frame.history, record))
