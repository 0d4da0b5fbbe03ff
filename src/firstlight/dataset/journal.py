"""What a tile set's folder holds and how far it has come: one entry a finished source, written after its last tile.

OUT/.firstlight/lock            held by the one run that writes here, with its process id
OUT/.firstlight/options.json    what the tiles depend on beside their source
OUT/.firstlight/pairs.jsonl     pairs proved or refused, see `checked`
OUT/.firstlight/sources/*.json  a source's hash, its file sizes, its rows

The metadata are made of the entries, so a row without an entry, or a tile without one, is what an interrupted run left: rows
are written after tiles and removed before them, whatever the moment of a kill.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.atomic import replacing, write_text
from firstlight.dataset.cut import MAPS
from firstlight.dataset.manifest import Patch
from firstlight.dataset.metadata import METADATA
from firstlight.dataset.rows import Source, TileRow
from firstlight.dataset.store import flags_file
from firstlight.errors import FrameError, WriteError

__all__ = ["Entry", "Journal", "Rows", "files_of", "locked", "owner"]

FOLDER = ".firstlight"
TILES = "npy_tiles"
LABELS = ("domain", "data_type")  # of a source, on which its tiles' paths depend
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """A finished source, noted in `file`: its path and hash, {file below OUT: bytes} of what it wrote, and its rows.

    The path is "" where the file cannot be read: nothing is known of that source but that it had been finished.
    """

    file: Path
    path: str
    sha256: str
    labels: tuple[str, ...]
    files: Mapping[str, int]
    rows: Rows

    def made_of(self, source: Source) -> bool:
        """True where the entry is that source's, as it is now."""
        return self.sha256 == source.sha256 and self.labels == tuple(getattr(source, k) for k in LABELS)

    def whole(self, out: Path) -> bool:
        """True where every file is there in full length."""
        try:
            return all((out / name).stat().st_size == size for name, size in self.files.items())
        except OSError:
            return False


@contextmanager
def locked(out: Path) -> Iterator[Journal]:
    """The journal of a folder, made where it is not there, for one run at a time. The lock ends with the process.

    Raises WriteError where another process holds it, naming its id, or the folder is somebody else's.
    """
    home = out / FOLDER
    if not home.is_dir() and any((out / name).exists() for name in (TILES, MAPS, METADATA)):
        raise WriteError(f"{out}: holds tiles or noise maps that no firstlight run wrote; choose another folder")
    try:
        (home / "sources").mkdir(parents=True, exist_ok=True)
        handle = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WriteError(f"{out}: cannot be made a tile set's folder ({error.strerror}); choose another") from error
    try:
        _lock(handle, out)
        yield Journal(out)
    finally:
        os.close(handle)


def _lock(handle: int, out: Path) -> None:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
        raise WriteError(f"{out}: is being built by process {holder}; wait for it to end, or choose another folder") from None
    except OSError as error:
        raise WriteError(f"{out}: its disk knows no locks ({error.strerror or error}); choose a folder on another") from error
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())


class Journal:
    """The finished sources of a folder that this process holds the lock of; see `locked`."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.pairs = out / FOLDER / "pairs.jsonl"
        self._home = out / FOLDER / "sources"

    def agree(self, options: Mapping[str, Any], free: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Note what the tiles depend on, and `free` options that may change; returns those of `free` that have, as they were.

        Raises FrameError where finished tiles were made with other options.
        """
        file, free = self.out / FOLDER / "options.json", dict(free or {})
        try:
            before = json.loads(file.read_text()) if any(self._files()) else {}
        except (OSError, ValueError):
            before = {}
        was = {k: v for k, v in before.items() if k not in free}
        if was and was != dict(options):
            changed = sorted(k for k in {*was, *options} if was.get(k) != options.get(k))
            old, new = (", ".join(f"{k} {o.get(k)!r}" for k in changed) for o in (was, options))
            raise FrameError(
                f"{self.out}: was built with {old}, got {new}; one set, one rule: choose another folder, or remove this one"
            )
        write_text(file, json.dumps(dict(options) | free, indent=1))
        return {k: before[k] for k in free if k in before and before[k] != free[k]}

    def _files(self) -> Iterator[Path]:
        yield from sorted(p for p in self._home.glob("*.json") if not p.name.startswith("."))

    def _file(self, path: str) -> Path:
        return self._home / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.json"

    def entries(self) -> Iterator[Entry]:
        """Every finished source."""
        for file in self._files():
            try:
                found = json.loads(file.read_bytes())
                yield Entry(file, found["path"], found["sha256"], tuple(found["labels"]), found["files"], found["rows"])
            except (ValueError, KeyError, TypeError):
                yield Entry(file, "", "", (), {}, [])

    def rows(self, path: str) -> Rows:
        """The rows of a finished source."""
        return json.loads(self._file(path).read_bytes())["rows"]  # type: ignore[no-any-return]

    def add(self, source: Source, files: Mapping[str, int], rows: Iterable[TileRow] | Iterable[Patch]) -> None:
        """Note a source as finished: all its files are in place."""
        entry = {
            "path": source.path,
            "sha256": source.sha256,
            "labels": [getattr(source, k) for k in LABELS],
            "files": dict(files),
            "rows": [_plain(row) for row in rows],
        }
        with replacing(self._file(source.path)) as temp, temp.open("w", encoding="utf-8") as file:
            file.write(json.dumps(entry))  # not json.dump, which encodes in Python
            file.flush()
            os.fsync(file.fileno())

    def remove(self, entries: Iterable[Entry]) -> None:
        """Forget sources; their files go with `sweep`."""
        for entry in entries:
            entry.file.unlink(missing_ok=True)

    def sweep(self, kept: set[str]) -> int:
        """Remove every tile, flag plane, noise map and temporary file that is not among `kept`; returns how many."""
        gone = 0
        for folder in (TILES, MAPS, FOLDER):
            for here, _, names in os.walk(self.out / folder):
                for name in names:
                    file = Path(here) / name
                    ours = folder == FOLDER or file.relative_to(self.out).as_posix() in kept
                    if ".part." in name or not ours:
                        file.unlink()
                        gone += 1
        for file in self.out.glob(".[0-9]*.part.*.json"):
            file.unlink()
        return gone


def owner(out: Path, path: Path) -> Path | None:
    """The folder below OUT, kept by its journal, that a path lies in; None where it lies in none."""
    return next((h for h in (out / n for n in (TILES, MAPS, FOLDER)) if path.resolve().is_relative_to(h.resolve())), None)


def _plain(row: TileRow | Patch) -> dict[str, Any]:
    return {**vars(row), "flags": dict(row.flags)} if isinstance(row, TileRow) else dict(vars(row))


def files_of(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Names below OUT of everything that rows refer to."""
    out = set()
    for row in rows:
        out.add(row["npy_path"])
        if row.get("flags"):
            out.add(flags_file(row["npy_path"]))
        out |= {row[k] for k in ("noise_a", "noise_b") if isinstance(row[k], str)}
    return out
