"""A packed store for large tile sets: memory-mapped .npy packs (N, C, H, W) and one Parquet index, in OUT/packs/."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from firstlight.dataset.metadata import METADATA, metadata_file, read_metadata, resolved, write_metadata
from firstlight.dataset.pack_index import index_meta, index_places, index_rows
from firstlight.dataset.pack_writer import PACK_BYTES, PackWriter
from firstlight.dataset.store import INDEX, TileFiles, column, flags_file
from firstlight.dataset.whole import copy_maps, new_folder, save_tile
from firstlight.errors import FrameError, ReadError

__all__ = ["PackDataset", "PackWriter", "Packs", "open_pack", "unpack", "write_pack"]

Array = NDArray[Any]
COMMIT = 256  # tiles that a kill may cost
MADE_OF = "json_sha256"  # of the JSON that a set was packed with


class Packs:
    """The tiles of a packed set by number, in the order of its index; see `open_pack`."""

    def __init__(self, out: str | Path, *, copy: bool = True) -> None:
        self.out, self._copy = Path(out).absolute(), copy
        places = index_places(self.out / INDEX)
        self._names = sorted({name for p in places for name in (p.pack, p.flags_pack) if name})
        number = {name: i for i, name in enumerate(self._names)}
        # arrays, no Python object a tile: worker processes share the memory
        self._tiles = np.array([(number[p.pack], p.pack_row) for p in places], dtype=np.int64).reshape(-1, 2)
        self._flags = np.array([(number.get(p.flags_pack or "", -1), p.flags_row or 0) for p in places], dtype=np.int64)
        self._flat = np.array([p.pack_shape.count("x") == 1 for p in places], dtype=bool)
        self._open: dict[int, Array] = {}

    def __len__(self) -> int:
        return len(self._tiles)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a map would travel to a worker as its whole content

    def metadata(self) -> dict[str, Any]:
        """What the set's JSON holds: {"tiles": [row, ...], ...}, paths relative to the set's folder `out`.

        Raises ReadError where the JSON beside the packs tells of other tiles.
        """
        meta = {**index_meta(self.out / INDEX), "tiles": list(index_rows(self.out / INDEX))}
        file, made_of = self.out / METADATA, meta.pop(MADE_OF, None)
        if made_of is None or not file.is_file() or _digest(file) == made_of:
            return meta
        now = read_metadata(file, absolute=False)
        if [row["tile_id"] for row in now["tiles"]] != [row["tile_id"] for row in meta["tiles"]]:
            raise ReadError(f"{self.out / INDEX}: the set has other tiles now than when it was packed; pack it again")
        return now

    def read(self, i: int) -> Array:
        """Tile `i`, (H, W) or (C, H, W); raises ReadError naming the pack."""
        pack, row = self._tiles[i]
        tile = self._row(int(pack), int(row))
        tile = tile[0] if self._flat[i] else tile
        return tile.copy() if self._copy else tile

    def flags(self, i: int) -> Array | None:
        """The flag bits of tile `i`, (H, W) or (C, H, W), 0 where valid; None where none are stored."""
        pack, row = self._flags[i]
        if pack < 0:
            return None
        bits = self._row(int(pack), int(row))
        return (bits[0] if len(bits) == 1 else bits).copy()

    def has_flags(self, i: int) -> bool:
        """True where the flag bits of tile `i` are stored."""
        return bool(self._flags[i, 0] >= 0)

    def _row(self, pack: int, row: int) -> Array:
        if pack not in self._open:
            self._open[pack] = _mapped(self.out / "packs" / self._names[pack], "r" if self._copy else "c")
        tiles = self._open[pack]
        if row >= len(tiles):
            raise ReadError(f"{self.out / 'packs' / self._names[pack]}: has no tile {row} of {len(tiles)}; pack the set again")
        tile: Array = tiles[row]
        return tile


def stamped(meta: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Metadata for an index that can tell later whether the JSON `file` beside it still is the one it was made of."""
    return {**meta, MADE_OF: _digest(file)}


def _digest(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _mapped(path: Path, mode: Literal["r", "c"]) -> Array:
    try:
        tiles = np.asarray(np.load(path, mmap_mode=mode, allow_pickle=False))
    except Exception as error:
        cause = " ".join(str(error).split())
        raise ReadError(f"{path}: the pack is absent or damaged ({cause}); pack the set again") from error
    if tiles.ndim != 4:
        raise ReadError(f"{path}: is no pack (N, C, H, W) but {tiles.shape}; pack the set again")
    return tiles


def open_pack(out: str | Path, *, copy: bool = True) -> Packs:
    """The tiles of a packed set: `read(i)`, `flags(i)`, `len`, `metadata()`.

    With copy=False `read` hands out the mapped memory itself: what is written to it stays in this process, for every later
    read of that tile. Raises ReadError for a folder without an index, an index or a pack that is damaged.
    """
    if not (Path(out) / INDEX).is_file():
        raise ReadError(f"{out}: has no {INDEX}; pack the set first, or build it with packs")
    return Packs(out, copy=copy)


class PackDataset:
    """A packed set as training data: the items of DiffusionTileDataset, or with items="noise" of NoiseTileDataset.

    `options` are those of that dataset. copy=False: images share the mapped memory, never change them in place.
    """

    def __init__(
        self,
        out: str | Path,
        split: str = "train",
        *,
        items: Literal["diffusion", "noise"] = "diffusion",
        copy: bool = True,
        **options: Any,
    ) -> None:
        from firstlight.dataset import load

        kinds: dict[str, Any] = {"diffusion": load.DiffusionTileDataset, "noise": load.NoiseTileDataset}
        if items not in kinds:
            raise FrameError(f"tiles: got items={items!r}, expected 'diffusion' or 'noise'")
        self.tiles = kinds[items](open_pack(out, copy=copy), split, **options)

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        return self.tiles[idx]  # type: ignore[no-any-return]


def write_pack(out: str | Path, dest: str | Path | None = None, *, pack_bytes: int = PACK_BYTES) -> dict[str, Any]:
    """Pack the tile set in `out` into `dest` (default: beside its tiles), bit for bit; goes on where a killed run stopped.

    `pack_bytes`: the most that one pack holds. Returns {"tiles", "packed", "skipped"}. Raises ReadError naming a tile that is
    absent or damaged, WriteError for a full disk.
    """
    file = metadata_file(out)
    meta = read_metadata(file, absolute=False)
    folder, dest = file.parent, file.parent if dest is None else Path(dest)
    rows = meta["tiles"]
    files = TileFiles(resolved(column(rows, "npy_path"), folder))
    with PackWriter(dest, pack_bytes=pack_bytes) as writer:
        new = [i for i, row in enumerate(rows) if not writer.has(row)]
        for n, i in enumerate(new):
            writer.add(rows[i], files.read(i), files.flags(i))
            if n % COMMIT == COMMIT - 1:
                writer.commit()
        if dest.absolute() != folder.absolute():
            copy_maps(rows, folder, dest)
        writer.close(stamped(meta, file))
    return {"tiles": len(rows), "packed": len(new), "skipped": len(rows) - len(new)}


def unpack(out: str | Path, dest: str | Path) -> dict[str, Any]:
    """Write the packed set in `out` as one .npy file a tile into the new folder `dest`, bit for bit, with its JSON.

    Returns {"tiles": n}. Raises ReadError for damaged packs, WriteError where `dest` holds something already.
    """
    packs = open_pack(out, copy=False)
    meta = packs.metadata()
    with new_folder(dest) as folder:
        for i, row in enumerate(meta["tiles"]):
            save_tile(folder, row["npy_path"], packs.read(i))
            if (flags := packs.flags(i)) is not None:
                save_tile(folder, flags_file(row["npy_path"]), flags)
        copy_maps(meta["tiles"], packs.out, folder)
        write_metadata(folder, meta)
    return {"tiles": len(packs)}
