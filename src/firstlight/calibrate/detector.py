"""The detector's own effects, in processing order: noise model, saturation, offset, gain, exposure.

The offset can be removed once only: afterwards the noise model's offset is 0 and the history names the step. The level of
saturation is in the frame's own unit and moves with the data; where a map would make it differ from pixel to pixel, the
step flags the saturated pixels first and the level is dropped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Record, Unit
from firstlight.noise import CELL, Detector, Noise, Param, Unmodelled, spread

__all__ = ["assign", "assign_maps", "documented", "flag_saturated", "subtract_offset", "to_counts", "to_electrons"]

Array = NDArray[Any]
OFFSET_STEPS = frozenset(
    f"calibrate.{k}"
    for k in ("subtract_offset", "subtract_bias", "subtract_dark", "to_electrons", "documented", "transmission")
)
MAP_STEPS = frozenset(
    f"calibrate.{k}" for k in ("subtract_bias", "subtract_dark", "divide_flat", "combine", "master", "transmission")
)
GAIN_STEPS = frozenset(f"calibrate.{k}" for k in ("divide_flat", "combine", "master", "superpixels", "downsample_documented"))


def assign(frame: Frame, *, detector: Detector) -> Frame:
    """The raw frame with the noise [ADU] and the saturation [ADU] of a detector; data unchanged.

    Pixels of a gain map that are not positive are flagged DEFECT and given the median gain. Raises FrameError where the
    frame is not in ADU, has been calibrated already, or a map does not fit.
    """
    raw = detector.noise()
    bad = np.asarray(detector.gain) <= 0
    a = _replaced(raw.a, bad)
    noise = Noise(a, _replaced(raw.b, bad), raw.offset)
    given = {k: noted(v) for k, v in vars(detector).items() if v is not None}
    return _assign(frame, noise, bad, detector.saturation, Record("calibrate.assign", {"detector": given}))


def assign_maps(frame: Frame, *, offset: ArrayLike, gain: ArrayLike, variance: ArrayLike, tolerance: float = 10.0) -> Frame:
    """The raw frame with the noise of per-pixel maps, as measured for sCMOS cameras; data unchanged.

    offset [ADU], gain [e-/ADU], variance [ADU^2]: (Y, X) or scalars. Published sCMOS maps often hold ADU/e-: pass 1/map.
    Pixels whose gain is not positive or a factor `tolerance` off the median, whose variance is negative, or where a map is
    not finite are flagged DEFECT and get the median of the others. A large variance is no defect: the noise model says how
    little such a pixel knows.
    """
    maps = [np.asarray(m, dtype=np.float64) for m in (offset, gain, variance)]
    shape = np.broadcast_shapes(*(m.shape for m in maps))
    o, g, v = (np.broadcast_to(m, shape) for m in maps)
    bad = ~(np.isfinite(o) & np.isfinite(g) & np.isfinite(v) & (g > 0) & (v >= 0))
    middle = np.median(g[~bad]) if not bad.all() else 1.0
    bad |= (g > tolerance * middle) | (g < middle / tolerance)
    # a defect in one map is a defect of the pixel; a scalar stays one, so that no map is made of it
    clean_offset, clean_gain, clean_variance = (
        _replaced(_finite(m), bad if m.ndim else np.zeros((), dtype=bool)) for m in maps
    )
    noise = Noise(1 / clean_gain, clean_variance, clean_offset)
    given = {"offset": noted(offset), "gain": noted(gain), "variance": noted(variance), "tolerance": tolerance}
    return _assign(frame, noise, bad, None, Record("calibrate.assign_maps", given))


def _finite(m: Array) -> Param:
    return float(m) if m.ndim == 0 else np.where(np.isfinite(m), m, 0)


def _assign(frame: Frame, noise: Noise, bad: Array, saturation: Param | None, record: Record) -> Frame:
    frame.need(record.step, Unit.ADU)
    done = sorted({r.step for r in frame.history} & (OFFSET_STEPS | MAP_STEPS))
    if done:
        raise FrameError(f"{record.step}: the frame has been through {', '.join(done)}; give the detector to the raw frame")
    for name in ("a", "b", "offset"):
        spread(getattr(noise, name), frame.shape)
    observation = frame.observation if saturation is None else replace(frame.observation, saturation=saturation)
    flags = mark(frame.flags, bad, Flag.DEFECT, frame.shape)
    return frame.replace(noise=noise, observation=observation, flags=flags, history=(*frame.history, record))


def _replaced(value: Param, bad: Array) -> Param:
    if isinstance(value, float) or not bad.any():
        return value
    if bad.all():
        raise FrameError("calibrate.assign: every pixel of the gain map is a defect; is it in e-/ADU?")
    return np.where(bad, np.median(value[~np.broadcast_to(bad, value.shape)]), value)


def flag_saturated(frame: Frame, *, level: Param | None = None) -> Frame:
    """Sets SATURATED where data reach `level` [the frame's unit; scalar, CFA cell or map]; data unchanged.

    `level` None: the observation's own saturation, which affine steps carry along. Raises FrameError where it is unknown,
    or where maps (bias, dark, flat, stack) have already been applied, after which no one level tells.
    """
    done = sorted({r.step for r in frame.history} & MAP_STEPS)
    level = frame.observation.saturation if level is None else level
    if level is None or done:
        why = f"after {', '.join(done)} no one level tells" if done else "the saturation level is unknown"
        raise FrameError(f"calibrate.flag_saturated: {why}; flag the raw frame, with level= where its file states none")
    return frame.then("calibrate.flag_saturated", {"level": noted(level)}, flags=_saturated(frame, level))


def _saturated(frame: Frame, level: Param) -> Any:
    data = np.asarray(frame.data)
    at = np.asarray(spread(np.asarray(level)[()] if np.ndim(level) else float(level), frame.shape))
    if data.dtype.kind == "f":
        at = at - 4 * np.spacing(np.abs(at).astype(np.float32))  # the level was rounded another way than the data
    return mark(frame.flags, data >= at, Flag.SATURATED, frame.shape)


def subtract_offset(frame: Frame, *, offset: Param | None = None) -> Frame:
    """ADU minus offset [ADU; scalar, CFA cell or map], float; the noise model's offset becomes 0. Negatives are kept.

    `offset` None: the noise model's, or where there is none the file's own. Raises FrameError where it is unknown, or has
    been removed before.
    """
    frame.need("calibrate.subtract_offset", Unit.ADU)
    refuse_twice(frame, "calibrate.subtract_offset")
    if offset is None:
        offset = _known_offset(frame, "calibrate.subtract_offset")
    elif isinstance(frame.noise, Noise) and not np.any(frame.noise.offset) and np.any(offset):
        raise FrameError(
            "calibrate.subtract_offset: the noise model says that zero signal is at 0 ADU, so the offset seems to be removed "
            f"already; got offset={noted(offset)}. If the frame is raw, assign its detector first"
        )
    noise = frame.noise if isinstance(frame.noise, Unmodelled) else replace(frame.noise, offset=0.0)
    moved = without_black(frame, _moved(frame, lambda x: x - offset, offset))
    data = floated(frame) - _at(offset, frame)
    return frame.then("calibrate.subtract_offset", {"offset": noted(offset)}, data=data, noise=noise, **moved)


def to_electrons(frame: Frame, *, gain: Param | None = None) -> Frame:
    """Electrons = gain (ADU - offset), float; gain [e-/ADU; scalar, CFA cell or map], the noise model's 1/a where None.

    An offset that is still there (in the noise model, or else stated by the file) is removed, never twice. std and
    saturation are scaled along. Raises FrameError where offset or gain is unknown: a frame averaged or divided by a flat no
    longer tells its gain.
    """
    frame.need("calibrate.to_electrons", Unit.ADU)
    gain = _own_gain(frame) if gain is None else gain
    offset = _known_offset(frame, "calibrate.to_electrons")
    if np.any(np.asarray(gain) <= 0):
        raise FrameError(f"calibrate.to_electrons: gain {noted(gain)} e-/ADU, expected positive numbers")
    noise = frame.noise if isinstance(frame.noise, Unmodelled) else replace(frame.noise, offset=0.0).scaled(_as_param(gain))
    data = floated(frame) - _at(offset, frame)
    data *= _at(gain, frame)
    moved = without_black(frame, _moved(frame, lambda x: (x - offset) * gain, offset, gain))
    std = None if frame.std is None else np.asarray(frame.std) * _at(gain, frame)
    params = {"gain": noted(gain), "offset": noted(offset)}
    return frame.then("calibrate.to_electrons", params, data=data, unit=Unit.ELECTRON, noise=noise, std=std, **moved)


def _known_offset(frame: Frame, step: str) -> Param:
    """Where zero signal lies [ADU]: the noise model's offset; without one 0 once removed, or the file's own."""
    if isinstance(frame.noise, Noise):
        return frame.noise.offset
    if offset_removed(frame):
        return 0.0
    if frame.observation.offset is None:
        raise FrameError(
            f"{step}: the offset is unknown ({frame.noise.reason}); assign a detector, or give subtract_offset one"
        )
    return frame.observation.offset


def _own_gain(frame: Frame) -> Param:
    noise = frame.known_noise("calibrate.to_electrons without gain=")
    done = sorted({r.step for r in frame.history} & GAIN_STEPS)
    if done or not np.all(np.asarray(noise.a) > 0):
        why = f"after {', '.join(done)}" if done else "without shot noise"
        raise FrameError(f"calibrate.to_electrons: {why} the noise model does not tell the gain; pass gain= in e-/ADU")
    return 1 / noise.a


def to_counts(frame: Frame, *, exposure: float | None = None) -> Frame:
    """Electrons from electron/s (or ADU from adu/s) by the exposure [s], the observation's own where None; float.

    Noise, std and saturation are scaled along. Raises FrameError for another unit or an unknown exposure.
    """
    counts = {Unit.ELECTRON_RATE: Unit.ELECTRON, Unit.ADU_RATE: Unit.ADU}
    frame.need("calibrate.to_counts", *counts)
    t = frame.observation.exposure if exposure is None else exposure
    if t is None or not t > 0:
        raise FrameError(f"calibrate.to_counts: exposure {t}, expected seconds; pass exposure=")
    t = float(t)
    noise = frame.noise if isinstance(frame.noise, Unmodelled) else frame.noise.scaled(t)
    std = None if frame.std is None else np.asarray(frame.std) * t
    moved = _moved(frame, lambda x: x * t)
    data = floated(frame) * _at(t, frame)
    return frame.then("calibrate.to_counts", {"exposure": t}, data=data, unit=counts[frame.unit], noise=noise, std=std, **moved)


def documented(frame: Frame, *, gain: float, read_noise: float) -> Frame:
    """The documented profile: "electrons" = ADU * gain - read_noise, float32, computed in double and rounded once.

    Wrong on purpose, for data sets made this way, and says so in a UserWarning: read noise is a zero-mean RMS, no offset,
    and the true offset stays in the data as if it were light. The noise model is the true law under that affine map.
    """
    frame.need("calibrate.documented", Unit.ADU)
    warnings.warn(
        f"calibrate.documented: subtracts the read noise ({read_noise:g} e-) as if it were an offset and leaves the detector's "
        f"offset in: values are wrong by gain*offset - read_noise; physical is gain*(ADU - offset), calibrate.to_electrons",
        UserWarning,
        stacklevel=2,
    )
    refuse_twice(frame, "calibrate.documented")
    k, r = float(gain), float(read_noise)
    noise = frame.noise if isinstance(frame.noise, Unmodelled) else frame.noise.scaled(k).shifted(-r)
    data = np.asarray(np.asarray(frame.data, dtype=np.float64) * k - r, dtype=np.float32)
    std = None if frame.std is None else np.asarray(frame.std) * k
    moved = _moved(frame, lambda x: x * k - r)
    params = {"gain": k, "read_noise": r}
    return frame.then("calibrate.documented", params, data=data, unit=Unit.ELECTRON, noise=noise, std=std, **moved)


def refuse_twice(frame: Frame, step: str) -> None:
    """Raises FrameError where the frame's history says that its offset has been removed."""
    done = [r.step for r in frame.history if r.step in OFFSET_STEPS]
    if done:
        raise FrameError(f"{step}: the offset was removed by {done[0]} already; start again from the raw frame")


def offset_removed(frame: Frame) -> bool:
    """True where the frame's history says that its offset has been removed."""
    return any(r.step in OFFSET_STEPS for r in frame.history)


def offset_free(frame: Frame) -> bool:
    """True where zero signal is at 0: by the noise model, by the history, or because the unit is not raw counts."""
    if isinstance(frame.noise, Noise):
        return not np.any(frame.noise.offset)
    stated = frame.observation.offset
    return frame.unit is not Unit.ADU or offset_removed(frame) or (stated is not None and not np.any(stated))


def floated(frame: Frame) -> Array:
    """The data as float32, or float64 where they were 64-bit floats or wide integers."""
    return np.asarray(frame.data, dtype=_real(frame))


def mark(flags: Any, where: ArrayLike, bit: Flag, shape: tuple[int, ...]) -> Any:
    """Flags with `bit` OR-ed in; unchanged (None too) where no pixel is concerned, never larger than they need be."""
    where = np.asarray(where)
    if not where.any():
        return flags
    new = np.asarray(spread(where * np.uint8(bit), shape), dtype=np.uint8)
    new = np.broadcast_to(new, shape[-2:]) if new.ndim < 2 else new
    return new if flags is None else np.bitwise_or(flags, new)


def noted(value: Any) -> Any:
    """A parameter as history keeps it: numbers, lists for CFA cells, a description for maps and frames."""
    if isinstance(value, Frame):
        return value.observation.source or f"frame of shape {value.shape}"
    if isinstance(value, Mapping) or not isinstance(value, np.ndarray):
        return value.item() if isinstance(value, np.generic) else value
    return value.tolist() if value.size <= CELL * CELL else f"map of shape {value.shape}, median {np.nanmedian(value):.6g}"


def carry_saturation(frame: Frame) -> dict[str, Any]:
    """What a step that applies a map changes: saturated pixels flagged while the level still tells, the level dropped."""
    level = frame.observation.saturation
    if level is None:
        return {}
    return {"flags": _saturated(frame, level), "observation": replace(frame.observation, saturation=None)}


def without_black(frame: Frame, changes: dict[str, Any]) -> dict[str, Any]:
    """The changes of a step that removes the offset: what the file states of it is 0 from now on."""
    observation = changes.get("observation", frame.observation)
    return changes if observation.offset is None else changes | {"observation": replace(observation, offset=0.0)}


def _moved(frame: Frame, move: Callable[[Any], Any], *params: Any) -> dict[str, Any]:
    level = frame.observation.saturation
    if level is None:
        return {}
    sizes = [np.shape(p) for p in (level, *params)]
    cells = all(not s or max(s) <= CELL for s in sizes) and len({s for s in sizes if s}) <= 1
    if not cells:
        return carry_saturation(frame)
    return {"observation": replace(frame.observation, saturation=_as_param(move(level)))}


def _as_param(value: Any) -> Param:
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


def _at(value: Any, frame: Frame) -> Any:
    """A parameter over the frame's pixels, in the data's precision."""
    return np.asarray(spread(_as_param(value), frame.shape), dtype=_real(frame))


def _real(frame: Frame) -> np.dtype[Any]:
    return np.result_type(frame.data.dtype, np.float32)
