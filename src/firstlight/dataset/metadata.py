"""The metadata of a tile set as its users hold it: the JSON beside the tiles, a DataFrame, or plain rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from math import isnan
from pathlib import Path
from typing import Any

from firstlight.atomic import write_text
from firstlight.dataset.rows import TileRow
from firstlight.errors import FrameError, ReadError

__all__ = ["METADATA", "metadata_file", "read_metadata", "resolve", "rows_of", "write_metadata"]

METADATA = "comprehensive_tiles_metadata.json"
PATHS = ("npy_path", "flags_path", "noise_a", "noise_b")  # the fields that are, or may be, paths relative to the JSON


def metadata_file(path: str | Path) -> Path:
    """The JSON itself, of a tile set's folder or of the JSON."""
    path = Path(path)
    return path / METADATA if path.is_dir() else path


def read_metadata(path: str | Path, *, absolute: bool = True) -> dict[str, Any]:
    """The metadata of a tile set (its folder, or its JSON): {"tiles": [row, ...], "profile", "split", "pairs", ...}.

    Paths come back absolute, so that the rows can be used from any folder; `absolute=False` leaves them relative to the JSON.
    Raises ReadError for a file that is absent, damaged or no tile metadata.
    """
    file = metadata_file(path)
    try:
        meta = json.loads(file.read_bytes())
    except OSError as error:
        raise ReadError(f"{file}: cannot be read ({error.strerror or error}); expected the metadata of a tile set") from error
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{file}: is no JSON ({error}); build the tile set again, it goes on where it stopped") from error
    tiles = meta.get("tiles") if isinstance(meta, dict) else None
    if not isinstance(tiles, list) or not all(isinstance(row, dict) for row in tiles):
        raise ReadError(f'{file}: has no list "tiles" of rows; expected the metadata of a tile set')
    if absolute:
        meta["tiles"] = resolve(tiles, file.absolute().parent)
    return dict(meta)


def write_metadata(out: str | Path, meta: Mapping[str, Any]) -> None:
    """Write OUT's JSON and, of the same shape, one JSON for each domain; each whole or not at all, the set's own last."""
    out, lines = Path(out), [(row["domain"], json.dumps(row)) for row in meta["tiles"]]
    for domain in sorted({name for name, _ in lines}):
        write_text(out / f"metadata_{domain}_incremental.json", _text(meta, [line for name, line in lines if name == domain]))
    write_text(out / METADATA, _text(meta, [line for _, line in lines]))


def _text(meta: Mapping[str, Any], lines: list[str]) -> str:
    # a row a line: readable, and json's fast encoder knows no indentation
    head = {**{key: value for key, value in meta.items() if key != "tiles"}, "tiles": []}
    return json.dumps(head).removesuffix("]}") + "\n" + ",\n".join(lines) + "\n]}\n"


def rows_of(tiles: Any) -> list[dict[str, Any]]:
    """Rows as plain dicts, of a list of dicts or TileRows, or of a pandas DataFrame (whose NaN for "none" becomes None).

    Raises FrameError for anything else.
    """
    records = tiles.to_dict("records") if hasattr(tiles, "columns") and hasattr(tiles, "to_dict") else tiles
    if isinstance(records, str | bytes | Mapping) or not isinstance(records, Iterable):
        raise FrameError(f"tiles: got {type(tiles).__name__}, expected a DataFrame, a list of rows or the path of a tile set")
    return [_plain(row) for row in records]


def _plain(row: Any) -> dict[str, Any]:
    if isinstance(row, TileRow):
        return row.to_dict()
    if not isinstance(row, Mapping):
        raise FrameError(f"tiles: a row is a {type(row).__name__}, expected a dict with the fields of a tile's metadata")
    # a column of paths or numbers with gaps comes back from pandas with NaN in them
    return {
        key: None if key in _OPTIONAL and isinstance(value, float) and isnan(value) else value for key, value in row.items()
    }


_OPTIONAL = frozenset({*PATHS, "pair_id"})


def resolve(rows: Iterable[Mapping[str, Any]], root: str | Path) -> list[dict[str, Any]]:
    """Rows whose relative paths are made absolute against `root`."""
    base = f"{Path(root).absolute()}{os.sep}"
    return [{**row, **{key: _joined(base, row[key]) for key in PATHS if isinstance(row.get(key), str)}} for row in rows]


def _joined(base: str, path: str) -> str:
    return path if Path(path).is_absolute() else base + path
