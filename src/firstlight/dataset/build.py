"""A tile set from a folder of images: scan, pair, split, then every source to tiles, in threads, one writer a file.

Whatever ends a run (a kill, a full disk, Ctrl-C), what stands in OUT is a valid set, and the next run goes on from there.
"""

from __future__ import annotations

import threading
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from firstlight import domains, io
from firstlight.dataset import layout
from firstlight.dataset.checked import Proofs
from firstlight.dataset.cut import cut, save
from firstlight.dataset.journal import Journal, files_of, locked
from firstlight.dataset.listing import by_cause, few
from firstlight.dataset.metadata import METADATA, domain_file, write_rows
from firstlight.dataset.options import Choice, check_apart, check_choices, check_known, chosen, noted
from firstlight.dataset.pair import Candidate, pair
from firstlight.dataset.prepare import CAMERAS, SONY, TILE, each, grid_of
from firstlight.dataset.rows import Pair, Source
from firstlight.dataset.scan import Manifest, check_max_files, scan
from firstlight.dataset.split import assign
from firstlight.dataset.summary import Summary
from firstlight.domains import Layout
from firstlight.errors import FirstlightError, FrameError, ReadError, WriteError
from firstlight.frame import Frame

__all__ = ["build", "plan"]

Tick = Callable[[int, int, str], None]
SAVE_EVERY = 2  # a domain's metadata are saved each time its finished sources have grown by this factor, so that the cost of
# saving stays in proportion to the work
MOVED = "the split was {!r} and is {!r} now: tiles have moved between train and test, so what was trained on them must be anew"
RAW = frozenset({".arw", ".dng", ".nef", ".cr2", ".cr3", ".raf"})


class _Stopped(Exception):
    """The run ends: a worker leaves its source."""


def build(
    root: str | Path,
    out: str | Path,
    *,
    layouts: str | Path | Iterable[Layout] | None = None,
    profile: str = "physical",
    split: str | None = None,
    max_files: int | None = None,
    workers: int = 1,
    store: str = "npy",
    pairs: Sequence[Pair] | None = None,
    detector: Choice = None,
    unit: Choice = None,
    tick: Tick | None = None,
) -> Summary:
    """The tile set of `root` in `out`, float32 .npy and metadata; goes on where an earlier run of the same rule stopped.

    split: None for that of the profile, "documented" or "scene". max_files: so many per domain. pairs: None to find and prove
    them, () for none; a documented profile tiles paired sources alone, one to one. detector, unit: as `intake.load`, one for
    all or {layout or domain: text}, for profile physical. store "pack": packs in the files' place. The output is the same for
    any number of `workers` (threads), but for processing_timestamp. Raises ReadError for a bad root or mapping or where no
    image is found, FrameError for bad options or where OUT was built with others, WriteError where OUT cannot be written or
    another run is at it. A file that cannot be used is listed.
    """
    root, out = Path(root), Path(out)
    reading = "physical" if profile == "physical" else "documented"
    split = split or ("scene" if reading == "physical" else "documented")
    check_known(profile, split, store, workers)
    check_apart(root, out)
    check_max_files(max_files)
    own = layout.load(layouts) if isinstance(layouts, str | Path) else tuple(layouts or ())
    check_choices(detector, unit, {*domains.names(), *(row.name for row in layout.rows(own, profile=reading))})
    summary = Summary(str(out), profile, split)
    with locked(out) as journal, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        found = scan(root, layouts=own, max_files=max_files, profile=reading, tick=tick)
        _say(found, root, summary)
        made_with = {"profile": profile, "tile": TILE, "store": store, "detector": noted(detector), "unit": noted(unit)}
        if before := journal.agree(made_with, {"split": split}):
            warnings.warn(MOVED.format(before["split"], split), UserWarning, stacklevel=2)
        proofs = None
        if pairs is None and reading == "physical":
            proofs = Proofs(root, found.sources, journal.pairs)
        elif pairs is None:
            pairs = pair(root, found.sources, profile=reading)
        job = _Job(root, out, journal, summary, found.sources, tuple(pairs or ()), store, proofs)
        job.assign(assign(found.sources, split))
        job.clean(max_files)
        try:
            _run(job, partial(_work, job, detector=detector, unit=unit), workers, tick)
        finally:
            job.finish()
        if store == "pack":
            job.pack()
    unique = {str(w.message): w for w in said}
    summary.notes = [text for text, w in unique.items() if w.category is UserWarning]
    for w in unique.values():
        warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    return summary


def _say(found: Manifest, root: Path, summary: Summary) -> None:
    """Note what the scan could not use; raises ReadError where it found no image at all, before anything is removed."""
    for name in ("unreadable", "unmatched", "doubts"):
        setattr(summary, name, [{"path": p, "cause": c} for p, c in getattr(found, name)])
    if not found.sources:
        aside = [f"{few(paths, 1)}: {cause}" for cause, paths in by_cause([*found.unreadable, *found.unmatched])]
        raise ReadError(
            f"{root}: no image to make tiles of"
            + (f" ({'; '.join(aside[:3])})" if aside else ", it holds no files")
            + "; expected SID/, "
            "microscopy/ or astronomy/ in it, or a mapping of your own names (--mapping FILE, docs/mapping.md)"
        )


class _Job:
    """The state of one run: which sources the set has, which are finished, what the set's files say."""

    def __init__(
        self,
        root: Path,
        out: Path,
        journal: Journal,
        summary: Summary,
        sources: Sequence[Source],
        pairs: tuple[Pair, ...],
        store: str,
        proofs: Proofs | None,
    ) -> None:
        self.root, self.out, self.journal, self.summary, self.store, self.proofs = root, out, journal, summary, store, proofs
        self._pairs = pairs
        self.profile, self.stop, self.maps = summary.profile, threading.Event(), threading.Lock()
        partners = {path for p in pairs for path in (p.noisy, p.clean)}
        kept = [s for s in sources if self.profile == "physical" or s.path in partners]
        self.sources = {s.path: s for s in sorted(kept, key=lambda s: s.path)}
        self.finished: set[str] = set()
        self.folders: set[Path] = set()
        self._splits: dict[str, str] = {}
        self._known = {s.path for s in sources}
        self._saved: defaultdict[str, tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
        summary.left_out = len(sources) - len(kept)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs given, or those known by now."""
        return self._pairs if self.proofs is None else self.proofs.pairs()

    def assign(self, splits: Mapping[str, str]) -> None:
        """Note each source's split."""
        self._splits = dict(splits)

    def clean(self, max_files: int | None) -> None:
        """Find what is finished, and remove what is stale or left over: its rows first, then its entry, then its tiles."""
        packed = self._packed()
        stale, kept = [], set[str]()
        for entry in self.journal.entries():
            source = self.sources.get(entry.path)
            there = entry.whole(self.out) or (bool(packed) and {r["tile_id"] for r in entry.rows} <= packed)
            if source is not None and entry.made_of(source) and there:
                self.finished.add(entry.path)
                kept |= set(entry.files)
                continue
            if max_files is not None and entry.path not in {*self._known, ""} and (self.root / entry.path).exists():
                raise FrameError(
                    f"{self.out}: holds tiles of {entry.path}, which max_files={max_files} leaves out; choose another "
                    "folder, or allow as many files"
                )
            stale.append(entry)
        if any(r["tile_id"] in packed for e in stale for r in e.rows):
            self._unpack(stale)
        self.summary.removed = len(stale)
        if stale:
            self.finish()
            self.journal.remove(stale)
        self.journal.sweep(kept)
        self.summary.kept = len(self.finished)

    def _packed(self) -> set[str]:
        if self.store != "pack":
            return set()
        from firstlight.dataset.pack_index import index_rows
        from firstlight.dataset.store import INDEX

        return {row["tile_id"] for row in index_rows(self.out / INDEX)} if (self.out / INDEX).is_file() else set()

    def _unpack(self, stale: list[Any]) -> None:
        """Packs lose no single tile: with a stale one in them all are made again, where their files are gone."""
        import shutil

        gone = [e for e in self.journal.entries() if e.path in self.finished and not e.whole(self.out)]
        self.finished -= {e.path for e in gone}
        stale += gone
        self.finish()
        shutil.rmtree(self.out / "packs")

    def lots(self) -> list[tuple[list[Source], list[Candidate]]]:
        """What is left to do: sources to make and pairs to look at together, so that a file is read once for both."""
        left = {p: s for p, s in self.sources.items() if p not in self.finished}
        lots = []
        for some in self.proofs.missing() if self.proofs else ():
            paths = [some[0].clean.path, *(c.noisy.path for c in some)]
            lots.append(([left.pop(p) for p in dict.fromkeys(paths) if p in left], some))
        return lots + [([s], []) for s in left.values()]

    def done(self, source: Source) -> None:
        """Count a finished source; its domain's metadata are saved when it has grown enough, or is complete."""
        self.summary.made += 1
        mine = [p for p, s in self.sources.items() if s.domain == source.domain]
        ready = sum(p in self.finished for p in mine)
        if ready == len(mine) or ready >= SAVE_EVERY * self._saved[source.domain][0]:
            self._save(source.domain)

    def _save(self, domain: str) -> None:
        """Write a domain's metadata, unless they say the same already."""
        ready = sum(s.domain == domain and p in self.finished for p, s in self.sources.items())
        now = (ready, len(self.pairs), len(self.summary.unreadable))
        if self._saved[domain] != now:
            write_rows(domain_file(self.out, domain), self._head(), self._rows(domain))
            self._saved[domain] = now

    def _head(self) -> dict[str, Any]:
        pairs = [p.to_dict() for p in self.pairs]
        bad = sorted(self.summary.unreadable, key=lambda b: b["path"])
        head = {"profile": self.profile, "split": self.summary.split, "store": self.store, "root": str(self.root.resolve())}
        return head | {"pairs": pairs, "unreadable": bad}

    def _rows(self, domain: str | None = None) -> Iterator[dict[str, Any]]:
        """The rows of the finished sources, sorted by source and tile, as the set's scenes, pairs and splits have them."""
        trusted = [p for p in self.pairs if p.proved or self.profile != "physical"]
        views = {path: p.view for p in trusted for path in (p.clean, p.noisy)}
        for path, source in self.sources.items():
            if path not in self.finished or domain not in (None, source.domain):
                continue
            view = views.get(path)
            said = {"scene_id": source.scene, "split": self._splits[path], "view": source.view, "level": source.level}
            said["channel"] = source.channel
            for row in self.journal.rows(path):
                place = f"{view}_{row['tile_id'].rpartition('_tile_')[2]}" if view is not None else None
                yield {**row, **said, "pair_id": place}

    def finish(self) -> None:
        """Write every metadata file of the finished sources, the set's own last, and count its tiles."""
        domains = sorted({self.sources[p].domain for p in self.finished})
        for old in self.out.glob("metadata_*_incremental.json"):
            if old not in {domain_file(self.out, d) for d in domains}:
                old.unlink()
        for domain in domains:
            self._save(domain)
        self.summary.unreadable.sort(key=lambda b: b["path"])
        write_rows(self.out / METADATA, self._head(), self._counted())

    def _counted(self) -> Iterator[dict[str, Any]]:
        kinds: dict[str, Counter[str]] = {}
        splits: Counter[str] = Counter()
        for row in self._rows():
            kinds.setdefault(row["domain"], Counter())[row["data_type"]] += 1
            splits[row["split"]] += 1
            yield row
        self.summary.counts = {d: dict(sorted(kinds[d].items())) for d in sorted(kinds)}
        self.summary.splits = dict(sorted(splits.items()))
        self.summary.tiles = sum(splits.values())
        self.summary.pairs, self.summary.proved = len(self.pairs), sum(p.proved for p in self.pairs)

    def pack(self) -> None:
        """The tiles into packs, in order, and then their files away."""
        from firstlight.dataset.pack import write_pack

        write_pack(self.out)
        self.journal.sweep({n for n in files_of(self._rows()) if not n.startswith("npy_tiles/")})


def _run(job: _Job, work: Callable[..., None], workers: int, tick: Tick | None) -> None:
    """Everything that is left, in threads. A file that cannot be used is noted; a disk that refuses ends the run."""
    lots = job.lots()
    total, n = sum(len(sources) for sources, _ in lots), 0
    pool = ThreadPoolExecutor(workers, thread_name_prefix="tiles")
    try:
        futures = {pool.submit(work, sources, pairs): sources for sources, pairs in lots}
        for future in as_completed(futures):
            sources = futures.pop(future)
            future.result()
            for source in sources:
                if tick:
                    tick(n, total, source.path)
                n += 1
                if source.path in job.finished:
                    job.done(source)
    finally:
        job.stop.set()
        pool.shutdown(cancel_futures=True)
    if tick:
        tick(total, total, "")


def _work(job: _Job, sources: list[Source], pairs: list[Candidate], *, detector: Choice, unit: Choice) -> None:
    """The tiles of some sources, and each of `pairs` as soon as both its files have been read."""
    kept: dict[str, Frame] = {}

    def read(path: str) -> Frame:
        """The frame of a path, from the last two; a reader keeps no pixels where they can stay on disk."""
        if job.stop.is_set():
            raise _Stopped
        frame = kept.pop(path, None) or io.read(job.root / path)
        if pairs:
            kept[path] = frame
            if len(kept) > 2:
                del kept[next(iter(kept))]
        return frame

    def look(ready: Callable[[Candidate], bool]) -> None:
        assert job.proofs is not None or not left
        for one in [c for c in left if ready(c)]:
            job.proofs.look(one, read)  # type: ignore[union-attr]
            left.remove(one)

    left = list(pairs)
    for source in sources:
        try:
            _one(job, source, read, detector=chosen(detector, source), unit=chosen(unit, source))
        except WriteError:
            raise
        except FirstlightError as error:
            cause = " ".join(str(error).removeprefix(f"{job.root / source.path}: ").split())
            job.summary.unreadable.append({"path": source.path, "cause": cause})
        look(lambda c: {c.noisy.path, c.clean.path} <= set(kept))
    look(lambda c: True)


def _one(job: _Job, source: Source, read: Callable[[str], Frame], *, detector: str | None, unit: str | None) -> None:
    """One source to tiles and, last, its journal entry; where that fails, nothing of it stays."""
    files: dict[str, int] = {}

    def put(name: str, array: Any) -> None:
        if job.stop.is_set():
            raise _Stopped
        path = job.out / name
        if path.parent not in job.folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            job.folders.add(path.parent)
        if name.startswith("npy_tiles/"):
            save(path, array)
        else:
            with job.maps:  # a map's name is its content: sources that agree share it
                if not path.exists():
                    save(path, array)
        files[name] = path.stat().st_size

    try:
        rows = []
        frame = partial(read, source.path)
        given = {"profile": job.profile, "detector": detector, "unit": unit}
        for one in each(job.root / source.path, source, **given, read=lambda _: frame()):  # type: ignore[arg-type]
            rows += list(cut(one, source, job.out, profile=job.profile, put=put))
        job.journal.add(source, files, rows)
        job.finished.add(source.path)  # here, so that a run which is being stopped counts it too
    except BaseException:
        for name in files:
            if name.startswith("npy_tiles/"):
                (job.out / name).unlink(missing_ok=True)
        raise


def plan(sources: Iterable[Source], pairs: Iterable[Pair] = (), *, profile: str = "physical") -> dict[str, Any]:
    """How many tiles a build would make, by shapes alone: {"tiles": n, "domains": {domain: {data_type: n}}}.

    Exact for the documented profiles; for physical a raw photo counts as Bayer (as X-Trans where named .raf), and axes before
    the last two as images. What is smaller than a tile counts none.
    """
    partners = {path for p in pairs for path in (p.noisy, p.clean)}
    counts: dict[str, Counter[str]] = {}
    with warnings.catch_warnings(action="ignore"):
        for source in sources:
            if profile == "physical" or source.path in partners:
                counts.setdefault(source.domain, Counter())[source.data_type] += _tiles_of(source, profile)
    return {
        "tiles": sum(c.total() for c in counts.values()),
        "domains": {d: dict(sorted(counts[d].items())) for d in sorted(counts)},
    }


def _tiles_of(source: Source, profile: str) -> int:
    suffix, images = Path(source.path).suffix.lower(), 1
    name, factor = CAMERAS.get(suffix, SONY)
    if source.domain != "photography" or suffix not in RAW:
        factor = 1
        if profile == "physical" and source.domain != "photography":
            for n in source.shape[:-2]:
                images *= n
    shape = tuple(n // factor for n in source.shape[-2:])
    try:
        return images * len(grid_of(shape, source.domain, profile, name if source.domain == "photography" else None))
    except FrameError:
        return 0
