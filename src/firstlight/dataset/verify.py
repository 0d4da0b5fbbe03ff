"""Verification of a tile set: document 0's checks of splits and counts, every tile against its row, and the leakage audit."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.dataset.audit import Audit, Tick, audit_set
from firstlight.dataset.listing import few
from firstlight.dataset.metadata import domain_file, is_inside, metadata_file, row_lines, rows_text
from firstlight.dataset.rows import TileRow
from firstlight.dataset.store import Store, TileFiles, open_set
from firstlight.dataset.verdict import Check, Checks
from firstlight.errors import FirstlightError, FrameError
from firstlight.scaling import Scaling

__all__ = ["verify"]

Array = NDArray[Any]
Rows = Sequence[Mapping[str, Any]]
SPLITS = ("train", "validation", "test")
LATER = ("noise_a", "noise_b", "flags", "profile", "source_sha256", "fixed_offset", "view", "level", "channel", "pair_id")
SCHEMA = frozenset(f.name for f in fields(TileRow)) - frozenset(LATER)
# document 0's assertions: what a split may hold under its rule
ASSERTED = (("train", "noisy"), ("validation", "noisy"), ("test", "clean"))
SAMPLE, CONTENT, PAIRS = 256, 256, 20
ULPS = 2
NAMED = 3  # offenders that a sentence names


def verify(
    out: str | Path, *, sample: int | None = SAMPLE, content: int = CONTENT, pairs: int = PAIRS, tick: Tick | None = None
) -> Checks:
    """Everything that a tile set claims about itself, looked at.

    Rows, paths, names, file sizes and headers are checked for every tile; values for `sample` of them, spread evenly (None:
    all). content, pairs: as `most` and `pairs` of `audit`, which looks at more by default. Raises ReadError for what is no tile
    set.
    """
    meta, store, folder = open_set(out)
    rows: Rows = meta["tiles"]
    profile, split = str(meta.get("profile") or "physical"), str(meta.get("split") or "scene")
    schema = _schema(rows)
    checks = [schema]
    if schema.ok:
        checks += [*_names(rows), *_files(rows, store, folder), _domains(rows, metadata_file(out), store)]
        checks += [*_values(rows, store, sample), _electrons(rows), *_rules(rows, split, profile)]
    bad = tuple((str(u.get("path")), str(u.get("cause"))) for u in meta.get("unreadable", ()))
    checks.append(_check("inputs", [p for p, _ in bad], "every input could be read", "{n} inputs could not be read"))
    found = audit_set(meta, store, folder, most=content, pairs=pairs, tick=tick) if schema.ok else _no_audit(rows)
    return Checks(str(out), len(rows), profile, split, tuple(checks), _counts(rows), found, bad)


def _no_audit(rows: Rows) -> Audit:
    return Audit("tiles", len(rows), 0, {}, (), {}, notes=("not audited: the rows lack what an audit needs",))


def _check(name: str, offenders: Sequence[str], good: str, bad: str) -> Check:
    """A check that fails where there are offenders; {n} in `bad` is their count."""
    if not offenders:
        return Check(name, True, good)
    return Check(name, False, f"{bad.format(n=len(offenders))}: {few(offenders, NAMED)}", tuple(offenders))


def _column(rows: Rows, name: str) -> list[Any]:
    return [r[name] for r in rows]


def _numbers(rows: Rows, name: str) -> NDArray[np.float64]:
    """A column as float64, NaN where there is none."""
    try:
        return np.array([r.get(name) for r in rows], dtype=np.float64)
    except (TypeError, ValueError):
        bad = next(r for r in rows if not isinstance(r.get(name), int | float | None))
        raise FrameError(
            f"tiles: {name} of {bad.get('tile_id')!r} is {bad[name]!r}, expected a number; build the set again"
        ) from None


def _picked(rows: Rows, where: Array) -> list[str]:
    return [str(rows[int(i)]["tile_id"]) for i in np.flatnonzero(where)]


def _schema(rows: Rows) -> Check:
    short = [i for i, r in enumerate(rows) if not r.keys() >= SCHEMA]
    if not rows:
        return Check("schema", False, "the set has no tiles")
    if not short:
        return Check("schema", True, f"every row has the {len(SCHEMA)} fields of the schema")
    missing = sorted(SCHEMA - rows[short[0]].keys())
    said = f"{len(short)} rows lack fields of the schema, the first (row {short[0]}) {', '.join(missing[:NAMED])}"
    return Check("schema", False, said, tuple(str(rows[i].get("tile_id", i)) for i in short))


def _names(rows: Rows) -> list[Check]:
    """Tile ids, paths and places are unique, and paths are relative and stay inside."""
    ids, paths = _column(rows, "tile_id"), _column(rows, "npy_path")
    places = [(str(r["tile_id"]).rpartition("_tile_")[0], r["data_type"], r["image_y"], r["image_x"]) for r in rows]
    outside = [str(p) for p in paths if not is_inside(p)]
    return [
        _check("tile_id", _twice(ids), "tile ids are unique", "{n} tile ids are used twice"),
        _check("npy_path", _twice(paths), "each row has a tile of its own", "{n} tiles have two rows"),
        _check("place", _twice(places), "no place of an image is cut twice", "{n} places are cut twice"),
        _check("relative", outside, "paths are relative to the JSON", "{n} paths are absolute or leave the folder"),
    ]


def _twice(values: Sequence[Any]) -> list[str]:
    if len(set(values)) == len(values):
        return []
    return [str(v) for v, n in Counter(values).items() if n > 1]


def _files(rows: Rows, store: Store, folder: Path) -> list[Check]:
    """Every row has its tile and every tile its row; sizes, shapes and types of all, from the files' headers."""
    if not isinstance(store, TileFiles):
        good = len(store) == len(rows)
        return [Check("tiles", good, f"{len(store)} tiles in packs for {len(rows)} rows")]
    there = dict(_walked(folder, "npy_tiles"))
    paths = _column(rows, "npy_path")
    known = set(paths)
    lost = [p for p in paths if p not in there and not (folder / p).is_file()]
    flags = {p for p in there if p.endswith(".flags.npy")}
    strange = sorted(p for p in there.keys() - known - flags if p.endswith(".npy"))
    strange += sorted(p for p in flags if p.removesuffix(".flags.npy") + ".npy" not in known)
    left = sorted(p for p in there if not p.endswith(".npy"))
    return [
        _check("tiles", lost, "every row has its tile", "{n} rows have no tile"),
        _check("rows", strange, "every tile has its row", "{n} tiles have no row"),
        _check("remains", left, "nothing unfinished lies among the tiles", "{n} files among the tiles are no tiles"),
        _headers(rows, there, folder),
    ]


def _walked(folder: Path, below: str) -> Iterator[tuple[str, int]]:
    """(POSIX path relative to `folder`, bytes) of every file below."""
    try:
        entries = list(os.scandir(folder / below))
    except OSError:
        return
    for entry in entries:
        name = f"{below}/{entry.name}"
        if entry.is_dir():
            yield from _walked(folder, name)
        elif entry.is_file():
            yield name, entry.stat().st_size


def _headers(rows: Rows, there: Mapping[str, int], folder: Path) -> Check:
    known: dict[bytes, tuple[tuple[int, ...], str, int] | None] = {}
    bad, base = [], f"{folder}{os.sep}"
    for row in rows:
        path = row["npy_path"]
        if path not in there:
            continue
        head = _head(base + path)
        if head not in known:
            known[head] = _parsed(head)
        found, n, c = known[head], row["tile_size"], row["channels"]
        if found is None or found[1] != "<f4" or found[0] not in ((n, n) if c == 1 else (c, n, n), (c, n, n)):
            bad.append(path if found is None else f"{path} ({' x '.join(map(str, found[0]))} {found[1]})")
        elif there[path] != found[2]:
            bad.append(f"{path} ({there[path]} of {found[2]} bytes)")
    return _check("shapes", bad, "shapes and types are as the rows say, float32", "{n} tiles are not what their rows say")


def _head(path: str) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(file, 128)
    finally:
        os.close(file)


def _parsed(head: bytes) -> tuple[tuple[int, ...], str, int] | None:
    """(shape, type, bytes of the whole file) that a .npy header states, None where it is none."""
    try:
        file = io.BytesIO(head)
        if np.lib.format.read_magic(file) != (1, 0):
            return None
        shape, order, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError:
        return None
    return (shape, dtype.str, file.tell() + int(np.prod(shape)) * dtype.itemsize) if not order else None


def _domains(rows: Rows, file: Path, store: Store) -> Check:
    """The metadata of each domain hold that domain's rows, as `file` has them."""
    if not isinstance(store, TileFiles):
        return Check("incremental", True, "packs hold all metadata")
    by_domain: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        by_domain.setdefault(str(row["domain"]), []).append(i)
    lines, bad = row_lines(file), []
    for domain, own in sorted(by_domain.items()):
        try:
            path = domain_file(file.parent, domain)
            same = len(lines) == len(rows) and rows_text(path) == b",\n".join([lines[i] for i in own])
            if not same and json.loads(path.read_bytes())["tiles"] != [rows[i] for i in own]:
                bad.append(f"{path.name} (other rows)")
        except OSError as error:
            bad.append(f"{path.name} ({error.strerror})")
        except FrameError as error:
            bad.append(f"{domain} ({error})")
        except (ValueError, KeyError, TypeError):
            bad.append(f"{path.name} (no metadata)")
    return _check("incremental", bad, "the metadata of each domain agree", "{n} metadata files disagree")


def _values(rows: Rows, store: Store, sample: int | None) -> list[Check]:
    """Figures, gaps and scaling of the tiles themselves."""
    count = len(rows) if sample is None else min(sample, len(rows))
    where = np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int)).tolist() if count else []
    broken: list[str] = []
    gaps: list[str] = []
    figures: list[str] = []
    scaling: list[str] = []
    for i in where:
        row = rows[i]
        try:
            tile, flags = store.read(i), store.flags(i)
        except FirstlightError as error:
            broken.append(str(error))
            continue
        asked = (
            (gaps, partial(_gap, row, tile, flags)),
            (figures, partial(_off, row, tile)),
            (scaling, partial(_bent, row, tile)),
        )
        for into, ask in asked:
            try:
                said = ask()
            except (TypeError, ValueError, AttributeError):
                said = "fields of its row that are no numbers"
            if said:
                into.append(f"{row['tile_id']} ({said})")
    of = f"of {len(where)} tiles read"
    return [
        _check("readable", broken, f"all {len(where)} tiles read are whole", "{n} " + of + " are damaged"),
        _check("gaps", gaps, f"no gap that is not flagged, {of}", "{n} " + of + " have unflagged gaps"),
        _check(
            "figures",
            figures,
            f"the rows' figures are the tiles', {of}",
            "{n} " + of + " have other figures than their rows; remove these and build again",
        ),
        _check("scaling", scaling, f"electrons come back within {ULPS} ulp, {of}", "{n} " + of + " do not scale back"),
    ]


def _gap(row: Mapping[str, Any], tile: Array, flags: Array | None) -> str:
    gap = ~np.isfinite(tile)
    count = int(np.count_nonzero(gap))
    if not count:
        return ""
    if flags is not None:
        return f"{n} unflagged" if (n := int(np.count_nonzero(gap & (np.broadcast_to(flags, tile.shape) == 0)))) else ""
    flagged = sum(int(v) for v in (row.get("flags") or {}).values())
    return f"{count} not finite, {flagged} flagged" if count > flagged else ""


def _off(row: Mapping[str, Any], tile: Array) -> str:
    values = tile[np.isfinite(tile)].astype(np.float64)
    said = [row[f"norm_{k}"] for k in ("min", "max", "mean", "std")]
    if not values.size:
        return "" if all(s is None for s in said) else "figures of a tile without values"
    found = values.min(), values.max(), values.mean(), values.std()
    room = 1e-5 * float(found[1] - found[0]) + 8 * float(np.finfo(np.float32).eps) * float(np.abs(found[:2]).max())
    for name, a, b in zip(("min", "max", "mean", "std"), said, found, strict=True):
        if a is None or not abs(float(a) - float(b)) <= room:
            return f"norm_{name} {a}, the tile's {b:.6g}"
    return ""


def _bent(row: Mapping[str, Any], tile: Array) -> str:
    offset = float(row.get("fixed_offset") or 0.0)
    if not float(row["fixed_scale"]) > 0:
        return f"scale {row['fixed_scale']}"
    scaling = Scaling(float(row["fixed_scale"]), offset)
    electrons = scaling.invert(tile[np.isfinite(tile)])
    off = np.abs(scaling.invert(scaling.apply(electrons)).astype(np.float64) - electrons)
    room = ULPS * np.spacing(np.maximum(np.abs(electrons), np.float32(abs(offset))))
    return f"by up to {off.max():.3g} e-" if off.size and bool((off > room).any()) else ""


def _electrons(rows: Rows) -> Check:
    """electron_* and norm_* of every row are one another's through the row's scaling."""
    scale, offset = _numbers(rows, "fixed_scale"), np.nan_to_num(_numbers(rows, "fixed_offset"))
    wrong = np.zeros(len(rows), dtype=bool)
    reach = np.maximum(
        np.nan_to_num(np.abs(_numbers(rows, "electron_max"))), np.nan_to_num(np.abs(_numbers(rows, "electron_min")))
    )
    room = 1e-5 * np.maximum(reach, np.abs(offset)) + 1e-9
    for kind in ("min", "max", "mean"):
        off = _numbers(rows, f"norm_{kind}") * scale - offset - _numbers(rows, f"electron_{kind}")
        wrong |= np.nan_to_num(np.abs(off)) > room
    wrong |= np.nan_to_num(np.abs(_numbers(rows, "norm_std") * scale - _numbers(rows, "electron_std"))) > room
    return _check(
        "electrons",
        _picked(rows, wrong),
        "electrons and scaled figures agree in every row",
        "{n} rows contradict their scaling",
    )


def _rules(rows: Rows, split: str, profile: str) -> list[Check]:
    """Document 0's assertions: a must under its own rule, a fact under any other."""
    must = split == "documented"
    pairs = Counter(zip(_column(rows, "split"), _column(rows, "data_type"), strict=True))
    strange = sorted({str(s) for s, _ in pairs} - set(SPLITS))
    out = [_check("splits", strange, "splits are train, validation and test", "{n} other splits")]
    for name, kind in ASSERTED:
        other = sum(n for (s, t), n in pairs.items() if s == name and t != kind)
        total = sum(n for (s, _), n in pairs.items() if s == name)
        said = f"{name} is {kind} only" if not other else f"{name} holds {other} of {total} tiles that are not {kind}"
        if other and not must:
            said += ": a split by scene keeps clean and noisy together"
        out.append(Check(f"{name} {kind}", not other if must else (True if not other else None), said))
    counts = _types(rows)
    uneven = [
        f"{d} ({c.get('noisy', 0)} noisy, {c.get('clean', 0)} clean)"
        for d, c in counts.items()
        if c.get("noisy") != c.get("clean")
    ]
    even = _check("one to one", uneven, "as many clean as noisy tiles in every domain", "{n} domains are not one to one")
    return [*out, even if even.ok or profile != "physical" else Check(even.name, None, even.sentence, even.offenders)]


def _types(rows: Rows) -> dict[str, dict[str, int]]:
    out: dict[str, dict[str, int]] = {}
    for (domain, kind), n in sorted(Counter((str(r.get("domain")), str(r.get("data_type"))) for r in rows).items()):
        out.setdefault(domain, {})[kind] = n
    return out


def _counts(rows: Rows) -> dict[str, Any]:
    """Document 0's three tables: split distribution, data type by split, domain distribution; scenes beside them."""
    splits = Counter(str(r.get("split")) for r in rows)
    order = [*(s for s in SPLITS if s in splits), *sorted(set(splits) - set(SPLITS))]
    crossed = Counter((str(r.get("split")), str(r.get("data_type"))) for r in rows)
    types = sorted({t for _, t in crossed})
    scenes = Counter(d for d, _ in {(str(r.get("domain")), str(r.get("scene_id"))) for r in rows})
    return {
        "splits": {s: splits[s] for s in order},
        "types_by_split": {s: {t: crossed[s, t] for t in types} for s in order},
        "domains": _types(rows),
        "scenes": dict(sorted(scenes.items())),
    }
