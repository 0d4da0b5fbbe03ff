"""Reading and writing instruments' formats: one file a format, one line in the table.

`read` and `write` keep axes, unit, noise, std, flags, geometry, observation and history: in the file where the format can
hold them, else in companions beside it (`NAME.json` and `NAME.<map>.npy`). Writing goes to a temporary name, then renames.

A format module has `read(path, ext) -> Frame`, `create(path, like, shape, dtype, std) -> Format` and, where a file can
hold several frames, `read_set(path) -> dict[str, Frame]`. One fit for large outputs has CODECS besides, and its `create` takes
`storage` and `partial`: such an output can be resumed.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.box import Box
from firstlight.errors import FirstlightError, FrameError, ReadError, WriteError
from firstlight.frame import Frame, Unit
from firstlight.io import describe
from firstlight.io.partial import Partial
from firstlight.io.storage import Storage, along
from firstlight.io.storage import rounded as _rounded
from firstlight.io.writer import Writer, writing
from firstlight.noise import Unmodelled

__all__ = [
    "FORMATS",
    "Writer",
    "assume",
    "blocks",
    "create",
    "doubts",
    "read",
    "read_set",
    "resumable",
    "resume_key",
    "round_bits",
    "section",
    "sha256",
    "stated",
    "write",
]

FORMATS: dict[str, str] = {
    ".fits": "fits",
    ".fit": "fits",
    ".fts": "fits",
    ".fz": "fits",
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
SLICES = re.compile(r"#{3,}[^#]*\.tiff?$", re.IGNORECASE)  # recon_#####.tif: one file a slice
SECTION = 8  # slices that `write` puts at once
PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}  # a suffix before these counts: .fits.gz
BLOCK_BYTES = 64 << 20
# kind by its first bytes, and the modules that read that kind (camera raw files are TIFF inside)
_MAGIC: tuple[tuple[bytes, str, tuple[str, ...]], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG", ("picture",)),
    (b"\xff\xd8\xff", "JPEG", ("picture",)),
    (b"II*\0", "TIFF", ("tiff", "raw")),
    (b"MM\0*", "TIFF", ("tiff", "raw")),
    (b"II+\0", "BigTIFF", ("tiff",)),
    (b"MM\0+", "BigTIFF", ("tiff",)),
    (b"\x89HDF\r\n\x1a\n", "HDF5", ("hdf",)),
    (b"SIMPLE  =", "FITS", ("fits",)),
    (b"\x93NUMPY", "NPY", ("npy",)),
    (b"FUJIFILMCCD-RAW", "Fujifilm raw", ("raw",)),
    (b"PK\x03\x04", "ZIP", ("zarr",)),
    (b"%PDF", "PDF", ()),
    (b"GIF8", "GIF", ()),
)
_PACKED_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2"}


def kind(path: Path) -> str:
    """The suffix that names the format, in lower case: ".map" for "a.MAP.gz", "" where there is none."""
    return next((s for s in (s.lower() for s in path.suffixes[::-1]) if s not in PACKED), "")


def _module(path: Path, error: type[FirstlightError]) -> Any:
    name = "slices" if _slices(path) else FORMATS.get(kind(path))
    if name is None:
        raise error(f"{path}: unknown format {path.suffix or '(no extension)'}; expected one of {', '.join(FORMATS)}")
    return import_module(f"firstlight.io.{name}")


def _slices(path: Path) -> bool:
    """Whether a name stands for one file a slice: it ends in ###.tif (three or more) and no file has that very name."""
    return SLICES.search(path.name) is not None and not path.exists() and not path.is_symlink()


def _readable(path: str | Path) -> Path:
    path = Path(path)
    if _slices(path):
        return path
    if path.is_symlink() and not path.exists():
        raise ReadError(f"{path}: is a symbolic link to {path.readlink()}, which does not exist")
    if not path.exists():
        raise ReadError(f"{path}: no such file")
    if path.is_dir():
        if path.suffix.lower() != ".zarr":
            raise ReadError(f"{path}: is a folder, expected a file; name the files in it")
    elif not path.is_file():
        raise ReadError(f"{path}: is a device or a pipe, expected a file; save it to disk first")
    elif path.stat().st_size == 0:
        raise ReadError(f"{path}: is empty (0 bytes)")
    if not os.access(path, os.R_OK):
        raise ReadError(f"{path}: permission denied; make it readable")
    return path


def _checked(path: Path, module: Any) -> None:
    """Raises ReadError where a file's first bytes say that it is something else than its name says."""
    if path.is_dir() or _slices(path):
        return
    with path.open("rb") as f:
        head = f.read(16)
    for magic, suffix in _PACKED_MAGIC.items():
        if head.startswith(magic):
            if path.suffix.lower() == suffix:
                return
            raise ReadError(f"{path}: is compressed ({suffix}) by its first bytes but named {path.suffix}; add {suffix}")
    name = module.__name__.rpartition(".")[2]
    for magic, kind, readers in _MAGIC:
        if head.startswith(magic) and name not in readers:
            raise ReadError(f"{path}: is a {kind} file by its first bytes but named {path.suffix}; rename it to what it is")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside becomes one line that names the file and the cause."""
    try:
        yield
    except FrameError as error:  # the file contradicts itself
        raise ReadError(f"{path}: {' '.join(str(error).split())}") from error
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
    with _reading(path):
        _checked(path, module)
        return _filled(path, module.read(path, ext))


def _filled(path: Path, frame: Frame) -> Frame:
    if 0 in frame.shape:
        raise ReadError(f"{path}: an image of shape {frame.shape}, expected at least one pixel")
    return frame


def read_set(path: str | Path) -> dict[str, Frame]:
    """Every frame in a file by name ("SCI,1"; "data", "white", "dark"); one frame named "data" for simple formats."""
    path = _readable(path)
    module = _module(path, ReadError)
    with _reading(path):
        _checked(path, module)
        found: dict[str, Frame] = module.read_set(path) if hasattr(module, "read_set") else {"data": module.read(path, None)}
        return found


def create(
    path: str | Path,
    like: Frame,
    shape: Sequence[int] | None = None,
    *,
    dtype: Any = None,
    std: bool = False,
    codec: str | None = None,
    bits: int | None = None,
    section: int | None = None,
    levels: int | None = None,
    resume: str | None = None,
    anew: bool = False,
) -> Writer:
    """A writer for a frame like `like` (its data are not read), to be filled block by block; `std` adds an error plane.

    codec: "bitshuffle-lz4" (default), "zstd", "gzip", "none"; HDF5 also "lz4". bits: significant binary digits kept, all where
    None; the history says so. section: slices (of a scan: rows) that each `put` brings or a multiple of which it brings: chunks
    are cut so that no two sections share one, and a Zarr gets its pyramid of `levels` (as many as it needs where None).
    resume: a key (`resume_key`) under which an interrupted output is kept as NAME.partial and opened again, with `Writer.done`
    saying what is there; one of another key is refused, or removed with `anew`.

    Raises WriteError for an unknown format, one that cannot hold the frame or be resumed, a missing folder, `like`'s own file.
    """
    path = Path(path)
    module = _module(path, WriteError)
    _allowed(path, module, like)
    like = like if bits is None else _said(like, bits)
    size, kind = tuple(like.shape if shape is None else shape), np.dtype(dtype or like.data.dtype)
    _fits(path, like, size)
    storage = Storage(codec, section, levels)
    codecs = getattr(module, "CODECS", ())
    storage.needs(path, codecs)
    if resume is not None and not codecs:
        raise WriteError(f"{path}: {path.suffix} cannot be resumed; choose .zarr, .h5 or .tif, or write it in one go")
    with writing(path):
        key = (
            None
            if resume is None
            else describe.digest([resume, describe.dumps(like, std), size, str(kind), std, repr(storage)])
        )
        partial = Partial(path, key, anew) if codecs else None
        try:
            if partial and partial.finished:
                return Writer(
                    path, _Finished(partial, size[0], getattr(module, "finish", None)), like.axes, size, bits, partial
                )
            _room(path, prod(size) * (kind.itemsize + 4 * std) - _taken(partial))
            more = {"storage": storage, "partial": partial} if codecs else {}
            output = module.create(path, like, size, kind, std, **more)
            if partial:
                partial.laid_out(key)
        except BaseException:
            if partial:
                partial.undo()
            raise
        return Writer(path, output, like.axes, size, bits, partial)


class _Finished:
    """An output of which an earlier run wrote everything but the names."""

    def __init__(self, partial: Partial, count: int, finish: Callable[[Partial, int], None] | None) -> None:
        self._partial, self._count, self._finish = partial, count, finish

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Nothing: it is there."""

    def flush(self, box: Box) -> None:
        """Nothing: it is there."""

    def close(self) -> None:
        """Give the files their names."""
        self._finish(self._partial, self._count) if self._finish else self._partial.commit()

    def keep(self) -> None:
        """Leave it for another run."""
        self._partial.keep()

    def abort(self) -> None:
        """Remove it."""
        self._partial.abort()


def _allowed(path: Path, module: Any, like: Frame) -> None:
    if not hasattr(module, "create"):
        raise WriteError(f"{path}: this format can be read but not written; choose another extension")
    if not path.parent.is_dir():
        raise WriteError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir() and path.suffix.lower() != ".zarr":
        raise WriteError(f"{path}: is a folder, expected the name of a file; choose another name")
    source = like.observation.source
    if source and path.exists() and Path(source).exists() and path.samefile(source):
        raise WriteError(f"{path}: would overwrite its own input; choose another name")


def resumable(path: str | Path) -> bool:
    """Whether outputs of this name can be resumed."""
    return hasattr(_module(Path(path), WriteError), "CODECS")


def resume_key(*parts: Any, inputs: Sequence[str | Path] = ()) -> str:
    """A key of what makes an output: plain values (recipe, options, hashes) and each input's name, size and time of change."""
    files = [(Path(p).name, (info := Path(p).stat()).st_size, info.st_mtime_ns) for p in inputs]
    return describe.digest([parts, files])


def _taken(partial: Partial | None) -> int:
    """Bytes that an earlier run has written already."""
    if partial is None or not partial.resumed:
        return 0
    return sum(f.stat().st_blocks * 512 for f in partial.temp.parent.rglob("*") if f.is_file())


def round_bits(frame: Frame, *, bits: int = 12) -> Frame:
    """Floating-point data to `bits` significant binary digits, ties to even: relative error at most 2^-bits.

    Any axes and unit; noise, std, flags and geometry stay. What is dropped compresses to nothing. Raises FrameError for
    integers and for bits below 1.
    """
    out = _said(frame, bits)
    return out.replace(data=_rounded(frame.data, bits))


def _said(frame: Frame, bits: int) -> Frame:
    if bits < 1:
        raise FrameError(f"round_bits: {bits} bits, expected at least 1")
    return frame.then("io.round_bits", {"bits": bits})


def section(frame: Frame) -> int:
    """Rows (of a volume: slices) that the file stores as one, so that sections of a multiple of them are read without waste.

    1 where any row is read alone: data in memory, contiguous files, chunks that are not compressed.
    """
    chunks = getattr(frame.data, "chunks", None)
    return int(chunks[along(frame.axes)]) if chunks else 1


def _fits(path: Path, like: Frame, shape: tuple[int, ...]) -> None:
    if len(shape) != len(like.axes):
        raise WriteError(f"{path}: shape {shape} for axes {like.axes!r}; give one length per axis")
    part = like.flags
    tail = shape[len(shape) - len(part.shape) :] if part is not None else ()
    if part is not None and not all(m in (1, n) for m, n in zip(part.shape, tail, strict=True)):
        raise WriteError(f"{path}: flags of shape {part.shape} do not fit an output of shape {shape}; drop or crop them")


def _room(path: Path, needed: int) -> None:
    # a memory map over a full disk kills the process, so the room is looked at first
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise WriteError(f"{path}: needs {needed / 1e9:.3g} GB and {path.parent} has {free / 1e9:.3g} GB free; write elsewhere")


def write(frame: Frame, path: str | Path, *, codec: str | None = None, bits: int | None = None) -> Path:
    """Write a frame, block by block, in the format of the path's extension; returns the path. codec, bits: as in `create`."""
    path, std = Path(path), frame.std
    volume = frame.axes == "ZYX" and hasattr(_module(path, WriteError), "CODECS")
    section = min(SECTION, frame.shape[0]) if volume else None
    with create(path, frame, std=std is not None, codec=codec, bits=bits, section=section) as out:
        if std is not None and tuple(std.shape) != frame.shape:
            std = np.broadcast_to(np.asarray(std), frame.shape)
        parts = out.sections(SECTION) if volume else blocks(frame.shape, np.dtype(frame.data.dtype).itemsize)
        for box in parts:
            out.put(box, frame.data[box.slices], None if std is None else std[box.slices])
    return path


def assume(frame: Frame, *, unit: str = "adu") -> Frame:
    """The same numbers in another unit, on the user's word: a PNG that holds raw counts is `assume(frame, unit="adu")`.

    The noise becomes Unmodelled until a detector is given. Raises FrameError for an unknown unit, or for floating-point
    display values (0..1), which are no counts.
    """
    try:
        new = Unit(unit)
    except ValueError:
        raise FrameError(f"assume: unit {unit!r}, expected one of {', '.join(Unit)}") from None
    if new == frame.unit:
        return frame
    if frame.unit == Unit.DISPLAY and np.dtype(frame.data.dtype).kind == "f":
        raise FrameError(f"assume: display values of {frame.data.dtype} are fractions of white, no {new}; read the raw file")
    noise = Unmodelled(f"the unit {new} is the user's word and no gain is known: pass a detector")
    return frame.then("io.assume", {"unit": str(new)}, unit=new, noise=noise)


def stated(frame: Frame) -> dict[str, Any]:
    """What the file's own header says of the detector: gain [e-/ADU], read_noise [e-], offset [ADU], saturation, source.

    Only what it says: keys are missing where it is silent, also where the frame's noise is Unmodelled for want of the rest.
    """
    facts = getattr(frame.observation.header, "stated", None)
    return dict(facts) if facts else {}


def doubts(frame: Frame) -> list[str]:
    """Where the file's header contradicts itself, one sentence each; data are not read."""
    return list(getattr(frame.observation.header, "doubts", ()))


def sha256(path: str | Path) -> str:
    """Hexadecimal sha256 of a file, read in blocks; of a folder or of slices, of the files' names and contents in order."""
    path = Path(path)
    total = hashlib.sha256()
    for file, name in _files(path):
        if name:
            total.update(f"{name}\0".encode())
        with file.open("rb") as f:
            while block := f.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def _files(path: Path) -> list[tuple[Path, str]]:
    """The files that a name stands for, each with its name in a folder or stack ("" where it is the file itself)."""
    if _slices(path):
        from firstlight.io.slices import names

        return [(p, p.name) for p in names(path)]
    if path.is_dir():
        return [(p, p.relative_to(path).as_posix()) for p in sorted(p for p in path.rglob("*") if p.is_file())]
    return [(path, "")]


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
