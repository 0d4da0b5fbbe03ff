"""One image file as tiles need it: downsampled, in electrons, with its fixed scaling and its grid.

physical    superpixels -> gain (ADU - offset), the gain from the user, the header or the table of cameras; else a refusal
documented  area means of RGGB cells -> ADU gain - read_noise with document 1's presets; `document0` with its own constants

Superpixels do not overlap and all that follows is pointwise, so electrons are made tile by tile, to the same bits: a worker
holds the image as read, and no second copy.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import calibrate, domains, intake, io, tiles
from firstlight.box import Box
from firstlight.calibrate.superpixel import FACTORS
from firstlight.dataset.rows import Source
from firstlight.errors import FirstlightError, FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Mosaic, Scan
from firstlight.noise import Noise, Param, Unmodelled
from firstlight.scaling import Scaling

__all__ = ["PROFILES", "TILE", "Prepared", "each", "grid_of", "plane_count", "prepare"]

PROFILES = ("physical", "documented", "document0")
TILE = 256
Step = Callable[[Frame], Frame]
# The documents' choice by the file's extension, then by the mosaic's period: (preset and grid, factor).
SONY, FUJI = ("sony", 2), ("fuji", 4)
CAMERAS = {".arw": SONY, ".raf": FUJI, (2, 2): SONY, (6, 6): FUJI}
UNITY = 4000.0  # ISO from which document 0 has its second row of the Sony


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image before its tiles: `image` (Y, X) or (C, Y, X) as the file has it, and how its parts become electrons.

    `factor` [px of the file] is the side of a pixel of the grid and of boxes; `channels` None for (Y, X). original: least and
    greatest finite value of the file's image. gain [e- per unit of the file], read_noise [e-] of one pixel of the file, None
    where unknown. `plane`: its number where the file holds several. `method` says where the figures come from.
    """

    image: Frame
    finish: Step
    scaling: Scaling
    original: tuple[float | None, float | None]
    gain: float
    read_noise: float | None
    method: str
    grid: tuple[tiles.Tile, ...]
    factor: int = 1
    channels: int | None = None
    plane: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(Y, X) or (C, Y, X) of the image [electron]."""
        lead = (self.channels,) if self.channels else ()
        return (*lead, *(n // self.factor for n in self.image.shape[-2:]))

    def electrons(self, box: Box | None = None) -> Frame:
        """The image [electron], or its part inside `box` (Y, X)."""
        return self.finish(self.image if box is None else self.image.crop(self._in_file(box)))

    def _in_file(self, box: Box) -> Box:
        y, x = (tuple(i * self.factor for i in edge) for edge in (box.start, box.stop))
        return Box(y, x)

    @property
    def frame(self) -> Frame:
        """The whole image [electron]."""
        return self.electrons()

    def noise(self) -> Noise | Unmodelled:
        """The noise of the whole image [electron], without its pixels."""
        blank = np.broadcast_to(np.zeros((), dtype=np.float32), self.image.shape)
        return self.finish(self.image.replace(data=blank, flags=None, std=None)).noise


def prepare(
    path: str | Path,
    source: Source,
    *,
    profile: str = "physical",
    plane: int | None = None,
    detector: str | None = None,
    unit: str | None = None,
) -> Prepared:
    """The image of a file, or its `plane` where it holds several; detector and unit as in `intake.complete`.

    Raises ReadError as `io.read` does, FrameError where the profile cannot say what the numbers are in electrons, where the
    image is smaller than a tile, or where the file holds several planes and none is named.
    """
    frame, said = _opened(path, profile, detector, unit)
    count = plane_count(frame, profile)
    if plane is None and count > 1:
        raise FrameError(f"{path}: holds {count} images along {frame.axes[:-2]}; name one, plane=0 to {count - 1}")
    return _prepared(frame, plane or 0, count, source, profile, said)


def each(
    path: str | Path,
    source: Source,
    *,
    profile: str = "physical",
    detector: str | None = None,
    unit: str | None = None,
    read: Callable[[str | Path], Frame] = io.read,
) -> Iterator[Prepared]:
    """Every image of a file, one after the other: physical takes each plane, documented the first. Raises as `prepare`.

    `read` stands in for `io.read` where the frame may be at hand already.
    """
    frame, said = _opened(path, profile, detector, unit, read)
    count = plane_count(frame, profile)
    for i in range(count):
        one = _prepared(frame, i, count, source, profile, said)
        if i == count - 1:
            del frame  # a mosaic is not kept beside its superpixels
        yield one


def plane_count(frame: Frame, profile: str) -> int:
    """Images in a frame: along every axis but C, Y, X; 1 for the documented profiles, which do not say and get the first."""
    return prod(n for n, a in zip(frame.shape, frame.axes, strict=True) if a not in "CYX") if profile == "physical" else 1


def _opened(
    path: str | Path,
    profile: str,
    detector: str | None,
    unit: str | None,
    read: Callable[[str | Path], Frame] = io.read,
) -> tuple[Frame, str]:
    if profile not in PROFILES:
        raise FrameError(f"unknown profile {profile!r}, expected one of {', '.join(PROFILES)}")
    if profile == "physical":
        found = intake.complete(read(path), detector=detector, unit=unit)
        return found.frame, found.source
    return read(path), ""


def _prepared(frame: Frame, plane: int, count: int, source: Source, profile: str, said: str) -> Prepared:
    one = _plane(frame, plane)
    data = one.data
    original = _finite(np.fmin.reduce(data, axis=None)), _finite(np.fmax.reduce(data, axis=None))
    make = _physical(one, said, source) if profile == "physical" else _documented(one, source, profile)
    shape = tuple(n // make.factor for n in one.shape[-2:])
    cells = tuple(grid_of(shape, source.domain, profile, make.grid_name))
    index = plane if count > 1 else None
    figures = (make.gain, make.read_noise, make.method)
    channels = len(one.geometry.colors) if isinstance(one.geometry, Mosaic) else one.shape[0] if one.axes[0] == "C" else None
    return Prepared(make.image, make.finish, make.scaling, original, *figures, cells, make.factor, channels, index)


@dataclass(frozen=True, eq=False)
class _Made:
    image: Frame
    finish: Step
    scaling: Scaling
    gain: float
    read_noise: float | None
    method: str
    factor: int = 1
    grid_name: str | None = None


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _plane(frame: Frame, number: int) -> Frame:
    """Image `number` of a frame, axes (C)YX, its pixels in memory."""
    lead = [i for i, a in enumerate(frame.axes) if a not in "CYX"]
    if not lead:
        return frame.replace(data=np.asarray(frame.data))
    at = dict(zip(lead, np.unravel_index(number, [frame.shape[i] for i in lead]), strict=True))
    start = tuple(int(at.get(i, 0)) for i in range(len(frame.shape)))
    stop = tuple(start[i] + 1 if i in at else n for i, n in enumerate(frame.shape))
    part, depth = frame.crop(Box(start, stop)), len(frame.shape)

    def flat(value: Any) -> Any:
        gone = [i - depth for i in lead if np.ndim(value) >= depth - i]
        return np.squeeze(np.asarray(value), tuple(gone)) if gone else value

    noise = part.noise
    if isinstance(noise, Noise):
        noise = Noise(*(flat(getattr(noise, k)) for k in ("a", "b", "offset", "c", "d")))
    seen = replace(part.observation, offset=flat(part.observation.offset), saturation=flat(part.observation.saturation))
    return Frame(
        flat(part.data),
        "".join(a for a in frame.axes if a in "CYX"),
        frame.unit,
        noise,
        std=flat(part.std),
        flags=flat(part.flags),
        geometry=None if isinstance(part.geometry, Scan) else part.geometry,
        psf=frame.psf,
        spacing={k: v for k, v in frame.spacing.items() if k in "CYX"},
        observation=seen,
        history=frame.history,
    )


def _chain(*steps: Step) -> Step:
    def run(frame: Frame) -> Frame:
        for step in steps:
            frame = step(frame)
        return frame

    return run


def _physical(frame: Frame, said: str, source: Source) -> _Made:
    made = partial(_Made, scaling=_scaling(source.domain), factor=FACTORS.get(frame.period(), 1))
    if frame.unit is Unit.ELECTRON:
        finish = _chain(_marked, _binned)
        return made(
            image=frame, finish=finish, gain=1.0, read_noise=_read_noise(frame.noise, 1.0), method=f"in electrons; {said}"
        )
    if frame.unit is Unit.ELECTRON_RATE:
        exposure = frame.observation.exposure
        if not exposure:
            raise FrameError("physical: electrons per second without an exposure in the header give no counts; state EXPTIME")
        finish = _chain(_marked, partial(calibrate.to_counts, exposure=exposure), _binned)
        noise, method = _read_noise(frame.noise, exposure), f"electron/s x exposure; {said}"
        return made(image=frame, finish=finish, gain=exposure, read_noise=noise, method=method)
    if frame.unit is not Unit.ADU:
        raise FrameError(
            f"physical: the numbers are in unit {frame.unit!s} and nothing says how many electrons they are ({said}); pass a "
            "detector (and unit adu, if they are raw counts)"
        )
    gain: Param
    if isinstance(frame.noise, Unmodelled):
        frame, gain, said = _by_gain_alone(frame, said)
    else:
        calibrate.to_electrons(frame.crop(Box((0,) * len(frame.shape), (1,) * len(frame.shape))))  # refuses what has no gain
        gain = 1 / frame.noise.a
    if np.ndim(gain):  # superpixels are exact where pixels share a gain, as they do in electrons
        finish = _chain(_marked, calibrate.to_electrons, _binned)
    else:
        finish = _chain(_marked, _binned, partial(calibrate.to_electrons, gain=float(gain)))
    noise = _read_noise(frame.noise, gain)
    return made(image=frame, finish=finish, gain=float(np.mean(gain)), read_noise=noise, method=said)


def _by_gain_alone(frame: Frame, said: str) -> tuple[Frame, float, str]:
    """A frame whose gain and offset are known though its read noise is not: electrons, with noise unmodelled."""
    seen, facts = frame.observation, io.stated(frame)
    offset, gain = seen.offset if seen.offset is not None else facts.get("offset"), facts.get("gain")
    source = "header"
    if gain is None and seen.instrument:
        try:
            row = domains.detector(seen.instrument, seen.setting, read_noise=0.0, offset=offset)
            gain, offset, source = row.gain, row.offset, f"table: {row.source.split('; read noise as given')[0]}"
        except FirstlightError:
            gain = None
    if gain is None or offset is None or np.ndim(gain):
        raise FrameError(f"physical: no gain or no black level is known, so counts cannot become electrons ({said})")
    noise = Unmodelled(f"the read noise of {seen.instrument or 'the camera'} is unknown: pass a detector")
    return frame.replace(noise=noise, observation=replace(seen, offset=offset)), float(gain), source


def _binned(frame: Frame) -> Frame:
    return calibrate.superpixels(frame) if isinstance(frame.geometry, Mosaic) else frame


def _marked(frame: Frame) -> Frame:
    """Saturated pixels flagged, where a level is known; superpixels do so themselves."""
    known = frame.observation.saturation is not None and not isinstance(frame.geometry, Mosaic)
    return calibrate.flag_saturated(frame) if known else frame


def _read_noise(noise: Noise | Unmodelled, gain: Any) -> float | None:
    """RMS [e-] of one pixel of the file, its mean where pixels differ."""
    return None if isinstance(noise, Unmodelled) else float(np.mean(np.sqrt(noise.b) * gain))


def _scaling(domain: str, profile: str = "documented") -> Scaling:
    try:
        return domains.scaling(domain, profile)
    except FrameError:  # no published scale: electrons as they are
        return Scaling(1.0)


def _documented(frame: Frame, source: Source, profile: str) -> _Made:
    camera = _camera(source.path, frame)
    row = domains.preset(_preset(frame, source.domain, camera[0], profile))
    if row.gain is None or row.read_noise is None:
        raise FrameError(f"{profile}: preset {row.name!r} gives a range, not a calibration ({row.source}); use another profile")
    mosaic = isinstance(frame.geometry, Mosaic)
    steps: list[Step] = [partial(calibrate.downsample_documented, factor=camera[1])] if mosaic else [_marked]
    steps += [io.assume, partial(calibrate.documented, gain=row.gain, read_noise=row.read_noise)]
    return _Made(
        frame,
        _chain(*steps),
        row.scaling,
        row.gain,
        row.read_noise,
        f"{profile} preset {row.name}",
        camera[1] if mosaic else 1,
        camera[0] if source.domain == "photography" else None,
    )


def _camera(path: str, frame: Frame) -> tuple[str, int]:
    return CAMERAS.get(Path(path).suffix.lower()) or CAMERAS.get(frame.period()) or SONY


def _preset(frame: Frame, domain: str, camera: str, profile: str) -> str:
    """The documents' row: by extension for cameras, by the header's name for document 0's instruments."""
    if domain not in ("photography", "microscopy", "astronomy"):
        raise FrameError(f"{profile}: the documents have no row for {domain}; use profile physical")
    if profile == "documented":
        return {"photography": camera, "microscopy": "microscopy", "astronomy": "hst"}[domain]
    if domain == "photography" and camera == "sony":
        found = re.search(r"\d+(?:\.\d+)?", str(frame.observation.setting))
        if not found:
            raise FrameError("document0: its figures go by ISO, and the file states none; use profile documented")
        return "sony-iso2000" if float(found[0]) < UNITY else "sony-iso4000"
    if domain != "astronomy":
        return {"photography": "fuji-range", "microscopy": "biosr-scmos"}[domain]
    name = re.sub(r"[^a-z0-9]", "", str(frame.observation.instrument).lower())
    return next((p for p in ("wfc3-uvis", "wfc3-ir", "wfpc2") if p.replace("-", "") in name), "acs-wfc")


def grid_of(shape: tuple[int, ...], domain: str, profile: str, name: str | None = None) -> list[tiles.Tile]:
    """The tiles of an image of `shape` (Y, X): the published grid of that shape, else the least that covers it.

    Documented profiles take the published grid of that name, or else of the domain, for other shapes too, and keep one with
    gaps, with a UserWarning. Raises FrameError for an image smaller than a tile.
    """
    published = domains.grids(domain)
    fitting = [g for g in published if g.shape == tuple(shape)]
    if profile == "physical":
        fitting = [g for g in fitting if not g.gaps]
        rows, cols = (fitting[0].rows, fitting[0].cols) if fitting else (tiles.covering(n, TILE) for n in shape)
        return tiles.grid(shape, rows, cols, TILE)
    named = [g for g in published if g.name == name] or fitting or list(published)
    if not named:
        raise FrameError(f"{profile}: the documents have no tile grid for {domain}; use profile physical")
    if any(n - TILE < k - 1 for n, k in zip(shape, (named[0].rows, named[0].cols), strict=True) if n >= TILE):
        raise FrameError(
            f"{profile}: a grid of {named[0].rows} x {named[0].cols} tiles over {shape[0]} x {shape[1]} px would cut a place "
            "twice; use profile physical"
        )
    try:
        return tiles.grid(shape, named[0].rows, named[0].cols, TILE)
    except FrameError as error:
        found = tiles.grid(shape, named[0].rows, named[0].cols, TILE, gaps=True)
        warnings.warn(f"{profile} tile grid of {domain}: {error}; kept as documented", UserWarning, stacklevel=2)
        return found
