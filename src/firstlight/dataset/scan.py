"""What lies below a folder: every image that a layout knows, with what its own header says and the hash of its bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from firstlight import io
from firstlight.dataset import layout
from firstlight.dataset.rows import Source
from firstlight.domains import Layout
from firstlight.errors import FirstlightError, ReadError
from firstlight.io.describe import MAPS
from firstlight.io.peek import Facts, peek

__all__ = ["Manifest", "check_max_files", "images_below", "read_manifest", "scan", "walk", "write_manifest"]

Tick = Callable[[int, int, str], None]
OURS = ("comprehensive_tiles_metadata.json", ".firstlight")  # a folder that holds one of these is an output of ours
THREADS = 2
AGREES = 1.1  # factor between the exposure in the header and in the name; 0.033 s is 1/30 s


@dataclass(frozen=True)
class Manifest:
    """The sources, sorted by path, as a sequence; and beside them (path, cause) of what could not be read, (path, cause) of
    what no layout knows, and (path, doubt) of what contradicts itself. Paths are POSIX, relative to the root.
    """

    sources: tuple[Source, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    unmatched: tuple[tuple[str, str], ...] = ()
    doubts: tuple[tuple[str, str], ...] = ()

    def __iter__(self) -> Iterator[Source]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, i: int) -> Source:
        return self.sources[i]

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        pairs = {k: [{"path": p, "cause": c} for p, c in getattr(self, k)] for k in _LISTS}
        return {"sources": [s.to_dict() for s in self.sources], **pairs}


_LISTS = ("unreadable", "unmatched", "doubts")


class _Found(NamedTuple):
    path: str
    label: layout.Label


@dataclass
class _Lists:
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    unmatched: list[tuple[str, str]] = field(default_factory=list)
    doubts: list[tuple[str, str]] = field(default_factory=list)


def scan(
    root: str | Path,
    *,
    layouts: str | Path | Iterable[Layout] | None = None,
    max_files: int | None = None,
    profile: str = "physical",
    tick: Tick | None = None,
) -> Manifest:
    """Every image below `root` that a layout knows. Headers are read, pixels are not; hashes in two threads.

    layouts: a TOML mapping or rows, tried before the domains' own. max_files: so many per domain, whole views first.
    profile "documented": the documented scene ids, views and labels. Hidden files, our companions and outputs are skipped,
    links are followed once. A file's exposure is its header's; the name's where the header is silent. Raises ReadError where
    `root` is no folder or the mapping is none; whatever is wrong with a file is listed.
    """
    root = images_below(root)
    check_max_files(max_files)
    paths, shut = walk(root)
    lists = _Lists(unreadable=shut)
    found = _fewer(_matched(paths, layout.rows(layouts, profile=profile), lists), max_files)
    sources = list(_inspected(root, found, lists, tick))
    return Manifest(tuple(sources), *(tuple(sorted(getattr(lists, k))) for k in _LISTS))


def images_below(root: str | Path) -> Path:
    """The folder to scan; raises ReadError where it is none, cannot be entered, or is a tile set of ours."""
    root = Path(root)
    if not root.is_dir():
        raise ReadError(f"{root}: is no folder, expected the one that holds the images")
    try:
        inside = os.listdir(root)  # noqa: PTH208
        (root / OURS[0]).exists()
    except OSError as error:
        raise ReadError(f"{root}: cannot be entered ({error.strerror}); grant access to it") from error
    if not {*OURS}.isdisjoint(inside):
        raise ReadError(f"{root}: is a tile set, expected the folder that holds the images")
    return root


def check_max_files(max_files: int | None) -> None:
    """Raises ReadError for a number below 1."""
    if max_files is not None and max_files < 1:
        raise ReadError(f"max_files {max_files}, expected at least 1 file per domain")


def walk(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Files (and .zarr folders) below `root`, sorted POSIX paths, and (path, cause) of folders that cannot be entered.

    Real files and folders come before links to them, so that a path does not depend on the order of names; what a link
    leads to is taken once.
    """
    seen: set[tuple[int, int]] = set()
    files: list[Path] = []
    shut: list[tuple[str, str]] = []
    folders, links = [root], list[Path]()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        try:
            if _identity(here) in seen or any((here / name).exists() for name in OURS):
                continue
            seen.add(_identity(here))
            inside = sorted((here / n for n in os.listdir(here) if not n.startswith(".")), reverse=True)  # noqa: PTH208
        except OSError as error:
            shut.append((here.relative_to(root).as_posix(), f"folder cannot be entered ({error.strerror})"))
            continue
        for path in inside:
            if _is(Path.is_dir, path) and path.suffix.lower() != ".zarr":
                (links if path.is_symlink() else folders).append(path)
            elif not _companion(path):
                files.append(path)
        links.sort()
    return sorted(p.relative_to(root).as_posix() for p in _once(files)), shut


def _is(what: Callable[[Path], bool], path: Path) -> bool:
    """Path.exists and the like, but False where a link leads to what may not be looked at."""
    try:
        return what(path)
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


def _once(files: Sequence[Path]) -> Iterator[Path]:
    """Without links to files that are there anyway; links that lead nowhere stay, to be listed."""
    seen = {_identity(p) for p in files if not p.is_symlink() and _is(Path.exists, p)}
    for path in sorted(files):
        if path.is_symlink() and _is(Path.exists, path):
            if _identity(path) in seen:
                continue
            seen.add(_identity(path))
        yield path


def _companion(path: Path) -> bool:
    """NAME.json and NAME.<map>.npy beside an image NAME."""
    for end in (".json", *(f".{m}.npy" for m in MAPS)):
        if (
            path.name.endswith(end)
            and Path(path.name.removesuffix(end)).suffix
            and _is(Path.exists, path.with_name(path.name.removesuffix(end)))
        ):
            return True
    return False


def _matched(paths: Iterable[str], known: Sequence[Layout], lists: _Lists) -> list[_Found]:
    out = []
    for path in paths:
        try:
            label = layout.match(path, known)
        except ReadError as error:
            lists.unmatched.append((path, str(error)))
            continue
        if label is None:
            lists.unmatched.append((path, "no layout knows this name"))
        else:
            out.append(_Found(path, label))
    return out


def _fewer(found: list[_Found], max_files: int | None) -> list[_Found]:
    """At most so many per domain: view by view, a noisy and a clean file of each in turn, so that pairs stay whole."""
    if max_files is None:
        return found
    turns: dict[tuple[str, str], int] = {}
    order = []
    for item in found:
        view = f"{item.label.row.domain}\0{item.label.view}"
        turn = turns[view, item.label.data_type] = turns.get((view, item.label.data_type), -1) + 1
        order.append((view, turn, DATA_TYPE_ORDER[item.label.data_type], item))
    order.sort(key=lambda o: (*o[:3], o[3].path))
    domains = dict.fromkeys(o[3].label.row.domain for o in order)
    kept = {o[3].path for d in domains for o in islice((o for o in order if o[3].label.row.domain == d), max_files)}
    return [item for item in found if item.path in kept]


DATA_TYPE_ORDER = {"noisy": 0, "clean": 1, "unknown": 2}


def _inspected(root: Path, found: Sequence[_Found], lists: _Lists, tick: Tick | None) -> Iterator[Source]:
    """Headers one by one, hashes at most a few files ahead of them."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        hashes = pool.map(lambda item: _hashed(root / item.path), found)
        for i, item in enumerate(found):
            if tick:
                tick(i, len(found), item.path)
            digest = next(hashes)
            try:
                if isinstance(digest, OSError):
                    raise ReadError(f"{root / item.path}: cannot be read ({digest.strerror or digest})")
                source, doubts = _source(item, peek(root / item.path), digest)
            except FirstlightError as error:
                cause = str(error).removeprefix(f"{root / item.path}: ")
                lists.unreadable.append((item.path, cause))
                continue
            lists.doubts += [(item.path, d) for d in doubts]
            yield source
    finally:
        pool.shutdown(cancel_futures=True)
    if tick:
        tick(len(found), len(found), "")


def _hashed(path: Path) -> tuple[str, int] | OSError:
    try:
        if not path.is_file() and not path.is_dir():  # a link to nowhere, a pipe: reading says so
            return "", 0
        files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
        return io.sha256(path), sum(p.stat().st_size for p in files)
    except OSError as error:
        return error


def _source(item: _Found, facts: Facts, digest: tuple[str, int]) -> tuple[Source, list[str]]:
    label = item.label
    source = Source(
        path=item.path,
        domain=label.row.domain,
        layout=label.row.name,
        scene=label.scene,
        view=label.view,
        data_type=label.data_type,
        level=label.level,
        channel=label.channel,
        sha256=digest[0],
        bytes=digest[1],
        camera=facts.instrument,
        setting=facts.setting,
        exposure=facts.exposure,
        time=facts.time,
        shape=facts.shape,
        dtype=facts.dtype,
    )
    doubts = list(facts.doubts)
    if facts.exposure is None:
        return replace(source, exposure=label.exposure), doubts
    if label.exposure is not None and not 1 / AGREES < facts.exposure / max(label.exposure, 1e-12) < AGREES:
        doubts.append(f"its header says {facts.exposure:g} s, its name {label.exposure:g} s: the header's is used")
    return source, doubts


def write_manifest(manifest: Manifest, path: str | Path) -> Path:
    """A manifest as JSON lines: a source a line, then {"unreadable" | "unmatched" | "doubts": path, "cause": text}."""
    path = Path(path)
    lines: list[dict[str, Any]] = [s.to_dict() for s in manifest]
    lines += [{k: p, "cause": c} for k in _LISTS for p, c in getattr(manifest, k)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def read_manifest(path: str | Path) -> Manifest:
    """The inverse of `write_manifest`. Raises ReadError with the line that is no manifest's."""
    path = Path(path)
    sources, lists, number = [], _Lists(), 0
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):  # noqa: B007
            entry = json.loads(line)
            kind = next((k for k in _LISTS if k in entry), None)
            if kind is None:
                sources.append(Source(**entry | {"shape": tuple(entry["shape"])}))
            else:
                getattr(lists, kind).append((entry[kind], entry["cause"]))
    except OSError as error:
        raise ReadError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ReadError(f"{path}, line {number}: is no line of a manifest ({error})") from error
    return Manifest(tuple(sources), *(tuple(getattr(lists, k)) for k in _LISTS))
