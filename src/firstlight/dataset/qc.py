"""Quality control of patches and their splits: every row against its file, every image in one split, and nothing leaks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.dataset.audit import Audit, audit_set
from firstlight.dataset.listing import few
from firstlight.dataset.manifest import NAMES, Patch, load_patch, read_patches, read_splits, scalings
from firstlight.dataset.store import TileFiles, flags_file
from firstlight.dataset.verdict import Check
from firstlight.errors import FirstlightError, FrameError, ReadError

__all__ = ["Quality", "qc", "tile_rows"]

Tick = Callable[[int, int, str], None]
Bad = Mapping[str, str]  # row -> what is wrong with it
CONTENT = 512  # patches compared by content
SHOWN = 5  # rows that a failed check names


@dataclass(frozen=True)
class Quality:
    """The checks, patches and images of each split, and the leakage audit. `passed`: no check failed and nothing leaks."""

    checks: tuple[Check, ...]
    patches: Mapping[str, int]
    images: Mapping[str, int]
    audit: Audit

    @property
    def passed(self) -> bool:
        """True where no check failed and the audit passed."""
        return all(c.ok is not False for c in self.checks) and self.audit.passed

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "passed": self.passed,
            "patches": dict(self.patches),
            "images": dict(self.images),
            "checks": [c.to_dict() for c in self.checks],
            "audit": self.audit.to_dict(),
        }

    def text(self) -> str:
        """For people: a line a split, a line a check with the rows that fail it, then the audit."""
        lines = [f"{k:<12}{self.images[k]:>6} images {self.patches[k]:>8} patches" for k in self.patches]
        for check in self.checks:
            lines.append(f"  {'ok' if check.ok else 'FAIL':<5} {check.sentence}")
            lines += [f"        {o}" for o in check.offenders[:SHOWN]]
            lines += [f"        and {n} more"] if (n := len(check.offenders) - SHOWN) > 0 else []
        lines += ["", *(f"  {line}" if line else "" for line in self.audit.text().split("\n"))]
        return "\n".join([*lines, "", "passed" if self.passed else "NOT passed: see what failed above"])


def qc(patches: str | Path, splits: str | Path, *, content: int = CONTENT, tick: Tick | None = None) -> Quality:
    """Check patches_splits.csv against splits.json and every patch against its file; `content`: as `most` of `audit`.

    Raises ReadError where a file is none of these, or the CSV holds no patch or no column split, FrameError for `content`
    below 0.
    """
    if content < 0:
        raise FrameError(f"qc: {content} patches to compare by content, expected 0 or more")
    rows, ids = read_patches(patches), read_splits(splits)
    if not rows:
        raise ReadError(f"{patches}: holds no patch; cut them with `firstlight patches`")
    if not any(p.split for p in rows):
        raise ReadError(f"{patches}: no patch has a split; give the file that `firstlight split` wrote")
    figures, broken, values = _files(rows, tick)
    checks = [
        *_splits(rows, ids),
        _check("rows", _twice(rows), "{n} ids or files name two patches", "every patch has an id and a file of its own"),
        _check("scaling", _scalings(rows), "{n} patches have no scaling that can be undone", "every patch has its scaling"),
        _check("cover", _uncovered(rows), "{n} images are not covered", "the patches of every image cover it"),
        _check(
            "files", broken, "{n} files are absent or not as their row says", "every file has the shape and type of its row"
        ),
        _check("values", values, "{n} patches hold values that their row does not say", "values are finite, or counted as not"),
    ]
    whole = [p for p in rows if p.patch_id not in broken]
    found = audit_set({"tiles": tile_rows(whole, figures)}, TileFiles([p.path for p in whole]), Path(), most=content, tick=tick)
    parents = defaultdict(set)
    for p in rows:
        parents[p.split].add(p.parent_id)
    count = Counter(p.split for p in rows)
    names = [*NAMES, *sorted(set(count) - set(NAMES))]
    return Quality(tuple(checks), {k: count[k] for k in names}, {k: len(parents[k]) for k in names}, found)


def tile_rows(patches: Iterable[Patch], figures: Mapping[str, Sequence[float]] | None = None) -> list[dict[str, Any]]:
    """Patches as the rows of a tile set, as far as they have its fields; figures: {patch_id: (min, max, mean, std)}."""
    out = []
    for p in patches:
        seen = (figures or {}).get(p.patch_id, (None,) * 4)
        out.append(
            {
                "tile_id": p.patch_id,
                "domain": "patches",
                "scene_id": p.parent_id,
                "data_type": "noisy",
                "split": p.split,
                "npy_path": p.path,
                "tile_size": min(p.height, p.width),
                "image_y": p.y,
                "image_x": p.x,
                "source_file": p.parent_path,
                "source_sha256": p.parent_id,
                "gain": float("nan"),
                "read_noise": float("nan"),
                **dict(zip(("norm_min", "norm_max", "norm_mean", "norm_std"), seen, strict=True)),
            }
        )
    return out


def _check(name: str, bad: Bad, wrong: str, right: str) -> Check:
    said = tuple(f"{row}: {what}" if what else row for row, what in bad.items())
    return Check(name, not bad, wrong.format(n=len(bad)) if bad else right, said)


def strays(rows: Sequence[Patch], ids: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What is wrong with patches, by id, that are in another split than their image in `ids`: {split: images}."""
    where = _where(ids)
    return {
        p.patch_id: f"split {p.split or 'none'}, its image {p.parent_id} is in {' and '.join(where.get(p.parent_id, ['none']))}"
        for p in rows
        if where.get(p.parent_id) != [p.split]
    }


def _where(ids: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    where = defaultdict(list)
    for name, some in ids.items():
        for i in some:
            where[i].append(name)
    return where


def _splits(rows: Sequence[Patch], ids: Mapping[str, Sequence[str]]) -> list[Check]:
    where = _where(ids)
    torn = {i: f"in {' and '.join(k)}" for i, k in where.items() if len(k) > 1}
    mine = defaultdict(set)
    for p in rows:
        mine[p.parent_id].add(p.split)
    torn |= {i: f"patches in {' and '.join(sorted(k))}" for i, k in mine.items() if len(k) > 1}
    uncut = {i: f"in {where[i][0]}, without patches" for i in sorted(set(where) - set(mine))}
    return [
        _check("parents", torn, "{n} images are in two splits", "every image is in one split"),
        _check(
            "agree",
            strays(rows, ids),
            "{n} patches are not in the split of their image",
            "every patch is in the split of its image",
        ),
        _check("complete", uncut, "{n} images of splits.json have no patches", "every image of splits.json has patches"),
    ]


def _twice(rows: Sequence[Patch]) -> dict[str, str]:
    bad: dict[str, str] = {}
    for what, column in (("id", [p.patch_id for p in rows]), ("file", [p.path for p in rows])):
        bad |= {k: f"the {what} of {n} patches" for k, n in Counter(column).items() if n > 1}
    return bad


def _scalings(rows: Sequence[Patch]) -> dict[str, str]:
    bad = {}
    for p in rows:
        try:
            scalings(p)
        except FirstlightError as error:
            bad[p.patch_id] = " ".join(str(error).split()).removeprefix(f"{p.path}: ")
    return bad


def _uncovered(rows: Sequence[Patch]) -> dict[str, str]:
    """Images with pixels in no patch, or patches that leave them."""
    parents = defaultdict(list)
    for p in rows:
        parents[p.parent_id].append(p)
    bad = {}
    for name, some in parents.items():
        sizes = {(p.parent_height, p.parent_width) for p in some}
        outside = [
            p.patch_id for p in some if p.y < 0 or p.x < 0 or p.y + p.height > p.parent_height or p.x + p.width > p.parent_width
        ]
        if len(sizes) > 1 or outside:
            bad[name] = f"{few(outside)} leave it" if outside else f"its patches call it {len(sizes)} sizes"
        elif lost := _lost(some, *next(iter(sizes))):
            bad[name] = f"{lost} of its pixels are in no patch"
    return bad


def _lost(some: Sequence[Patch], height: int, width: int) -> int:
    """Pixels in no patch, counted on the grid of all patches' borders."""
    ys = np.unique([0, height, *(v for p in some for v in (p.y, p.y + p.height))])
    xs = np.unique([0, width, *(v for p in some for v in (p.x, p.x + p.width))])
    seen = np.zeros((len(ys) - 1, len(xs) - 1), dtype=bool)
    for p in some:
        y, x = (np.searchsorted(e, (a, a + n)) for e, a, n in ((ys, p.y, p.height), (xs, p.x, p.width)))
        seen[y[0] : y[1], x[0] : x[1]] = True
    area = np.outer([b - a for a, b in pairwise(ys)], [b - a for a, b in pairwise(xs)])
    return int(area[~seen].sum())


def _files(rows: Sequence[Patch], tick: Tick | None) -> tuple[dict[str, tuple[float, ...]], dict[str, str], dict[str, str]]:
    """Least, greatest, mean value and spread of each patch; what is wrong with files, and with values."""
    figures, broken, values = dict[str, tuple[float, ...]](), dict[str, str](), dict[str, str]()
    for n, p in enumerate(rows):
        if tick:
            tick(n, len(rows), p.patch_id)
        try:
            data = load_patch(p)
            share = _share(p, data)
        except FirstlightError as error:
            broken[p.patch_id] = " ".join(str(error).split())
            continue
        good = data[np.isfinite(data)].astype(np.float64)
        if good.size:
            figures[p.patch_id] = (float(good.min()), float(good.max()), float(good.mean()), float(good.std()))
        if abs(share - p.valid) > 0.5 / data.size:
            values[p.patch_id] = f"{share:.6f} of it is finite and not flagged, its row says {p.valid:.6f}"
        elif not good.size:
            values[p.patch_id] = "holds no finite value"
        elif "clip" in p.scaling and not 0 <= good.min() <= good.max() <= 1:
            values[p.patch_id] = f"clipped to 0..1 by its row, holds {good.min():g} to {good.max():g}"
    return figures, broken, values


def _share(patch: Patch, data: Any) -> float:
    """The share of a patch that is finite and not flagged."""
    good = np.isfinite(data)
    file = Path(flags_file(patch.path))
    if patch.valid < 1 and file.is_file():
        flags = TileFiles([patch.path]).flags(0)
        if flags is None or flags.shape != data.shape:
            raise ReadError(f"{file}: flags of another shape than the patch; cut the patches again")
        good &= flags == 0
    return float(good.mean())
