"""A sound set is verified; each fault that a set can have fails the check of its name, and only that."""

from __future__ import annotations

import hashlib
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from firstlight.dataset.build import build
from firstlight.dataset.metadata import domain_file, write_rows
from firstlight.dataset.pack import write_pack
from firstlight.dataset.store import flags_file
from firstlight.dataset.verify import verify
from firstlight.errors import FrameError, ReadError

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sets.py"))))
TILE = 5  # the tile that is tampered with


@pytest.fixture
def kept(tmp_path):
    """A sound set: its folder and metadata."""
    meta = made.tile_set(tmp_path)
    for row in meta["tiles"]:
        row["source_sha256"] = hashlib.sha256(row["source_file"].encode()).hexdigest()
    made.write_metadata(tmp_path, meta)
    return tmp_path, meta


def failed(found):
    return {c.name for c in found.checks if c.ok is False}


def test_a_sound_set_is_verified(kept):
    out, meta = kept
    found = verify(out)
    assert found.passed
    assert failed(found) == set()
    assert found.tiles == len(meta["tiles"]) == 72
    assert found.counts["splits"] == {"train": 24, "validation": 24, "test": 24}
    assert found.counts["types_by_split"]["train"] == {"clean": 12, "noisy": 12}
    assert found.counts["domains"]["astronomy"] == {"clean": 12, "noisy": 12}
    assert json.loads(json.dumps(found.to_dict()))["passed"] is True
    assert found.text().endswith("verified")


def test_the_tables_are_those_that_document_0_prints(kept):
    import pandas as pd

    out, meta = kept
    frame = pd.DataFrame(meta["tiles"])
    counts = verify(out).counts
    assert counts["splits"] == frame["split"].value_counts().to_dict()
    assert pd.DataFrame(counts["types_by_split"]).T.sort_index().to_numpy().tolist() == (
        pd.crosstab(frame["split"], frame["data_type"]).to_numpy().tolist()
    )
    assert {d: sum(c.values()) for d, c in counts["domains"].items()} == frame["domain"].value_counts().to_dict()


def test_document_0s_assertions_are_a_must_under_its_rule_and_a_fact_under_another(tmp_path):
    meta = made.tile_set(tmp_path, documented=True)
    meta["split"] = "documented"
    made.write_metadata(tmp_path, meta)
    found = verify(tmp_path)
    said = {c.name: c.ok for c in found.checks}
    assert [said[k] for k in ("train noisy", "validation noisy", "test clean")] == [True, True, True]
    assert not found.audit.passed  # which is what is wrong with that rule
    assert not found.passed
    meta["split"] = "scene"
    made.change(tmp_path, meta, 0, data_type="clean")
    assert [c.ok for c in verify(tmp_path).checks if c.name == "train noisy"] == [None]
    meta["split"] = "documented"
    made.write_metadata(tmp_path, meta)
    assert "train noisy" in failed(verify(tmp_path))


def rewritten(out, meta, array):
    np.save(out / meta["tiles"][TILE]["npy_path"], array)


def tile_of(out, meta):
    return np.load(out / meta["tiles"][TILE]["npy_path"])


def row(**changes):
    return lambda out, meta: made.change(out, meta, TILE, **changes)


FAULTS = {
    "no tile": (lambda out, meta: (out / meta["tiles"][TILE]["npy_path"]).unlink(), {"tiles", "readable"}),
    "no row": (lambda out, meta: np.save(out / "npy_tiles/photography/noisy/stray.npy", np.zeros((3, 16, 16), "f4")), {"rows"}),
    "stray flags": (
        lambda out, meta: np.save(out / "npy_tiles/photography/noisy/stray.flags.npy", np.zeros((16, 16), "u1")),
        {"rows"},
    ),
    "unfinished": (lambda out, meta: (out / "npy_tiles/photography/noisy/.1.part.x").write_bytes(b""), {"remains"}),
    "half a tile": (
        lambda out, meta: (p := out / meta["tiles"][TILE]["npy_path"]).write_bytes(p.read_bytes()[:600]),
        {"shapes", "readable"},
    ),
    "float64": (lambda out, meta: rewritten(out, meta, tile_of(out, meta).astype(float)), {"shapes"}),
    "shape": (lambda out, meta: rewritten(out, meta, tile_of(out, meta)[:, :-1]), {"shapes", "figures"}),
    "values": (lambda out, meta: rewritten(out, meta, tile_of(out, meta) * np.float32(1.001)), {"figures"}),
    "gap": (
        lambda out, meta: rewritten(out, meta, np.where(np.arange(16) == 3, np.nan, tile_of(out, meta)).astype("f4")),
        {"gaps", "figures"},
    ),
    "id twice": (lambda out, meta: made.change(out, meta, TILE, tile_id=meta["tiles"][0]["tile_id"]), {"tile_id"}),
    "path twice": (
        lambda out, meta: made.change(out, meta, TILE, npy_path=meta["tiles"][0]["npy_path"]),
        {"npy_path", "rows", "figures"},
    ),
    "place twice": (
        lambda out, meta: made.change(out, meta, TILE, **{k: meta["tiles"][TILE - 1][k] for k in ("image_x", "image_y")}),
        {"place"},
    ),
    "absolute path": (
        lambda out, meta: made.change(out, meta, TILE, npy_path=str(out / meta["tiles"][TILE]["npy_path"])),
        {"relative", "rows"},
    ),
    "leaves the folder": (row(npy_path="../x.npy"), {"relative", "tiles", "rows", "readable"}),
    "another scale": (row(fixed_scale=81000.0), {"electrons"}),
    "another electron": (row(electron_max=1e6), {"electrons"}),
    "split": (row(split="holdout"), {"splits"}),
    "schema": (lambda out, meta: (meta["tiles"][TILE].pop("norm_std"), made.write_metadata(out, meta)), {"schema"}),
    "domain's metadata": (
        lambda out, meta: (out / "metadata_astronomy_incremental.json").write_text('{"tiles": []}'),
        {"incremental"},
    ),
    "domain's metadata, one value": (
        lambda out, meta: write_rows(
            domain_file(out, "astronomy"),
            {},
            [{**r, "gain": r["gain"] + (i == 1)} for i, r in enumerate(r for r in meta["tiles"] if r["domain"] == "astronomy")],
        ),
        {"incremental"},
    ),
    "no domain's metadata": (lambda out, meta: (out / "metadata_astronomy_incremental.json").unlink(), {"incremental"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_fails_the_check_of_its_name(kept, fault):
    out, meta = kept
    spoil, names = FAULTS[fault]
    spoil(out, meta)
    found = verify(out, sample=None, content=0, pairs=0)
    assert failed(found) == names
    assert not found.passed
    assert "NOT verified" in found.text()


def test_a_domains_metadata_in_another_style_agree(kept):
    out, _ = kept
    path = domain_file(out, "astronomy")
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
    assert failed(verify(out, content=0, pairs=0)) == set()


def test_a_row_without_the_path_of_a_tile_is_refused(kept):
    out, meta = kept
    made.change(out, meta, TILE, npy_path=None)
    with pytest.raises(FrameError, match=f"npy_path of row {TILE} is None"):
        verify(out)


def test_a_gap_that_is_flagged_is_none(kept):
    out, meta = kept
    where = np.broadcast_to(np.arange(16) == 3, tile_of(out, meta).shape)
    tile = np.where(where, np.nan, tile_of(out, meta)).astype("f4")
    rewritten(out, meta, tile)
    np.save(flags_file(str(out / meta["tiles"][TILE]["npy_path"])), np.where(where, 128, 0).astype("u1"))
    scale = meta["tiles"][TILE]["fixed_scale"]
    figures = {k: float(getattr(np, f"nan{k}")(tile.astype(float))) for k in ("min", "max", "mean", "std")}
    made.change(
        out,
        meta,
        TILE,
        flags={"NO_DATA": int(where.sum())},
        **{f"norm_{k}": v for k, v in figures.items()},
        **{f"electron_{k}": v * scale for k, v in figures.items()},
    )
    assert failed(verify(out, sample=None, content=0, pairs=0)) == set()


def test_a_leak_fails_the_set_though_every_check_passes(kept):
    out, meta = kept
    made.change(out, meta, TILE, split="validation")
    found = verify(out)
    assert failed(found) == set()
    assert {leak.kind for leak in found.audit.leaks} == {"scene", "overlap"}
    assert not found.passed


def test_unreadable_inputs_fail_the_set_and_are_listed_with_their_cause(kept):
    out, meta = kept
    meta["unreadable"] = [{"path": "SID/x.ARW", "cause": "truncated"}]
    made.write_metadata(out, meta)
    found = verify(out)
    assert failed(found) == {"inputs"}
    assert "SID/x.ARW: truncated" in found.text()


def test_packs_are_verified_too(kept, tmp_path_factory):
    out, _ = kept
    packed = tmp_path_factory.mktemp("packed")
    write_pack(out, packed / "set")
    found = verify(packed / "set")
    assert failed(found) == set()
    assert found.tiles == 72


def test_what_is_no_tile_set_is_refused(tmp_path):
    with pytest.raises(ReadError):
        verify(tmp_path)
    with pytest.raises(ReadError):
        verify(tmp_path / "absent")


@pytest.mark.filterwarnings("ignore")
def test_what_build_makes_is_verified_and_the_documented_split_leaks(tree, tmp_path):
    tree.hla(tmp_path / "in", pairs=2, shape=(300, 310))
    build(tmp_path / "in", tmp_path / "physical")
    found = verify(tmp_path / "physical", sample=None)
    assert failed(found) == set(), found.text()
    build(tmp_path / "in", tmp_path / "documented", profile="documented", split="documented")
    found = verify(tmp_path / "documented", sample=None)
    assert failed(found) == set(), found.text()
    assert {leak.figure["scene"] for leak in found.audit.leaks if leak.kind == "scene"} == {
        "astro_j8hqbifjq",
        "astro_j8hq0001q",
    }
