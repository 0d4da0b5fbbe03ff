"""A tile set from a folder of images: scan, pair, split, then every source to tiles, in threads, one writer a file.

Whatever ends a run (a kill, a full disk, Ctrl-C), what stands in OUT is a valid set, and the next run goes on from there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from firstlight import domains
from firstlight.dataset import layout
from firstlight.dataset.checked import Proofs
from firstlight.dataset.journal import locked
from firstlight.dataset.listing import by_cause, few
from firstlight.dataset.options import Choice, check_apart, check_choices, check_known, noted
from firstlight.dataset.pair import pair
from firstlight.dataset.prepare import TILE
from firstlight.dataset.rows import Pair
from firstlight.dataset.scan import Manifest, check_max_files, scan
from firstlight.dataset.split import assign
from firstlight.dataset.state import State
from firstlight.dataset.summary import Summary
from firstlight.dataset.work import work
from firstlight.domains import Layout
from firstlight.errors import ReadError

__all__ = ["build"]

Tick = Callable[[int, int, str], None]
MOVED = "the split was {!r} and is {!r} now: tiles have moved between train and test, so what was trained on them must be anew"


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
    another run is at it. A file that cannot be used is listed; what is doubtful stands in `notes`.
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
        state = State(root, out, journal, summary, found.sources, tuple(pairs or ()), store, proofs)
        state.assign(assign(found.sources, split))
        state.clean(max_files)
        try:
            work(state, workers=workers, detector=detector, unit=unit, tick=tick)
        finally:
            state.finish()
        if store == "pack":
            state.pack()
    _tell(said, summary)
    return summary


def _tell(said: Sequence[warnings.WarningMessage], summary: Summary) -> None:
    """Doubts about the data become the summary's notes, each once; what is no UserWarning is a programmer's, and warned of."""
    unique = {str(w.message): w for w in said}
    summary.notes = [text for text, w in unique.items() if w.category is UserWarning]
    for w in unique.values():
        if w.category is not UserWarning:
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)


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
