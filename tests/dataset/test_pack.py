"""Packs hold the very same tiles, whatever ends the run that writes them."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from firstlight.dataset.load import DiffusionTileDataset, NoiseTileDataset, read_metadata
from firstlight.dataset.pack import PackDataset, PackWriter, open_pack, unpack, write_pack
from firstlight.dataset.store import INDEX, flags_file
from firstlight.errors import FrameError, ReadError, WriteError

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sets.py"))))


def rich_set(out: Path) -> dict:
    """A set with what rows may hold: flags, maps, lists, no noise, no pair, a field that TileRow lacks."""
    meta = made.tile_set(out)
    (out / "noise_maps").mkdir()
    np.save(out / "noise_maps" / "b.npy", np.arange(1600.0, dtype=np.float32).reshape(40, 40))
    np.save(flags_file(str(out / meta["tiles"][1]["npy_path"])), np.eye(made.SIZE, dtype=np.uint8))
    meta["tiles"][1]["flags"] = {"saturated": made.SIZE}
    meta["tiles"][1]["noise_b"] = "noise_maps/b.npy"
    meta["tiles"][2].update(noise_a=[1.0, 2.0, 3.0], pair_id=None, gain=None)
    meta["tiles"][3].update(noise_a=None, noise_b=None, norm_mean=None)
    for row in meta["tiles"]:
        row["mine"] = "x"
    meta["pairs"] = [{"noisy": "a", "clean": "b", "view": "v", "proved": True, "reason": "", "figures": {"scale": 0.1}}]
    made.write_metadata(out, meta)
    return meta


def contents(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def test_there_and_back_is_the_same_to_the_last_byte(tmp_path):
    meta = rich_set(tmp_path / "a")
    assert write_pack(tmp_path / "a", tmp_path / "b") == {"tiles": 72, "packed": 72, "skipped": 0}
    assert unpack(tmp_path / "b", tmp_path / "c") == {"tiles": 72}
    assert contents(tmp_path / "c") == contents(tmp_path / "a")
    assert open_pack(tmp_path / "b").metadata() == meta


def test_packs_are_plain_files_of_the_stated_form(tmp_path):
    meta = rich_set(tmp_path)
    tile = 3 * made.SIZE**2 * 4
    write_pack(tmp_path, pack_bytes=1000 + 5 * tile)
    names = sorted(p.name for p in (tmp_path / "packs").iterdir())
    assert not [n for n in names if n.startswith(".")]
    noisy = [f"photography_noisy_3x16x16_float32_{k:04d}.npy" for k in range(3)]
    assert [n for n in names if n.startswith("photography_noisy_3x")] == noisy
    assert [np.load(tmp_path / "packs" / n).shape for n in noisy] == [(5, 3, 16, 16), (5, 3, 16, 16), (2, 3, 16, 16)]
    assert np.load(tmp_path / "packs" / "microscopy_clean_16x16_float32_0000.npy").shape == (12, 1, 16, 16)
    assert np.load(tmp_path / "packs" / "photography_noisy-flags_16x16_uint8_0000.npy").shape == (1, 1, 16, 16)
    table = pq.read_table(tmp_path / INDEX).to_pylist()
    assert [line["tile_id"] for line in table] == [row["tile_id"] for row in meta["tiles"]]
    for line in table:
        tiles = np.load(tmp_path / "packs" / line["pack"], mmap_mode="r")
        np.testing.assert_array_equal(np.squeeze(tiles[line["pack_row"]]), np.load(tmp_path / line["npy_path"]))
    assert {*meta["tiles"][0]} - {"mine"} <= {*table[0]}


@settings(max_examples=40, deadline=None)
@given(
    tiles=st.lists(
        st.tuples(
            st.sampled_from(["f4", "f8", ">f4", "u2", "f2"]),
            st.sampled_from([(4, 4), (1, 4, 4), (3, 4, 4), (2, 5)]),
            st.booleans(),
        ),
        max_size=12,
    ),
    pack_bytes=st.integers(1, 600),
    stop=st.integers(0, 12),
)
def test_any_tiles_come_back_bit_for_bit_after_a_stop_anywhere(tmp_path_factory, tiles, pack_bytes, stop):
    out = tmp_path_factory.mktemp("packs")
    rng = np.random.default_rng(len(tiles))
    arrays = []
    for dtype, shape, fortran in tiles:
        bits = rng.integers(0, 256, int(np.prod(shape)) * np.dtype(dtype).itemsize, dtype=np.uint8)  # NaN payloads too
        array = bits.view(dtype).reshape(shape)
        arrays.append(np.asfortranarray(array) if fortran else array)
    rows = [{"tile_id": f"t{i}", "domain": "d", "data_type": "noisy", "npy_path": f"t{i}.npy"} for i in range(len(tiles))]
    writer = PackWriter(out, pack_bytes=pack_bytes)
    for i, (row, array) in enumerate(zip(rows, arrays, strict=True)):
        if i == stop:
            break
        writer.add(row, array)
        if i % 2:
            writer.commit()
    writer.release()  # what a kill leaves: everything after the last commit is lost
    with PackWriter(out, pack_bytes=pack_bytes) as writer:
        known = [writer.has(row) for row in rows]
        assert sum(known) == min(stop, len(tiles)) // 2 * 2
        for row, array, there in zip(rows, arrays, known, strict=True):
            if not there:
                writer.add(row, array)
    packs = open_pack(out)
    assert len(packs) == len(tiles)
    for i, array in enumerate(arrays):
        native = array.astype(array.dtype.newbyteorder("="))
        back = packs.read(i)
        assert back.dtype == native.dtype
        assert back.shape == array.shape
        assert back.tobytes() == native.tobytes()
    assert [row["tile_id"] for row in packs.metadata()["tiles"]] == [row["tile_id"] for row in rows]


KILLED = """
import os, signal, sys
import numpy as np
from firstlight.dataset import pack, pack_writer
out, kind, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
count = 0
def dies(function):
    def run(*a, **k):
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*a, **k)
    return run
if kind == "append":
    pack_writer._Pack.append = dies(pack_writer._Pack.append)
elif kind == "finish":
    pack_writer._Pack.finish = dies(pack_writer._Pack.finish)
elif kind == "index":
    pack_writer.write_index = dies(pack_writer.write_index)
elif kind == "journal":
    from pathlib import Path
    Path.unlink = dies(Path.unlink)
pack.COMMIT = 10
pack.write_pack(out, pack_bytes=9000)
"""


@pytest.mark.parametrize(
    ("kind", "at"), [("append", 1), ("append", 40), ("append", 70), ("finish", 1), ("finish", 4), ("index", 1), ("journal", 1)]
)
def test_killed_at_any_moment_the_next_run_makes_the_same_set(tmp_path, kind, at):
    out, clean = tmp_path / "out", tmp_path / "clean"
    rich_set(out)
    rich_set(clean)
    write_pack(clean, pack_bytes=9000)
    done = subprocess.run([sys.executable, "-c", KILLED, out, kind, str(at)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    if kind != "journal":
        with pytest.raises(ReadError, match=re.escape(INDEX)):
            open_pack(out)
    if kind == "journal":  # the set is whole: opening it for writing does not take it apart
        PackWriter(out).release()
        assert contents(out / "packs") == contents(clean / "packs")
    # the second tile has flags, hence one append more
    left = {"append": 72 - max(at - 2, 0) // 10 * 10, "finish": 0, "index": 0, "journal": 0}[kind]
    assert write_pack(out, pack_bytes=9000)["packed"] == left
    assert contents(out / "packs") == contents(clean / "packs")
    assert write_pack(out, pack_bytes=9000) == {"tiles": 72, "packed": 0, "skipped": 72}
    assert contents(out / "packs") == contents(clean / "packs")


def test_what_was_committed_is_not_written_again(tmp_path):
    rows = made.tile_set(tmp_path, domains=("microscopy",))["tiles"]
    tiles = [np.load(tmp_path / row["npy_path"]) for row in rows]
    writer = PackWriter(tmp_path)
    for row, tile in zip(rows[:6], tiles, strict=False):
        writer.add(row, tile)
    writer.commit()
    writer.add(rows[6], tiles[6])
    writer.release()
    (tmp_path / "packs" / "microscopy_noisy_16x16_float32_0009.npy").write_bytes(b"orphan")
    with PackWriter(tmp_path) as writer:
        assert [writer.has(row) for row in rows] == [True] * 6 + [False] * (len(rows) - 6)
        for row, tile in zip(rows[6:], tiles[6:], strict=True):
            writer.add(row, tile)
    assert [p.name for p in sorted((tmp_path / "packs").iterdir())] == [
        "index.parquet",
        "microscopy_clean_16x16_float32_0000.npy",
        "microscopy_noisy_16x16_float32_0000.npy",
    ]
    for i, tile in enumerate(tiles):
        np.testing.assert_array_equal(open_pack(tmp_path).read(i), tile)


def test_a_commit_that_was_cut_short_is_none(tmp_path):
    rows = made.tile_set(tmp_path, domains=("microscopy",))["tiles"]
    writer = PackWriter(tmp_path)
    for row in rows[:2]:
        writer.add(row, np.load(tmp_path / row["npy_path"]))
        writer.commit()
    writer.release()
    journal = tmp_path / "packs" / ".part.rows.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1][: len(lines[1]) // 2])
    assert write_pack(tmp_path) == {"tiles": 24, "packed": 23, "skipped": 1}
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(open_pack(tmp_path).read(i), np.load(tmp_path / row["npy_path"]))


def test_a_set_grows_and_its_order_and_splits_stay_the_jsons(tmp_path):
    meta = rich_set(tmp_path)
    every = meta["tiles"]
    made.write_metadata(tmp_path, {**meta, "tiles": every[::2]})
    write_pack(tmp_path)
    for row in every[::2]:
        (tmp_path / row["npy_path"]).unlink()
    for row in every:
        row["split"] = "test"
    made.write_metadata(tmp_path, meta)
    with pytest.raises(ReadError, match="other tiles now"):
        DiffusionTileDataset(tmp_path)
    assert write_pack(tmp_path) == {"tiles": 72, "packed": 36, "skipped": 36}
    packs = open_pack(tmp_path)
    assert packs.metadata() == meta
    assert len(DiffusionTileDataset(tmp_path, "test")) == 72
    for i in range(1, 72, 2):
        np.testing.assert_array_equal(packs.read(i), np.load(tmp_path / every[i]["npy_path"]))
    for row in every:
        row["split"] = "train"
    made.write_metadata(tmp_path, meta)  # same tiles, another split: the JSON's word holds
    assert len(DiffusionTileDataset(tmp_path, "train")) == 72


def test_a_tile_that_was_made_again_replaces_the_old_one(tmp_path):
    meta = made.tile_set(tmp_path, domains=("microscopy",))
    write_pack(tmp_path)
    path = tmp_path / meta["tiles"][4]["npy_path"]
    np.save(path, np.full((made.SIZE, made.SIZE), 0.5, dtype=np.float32))
    made.change(tmp_path, meta, 4, source_sha256="cd" * 32)
    assert write_pack(tmp_path) == {"tiles": 24, "packed": 1, "skipped": 23}
    packs = open_pack(tmp_path)
    assert np.unique(packs.read(4)).tolist() == [0.5]
    np.testing.assert_array_equal(packs.read(5), np.load(tmp_path / meta["tiles"][5]["npy_path"]))
    made.write_metadata(tmp_path, {**meta, "tiles": meta["tiles"][:4]})
    write_pack(tmp_path)
    assert len(open_pack(tmp_path)) == 4


@pytest.mark.parametrize("items", ["diffusion", "noise"])
def test_items_are_those_of_single_files(tmp_path, items):
    rich_set(tmp_path / "a")
    write_pack(tmp_path / "a", tmp_path / "b")
    options = {"unmodelled": "nan", "unit": "electron"} if items == "noise" else {}
    kind = {"diffusion": DiffusionTileDataset, "noise": NoiseTileDataset}[items]
    files = kind(tmp_path / "a", "train", **options)
    for dataset in (
        PackDataset(tmp_path / "b", "train", items=items, **options),
        PackDataset(tmp_path / "b", "train", items=items, copy=False, **options),
        kind(tmp_path / "b", "train", **options),
    ):
        assert len(dataset) == len(files) > 0
        for a, b in zip(dataset, files, strict=True):
            assert list(a) == list(b)
            for key, value in b.items():
                same = torch.equal(a[key].nan_to_num(-1), value.nan_to_num(-1)) if torch.is_tensor(value) else (a[key] == value)
                assert same or (value != value and a[key] != a[key]), (b["tile_id"], key)


def test_pack_datasets_travel_to_workers_without_their_maps(tmp_path):
    made.tile_set(tmp_path, domains=("microscopy",))
    write_pack(tmp_path)
    dataset = PackDataset(tmp_path, items="noise", target=True)
    images = torch.stack([item["image"] for item in dataset])
    assert len(pickle.dumps(dataset)) < 20_000
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["firstlight.dataset.load"])
    loader = DataLoader(dataset, batch_size=3, num_workers=2, multiprocessing_context=context)
    assert torch.equal(torch.cat([batch["image"] for batch in loader]), images)


def test_reading_copies_nothing_where_asked(tmp_path):
    made.tile_set(tmp_path, domains=("microscopy",))
    write_pack(tmp_path)
    before = contents(tmp_path)
    shared, owned = open_pack(tmp_path, copy=False), open_pack(tmp_path)
    assert np.shares_memory(shared.read(0), shared.read(0))
    assert not np.shares_memory(owned.read(0), owned.read(0))
    owned.read(0)[:] = 9
    assert not np.any(owned.read(0) == 9)
    shared.read(0)[:] = 9  # stays in this process
    assert contents(tmp_path) == before
    for copy in (True, False):
        dataset = PackDataset(tmp_path, copy=copy)
        a, b = dataset[1]["image"], dataset[1]["image"]
        assert (a.data_ptr() == b.data_ptr()) is not copy


def test_damage_is_named(tmp_path):
    made.tile_set(tmp_path, domains=("microscopy",))
    write_pack(tmp_path)
    pack = tmp_path / "packs" / "microscopy_noisy_16x16_float32_0000.npy"
    whole = pack.read_bytes()
    for damage in (whole[:-1], b"", whole[:40], whole[:6] + b"\xff" * 122 + whole[128:]):
        pack.write_bytes(damage)
        with pytest.raises(ReadError, match=re.escape(str(pack))):
            open_pack(tmp_path).read(0)
    np.save(pack, np.zeros((2, 1, 16, 16), np.float32))
    with pytest.raises(ReadError, match=re.escape(str(pack)) + ".*no tile 3 of 2"):
        open_pack(tmp_path).read(3)
    np.save(pack, np.zeros((2, 16, 16), np.float32))
    with pytest.raises(ReadError, match="no pack"):
        open_pack(tmp_path).read(0)
    pack.unlink()
    with pytest.raises(ReadError, match=re.escape(str(pack))):
        PackDataset(tmp_path)[0]
    index = tmp_path / INDEX
    for damage in (b"", index.read_bytes()[:-9], b"PAR1" * 9):
        index.write_bytes(damage)
        with pytest.raises(ReadError, match=re.escape(str(index))):
            open_pack(tmp_path)
    index.unlink()
    with pytest.raises(ReadError, match="pack the set first"):
        PackDataset(tmp_path)


def test_what_is_no_tile_is_refused(tmp_path):
    row = made.row("microscopy", "s", "noisy", "train", 0, np.zeros((2, 2)))
    with PackWriter(tmp_path) as writer:
        for bad in (np.zeros(3), np.zeros((1, 2, 3, 4)), np.zeros((0, 4)), np.array([["a"]]), np.array([[{}]], dtype=object)):
            with pytest.raises(FrameError, match="expected numbers"):
                writer.add(row, bad)
        with pytest.raises(FrameError, match="cannot name a pack"):
            writer.add({**row.to_dict(), "domain": "../up"}, np.zeros((2, 2)))
        with pytest.raises(FrameError, match="expected numbers, texts"):
            writer.add({**row.to_dict(), "mine": object()}, np.zeros((2, 2)))
        writer.add(row, np.zeros((2, 2)))
        with pytest.raises(FrameError, match="already"):
            writer.add(row, np.zeros((2, 2)))
    with pytest.raises(WriteError, match="closed"):
        writer.add({**row.to_dict(), "tile_id": "other"}, np.zeros((2, 2)))
    assert len(open_pack(tmp_path)) == 1


def test_a_row_of_the_wrong_kind_is_refused_and_leaves_no_index(tmp_path):
    row = made.row("microscopy", "s", "noisy", "train", 0, np.zeros((2, 2)))
    with pytest.raises(FrameError, match="does not fit"), PackWriter(tmp_path) as writer:
        writer.add({**row.to_dict(), "grid_x": "left"}, np.zeros((2, 2)))
    assert not (tmp_path / INDEX).exists()


def test_one_writer_at_a_time(tmp_path):
    with PackWriter(tmp_path), pytest.raises(WriteError, match="another run"):
        PackWriter(tmp_path)
    with PackWriter(tmp_path):
        pass


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    meta = made.tile_set(tmp_path, domains=("microscopy",))
    rows, tiles = meta["tiles"], [np.load(tmp_path / row["npy_path"]) for row in meta["tiles"]]
    from firstlight.dataset import pack_writer

    append = pack_writer._Pack.append

    def full(self, array):
        if self.rows == 3:
            self.file.write(array.data[:4])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return append(self, array)

    monkeypatch.setattr(pack_writer._Pack, "append", full)

    def write():
        with PackWriter(tmp_path) as writer:
            for row, tile in zip(rows, tiles, strict=True):
                writer.add(row, tile)
                writer.commit()

    with pytest.raises(WriteError, match="No space left on device"):
        write()
    monkeypatch.undo()
    assert write_pack(tmp_path) == {"tiles": 24, "packed": 21, "skipped": 3}
    for i, tile in enumerate(tiles):
        np.testing.assert_array_equal(open_pack(tmp_path).read(i), tile)


def test_a_folder_that_cannot_be_written(tmp_path):
    made.tile_set(tmp_path / "a", domains=("microscopy",))
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file"):
        write_pack(tmp_path / "a", tmp_path / "file")
    with pytest.raises(ReadError, match="absent"):
        write_pack(tmp_path / "absent")


def test_options_outside_their_list(tmp_path):
    made.tile_set(tmp_path, domains=("microscopy",))
    write_pack(tmp_path)
    with pytest.raises(FrameError, match="'diffusion' or 'noise'"):
        PackDataset(tmp_path, items="both")
    with pytest.raises(WriteError, match="not empty"):
        unpack(tmp_path, tmp_path)


def test_the_json_of_a_packed_set_reads_as_ever(tmp_path):
    meta = rich_set(tmp_path)
    write_pack(tmp_path)
    assert read_metadata(tmp_path, absolute=False) == meta == json.loads(json.dumps(open_pack(tmp_path).metadata()))
