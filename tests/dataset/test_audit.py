"""Leakage: found where it was put, in every way that it comes; never where different scenes merely look alike."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from firstlight import simulate
from firstlight.dataset import alike
from firstlight.dataset.audit import audit
from firstlight.errors import FrameError, ReadError
from firstlight.frame import Flag, Frame, Unit
from firstlight.noise import Unmodelled

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sets.py"))))
SIDE = 192
KINDS = ("stars", "filaments", "spots", "flat", "constant")
RULE = r"(?P<scene>s\d+)_(?P<data_type>noisy|clean)"


def scene(kind, seed, shape=(SIDE, SIDE)):
    rng = np.random.default_rng([20261121, seed])
    if kind == "stars":
        return simulate.star_field(shape, rng, n=int(0.002 * shape[0] * shape[1]))[0]
    if kind == "filaments":
        return simulate.filaments(shape, rng)
    if kind == "spots":
        return simulate.spots(shape, rng)
    return np.full(shape, 100.0)


def recorded(light, seed, read_noise=3.0):
    rng = np.random.default_rng([7, seed])
    return (rng.poisson(light) + rng.normal(0, read_noise, light.shape)).astype(np.float32)


def frame(data, flags=None):
    return Frame(data, "YX", Unit.ELECTRON, Unmodelled("test"), flags=flags)


def put(root, **images):
    for name, image in images.items():
        split, _, stem = name.partition("__")
        path = root / split / f"{stem}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, image)
    return root


def tile_set(out, **options):
    """The small set, each source with a hash of its own."""
    meta = made.tile_set(out, **options)
    for row in meta["tiles"]:
        row["source_sha256"] = hashlib.sha256(row["source_file"].encode()).hexdigest()
    made.write_metadata(out, meta)
    return meta


def kinds(found):
    return sorted({leak.kind for leak in found.leaks})


@pytest.mark.parametrize("kind", ["stars", "filaments", "spots"])
@pytest.mark.parametrize(
    ("dy", "dx", "brighter"),
    [(0, 0, 1.0), (2, 3, 1.0), (5, 7, 3.0), (90, 11, 1.0)],
    ids=["same", "shifted", "brighter", "overlapping patch"],
)
def test_a_frame_of_one_scene_in_another_split_is_found_by_content(tmp_path, kind, dy, dx, brighter):
    light = scene(kind, 1, (SIDE + 100, SIDE + 100))
    first, second = light[:SIDE, :SIDE], light[dy : dy + SIDE, dx : dx + SIDE] * brighter
    root = put(
        tmp_path, train__a=recorded(first, 1), test__b=recorded(second, 2), test__other=recorded(scene(kind, 9)[:SIDE], 3)
    )
    found = audit(root, scene="")
    assert [leak.members for leak in found.leaks] == [("test/b.npy", "train/a.npy")]
    assert found.leaks[0].kind == ("overlap" if dy > 50 else "near-duplicate")
    shift = found.leaks[0].figure["shift"]
    sign = 1 if found.leaks[0].figure["files"][0] == "train/a.npy" else -1
    assert np.allclose(np.multiply(shift, sign), (dy, dx), atol=1)
    assert found.leaks[0].figure["overlap"] == pytest.approx((1 - dy / SIDE) * (1 - dx / SIDE), abs=0.04)


def test_different_scenes_of_one_kind_are_no_duplicates(tmp_path):
    images = {}
    for k, kind in enumerate(KINDS):
        for n in range(12):
            image = scene(kind, 100 * k + n)
            images[f"{'train' if n % 2 else 'test'}__{kind}_{n}"] = (
                image if kind == "constant" else recorded(image, 100 * k + n)
            )
    found = audit(put(tmp_path, **images), scene="")
    assert found.leaks == ()
    assert found.compared["by_content"] == 60
    assert found.compared["blank"] == 12


def test_hot_pixels_and_a_vignette_that_all_frames_share_are_no_scene(tmp_path):
    rng = np.random.default_rng(3)
    hot = rng.random((SIDE, SIDE)) < 0.01
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    images = {}
    for n in range(8):
        light = scene("stars" if n % 2 else "flat", 50 + n) * (1 - 0.3 * (y**2 + x**2))
        images[f"{'train' if n < 4 else 'test'}__{n}"] = recorded(light, n) + 5000 * hot
    assert audit(put(tmp_path, **images), scene="").leaks == ()


def test_a_scene_in_two_splits_is_told_with_what_crosses(tmp_path):
    rng = np.random.default_rng(1)
    images = {f"{s}__f{f}_c{c}": rng.random((64, 64)) for f in (1, 2) for c, s in ((0, "train"), (1, "test"))}
    found = audit(put(tmp_path, **images), scene=r"(?P<scene>f\d)_c(?P<channel>\d)")
    assert [(leak.kind, leak.figure["scene"], leak.splits) for leak in found.leaks] == [
        ("scene", "f1", ("test", "train")),
        ("scene", "f2", ("test", "train")),
    ]
    assert found.leaks[0].figure["across"][0] == "channels"
    assert "channels of one scene" in found.leaks[0].sentence
    assert not found.passed


@pytest.mark.parametrize("form", ["csv", "json", "json by split", "mapping", "scenes"])
def test_splits_come_from_a_table_too(tmp_path, form):
    rng = np.random.default_rng(2)
    root = tmp_path / "images"
    put(root, **{f"x__{n}_a": rng.random((64, 64)) for n in range(2)}, **{f"x__{n}_b": rng.random((64, 64)) for n in range(2)})
    said = {"x/0_a.npy": "train", "x/0_b.npy": "val", "x/1_a.npy": "test", "x/1_b.npy": "test"}
    table = tmp_path / f"splits.{form[:4].strip()}"
    if form == "csv":
        table.write_text("path,split\n" + "".join(f"{k},{v}\n" for k, v in said.items()))
    elif form == "json":
        table.write_text(json.dumps(said))
    elif form == "json by split":
        table.write_text(json.dumps({s: [k for k, v in said.items() if v == s] for s in set(said.values())}))
    elif form == "scenes":
        assert audit(root, scene=r"(?P<scene>\d)_", splits={"0": "train", "1": "test"}).passed
        return
    found = audit(root, scene=r"(?P<scene>\d)_", splits=said if form == "mapping" else table)
    assert [leak.splits for leak in found.leaks] == [("train", "validation")]


def test_byte_identical_files_are_found_and_constant_ones_are_not_called_so(tmp_path):
    image, flat = recorded(scene("stars", 1), 1), np.zeros((64, 64), np.uint16)
    root = put(tmp_path, train__a=image, test__b=image, train__c=flat, test__d=flat, train__e=image)
    found = audit(root, scene="")
    assert [(leak.kind, leak.members) for leak in found.leaks] == [
        ("identical", ("test/b.npy", "train/a.npy", "train/e.npy")),
    ]
    assert len(found.leaks[0].figure["sha256"]) == 64


def test_many_exposures_of_one_field_hang_together_without_a_square_of_comparisons():
    one, count = alike.fingerprint(alike.reduced(frame(recorded(scene("stars", 4), 1)))), 20 * alike.CROWD
    found = alike.candidates([one] * count, [n % 2 for n in range(count)], [-1] * count)
    assert {c.a for c in found} | {c.b for c in found} == set(range(count))
    assert len(found) <= alike.ANCHORS * count


def test_images_that_share_a_scene_by_name_are_not_compared():
    light = scene("stars", 4)
    prints = [alike.fingerprint(alike.reduced(frame(recorded(light, n)))) for n in range(4)]
    assert {(c.a, c.b) for c in alike.candidates(prints, [0, 0, 1, 1], [5, 6, 5, 7])} == {(0, 3), (1, 2), (1, 3)}


def test_flagged_pixels_and_mosaics_do_not_print():
    light = recorded(scene("stars", 4), 1)
    flags = np.zeros(light.shape, np.uint8)
    flags[40:60] = Flag.NO_DATA
    holed = light.copy()
    holed[40:60] = np.nan
    assert np.isfinite(alike.reduced(frame(holed))).all()
    assert np.array_equal(alike.reduced(frame(holed)), alike.reduced(frame(light, flags)))


def test_a_clean_image_noisier_than_its_noisy_one_is_told(tmp_path):
    images = {}
    for n in range(3):
        light = scene("filaments", n) * 20
        noisy, clean = recorded(light, n, 10.0), recorded(light * 20, 50 + n) / 20
        noisy, clean = (clean, noisy) if n == 1 else (noisy, clean)
        images |= {f"train__s{n}_noisy": noisy, f"train__s{n}_clean": clean.astype(np.float32)}
    found = audit(put(tmp_path, **images), scene=RULE)
    assert [(leak.kind, leak.members) for leak in found.leaks] == [("label", ("train/s1_clean.npy", "train/s1_noisy.npy"))]
    assert found.leaks[0].figure["contradiction"] == "noisier"
    assert found.pairs == 3


@pytest.mark.parametrize("fault", ["shifted", "another scene", "none", "too dark to tell"])
def test_a_pair_that_does_not_register_is_told(tmp_path, fault):
    light = scene("filaments", 1, (SIDE + 20, SIDE + 20)) * 20
    other = {"shifted": light[6 : SIDE + 6, 9 : SIDE + 9], "another scene": scene("filaments", 2) * 20}
    target = other.get(fault, light[:SIDE, :SIDE])
    noisy = recorded(light[:SIDE, :SIDE] * (1e-4 if fault == "too dark to tell" else 1), 1, 10.0)
    root = put(tmp_path, train__s1_noisy=noisy, train__s1_clean=(recorded(target * 50, 2) / 50).astype(np.float32))
    found = audit(root, scene=RULE)
    wrong = fault in other
    assert [leak.figure["contradiction"] for leak in found.leaks] == ["unregistered"] * wrong
    assert found.compared["pairs_open"] == (fault == "too dark to tell")


def test_the_documented_split_of_a_tile_set_is_a_leak(tmp_path):
    tile_set(tmp_path, documented=True)
    found = audit(tmp_path)
    assert kinds(found) == ["scene"]
    assert len(found.leaks) == 9
    assert all(leak.figure["across"][0] == "clean and noisy" and "test" in leak.splits for leak in found.leaks)
    assert {"tiles", "pairs", "splits", "leaks"} <= json.loads(json.dumps(found.to_dict())).keys()
    assert "clean and noisy of one scene" in found.text()


def test_a_tile_set_split_by_scene_does_not_leak(tmp_path):
    tile_set(tmp_path)
    assert audit(tmp_path).leaks == ()


def test_tiles_of_one_image_that_overlap_across_splits_are_found_by_position(tmp_path):
    meta = tile_set(tmp_path)
    tile = next(i for i, r in enumerate(meta["tiles"]) if r["split"] == "train")
    made.change(tmp_path, meta, tile, split="validation")
    found = audit(tmp_path)
    assert kinds(found) == ["overlap", "scene"]
    overlap = next(leak for leak in found.leaks if leak.kind == "overlap")
    assert overlap.figure["pairs"] == 3  # two edges of 2 px, one corner
    assert overlap.figure["overlap"] == pytest.approx(2 / made.SIZE, abs=1e-4)
    assert meta["tiles"][tile]["npy_path"] in overlap.figure["tiles"]


def test_a_copied_source_and_a_copied_tile_of_a_set_are_found(tmp_path):
    meta = tile_set(tmp_path)
    for row in meta["tiles"]:
        if row["scene_id"] in ("photo_00000", "photo_00001") and row["data_type"] == "noisy":
            row["source_sha256"] = "cd" * 32
    a, b = (next(r for r in meta["tiles"] if r["scene_id"] == f"astro_0000{k}") for k in (0, 2))
    shutil.copyfile(tmp_path / a["npy_path"], tmp_path / b["npy_path"])
    made.change(tmp_path, meta, meta["tiles"].index(b), **{k: a[k] for k in a if k.startswith(("norm_", "electron_"))})
    found = audit(tmp_path)
    assert kinds(found) == ["identical"]
    assert {leak.members for leak in found.leaks} == {
        ("photography/photo_00000_noisy.fits", "photography/photo_00001_noisy.fits"),
        (a["source_file"], b["source_file"]),
    }


def test_it_is_deterministic_and_does_not_depend_on_the_order_of_files(tmp_path):
    light = scene("stars", 1)
    names = {f"{'train' if n % 2 else 'test'}__{n}": recorded(light, n) for n in range(6)}
    first = audit(put(tmp_path / "a", **names), scene="").to_dict()
    assert first == audit(put(tmp_path / "b", **dict(reversed(names.items()))), scene="").to_dict()


def test_an_unreadable_image_is_listed_and_the_rest_audited(tmp_path):
    image = recorded(scene("stars", 1), 1)
    root = put(tmp_path, train__a=image, test__b=recorded(scene("stars", 1), 2))
    (root / "test" / "broken.npy").write_bytes(b"\x93NUMPY\x01\x00junk")
    found = audit(root, scene="")
    assert [p for p, _ in found.unreadable] == ["test/broken.npy"]
    assert len(found.leaks) == 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"scene": "(?P<scene"}, FrameError, "no regular expression"),
        ({"scene": r"(\d+)"}, FrameError, "no group named scene"),
        ({"scene": r"(?P<scene>\d+)(?P<what>x)"}, FrameError, "what"),
        ({"splits": {}}, ReadError, "no image has a split"),
        ({"splits": "absent.csv"}, ReadError, "absent.csv"),
    ],
)
def test_bad_input_says_what_to_do(tmp_path, options, error, words):
    root = put(tmp_path, train__1=np.ones((64, 64)))
    with pytest.raises(error, match=words):
        audit(root, **options)


def test_a_folder_without_images_or_none_is_refused(tmp_path):
    with pytest.raises(ReadError, match="holds no image"):
        audit(tmp_path)
    with pytest.raises(ReadError, match="no such folder"):
        audit(tmp_path / "absent")


def linked(root, files):
    for split, some in files.items():
        (root / split).mkdir(parents=True)
        for n, file in enumerate(some):
            (root / split / f"{n:03d}{''.join(file.suffixes[-2:])}").symlink_to(file)  # no name that says anything
    return root


def test_real_channels_of_a_w2s_field_split_by_file_are_a_leak(data, tmp_path):
    root = tmp_path / "w2s"
    for n, file in enumerate(sorted((data / "microscopy/w2s").glob("input*.tif"))):
        (root / ("train", "test")[n % 2]).mkdir(parents=True, exist_ok=True)
        (root / ("train", "test")[n % 2] / file.name).symlink_to(file)
    found = audit(root, scene=r"avg\d+_(?P<scene>\d+)_(?P<channel>\d)", pairs=0)
    assert [leak.kind for leak in found.leaks] == ["scene"] * 8
    assert all(leak.figure["across"][0] == "channels" for leak in found.leaks)
    assert [leak.kind for leak in audit(root, pairs=0).leaks] == ["scene"] * 8  # the names are known as they stand


def test_real_noisy_and_averaged_fields_are_matched_by_content_alone(data, tmp_path):
    files = {s: sorted((data / "microscopy/w2s").glob(k)) for s, k in (("train", "input*.tif"), ("test", "target*.tif"))}
    found = audit(linked(tmp_path, files), scene="")
    right = [leak for leak in found.leaks if len({Path(m).name for m in leak.members}) == 1]
    assert len(found.leaks) == len(right) >= 22  # of 24: nothing is matched wrongly


def test_real_drifting_exposures_are_one_leak_without_names(data, tmp_path):
    files = sorted((data / "astronomy/hatp32").glob("*.gz"))
    found = audit(linked(tmp_path, {"train": files[:25], "test": files[25:]}), scene="")
    assert [leak.kind for leak in found.leaks] == ["near-duplicate"]
    assert len(found.leaks[0].members) == len(files)


def test_real_photographs_are_no_duplicates_but_a_recompressed_copy_is(data, tmp_path):
    import cv2

    files = sorted((data / "demosaic/kodak").glob("*.png"))
    root = linked(tmp_path, {"train": files[::2], "test": files[1::2]})
    assert audit(root, scene="").leaks == ()
    cv2.imwrite(str(root / "test" / "copy.jpg"), cv2.imread(str(files[0]))[8:, 24:], [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert [leak.members for leak in audit(root, scene="").leaks] == [("test/copy.jpg", "train/000.png")]


def test_real_byte_identical_copy_is_found(data, tmp_path):
    files = sorted((data / "microscopy/w2s").glob("input*_0.tif"))[:4]
    root = linked(tmp_path, {"train": files[:2], "test": files[2:]})
    shutil.copyfile(files[0], root / "test" / "another_name.tif")
    assert [(leak.kind, leak.members) for leak in audit(root, scene="").leaks] == [
        ("identical", ("test/another_name.tif", "train/000.tif"))
    ]


def test_what_cannot_be_read_is_not_passed_and_told_once(tmp_path):
    root = put(tmp_path, train__s1_noisy=recorded(scene("spots", 1), 1), test__s2_noisy=recorded(scene("spots", 2), 2))
    put(root, test__s2_clean=scene("spots", 2))
    assert audit(root, scene=RULE).passed
    (root / "test" / "s2_noisy.npy").write_bytes(b"\x93NUMPY cut short")
    found = audit(root, scene=RULE)
    assert found.leaks == ()
    assert not found.passed
    assert [path for path, _ in found.unreadable] == ["test/s2_noisy.npy"]
    assert str(root) not in found.unreadable[0][1]
    assert found.text().splitlines()[-1].startswith("no leak found, but NOT passed: 1 cannot be read")
    assert found.to_dict()["passed"] is False


def test_the_strays_of_a_torn_scene_are_named(tmp_path):
    images = {f"{s}__s1_c{c}": np.random.default_rng(c).random((64, 64)) for c, s in enumerate(("train", "train", "test"))}
    found = audit(put(tmp_path, **images), scene=r"(?P<scene>s\d)")
    assert found.leaks[0].sentence.startswith("s1 is in test (1 image: test/s1_c2.npy) and train (2 images)")


def test_one_split_alone_is_told_to_be_compared_with_nothing(tmp_path):
    found = audit(put(tmp_path, train__a=recorded(scene("spots", 1), 1), train__b=recorded(scene("spots", 2), 2)), scene="")
    assert found.passed
    assert any(note.startswith("all images are in one split, train") for note in found.notes)


def noise_set(out, **law):
    """One pair of 256 px tiles [e-], Poisson and read noise 3 e-, the clean one the mean of 50; rows as `law` says."""
    rng = np.random.default_rng(20261121)
    light = simulate.filaments((256, 256), rng) * 2
    tiles = {"noisy": recorded(light, 1), "clean": np.mean([recorded(light, 2 + k) for k in range(50)], axis=0)}
    rows = []
    for kind, electrons in tiles.items():
        row = made.row("astronomy", "field", kind, "train", 0, electrons, tile_size=256, **law)
        (out / row.npy_path).parent.mkdir(parents=True)
        np.save(out / row.npy_path, ((electrons + 5) / 170).astype(np.float32))
        rows.append(row.to_dict())
    made.write_metadata(out, {"profile": "physical", "split": "scene", "pairs": [], "unreadable": [], "tiles": rows})
    return out


def test_a_row_whose_noise_the_pixels_bear_out_is_believed(tmp_path):
    found = audit(noise_set(tmp_path, noise_a=1.0, noise_b=9.0))
    assert found.leaks == ()
    said = " ".join(found.notes)
    assert float(re.search(r"noise of the noisy tiles: (\S+) times", said)[1]) == pytest.approx(1, abs=0.1)
    # of the mean of 50 frames 1/50 at one brightness; the median tile is darker than the mean pixel
    assert 0.01 < float(re.search(r"the clean tiles' noise has (\S+) times", said)[1]) < 0.05


@pytest.mark.parametrize(
    "law", [{"noise_a": 3.0, "noise_b": 81.0}, {"noise_a": 0.2, "noise_b": 1.0}], ids=["too much", "too little"]
)
def test_a_noise_model_that_the_residual_contradicts_is_told(tmp_path, law):
    found = audit(noise_set(tmp_path, **law))
    assert [(leak.kind, leak.figure["contradiction"]) for leak in found.leaks] == [("label", "noise")]
    assert "times the variance that its row states" in found.leaks[0].sentence


def test_noise_that_no_row_states_is_no_contradiction(tmp_path):
    found = audit(noise_set(tmp_path, noise_a=None, noise_b=None))
    assert found.leaks == ()
    assert not any("noise" in note for note in found.notes)


def test_one_wrong_noise_model_and_one_copied_source_are_told_once(tmp_path):
    rng = np.random.default_rng(20261122)
    rows = []
    scenes = [simulate.filaments((512, 256), rng) * 2 for _ in range(2)]
    for k, (split, light) in enumerate(zip(("train", "train", "test"), (*scenes, scenes[1]), strict=True)):
        for kind, frames in (("noisy", 1), ("clean", 50)):
            whole = np.mean([recorded(light, 99 + n) for n in range(frames)], axis=0)
            for number in range(2):
                electrons = whole[256 * number : 256 * number + 256]
                law = {"noise_a": 0.2, "noise_b": 1.0, "source_sha256": ""}
                place = {"image_x": 0, "image_y": 256 * number, "tile_size": 256, "pair_id": f"s{k}"}
                row = made.row("astronomy", f"s{k}", kind, split, number, electrons, **place, **law)
                (tmp_path / row.npy_path).parent.mkdir(parents=True, exist_ok=True)
                np.save(tmp_path / row.npy_path, ((electrons + 5) / 170).astype(np.float32))
                rows.append(row.to_dict())
    made.write_metadata(tmp_path, {"profile": "physical", "split": "scene", "pairs": [], "unreadable": [], "tiles": rows})
    found = audit(tmp_path)
    labels = [leak for leak in found.leaks if leak.kind == "label"]
    assert [leak.figure["pairs"] for leak in labels] == [3]
    assert "3 noisy sources" in labels[0].sentence
    copies = [leak.members for leak in found.leaks if leak.kind == "identical"]
    assert len(copies) == len(set(copies)) == 2  # noisy and clean, though two tiles of each are copies
