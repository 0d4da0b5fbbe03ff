"""Pairs that an earlier run has proved or refused are not looked at again, as long as both files are the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from firstlight.dataset.pair import Candidate, candidates, check
from firstlight.dataset.rows import Pair, Source
from firstlight.errors import WriteError
from firstlight.frame import Frame

__all__ = ["Proofs"]

TOGETHER = 8  # candidates of one clean frame that one worker takes: it is read once for so many
Key = tuple[str, str, str, str]


class Proofs:
    """What names make a pair of, and what is known of each; findings are kept in the file `store`, line by line."""

    def __init__(self, root: Path, sources: Sequence[Source], store: Path) -> None:
        self._root, self._store, self._lock = root, store, threading.Lock()
        hashes = {s.path: s.sha256 for s in sources}
        self._names = [
            (c, (c.noisy.path, hashes[c.noisy.path], c.clean.path, hashes[c.clean.path])) for c in candidates(sources)
        ]
        self._known = dict(_kept(store, {key for _, key in self._names}))

    def pairs(self) -> tuple[Pair, ...]:
        """Every pair that is known by now, in the order of `pair.candidates`."""
        return tuple(self._known[key] for _, key in self._names if key in self._known)

    def missing(self) -> Iterator[list[Candidate]]:
        """The candidates that nothing is known of, in lots of one clean frame."""
        unknown = [c for c, key in self._names if key not in self._known]
        for _, found in groupby(unknown, key=lambda c: c.clean.path):
            lot = list(found)
            yield from (lot[i : i + TOGETHER] for i in range(0, len(lot), TOGETHER))

    def look(self, candidate: Candidate, read: Callable[[str], Frame]) -> None:
        """Prove or refuse a candidate; `read` gives the frame of a path below the root."""
        noisy, clean = candidate
        found = check(self._root, noisy, clean, read=read)
        key = (noisy.path, noisy.sha256, clean.path, clean.sha256)
        try:
            with self._lock, self._store.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, found.to_dict()]) + "\n")
                self._known[key] = found
        except OSError as error:
            raise WriteError(
                f"{self._store}: cannot be written ({error.strerror or error}); make room and run again"
            ) from error


def _kept(store: Path, wanted: set[Key]) -> Iterator[tuple[Key, Pair]]:
    """What earlier runs found of files that have not changed; a line that a kill cut short is dropped."""
    if not store.is_file():
        return
    text = store.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        with store.open("r+b") as file:
            file.truncate(len(whole))
    for line in whole.splitlines():
        try:
            key, fields = json.loads(line)
            if (found := tuple(key)) in wanted:
                yield found, Pair(**fields)
        except (ValueError, TypeError):  # a damaged line says nothing: its pair is looked at again
            continue
