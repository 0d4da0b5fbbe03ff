"""Reading and writing instruments' formats: one file a format, one line in the table.

`read` and `write` keep axes, unit, noise, std, flags, geometry, observation and history: in the file where the format can
hold them, else in companions beside it (`NAME.json` and `NAME.<map>.npy`). Writing goes to a temporary name, then renames.

A format module has `read(path, ext) -> Frame`, `create(path, like, shape, dtype, std) -> Format` and, where a file can
hold several frames, `read_set(path) -> dict[str, Frame]`. One fit for large outputs has CODECS besides, and its `create` takes
`storage` and `partial`: such an output can be resumed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.errors import FirstlightError, FrameError, ReadError
from firstlight.frame import Frame, Unit
from firstlight.io.formats import FORMATS, PACKED, checked, kind, module_of, slices_of
from firstlight.io.output import create, resumable, resume_key, round_bits, write
from firstlight.io.storage import BLOCK_BYTES, along, blocks
from firstlight.io.writer import Writer
from firstlight.noise import Unmodelled

__all__ = [
    "BLOCK_BYTES",
    "FORMATS",
    "PACKED",
    "Writer",
    "assume",
    "blocks",
    "create",
    "doubts",
    "kind",
    "read",
    "read_set",
    "resumable",
    "resume_key",
    "round_bits",
    "section",
    "sha1",
    "sha256",
    "stated",
    "write",
]


def _readable(path: str | Path) -> Path:
    path = Path(path)
    if slices_of(path):
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
    module = module_of(path, ReadError)
    with _reading(path):
        checked(path, module)
        return _filled(path, module.read(path, ext))


def _filled(path: Path, frame: Frame) -> Frame:
    if 0 in frame.shape:
        raise ReadError(f"{path}: an image of shape {frame.shape}, expected at least one pixel")
    return frame


def read_set(path: str | Path) -> dict[str, Frame]:
    """Every frame in a file by name ("SCI,1"; "data", "white", "dark"); one frame named "data" for simple formats."""
    path = _readable(path)
    module = module_of(path, ReadError)
    with _reading(path):
        checked(path, module)
        found: dict[str, Frame] = module.read_set(path) if hasattr(module, "read_set") else {"data": module.read(path, None)}
        return found


def section(frame: Frame) -> int:
    """Rows (of a volume: slices) that the file stores as one, so that sections of a multiple of them are read without waste.

    1 where any row is read alone: data in memory, contiguous files, chunks that are not compressed.
    """
    chunks = getattr(frame.data, "chunks", None)
    return int(chunks[along(frame.axes)]) if chunks else 1


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
    return _digest(Path(path), hashlib.sha256())


def sha1(path: str | Path) -> str:
    """Hexadecimal sha1, the name that published catalogues give a file; otherwise as `sha256`."""
    return _digest(Path(path), hashlib.sha1(usedforsecurity=False))


def _digest(path: Path, total: Any) -> str:
    for file, name in _files(path):
        if name:
            total.update(f"{name}\0".encode())
        with file.open("rb") as f:
            while block := f.read(1 << 20):
                total.update(block)
    return str(total.hexdigest())


def _files(path: Path) -> list[tuple[Path, str]]:
    """The files that a name stands for, each with its name in a folder or stack ("" where it is the file itself)."""
    if slices_of(path):
        from firstlight.io.slices import names

        return [(p, p.name) for p in names(path)]
    if path.is_dir():
        return [(p, p.relative_to(path).as_posix()) for p in sorted(p for p in path.rglob("*") if p.is_file())]
    return [(path, "")]
