"""The index of a packed set: one Parquet file, a line a tile, every field of its row and where its pixels lie."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.dataset.rows import TileRow
from firstlight.dataset.store import INDEX
from firstlight.errors import FrameError, ReadError

__all__ = ["Place", "index_meta", "index_places", "index_rows", "packed_tiles", "write_index"]

_KINDS = {"str": "string", "int": "int64", "float": "float64", "bool": "bool", "str | None": "string"}
_FIELDS = {field.name: _KINDS.get(str(field.type), "json") for field in fields(TileRow)}
_PLACE = {"pack": "string", "pack_row": "int64", "pack_shape": "string", "flags_pack": "string", "flags_row": "int64"}
_CHUNK = 8192
_META = b"firstlight"


@dataclass(frozen=True)
class Place:
    """Where a tile lies: row `pack_row` of the file `pack`, of shape "256x256" or "3x256x256"; its flags alike, or nowhere."""

    pack: str
    pack_row: int
    pack_shape: str
    flags_pack: str | None = None
    flags_row: int | None = None


def _schema(meta: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    kinds = {**_FIELDS, "extra": "json", **_PLACE}
    columns = [(name, pa.type_for_alias("string" if kind == "json" else kind)) for name, kind in kinds.items()]
    return pa.schema(columns).with_metadata({_META: json.dumps(dict(meta)).encode()})


def write_index(path: Path, tiles: Iterable[tuple[Mapping[str, Any], Place]], meta: Mapping[str, Any]) -> None:
    """Write the index; `meta` is what the set's JSON holds beside its tiles. Raises FrameError for a field of another kind."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, tiles = _schema(meta), iter(tiles)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while chunk := [_line(row, place) for row, place in islice(tiles, _CHUNK)]:
            try:
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
            except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError) as error:
                raise FrameError(f"tiles: a row does not fit the fields of TileRow ({error})") from error


def _line(row: Mapping[str, Any], place: Place) -> dict[str, Any]:
    extra = {name: value for name, value in row.items() if name not in _FIELDS}
    line = {k: json.dumps(row[k]) if kind == "json" else row[k] for k, kind in _FIELDS.items() if k in row}
    return {**line, "extra": json.dumps(extra) if extra else None, **vars(place)}


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if _META not in (file.schema_arrow.metadata or {}) or not {*_PLACE} <= {*file.schema_arrow.names}:
            raise ReadError(f"{path}: is no index of a packed tile set")
    except (OSError, pa.ArrowException) as error:
        cause = " ".join(str(error).split())
        raise ReadError(f"{path}: the index cannot be read ({cause}); pack the set again") from error
    return file


def index_meta(path: Path) -> dict[str, Any]:
    """What the set's JSON holds beside its tiles."""
    with _open(path) as file:
        return dict(json.loads(file.schema_arrow.metadata[_META]))


def index_places(path: Path) -> list[Place]:
    """Where every tile lies, in the order of the rows."""
    with _open(path) as file:
        table = file.read(columns=list(_PLACE)).to_pydict()
    return [Place(*values) for values in zip(*(table[name] for name in _PLACE), strict=True)]


def packed_tiles(out: Path) -> dict[str, bool]:
    """Every tile_id of a set's index, and whether its packs hold its tile and flags: one may be gone, or cut short."""
    if not (path := out / INDEX).is_file():
        return {}
    places = index_places(path)
    names = {name for p in places for name in (p.pack, p.flags_pack) if name is not None}
    lengths: dict[str | None, int] = {None: 1, **{name: _length(path.with_name(name)) for name in names}}
    return {
        str(row["tile_id"]): p.pack_row < lengths[p.pack] and (p.flags_row or 0) < lengths[p.flags_pack]
        for p, row in zip(places, index_rows(path), strict=True)
    }


def _length(path: Path) -> int:
    """Tiles in a pack, 0 where it cannot be mapped in full length."""
    try:
        return len(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError):
        return 0


def index_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of TileRow's fields, in order; fields that the packed rows did not have come back as None."""
    with _open(path) as file:
        for batch in file.iter_batches(_CHUNK, columns=[*_FIELDS, "extra"]):
            table = {name: _decoded(values, name) for name, values in batch.to_pydict().items()}
            for values in zip(*(table[name] for name in _FIELDS), table["extra"], strict=True):
                yield {**dict(zip(_FIELDS, values, strict=False)), **(values[-1] or {})}


def _decoded(values: list[Any], name: str) -> list[Any]:
    if name in _FIELDS and _FIELDS[name] != "json":
        return values
    known: dict[str | None, Any] = {text: json.loads(text) for text in {*values} if text is not None}
    return [known.get(text) for text in values]
