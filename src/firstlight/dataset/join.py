"""Which clean tile is a noisy tile's target: the same pair of sources, the same position, the same split."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError

__all__ = ["targets"]

Row = Mapping[str, Any]
_PLANE = re.compile(r"_plane_(\d+)_tile_\d+$")  # of a tile_id, where its source holds several images


def targets(meta: Mapping[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For every row the number of its clean row, or -1, and the brightness of noisy over clean [e-/e-], NaN where unmeasured.

    From meta["pairs"] where there are any (the proved ones; of a documented profile all), else from the rows' pair_id. A
    clean tile in another split than its noisy tile is no target: training on it would leak.
    """
    rows: Sequence[Row] = meta["tiles"]
    partners, by_source = _partners(meta), bool(meta.get("pairs"))
    clean = {
        _place(row, _name(row, by_source)): i for i, row in reversed([*enumerate(rows)]) if row.get("data_type") == "clean"
    }
    found, ratio = np.full(len(rows), -1, dtype=np.int64), np.full(len(rows), np.nan)
    for i, row in enumerate(rows):
        name = _name(row, by_source)
        if row.get("data_type") != "noisy" or name is None:
            continue
        for partner, scale in partners[name] if by_source else [(name, None)]:
            j = clean.get(_place(row, partner), clean.get(_place(row, partner, plane=""), -1))
            if j >= 0 and rows[j].get("split") == row.get("split"):
                found[i], ratio[i] = j, _ratio(scale, row.get("gain"), rows[j].get("gain"))
                break
    return found, ratio


def _partners(meta: Mapping[str, Any]) -> dict[str, list[tuple[str, float | None]]]:
    """Clean sources of each noisy one, with the brightness of noisy over clean in the files' own units."""
    out: dict[str, list[tuple[str, float | None]]] = defaultdict(list)
    for pair in _checked(meta.get("pairs") or ()):
        if pair.get("proved") or meta.get("profile") not in ("physical", None):
            out[pair["noisy"]].append((pair["clean"], (pair.get("figures") or {}).get("scale")))
    return out


def _checked(pairs: Any) -> Sequence[Mapping[str, Any]]:
    """The pairs of a set; raises FrameError where one is none."""
    listed = isinstance(pairs, Sequence) and not isinstance(pairs, str)
    for pair in pairs if listed else [pairs]:
        fine = isinstance(pair, Mapping) and all(isinstance(pair.get(k), str) for k in ("noisy", "clean"))
        figures = (pair.get("figures") or {}) if fine else {}
        if not fine or not isinstance(figures, Mapping) or not isinstance(figures.get("scale"), int | float | None):
            raise FrameError(f"tiles: got {pair!r} among the pairs, expected noisy, clean and figures; build the set again")
    return pairs  # type: ignore[no-any-return]


def _name(row: Row, by_source: bool) -> Any:
    return row.get("source_file" if by_source else "pair_id")


def _place(row: Row, name: Any, plane: str | None = None) -> tuple[Any, ...]:
    found = _PLANE.search(str(row.get("tile_id", "")))
    plane = (found[1] if found else "") if plane is None else plane
    return (name, plane, *(row.get(field) for field in ("image_y", "image_x", "tile_size")))


def _ratio(scale: float | None, noisy: float | None, clean: float | None) -> float:
    # file units -> electrons: e = gain * file, each source with its own gain
    return float("nan") if None in (scale, noisy, clean) else float(scale) * float(noisy) / float(clean)  # type: ignore[arg-type]
