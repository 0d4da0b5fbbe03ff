"""Leakage between splits, and labels that the data contradict: in a tile set, or in any folder of images."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import io
from firstlight.dataset.alike import Match
from firstlight.dataset.compare import Content, compare
from firstlight.dataset.contradict import WRONG, Judged, NoiseCheck, judge
from firstlight.dataset.listing import Listing, by_cause, few, of_folder, of_set, unreadable
from firstlight.dataset.metadata import METADATA
from firstlight.dataset.store import INDEX, Store, open_set
from firstlight.errors import ReadError
from firstlight.frame import Frame

__all__ = ["Audit", "Leak", "audit", "audit_set"]

Tick = Callable[[int, int, str], None]
MOST = 5000  # images compared by content: 5 ms and 64 kB each
PAIRS = 100  # pairs whose labels are looked at
SHOWN = 12  # leaks that the text spells out
ONE_VIEW = 0.75  # share of an image that another shows too, above which they are called two frames of a scene


@dataclass(frozen=True)
class Leak:
    """One finding. kind: "scene", "identical", "near-duplicate", "overlap" or "label". members: paths, or tiles' sources."""

    kind: str
    splits: tuple[str, ...]
    members: tuple[str, ...]
    figure: Mapping[str, Any]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {**asdict(self), "splits": list(self.splits), "members": list(self.members), "figure": dict(self.figure)}


@dataclass(frozen=True)
class Audit:
    """What was looked at and what was found; `passed` where there is no leak and every image could be looked at."""

    what: str
    tiles: int
    pairs: int
    splits: Mapping[str, Mapping[str, int]]
    leaks: tuple[Leak, ...]
    compared: Mapping[str, int]
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """True where nothing leaks, no label is contradicted, and nothing was unreadable: what is not seen is not cleared."""
        return not self.leaks and not self.unreadable

    @property
    def verdict(self) -> str:
        """The last line: how many leaks, or how many images hide what they may leak."""
        if self.leaks:
            return f"{len(self.leaks)} {'leak' if len(self.leaks) == 1 else 'leaks'} found"
        hidden = len({path for path, _ in self.unreadable})
        return (
            f"no leak found, but NOT passed: {hidden} cannot be read, so nothing is known of them"
            if hidden
            else "no leak found"
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON object: tiles, pairs, splits, leaks, and what was compared."""
        return {
            "passed": self.passed,
            "tiles": self.tiles,
            "pairs": self.pairs,
            "splits": {k: dict(v) for k, v in self.splits.items()},
            "leaks": [leak.to_dict() for leak in self.leaks],
            "compared": dict(self.compared),
            "unreadable": [{"path": p, "cause": c} for p, c in self.unreadable],
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """For people: the splits, each kind of leak with its first cases, what was not looked at."""
        head = f"{self.tiles} {self.what} in {len(self.splits)} splits, {self.pairs} pairs"
        lines = [head, *(f"  {k}: {v['tiles']} {self.what}, scenes: {v['scenes']}" for k, v in self.splits.items())]
        kinds = Counter(leak.kind for leak in self.leaks)
        for kind in kinds:
            lines += ["", f"{_TITLES[kind]}: {kinds[kind]}"]
            some = [leak for leak in self.leaks if leak.kind == kind][:SHOWN]
            lines += [f"  {leak.sentence}" for leak in some]
            lines += [f"  and {kinds[kind] - len(some)} more"] if kinds[kind] > len(some) else []
        lines += ["", *(f"note: {n}" for n in self.notes)] if self.notes else []
        lines += [f"unreadable: {few(paths)}: {cause}" for cause, paths in by_cause(self.unreadable)]
        return "\n".join([*lines, "", self.verdict])


_TITLES = {
    "scene": "one scene in several splits",
    "identical": "byte-identical images in several splits",
    "near-duplicate": "frames of one scene in several splits, by content",
    "overlap": "overlapping patches in several splits",
    "label": "labels that the data contradict",
}


def audit(
    folder: str | Path,
    *,
    scene: str | Path | None = None,
    splits: str | Path | Mapping[str, str] | None = None,
    most: int = MOST,
    pairs: int = PAIRS,
    tick: Tick | None = None,
) -> Audit:
    """Leakage between the splits of a tile set, or of any folder of images.

    scene, splits: of a folder, see `listing.of_folder`; a tile set's rows say both. most: images compared by content, spread
    evenly over the scenes; 0 leaves content out. pairs: pairs whose labels are looked at. Raises ReadError for a folder without
    images or without splits, FrameError for a scene rule that is none.
    """
    folder = Path(folder)
    if (folder / METADATA).is_file() or (folder / INDEX).is_file() or folder.is_file():
        meta, store, base = open_set(folder)
        return audit_set(meta, store, base, most=most, pairs=pairs, tick=tick)
    if not folder.is_dir():
        raise ReadError(f"{folder}: no such folder, expected a tile set or a folder of images")
    return _audited(of_folder(folder, scene, splits), most, pairs, tick)


def audit_set(
    meta: Mapping[str, Any], store: Store, folder: Path, *, most: int = MOST, pairs: int = PAIRS, tick: Tick | None = None
) -> Audit:
    """`audit` of a tile set that is open already."""
    return _audited(of_set(meta, store, folder), most, pairs, tick)


def _audited(listing: Listing, most: int, pairs: int, tick: Tick | None) -> Audit:
    failed: list[tuple[str, str]] = list(listing.unreadable)
    leaks = [*_scenes(listing), *_identical(listing, failed), *_overlaps(listing)]
    content = compare(listing, most, tick) if most > 0 else Content([], 0, 0, 0, 0, 1, [])
    same = [set(leak.members) for leak in leaks if leak.kind == "identical"]
    leaks += [leak for leak in _alike(listing, content) if not any(set(leak.members) <= s for s in same)]
    judged = judge(listing, pairs) if pairs > 0 else Judged(len(listing.pairs), 0, 0, [], [], [])
    leaks += _labels(listing, judged)
    failed += [*content.unreadable, *judged.unreadable]
    return Audit(
        what="tiles" if listing.tiles else "images",
        tiles=len(listing),
        pairs=judged.pairs,
        splits=_counts(listing),
        leaks=tuple(leaks),
        compared={
            "by_content": content.compared,
            "blank": content.blank,
            "refused": content.refused,
            "untried": content.untried,
            "pairs": judged.looked_at,
            "pairs_open": judged.open,
        },
        unreadable=tuple(dict.fromkeys(failed)),
        notes=(*listing.notes, *_notes(listing, content, judged)),
    )


def _notes(listing: Listing, content: Content, judged: Judged) -> list[str]:
    what = "tiles" if listing.tiles else "images"
    out = [f"{content.compared} of {len(listing)} {what} compared by content, at 1/{content.shrink} of their size"]
    if len(where := {s for s in listing.split if s}) == 1:
        out.append(
            f"all {what} are in one split, {min(where)}: nothing can leak into another, and nothing was compared with it"
        )
    if content.blank:
        out.append(f"{content.blank} {what} are constant: they show nothing that could leak")
    if content.untried:
        out.append(
            f"{content.untried} pairs with the weakest signs of likeness were not looked at, after {content.refused} in vain"
        )
    if judged.pairs:
        out.append(f"labels of {judged.looked_at} of {judged.pairs} pairs looked at; {judged.open} tell nothing")
    return out + _noise_notes(judged.noise)


def _noise_notes(noise: Sequence[NoiseCheck]) -> list[str]:
    """What pairs of tiles measure of the noise that rows state: of the noisy one in any case, of the clean one if far off."""
    out = []
    ratios = np.array([n.noisy for n in noise])
    if ratios.size:
        out.append(
            f"noise of the noisy tiles: {np.median(ratios):.2f} times the variance that rows say ({ratios.min():.2f} to "
            f"{ratios.max():.2f}), {ratios.size} pairs of tiles"
        )
    clean = np.array([n.clean for n in noise if np.isfinite(n.clean)])
    if clean.size and not 1 / WRONG < (middle := float(np.median(clean))) < WRONG:
        why = ": a mean of many frames has the noise of none of them" if middle < 1 else ""
        out.append(f"doubt: the clean tiles' noise has {middle:.2g} times the variance that their rows say{why}")
    return out


def _counts(listing: Listing) -> dict[str, dict[str, int]]:
    count = Counter(listing.split)
    scenes = Counter(s for s, _ in {(s, k) for s, k in zip(listing.split, listing.scene, strict=True) if k})
    return {s or "(none)": {"tiles": n, "scenes": scenes[s]} for s, n in sorted(count.items())}


def _by(keys: Iterable[Any]) -> dict[Any, list[int]]:
    out = defaultdict(list)
    for i, key in enumerate(keys):
        out[key].append(i)
    return out


def _splits(listing: Listing, members: Iterable[int]) -> tuple[str, ...]:
    return tuple(sorted({listing.split[i] for i in members} - {""}))


def _paths(listing: Listing, members: Iterable[int]) -> tuple[str, ...]:
    return tuple(sorted({listing.source[i] or listing.path[i] for i in members}))


def _scenes(listing: Listing) -> list[Leak]:
    """Scenes, as named, whose images lie in more than one split."""
    splits: dict[str, set[str]] = {}
    for scene, split in set(zip(listing.scene, listing.split, strict=True)):
        if scene and split:
            splits.setdefault(scene, set()).add(split)
    torn = {k for k, v in splits.items() if len(v) > 1}
    members: dict[str, list[int]] = {k: [] for k in sorted(torn)}
    for i, scene in enumerate(listing.scene):
        if scene in torn and listing.split[i]:
            members[scene].append(i)
    return [_scene(listing, scene, where) for scene, where in members.items()]


def _scene(listing: Listing, scene: str, where: Sequence[int]) -> Leak:
    count = Counter(listing.split[i] for i in where)
    across = [name for name, column in _ACROSS if _differs(listing, where, column)]
    what = "tiles" if listing.tiles else "images"
    fewest = min(sorted(count), key=lambda s: count[s])  # the likelier strays: their files are named
    strays = few(_paths(listing, [i for i in where if listing.split[i] == fewest]))
    said = " and ".join(
        f"{split} ({n} {what if n > 1 else what[:-1]}{f': {strays}' if split == fewest else ''})"
        for split, n in sorted(count.items())
    )
    figure = {"scene": scene, "across": across, **{k: count[k] for k in sorted(count)}}
    paths = _paths(listing, where)
    return Leak("scene", tuple(sorted(count)), paths, figure, f"{scene} is in {said}" + _told(across))


_ACROSS = (("clean and noisy", "data_type"), ("exposures", "level"), ("channels", "channel"), ("files", "source"))


def _told(across: Sequence[str]) -> str:
    some = [a for a in across if a != "files"] or list(across)
    return f": {', '.join(some)} of one scene" if some else ""


def _differs(listing: Listing, where: Sequence[int], column: str) -> bool:
    """Whether a column has other values in one split than in another."""
    values = getattr(listing, column)
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for i in where:
        # a clean frame's level is another than its noisy frames': exposures are compared within one kind
        seen[listing.split[i], listing.data_type[i] if column == "level" else ""].add(values[i])
    return any(seen[a] != seen[b] for a, b in combinations(seen, 2) if a[1] == b[1])


def _identical(listing: Listing, failed: list[tuple[str, str]]) -> list[Leak]:
    """Files of equal bytes, in several splits, that are not constant; of tiles also tiles whose bytes are equal."""
    if not listing.tiles:
        return _identical_files(listing, failed)
    found = [_copies(listing, where, sha) for sha, where in _torn(listing, listing.sha) if len(_paths(listing, where)) > 1]
    known = [set(leak.members) for leak in found]
    figures = [None if f is None or f[0] == f[1] else f for f in listing.figures or ()]
    for _, where in _torn(listing, figures):
        alike = _by(_digest(_frame(listing, i, failed)) for i in where)
        for sha, same in alike.items():
            members = [where[k] for k in same]
            if sha and len(_splits(listing, members)) > 1 and not any(set(_paths(listing, members)) <= k for k in known):
                found.append(_copies(listing, members, sha))
                known.append(set(found[-1].members))
    return found


def _digest(frame: Frame | None) -> str:
    return "" if frame is None else hashlib.sha256(np.ascontiguousarray(frame.data).tobytes()).hexdigest()


def _frame(listing: Listing, i: int, failed: list[tuple[str, str]]) -> Frame | None:
    return unreadable(listing.read, i, listing.path[i], failed)


def _torn(listing: Listing, keys: Sequence[Any]) -> list[tuple[Any, list[int]]]:
    """Entries of one key, in order of first appearance, where they lie in several splits; empty keys are left out."""
    return [(k, where) for k, where in _by(keys).items() if k and len(where) > 1 and len(_splits(listing, where)) > 1]


def _identical_files(listing: Listing, failed: list[tuple[str, str]]) -> list[Leak]:
    sizes = []
    for i in range(len(listing)):
        path = listing.file(i)
        try:
            sizes.append(0 if path is None or path.is_dir() else path.stat().st_size)
        except OSError as error:
            failed.append((listing.path[i], str(error.strerror)))
            sizes.append(0)
    sha = [""] * len(listing)
    for _, where in _torn(listing, sizes):
        for i in where:
            path = listing.file(i)
            sha[i] = io.sha256(path) if path is not None else ""
    found = []
    for digest, where in _torn(listing, sha):
        frame = _frame(listing, where[0], failed)
        if frame is None or np.ptp(np.asarray(frame.data)) > 0:
            found.append(_copies(listing, where, digest))
    return found


def _copies(listing: Listing, where: Sequence[int], sha: str) -> Leak:
    paths, splits = _paths(listing, where), _splits(listing, where)
    said = f"{paths[0]} and {paths[1] if len(paths) == 2 else f'{len(paths) - 1} more'} hold the same bytes"
    if len(paths) == 1:
        said = f"tiles of {paths[0]} hold the same bytes"
    return Leak("identical", splits, paths, {"sha256": sha, "count": len(where)}, f"{said}: in {' and '.join(splits)}")


def _overlaps(listing: Listing) -> list[Leak]:
    """Tiles of one source, by position, that overlap and lie in different splits."""
    if listing.corner is None or listing.size is None:
        return []
    corner, size, out = listing.corner, listing.size, []
    for source, where in _torn(listing, listing.source):
        at = np.array(where)
        first, second, share = _crossing(corner[at], size[at], np.array([listing.split[i] for i in where]))
        if len(first):
            members = np.unique(np.r_[at[first], at[second]]).tolist()
            splits = _splits(listing, members)
            figure = {"pairs": len(first), "overlap": round(float(share.max()), 4), "tiles": [listing.path[i] for i in members]}
            said = (
                f"{len(members)} tiles of {source} overlap across {' and '.join(splits)}, by up to {share.max():.0%} of a tile"
            )
            out.append(Leak("overlap", splits, (source,), figure, said))
    return out


def _crossing(
    corner: NDArray[np.int64], size: NDArray[np.int64], split: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Index pairs of tiles in different splits that overlap, and the share of the smaller one; sorted, then swept along y."""
    order = np.lexsort((corner[:, 1], corner[:, 0]))
    y, x, n, s = corner[order, 0], corner[order, 1], size[order], split[order]
    firsts, seconds, shares = [], [], []
    for k in range(len(order)):
        stop = int(np.searchsorted(y, y[k] + n[k]))
        later = np.arange(k + 1, stop)
        high = np.minimum(y[k] + n[k], y[later] + n[later]) - y[later]
        wide = np.minimum(x[k] + n[k], x[later] + n[later]) - np.maximum(x[k], x[later])
        hit = (high > 0) & (wide > 0) & (s[later] != s[k])
        firsts.append(np.full(int(hit.sum()), order[k]))
        seconds.append(order[later[hit]])
        shares.append(high[hit] * wide[hit] / np.minimum(n[later[hit]], n[k]) ** 2)
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(shares)


def _alike(listing: Listing, content: Content) -> list[Leak]:
    return [_alike_one(listing, m, e, content.shrink) for m, e in content.groups if len(_splits(listing, m)) > 1]


def _alike_one(listing: Listing, members: list[int], evidence: list[tuple[int, int, Match]], shrink: int) -> Leak:
    a, b, best = max(evidence, key=lambda k: (k[2].overlap, k[2].correlation))
    dy, dx = best.dy * shrink, best.dx * shrink
    kind = "near-duplicate" if best.overlap >= ONE_VIEW else "overlap"
    splits, paths = _splits(listing, members), _paths(listing, members)
    figure = {
        "matches": len(evidence),
        "correlation": round(best.correlation, 3),
        "overlap": round(best.overlap, 3),
        "shift": [dy, dx],
        "confidence": round(best.confidence, 1),
        "files": [listing.path[a], listing.path[b]],
        "scenes": sorted({listing.scene[i] for i in members} - {""}),
    }
    more = f", and {len(members) - 2} more images" if len(members) > 2 else ""
    said = (
        f"{listing.path[a]} ({listing.split[a]}) and {listing.path[b]} ({listing.split[b]}){more} show one scene: "
        f"{best.overlap:.0%} overlap, shifted by ({dy:.0f}, {dx:.0f}) px, correlation {best.correlation:.2f}"
    )
    return Leak(kind, splits, paths, figure, said)


def _labels(listing: Listing, judged: Judged) -> list[Leak]:
    out = []
    wrong = [v for v in judged.verdicts if v.kind == "noise"]
    if len(wrong) > 1:  # one model serves many sources: told once
        members = sorted({v.members[0] for v in wrong})
        ratios = [v.figures["chi2"] for v in wrong]
        said = (
            f"the noise in {len(wrong)} noisy sources has {min(ratios):.2g} to {max(ratios):.2g} times the variance that their "
            f"rows state: {few(_paths(listing, members))}"
        )
        figure = {"contradiction": "noise", "pairs": len(wrong), "chi2": [round(min(ratios), 4), round(max(ratios), 4)]}
        out.append(Leak("label", _splits(listing, members), _paths(listing, members), figure, said))
    for verdict in (v for v in judged.verdicts if v.kind != "noise" or len(wrong) == 1):
        noisy, clean = (listing.path[i] for i in verdict.members)
        splits = _splits(listing, verdict.members)
        figure = {"contradiction": verdict.kind, **{k: round(float(v), 4) for k, v in verdict.figures.items()}}
        said = f"{noisy} and {clean} are called noisy and clean, but {verdict.reason}"
        out.append(Leak("label", splits, _paths(listing, verdict.members), figure, said))
    return out
