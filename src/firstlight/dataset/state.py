"""What one run of `build` knows: the sources, which of them are finished, and what the set's metadata say of them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from firstlight.dataset.checked import Proofs
from firstlight.dataset.journal import Entry, Journal, files_of
from firstlight.dataset.metadata import domain_file, write_metadata, write_rows
from firstlight.dataset.pack_index import packed_tiles
from firstlight.dataset.pair import Candidate
from firstlight.dataset.rows import Pair, Source
from firstlight.dataset.store import INDEX
from firstlight.dataset.summary import Summary
from firstlight.errors import FrameError

__all__ = ["State"]

SAVE_EVERY = 2  # a domain's metadata are saved each time its finished sources have grown by this factor, so that the cost of
# saving stays in proportion to the work


class State:
    """Which sources a set has, which of them are finished, and what the set's files say of them."""

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
        self.profile, self._pairs = summary.profile, pairs
        partners = {path for p in pairs for path in (p.noisy, p.clean)}
        kept = [s for s in sources if self.profile == "physical" or s.path in partners]
        self.sources = {s.path: s for s in sorted(kept, key=lambda s: s.path)}
        self.finished: set[str] = set()
        self._splits: dict[str, str] = {}
        self._known = {s.path for s in sources}
        self._saved: Counter[str] = Counter()
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
        packed = packed_tiles(self.out) if self.store == "pack" else {}
        stale, kept = [], set[str]()
        for entry in self.journal.entries():
            source = self.sources.get(entry.path)
            there = entry.whole(self.out) or (bool(packed) and all(packed.get(r["tile_id"]) for r in entry.rows))
            if source is not None and entry.made_of(source) and there:
                self.finished.add(entry.path)
                kept |= set(entry.files)
            else:
                self._may_go(entry, max_files)
                stale.append(entry)
        if any(r["tile_id"] in packed for e in stale for r in e.rows):
            kept = self._unpack(stale)
        self.summary.removed = len(stale)
        if stale:
            self.finish()
            self.journal.remove(stale)
        self.journal.sweep(kept)
        self.summary.kept = len(self.finished)

    def _may_go(self, entry: Entry, max_files: int | None) -> None:
        """Refuse to remove what is only left out of this run."""
        if max_files is not None and entry.path not in {*self._known, ""} and (self.root / entry.path).exists():
            raise FrameError(
                f"{self.out}: holds tiles of {entry.path}, which max_files={max_files} leaves out; choose another "
                "folder, or allow as many files"
            )

    def _unpack(self, stale: list[Entry]) -> set[str]:
        """Packs lose no single tile: with a stale one in them all are made again, where their files are gone.

        Returns the files of those whose are not.
        """
        mine = [e for e in self.journal.entries() if e.path in self.finished]
        gone = [e for e in mine if not e.whole(self.out)]
        self.finished -= {e.path for e in gone}
        stale += gone
        self.finish()
        (self.out / INDEX).unlink()  # what vouches for the packs goes first
        shutil.rmtree(self.out / "packs")
        return {name for e in mine if e.path in self.finished for name in e.files}

    def lots(self) -> list[tuple[list[Source], list[Candidate]]]:
        """What is left to do: sources to make and pairs to look at together, so that a file is read once for both."""
        left = {p: s for p, s in self.sources.items() if p not in self.finished}
        lots = []
        for some in self.proofs.missing() if self.proofs else ():
            paths = [some[0].clean.path, *(c.noisy.path for c in some)]
            lots.append(([left.pop(p) for p in dict.fromkeys(paths) if p in left], some))
        return lots + [([s], []) for s in left.values()]

    def done(self, source: Source) -> None:
        """Count a finished source; its domain's metadata are saved when it has grown enough, or is complete before others."""
        self.summary.made += 1
        mine = [p for p, s in self.sources.items() if s.domain == source.domain]
        ready = sum(p in self.finished for p in mine)
        complete = ready == len(mine) and len(self.finished) < len(self.sources)
        if complete or ready >= SAVE_EVERY * self._saved[source.domain]:
            rows = self._rows(source.domain)
            write_rows(domain_file(self.out, source.domain), self._head(), rows)
            self._saved[source.domain] = ready

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
        self._saved = Counter(self.sources[p].domain for p in self.finished)
        for old in self.out.glob("metadata_*_incremental.json"):
            if old not in {domain_file(self.out, d) for d in self._saved}:
                old.unlink()
        self.summary.unreadable.sort(key=lambda b: b["path"])
        write_metadata(self.out, {**self._head(), "tiles": self._counted()})

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
