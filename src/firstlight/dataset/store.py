"""Where the tiles of a set lie: one file each, or in packs. Both are read by number, and both travel to worker processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from firstlight.dataset.metadata import METADATA, metadata_file, read_metadata, resolve, resolved, rows_of
from firstlight.errors import FrameError, ReadError

__all__ = ["INDEX", "Store", "TileFiles", "column", "flags_file", "load_tile", "open_set", "open_store"]

Array = NDArray[Any]
INDEX = "packs/index.parquet"


class Store(Protocol):
    """Tiles by number, in the order of the set's rows."""

    def read(self, i: int) -> Array:
        """Tile `i`, (H, W) or (C, H, W), in scaled values; the caller owns the array. Raises ReadError naming the file."""

    def flags(self, i: int) -> Array | None:
        """The flag bits of tile `i`, (H, W) or (C, H, W), 0 where valid; None where none are stored."""

    def has_flags(self, i: int) -> bool:
        """True where flag bits of tile `i` are stored."""

    def __len__(self) -> int: ...


@runtime_checkable
class StoredSet(Store, Protocol):
    """Tiles that bring their metadata with them, as packs do; `out` is the folder that paths are relative to."""

    out: Path

    def metadata(self) -> dict[str, Any]:
        """{"tiles": [row, ...], ...}"""


class TileFiles:
    """One .npy file a tile, and NAME.flags.npy beside it where flags are stored."""

    def __init__(self, paths: Sequence[str]) -> None:
        if bad := [i for i, path in enumerate(paths) if not isinstance(path, str)][:1]:
            raise FrameError(f"tiles: npy_path of row {bad[0]} is {paths[bad[0]]!r}, expected the path of its tile")
        self._paths = np.array(paths, dtype=np.dtypes.StringDType())  # no Python object a tile: workers share the memory

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, i: int) -> Array:
        """Tile `i` from its file; raises ReadError naming the file."""
        return load_tile(str(self._paths[i]))

    def flags(self, i: int) -> Array | None:
        """The flag bits of tile `i` from the file beside it, or None."""
        return load_tile(flags_file(str(self._paths[i]))) if self.has_flags(i) else None

    def has_flags(self, i: int) -> bool:
        """True where a file of flags lies beside tile `i`."""
        return Path(flags_file(str(self._paths[i]))).is_file()


def flags_file(npy_path: str) -> str:
    """The file that holds a tile's flag bits: `NAME.flags.npy` beside `NAME.npy`."""
    return f"{npy_path.removesuffix('.npy')}.flags.npy"


def load_tile(path: str | Path) -> Array:
    """The array in a tile's .npy file, in the machine's byte order; raises ReadError naming the file and the cause."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # Path.open costs a tenth of reading a tile
            tile: Array = np.lib.format.read_array(file, allow_pickle=False)  # numpy.load would take archives too
    except FileNotFoundError as error:
        raise ReadError(
            f"{path}: no such tile; a relative path is relative to the JSON: pass root=, or build the set again"
        ) from error
    except Exception as error:  # whatever bytes a damaged header makes numpy's parser stumble over
        raise ReadError(f"{path}: damaged tile ({' '.join(str(error).split())}); build the set again to replace it") from error
    if tile.dtype.kind not in "fiub":
        raise ReadError(f"{path}: is no tile of numbers, expected a .npy array; build the set again to replace it")
    return tile if tile.dtype.isnative else tile.astype(tile.dtype.newbyteorder("="))


def open_set(out: str | Path) -> tuple[dict[str, Any], Store, Path]:
    """A set's metadata with its paths as they are, its tiles, and the folder that the paths are relative to.

    `out`: its folder, read from its packs where it has any, or its JSON, read from its files. Raises ReadError for neither.
    """
    path = Path(out)
    if (path / INDEX).is_file():
        from firstlight.dataset.pack import open_pack

        packs = open_pack(path)
        return packs.metadata(), packs, path
    if path.is_dir() and not (path / METADATA).is_file():
        raise ReadError(f"{path}: is no tile set, it has neither {METADATA} nor {INDEX}")
    file = metadata_file(path)
    meta = read_metadata(file, absolute=False)
    return meta, TileFiles(resolved(column(meta["tiles"], "npy_path"), file.parent)), file.parent


def open_store(tiles: Any, root: str | Path | None = None) -> tuple[dict[str, Any], Store]:
    """A set's metadata (paths absolute) and its tiles, of a folder, a JSON, packs, a DataFrame or rows (relative to `root`).

    Raises ReadError for what is no tile set, FrameError for rows without a path.
    """
    if root is not None and (isinstance(tiles, str | Path) or hasattr(tiles, "metadata")):
        raise FrameError(f"tiles: root={root} is for rows; the paths of a tile set are relative to its own folder")
    if isinstance(tiles, str | Path):
        meta, store, folder = open_set(tiles)
        return {**meta, "tiles": resolve(meta["tiles"], folder)}, store
    if isinstance(tiles, StoredSet):
        return {**(meta := tiles.metadata()), "tiles": resolve(meta["tiles"], tiles.out)}, tiles
    rows = rows_of(tiles) if root is None else resolve(rows_of(tiles), root)
    return {"tiles": rows}, TileFiles(column(rows, "npy_path"))


def column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """One field of every row; raises FrameError naming the first row that lacks it."""
    try:
        return [row[name] for row in rows]
    except KeyError:
        bad = next(row for row in rows if name not in row)
        raise FrameError(
            f"tiles: row {bad.get('tile_id', bad)!r} has no {name!r}, expected the fields of a tile's row"
        ) from None
