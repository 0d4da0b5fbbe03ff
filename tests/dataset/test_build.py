import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firstlight import dataset, io
from firstlight.dataset import cut
from firstlight.dataset.build import build
from firstlight.dataset.counts import plan
from firstlight.dataset.prepare import prepare
from firstlight.dataset.rows import Pair, Source, TileRow
from firstlight.dataset.scan import scan
from firstlight.errors import FrameError, ReadError, WriteError
from firstlight.scaling import Scaling

GIVEN = {"photography": "gain=2,read_noise=2", "microscopy": "gain=1,read_noise=1.5,offset=100"}
BUILD, CHECKED, WORK = (importlib.import_module(f"firstlight.dataset.{m}") for m in ("build", "checked", "work"))
METADATA = "comprehensive_tiles_metadata.json"


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """The set of `root` with its pairs proved, and its summary; not to be changed."""
    out = tmp_path_factory.mktemp("whole") / "o"
    return out, made(root, out, pairs=None)


@pytest.fixture(scope="module")
def root(tree, tmp_path_factory):
    """Nine small images of three domains."""
    folder = tmp_path_factory.mktemp("root")
    tree.sid(folder, sony=1, fuji=1, shape=(540, 620), fuji_shape=(1060, 1100))
    tree.biosr(folder, standard=1, er=1, er_levels=1, side=260, phases=2)
    tree.hla(folder, pairs=1, shape=(270, 300))
    return folder


def made(root, out, **options):
    with warnings.catch_warnings(action="ignore"):
        return build(root, out, **({"detector": GIVEN, "pairs": ()} | options))


def metadata(out, name=METADATA):
    return json.loads((out / name).read_text())


def contents(out):
    """Every file of a set that is not about the run itself, timestamps left out."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and not name.startswith(".firstlight"):
            text = path.read_bytes()
            if name.endswith(".json"):
                tree = json.loads(text)
                for row in tree["tiles"]:
                    assert row.pop("processing_timestamp")
                text = json.dumps(tree)
            found[name] = text
    return found


def consistent(out):
    """What holds at any moment: every row has its tile, whole; no tile twice; no half file under a final name."""
    for name in (p.name for p in out.glob("[!.]*.json")):
        rows = metadata(out, name)["tiles"]
        assert len({r["tile_id"] for r in rows}) == len(rows)
        for row in rows:
            tile = np.load(out / row["npy_path"])
            assert tile.shape[-2:] == (256, 256)
    return len(metadata(out)["tiles"]) if (out / METADATA).exists() else 0


def exact(out):
    """After a run that ended: rows and files match one to one."""
    rows = metadata(out)["tiles"]
    files = {p.relative_to(out).as_posix() for p in (out / "npy_tiles").rglob("*") if p.is_file()}
    assert files == {r["npy_path"] for r in rows} | {r["npy_path"].replace(".npy", ".flags.npy") for r in rows if r["flags"]}
    assert not list(out.rglob(".*.part.*"))


def test_rows_say_what_the_tiles_hold(root, whole):
    out, summary = whole
    assert summary.ok
    assert summary.made == 10
    meta = metadata(out)
    assert summary.tiles == len(meta["tiles"]) == sum(sum(k.values()) for k in summary.counts.values())
    assert {r["split"] for r in meta["tiles"]} <= {"train", "validation", "test"}
    exact(out)
    for row in meta["tiles"]:
        assert list(row) == list(TileRow.__dataclass_fields__)
        tile = np.load(out / row["npy_path"])
        assert tile.dtype == np.float32
        assert tile.shape == ((256, 256) if row["channels"] == 1 else (row["channels"], 256, 256))
        assert row["npy_path"].startswith(f"npy_tiles/{row['domain']}/{row['data_type']}/")
        scaling = Scaling(row["fixed_scale"], row["fixed_offset"])
        electrons = scaling.invert(tile).astype(np.float64)
        for key, value in (
            ("min", tile.min()),
            ("max", tile.max()),
            ("mean", tile.mean(dtype=float)),
            ("std", tile.std(dtype=float)),
        ):
            assert row[f"norm_{key}"] == pytest.approx(value, rel=2e-5, abs=1e-6)
        for key, value in (
            ("min", electrons.min()),
            ("max", electrons.max()),
            ("mean", electrons.mean()),
            ("std", electrons.std()),
        ):
            assert row[f"electron_{key}"] == pytest.approx(value, rel=2e-5, abs=1e-3)
        assert row["quality_score"] == row["norm_mean"]
        assert row["source_sha256"] == io.sha256(root / row["source_file"])


def test_tiles_are_the_prepared_image_cut_and_scaled(root, whole):
    out, _ = whole
    source = next(s for s in scan(root) if s.path.endswith(".RAF") and s.data_type == "noisy")
    one = prepare(root / source.path, source, detector=GIVEN["photography"])
    rows = [r for r in metadata(out)["tiles"] if r["source_file"] == source.path]
    assert [(r["image_y"], r["image_x"], r["grid_y"], r["grid_x"]) for r in rows] == [
        (*t.read.start, *t.index) for t in one.grid
    ]
    image, raw = one.frame, io.read(root / source.path).data
    for row in rows:
        at = (slice(None), slice(row["image_y"], row["image_y"] + 256), slice(row["image_x"], row["image_x"] + 256))
        np.testing.assert_array_equal(np.load(out / row["npy_path"]), one.scaling.apply(image.data[at]))
        assert (row["original_min"], row["original_max"]) == (raw.min(), raw.max())
        np.testing.assert_array_equal(np.load(out / row["noise_a"])[at], image.noise.a[at])
        np.testing.assert_array_equal(np.load(out / row["noise_b"])[at], image.noise.b[at])
    assert len(list((out / "noise_maps").iterdir())) == 2  # shared by the noisy and the clean frame


def test_noise_is_a_number_or_a_list_per_channel_where_it_can_be(root, whole):
    out, _ = whole
    rows = metadata(out)["tiles"]
    sony = next(r for r in rows if r["source_file"].endswith(".ARW"))
    assert (sony["noise_a"], sony["noise_b"]) == ([1.0, 0.5, 1.0], [4.0, 2.0, 4.0])
    micro = next(r for r in rows if r["domain"] == "microscopy")
    assert (micro["noise_a"], micro["noise_b"]) == (1.0, 2.25)
    drizzled = next(r for r in rows if r["domain"] == "astronomy")
    assert (drizzled["noise_a"], drizzled["noise_b"], drizzled["gain"]) == (None, None, 500.0)


def test_positions_edges_and_overlap(tree, tmp_path):
    tree.sid(tmp_path / "r", sony=1, fuji=0, shape=(1200, 1600))  # 600 x 800 after binning
    made(tmp_path / "r", tmp_path / "o")
    rows = [r for r in metadata(tmp_path / "o")["tiles"] if r["data_type"] == "noisy"]
    assert len(rows) == 12
    for row in rows:
        far = row["image_y"] + 256 == 600 or row["image_x"] + 256 == 800
        assert row["is_edge_tile"] == far
        neighbour = [r["image_x"] for r in rows if (r["grid_y"], r["grid_x"]) == (row["grid_y"], row["grid_x"] + 1)]
        shared = max(0, row["image_x"] + 256 - neighbour[0]) / 256 if neighbour else 0
        assert row["overlap_ratio"] == shared
    assert {r["pair_id"] for r in rows} == {None}


def test_pairs_share_an_id_where_they_are_proved(root, whole):
    out, _ = whole
    meta = metadata(out)
    proved = {p for pair in meta["pairs"] if pair["proved"] for p in (pair["noisy"], pair["clean"])}
    assert proved
    assert len(proved) < len(meta["tiles"])
    places = {}
    for row in meta["tiles"]:
        assert (row["pair_id"] is not None) == (row["source_file"] in proved)
        if row["pair_id"]:
            places.setdefault(row["pair_id"], []).append((row["image_y"], row["image_x"], row["view"]))
    assert all(len(v) == 2 and len(set(v)) == 1 for v in places.values())


@pytest.mark.parametrize("profile", ["physical", "documented"])
def test_any_number_of_workers_gives_the_same_bytes(root, tmp_path, profile):
    for n in (1, 2, 5):
        made(root, tmp_path / f"o{n}", workers=n, profile=profile, pairs=None, max_files=2)
    first = contents(tmp_path / "o1")
    assert first == contents(tmp_path / "o2") == contents(tmp_path / "o5")
    assert {f"metadata_{d}_incremental.json" for d in ("photography", "microscopy", "astronomy")} < set(first)


def test_domains_have_their_own_metadata(root, whole):
    out, _ = whole
    every = metadata(out)
    parts = [metadata(out, f"metadata_{d}_incremental.json") for d in ("astronomy", "microscopy", "photography")]
    assert sorted(json.dumps(r) for p in parts for r in p["tiles"]) == sorted(json.dumps(r) for r in every["tiles"])
    assert all({k: v for k, v in p.items() if k != "tiles"} == {k: v for k, v in every.items() if k != "tiles"} for p in parts)
    keys = [(r["source_file"], r["tile_id"]) for r in every["tiles"]]
    assert keys == sorted(keys)


def test_a_second_run_makes_nothing_and_changes_nothing(root, tmp_path, monkeypatch):
    made(root, tmp_path / "o", pairs=None)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "o" / "npy_tiles").rglob("*.npy")}
    text = (tmp_path / "o" / METADATA).read_bytes()
    monkeypatch.setattr(WORK, "each", lambda *a, **k: pytest.fail("a finished source was made again"))
    monkeypatch.setattr(CHECKED, "check", lambda *a, **k: pytest.fail("a pair was looked at again"))
    again = made(root, tmp_path / "o", pairs=None)
    assert (again.made, again.kept, again.removed) == (0, 10, 0)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "o" / "npy_tiles").rglob("*.npy")} == before
    assert (tmp_path / "o" / METADATA).read_bytes() == text


def test_what_changes_is_made_again_and_what_vanishes_goes(root, tmp_path):
    mine, out = tmp_path / "r", tmp_path / "o"
    shutil.copytree(root, mine)
    made(mine, out)
    fits = sorted((mine / "astronomy").rglob("*.fits"))
    changed, gone = fits[0], fits[1]
    text = bytearray(changed.read_bytes())
    text[-5000] ^= 1
    changed.write_bytes(text)
    gone.unlink()
    lost = next((out / "npy_tiles" / "microscopy").rglob("*.npy"))  # somebody removed a tile
    lost.unlink()
    (out / "npy_tiles" / "stray.npy").write_bytes(b"x")
    summary = made(mine, out)
    assert (summary.made, summary.kept, summary.removed) == (2, 7, 3)
    assert lost.exists()
    exact(out)
    rows = metadata(out)["tiles"]
    assert not [r for r in rows if r["source_file"] == gone.relative_to(mine).as_posix()]
    assert {r["source_sha256"] for r in rows if r["source_file"] == changed.relative_to(mine).as_posix()} == {
        io.sha256(changed)
    }


def test_a_damaged_journal_entry_is_made_again_and_its_rows_go_before_its_tiles(root, tmp_path, monkeypatch):
    out = tmp_path / "o"
    made(root, out)
    reference = contents(out)
    min((out / ".firstlight" / "sources").iterdir()).write_text("{")
    monkeypatch.setattr(BUILD, "work", lambda *a, **k: consistent(out) and pytest.fail("ended here"))
    with pytest.raises(pytest.fail.Exception, match="ended here"):
        made(root, out)
    monkeypatch.undo()
    assert consistent(out)
    summary = made(root, out)
    assert (summary.made, summary.kept) == (1, 9)
    assert contents(out) == reference


def test_another_split_needs_no_new_tiles_and_other_options_are_refused(root, tmp_path):
    made(root, tmp_path / "o")
    again = made(root, tmp_path / "o", split="seeded")
    assert (again.made, again.kept) == (0, 10)
    assert metadata(tmp_path / "o")["split"] == "seeded"
    before = contents(tmp_path / "o")
    with pytest.raises(FrameError, match=r"was built with detector .*; one set, one rule"):
        made(root, tmp_path / "o", detector="gain=3,read_noise=1,offset=0")
    with pytest.raises(FrameError, match=r"was built with .*profile 'physical', got .*profile 'documented'"):
        made(root, tmp_path / "o", profile="documented")
    assert contents(tmp_path / "o") == before


def test_a_folder_of_somebody_elses_tiles_is_left_alone(root, tmp_path):
    theirs = tmp_path / "o" / "npy_tiles" / "a.npy"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"x")
    with pytest.raises(WriteError, match="no firstlight run wrote"):
        made(root, tmp_path / "o")
    assert theirs.read_bytes() == b"x"
    map_ = tmp_path / "maps" / "noise_maps" / "a.npy"
    map_.parent.mkdir(parents=True)
    map_.write_bytes(b"x")
    with pytest.raises(WriteError, match="no firstlight run wrote"):
        made(root, tmp_path / "maps")
    assert map_.read_bytes() == b"x"
    download = tmp_path / "other" / ".film.part.2"
    download.parent.mkdir()
    download.write_bytes(b"x")
    made(root, tmp_path / "other", max_files=1)
    assert download.read_bytes() == b"x"
    with pytest.raises(FrameError, match="a folder of the tile set's own"):
        made(tmp_path / "other" / "npy_tiles", tmp_path / "other")
    with pytest.raises(ReadError, match="is a tile set"):
        made(tmp_path / "other", tmp_path / "more")
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be made"):
        made(root, tmp_path / "file")


def test_bad_options(root, tmp_path):
    for options in ({"profile": "ideal"}, {"split": "fair"}, {"store": "zip"}, {"workers": 0}):
        with pytest.raises(FrameError, match="tiles: "):
            made(root, tmp_path / "o", **options)
    with pytest.raises(ReadError, match="is no folder"):
        made(tmp_path / "nowhere", tmp_path / "o")
    with pytest.raises(ReadError, match="expected at least 1"):
        made(root, tmp_path / "o", max_files=0)


def test_a_detector_file_that_changes_is_another_option(tree, tmp_path):
    tree.hla(tmp_path / "root", pairs=1, shape=(256, 256))
    given = tmp_path / "d.json"
    given.write_text('{"gain": 1, "read_noise": 3}')
    made(tmp_path / "root", tmp_path / "o", detector=str(given))
    assert made(tmp_path / "root", tmp_path / "o", detector=str(given)).kept == 2
    given.write_text('{"gain": 1, "read_noise": 4}')
    with pytest.raises(FrameError, match=r"was built with detector .*d\.json \("):
        made(tmp_path / "root", tmp_path / "o", detector=str(given))


def test_max_files_can_grow_and_not_shrink(root, tmp_path):
    few = made(root, tmp_path / "o", max_files=2)
    assert few.made == 6
    exact(tmp_path / "o")
    every = made(root, tmp_path / "o")
    assert (every.made, every.kept) == (4, 6)
    made(root, tmp_path / "fresh")
    fresh, grown = contents(tmp_path / "fresh"), contents(tmp_path / "o")
    assert fresh == grown
    with pytest.raises(FrameError, match="max_files=2 leaves out"):
        made(root, tmp_path / "o", max_files=2)
    assert contents(tmp_path / "o") == grown


def test_unreadable_files_are_listed_with_their_cause_and_the_run_goes_on(root, tmp_path):
    mine = tmp_path / "r"
    shutil.copytree(root, mine)
    raf, mrc = sorted(mine.rglob("*.RAF"))[0], sorted(mine.rglob("*SIM_gt*.mrc"))[0]
    raf.write_bytes(raf.read_bytes()[:4000])
    mrc.write_bytes(b"")
    summary = made(mine, tmp_path / "o", workers=2)
    assert not summary.ok
    bad = {b["path"]: b["cause"] for b in summary.unreadable}
    assert set(bad) == {p.relative_to(mine).as_posix() for p in (raf, mrc)}
    assert "empty" in bad[mrc.relative_to(mine).as_posix()]
    assert str(mine) not in bad[mrc.relative_to(mine).as_posix()]
    assert metadata(tmp_path / "o")["unreadable"] == summary.unreadable
    assert summary.made == 8
    exact(tmp_path / "o")
    assert all(line in summary.text() for line in bad)
    shutil.copy(root / raf.relative_to(mine), raf)  # repaired: made on the next run, and off the list
    again = made(mine, tmp_path / "o")
    assert (again.made, len(again.unreadable)) == (1, 1)


def test_a_source_that_fails_half_way_leaves_nothing(root, tmp_path, monkeypatch):
    save, count = cut.save, []

    def failing(path, array):
        count.append(path)
        if len(count) == 6:
            raise ReadError("the file went away")
        return save(path, array)

    monkeypatch.setattr(WORK, "save", failing)
    summary = made(root, tmp_path / "o")
    assert [b["cause"] for b in summary.unreadable] == ["the file went away"]
    exact(tmp_path / "o")
    consistent(tmp_path / "o")


def test_ctrl_c_leaves_a_valid_set_and_the_next_run_goes_on(root, tmp_path):
    def interrupt(done, total, name):
        if done >= 3 and (tmp_path / "o" / "npy_tiles").exists():  # not while scanning
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(root, tmp_path / "o", tick=interrupt, workers=2)
    some = consistent(tmp_path / "o")
    exact(tmp_path / "o")
    assert some > 0
    summary = made(root, tmp_path / "o")
    assert summary.kept > 0
    assert summary.tiles > some
    made(root, tmp_path / "fresh")
    assert contents(tmp_path / "o") == contents(tmp_path / "fresh")


SCRIPT = """
import sys, warnings, json
warnings.simplefilter("ignore")
from firstlight.dataset import build
build(sys.argv[1], sys.argv[2], workers=2, detector=json.loads(sys.argv[3]), pairs=())
"""


def start(root, out):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, root, out, json.dumps(GIVEN)], stderr=subprocess.PIPE)


def test_kill_at_any_moment(root, tmp_path):
    out, reference = tmp_path / "o", tmp_path / "reference"
    made(root, reference)
    kills = 0
    rng = np.random.default_rng(3)
    for wanted in range(10):  # killed as soon as so many files are there, and a random moment later
        child = start(root, out)
        while child.poll() is None and sum(1 for _ in (out / "npy_tiles").rglob("*.npy")) < 4 * wanted + 1:
            time.sleep(0.001)
        time.sleep(float(rng.uniform(0, 0.02)))
        kills += child.poll() is None
        child.kill()
        child.communicate()
        consistent(out)
        if wanted % 5 == 4:
            made(root, out)
            exact(out)
            assert contents(out) == contents(reference)
            shutil.rmtree(out)
    assert kills >= 5


def test_two_runs_into_one_folder(root, tmp_path):
    from firstlight.dataset.journal import locked

    out = tmp_path / "o"
    with locked(out):
        child = start(root, out)
        error = child.communicate()[1].decode()
        assert child.returncode != 0
        assert f"is being built by process {os.getpid()}" in error
    assert not (out / "npy_tiles").exists()
    assert made(root, out).ok  # the lock ends with its holder


def test_lock_of_a_killed_process_is_free(tmp_path):
    hold = (
        "import sys, os, signal; from pathlib import Path; from firstlight.dataset.journal import locked\n"
        "with locked(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    child = subprocess.run([sys.executable, "-c", hold, tmp_path / "o"], check=False)
    assert child.returncode == -signal.SIGKILL
    from firstlight.dataset.journal import locked

    with locked(tmp_path / "o"):
        assert int((tmp_path / "o" / ".firstlight" / "lock").read_text()) == os.getpid()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB; skips where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("a tmpfs cannot be mounted: run as root where mounting is allowed")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk(root, small_disk, tmp_path):
    for workers in (1, 2):
        out = small_disk / f"o{workers}"
        with pytest.raises(WriteError, match="No space left"):
            made(root, out, workers=workers)
        consistent(out)
        if (out / METADATA).exists():
            exact(out)
        assert not list(out.rglob(".*.part.*"))
        shutil.rmtree(out)
    out = small_disk / "o"
    with pytest.raises(WriteError):
        made(root, out)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert made(root, out).ok  # room was made: the next run goes on
    made(root, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_no_tile_has_its_name_before_it_is_whole(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # as a disk that fills up in the middle of a tile
        with pytest.raises(WriteError, match=r"a\.npy: cannot be written"):
            cut.save(tmp_path / "a.npy", np.zeros((256, 256), np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_ids_do_not_collide(tmp_path):
    names = [
        "a/b_c.dng",
        "a_b/c.dng",
        "a/b/c.dng",
        "a.b/c.dng",
        "a/b-c.dng",
        "ä/b_c.dng",
        "é/b_c.dng",
        f"{'x' * 300}/b.dng",
        f"{'y' * 300}/b.dng",
    ]
    stems = {cut.stem(Source(n, "photography", "l", "s", "v", "noisy"), p) for n in names for p in (None, 0, 1)}
    assert len(stems) == 3 * len(names)
    assert all(len(s) < 200 and s.startswith("photography_") and "/" not in s and "." not in s for s in stems)


DOCUMENTED = {
    "photography": {"clean": 17106, "noisy": 17106},
    "microscopy": {"clean": 9904, "noisy": 9904},
    "astronomy": {"clean": 12393, "noisy": 12393},
}


def test_documented_counts_from_shapes(tree, tmp_path):
    tree.sid(tmp_path, sony=231, fuji=193, shape=(24, 32), fuji_shape=(24, 32))
    tree.biosr(tmp_path, standard=211, er=68, side=8, phases=1)
    tree.hla(tmp_path, pairs=153, shape=(8, 8))
    found = scan(tmp_path, profile="documented")
    assert not found.unreadable
    sizes = {".ARW": (2848, 4256), ".RAF": (4032, 6032), ".fits": (4232, 4220)}
    full = [
        replace(
            s,
            shape=sizes.get(Path(s.path).suffix)
            or ((1, 502, 502) if "RawSIM" in s.path or "RawGT" in s.path else (1004, 1004)),
        )
        for s in found
    ]
    with warnings.catch_warnings(action="ignore"):
        pairs = dataset.pair(tmp_path, full, profile="documented")
    counts = plan(full, pairs, profile="documented")
    assert counts["domains"] == DOCUMENTED
    assert counts["tiles"] == 34212 + 19808 + 24786 == 78806


def test_a_documented_build_makes_what_was_planned(tree, tmp_path):
    tree.sid(tmp_path / "r", sony=1, fuji=1, shorts=2, shape=(540, 620), fuji_shape=(1060, 1100))
    tree.biosr(tmp_path / "r", standard=1, er=0, side=260, phases=2)
    tree.hla(tmp_path / "r", pairs=1, shape=(270, 300))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        summary = build(tmp_path / "r", tmp_path / "o", profile="documented", split="documented")
    assert not said  # a doubt has one place
    assert len(set(summary.notes)) == len(summary.notes)
    for part in (
        "no noisy/clean pair",
        "mixtures of colours",
        "leaves the detector's offset in",
        "one scene is in train and in test",
    ):
        assert any(part in note for note in summary.notes)
    assert summary.counts == {
        "astronomy": {"clean": 81, "noisy": 81},
        "microscopy": {"clean": 16, "noisy": 16},
        "photography": {"clean": 78, "noisy": 78},
    }
    assert summary.left_out == 2  # the second short frames
    rows = metadata(tmp_path / "o")["tiles"]
    assert {r["split"] for r in rows if r["data_type"] == "clean"} == {"test"}
    assert "test" not in {r["split"] for r in rows if r["data_type"] == "noisy"}
    assert {r["channels"] for r in rows if r["domain"] == "photography"} == {3}


def test_plan_of_a_physical_build_is_what_it_makes(root, tmp_path):
    summary = made(root, tmp_path / "o")
    assert plan(scan(root))["domains"] == summary.counts


def test_given_pairs_and_unproved_ones(root, tmp_path):
    found = [s for s in scan(root) if s.domain == "photography"]
    noisy, clean = (next(s.path for s in found if s.data_type == k and s.path.endswith("ARW")) for k in ("noisy", "clean"))
    made(root, tmp_path / "o", pairs=(Pair(noisy, clean, "v", False, "no"),))
    assert {r["pair_id"] for r in metadata(tmp_path / "o")["tiles"]} == {None}
    made(root, tmp_path / "o", pairs=(Pair(noisy, clean, "v", True),))
    assert {r["source_file"] for r in metadata(tmp_path / "o")["tiles"] if r["pair_id"]} == {noisy, clean}


def test_packed_set_holds_the_same_tiles(root, tmp_path):
    made(root, tmp_path / "files")
    packed = made(root, tmp_path / "o", store="pack", workers=2)
    assert not list((tmp_path / "o" / "npy_tiles").rglob("*.npy"))
    rows = metadata(tmp_path / "files")["tiles"]
    assert packed.tiles == len(rows)
    packs = dataset.open_pack(tmp_path / "o")
    held = {r["tile_id"]: i for i, r in enumerate(packs.metadata()["tiles"])}
    assert set(held) == {r["tile_id"] for r in rows}
    for row in rows:
        np.testing.assert_array_equal(packs.read(held[row["tile_id"]]), np.load(tmp_path / "files" / row["npy_path"]))
    again = made(root, tmp_path / "o", store="pack")
    assert (again.made, again.kept) == (0, 10)


def test_packed_set_follows_its_sources(root, tmp_path):
    mine, out = tmp_path / "r", tmp_path / "o"
    shutil.copytree(root, mine)
    gone = sorted((mine / "astronomy").rglob("*.fits"))[0]
    made(mine, out, store="pack", max_files=2)
    made(mine, out, store="pack")  # grows
    gone.unlink()
    summary = made(mine, out, store="pack")  # shrinks: no tile of a vanished source stays
    packs = dataset.open_pack(out)
    names = {r["source_file"] for r in packs.metadata()["tiles"]}
    assert gone.relative_to(mine).as_posix() not in names
    assert len(packs) == summary.tiles
    assert len(names) == 9


def test_a_pack_that_is_gone_or_cut_short_is_made_again(root, tmp_path):
    out = tmp_path / "o"
    made(root, out, store="pack")
    before = contents(out)
    some = sorted((out / "packs").glob("*.npy"))
    spoils = (some[0].unlink, lambda: os.truncate(some[-1], some[-1].stat().st_size - 4))
    for spoil in spoils:
        spoil()
        again = made(root, out, store="pack")
        assert again.made > 0
        assert contents(out).keys() == before.keys()
        packs = dataset.open_pack(out)
        for i, row in enumerate(packs.metadata()["tiles"]):
            assert packs.read(i).max() == np.float32(row["norm_max"])


def test_the_index_goes_before_its_packs(root, tmp_path, monkeypatch):
    mine, out = tmp_path / "r", tmp_path / "o"
    shutil.copytree(root, mine)
    made(mine, out, store="pack")
    next((mine / "astronomy").rglob("*.fits")).unlink()

    def killed(path, **options):
        assert path == out / "packs"
        assert not (path / "index.parquet").exists()  # else it would vouch for packs that are going
        raise KeyboardInterrupt

    monkeypatch.setattr("firstlight.dataset.state.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        made(mine, out, store="pack")
    monkeypatch.undo()
    assert len(metadata(out)["tiles"]) == 0  # rows went first
    assert made(mine, out, store="pack").tiles == len(dataset.open_pack(out))


def test_damaged_findings_of_pairs_are_found_again(root, tmp_path, whole):
    out = tmp_path / "o"
    shutil.copytree(whole[0], out)
    found = out / ".firstlight" / "pairs.jsonl"
    first, *rest = found.read_text().splitlines()
    found.write_text("\n".join([first[:40], "[]", "3", *rest, "half a li"]))
    assert made(root, out, pairs=None).proved == whole[1].proved
    assert metadata(out)["pairs"] == metadata(whole[0])["pairs"]


def test_a_disk_that_refuses_the_findings_of_pairs(root, tmp_path):
    (tmp_path / "o" / ".firstlight" / "pairs.jsonl").mkdir(parents=True)
    with pytest.raises(WriteError, match=r"pairs\.jsonl: cannot be written .*; make room"):
        made(root, tmp_path / "o", pairs=None)


def test_a_programmers_warning_is_no_note(root, tmp_path, monkeypatch):
    def noisy(*a, **k):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        warnings.warn("doubtful", UserWarning, stacklevel=1)

    monkeypatch.setattr(BUILD, "work", noisy)
    with pytest.warns(DeprecationWarning, match="old") as said:
        summary = build(root, tmp_path / "o", detector=GIVEN, pairs=())
    assert [str(w.message) for w in said] == ["old"]
    assert "doubtful" in summary.notes
    assert "old" not in summary.notes


def test_the_real_photo(data, tmp_path):
    folder = tmp_path / "r" / "SID" / "Sony" / "short"
    folder.mkdir(parents=True)
    (folder / "00001_00_0.04s.ARW").symlink_to(data / "raw" / "sony_ilce-7rm3_iso3200.ARW")
    refused = made(tmp_path / "r", tmp_path / "o", detector=None)
    assert "ILCE-7RM3" in refused.unreadable[0]["cause"]
    summary = made(tmp_path / "r", tmp_path / "p", detector="gain=0.5,read_noise=2")
    assert summary.counts == {"photography": {"noisy": 77}}  # 1732 x 2592 px: 7 x 11
    rows = metadata(tmp_path / "p")["tiles"]
    assert sum(r["flags"].get("saturated", 0) for r in rows) > 0
    assert {r["original_max"] for r in rows} == {16628.0}
