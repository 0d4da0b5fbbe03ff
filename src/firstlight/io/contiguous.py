"""A header followed by one array: mapped for reading, filled block by block for writing; packed files are unpacked to disk."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Frame
from firstlight.io.formats import PACKED
from firstlight.io.partial import Partial, companions

__all__ = ["ContiguousWriter", "described_axes", "mapped", "opened", "refuse_ext", "refuse_packed"]

_CHUNK = 1 << 20
Patch = Callable[[float, float, float], bytes]


def refuse_ext(path: Path, ext: str | int | None) -> None:
    """Raises ReadError where one of several frames is asked for."""
    if ext is not None:
        raise ReadError(f"{path}: extension {ext!r} asked for, but this format holds one image a file; leave it out")


def refuse_packed(path: Path) -> None:
    """Raises WriteError for NAME.gz: an array is filled in place, which compressed files do not allow."""
    if path.suffix.lower() in PACKED:
        raise WriteError(
            f"{path}: compressed output is not written; choose {path.with_suffix('').name} and compress it afterwards"
        )


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file; for .gz and .bz2 its content in an unnamed temporary file, which can be mapped."""
    unpack = PACKED.get(path.suffix.lower())
    if unpack is None:
        with path.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as file:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        with unpack(path, "rb") as packed:
            while chunk := packed.read(_CHUNK):
                if file.tell() + len(chunk) > free // 2:
                    raise ReadError(
                        f"{path}: unpacks to more than {free // 2} bytes, half of the free temporary space; unpack it"
                    )
                file.write(chunk)
        file.seek(0)
        yield file


def mapped(path: Path, file: IO[bytes], dtype: Any, offset: int, shape: Sequence[int]) -> np.memmap[Any, Any]:
    """A read-only memory map of the array at `offset`; raises ReadError, before allocating, where the file is too short."""
    need = offset + prod(int(n) for n in shape) * np.dtype(dtype).itemsize
    size = file.seek(0, 2)
    if size < need:
        raise ReadError(
            f"{path}: truncated, or its header is damaged: it announces {' x '.join(map(str, shape))} pixels of "
            f"{np.dtype(dtype).name}, {need} bytes in all, and the file has {size}"
        )
    return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=tuple(shape))


def described_axes(path: Path) -> str | None:
    """The axes that a companion beside the file states, or None."""
    text, _ = companions(path)
    try:
        return None if text is None else str(json.loads(text)["axes"])
    except (ValueError, KeyError, TypeError) as error:
        raise ReadError(
            f"{path}: {path.name}.json beside it is damaged ({error}); remove it or write the file again"
        ) from error


class ContiguousWriter:
    """`head` followed by an array of `shape`; `patch(min, max, mean)` gives the head again once the values are known."""

    def __init__(
        self,
        path: Path,
        like: Frame,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        std: bool,
        *,
        head: bytes,
        patch: Patch,
    ) -> None:
        self._partial = Partial(path)
        self._patch = patch
        self._low, self._high, self._total = np.inf, -np.inf, 0.0
        self._size = prod(shape)
        try:
            with self._partial.temp.open("wb") as f:
                f.write(head)
                f.truncate(len(head) + self._size * dtype.itemsize)
            self._data = np.memmap(self._partial.temp, dtype=dtype, mode="r+", offset=len(head), shape=shape)
            self._std = self._partial.describe(like, shape, std)
        except BaseException:
            self._partial.abort()
            raise

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write `block` at `box` (all axes), and its standard error where the output has one."""
        block = np.asarray(block)
        self._data[box.slices] = block
        if block.size:
            self._low, self._high = min(self._low, float(block.min())), max(self._high, float(block.max()))
            self._total += float(block.sum(dtype=np.float64))
        if self._std is not None:
            self._std[box.slices] = std

    def close(self) -> None:
        """Complete the header and rename to the final name."""
        self._data.flush()
        with self._partial.temp.open("r+b") as f:
            f.write(self._patch(self._low, self._high, self._total / self._size))
        self._partial.commit()

    def abort(self) -> None:
        """Remove what was written."""
        self._partial.abort()
