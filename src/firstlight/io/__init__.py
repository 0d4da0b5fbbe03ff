"""Reading and writing instruments' formats: one file a format, one line in the table.

`read` and `write` keep axes, unit, noise, std, flags, geometry, observation and history: in the file where the format can
hold them, else in companions beside it (`NAME.json` and `NAME.<map>.npy`). Writing goes to a temporary name, then renames.

A format module has `read(path, ext) -> Frame`, `create(path, like, shape, dtype, std) -> Writer` and, where a file can
hold several frames, `read_set(path) -> dict[str, Frame]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from firstlight.box import Box
from firstlight.errors import FirstlightError, ReadError, WriteError
from firstlight.frame import Frame

__all__ = ["FORMATS", "Writer", "blocks", "create", "read", "read_set", "write"]

FORMATS: dict[str, str] = {
    ".fits": "fits",
    ".fit": "fits",
    ".fts": "fits",
    ".mrc": "mrc",
    ".mrcs": "mrc",
    ".map": "mrc",
    ".rec": "mrc",
    ".st": "mrc",
    ".dv": "mrc",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".arw": "raw",
    ".raf": "raw",
    ".dng": "raw",
    ".nef": "raw",
    ".cr2": "raw",
    ".cr3": "raw",
    ".h5": "hdf",
    ".hdf5": "hdf",
    ".hdf": "hdf",
    ".nxs": "hdf",
    ".zarr": "zarr",
    ".npy": "npy",
    ".png": "picture",
    ".jpg": "picture",
    ".jpeg": "picture",
}
_PACKED = (".gz", ".bz2")  # a suffix before these counts: .fits.gz, .tif.gz
BLOCK_BYTES = 64 << 20


class Writer(Protocol):
    """An output being written block by block; a context manager that commits on success and removes itself on failure."""

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write `block` [unit of the frame] at `box` (all axes), and its standard error where the output has one."""

    def close(self) -> None:
        """Finish and rename to the final name."""

    def abort(self) -> None:
        """Remove what was written."""

    def __enter__(self) -> Writer: ...

    def __exit__(self, *error: object) -> None: ...


def _module(path: Path, error: type[FirstlightError]) -> Any:
    suffixes = [s.lower() for s in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in _PACKED:
        suffixes.pop()
    name = FORMATS.get(suffixes[-1] if suffixes else "")
    if name is None:
        raise error(
            f"{path}: unknown format {''.join(suffixes[-1:]) or '(no extension)'}; expected one of {', '.join(FORMATS)}"
        )
    return import_module(f"firstlight.io.{name}")


def _readable(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise ReadError(f"{path}: no such file")
    if path.is_dir() and path.suffix.lower() != ".zarr":
        raise ReadError(f"{path}: is a folder, expected a file; name the files in it")
    if path.is_file() and path.stat().st_size == 0:
        raise ReadError(f"{path}: is empty (0 bytes)")
    return path


def _reading(path: Path, action: Any) -> Any:
    """Run a reader; whatever goes wrong becomes one line that names the file and the cause."""
    try:
        return action()
    except FirstlightError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(f"{path}: cannot be read, damaged or not what its name says ({cause})") from error


def read(path: str | Path, ext: str | int | None = None) -> Frame:
    """The frame in a file: data stay on disk where the format allows; `ext` chooses one of several ("SCI,2", "white", 3).

    Raises ReadError with the file and the cause: absent, empty, truncated, of another kind, unsupported.
    """
    path = _readable(path)
    module = _module(path, ReadError)
    return _reading(path, lambda: module.read(path, ext))  # type: ignore[no-any-return]


def read_set(path: str | Path) -> dict[str, Frame]:
    """Every frame in a file by name ("SCI,1"; "data", "white", "dark"); one frame named "data" for simple formats."""
    path = _readable(path)
    module = _module(path, ReadError)
    if not hasattr(module, "read_set"):
        return {"data": _reading(path, lambda: module.read(path, None))}
    return _reading(path, lambda: module.read_set(path))  # type: ignore[no-any-return]


def create(
    path: str | Path, like: Frame, shape: Sequence[int] | None = None, *, dtype: Any = None, std: bool = False
) -> Writer:
    """A writer for a frame like `like` (its data are not read), to be filled block by block; `std` adds an error plane.

    Raises WriteError for an unknown format, one that cannot hold the frame, a missing folder, or `like`'s own file.
    """
    path = Path(path)
    module = _module(path, WriteError)
    if not hasattr(module, "create"):
        raise WriteError(f"{path}: this format can be read but not written; choose another extension")
    if not path.parent.is_dir():
        raise WriteError(f"{path}: the folder {path.parent} does not exist; create it first")
    source = like.observation.source
    if source and path.exists() and Path(source).exists() and path.samefile(source):
        raise WriteError(f"{path}: would overwrite its own input; choose another name")
    try:
        return module.create(  # type: ignore[no-any-return]
            path, like, tuple(shape or like.shape), np.dtype(dtype or like.data.dtype), std
        )
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


def write(frame: Frame, path: str | Path) -> Path:
    """Write a frame, block by block, in the format of the path's extension; returns the path."""
    with create(path, frame, std=frame.std is not None) as out:
        std = None if frame.std is None else np.broadcast_to(frame.std, frame.shape)
        for box in blocks(frame.shape, np.dtype(frame.data.dtype).itemsize):
            out.put(box, frame.data[box.slices], None if std is None else std[box.slices])
    return Path(path)


def blocks(shape: Sequence[int], itemsize: int, limit: int = BLOCK_BYTES) -> Iterator[Box]:
    """Boxes that partition an array in C order, each of at most `limit` bytes where a row allows it."""
    whole = tuple(shape)
    axis, room = len(whole), max(1, limit // max(1, itemsize))
    inner = 1
    while axis > 0 and inner * whole[axis - 1] <= room:
        axis -= 1
        inner *= whole[axis]
    if axis == 0:
        yield Box.whole(whole)
        return
    step = max(1, room // max(1, inner))
    for lead in product(*(range(n) for n in whole[: axis - 1])):
        for start in range(0, whole[axis - 1], step):
            stop = min(whole[axis - 1], start + step)
            yield Box((*lead, start, *(0,) * (len(whole) - axis)), (*(i + 1 for i in lead), stop, *whole[axis:]))
