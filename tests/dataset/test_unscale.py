"""Scaled tiles become electrons again, to 2 ulp, one by one and as a set."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from firstlight.dataset.load import DiffusionTileDataset, NoiseTileDataset, read_metadata
from firstlight.dataset.pack import open_pack, write_pack
from firstlight.dataset.store import flags_file
from firstlight.dataset.unscale import unscale, unscale_set
from firstlight.errors import FrameError, ReadError, WriteError
from firstlight.scaling import Scaling

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sets.py"))))
FLOATS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


@settings(max_examples=300)
@given(
    e=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=5), elements=FLOATS),
    scaling=st.sampled_from([(80000.0, 0.0), (66000.0, 0.0), (170.0, 5.0)])
    | st.tuples(st.floats(1e-3, 1e7), st.floats(0, 1e4)),
)
def test_electrons_come_back_within_two_ulp(e, scaling):
    scale, offset = scaling
    back = unscale(Scaling(scale, offset).apply(e), {"fixed_scale": scale, "fixed_offset": offset})
    assert back.dtype == np.float32
    ulp = np.spacing(np.maximum(np.abs(e), np.float32(offset)).astype(np.float32)).astype(np.float64)
    least = scale * 2.0**-149  # [e-] a step of the scaled values nearest to 0, single precision's smallest
    assert np.all(np.abs(back.astype(np.float64) - e) <= np.maximum(2 * ulp, least))


def test_known_values_of_the_documented_scaling():
    # FACTS: ADU 100 Sony -> 496.44 -> 0.0062055; 15359 Fuji -> 0.345531; astronomy 0 -> -3.5 -> 0.0088235
    for electrons, scaled, scale, offset in (
        (496.44, 0.0062055, 80000, 0),
        (27642.45, 0.345531, 80000, 0),
        (65533.5, 0.992932, 66000, 0),
        (-3.5, 0.0088235, 170, 5),
    ):
        row = {"fixed_scale": scale, "fixed_offset": offset}
        assert unscale(np.float32([[scaled]]), row).item() == pytest.approx(electrons, abs=6e-7 * scale)


def test_rows_of_every_kind_and_rows_without_a_scale(tmp_path):
    meta = made.tile_set(tmp_path, domains=("astronomy",))
    tile = np.load(tmp_path / meta["tiles"][0]["npy_path"])
    row = made.row("astronomy", "s", "noisy", "train", 0, np.zeros((2, 2)))
    np.testing.assert_array_equal(unscale(tile, row), unscale(tile, meta["tiles"][0]))
    for bad, said in (
        ({}, "fixed_scale"),
        ({"fixed_scale": None}, "fixed_scale"),
        ({"fixed_scale": 0.0}, "positive"),
        ({"fixed_scale": float("nan")}, "nan"),
        ({"fixed_scale": "large", "tile_id": "t7"}, "t7 has fixed_scale 'large'"),
        ({"fixed_scale": 1.0, "fixed_offset": [1]}, r"fixed_offset \[1\]"),
    ):
        with pytest.raises(FrameError, match=said):
            unscale(tile, bad)


@pytest.mark.parametrize("packed", [False, True])
def test_a_set_in_electrons(tmp_path, packed):
    out, dest = tmp_path / "out", tmp_path / "electrons"
    meta = made.tile_set(out)
    (out / "noise_maps").mkdir()
    np.save(out / "noise_maps" / "b.npy", np.full((40, 40), 2.0))
    np.save(flags_file(str(out / meta["tiles"][1]["npy_path"])), np.eye(made.SIZE, dtype=np.uint8))
    made.change(out, meta, 1, flags={"saturated": made.SIZE}, noise_b="noise_maps/b.npy")
    if packed:
        write_pack(out)
        for row in meta["tiles"]:
            (out / row["npy_path"]).unlink()
    assert unscale_set(out, dest) == {"tiles": 72, "store": "pack" if packed else "npy"}
    assert (dest / "packs").exists() is packed
    rows = read_metadata(dest, absolute=False)["tiles"]
    assert [r["tile_id"] for r in rows] == [r["tile_id"] for r in meta["tiles"]]
    assert {(r["fixed_scale"], r["fixed_offset"]) for r in rows} == {(1.0, 0.0)}
    assert all(r["norm_mean"] == r["electron_mean"] == r["quality_score"] for r in rows)
    for split in ("train", "validation", "test"):
        before = NoiseTileDataset(out, split, unit="electron", data_type=None)
        after = NoiseTileDataset(dest, split, data_type=None)
        for a, b in zip(before, after, strict=True):
            assert a.keys() == b.keys()
            assert all(np.array_equal(a[k], b[k]) for k in a), a["tile_id"]
            row = next(r for r in rows if r["tile_id"] == b["tile_id"])
            assert float(b["image"].mean()) == pytest.approx(row["electron_mean"], rel=1e-5)
    twice = DiffusionTileDataset(dest)[0]["image"].numpy()
    np.testing.assert_array_equal(unscale(twice, rows[0]), twice)
    if packed:
        assert len(open_pack(dest)) == 72


def test_nothing_is_left_of_a_set_that_fails(tmp_path):
    out, dest = tmp_path / "out", tmp_path / "electrons"
    meta = made.tile_set(out, domains=("microscopy",))
    (out / meta["tiles"][5]["npy_path"]).unlink()
    with pytest.raises(ReadError, match=meta["tiles"][5]["tile_id"]):
        unscale_set(out, dest)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    dest.mkdir()
    (dest / "mine").touch()
    with pytest.raises(WriteError, match="not empty"):
        unscale_set(out, dest)
    assert sorted(p.name for p in dest.iterdir()) == ["mine"]


def test_what_a_killed_run_left_is_said_and_progress_is_shown(tmp_path):
    out, dest, seen = tmp_path / "out", tmp_path / "electrons", []
    made.tile_set(out, domains=("microscopy",))
    (tmp_path / ".1.part.electrons").mkdir()
    with pytest.warns(UserWarning, match=r"\.1\.part\.electrons: left by a run that was killed"):
        unscale_set(out, dest, tick=lambda i, n, what: seen.append((i, n)))
    assert seen == [(i, 24) for i in range(24)]
    assert (tmp_path / ".1.part.electrons").is_dir()


def test_names_cannot_lead_out_of_the_folder(tmp_path):
    out = tmp_path / "out"
    meta = made.tile_set(out, domains=("microscopy",))
    np.save(tmp_path / "x.npy", np.zeros((4, 4), np.float32))
    for bad in ("../x.npy", str(tmp_path / "x.npy")):
        made.change(out, meta, 0, npy_path=bad)
        with pytest.raises(FrameError, match="leads out"):
            unscale_set(out, tmp_path / "electrons")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.npy"]
