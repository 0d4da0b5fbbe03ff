"""EMVA 1288 descriptor files: which image was taken at which exposure and light level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.errors import ReadError
from firstlight.frame import Frame, Observation, Unit
from firstlight.noise import Unmodelled

__all__ = ["EmvaDescriptor", "EmvaLevel", "emva_descriptor"]

Reader = Callable[[Path], Any]


@dataclass(frozen=True)
class EmvaLevel:
    """One exposure setting: exposure [ns], photons per pixel (None for a dark), and its images."""

    exposure: float
    photons: float | None
    images: tuple[Path, ...]

    @property
    def dark(self) -> bool:
        """True for a `d` line."""
        return self.photons is None


@dataclass(frozen=True)
class EmvaDescriptor:
    """A descriptor's content: format version, bits per pixel, width and height [px], levels in the order of the file."""

    version: str
    bits: int
    width: int
    height: int
    levels: tuple[EmvaLevel, ...]

    def load(self, read: Reader) -> tuple[list[Frame], list[Frame], list[float]]:
        """(flats, darks, photons per flat): each image through `read(path) -> (Y, X) array` as a raw frame [ADU].

        The frames know their exposure [s] and the last code of the stated bits. Raises ReadError where an image's size is
        another than the descriptor's or its values do not fit the bits.
        """
        flats: list[Frame] = []
        darks: list[Frame] = []
        photons: list[float] = []
        for level in self.levels:
            frames = [self._frame(level, path, read(path)) for path in level.images]
            (darks if level.photons is None else flats).extend(frames)
            photons.extend([] if level.photons is None else [level.photons] * len(frames))
        return flats, darks, photons

    def _frame(self, level: EmvaLevel, path: Path, data: Any) -> Frame:
        if tuple(data.shape) != (self.height, self.width):
            raise ReadError(f"{path}: image of shape {tuple(data.shape)}, the descriptor says {(self.height, self.width)}")
        last = 2**self.bits - 1
        if data.max() > last:
            raise ReadError(f"{path}: values up to {data.max()}, but the descriptor says {self.bits} bits (up to {last})")
        about = Observation(exposure=level.exposure * 1e-9, saturation=float(last), source=str(path))
        return Frame(data, "YX", Unit.ADU, Unmodelled("raw counts, gain unknown: measure it with transfer"), observation=about)


def emva_descriptor(path: str | Path) -> EmvaDescriptor:
    """Reads an EMVA 1288 descriptor (.txt): which image was taken at which exposure [ns] and photons per pixel.

    Lines: `v` version; `n` bits width height; `b` exposure photons and `d` exposure open a bright or dark level; `i` image
    path relative to the file, with / or \\; `#` comments. Raises ReadError naming file, line and cause; also where an image
    does not exist.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"{path}: not readable as a text file ({error}); give an EMVA 1288 descriptor") from error
    version, size, levels = "", None, []
    for number, line in enumerate(text.splitlines(), 1):
        words = (
            line.split("#")[0].strip().split(maxsplit=1)
            if not line.strip().startswith("i ")
            else line.strip().split(maxsplit=1)
        )
        if not words:
            continue
        where, (key, rest) = f"{path}, line {number}", (words[0], words[1].strip() if len(words) > 1 else "")
        if key == "v":
            version = rest
        elif key == "n":
            bits, width, height = (int(v) for v in _numbers(where, rest, 3, "bits width height"))
            size = (bits, width, height)
        elif key in ("b", "d"):
            values = _numbers(where, rest, 2 if key == "b" else 1, "exposure photons" if key == "b" else "exposure")
            levels.append(EmvaLevel(values[0], values[1] if key == "b" else None, ()))
        elif key == "i":
            levels[-1:] = [_with_image(where, path, levels, rest)]
        else:
            raise ReadError(
                f"{where}: unknown line {line.strip()!r}, expected v, n, b, d, i or #; is this an EMVA 1288 descriptor?"
            )
    return _complete(path, version, size, levels)


def _numbers(where: str, text: str, count: int, what: str) -> list[float]:
    try:
        values = [float(w) for w in text.split()]
    except ValueError:
        values = []
    if len(values) != count or not all(0 <= v < 1e18 for v in values):
        raise ReadError(f"{where}: got {text!r}, expected {count} numbers ({what})")
    return values


def _with_image(where: str, path: Path, levels: list[EmvaLevel], name: str) -> EmvaLevel:
    if not levels or not name:
        raise ReadError(f"{where}: an image {'without a name' if levels else 'before any b or d line'}")
    image = path.parent / name.replace("\\", "/")
    if not image.is_file():
        raise ReadError(f"{where}: image {image} does not exist")
    last = levels[-1]
    return EmvaLevel(last.exposure, last.photons, (*last.images, image))


def _complete(path: Path, version: str, size: tuple[int, int, int] | None, levels: list[EmvaLevel]) -> EmvaDescriptor:
    if size is None or not 1 <= size[0] <= 32 or min(size[1:]) < 1:
        raise ReadError(f"{path}: got size {size}, expected a line 'n bits width height' with 1 to 32 bits")
    empty = [level for level in levels if not level.images]
    if not any(not v.dark for v in levels) or empty:
        raise ReadError(
            f"{path}: {len(levels)} levels, {len(empty)} of them without images; expected bright levels with images"
        )
    return EmvaDescriptor(version, *size, tuple(levels))
