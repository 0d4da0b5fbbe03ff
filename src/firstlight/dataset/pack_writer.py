"""Packs under construction. They grow under temporary names; the index, written last, makes them a set.

What was committed outlasts a kill: the next writer goes on behind it and removes what lies beyond it.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from firstlight.dataset.pack_index import Place, index_meta, index_places, index_rows, write_index
from firstlight.dataset.rows import TileRow
from firstlight.dataset.store import INDEX
from firstlight.errors import FirstlightError, FrameError, WriteError

__all__ = ["PackWriter"]

Array = NDArray[Any]
PACK_BYTES = 1 << 30
PART, JOURNAL = ".part.", ".part.rows.jsonl"
_DIGITS = len("_0000.npy")


@dataclass
class _Pack:
    """One growing pack in its temporary file: `rows` tiles of `shape` (C, H, W)."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int = 0
    file: IO[bytes] | None = field(default=None, repr=False)

    def header(self) -> bytes:
        # numpy pads a header so that the first axis can grow in place: its length does not depend on the number of rows
        form = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.rows, *self.shape)}
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, form)
        return buffer.getvalue()

    def end(self, rows: int = 0) -> int:
        """Where the file ends with `rows` more tiles [byte]."""
        return len(self.header()) + (self.rows + rows) * int(np.prod(self.shape)) * self.dtype.itemsize

    def append(self, array: Array) -> int:
        if self.file is None:
            self.file = self.path.open("r+b" if self.rows else "w+b")
            self.file.write(self.header())
        self.file.seek(self.end())  # over what a failed write left
        self.file.write(array.data)
        self.rows += 1
        return self.rows - 1

    def flush(self) -> None:
        if self.file is not None:
            self.file.flush()

    def close(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            file.close()

    def finish(self, final: Path) -> None:
        self.close()
        with self.path.open("r+b") as file:
            file.write(self.header())
            file.flush()
            os.fsync(file.fileno())  # before the index that vouches for it
        self.path.replace(final)

    @classmethod
    def recovered(cls, path: Path, rows: int) -> _Pack:
        """The pack in `path`, cut back to its first `rows` tiles."""
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        pack = cls(path, shape[1:], dtype, rows)
        if path.stat().st_size < pack.end():
            raise WriteError(f"{path}: is shorter than the {rows} tiles committed to it; remove its folder and pack again")
        os.truncate(path, pack.end())
        return pack


class PackWriter:
    """Writes OUT/packs: `add` tiles, `commit` now and then, `close` to finish. One writer at a time.

    A tile that an earlier run left, finished or committed, is known by `has`. As a context manager it closes where its block
    ends well; else what was committed stays for the next run to go on from. Raises WriteError where the folder cannot be
    written or another writer is at work in it.
    """

    def __init__(self, out: str | Path, *, pack_bytes: int = PACK_BYTES) -> None:
        self.folder, self._index, self._pack_bytes = Path(out) / "packs", Path(out) / INDEX, pack_bytes
        self._places: dict[str, Place] = {}  # by tile_id, as the two below
        self._stamps: dict[str, str] = {}
        self._pending: list[str] = []
        self._packs: dict[str, _Pack] = {}  # by name
        self._count: dict[str, int] = {}  # packs of a key
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock: int | None = _locked(self.folder)
            self._resume()

    def has(self, row: TileRow | Mapping[str, Any]) -> bool:
        """True where the tile of this very row is packed: same source, same making, same statistics."""
        row = row.to_dict() if isinstance(row, TileRow) else row
        return self._stamps.get(row["tile_id"]) == _stamp(row)

    def add(self, row: TileRow | Mapping[str, Any], array: Array, flags: Array | None = None) -> None:
        """Append the tile (H, W) or (C, H, W) of a row, and its flag bits where it has any; replaces an older tile of that id.

        Raises FrameError for a tile that the set `has` already or an array that is no tile, WriteError for a full disk.
        """
        row = row.to_dict() if isinstance(row, TileRow) else row
        tile_id, key = str(row["tile_id"]), f"{row['domain']}_{row['data_type']}"
        if self._lock is None:
            raise WriteError(f"{self.folder}: this writer is closed; open another")
        if self.has(row):
            raise FrameError(f"tiles: {tile_id} is in {self.folder} already; a tile is packed once")
        for part in (array,) if flags is None else (array, flags):
            if part.ndim not in (2, 3) or part.dtype.kind not in "fiub" or not part.size:
                raise FrameError(f"tiles: {tile_id} is {part.dtype} {part.shape}, expected numbers as (H, W) or (C, H, W)")
        text = json.dumps(dict(row), default=_plain)
        place = Place(*self._append(key, array), "x".join(map(str, array.shape)))
        if flags is not None:
            pack, number = self._append(f"{key}-flags", flags)
            place = replace(place, flags_pack=pack, flags_row=number)
        self._pending.append(f"[{text},{json.dumps(astuple(place))}]")
        self._know(row, place)

    def _append(self, key: str, array: Array) -> tuple[str, int]:
        key = f"{key}_{'x'.join(map(str, array.shape))}_{array.dtype.name}"
        if not re.fullmatch(r"[\w.+-]+", key):
            raise FrameError(
                f"tiles: {key!r} cannot name a pack; a domain and a data type are made of letters, digits, . + - _"
            )
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        name = self._name(key)
        if name not in self._packs or (self._packs[name].rows and self._packs[name].end(1) > self._pack_bytes):
            if name in self._packs:
                with _writing(self._packs[name].path):
                    self._packs[name].close()
            self._count[key] = self._count.get(key, 0) + 1
            name = self._name(key)
            shape = (1,) * (3 - array.ndim) + array.shape
            self._packs[name] = _Pack(self.folder / f"{PART}{name}", shape, array.dtype)
        with _writing(self._packs[name].path):
            return name, self._packs[name].append(array)

    def _name(self, key: str) -> str:
        return f"{key}_{self._count.get(key, 0) - 1:04d}.npy"

    def commit(self) -> None:
        """Make every tile added so far outlast a kill of this process."""
        if not self._pending:
            return
        with _writing(self.folder):
            for pack in self._packs.values():
                pack.flush()
            with (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
                journal.write(f"[{','.join(self._pending)}]\n")
        self._pending.clear()

    def close(self, meta: Mapping[str, Any] | None = None) -> None:
        """Finish: the packs get their names, then the index appears.

        `meta`: what the set's JSON holds; where it has "tiles", they are the index's rows, in their order, and tiles that are
        not among them leave the set. Raises FrameError for a row whose tile was not added.
        """
        self.commit()
        head = {**(index_meta(self._index) if self._index.is_file() else {}), **(meta or {})}
        rows = head.pop("tiles", None)
        part = self.folder / f"{PART}{self._index.name}"
        tiles = self._kept() if rows is None else ((row, self._place(row)) for row in rows)
        with _writing(self.folder):
            for name, pack in self._packs.items():
                pack.finish(self.folder / name)
            write_index(part, tiles, head)
            part.replace(self._index)
            (self.folder / JOURNAL).unlink(missing_ok=True)
        self.release()

    def _place(self, row: Mapping[str, Any]) -> Place:
        if not self.has(row):
            raise FrameError(
                f"tiles: {row['tile_id']} is among the rows of {self.folder} but its tile was not added; add it first"
            )
        return self._places[row["tile_id"]]

    def release(self) -> None:
        """Let go of the folder as it is, with what was committed, for a later run to go on from."""
        for pack in self._packs.values():
            with suppress(OSError):  # a full disk has said so already
                pack.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None and self._lock is not None:
            self.close()
        self.release()

    def _kept(self) -> Iterator[tuple[dict[str, Any], Place]]:
        """Every tile that was added and not replaced since, in the order of adding."""
        return ((row, place) for row, place in (*self._indexed(), *self._journal()) if self._places[row["tile_id"]] == place)

    def _indexed(self) -> Iterator[tuple[dict[str, Any], Place]]:
        if self._index.is_file():
            yield from zip(index_rows(self._index), index_places(self._index), strict=True)

    def _journal(self) -> Iterator[tuple[dict[str, Any], Place]]:
        path = self.folder / JOURNAL
        if path.is_file():
            with path.open(encoding="utf-8") as journal:
                for line in journal:
                    yield from ((row, Place(*place)) for row, place in json.loads(line))

    def _resume(self) -> None:
        journal, finished, grown = self.folder / JOURNAL, set[str](), dict[str, int]()
        if journal.is_file():  # a line that a kill cut short was no commit
            os.truncate(journal, journal.read_bytes().rfind(b"\n") + 1)
        for row, place in self._indexed():
            self._know(row, place)
            finished.update(name for name in (place.pack, place.flags_pack) if name)
        if any(place.pack in finished for _, place in self._journal()):  # killed between the index and the journal's end
            journal.unlink()
        for row, place in self._journal():
            self._know(row, place)
            grown[place.pack] = place.pack_row + 1
            if place.flags_pack is not None and place.flags_row is not None:
                grown[place.flags_pack] = place.flags_row + 1
        for path in (*self.folder.glob("*.npy"), *self.folder.glob(f"{PART}*")):
            if path.name not in (*finished, JOURNAL) and path.name.removeprefix(PART) not in grown:
                path.unlink(missing_ok=True)
        for name, rows in grown.items():
            self._packs[name] = self._recover(name, rows)
        for name in (*finished, *grown):
            key = name[:-_DIGITS]
            self._count[key] = max(self._count.get(key, 0), int(name[-_DIGITS + 1 : -4]) + 1)

    def _recover(self, name: str, rows: int) -> _Pack:
        part = self.folder / f"{PART}{name}"
        if not part.exists() and (self.folder / name).exists():  # killed while the packs got their names
            (self.folder / name).replace(part)
        return _Pack.recovered(part, rows)

    def _know(self, row: Mapping[str, Any], place: Place) -> None:
        self._places[row["tile_id"]], self._stamps[row["tile_id"]] = place, _stamp(row)


def _stamp(row: Mapping[str, Any]) -> str:
    """What tells a tile from another of its id: a source that changed, a set that was built again."""
    names = ("source_sha256", "processing_timestamp", "norm_mean", "norm_std")
    return json.dumps([row.get(name) for name in names], default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise FrameError(f"tiles: a row holds a {type(value).__name__}, expected numbers, texts, lists and dicts")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into one line that names the path."""
    try:
        yield
    except FirstlightError:
        raise
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another folder"
        ) from error


def _locked(folder: Path) -> int:
    """An open handle of the folder that no second writer can hold at the same time; it ends with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise WriteError(f"{folder}: another run is writing here; wait for it to end") from error
    return handle
