"""Pairs that an earlier run has proved or refused are not looked at again, as long as both files are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from firstlight.dataset.pair import candidates, pair
from firstlight.dataset.rows import Pair, Source

__all__ = ["checked"]

Tick = Callable[[int, int, str], None]
Key = tuple[str, str, str, str]


def checked(
    root: Path, sources: Sequence[Source], store: Path, *, workers: int = 1, tick: Tick | None = None
) -> tuple[Pair, ...]:
    """`pair.pair` of profile physical, view by view in threads; what it finds is kept in the file `store`, line by line.

    The order is that of `pair.candidates`, whatever the number of workers.
    """
    hashes = {s.path: s.sha256 for s in sources}
    names = [(c, _key(c.noisy.path, c.clean.path, hashes)) for c in candidates(sources)]
    known = dict(_kept(store, hashes))
    groups: dict[tuple[str, str], dict[str, Source]] = {}
    for c, key in names:
        if key not in known:
            groups.setdefault((c.clean.domain, c.clean.view), {}).update({c.noisy.path: c.noisy, c.clean.path: c.clean})
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pairs")
    try:
        results = pool.map(lambda group: pair(root, group.values()), groups.values())
        with store.open("a", encoding="utf-8") as file:
            for i, ((_, view), found) in enumerate(zip(groups, results, strict=True)):
                if tick:
                    tick(i, len(groups), f"pairs of {view}")
                for one in found:
                    key = _key(one.noisy, one.clean, hashes)
                    known[key] = one
                    file.write(json.dumps([key, one.to_dict()]) + "\n")
                file.flush()
    finally:
        pool.shutdown(cancel_futures=True)
    return tuple(known[key] for _, key in names)


def _key(noisy: str, clean: str, hashes: dict[str, str]) -> Key:
    return noisy, hashes[noisy], clean, hashes[clean]


def _kept(store: Path, hashes: dict[str, str]) -> Iterator[tuple[Key, Pair]]:
    """What earlier runs found of files that have not changed; a line that a kill cut short is dropped."""
    if not store.is_file():
        return
    text = store.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        with store.open("r+b") as file:
            file.truncate(len(whole))
    for line in whole.splitlines():
        key, fields = json.loads(line)
        if hashes.get(key[0]) == key[1] and hashes.get(key[2]) == key[3]:
            yield tuple(key), Pair(**fields)
