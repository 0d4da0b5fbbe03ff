"""Which images train, validate and test: all files of one scene together, and every patch with its image."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from firstlight import io
from firstlight.dataset.compare import Groups, compare
from firstlight.dataset.listing import Listing, few, naming
from firstlight.dataset.manifest import NAMES, Image, read_images, read_patches, write_patches, write_splits
from firstlight.dataset.split import shuffled
from firstlight.errors import FrameError

__all__ = ["Shares", "Split", "split_images", "split_patches"]

Tick = Callable[[int, int, str], None]
MOST = 5000  # images compared by content
TORN = "profile 'documented': images are shuffled one by one, so that exposures of one scene may lie in train and in test"


@dataclass(frozen=True)
class Shares:
    """Shares of the images that train, validate and test; they add up to 1."""

    train: float = 0.7
    validation: float = 0.15
    test: float = 0.15

    def checked(self) -> Shares:
        """The same; raises FrameError for shares that are negative or do not add up to 1."""
        values = [self.train, self.validation, self.test]
        if not all(0 <= v <= 1 for v in values) or abs(sum(values) - 1) > 1e-6 or self.train == 0:
            raise FrameError(f"split: shares {', '.join(f'{v:g}' for v in values)}, expected train above 0, and 1 in all")
        return self


@dataclass(frozen=True)
class Split:
    """Ids of the images of each split in the order drawn; groups of files that show one scene; patches a split; notes."""

    ids: Mapping[str, tuple[str, ...]]
    groups: tuple[tuple[str, ...], ...]
    patches: Mapping[str, int]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON object: images and patches of each split, groups, notes."""
        return {
            "images": {k: len(v) for k, v in self.ids.items()},
            "patches": dict(self.patches),
            "groups": [list(g) for g in self.groups],
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """For people: a line a split."""
        total = max(1, sum(map(len, self.ids.values())))
        lines = [
            f"  {k:<12}{len(v):>6} images  {len(v) / total:6.1%}  {self.patches[k]:>8} patches" for k, v in self.ids.items()
        ]
        return "\n".join(["", *lines, *(f"note: {n}" for n in self.notes)])


def split_patches(
    images: str | Path,
    patches: str | Path,
    out_json: str | Path,
    out_patches: str | Path,
    shares: Shares = Shares(),
    *,
    seed: int = 42,
    profile: str = "physical",
    scene: str | None = None,
    look: bool = True,
    tick: Tick | None = None,
) -> Split:
    """Split the images of images.csv and with them the patches of patches.csv; writes splits.json and patches_splits.csv.

    See `split_images`; images without patches are in no split, but for profile "documented". Raises ReadError for what is no
    such CSV, FrameError for a patch whose image is not listed.
    """
    every, cut = read_images(images), read_patches(patches)
    if strange := sorted({p.parent_id for p in cut} - {i.id for i in every}):
        raise FrameError(f"{patches}: patches of {few(strange)}, which {images} does not list; give the manifest they are from")
    uncut = sorted({i.id for i in every} - {p.parent_id for p in cut})
    if profile != "documented":
        every = [i for i in every if i.id not in set(uncut)]
    ids, groups, notes = split_images(every, shares, seed=seed, profile=profile, scene=scene, look=look, tick=tick)
    where = {i: name for name, some in ids.items() for i in some}
    rows = [replace(p, split=where[p.parent_id]) for p in cut]
    count = Counter(p.split for p in rows)
    if uncut:
        notes.append(
            f"{len(uncut)} images have no patches{'' if profile == 'documented' else ' and are in no split'}: {few(uncut)}"
        )
    rule = {"seed": seed, "profile": profile, **vars(shares), "scene": scene, "groups": groups}
    write_splits(out_json, ids, rule)
    write_patches(out_patches, rows, split=True)
    return Split({k: tuple(v) for k, v in ids.items()}, tuple(map(tuple, groups)), {k: count[k] for k in NAMES}, tuple(notes))


def split_images(
    images: Sequence[Image],
    shares: Shares = Shares(),
    *,
    seed: int = 42,
    profile: str = "physical",
    scene: str | None = None,
    look: bool = True,
    tick: Tick | None = None,
) -> tuple[dict[str, list[str]], list[list[str]], list[str]]:
    """{split: [id, ...]}, groups of ids that are one scene, and notes.

    Groups, in the order of their first image, are shuffled by default_rng(seed); train takes them until it has int(train n)
    of the n images, then validation int(validation n), test the rest. A scene: files whose names say so (`scene` as in
    `audit`), and with `look` those whose content does. Profile "documented": every image its own group; it warns. "physical"
    gives each split with a share one group at least, where there are as many. Raises FrameError for shares that are none.
    """
    shares.checked()
    if profile not in ("physical", "documented"):
        raise FrameError(f"split: profile {profile!r}, expected physical or documented")
    unique = list({i.id: i for i in reversed(images)}.values())[::-1]
    groups, notes = [[i.id] for i in unique], list[str]()
    if profile == "physical":
        groups, notes = _grouped(unique, scene, look, tick)
    else:
        warnings.warn(TORN, UserWarning, stacklevel=2)
    ids = _dealt(groups, shares, seed, whole=profile == "documented")
    for name in NAMES:
        if getattr(shares, name) > 0 and not ids[name]:
            notes.append(f"{name} gets none of {len(unique)} images in {len(groups)} groups; add images, or change the shares")
    return ids, [g for g in groups if len(g) > 1], notes


def _grouped(images: Sequence[Image], scene: str | None, look: bool, tick: Tick | None) -> tuple[list[list[str]], list[str]]:
    rule = naming(scene)
    named = [dict(rule(i.path) or {}).get("scene", "") for i in images]
    joined, first = Groups(len(images)), dict[str, int]()
    for n, name in enumerate(named):
        if name:
            joined.join(first.setdefault(name, n), n)
    notes = _looked(images, named, joined, tick) if look else []
    groups: dict[int, list[str]] = {}
    for n, image in enumerate(images):
        groups.setdefault(joined.of(n), []).append(image.id)
    return list(groups.values()), notes


def _looked(images: Sequence[Image], named: Sequence[str], joined: Groups, tick: Tick | None) -> list[str]:
    """Join what shows one scene by its content; notes on what could not be looked at."""
    blank = [""] * len(images)
    paths = [i.path for i in images]
    listing = Listing(
        path=paths,
        split=[i.id for i in images],  # each its own, so that all are compared with all
        scene=list(named),
        data_type=blank,
        channel=blank,
        level=blank,
        source=paths,
        sha=[i.sha1 for i in images],
        read=lambda i: io.read(paths[i]),
        file=lambda i: Path(paths[i]),
        tiles=False,
    )
    found = compare(listing, MOST, tick)
    for members, _ in found.groups:
        for n in members[1:]:
            joined.join(members[0], n)
    notes = (
        [f"{sum(len(m) for m, _ in found.groups)} images show {len(found.groups)} scenes by content"] if found.groups else []
    )
    if len(images) > MOST:
        notes.append(f"{MOST} of {len(images)} images were compared by content; name scenes by --scene")
    if found.unreadable:
        notes.append(f"{few([p for p, _ in found.unreadable])} cannot be read and were not compared by content")
    return notes


def _dealt(groups: Sequence[Sequence[str]], shares: Shares, seed: int, *, whole: bool) -> dict[str, list[str]]:
    """Groups, shuffled, to the splits in turn until each has its number of images; the last takes the rest."""
    count = sum(map(len, groups))
    quota = {k: int(getattr(shares, k) * count) for k in NAMES[:2]}
    waiting = [k for k in NAMES if getattr(shares, k) > 0]
    if not whole and len(groups) >= len(waiting):
        quota = {k: max(n, 1) if k in waiting else 0 for k, n in quota.items()}
    ids: dict[str, list[str]] = {k: [] for k in NAMES}
    for left, n in zip(range(len(groups), 0, -1), shuffled(len(groups), seed), strict=True):
        name = next((k for k in NAMES[:2] if len(ids[k]) < quota[k]), "test")
        empty = [k for k in waiting if not ids[k] and k != name]
        if not whole and ids[name] and len(empty) >= left:  # the groups that are left are for those that have none
            name = empty[0]
        ids[name] += groups[n]
    return ids
