"""Camera colours and denoised mosaics as frames that other raw developers go on from, in the camera's own white balance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from firstlight.develop.exposure import stops, upright
from firstlight.develop.pipeline import Camera
from firstlight.errors import FrameError
from firstlight.frame import Frame, Observation
from firstlight.io.raw import Header
from firstlight.noise import Unmodelled

__all__ = ["linear_raw", "mosaic_raw"]

DENOISED = "denoised with its neighbours: the detector's noise is no longer in it"


def linear_raw(seen: Camera) -> Frame:
    """Linear camera colours (C, Y, X) before white balance and matrix, black 0, upright: what a LinearRaw DNG holds.

    Highlights are as they were measured. Balance, matrix, white level and exposure bias stay in the observation. Raises
    FrameError for a monochrome frame.
    """
    frame = seen.frame
    if frame.axes != "CYX":
        raise FrameError("develop.linear_raw: the frame is monochrome, a DNG of colours holds R, G and B; write tiff or jxl")
    data = np.asarray(frame.data) / np.array(seen.gains, dtype=np.float32)[:, None, None]
    told = {"gains": [1 / g for g in seen.gains]}
    return upright(frame.then("develop.linear_raw", told, data=data, flags=None, std=None, observation=_own(seen, "RGB")))


def mosaic_raw(seen: Camera) -> Frame:
    """The mosaic (Y, X) of the estimated colours, each sample of its own, before white balance, black 0: a denoised raw.

    It lies as it was recorded, orientation and all. Raises FrameError where there was no mosaic.
    """
    frame, mosaic = seen.frame, seen.mosaic
    if mosaic is None:
        raise FrameError("develop.mosaic_raw: the frame was no mosaic, so that none can be written; write dng, tiff or jxl")
    colors, (rows, cols) = np.asarray(frame.data), mosaic.period
    out = np.empty(frame.shape[-2:], dtype=np.float32)
    for (y, x), index in np.ndenumerate(mosaic.cell()):
        k = "RGB".index(mosaic.colors[index])
        np.multiply(colors[k, y::rows, x::cols], np.float32(1 / seen.gains[k]), out=out[y::rows, x::cols])
    changes: dict[str, Any] = {"axes": "YX", "geometry": mosaic, "noise": Unmodelled(DENOISED), "flags": None, "std": None}
    return frame.then("develop.mosaic_raw", data=out, observation=_own(seen, mosaic.colors), **changes)


def _own(seen: Camera, colors: str) -> Observation:
    """The observation as before balancing; the exposure bias that the file states as a tag that DNG knows."""
    observation = seen.frame.observation
    header, more = observation.header, stops(seen.frame)
    if isinstance(header, Header):
        tags = {k: v for k, v in header.tags.items() if k not in ("BaselineExposure", "MakerNote")}
        header = replace(header, tags=tags | ({"BaselineExposure": more} if more else {}))
    gains = tuple(dict(zip("RGB", seen.gains, strict=True))[c] for c in colors)
    return replace(observation, white_balance=gains, saturation=seen.level, offset=0.0, header=header)
