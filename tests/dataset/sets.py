"""Small tile sets built by hand from rows: what load, pack and unscale are tested on."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.dataset.metadata import write_metadata
from firstlight.dataset.rows import TileRow

SIZE = 16
SCALES = {"photography": (80000.0, 0.0, 3), "microscopy": (66000.0, 0.0, 1), "astronomy": (170.0, 5.0, 1)}


def row(domain: str, scene: str, data_type: str, split: str, number: int, electrons: np.ndarray, **changes: Any) -> TileRow:
    scale, offset, channels = SCALES[domain]
    scaled = (electrons.astype(np.float64) + offset) / scale
    figures = {
        f"{kind}_{name}": float(f(x))
        for kind, x in (("electron", electrons), ("norm", scaled))
        for name, f in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std))
    }
    tile_id = f"{domain}_{scene}_{data_type}_tile_{number:04d}"
    values = {
        "tile_id": tile_id,
        "domain": domain,
        "scene_id": scene,
        "data_type": data_type,
        "split": split,
        "npy_path": f"npy_tiles/{domain}/{data_type}/{tile_id}.npy",
        "tile_size": SIZE,
        "channels": channels,
        "grid_x": number % 2,
        "grid_y": number // 2,
        "image_x": number % 2 * (SIZE - 2),
        "image_y": number // 2 * (SIZE - 2),
        "gain": 2.5,
        "read_noise": 3.5,
        "calibration_method": "detector",
        "quality_score": figures["norm_mean"],
        "valid_ratio": 1.0,
        "is_edge_tile": True,
        "overlap_ratio": 0.1,
        "source_file": f"{domain}/{scene}_{data_type}.fits",
        "processing_timestamp": "2026-01-01T00:00:00",
        "fixed_scale": scale,
        "fixed_offset": offset,
        "original_min": 0.0,
        "original_max": 4095.0,
        "noise_a": 1.0,
        "noise_b": 12.25,
        "pair_id": scene,
        "source_sha256": "ab" * 32,
        **figures,
    }
    assert {*values} <= {field.name for field in fields(TileRow)}
    return TileRow(**{**values, **changes})


def tile_set(out: Path, *, seed: int = 7, domains: tuple[str, ...] = tuple(SCALES), documented: bool = False) -> dict[str, Any]:
    """Four tiles of a noisy and a clean source of three scenes a domain; `documented`: noisy trains, clean tests."""
    rng = np.random.default_rng(seed)
    rows: list[TileRow] = []
    for domain in domains:
        scale, offset, channels = SCALES[domain]
        for k, split in enumerate(("train", "validation", "test")):
            for data_type in ("noisy", "clean"):
                for number in range(4):
                    shape = (channels, SIZE, SIZE) if channels > 1 else (SIZE, SIZE)
                    electrons = rng.normal(scale / 20, scale / 50, shape)
                    where = ("test" if data_type == "clean" else ("train", "validation", "train")[k]) if documented else split
                    made = row(domain, f"{domain[:5]}_{k:05d}", data_type, where, number, electrons)
                    path = out / made.npy_path
                    path.parent.mkdir(parents=True, exist_ok=True)
                    np.save(path, ((electrons + offset) / scale).astype(np.float32))
                    rows.append(made)
    meta = {"profile": "physical", "split": "scene", "root": "", "pairs": [], "unreadable": []}
    meta["tiles"] = [r.to_dict() for r in rows]
    write_metadata(out, meta)
    return meta


def change(out: Path, meta: dict[str, Any], tile: int, **changes: Any) -> None:
    meta["tiles"][tile].update(changes)
    write_metadata(out, meta)
