"""Tiles as training data: document 0's snippets as they read, the noise that goes along, targets that do not leak."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from firstlight.dataset.load import DiffusionTileDataset, NoiseTileDataset, TileShapeError, load_npy_tile, read_metadata
from firstlight.dataset.noise_on import NoiseOn
from firstlight.dataset.store import flags_file
from firstlight.errors import FrameError, ReadError
from firstlight.noise import Noise

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sets.py"))))
PLACE = "PKL-DiffusionDenoising/data/processed"

# Document 0, "Training Integration", steps 1 to 4, and "Verify Split Distribution": verbatim but for the batch's collation,
# which needs tiles of one shape.
DOCUMENT_0 = [
    """
import json
import pandas as pd
from PIL import Image

# Load processed tiles metadata
with open("PKL-DiffusionDenoising/data/processed/comprehensive_tiles_metadata.json", 'r') as f:
    tiles_metadata = json.load(f)

# Convert to DataFrame
tiles_df = pd.DataFrame(tiles_metadata['tiles'])

# Split by split field
train = tiles_df[tiles_df['split'] == 'train']
val = tiles_df[tiles_df['split'] == 'validation']
test = tiles_df[tiles_df['split'] == 'test']

print(f"Train: {len(train)} tiles (all noisy)")
print(f"Validation: {len(val)} tiles (all noisy)")
print(f"Test: {len(test)} tiles (all clean)")
""",
    """
# Verify clean/noisy separation
assert (train['data_type'] == 'noisy').all(), "Train should be noisy only"
assert (val['data_type'] == 'noisy').all(), "Val should be noisy only"
assert (test['data_type'] == 'clean').all(), "Test should be clean only"

# Verify split distribution
total = len(tiles_df)
print(f"Train: {len(train)/total:.1%}")
print(f"Val: {len(val)/total:.1%}")
print(f"Test: {len(test)/total:.1%}")
""",
    """
import numpy as np
import torch

def load_npy_tile(npy_path):
    \"\"\"Load .npy tile and convert to tensor\"\"\"
    tile_data = np.load(npy_path)  # Shape: (C, H, W) or (H, W)

    if len(tile_data.shape) == 2:  # Grayscale (H, W)
        tensor = torch.from_numpy(tile_data).float()
        tensor = tensor.unsqueeze(0)  # Add channel dimension -> (1, H, W)
    elif len(tile_data.shape) == 3:  # RGB (C, H, W)
        tensor = torch.from_numpy(tile_data).float()
    else:
        raise ValueError(f"Unexpected tile shape: {tile_data.shape}")

    return tensor

# Example usage
tile = train.iloc[0]
tile_data = load_npy_tile(tile['npy_path'])  # Load from .npy file
print(f"Tile shape: {tile_data.shape}")  # [C, H, W]
print(f"Tile dtype: {tile_data.dtype}")  # torch.float32
print(f"Tile range: [{tile_data.min():.3f}, {tile_data.max():.3f}]")
""",
    """
from torch.utils.data import Dataset, DataLoader
import torch

class DiffusionTileDataset(Dataset):
    def __init__(self, tiles_df, split="train"):
        self.tiles = tiles_df[tiles_df['split'] == split].reset_index(drop=True)

    def __len__(self):
        return len(self.tiles)

    def __getitem__(self, idx):
        row = self.tiles.iloc[idx]

        # Load .npy tile
        tile_data = load_npy_tile(row['npy_path'])

        return {
            'image': tile_data,
            'domain': row['domain'],
            'scene_id': row['scene_id'],
            'gain': row['gain'],
            'read_noise': row['read_noise'],
            'tile_id': row['tile_id']
        }

# Usage
train_dataset = DiffusionTileDataset(tiles_df, split="train")
train_loader = DataLoader(train_dataset, batch_size=32, shuffle=True)
""",
    """
import json
import pandas as pd

# Load metadata
with open("PKL-DiffusionDenoising/data/processed/comprehensive_tiles_metadata.json", 'r') as f:
    tiles_metadata = json.load(f)

tiles_df = pd.DataFrame(tiles_metadata['tiles'])

# Check split distribution
print("📊 Split Distribution:")
print(tiles_df['split'].value_counts(normalize=True))

# Check data type by split
print("\\n📊 Data Type by Split:")
print(pd.crosstab(tiles_df['split'], tiles_df['data_type']))

# Check domain distribution
print("\\n📊 Domain Distribution:")
print(tiles_df['domain'].value_counts())
""",
]
LOADER, DATASET = 2, 3  # the snippets that we offer ready made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    made.tile_set(tmp_path)
    return tmp_path


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """A set under the documented split; its snippets run in its folder, since its paths are relative to the JSON."""
    made.tile_set(tmp_path, documented=True, domains=("microscopy", "astronomy"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(snippets: list[str], names: dict) -> dict:
    for text in snippets:
        exec(text.replace(f"{PLACE}/", ""), names)
    return names


def test_document_0_runs_as_it_reads(documented, capsys):
    names = run(DOCUMENT_0, {})
    assert "Train: 16 tiles (all noisy)" in capsys.readouterr().out
    batch = next(iter(names["train_loader"]))
    assert batch["image"].shape == (16, 1, made.SIZE, made.SIZE)


def test_ours_stands_in_for_document_0s_loader_and_dataset(documented):
    theirs = run(DOCUMENT_0[:4], {})
    ours = {"load_npy_tile": load_npy_tile, "DiffusionTileDataset": DiffusionTileDataset, "DataLoader": DataLoader}
    without = [re.sub(r"(?s)\n(def|class) .*?(?=\n# )", "\n", t) for t in DOCUMENT_0[:4]]
    without[DATASET] = without[DATASET].replace("from torch.utils.data import Dataset, DataLoader", "")
    assert not any("def " in t or "class " in t for t in without)
    assert run(without, ours)["train_dataset"].__class__ is DiffusionTileDataset
    assert len(ours["train_dataset"]) == len(theirs["train_dataset"]) == 16
    for a, b in zip(ours["train_dataset"], theirs["train_dataset"], strict=True):
        assert list(a) == list(b)
        assert torch.equal(a["image"], b["image"])
        assert {**a, "image": 0} == {**b, "image": 0}


def test_a_loader_returns_what_the_document_says(tmp_path):
    for shape, expected in (((4, 5), (1, 4, 5)), ((3, 4, 5), (3, 4, 5))):
        np.save(tmp_path / "t.npy", np.arange(np.prod(shape), dtype=np.float64).reshape(shape))
        tensor = load_npy_tile(tmp_path / "t.npy")
        assert tensor.dtype == torch.float32
        assert tuple(tensor.shape) == expected
        assert tensor.flatten().tolist() == list(range(int(np.prod(shape))))
    for bad in ((7,), (1, 2, 3, 4), ()):
        np.save(tmp_path / "t.npy", np.zeros(bad, dtype=np.float32))
        with pytest.raises(ValueError, match="Unexpected tile shape") as caught:
            load_npy_tile(tmp_path / "t.npy")
        assert isinstance(caught.value, TileShapeError | FrameError)


def test_other_byte_orders_load(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(6, dtype=">f4").reshape(2, 3))
    assert load_npy_tile(tmp_path / "t.npy").flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_every_way_to_name_a_set_gives_the_same_items(out, monkeypatch):
    meta = read_metadata(out, absolute=False)
    ways = {
        "folder": DiffusionTileDataset(out),
        "json": DiffusionTileDataset(str(out / "comprehensive_tiles_metadata.json")),
        "rows": DiffusionTileDataset(meta["tiles"], root=out),
        "frame": DiffusionTileDataset(pd.DataFrame(meta["tiles"]), "train", root=out),
        "absolute": DiffusionTileDataset(pd.DataFrame(read_metadata(out)["tiles"])),
    }
    monkeypatch.chdir(out)
    ways["here"] = DiffusionTileDataset(meta["tiles"])
    ids = [row["tile_id"] for row in meta["tiles"] if row["split"] == "train"]
    first = ways["folder"]
    for name, dataset in ways.items():
        assert [item["tile_id"] for item in dataset] == ids, name
        assert all(torch.equal(a["image"], b["image"]) for a, b in zip(dataset, first, strict=True)), name
    assert first[0]["gain"] == 2.5
    assert first[0]["read_noise"] == 3.5
    assert first[0]["domain"] == "photography"
    assert first[0]["scene_id"] == "photo_00000"


def test_items_equal_the_files(out):
    rows = {row["tile_id"]: row for row in read_metadata(out)["tiles"]}
    for split in ("train", "validation", "test"):
        for item in DiffusionTileDataset(out, split):
            row = rows[item["tile_id"]]
            assert row["split"] == split
            tile = np.load(row["npy_path"])
            np.testing.assert_array_equal(item["image"].numpy(), tile if tile.ndim == 3 else tile[None])


@pytest.mark.parametrize("kind", [DiffusionTileDataset, NoiseTileDataset])
def test_datasets_travel_to_workers(out, kind):
    domain = [row for row in read_metadata(out)["tiles"] if row["domain"] == "microscopy"]
    dataset = kind(domain)
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 20_000
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(dataset, copy, strict=True))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["firstlight.dataset.load"])
    loader = DataLoader(dataset, batch_size=3, num_workers=2, multiprocessing_context=context)
    batches = list(loader)
    assert [t for b in batches for t in b["tile_id"]] == [item["tile_id"] for item in dataset]
    assert torch.equal(torch.cat([b["image"] for b in batches]), torch.stack([item["image"] for item in dataset]))


def test_an_item_is_its_owners(out):
    dataset = NoiseTileDataset(out, domain="microscopy")
    before = dataset[0]["image"].clone()
    dataset[0]["image"].mul_(2)
    assert torch.equal(dataset[0]["image"], before)


def test_absent_and_damaged_tiles_are_named(out):
    row = read_metadata(out)["tiles"][0]
    path = Path(row["npy_path"])
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"\x93NUMPY", whole[:60] + b"\xff" * 60 + whole[120:], b"PK\x03\x04" + whole):
        path.write_bytes(damage)
        for read in (lambda: load_npy_tile(path), lambda: DiffusionTileDataset(out)[0], lambda: NoiseTileDataset(out)[0]):
            with pytest.raises(ReadError, match=re.escape(str(path))):
                read()
    path.unlink()
    with pytest.raises(ReadError, match=re.escape(str(path)) + ".*no such tile"):
        DiffusionTileDataset(out)[0]


def test_pickles_and_archives_are_no_tiles(tmp_path):
    np.save(tmp_path / "t.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "u.npz", a=np.zeros((2, 2)))
    for name in ("t.npy", "u.npz"):
        with pytest.raises(ReadError, match=name):
            load_npy_tile(tmp_path / name)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tiles": 3}', '{"tiles": [3]}', "[" * 100_000, '{"a": 1}'])
def test_bad_metadata_is_one_line_that_names_it(tmp_path, text):
    file = tmp_path / "comprehensive_tiles_metadata.json"
    file.write_text(text)
    with pytest.raises(ReadError, match=re.escape(str(file))):
        read_metadata(tmp_path)


def test_what_is_no_set_is_refused(tmp_path, out):
    (tmp_path / "empty").mkdir()
    for bad in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(ReadError, match=re.escape(str(bad))):
            DiffusionTileDataset(bad)
    for bad in (3, None, {"tiles": []}, [3], [{"split": "train"}]):
        with pytest.raises(FrameError, match="tiles"):
            DiffusionTileDataset(bad)
    with pytest.raises(FrameError, match=r"'learn'.*test, train, validation"):
        DiffusionTileDataset(out, "learn")
    with pytest.raises(FrameError, match="root"):
        DiffusionTileDataset(out, root=out)


# ---- the noise that goes along


@given(
    a=st.floats(0.01, 100),
    b=st.floats(0, 1000),
    scale=st.floats(1, 1e5),
    offset=st.floats(0, 10),
    mean=st.floats(-5, 1e5),
)
def test_noise_follows_the_scaling(a, b, scale, offset, mean):
    row = {"noise_a": a, "noise_b": b, "fixed_scale": scale, "fixed_offset": offset}
    p = {k: float(v.ravel()[0]) for k, v in NoiseOn([row], scaled=True).parameters(0, (1, 4, 4)).items()}
    scaled = (mean + offset) / scale
    variance = p["a"] * max(scaled - p["offset"], 0) + p["b"]
    # the variance of e/k is that of e over k^2; single precision of the offset moves the signal by as much
    truth = Noise(a, b).variance(mean) / scale**2
    assert variance == pytest.approx(truth, rel=1e-5, abs=4e-7 * p["a"] * max(abs(scaled), p["offset"]) + 1e-45)


def test_noise_of_simulated_tiles_is_the_noise_of_the_items(tmp_path):
    # known answer: tiles of one mean, simulated with the stated noise, vary by what the items say
    rng = np.random.default_rng(11)
    mean, read_noise = 60.0, 3.5
    made.tile_set(tmp_path, domains=("astronomy",))
    for row in read_metadata(tmp_path)["tiles"]:
        e = rng.poisson(mean, (made.SIZE, made.SIZE)) + rng.normal(0, read_noise, (made.SIZE, made.SIZE))
        np.save(row["npy_path"], ((e + 5) / 170).astype(np.float32))
    for unit, truth in (("scaled", (mean + 5) / 170), ("electron", mean)):
        items = list(NoiseTileDataset(tmp_path, unit=unit))
        images = torch.stack([item["image"] for item in items]).double()
        item = items[0]
        variance = item["a"] * (truth - item["offset"]) + item["b"]
        assert float(images.mean()) == pytest.approx(truth, rel=0.02)
        assert float(images.var()) == pytest.approx(float(variance), rel=0.15)


def test_electrons_are_the_scaled_values_undone(out):
    scaled, electrons = (NoiseTileDataset(out, unit=u, domain="astronomy") for u in ("scaled", "electron"))
    for a, b in zip(scaled, electrons, strict=True):
        assert b["image"].dtype == torch.float32
        np.testing.assert_allclose(b["image"].numpy(), a["image"].numpy() * 170.0 - 5.0, atol=2e-5)
    assert float(b["a"].squeeze()) == 1.0
    assert float(b["offset"].squeeze()) == 0.0


def test_channels_and_maps_are_cropped_to_the_tile(tmp_path):
    meta = made.tile_set(tmp_path, domains=("photography",))
    y, x = np.mgrid[:60, :60]
    (tmp_path / "noise_maps").mkdir()
    np.save(tmp_path / "noise_maps" / "b.npy", (100.0 * y + x).astype(np.float32))
    made.change(tmp_path, meta, 0, noise_a=[1.0, 2.0, 3.0])
    made.change(tmp_path, meta, 3, noise_b="noise_maps/b.npy")  # at y, x = 14, 14
    first, second, _, last = (NoiseTileDataset(tmp_path, unit="electron")[i] for i in range(4))
    n = made.SIZE
    assert first["a"].shape == second["b"].shape == (3, n, n)
    assert first["a"][:, 0, 0].tolist() == [1, 2, 3]
    assert torch.unique(second["b"]).tolist() == [12.25]
    np.testing.assert_array_equal(last["b"][1].numpy(), (100 * y + x)[14 : 14 + n, 14 : 14 + n])
    assert next(iter(DataLoader(NoiseTileDataset(tmp_path), batch_size=4)))["a"].shape == (4, 3, n, n)


def test_maps_that_do_not_reach_are_refused(tmp_path):
    meta = made.tile_set(tmp_path, domains=("microscopy",))
    np.save(tmp_path / "b.npy", np.ones((20, 20)))
    made.change(tmp_path, meta, 3, noise_b="b.npy")
    with pytest.raises(ReadError, match=r"b\.npy.*does not reach"):
        NoiseTileDataset(tmp_path)[3]
    (tmp_path / "b.npy").unlink()
    with pytest.raises(ReadError, match=r"b\.npy.*cannot be read"):
        NoiseTileDataset(tmp_path)[3]
    made.change(tmp_path, meta, 3, noise_b=[1.0, 2.0])
    with pytest.raises(FrameError, match="2 channels on a tile of 1"):
        NoiseTileDataset(tmp_path)[3]


@pytest.mark.parametrize("as_frame", [False, True])
def test_unknown_noise_is_refused_dropped_or_nan(tmp_path, as_frame):
    meta = made.tile_set(tmp_path, domains=("microscopy",))
    made.change(tmp_path, meta, 1, noise_a=None, noise_b=None)
    rows = read_metadata(tmp_path)["tiles"]
    tiles = pd.DataFrame(rows) if as_frame else rows
    with pytest.raises(FrameError, match=f"1 of 4 tiles is unknown, the first is {rows[1]['tile_id']}"):
        NoiseTileDataset(tiles)
    dropped = NoiseTileDataset(tiles, unmodelled="drop")
    assert [item["tile_id"] for item in dropped] == [rows[i]["tile_id"] for i in (0, 2, 3)]
    assert dropped.left_out == {"noise unknown": 1}
    kept = NoiseTileDataset(tiles, unmodelled="nan")
    assert [bool(torch.isnan(item["a"]).all()) for item in kept] == [False, True, False, False]
    assert kept.left_out == {}


# ---- flags and targets


def test_flags_come_as_a_mask_of_valid_pixels(tmp_path):
    meta = made.tile_set(tmp_path, domains=("photography",))
    flags = np.zeros((made.SIZE, made.SIZE), dtype=np.uint8)
    flags[3, 4] = 5
    path = flags_file(str(tmp_path / meta["tiles"][1]["npy_path"]))
    np.save(path, flags)
    made.change(tmp_path, meta, 1, flags={"saturated": 1, "hot": 1})
    items = list(NoiseTileDataset(tmp_path))
    assert all(item["valid"].shape == item["image"].shape and item["valid"].dtype == torch.bool for item in items)
    assert [int((~item["valid"]).sum()) for item in items] == [0, 3, 0, 0]
    assert not items[1]["valid"][:, 3, 4].any()
    Path(path).unlink()
    assert "valid" not in NoiseTileDataset(tmp_path)[0]


def test_targets_share_scene_and_position(out):
    rows = {row["tile_id"]: row for row in read_metadata(out)["tiles"]}
    for split in ("train", "validation", "test"):
        dataset = NoiseTileDataset(out, split, target=True, domain="microscopy")
        assert len(dataset) == 4
        for item in dataset:
            other = rows[item["tile_id"].replace("_noisy_", "_clean_")]
            np.testing.assert_array_equal(item["target"].numpy()[0], np.load(other["npy_path"]))
            assert np.isnan(item["target_ratio"])


def pairs(domain: str, proved: bool = True, **figures: float) -> list[dict]:
    return [
        {
            "noisy": f"{domain}/{domain[:5]}_{k:05d}_noisy.fits",
            "clean": f"{domain}/{domain[:5]}_{k:05d}_clean.fits",
            "view": "",
            "proved": proved,
            "reason": "",
            "figures": figures,
        }
        for k in range(3)
    ]


def test_pairs_of_sources_are_used_where_stated_and_give_the_ratio(tmp_path):
    meta = made.tile_set(tmp_path, domains=("microscopy",))
    for row in meta["tiles"]:
        row["pair_id"] = None
        row["gain"] = 2.0 if row["data_type"] == "noisy" else 0.5
    with pytest.raises(FrameError, match=r"nothing is left.*4 tiles: no clean tile in the same split"):
        NoiseTileDataset(meta["tiles"], target=True, root=tmp_path)
    meta["pairs"] = pairs("microscopy", scale=0.01)
    made.write_metadata(tmp_path, meta)
    item = NoiseTileDataset(tmp_path, target=True)[2]
    clean = next(r for r in meta["tiles"] if r["tile_id"] == item["tile_id"].replace("_noisy_", "_clean_"))
    np.testing.assert_array_equal(item["target"].numpy()[0], np.load(tmp_path / clean["npy_path"]))
    assert item["target_ratio"] == pytest.approx(0.01 * 2.0 / 0.5)  # ADU over ADU, each with its own gain


def test_pairs_that_were_refused_give_no_target(tmp_path):
    meta = made.tile_set(tmp_path, domains=("microscopy",))
    meta["pairs"] = pairs("microscopy", proved=False)
    made.write_metadata(tmp_path, meta)
    with pytest.raises(FrameError, match="nothing is left"):
        NoiseTileDataset(tmp_path, target=True)
    meta["profile"] = "documented"
    made.write_metadata(tmp_path, meta)
    assert len(NoiseTileDataset(tmp_path, target=True)) == 4


def test_a_target_in_another_split_is_none(documented):
    # the documented rule puts every clean tile in test: no training pair without a leak
    with pytest.raises(FrameError, match="no clean tile in the same split"):
        NoiseTileDataset(documented, target=True)


def test_planes_of_a_source_pair_plane_by_plane(tmp_path):
    meta = made.tile_set(tmp_path, domains=("microscopy",))
    for number, row in enumerate(meta["tiles"]):  # the four tiles of each source become two planes of two
        row["tile_id"] = row["tile_id"].split("_tile_")[0] + f"_plane_{number % 4 // 2:03d}_tile_{number % 2:04d}"
        row["image_y"], row["image_x"] = 0, number % 2 * 14
    made.write_metadata(tmp_path, meta)
    for k, item in enumerate(NoiseTileDataset(tmp_path, target=True)):
        np.testing.assert_array_equal(item["target"].numpy()[0], np.load(tmp_path / meta["tiles"][4 + k]["npy_path"]))


def test_options_outside_their_list_are_refused(out):
    for options in ({"unit": "adu"}, {"unmodelled": "skip"}):
        with pytest.raises(FrameError, match="expected"):
            NoiseTileDataset(out, **options)


def test_metadata_are_json_and_survive_the_way_through(out):
    meta = read_metadata(out, absolute=False)
    made.write_metadata(out, meta)
    assert read_metadata(out, absolute=False) == meta
    domain = json.loads((out / "metadata_astronomy_incremental.json").read_text())
    assert domain["tiles"] == [row for row in meta["tiles"] if row["domain"] == "astronomy"]
    assert {k: v for k, v in domain.items() if k != "tiles"} == {k: v for k, v in meta.items() if k != "tiles"}
