"""Raw files by name, here or on another machine: HOST:PATH is fetched by the user's own scp."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from firstlight.errors import ReadError

__all__ = ["PICTURES", "RAWS", "Item", "at_hand", "files_in", "is_remote", "listed"]

RAWS = frozenset({".raf", ".arw", ".dng", ".nef", ".cr2", ".cr3"})
PICTURES = frozenset({".jpg", ".jpeg", ".png"})
REMOTE = re.compile(r"(?![./])[^/\\:\s]{2,}:.+", re.DOTALL)  # one letter is a drive


@dataclass(frozen=True)
class Item:
    """A file: `source` as the user knows it, `path` where it lies, None: on another machine; `name`: unique among all."""

    source: str
    path: Path | None
    name: str


def is_remote(text: str) -> bool:
    """Whether the text means HOST:PATH: no file of that name is here."""
    return bool(REMOTE.fullmatch(text)) and not Path(text).exists()


def listed(sources: Sequence[str], kept: Path, suffixes: Iterable[str] = RAWS) -> list[Item]:
    """The files of folders (searched through), files and HOST:PATH; folders and patterns of hosts are fetched below `kept`.

    A .txt (a line each) or .json (a list) stands for the sources in it, as `firstlight sharpness --top` writes them. Files
    whose stems agree are named after their folders too. Raises ReadError where one is absent, or none is of `suffixes`.
    """
    wanted = frozenset(suffixes)
    found: list[tuple[str, Path | None]] = []
    for source in _written_out(sources):
        if is_remote(source):
            found += _there(source, kept, wanted)
        else:
            found += [(str(p), p) for p in files_in(Path(source), wanted)]
    if not found:
        raise ReadError(f"{', '.join(sources)}: no file ends in {', '.join(sorted(wanted))}; name a folder that holds some")
    return _named(list(dict(found).items()))


def _written_out(sources: Sequence[str]) -> Iterator[str]:
    for source in sources:
        path = Path(source)
        if path.suffix.lower() not in (".txt", ".json") or not path.is_file():
            yield source
            continue
        try:
            text = path.read_text(encoding="utf-8")
            found = json.loads(text) if path.suffix.lower() == ".json" else [line.strip() for line in text.splitlines()]
        except ValueError as error:
            raise ReadError(f"{path}: no list of paths ({error}); expected one a line, or JSON") from error
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise ReadError(f"{path}: expected a list of paths, such as `firstlight sharpness --top` writes")
        yield from filter(None, found)


@contextmanager
def at_hand(item: Item, kept: Path) -> Iterator[Path]:
    """The item's file on this machine; one that is fetched for it is removed afterwards. Raises ReadError."""
    if item.path is not None:
        yield item.path
        return
    folder = kept / _key(item.source)
    try:
        yield _fetched(item.source, folder, whole=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def files_in(path: Path, wanted: frozenset[str]) -> list[Path]:
    """The file itself, or those of a folder and below whose endings are `wanted`, in order. Raises ReadError for another."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in wanted and p.is_file() and not p.name.startswith("."))
    if not path.is_file():
        raise ReadError(f"{path}: no such file or folder; name raw files, folders of them, or HOST:PATH")
    if path.suffix.lower() not in wanted:
        raise ReadError(f"{path}: ends in {path.suffix or 'nothing'}, expected {', '.join(sorted(wanted))}")
    return [path]


def _there(source: str, kept: Path, wanted: frozenset[str]) -> list[tuple[str, Path | None]]:
    host, _, inside = source.partition(":")
    if Path(inside).suffix.lower() in wanted and not set(inside) & set("*?["):
        return [(source, None)]
    folder = kept / _key(source)
    if not folder.is_dir():
        _fetched(source, folder, whole=True)
    names = [(p.relative_to(folder), p) for p in files_in(folder, wanted)]
    return [(f"{host}:{name.as_posix()}", p) for name, p in names]


def _fetched(source: str, folder: Path, *, whole: bool) -> Path:
    """The file, or for `whole` the folder that holds what came; it appears once everything has."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _scp(["-r"] if whole else [], source, part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    if whole:
        return folder
    files = [p for p in folder.iterdir() if p.is_file()]
    if len(files) != 1:
        raise ReadError(f"{source}: scp brought {len(files)} files, expected one")
    return files[0]


def _scp(flags: list[str], source: str, into: Path) -> None:
    if shutil.which("scp") is None:
        raise ReadError(f"{source}: scp is not on PATH, which fetches HOST:PATH; install OpenSSH, or copy the files here")
    done = subprocess.run(["scp", "-q", *flags, "--", source, f"{into}/"], capture_output=True, text=True, check=False)
    if done.returncode:
        cause = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ReadError(f"{source}: scp failed ({cause}); try `scp {source} .` by hand")


def _key(source: str) -> str:
    return sha256(source.encode()).hexdigest()[:16]


def _named(found: list[tuple[str, Path | None]]) -> list[Item]:
    def parts(source: str) -> tuple[str, ...]:
        return Path(source.partition(":")[2] if is_remote(source) else source).parts

    stems = {source: Path(parts(source)[-1]).stem for source, _ in found}
    for depth in range(2, 9):
        counts = Counter(stems.values())
        if max(counts.values()) == 1:
            break
        double = [s for s in stems if counts[stems[s]] > 1]
        stems |= {s: "_".join((*(p.strip("/") for p in parts(s)[-depth:-1]), Path(parts(s)[-1]).stem)) for s in double}
    counts = Counter(stems.values())
    if double := [s for s, name in stems.items() if counts[name] > 1]:
        raise ReadError(f"{', '.join(double[:3])}: files that differ in their endings alone; leave one of them out")
    return [Item(source, path, stems[source]) for source, path in found]
