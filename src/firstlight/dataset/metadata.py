"""The metadata of a tile set as its users hold it: the JSON beside the tiles, a DataFrame, or plain rows."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import isnan
from pathlib import Path
from typing import Any

from firstlight.atomic import replacing
from firstlight.dataset.rows import TileRow
from firstlight.errors import FrameError, ReadError

__all__ = [
    "METADATA",
    "domain_file",
    "is_inside",
    "metadata_file",
    "read_metadata",
    "resolve",
    "resolved",
    "row_lines",
    "rows_of",
    "rows_text",
    "write_metadata",
    "write_rows",
]

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
    """Write OUT's JSON and, of the same shape, one JSON for each domain; each whole or not at all, the set's own last.

    meta["tiles"] may be any iterable: rows need not be in memory together. Raises FrameError for a row that is no JSON,
    WriteError where the disk refuses.
    """
    head, domains = {key: value for key, value in meta.items() if key != "tiles"}, dict[str, Callable[[str], None]]()
    with ExitStack() as files:  # which end in reverse order
        add = files.enter_context(_rows_file(Path(out) / METADATA, head))
        for row in meta["tiles"]:
            text, domain = _text(row), row["domain"]
            if domain not in domains:
                domains[domain] = files.enter_context(_rows_file(domain_file(out, domain), head))
            domains[domain](text)
            add(text)


def domain_file(out: str | Path, domain: str) -> Path:
    """The JSON that holds one domain's rows; raises FrameError for a domain that cannot name a file."""
    if not re.fullmatch(r"[\w.+-]+", domain):
        raise FrameError(f"tiles: {domain!r} cannot name a file, expected a domain of letters, digits, . + - _")
    return Path(out) / f"metadata_{domain}_incremental.json"


def write_rows(path: Path, head: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON of metadata, `head` and a row a line under "tiles", from rows that need not be in memory together.

    A file that is there stays until the new one is whole. Raises FrameError for a row that is no JSON (NaN is none),
    WriteError where the disk refuses.
    """
    with _rows_file(path, head) as add:
        for row in rows:
            add(_text(row))


@contextmanager
def _rows_file(path: Path, head: Mapping[str, Any]) -> Iterator[Callable[[str], None]]:
    """What adds the text of a row to a file that takes its name where the block ends well."""
    between = "\n"
    with replacing(path) as temp, temp.open("w", encoding="utf-8") as file:

        def add(text: str) -> None:
            nonlocal between
            file.write(between + text)
            between = ",\n"

        file.write(f'{_text(head)[:-1]}{", " if head else ""}"tiles": [')
        yield add
        file.write("\n]}\n")


def _text(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(value), allow_nan=False)  # not json.dump, nor an indent: both encode in Python
    except (TypeError, ValueError) as error:
        name = value.get("tile_id", "the set's head")
        raise FrameError(
            f"tiles: {name} is no JSON ({error}); expected finite numbers, texts, lists, dicts and None"
        ) from error


def row_lines(path: Path) -> list[bytes]:
    """The text of each row in a file that `write_rows` made; [] where rows and lines do not go one to one."""
    text = rows_text(path)
    rows = text.split(b",\n")
    good = text.count(b"\n") == len(rows) - 1 and all(row[:1] == b"{" and row[-1:] == b"}" for row in rows)
    return rows if good else []


def rows_text(path: Path) -> bytes:
    """What stands between the first and the last row's line ends in a file that `write_rows` made; b"" in another."""
    text = path.read_bytes()
    start = text.find(_OPEN) + len(_OPEN)
    return text[start : -len(_CLOSE)] if start >= len(_OPEN) and text.endswith(_CLOSE) else b""


_OPEN, _CLOSE = b'"tiles": [\n', b"\n]}\n"


def is_inside(path: Any) -> bool:
    """True for a path that stays in the folder it is relative to, wherever it is read: neither a drive nor ".." in it."""
    return (
        isinstance(path, str)
        and path[:1] not in ("", "/", "\\")
        and path[1:2] != ":"
        and (".." not in path or ".." not in path.replace("\\", "/").split("/"))
    )


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


def resolved(paths: Iterable[Any], root: str | Path) -> list[Any]:
    """Paths made absolute against `root`; what is no text stays."""
    base = f"{Path(root).absolute()}{os.sep}"
    return [_joined(base, path) if isinstance(path, str) else path for path in paths]


def _joined(base: str, path: str) -> str:
    return path if os.path.isabs(path) else base + path  # noqa: PTH117  # a Path takes longer than reading the row
