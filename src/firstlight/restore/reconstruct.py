"""Filtered backprojection: line integrals of attenuation to a volume, absolute, by the gridding engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.needs import needs
from firstlight.noise import Unmodelled, spread

__all__ = ["ALGORITHMS", "reconstruct", "scan_of", "volume"]

Array = NDArray[Any]
ALGORITHMS = ("fbp", "gridrec", "fourierrec", "linerec")
SOME = 64  # projections of linerec filtered at a time, at most
EDGE = 4  # columns whose mean continues a projection beyond the detector: one noisy column would draw a streak
STEP = "restore.reconstruct"


def _copies(frame: Frame, *, algorithm: str = "fbp", size: int | None = None, std: bool = False, **_: Any) -> float:
    """The section, the slices, filtered projections of linerec, variances and their slices."""
    slices = (size or frame.shape[2]) ** 2 / (frame.shape[0] * frame.shape[2])
    return 1.25 + slices + (1.25 if algorithm == "linerec" else 0) + (1.5 + 1.25 * slices if std else 0)


def _fixed(
    frame: Frame, *, algorithm: str = "fbp", size: int | None = None, std: bool = False, section_rows: int = 16, **_: Any
) -> float:
    from firstlight.operators.gridding import padded, workspace

    angles, columns = frame.shape[0], frame.shape[2]
    side = columns if size is None else size
    if algorithm == "linerec" and not std:
        return 64.0 * SOME * padded(columns)
    again = 8 * angles * padded(max(columns, side)) if std else 0
    return workspace(angles, columns, side, section_rows) + again


@needs(halo=0, copies=_copies, fixed=_fixed)
def reconstruct(
    frame: Frame,
    *,
    algorithm: str = "fbp",
    filter: str = "ramp",
    center: float | Sequence[float] | None = None,
    size: int | None = None,
    padding: str = "edge",
    std: bool = False,
    device: str = "cpu",
    workers: int | None = None,
) -> Frame:
    """Attenuation (Z, Y, X) [1/mm, float32] of optical depth (A, Y, X); per pixel where the scan states no pixel size.

    algorithm: fbp, gridrec and fourierrec are names of one engine, exact to 1e-5; linerec is the plain backprojection. filter:
    ramp, shepp, cosine, cosine2, hann, hamming, parzen, butterworth, none. center [px along X]: of the scan by default, one or
    one per detector row. size: side of the slices [px], the detector's width by default; the rotation axis lies at
    (size - 1) / 2. padding: "edge" continues projections that the detector cuts, "zero" does not. std: standard error per
    voxel from the noise of the projections (1/N0 of a shared flat makes rings instead and is left out). Angles may be
    non-uniform or limited; each stands for the half turn nearest to it. device: cpu, compiled loops; cuda or cuda:0, the same
    engine on a GPU, equal to 1e-5 of the maximum; torch, that one on the processor. Noise becomes Unmodelled: neighbours
    correlate. Kak and Slaney (1988), chapter 3. Raises FrameError for another unit, no centre, or numbers that are not finite.
    """
    if algorithm not in ALGORITHMS:
        raise FrameError(f"{STEP}: algorithm {algorithm!r}, expected one of {', '.join(ALGORITHMS)}; iterative ones are steps")
    if padding not in ("edge", "zero"):
        raise FrameError(f"{STEP}: padding {padding!r}, expected edge or zero")
    scan, data, centers = scan_of(frame, STEP, center)
    side = data.shape[2] if size is None else size
    if side != int(side) or side < 1 or (workers is not None and workers < 1):
        raise FrameError(f"{STEP}: size {size}, workers {workers}; expected whole numbers from 1")
    if algorithm == "linerec" and device != "cpu":
        raise FrameError(f"{STEP}: linerec runs on the cpu only, got device {device!r}; take fbp there")
    edge = EDGE if padding == "edge" else 0
    if algorithm == "linerec":
        slices = _line(data, scan.angles, centers, filter, side, edge, workers)
    else:
        slices = _gridded(data, scan.angles, centers, filter, side, edge, workers, device)
    error = _std(frame, scan, centers, filter, side, workers, device) if std else None
    params = {"algorithm": algorithm, "filter": filter, "size": side, "padding": padding, "std": std}
    return volume(frame, slices, error, STEP, params | {"center": _plain(centers)})


def scan_of(frame: Frame, step: str, center: float | Sequence[float] | None = None) -> tuple[Scan, Array, Array]:
    """The scan, its data (A, Y, X) float32, and the centre of each row [px]; raises FrameError for what cannot be used."""
    frame.need(step, Unit.OPTICAL_DEPTH)
    scan = frame.geometry
    if not isinstance(scan, Scan) or frame.axes != "AYX":
        raise FrameError(f"{step}: got axes {frame.axes} without a scan, expected AYX with the angle of each projection")
    found = scan.center if center is None else np.asarray(center, dtype=np.float64)
    if found is None:
        raise FrameError(f"{step}: the rotation axis is unknown; run calibrate.find_center first, or give center=")
    if 0 in frame.shape:
        raise FrameError(f"{step}: a scan of {frame.shape}, expected at least one projection, row and column")
    if np.size(found) not in (1, frame.shape[1]):
        raise FrameError(f"{step}: {np.size(found)} centres for {frame.shape[1]} detector rows; give one, or one for each row")
    centers = np.broadcast_to(np.asarray(found, dtype=np.float64).reshape(-1), (frame.shape[1],))
    if not np.all((centers >= 0) & (centers <= frame.shape[2] - 1)):
        raise FrameError(
            f"{step}: centre {centers.min():g} px, expected one inside the {frame.shape[2]} columns of the detector"
        )
    data = np.asarray(frame.data, dtype=np.float32)
    return scan, data, centers


def volume(frame: Frame, slices: Array, std: Array | None, step: str, params: dict[str, Any]) -> Frame:
    """Slices [1/px] as a frame in 1/mm where the pixel is known, with spacing and history."""
    scan = frame.geometry
    pixel = scan.pixel if isinstance(scan, Scan) else None
    spacing: dict[str, float] = {}
    if pixel is not None:
        slices *= np.float32(1e3 / pixel)
        std = None if std is None else np.multiply(std, np.float32(1e3 / pixel), out=std)
        spacing = dict.fromkeys("ZYX", pixel)
    return frame.then(
        step,
        params,
        data=slices,
        axes="ZYX",
        unit=Unit.PER_PIXEL if pixel is None else Unit.ATTENUATION,
        noise=Unmodelled(f"{step}: neighbouring voxels are correlated"),
        std=std,
        flags=None,
        geometry=None,
        spacing=spacing,
    )


def _plain(centers: Array) -> float | list[float]:
    return float(centers[0]) if np.ptp(centers) == 0 else [float(c) for c in centers]


@lru_cache(maxsize=2)
def _geometry(angles: bytes, columns: int, size: int, workers: int | None, device: str) -> tuple[Any, Any]:
    """The geometry, and the engine that runs it: itself, or its twin on a torch device."""
    from firstlight.operators import Gridding

    grid = Gridding(np.frombuffer(angles), columns, size=size, workers=workers)
    if device == "cpu":
        return grid, grid
    from firstlight.operators.gridding_torch import TorchGridding

    return grid, TorchGridding(grid, device)


def _gridded(
    data: Array,
    angles: Array,
    centers: Array,
    filter: str,
    size: int,
    edge: int,
    workers: int | None,
    device: str = "cpu",
    power: int = 1,
) -> Array:
    """Slices [1/px]; power 2: their variance from that of the projections, through squared weights."""
    grid, engine = _geometry(angles.tobytes(), data.shape[2], size, workers, device)
    middle = float(centers.mean())
    waves = _waves(angles.tobytes(), data.shape[2], size, workers, device, filter, middle, power)
    turns = None if np.ptp(centers) == 0 else (centers - middle) / grid.width
    slices: Array = engine.adjoint(data, waves, turns=turns, edge=min(edge, data.shape[2]))
    return slices


@lru_cache(maxsize=2)
def _waves(
    angles: bytes, columns: int, size: int, workers: int | None, device: str, filter: str, center: float, power: int
) -> Array:
    """The response (A, width / 2 + 1) of phases, filter and weights of the angles; all sections share it."""
    from firstlight.operators.ramp import angle_weights, response, squared

    grid, _ = _geometry(angles, columns, size, workers, device)
    gain = response(filter, grid.width) if power == 1 else squared(response(filter, grid.width))
    waves: Array = grid.phases(center)
    waves *= gain.astype(np.float32)
    waves *= (angle_weights(np.frombuffer(angles)) ** power).astype(np.float32)[:, None]
    return waves


def _line(data: Array, angles: Array, centers: Array, filter: str, size: int, edge: int, workers: int | None) -> Array:
    from firstlight.operators.backproject import backproject, filtered
    from firstlight.operators.ramp import angle_weights

    q = filtered(data, filter, edge)
    q *= angle_weights(angles).astype(np.float32)[:, None, None]
    return backproject(q, angles, centers, size, workers=workers or len(os.sched_getaffinity(0)))


def _std(frame: Frame, scan: Scan, centers: Array, filter: str, size: int, workers: int | None, device: str) -> Array:
    """Standard error [1/px] from the independent noise of each projection."""
    noise = frame.known_noise(f"{STEP} with std")
    a, b, offset = (np.asarray(spread(p, frame.shape), dtype=np.float32) for p in (noise.a, noise.b, noise.offset))
    var = np.broadcast_to(b, frame.shape)
    if a.any():  # signed, so that the mean over noisy data is right
        var = np.subtract(frame.data, offset, dtype=np.float32)
        var *= a
        var += b
    found = _gridded(var, scan.angles, centers, filter, size, 0, workers, device, power=2)
    return np.sqrt(np.maximum(found, 0, out=found))
