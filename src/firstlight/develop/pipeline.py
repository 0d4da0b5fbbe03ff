"""A raw frame developed: scene-linear Rec.2020 with diffuse white at 1, and from there the codes of a display.

Order: saturation flagged, black level, white balance, demosaicking with denoising in the noise's own curve, highlights, the
camera's matrix, exposure, orientation. Nothing is clipped before `render`; nothing depends on the picture's own maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight import calibrate
from firstlight.calibrate.balance import multipliers_of
from firstlight.develop import hlg
from firstlight.develop.colour import compress_gamut, convert, matrix_of, rgb_to_xyz, to_rec2020
from firstlight.develop.exposure import expose, upright
from firstlight.develop.highlights import neutral, reached
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import Mosaic
from firstlight.io.rendered import Kind, Rendered
from firstlight.noise import Noise, Unmodelled, spread
from firstlight.restore import demosaic
from firstlight.restore.demosaic import Method

if TYPE_CHECKING:
    from firstlight.model_file import Model

__all__ = ["Camera", "camera", "develop", "finished", "prepared", "render"]

Array = NDArray[Any]
ELECTRONS, READ = 60000, 3  # at saturation: the curve in which colours are interpolated where no noise is known
START = {"hlg": 0.5, "linear": 0.5, "srgb": 0.8}  # of the display's peak, where the shoulder begins
DENOISED = "develop.mosaic_raw"  # the step after which a mosaic's noise is off already
BITS = {"hlg": (10,), "srgb": (8, 16), "linear": (32, 16)}
ROWS = 32  # rows rendered at once, which a cache holds


def develop(
    frame: Frame,
    *,
    method: Method = "auto",
    model: str | Model | None = None,
    denoise: Literal["auto", "off"] | float = "auto",
    ensemble: bool = False,
    keep_samples: bool = False,
    wb: Sequence[float] | None = None,
    ev: float = 0.0,
    white: float | None = None,
    bf16: bool | None = None,
) -> Frame:
    """Scene-linear Rec.2020 (C, Y, X), diffuse white 1, float32, upright, of a camera's raw frame as `io.read` gives it.

    frame: a mosaic (Y, X) of R, G and B, a monochrome sensor's (Y, X) or colours that their writer demosaicked (C, Y, X),
    [ADU] with the black level still in, or any unit without one; saturation, balance and matrix in its observation. method,
    model, ensemble, keep_samples, bf16: as in `restore.demosaic`. denoise: "auto", by the frame's noise, which is estimated
    from the picture (`calibrate.transfer_single`) where the frame knows none, and not at all where the history says that the
    mosaic was denoised (`develop.mosaic_raw`); "off", interpolated only; a number, times the noise's standard deviation. wb:
    multipliers of R, G, B; None: the camera's. ev: stops brighter. white: where diffuse white lies, a share of saturation;
    None: as the file's tags say (`develop.expose`).

    Negatives and values above 1 are kept; flags mark SATURATED wherever a saturated sample entered a colour, and colours are
    grey there. Monochrome frames become three equal colours; those and colours that come demosaicked are not denoised, and
    `denoise` must not be a number for them. Raises FrameError for what is missing or does not apply, and what to do.
    """
    finishable(frame)
    light = prepared(frame, denoise=denoise)
    del frame
    return finished(
        camera(
            light,
            method=method,
            model=model,
            denoise=denoise,
            ensemble=ensemble,
            keep_samples=keep_samples,
            wb=wb,
            bf16=bf16,
        ),
        ev=ev,
        white=white,
    )


class Camera(NamedTuple):
    """White-balanced camera colours, and what is needed to finish or to undo them.

    frame: R, G and B (C, Y, X), or the plane (Y, X) of a monochrome sensor, black at 0; saturated (Y, X): colours that a
    saturated sample entered; ceilings: levels [unit] at which R, G and B saturate; gains: what R, G and B were multiplied by;
    mosaic: of the samples, None where there was none; level [unit]: the lowest at which a sample saturates, before balancing.
    """

    frame: Frame
    saturated: NDArray[np.bool_]
    ceilings: tuple[float, float, float]
    gains: tuple[float, float, float]
    mosaic: Mosaic | None
    level: float


def finishable(frame: Frame) -> None:
    """Raises FrameError, before any work, where colours could not be finished: their matrix alone is unknown."""
    mosaic = frame.geometry if isinstance(frame.geometry, Mosaic) else None
    colours = frame.axes == "CYX" or (mosaic is not None and set(mosaic.colors) == set("RGB"))
    if colours and frame.observation.saturation is not None and frame.observation.white_balance is not None:
        matrix_of(frame)


def prepared(frame: Frame, *, denoise: Literal["auto", "off"] | float = "auto") -> Frame:
    """The raw frame with its saturated samples flagged, its noise known or estimated, black at 0: `develop`'s first part."""
    mosaic = frame.geometry if isinstance(frame.geometry, Mosaic) else None
    strength = _strength(frame, denoise, mosaic)
    return _dark(_marked(frame), strength)


def camera(
    frame: Frame,
    *,
    method: Method = "auto",
    model: str | Model | None = None,
    denoise: Literal["auto", "off"] | float = "auto",
    ensemble: bool = False,
    keep_samples: bool = False,
    wb: Sequence[float] | None = None,
    bf16: bool | None = None,
) -> Camera:
    """A `prepared` frame balanced and demosaicked: `develop`'s second part, parameters as there. Raises FrameError."""
    mosaic = frame.geometry if isinstance(frame.geometry, Mosaic) else None
    strength = _strength(frame, denoise, mosaic)
    if mosaic is None and (method != "auto" or model is not None or ensemble or keep_samples):
        raise FrameError("develop: the frame is no mosaic, where method, model, ensemble and keep_samples have no meaning")
    if mosaic is None and frame.axes == "YX" and wb is not None:
        raise FrameError("develop: the frame is monochrome, where wb has no meaning; leave it out")
    level = float(np.min(np.asarray(frame.observation.saturation)))
    if mosaic is None and frame.axes == "YX":
        return Camera(frame, reached(frame), (level,) * 3, (1.0,) * 3, None, level)
    gains = _gains(frame, mosaic, wb)
    frame = calibrate.white_balance(frame, multipliers=wb)
    tops, hit = _ceilings(frame, mosaic), reached(frame, mosaic)
    if mosaic is not None:
        frame = demosaic(
            frame, method=method, model=model, strength=strength, ensemble=ensemble, keep_samples=keep_samples, bf16=bf16
        )
    return Camera(frame, hit, tops, gains, mosaic, level)


def _gains(frame: Frame, mosaic: Mosaic | None, wb: Sequence[float] | None) -> tuple[float, float, float]:
    """What white balance multiplies R, G and B by, whatever their order in the mosaic; 1 where it has no such colour."""
    found = dict(zip("RGB" if mosaic is None else mosaic.colors, multipliers_of(frame, wb), strict=True))
    r, g, b = (float(found.get(c, 1.0)) for c in "RGB")
    return r, g, b


def finished(seen: Camera, *, ev: float = 0.0, white: float | None = None) -> Frame:
    """Camera colours as scene-linear Rec.2020, upright: `develop`'s last part, parameters as there."""
    frame, hit, tops, mosaic = seen.frame, seen.saturated, seen.ceilings, seen.mosaic
    del seen  # its colours end where the next step's begin
    if mosaic is None and frame.axes == "YX":
        return _grey(frame, ev, white)
    frame = neutral(frame, saturated=hit, ceilings=tops)
    flags = calibrate.detector.mark(frame.flags, hit, Flag.SATURATED, frame.shape)
    frame = to_rec2020(frame.replace(flags=flags))
    return upright(expose(frame, ev=ev, white=white, saturation=tops[1]))


def _strength(frame: Frame, denoise: str | float, mosaic: Mosaic | None) -> float:
    """Times the noise's standard deviation."""
    again = any(record.step == DENOISED for record in frame.history)
    given = {"auto": 0.0 if again else 1.0, "off": 0.0}.get(denoise) if isinstance(denoise, str) else float(denoise)
    if given is None or not (np.isfinite(given) and given >= 0):
        raise FrameError(f"develop: denoise {denoise!r}, expected auto, off, or a factor from 0 up")
    if mosaic is None and not isinstance(denoise, str) and given > 0:
        what = "monochrome" if frame.axes == "YX" else "demosaicked by its writer"
        raise FrameError(f"develop: the frame is {what}, where denoise has no meaning; leave it out and use restore.denoise")
    return given


def _marked(frame: Frame) -> Frame:
    if frame.axes not in ("YX", "CYX"):
        raise FrameError(f"develop: axes {frame.axes!r}, expected one raw image, YX or CYX")
    if frame.observation.saturation is None:
        raise FrameError("develop: the saturation level is unknown, so exposure is; give it (--detector saturation=...)")
    return calibrate.flag_saturated(frame)


def _dark(frame: Frame, strength: float) -> Frame:
    """The frame with its noise, its black level taken off once."""
    if isinstance(frame.geometry, Mosaic) and isinstance(frame.noise, Unmodelled):
        frame = _estimated(frame) if strength > 0 else frame
    if frame.unit is Unit.ADU and not calibrate.detector.offset_removed(frame):
        frame = calibrate.subtract_offset(frame)
    if isinstance(frame.geometry, Mosaic) and isinstance(frame.noise, Unmodelled):
        level = frame.observation.saturation
        assert level is not None  # _marked has seen to it
        a = float(np.min(level)) / ELECTRONS
        frame = frame.then("develop.curve", {"electrons": ELECTRONS, "read_noise": READ}, noise=Noise(a, (READ * a) ** 2))
    return frame


def _estimated(frame: Frame) -> Frame:
    assert isinstance(frame.noise, Unmodelled)
    try:
        found = calibrate.transfer_single(frame).detector
    except FrameError as error:
        raise FrameError(
            f"develop: the noise is unknown ({frame.noise.reason}) and cannot be estimated ({error}); pass a detector, or "
            "denoise='off'"
        ) from error
    known = frame.observation.offset
    offset = found.offset if known is None else known
    return calibrate.assign(frame, detector=replace(found, offset=offset, saturation=None))


def _ceilings(frame: Frame, mosaic: Mosaic | None) -> tuple[float, float, float]:
    """The level at which R, G and B saturate; the lower where two greens differ."""
    level = frame.observation.saturation
    assert level is not None  # _marked has seen to it
    if mosaic is None:
        r, g, b = (float(v) for v in np.broadcast_to(np.ravel(np.asarray(level)), 3))
        return r, g, b
    side = tuple(int(np.lcm(m, n)) for m, n in zip(mosaic.period, (np.shape(level) or (1, 1)), strict=True))
    color = np.array(list(mosaic.colors))[mosaic.at((side[0], side[1]))]
    cell = np.broadcast_to(spread(level if np.ndim(level) else float(np.asarray(level)), side), side)
    r, g, b = (float(np.min(cell[color == c])) if np.any(color == c) else 1.0 for c in "RGB")
    return r, g, b


def _grey(frame: Frame, ev: float, white: float | None) -> Frame:
    """A monochrome frame as three equal colours."""
    plane = expose(frame, ev=ev, white=white)
    back = tuple(tuple(float(v) for v in row) for row in np.linalg.inv(rgb_to_xyz("rec2020")))
    seen = replace(plane.observation, color_matrix=back, white_balance=(1.0,) * 3)
    data = np.repeat(np.asarray(plane.data, dtype=np.float32)[None], 3, axis=0)
    reason = Unmodelled("one plane as three colours: their noise is the same")
    return upright(
        plane.then("develop.monochrome", data=data, axes="CYX", unit=Unit.REC2020, noise=reason, std=None, observation=seen)
    )


def render(
    frame: Frame,
    *,
    transfer: Literal["hlg", "srgb", "linear"] = "hlg",
    bits: int | None = None,
    white_nits: float = hlg.WHITE,
) -> Rendered:
    """Codes (3, Y, X) of a developed frame, full range; out of gamut drawn inside, highlights bent over, nothing cut off.

    hlg: Rec.2020, 10 bits, E = 0.2650 of diffuse white at 203 nits (`develop.hlg`), shoulder from E = 0.5. srgb: its primaries
    and curve, 8 or 16 bits, diffuse white at 1, shoulder from 0.8. linear: Rec.2020; 32 bits are float32 as they are,
    negatives kept; 16 bits E as for HLG, shoulder from 0.5. white_nits: of diffuse white on a display of 1000 nits; of sRGB
    that over 203. bits None: the first named. Raises FrameError for a frame that is not developed or other bits.
    """
    frame.need("develop.render", Unit.REC2020)
    if transfer not in BITS or (bits is not None and bits not in BITS[transfer]):
        raise FrameError(f"develop.render: {transfer!r} of {bits} bits, expected hlg (10), srgb (8, 16) or linear (32, 16)")
    depth = bits or BITS[transfer][0]
    kind = Kind(transfer, "srgb" if transfer == "srgb" else "rec2020", depth)
    told = {"transfer": transfer, "bits": depth, "white_nits": white_nits}
    data = np.asarray(frame.data, dtype=np.float32)
    if depth == 32:
        hlg.scene(data[:, :1, :1], white_nits)  # refuses levels that there are not
        scaled = data if white_nits == hlg.WHITE else data * np.float32((white_nits / hlg.WHITE) ** (1 / hlg.GAMMA))
        return Rendered(frame.then("develop.render", told, data=scaled), kind)
    out = np.empty(data.shape, dtype=np.uint8 if depth == 8 else np.uint16)
    for y in range(0, data.shape[1], ROWS):
        part = np.s_[:, y : y + ROWS]
        out[part] = np.rint(_signal(data[part], transfer, white_nits) * np.float32(2**depth - 1))
    return Rendered(frame.then("develop.render", told, data=out, unit=Unit.DISPLAY), kind)


def _signal(rgb: Array, transfer: str, white_nits: float) -> Array:
    """The display's signal 0..1 of light relative to diffuse white."""
    light = hlg.scene(rgb, white_nits)
    if transfer == "srgb":
        light = convert(light / np.float32(hlg.REFERENCE), "rec2020", "srgb")
    bent = hlg.shoulder(compress_gamut(light), START[transfer])
    return bent if transfer == "linear" else hlg.oetf(bent) if transfer == "hlg" else _srgb(bent)


def _srgb(x: Array) -> Array:
    """The curve of IEC 61966-2-1, 0..1."""
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** np.float32(1 / 2.4) - 0.055).astype(x.dtype)
