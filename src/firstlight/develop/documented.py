"""Document 4's HDR inference as published, for comparison: warned of wherever it departs from `develop` and `render`."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from firstlight.calibrate.balance import multipliers_of
from firstlight.develop import hlg
from firstlight.develop.exposure import upright
from firstlight.develop.pipeline import ROWS
from firstlight.errors import FrameError, ModelError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Mosaic
from firstlight.io.rendered import HLG, Rendered
from firstlight.noise import Noise
from firstlight.restore import demosaic

if TYPE_CHECKING:
    from firstlight.model_file import Model

__all__ = ["DEPARTURES", "documented"]

DEPARTURES = (
    "one black and one white level for all channels, the first; cameras state one for each",
    "the network sees the mosaic without white balance, in linear light: channels that it compares do not match",
    "noise is not taken off",
    "tiles of 288 px blended over 48 px do not equal the whole: seams",
    "camera colours are taken for Rec.2020, without the camera's matrix: they are not the scene's",
    "saturated highlights keep the tint that white balance gives them",
    "full scale is the HLG peak: 18 % grey at 84 nits instead of 26, white at 657 instead of 203, and more is cut off",
)


def documented(frame: Frame, *, model: str | Model) -> Rendered:
    """HLG codes (3, Y, X) of 10 bits, upright, of a raw mosaic (Y, X) [ADU] as document 4's `infer_hdr.py` makes them.

    (cfa - black) / (white - black), nothing clipped; the network; balance; HLG's curve on [0, 1]; cut off there. model: one
    that was trained so (`train demosaic --net unet --profile documented`). Warns of every departure. Raises FrameError for
    another frame, ModelError for a model of balanced mosaics.
    """
    from firstlight import model_file

    found = model_file.load(model) if isinstance(model, str) else model
    if found.scaling.get("balanced", True) or found.scaling.get("light") != "linear":
        raise ModelError(
            "profile documented: this model learned on balanced mosaics; give one of its own profile, or leave it out"
        )
    light = _linear(frame)
    gains = np.asarray(multipliers_of(frame), dtype=np.float32)[:, None, None]
    for text in DEPARTURES:
        warnings.warn(f"profile documented: {text}", UserWarning, stacklevel=2)
    colors = upright(demosaic(light, method="net", model=model))
    data = np.empty(colors.shape, dtype=np.uint16)
    for y in range(0, data.shape[1], ROWS):
        e = np.maximum(np.asarray(colors.data[:, y : y + ROWS]) * gains, 0)
        data[:, y : y + ROWS] = np.rint(np.minimum(hlg.oetf(e), 1) * np.float32(1023))
    told = {"model": model if isinstance(model, str) else None, "gains": [float(g) for g in gains.ravel()]}
    return Rendered(colors.then("develop.documented", told, data=data, unit=Unit.DISPLAY, flags=None), HLG)


def _linear(frame: Frame) -> Frame:
    """The mosaic over its first white level, 0 at its first black level, without noise as far as the network knows."""
    seen = frame.observation
    if not isinstance(frame.geometry, Mosaic) or frame.axes != "YX" or frame.geometry.colors != "RGB":
        raise FrameError("profile documented: got a frame that is no mosaic of R, G and B; expected a raw file of one")
    if seen.offset is None or seen.saturation is None or frame.unit is not Unit.ADU:
        raise FrameError("profile documented: black or white level unknown; expected raw counts of a file that states them")
    black, white = float(np.ravel(seen.offset)[0]), float(np.ravel(seen.saturation)[0])
    if not white > black:
        raise FrameError(f"profile documented: black level {black:g}, white level {white:g}; expected white above black")
    data = (np.asarray(frame.data).astype(np.float32) - np.float32(black)) / np.float32(white - black)
    levels = replace(seen, offset=0.0, saturation=1.0)
    return frame.then(
        "develop.full_scale", {"black": black, "white": white}, data=data, noise=Noise(0.0, 0.0), observation=levels
    )
