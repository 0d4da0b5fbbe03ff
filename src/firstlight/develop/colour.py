"""Linear colours: from a camera's to a display's primaries, and out-of-gamut ones drawn inside along their hue."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.io import icc

__all__ = ["LUMA", "Space", "camera_matrix", "compress_gamut", "convert", "matrix_of", "mixed", "rgb_to_xyz", "to_rec2020"]

Array = NDArray[Any]
Space = Literal["rec2020", "srgb"]
BAND = 1 << 17  # px worked on at once, which a cache holds


def rgb_to_xyz(space: Space) -> NDArray[np.float64]:
    """The matrix (3, 3) from a space's linear R, G, B to X, Y, Z, white to Y = 1 (SMPTE RP 177)."""
    if space not in icc.CHROMATICITIES:
        raise FrameError(f"develop: space {space!r}, expected {' or '.join(icc.CHROMATICITIES)}")
    return icc.to_xyz(space)


LUMA = rgb_to_xyz("rec2020")[1]  # Y of Rec.2020's R, G, B: .2627, .6780, .0593


def camera_matrix(xyz_to_camera: ArrayLike, space: Space = "rec2020") -> NDArray[np.float64]:
    """The matrix (3, 3) from white-balanced camera R, G, B to linear colours of `space`, in which (1, 1, 1) stays (1, 1, 1).

    xyz_to_camera (3, 3): XYZ under D65 to camera, rows of any scale, as LibRaw and DNG's ColorMatrix give it. With A = its
    product with the space's matrix to XYZ, M is the inverse of A with each row divided by its sum (dcraw's rule): balancing
    has already made white neutral. Raises FrameError for another shape or a singular matrix.
    """
    camera = np.asarray(xyz_to_camera, dtype=np.float64)
    if camera.shape != (3, 3) or not np.all(np.isfinite(camera)):
        raise FrameError(
            f"develop.camera_matrix: a matrix of shape {camera.shape}, expected 3 x 3 finite numbers, R G B by XYZ"
        )
    product = camera @ rgb_to_xyz(space)
    white = product.sum(axis=1, keepdims=True)
    if np.any(white <= 0) or np.linalg.cond(product) > 1e6:
        raise FrameError("develop.camera_matrix: white is dark to a colour, or colours are alike; is it XYZ to camera?")
    return np.asarray(np.linalg.inv(product / white))


def convert(rgb: ArrayLike, source: Space, target: Space) -> Array:
    """Linear colours (3, ...) of one space in another's primaries, float32 or float64; nothing is clipped."""
    return mixed(np.linalg.solve(rgb_to_xyz(target), rgb_to_xyz(source)), rgb)


def mixed(matrix: ArrayLike, rgb: ArrayLike) -> Array:
    """Colours (3, ...) times a matrix (3, 3), float32 or float64."""
    rgb = np.asarray(rgb)
    kind = np.result_type(rgb.dtype, np.float32)
    m, flat = np.asarray(matrix, dtype=kind), rgb.reshape(3, -1)
    out = np.empty(flat.shape, dtype=kind)
    for start in range(0, flat.shape[1], BAND):
        part = slice(start, start + BAND)
        np.matmul(m, flat[:, part].astype(kind, copy=False), out=out[:, part])
    return out.reshape(rgb.shape)


def compress_gamut(rgb: ArrayLike) -> Array:
    """Linear colours (3, ...) without negatives, float32 or float64: drawn towards grey until none is, if one was.

    x' = m - (m - x) m / (m - min x) with m = max x: all distances from the achromatic axis shrink by one factor, as in the ACES
    reference gamut compression, so that hue and the brightest channel stay, colours inside stay as they are, and it is
    continuous. The luminance is no measure here: that of a bright blue outside the gamut may be below 0. Light of no positive
    channel becomes 0.
    """
    rgb = np.asarray(rgb)
    out = np.array(rgb, dtype=np.result_type(rgb.dtype, np.float32), order="C")  # of which flat is a view
    flat = out.reshape(3, -1)
    for start in range(0, flat.shape[1], BAND):
        part = flat[:, start : start + BAND]
        outside = np.flatnonzero(part.min(axis=0) < 0)
        x = part[:, outside]
        top = np.maximum(x.max(axis=0), 0)
        part[:, outside] = np.maximum(top - (top - x) * (top / (top - x.min(axis=0))), 0)
    return out


def to_rec2020(frame: Frame) -> Frame:
    """White-balanced camera colours (C, Y, X), linear, as Rec.2020; negatives (colours out of its gamut) are kept.

    Uses the observation's XYZ-to-camera matrix. Raises FrameError for another frame, or where there is no matrix.
    """
    if frame.axes != "CYX" or frame.shape[0] != 3:
        raise FrameError(f"develop.to_rec2020: axes {frame.axes!r} of shape {frame.shape}, expected R, G and B (CYX)")
    matrix = matrix_of(frame)
    back = tuple(tuple(float(v) for v in row) for row in np.linalg.inv(rgb_to_xyz("rec2020")))
    # the levels that colours ended at belong to camera colours: white's, the least, stays
    seen = replace(frame.observation, color_matrix=back, saturation=_whole(frame.observation.saturation))
    told = {"matrix": [[round(float(v), 6) for v in row] for row in matrix]}
    data = mixed(matrix, frame.data)
    return frame.then("develop.to_rec2020", told, data=data, unit=Unit.REC2020, std=None, observation=seen)


def matrix_of(frame: Frame) -> NDArray[np.float64]:
    """The matrix (3, 3) from a frame's balanced colours to Rec.2020. Raises FrameError where its file states none."""
    if frame.observation.color_matrix is None:
        camera = frame.observation.instrument or "the camera"
        raise FrameError(
            f"develop.to_rec2020: no colour matrix of {camera} is known; set observation.color_matrix (XYZ to camera)"
        )
    return camera_matrix(frame.observation.color_matrix)


def _whole(level: Any) -> float | None:
    return None if level is None else float(np.min(level))
