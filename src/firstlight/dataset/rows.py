"""The rows that a tile set is made of: sources, pairs, tiles. Plain values only, so that each is a line of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Pair", "Source", "TileRow"]


@dataclass(frozen=True)
class Source:
    """One image file of a data set: where it lies, what it shows, what its own header says.

    path: POSIX, relative to the root. scene: the unit of splitting, all exposures, channels and noise levels of one view.
    view: what a pair shares (one field, one channel). data_type: "noisy", "clean", or "unknown". level: the noise level or
    exposure within the view. shape: of the image as read, (..., Y, X).
    """

    path: str
    domain: str
    layout: str
    scene: str
    view: str
    data_type: str
    level: str = ""
    channel: str = ""
    sha256: str = ""
    bytes: int = 0
    camera: str | None = None
    setting: str | None = None
    exposure: float | None = None
    time: str | None = None
    shape: tuple[int, ...] = ()
    dtype: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Pair:
    """A noisy and a clean source of one view (paths), and the proof: `proved`, or the `reason` why not, with its figures."""

    noisy: str
    clean: str
    view: str
    proved: bool
    reason: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {**asdict(self), "figures": dict(self.figures)}


@dataclass(frozen=True)
class TileRow:
    """One tile's line in comprehensive_tiles_metadata.json: document 0's schema, then what it lacks.

    gain [e- per unit of the file: ADU, or electron/s], read_noise [e-] of one pixel of the file, None where unknown;
    original_*: least and greatest value of the whole image in the file; electron_* [e-] and norm_* (scaled) of the tile's
    finite values, None where it has none; image_x, image_y: the tile's first pixel in the (downsampled) image; is_edge_tile:
    aligned to the bottom or right border; quality_score: mean scaled value; valid_ratio: unflagged finite fraction;
    overlap_ratio: area shared with the right neighbour over the tile's, 0 in the last column. noise_a [e-] and noise_b [e-^2]:
    a number, a list per channel, or the path of a map (Y, X) or (C, Y, X) saved once per source; None where unmodelled.
    npy_path: POSIX, relative to the JSON.
    """

    tile_id: str
    domain: str
    scene_id: str
    data_type: str
    split: str
    npy_path: str
    tile_size: int
    channels: int
    grid_x: int
    grid_y: int
    image_x: int
    image_y: int
    gain: float
    read_noise: float
    calibration_method: str
    quality_score: float
    valid_ratio: float
    is_edge_tile: bool
    overlap_ratio: float
    source_file: str
    processing_timestamp: str
    fixed_scale: float
    original_min: float
    original_max: float
    electron_min: float
    electron_max: float
    electron_mean: float
    electron_std: float
    norm_min: float
    norm_max: float
    norm_mean: float
    norm_std: float
    noise_a: Any = None
    noise_b: Any = None
    flags: Mapping[str, int] = field(default_factory=dict)
    profile: str = "physical"
    source_sha256: str = ""
    fixed_offset: float = 0.0
    view: str = ""
    level: str = ""
    channel: str = ""
    pair_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {**asdict(self), "flags": dict(self.flags)}
