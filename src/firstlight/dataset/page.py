"""The statistics page of a tile set: one HTML file with counts, histograms, example tiles, and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, log10
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.atomic import write_text
from firstlight.dataset.audit import Tick
from firstlight.dataset.join import targets
from firstlight.dataset.listing import by_cause
from firstlight.dataset.store import Store, open_set
from firstlight.dataset.unscale import unscale
from firstlight.dataset.verdict import Checks
from firstlight.dataset.verify import SPLITS, verify
from firstlight.errors import FirstlightError
from firstlight.frame import Frame, Unit
from firstlight.measure.fidelity import affine_fit
from firstlight.measure.pictures import Stretch, data_uri, picture, stretch_of
from firstlight.noise import Unmodelled

__all__ = ["write_page"]

Array = NDArray[Any]
Row = Mapping[str, Any]
EXAMPLES = 6  # pairs of tiles of each domain
SIZE = 256  # px a side of an example
BINS = 28
MEASURED = 100  # tiles of each kind whose noise is measured where no row predicts it
LESS = 0.7  # finest detail over predicted noise, below which the prediction is wrong: structure only adds to it
RELATED = 0.7  # correlation of cell means from which two tiles are brought to one brightness
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 430, 168, 14, 10, 34  # px of a histogram
LEAKS = 200  # findings on the page; `audit --json` lists all


class Pairs(NamedTuple):
    """Of every row the number of its clean row, or -1, and the brightness of noisy over clean [e-/e-], NaN where unknown."""

    clean: Array
    ratio: Array


def write_page(
    out: str | Path, path: str | Path, *, checks: Checks | None = None, examples: int = EXAMPLES, tick: Tick | None = None
) -> Path:
    """Write the page of the tile set `out`; everything is inside the file, which appears whole or not at all.

    checks: its verification, where that has been done already. examples: pairs of tiles shown of each domain. Raises ReadError
    for what is no tile set, WriteError where the page cannot be written.
    """
    from importlib.resources import files

    from jinja2 import Environment

    from firstlight import __version__

    checks = checks or verify(out, tick=tick)
    meta, store, _ = open_set(out)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("firstlight.dataset").joinpath("page.html").read_text(encoding="utf-8"))
    domains = _domains(meta, store, checks, examples) if checks.counts["domains"] and _complete(checks) else []
    text = template.render(
        version=__version__,
        title=Path(out).resolve().name,
        checks=checks,
        splits=_shares(checks.counts["splits"]),
        crossed=checks.counts["types_by_split"],
        types=sorted({t for row in checks.counts["types_by_split"].values() for t in row}),
        domains=domains,
        leaks=_leaks(checks),
        more=max(0, len(checks.audit.leaks) - LEAKS),
        unreadable=by_cause(checks.unreadable),
        pairs=_pair_words(meta),
    )
    return write_text(Path(path), text)


def _complete(checks: Checks) -> bool:
    return all(c.ok for c in checks.checks if c.name == "schema")


def _pair_words(meta: Mapping[str, Any]) -> dict[str, Any]:
    pairs = [p for p in meta.get("pairs", ()) if isinstance(p, Mapping)]
    refused: dict[str, int] = {}
    for p in pairs:
        if not p.get("proved"):
            reason = str(p.get("reason") or "not proved")
            refused[reason] = refused.get(reason, 0) + 1
    return {"total": len(pairs), "proved": sum(bool(p.get("proved")) for p in pairs), "refused": list(refused.items())[:20]}


def _shares(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    total = max(sum(counts.values()), 1)
    order = [*(s for s in SPLITS if s in counts), *(s for s in counts if s not in SPLITS)]
    return [{"name": s, "count": counts[s], "share": 100 * counts[s] / total} for s in order]


def _leaks(checks: Checks) -> list[tuple[str, list[str]]]:
    out: dict[str, list[str]] = {}
    for leak in checks.audit.leaks[:LEAKS]:
        out.setdefault(leak.kind, []).append(leak.sentence)
    return list(out.items())


def _domains(meta: Mapping[str, Any], store: Store, checks: Checks, examples: int) -> list[dict[str, Any]]:
    rows: Sequence[Row] = meta["tiles"]
    # a pair that the split tears apart is shown, though it is none to train on
    pairs = Pairs(*targets({**meta, "tiles": [{**r, "split": ""} for r in rows]}))
    where: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        where.setdefault(str(row["domain"]), []).append(i)
    return [_domain(name, rows, where[name], store, pairs, checks, examples) for name in sorted(where)]


def _domain(
    name: str, rows: Sequence[Row], where: list[int], store: Store, pairs: Pairs, checks: Checks, examples: int
) -> dict[str, Any]:
    own = [rows[i] for i in where]
    kinds = sorted({str(r["data_type"]) for r in own}, reverse=True)
    count: dict[str, int] = {}
    for r in own:
        count[str(r["split"])] = count.get(str(r["split"]), 0) + 1
    return {
        "name": name,
        "tiles": len(own),
        "sources": len({str(r["source_file"]) for r in own}),
        "scenes": checks.counts["scenes"].get(name, 0),
        "kinds": checks.counts["domains"][name],
        "splits": _shares(count),
        "facts": [*_facts(own), *_finest(rows, where, kinds, store)],
        "plots": [
            _histogram("signal: mean of a tile", {k: _of(own, k, _signal) for k in kinds}),
            _noises(rows, where, kinds, store),
        ],
        "examples": _examples(rows, where, store, pairs, examples),
    }


def _facts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    def listed(name: str, unit: str = "") -> str:
        values = sorted({r.get(name) for r in rows} - {None}, key=str)
        some = ", ".join(_plain(v) if isinstance(v, float) else str(v) for v in values[:4])
        return some + (f" and {len(values) - 4} more" if len(values) > 4 else "") + unit if values else "unknown"

    offset = {float(r.get("fixed_offset") or 0.0) for r in rows}
    shift = "" if offset == {0.0} else f", offset {', '.join(f'{o:g}' for o in sorted(offset))} e-"
    valid = np.array([r["valid_ratio"] for r in rows], dtype=float)
    return [
        ("gain", listed("gain", " e-/ADU")),
        ("read noise", listed("read_noise", " e-")),
        ("calibration", listed("calibration_method")),
        ("scale", listed("fixed_scale", " e-") + shift),
        ("tile", f"{listed('tile_size')} px, {listed('channels')} channels"),
        ("valid pixels", f"{_share(valid.mean())}, least {_share(valid.min())} in a tile" if valid.size else "unknown"),
    ]


def _share(value: float) -> str:
    """A percentage, never rounded up to all."""
    return "100%" if value == 1 else f"{floor(value * 1e5) / 1e3:.3f}%"


def _finest(rows: Sequence[Row], where: Sequence[int], kinds: Sequence[str], store: Store) -> list[tuple[str, str]]:
    """What the finest detail shows beside what rows predict: white noise, and fine structure with it, so no less than noise."""
    out = []
    for kind in kinds:
        of_kind = [i for i in where if rows[i]["data_type"] == kind]
        some = [of_kind[k] for k in _spread(len(of_kind), MEASURED)]
        measured, stated = _measured(rows, some, store), np.array([_noise(rows[i]) for i in some])
        if not measured.size or not np.isfinite(stated).any():
            continue
        a, b = float(np.median(measured)), float(np.nanmedian(stated))
        lie = f": {a / b:.2g} of that, so rows state too much" if a < LESS * b else ""
        out.append((f"{kind}, finest detail", f"{_plain(a)} e- (rows predict {_plain(b)}){lie}"))
    return out


def _spread(count: int, most: int) -> list[int]:
    return sorted({round(x) for x in np.linspace(0, count - 1, min(most, count))})


def _of(rows: Sequence[Row], kind: str, value: Any) -> Array:
    found = np.array([value(r) for r in rows if r["data_type"] == kind], dtype=np.float64)
    return np.asarray(found[np.isfinite(found)])


def _signal(row: Row) -> float:
    value = row["electron_mean"]
    return float("nan") if value is None else float(value)


def _noises(rows: Sequence[Row], where: Sequence[int], kinds: Sequence[str], store: Store) -> dict[str, Any]:
    """The noise that the rows' models predict; where they have none, what the finest detail of some tiles shows."""
    own = [rows[i] for i in where]
    known = {k: _of(own, k, _noise) for k in kinds}
    if any(v.size for v in known.values()):
        return _histogram("noise: predicted at that signal", known)
    found = {k: _measured(rows, [i for i in where if rows[i]["data_type"] == k], store) for k in kinds}
    return _histogram(f"noise: finest detail of {sum(v.size for v in found.values())} tiles", found)


def _measured(rows: Sequence[Row], where: Sequence[int], store: Store) -> Array:
    """Standard deviation [e-] of the diagonal Haar detail of at most MEASURED tiles: of white noise its own."""
    found = []
    for i in (where[k] for k in _spread(len(where), MEASURED)):
        try:
            a = unscale(store.read(i), rows[i])
        except FirstlightError:
            continue
        detail = (a[..., :-1:2, :-1:2] - a[..., 1::2, :-1:2] - a[..., :-1:2, 1::2] + a[..., 1::2, 1::2]) / 2
        detail = detail[np.isfinite(detail)]
        found.append(1.4826 * float(np.median(np.abs(detail))) if detail.size else np.nan)
    return np.asarray([v for v in found if np.isfinite(v)], dtype=np.float64)


def _noise(row: Row) -> float:
    """Standard deviation [e-] that the row's noise model has at the tile's mean; NaN where it has none."""
    parts = [row.get("noise_a"), row.get("noise_b")]
    if any(p is None or isinstance(p, str) for p in parts):
        return float("nan")
    a, b = (float(np.mean(np.asarray(p, dtype=float))) for p in parts)
    variance = a * max(_signal(row), 0.0) + b
    return float(np.sqrt(variance)) if variance > 0 else float("nan")


def _histogram(title: str, series: Mapping[str, Array]) -> dict[str, Any]:
    """Steps of each series in pixels on one axis, logarithmic where the values span more than a factor of 20."""
    every = np.concatenate([np.zeros(0), *series.values()])
    if not every.size:
        return {"title": title, "empty": True}
    positive = every[every > 0]
    log = positive.size > 0.98 * every.size and float(np.quantile(positive, 0.99)) > 20 * float(np.quantile(positive, 0.01))
    floor_ = float(positive.min()) if log else 0.0

    def view(v: Array) -> Array:
        return np.asarray(np.log10(np.maximum(v, floor_)) if log else v)

    low, high = (float(q) for q in np.quantile(view(every), (0.001, 0.999)))
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    edges = np.linspace(low, high, BINS + 1)
    counts = {k: np.histogram(np.clip(view(v), low, high), edges)[0] for k, v in series.items() if v.size}
    top = max(int(c.max()) for c in counts.values())
    base = HEIGHT - BOTTOM

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - 2 * LEFT) * (value - low) / (high - low), 1)

    def steps(count: Array) -> str:
        path = f"M{x(low)},{base}"
        for k, n in enumerate(count):
            y = round(base - (base - TOP) * int(n) / top, 1)
            path += f"V{y}H{x(float(edges[k + 1]))}"
        return f"{path}V{base}Z"

    medians = {k: float(np.median(series[k])) for k in counts}
    return {
        "title": title,
        "empty": False,
        "width": WIDTH,
        "height": HEIGHT,
        "base": base,
        "left": LEFT,
        "right": WIDTH - LEFT,
        "series": [
            {
                "name": k,
                "path": steps(c),
                "median": _number(medians[k], medians[k] if log else high - low),
                "x": x(float(view(np.array(medians[k])))),
            }
            for k, c in counts.items()
        ],
        "ticks": [{"x": x(t), "label": label} for t, label in _ticks(low, high, log)],
        "scale": "e-, logarithmic" if log else "e-",
    }


def _number(value: float, span: float) -> str:
    """To three digits of what it is compared with."""
    digits = 2 - floor(log10(abs(span))) if span else 2
    return f"{value:.{max(0, min(digits, 9))}f}" if abs(value) < 1e5 else f"{value:.3g}"


def _ticks(low: float, high: float, log: bool) -> list[tuple[float, str]]:
    if log:
        marks = [(log10(m) + d, m * 10.0**d) for d in range(floor(low), ceil(high) + 1) for m in (1, 2, 5)]
        inside = [(p, v) for p, v in marks if low <= p <= high]
        if len(inside) > 7:
            inside = [(p, v) for p, v in inside if abs(p - round(p)) < 1e-9] or inside[::3]
        return [(p, f"{v:g}" if 1e-3 <= v < 1e5 else f"{v:.0e}") for p, v in inside]
    step = 10.0 ** floor(log10((high - low) / 3))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
    return [(k * step, f"{k * step:g}") for k in range(ceil(low / step), floor(high / step) + 1)]


def _examples(rows: Sequence[Row], where: Sequence[int], store: Store, pairs: Pairs, most: int) -> list[dict[str, Any]]:
    """Pairs spread over scenes, of each the tile with most structure; single tiles where there is no pair."""
    best: dict[tuple[str, str, str], int] = {}
    signal = sorted((i for i in where if rows[i]["electron_mean"] is not None), key=lambda i: float(rows[i]["electron_mean"]))
    paired = [i for i in where if pairs.clean[i] >= 0]
    for i in paired or where:
        key = (str(rows[i]["scene_id"]), str(rows[i].get("view") or rows[i]["source_file"]), str(rows[i]["data_type"]))
        shown = rows[int(pairs.clean[i])] if paired else rows[i]
        old = best.get(key)
        of_old = None if old is None else (rows[int(pairs.clean[old])] if paired else rows[old])
        if of_old is None or (shown["norm_std"] or 0) > (of_old["norm_std"] or 0):
            best[key] = i
    keys = sorted(best, key=lambda k: (SPLITS.index(s) if (s := str(rows[best[k]]["split"])) in SPLITS else 9, k))
    taken = [best[keys[k]] for k in _spread(len(keys), most)]
    # where views are few, tiles from the faintest to the brightest
    levels = [i for i in signal if i not in taken and (not paired or pairs.clean[i] >= 0)]
    taken += [levels[k] for k in _spread(len(levels), most - len(taken))]
    found = (_example(rows, i, store, pairs) for i in taken)
    return [e for e in found if e is not None]


def _example(rows: Sequence[Row], i: int, store: Store, pairs: Pairs) -> dict[str, Any] | None:
    row, j = rows[i], int(pairs.clean[i])
    try:
        noisy = unscale(store.read(i), row)
        clean = None if j < 0 else unscale(store.read(j), rows[j])
    except FirstlightError:
        return None  # a damaged tile is told among the checks
    factor, shift = (1.0, 0.0) if clean is None else _brightness(noisy, clean, float(pairs.ratio[i]))
    balance = _balance(noisy if clean is None else clean)
    first = _frame((noisy - np.float32(shift)) / np.float32(factor) * balance)
    second = None if clean is None else _frame(clean * balance)
    stretch = stretch_of(first) if second is None else stretch_of(second, first)
    bright = f", brightened x {1 / factor:.3g}" if factor < 0.9 else f", dimmed x {1 / factor:.3g}" if factor > 1.1 else ""
    bright += f", {'less' if shift > 0 else 'plus'} {_plain(abs(shift))} e-" if shift else ""
    pictures = [(str(row["data_type"]) + bright, _caption(row), _uri(first, stretch))]
    if second is not None:
        pictures.append(("clean", _caption(rows[j]), _uri(second, stretch)))
    splits = list(dict.fromkeys([str(row["split"]), *([str(rows[j]["split"])] if j >= 0 else [])]))
    return {"scene": row["scene_id"], "splits": splits, "pictures": pictures, "tile": row["tile_id"]}


def _brightness(noisy: Array, clean: Array, ratio: float) -> tuple[float, float]:
    """(scale, offset [e-]) of noisy = scale clean + offset: as the pair was proved, else a straight line through cell means."""
    if np.isfinite(ratio) and ratio > 0:
        return ratio, 0.0
    cells = [_cells(k) for k in (clean, noisy)]
    good = np.isfinite(cells[0]) & np.isfinite(cells[1])
    x, y = (k[good] for k in cells)
    if x.size < 16 or not (np.ptp(x) > 0 and np.ptp(y) > 0) or np.corrcoef(x, y)[0, 1] < RELATED:
        return 1.0, 0.0
    scale, offset, _ = affine_fit(x, y)
    # a scale near 1 is no other exposure: the tiles are shown as they are
    return (scale, offset) if not 0.8 < scale < 1.25 else (1.0, 0.0)


def _cells(tile: Array, side: int = 8) -> Array:
    h, w = (n // side for n in tile.shape[-2:])
    cut = tile[..., : h * side, : w * side].astype(np.float64)
    return np.asarray(cut.reshape(*tile.shape[:-2], h, side, w, side).mean(axis=(-3, -1)))


def _balance(tile: Array) -> Array:
    """Multipliers (C, 1, 1) that make a colour tile grey on average, for the eye alone; 1 for one channel."""
    if tile.ndim < 3 or tile.shape[0] != 3:
        return np.ones((1,) * tile.ndim, dtype=np.float32)
    means = np.nanmean(tile, axis=(1, 2))
    good = (means > 0) & (means.max() > 0)
    return np.where(good, means[1] / np.where(good, means, 1), 1).clip(0.2, 5).astype(np.float32)[:, None, None]


def _frame(data: Array) -> Frame:
    if data.ndim == 3 and data.shape[0] == 3:
        return Frame(data, "CYX", Unit.CAMERA, Unmodelled("a picture"))
    return Frame(data if data.ndim == 2 else data[0], "YX", Unit.ELECTRON, Unmodelled("a picture"))


def _uri(frame: Frame, stretch: Stretch) -> str:
    return data_uri(picture(frame, stretch=stretch, size=SIZE), lossless=False)


def _caption(row: Row) -> str:
    mean, std = row["electron_mean"], row["electron_std"]
    return "no valid pixel" if mean is None else f"mean {_plain(mean)} e-, spread {_plain(std)}"


def _plain(value: float) -> str:
    """Four digits, without an exponent where people write none."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"
