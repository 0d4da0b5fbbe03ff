"""Outputs that appear whole or not at all: written beside their final name, then renamed.

An output that can be resumed is written in the folder `NAME.partial`, with its journal, and moved out of it at the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.atomic import beside
from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Frame
from firstlight.io import describe
from firstlight.io.journal import Journal

__all__ = ["MappedWriter", "Partial", "companions", "read_described"]

JOURNAL = "journal.jsonl"


class Partial:
    """A file (or folder) under construction, with its companions; `commit` renames all, the main file last.

    With a `key` it outlives its process: `NAME.partial` of the same key is opened again (`resumed`, or `finished` where only
    names are to be given), one of another key is removed where `anew` says so.

    Raises WriteError for another key otherwise, or while another process writes it.
    """

    def __init__(self, path: Path, key: str | None = None, anew: bool = False) -> None:
        self.path = path
        self.temp = beside(path)
        self.journal: Journal | None = None
        self.resumed = self.finished = False
        self._sides: dict[Path, Path] = {}
        if key is not None:
            self.temp = path.with_name(f"{path.name}.partial") / path.name
            self._open(key, anew)

    def _open(self, key: str, anew: bool) -> None:
        folder = self.temp.parent
        folder.mkdir(exist_ok=True)
        self.journal = Journal(folder / JOURNAL)
        there = self.temp.exists()
        if self.journal.key not in (None, key) and there and not anew:
            self.journal.close()
            raise WriteError(
                f"{self.path}: {folder} holds an unfinished output of another recipe, input or option; "
                "finish that one, start anew, or remove the folder"
            )
        known = self.journal.key == key and not anew
        self.finished = known and self.journal.finished is not None
        self.resumed = known and there and not self.finished
        if self.finished:
            for name in self.journal.finished or ():
                self._sides[self.path.with_name(name)] = folder / name
        elif not self.resumed:
            _emptied(folder)

    def laid_out(self, key: str | None) -> None:
        """Everything but the pixels is there: from now on a run with `key` can go on."""
        if self.journal and key is not None and not (self.resumed or self.finished):
            self.journal.begin(key)

    def side(self, name: str) -> Path:
        """Temporary path of the companion `PATH.name`."""
        final = self.path.with_name(f"{self.path.name}.{name}")
        return self._sides.setdefault(final, self.temp.with_name(f"{self.temp.name}.{name}"))

    def describe(self, frame: Frame, shape: tuple[int, ...], std: bool) -> np.memmap[Any, Any] | None:
        """Write the description and maps as companions; returns the open std plane of `shape`, where asked for."""
        self.side("json").write_text(describe.dumps(frame, std=std))
        return self.maps(frame, shape, std)

    def maps(self, frame: Frame, shape: tuple[int, ...], std: bool) -> np.memmap[Any, Any] | None:
        """Write the maps alone as companions; returns the open std plane of `shape`, where asked for."""
        for name, part in describe.maps(frame).items():
            target = self.side(f"{name}.npy")
            if not self.resumed:
                save_map(target, part)
        if not std:
            return None
        if self.resumed:
            return np.lib.format.open_memmap(self.side("std.npy"), mode="r+")
        return np.lib.format.open_memmap(self.side("std.npy"), mode="w+", dtype=np.float32, shape=shape)

    def commit(self, move: Callable[[], None] | None = None) -> None:
        """Rename to the final names (the main file by `move`, where it is more than one); of a resumable output, from any state
        that a kill left. Companions of an earlier output that this one lacks are removed.
        """
        if self.journal:
            self.journal.finish([p.name for p in self._sides])
        for name in ("json", *(f"{m}.npy" for m in describe.MAPS)):
            old = self.path.with_name(f"{self.path.name}.{name}")
            if old not in self._sides:
                old.unlink(missing_ok=True)
        for final, temp in self._sides.items():
            if temp.exists():
                temp.replace(final)
        (move or self._move)()
        self.clear()

    def _move(self) -> None:
        if not self.temp.exists():
            return
        if self.temp.is_dir() and self.path.is_dir():
            shutil.rmtree(self.path)
        self.temp.replace(self.path)

    def clear(self) -> None:
        """Remove the folder of a resumable output, its journal last, and unlock it."""
        if self.journal:
            _emptied(self.temp.parent)
            (self.temp.parent / JOURNAL).unlink(missing_ok=True)
            self.temp.parent.rmdir()
            self.journal.close()

    def keep(self) -> None:
        """Leave what was written for another run; without a key there is none, and it is removed."""
        if self.journal:
            self.journal.close()
        else:
            self.abort()

    def undo(self) -> None:
        """After a failure to begin: remove what this run made, leave what an earlier one had."""
        self.keep() if self.resumed or self.finished else self.abort()

    def abort(self) -> None:
        """Remove everything written so far."""
        if self.journal:
            if self.temp.parent.exists():
                self.clear()
            return
        for temp in (self.temp, *self._sides.values()):
            if temp.is_dir():
                shutil.rmtree(temp)
            else:
                temp.unlink(missing_ok=True)


def _emptied(folder: Path) -> None:
    for old in folder.iterdir():
        if old.name != JOURNAL:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


class MappedWriter:
    """A writer of the array that `make(temporary path)` maps, with companions beside it; `again` maps a resumed one."""

    def __init__(
        self,
        path: Path,
        like: Frame,
        shape: tuple[int, ...],
        std: bool,
        make: Callable[[Path], Any],
        *,
        partial: Partial | None = None,
        again: Callable[[Path], Any] | None = None,
    ) -> None:
        self._partial = partial or Partial(path)
        try:
            if self._partial.resumed and again:
                self._data = again(self._partial.temp)
            else:
                self._data = make(self._partial.temp)
                _reserve(self._partial.temp)
            self._std = self._partial.describe(like, shape, std)
        except BaseException:
            self._partial.undo()
            raise

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write `block` [unit of the frame] at `box` (all axes), and its standard error where the output has one."""
        self._data[box.slices] = block
        if self._std is not None:
            self._std[box.slices] = std

    def flush(self, box: Box) -> None:
        """What was put at `box` has reached the disk."""
        self._data.flush()
        if self._std is not None:
            self._std.flush()

    def close(self) -> None:
        """Finish and rename to the final name."""
        self._data.flush()
        self._partial.commit()

    def keep(self) -> None:
        """Leave what was written for another run."""
        self._data.flush()
        self._partial.keep()

    def abort(self) -> None:
        """Remove what was written."""
        self._partial.abort()


def _reserve(path: Path) -> None:
    # writing through a map into a hole of a full disk kills the process
    if hasattr(os, "posix_fallocate") and path.is_file():
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def save_map(path: Path, part: Any) -> None:
    """A map as a .npy file, block by block, so that one on disk never stands in memory."""
    from firstlight.io.storage import blocks

    if not part.shape or 0 in part.shape:
        with path.open("wb") as f:
            np.save(f, np.asarray(part))
        return
    out = np.lib.format.open_memmap(path, mode="w+", dtype=part.dtype, shape=tuple(part.shape))
    for box in blocks(part.shape, np.dtype(part.dtype).itemsize):
        out[box.slices] = part[box.slices]
    out.flush()


def companions(path: Path) -> tuple[str | None, dict[str, Any]]:
    """The description beside a file and its maps (memory-mapped), or (None, {}) where there is none of ours."""
    side = path.with_name(f"{path.name}.json")
    if not side.is_file():
        return None, {}
    text = side.read_text()
    if '"firstlight"' not in text:
        return None, {}
    found = {m: np.load(f, mmap_mode="r") for m in describe.MAPS if (f := path.with_name(f"{path.name}.{m}.npy")).is_file()}
    return text, found


def read_described(data: Any, path: Path, plain: Frame) -> Frame:
    """`plain`, or, where a companion describes the file, the Frame it describes, with plain's header kept."""
    text, arrays = companions(path)
    if text is None:
        return plain
    try:
        return describe.attach(data, text, arrays, header=plain.observation.header, source=str(path))
    except Exception as error:
        raise ReadError(f"{path}: {path.name}.json beside it belongs to another file ({error}); remove or rename it") from error
