"""Outputs: which format, which options, whether there is room, and how an interrupted one goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.box import Box
from firstlight.errors import FrameError, WriteError
from firstlight.frame import Frame
from firstlight.io import describe
from firstlight.io.formats import module_of
from firstlight.io.partial import Partial
from firstlight.io.storage import Storage, blocks
from firstlight.io.storage import rounded as _rounded
from firstlight.io.writer import Writer, writing

__all__ = ["create", "resumable", "resume_key", "round_bits", "write"]

SECTION = 8  # slices that `write` puts at once


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
    module = module_of(path, WriteError)
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
        key = None if resume is None else _key(resume, like, size, kind, std, storage)
        partial = Partial(path, key, anew) if codecs else None
        try:
            if not (partial and partial.finished):
                _room(path, prod(size) * (kind.itemsize + 4 * std) - _taken(partial))
            output = _opened(path, module, like, size, kind, std, storage, partial)
            if partial:
                partial.laid_out(key)
        except BaseException:
            if partial:
                partial.undo()
            raise
        return Writer(path, output, like.axes, size, bits, partial)


def _key(resume: str, like: Frame, size: tuple[int, ...], kind: np.dtype[Any], std: bool, storage: Storage) -> str:
    """The caller's key with what the output is: geometry, unit, history, shape, type and storage."""
    return describe.digest([resume, describe.dumps(like, std), size, str(kind), repr(storage)])


def _opened(
    path: Path,
    module: Any,
    like: Frame,
    size: tuple[int, ...],
    kind: np.dtype[Any],
    std: bool,
    storage: Storage,
    partial: Partial | None,
) -> Any:
    if partial is None:
        return module.create(path, like, size, kind, std)
    if partial.finished:
        return _Finished(partial, size[0], getattr(module, "finish", None))
    return module.create(path, like, size, kind, std, storage=storage, partial=partial)


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
    return hasattr(module_of(Path(path), WriteError), "CODECS")


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
    volume = frame.axes == "ZYX" and hasattr(module_of(path, WriteError), "CODECS")
    section = min(SECTION, frame.shape[0]) if volume else None
    with create(path, frame, std=std is not None, codec=codec, bits=bits, section=section) as out:
        if std is not None and tuple(std.shape) != frame.shape:
            std = np.broadcast_to(np.asarray(std), frame.shape)
        parts = out.sections(SECTION) if volume else blocks(frame.shape, np.dtype(frame.data.dtype).itemsize)
        for box in parts:
            out.put(box, frame.data[box.slices], None if std is None else std[box.slices])
    return path
