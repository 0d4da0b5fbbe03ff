"""The rows that a domain's tables are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from firstlight.scaling import Scaling

__all__ = ["DetectorRow", "Grid", "Layout", "Preset"]


@dataclass(frozen=True)
class DetectorRow:
    """One camera at one setting: gain [e-/ADU], read_noise [e- RMS], offset and saturation [ADU]; None where unknown.

    `cameras`: its names as files write them, the first one for people. Where `gain` is None the gain is
    `gain_times_iso` / ISO, within `iso_range`.
    """

    cameras: tuple[str, ...]
    source: str
    gain: float | None = None
    read_noise: float | None = None
    offset: float | None = None
    saturation: float | None = None
    setting: str | None = None
    gain_times_iso: float | None = None
    iso_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Preset:
    """Constants of a published pipeline, electrons = ADU * gain - read_noise: gain [e-/ADU], read_noise [e-], `scaling`.

    Where the document gives a range, `gain` or `read_noise` is None and the range stands beside it. `source` says what is
    wrong with it.
    """

    name: str
    profile: str
    scaling: Scaling
    source: str
    gain: float | None = None
    read_noise: float | None = None
    gain_range: tuple[float, float] | None = None
    read_noise_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Grid:
    """A published tile grid: rows x cols squares of `tile` px over an image of `shape` (Y, X), cut from `pairs` image pairs.

    `gaps`: the grid does not cover the image.
    """

    name: str
    shape: tuple[int, int]
    rows: int
    cols: int
    tile: int
    pairs: int | None = None
    gaps: bool = False


@dataclass(frozen=True)
class Layout:
    """How a collection names its files, and what the names say.

    `pattern`: a regular expression with named groups, matched from a folder's beginning to the end of a POSIX path. The
    others are templates over its groups, "{group}". scene: the unit of splitting. view: what may be paired. data_type, after
    `labels`: "noisy", "clean" or "unknown". exposure [s]: as the name says it. `warning`: what is wrong with the row.
    """

    name: str
    domain: str
    pattern: str
    scene: str
    view: str
    data_type: str
    level: str = ""
    channel: str = ""
    exposure: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    profile: str = "physical"
    warning: str = ""
