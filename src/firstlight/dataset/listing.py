"""What an audit looks at: each image or tile, its split, and what is known of where it comes from."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import io
from firstlight.dataset.join import targets
from firstlight.dataset.layout import match, rows
from firstlight.dataset.noise_on import NoiseOn
from firstlight.dataset.scan import walk
from firstlight.dataset.store import Store
from firstlight.errors import FirstlightError, FrameError, ReadError
from firstlight.frame import Frame, Unit
from firstlight.noise import Noise, Unmodelled

__all__ = ["Listing", "by_cause", "few", "naming", "of_folder", "of_set", "unreadable"]

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}
TYPES = {"noisy": "noisy", "clean": "clean", "input": "noisy", "target": "clean", "gt": "clean", "raw": "noisy", "low": "noisy"}
GROUPS = ("scene", "view", "data_type", "channel", "level")


@dataclass(frozen=True, eq=False)
class Listing:
    """Columns of equal length, one entry an image or tile; "" where unknown. `corner`: (n, 2) y, x of a tile in its source.

    source: the file that a tile was cut from, an image's own path else; sha: that file's sha256, "" where not taken.
    `pairs`: (noisy, clean) entries that names make a pair of. `read` gives an entry's frame, `file` the path of its bytes or
    None.
    """

    path: list[str]
    split: list[str]
    scene: list[str]
    data_type: list[str]
    channel: list[str]
    level: list[str]
    source: list[str]
    sha: list[str]
    read: Callable[[int], Frame]
    file: Callable[[int], Path | None]
    tiles: bool
    corner: NDArray[np.int64] | None = None
    size: NDArray[np.int64] | None = None
    figures: list[tuple[Any, ...]] | None = None
    pairs: list[tuple[int, int]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.path)


def of_set(meta: Mapping[str, Any], store: Store, folder: Path) -> Listing:
    """The tiles of a set; scene, source and position are its rows'. Raises ReadError for rows without path or split."""
    tiles: Sequence[Mapping[str, Any]] = meta["tiles"]
    text = {k: [str(r.get(k) or "") for r in tiles] for k in _COLUMNS}
    for name in ("npy_path", "split"):
        if "" in text[name]:
            raise ReadError(f"{folder}: row {text[name].index('')} has no {name}, expected one for every tile")

    def read(i: int) -> Frame:
        data = store.read(i)
        flags = store.flags(i) if store.has_flags(i) else None
        return Frame(data, "YX" if data.ndim == 2 else "CYX", Unit.ARBITRARY, _stated(tiles[i], data, folder), flags=flags)

    return Listing(
        path=text["npy_path"],
        split=text["split"],
        scene=text["scene_id"],
        data_type=text["data_type"],
        channel=text["channel"],
        level=text["level"],
        source=text["source_file"],
        sha=text["source_sha256"],
        read=read,
        file=lambda i: None,
        tiles=True,
        corner=np.stack([_whole(tiles, "image_y"), _whole(tiles, "image_x")], axis=-1),
        size=_whole(tiles, "tile_size"),
        figures=[tuple(r.get(k) for k in ("norm_min", "norm_max", "norm_mean", "norm_std")) for r in tiles],
        pairs=_pairs_of_set(meta),
    )


def _stated(row: Mapping[str, Any], data: NDArray[Any], folder: Path) -> Noise | Unmodelled:
    """The noise that a row states, of its tile's scaled values."""
    laws = [row.get("noise_a"), row.get("noise_b")]
    if None in laws or not row.get("fixed_scale"):
        return Unmodelled("the tile's row states no noise")
    known = dict(zip(("noise_a", "noise_b"), (str(folder / k) if isinstance(k, str) else k for k in laws), strict=True))
    shape = data.shape if data.ndim == 3 else (1, *data.shape)
    try:
        found = NoiseOn([{**row, **known}], scaled=True).parameters(0, shape)
    except (TypeError, ValueError):
        return Unmodelled("the tile's row states a noise that is none")
    return Noise(*(k if data.ndim == 3 else float(k[0, 0, 0]) if k.size == 1 else k[0] for k in found.values()))


_COLUMNS = ("npy_path", "split", "scene_id", "data_type", "channel", "level", "source_file", "source_sha256")


def _whole(tiles: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.int64]:
    """A field of whole numbers, 0 where a row lacks it; raises FrameError naming the first row that holds something else."""
    try:
        return np.array([r.get(name) or 0 for r in tiles], dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        bad = next(r for r in tiles if not isinstance(r.get(name) or 0, int))
        raise FrameError(
            f"tiles: {name} of {bad.get('tile_id')!r} is {bad[name]!r}, expected a whole number; build the set again"
        ) from None


def _pairs_of_set(meta: Mapping[str, Any]) -> list[tuple[int, int]]:
    clean, _ = targets(meta)
    if (clean < 0).all():
        # every pair is torn apart by the split: that leak is told elsewhere, the labels are looked at here
        clean, _ = targets({**meta, "tiles": [{**r, "split": ""} for r in meta["tiles"]]})
    return [(i, k) for i, k in enumerate(clean.tolist()) if k >= 0]


def of_folder(folder: Path, scene: str | Path | None = None, splits: str | Path | Mapping[str, str] | None = None) -> Listing:
    """The images below a folder.

    scene: a regular expression with a named group `scene` (and `view`, `data_type`, `channel`, `level`), searched in the path
    below the folder; or a TOML mapping of layouts; None: the layouts that the domains know; "": no name says anything.
    splits: a CSV (columns path and split), a JSON ({path or scene: split} or {split: [path or scene]}), such a mapping, or
    None: folders named train, validation and test. Raises ReadError where there is no image or no split.
    """
    paths, shut = walk(folder)
    paths = [p for p in paths if any(s.lower() in io.FORMATS for s in Path(p).suffixes[-2:])]
    if not paths:
        raise ReadError(f"{folder}: holds no image that can be read; expected files such as {', '.join(list(io.FORMATS)[:6])}")
    labels = [_label(p, rule) for rule in [naming(scene)] for p in paths]
    parts = _assigned(folder, paths, [k["scene"] for k in labels], splits)
    if not any(parts):
        raise ReadError(
            f"{folder}: no image has a split; sort them into folders train, validation and test, or pass splits= a CSV or JSON"
        )
    notes = [f"{n} images are in no split and were not compared"] if (n := parts.count("")) else []
    if unknown := sum(not k["scene"] for k in labels):
        notes.append(f"{unknown} of {len(paths)} images have no scene by name: only their content tells what they show")
    return Listing(
        path=paths,
        split=parts,
        scene=[k["scene"] for k in labels],
        data_type=[k["data_type"] for k in labels],
        channel=[k["channel"] for k in labels],
        level=[k["level"] for k in labels],
        source=paths,
        sha=[""] * len(paths),
        read=lambda i: io.read(folder / paths[i]),
        file=lambda i: folder / paths[i],
        tiles=False,
        pairs=_pairs_of_folder(labels),
        unreadable=shut,
        notes=notes,
    )


def naming(scene: str | Path | None) -> Callable[[str], Mapping[str, str] | None]:
    """From a path to what its name says, None where it says nothing."""
    if scene is None or Path(scene).suffix.lower() == ".toml":
        known = rows(scene)

        def by_layout(path: str) -> Mapping[str, str] | None:
            found = match(path, known)
            return None if found is None else {k: getattr(found, k) for k in GROUPS}

        return by_layout
    if str(scene) == "":
        return lambda path: None
    try:
        pattern = re.compile(str(scene))
    except re.error as error:
        raise FrameError(f"audit: scene rule {str(scene)!r} is no regular expression ({error})") from error
    if "scene" not in pattern.groupindex or (strange := set(pattern.groupindex) - set(GROUPS)):
        names = ", ".join(sorted(strange)) if "scene" in pattern.groupindex else "no group named scene"
        raise FrameError(
            f"audit: scene rule {str(scene)!r} names {names}; expected (?P<scene>...), and {', '.join(GROUPS[1:])}"
        )

    def by_pattern(path: str) -> Mapping[str, str] | None:
        found = pattern.search(path)
        return None if found is None else {k: v or "" for k, v in found.groupdict().items()}

    return by_pattern


def _label(path: str, rule: Callable[[str], Mapping[str, str] | None]) -> dict[str, str]:
    said = dict.fromkeys(GROUPS, "") | dict(rule(path) or {})
    kind = said["data_type"].lower()
    said["data_type"] = TYPES.get(kind, "" if kind == "unknown" else kind)
    if not said["data_type"]:
        folders = [TYPES[p] for p in map(str.lower, Path(path).parts[:-1]) if p in ("noisy", "clean")]
        said["data_type"] = folders[-1] if folders else ""
    said["view"] = said["view"] or (f"{said['scene']} {said['channel']}" if said["scene"] else "")
    return said


def _pairs_of_folder(labels: Sequence[Mapping[str, str]]) -> list[tuple[int, int]]:
    """Each noisy image with the one clean image of its view."""
    clean: dict[str, list[int]] = {}
    for i, k in enumerate(labels):
        if k["data_type"] == "clean" and k["view"]:
            clean.setdefault(k["view"], []).append(i)
    return [
        (i, clean[k["view"]][0])
        for i, k in enumerate(labels)
        if k["data_type"] == "noisy" and len(clean.get(k["view"], ())) == 1
    ]


def _assigned(
    folder: Path, paths: Sequence[str], scenes: Sequence[str], splits: str | Path | Mapping[str, str] | None
) -> list[str]:
    if splits is None:
        found = ([SPLITS[p] for p in map(str.lower, Path(path).parts[:-1]) if p in SPLITS] for path in paths)
        return [f[0] if f else "" for f in found]
    given = splits if isinstance(splits, Mapping) else _read_splits(Path(splits))
    base = f"{folder.as_posix()}/"
    said = {k.removeprefix(base).removeprefix("./"): v for k, v in given.items()}
    out = [said.get(p) or said.get(Path(p).name) or said.get(s, "") for p, s in zip(paths, scenes, strict=True)]
    return [SPLITS.get(s.lower(), s) for s in out]


def _read_splits(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        return _splits_json(path, json.loads(text)) if path.suffix.lower() == ".json" else _splits_csv(path, text)
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise ReadError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); expected CSV or JSON"
        ) from error


def _splits_json(path: Path, tree: Any) -> dict[str, str]:
    if isinstance(tree, dict) and all(isinstance(v, str) for v in tree.values()):
        return tree
    if isinstance(tree, dict) and all(isinstance(v, list) and all(isinstance(x, str) for x in v) for v in tree.values()):
        return {name: split for split, names in tree.items() for name in names}
    raise ReadError(f"{path}: expected {{path: split}} or {{split: [path, ...]}}, with paths or scenes")


def _splits_csv(path: Path, text: str) -> dict[str, str]:
    table = csv.DictReader(text.splitlines())
    names = {str(k).strip().lower(): k for k in table.fieldnames or ()}
    name = next((names[k] for k in ("path", "file", "filename", "scene", "image") if k in names), None)
    if name is None or "split" not in names:
        raise ReadError(f"{path}: columns {', '.join(names) or 'none'}; expected path (or scene) and split")
    return {str(row[name]).strip(): str(row[names["split"]] or "").strip() for row in table}


def by_cause(failed: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """(cause, paths) in order of first appearance: many files fail for one reason."""
    out: dict[str, list[str]] = {}
    for path, cause in failed:
        out.setdefault(cause, []).append(path)
    return list(out.items())


def few(paths: Sequence[str], most: int = 3) -> str:
    """The first of some paths, and how many more."""
    return ", ".join(paths[:most]) + (f" and {len(paths) - most} more" if len(paths) > most else "")


def unreadable(read: Callable[[int], Frame], i: int, path: str, into: list[tuple[str, str]]) -> Frame | None:
    """An entry's frame, or None with its cause added to `into`."""
    try:
        return read(i)
    except FirstlightError as error:
        text = " ".join(str(error).split())
        into.append((path, text.partition(f"{path}: ")[2] or text))
        return None
