"""firstlight patches: every pixel in a patch, every scaling undone, the documented profile beside its own arithmetic."""

import csv
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile

from firstlight import dataset, io
from firstlight.cli import main
from firstlight.errors import FrameError, WriteError
from firstlight.frame import Flag
from firstlight.noise import Noise

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("skies.py"))))
SMALL = ["--tile", "64", "--stride", "32"]


def listed(root: Path, out: Path) -> Path:
    """images.csv of a folder."""
    return dataset.write_images(out, dataset.catalogue(root).images)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return listed(made.write_skies(tmp_path / "raw"), tmp_path / "images.csv")


def cut(tmp_path: Path, images: Path, *options: str) -> list[dataset.Patch]:
    assert main(["patches", str(images), "-o", str(tmp_path / "p"), "--manifest", str(tmp_path / "p.csv"), *options]) == 0
    return dataset.read_patches(tmp_path / "p.csv")


def parent(patch: dataset.Patch) -> np.ndarray:
    data = np.asarray(io.read(patch.parent_path).data)
    return data[..., patch.y : patch.y + patch.height, patch.x : patch.x + patch.width]


@pytest.mark.parametrize(
    ("shape", "starts"),
    [
        ((1024, 1280), [[0, 256, 512], [0, 256, 512, 768]]),
        ((1000, 1500), [[0, 256, 488], [0, 256, 512, 768, 988]]),
        ((600, 800), [[0, 88], [0, 256, 288]]),
    ],
)
def test_the_grid_of_the_documented_tile_and_stride(shape: tuple[int, int], starts: list[list[int]], tmp_path: Path) -> None:
    """Starts from FACTS: tile 512, stride 256, the last flush with the edge."""
    (tmp_path / "raw").mkdir()
    cv2.imwrite(str(tmp_path / "raw" / "a.png"), np.random.default_rng(0).integers(0, 255, shape, np.uint8))
    found = cut(tmp_path, listed(tmp_path / "raw", tmp_path / "i.csv"))
    assert sorted({p.y for p in found}) == starts[0]
    assert sorted({p.x for p in found}) == starts[1]
    assert len(found) == len(starts[0]) * len(starts[1])
    assert {(p.height, p.width, p.dtype) for p in found} == {(512, 512, "float32")}


def test_every_pixel_comes_back(images: Path, tmp_path: Path) -> None:
    found = cut(tmp_path, images, *SMALL)
    seen = {p.parent_path: np.zeros((p.parent_height, p.parent_width), bool) for p in found}
    for p in found:
        want, got = parent(p), dataset.patch_values(p)
        assert got.dtype == want.dtype
        if want.dtype.kind == "f":
            np.testing.assert_allclose(got, want, rtol=3e-7)
        else:
            np.testing.assert_array_equal(got, want)
        seen[p.parent_path][p.y : p.y + p.height, p.x : p.x + p.width] = True
    assert len(seen) == 7
    assert all(s.all() for s in seen.values())


def test_one_scaling_an_image_by_its_percentiles_and_nothing_clipped(images: Path, tmp_path: Path) -> None:
    found = [p for p in cut(tmp_path, images, *SMALL, "--low", "2", "--high", "98") if p.parent_path.endswith("one_a.fits")]
    low, high = np.percentile(np.asarray(io.read(found[0].parent_path).data), [2, 98])
    said = {p.scaling for p in found}
    assert len(said) == 1
    assert json.loads(said.pop()) == {"scale": high - low, "offset": -low, "low": 2.0, "high": 98.0}
    values = np.concatenate([np.load(p.path).ravel() for p in found])
    assert values.min() < 0
    assert values.max() > 1


@pytest.mark.filterwarnings("always:profile 'documented'")
def test_the_documented_profile(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Percentiles 1 and 99.5 of each patch, clipped to [0, 1], float16."""
    found = cut(tmp_path, images, *SMALL, "--profile", "documented")
    assert "loses for good" in capsys.readouterr().err
    for p in found[::7]:
        piece = parent(p).astype(np.float64)
        low, high = np.percentile(piece, [1, 99.5]) if "clear" not in p.parent_path else (None, None)
        if low is None:
            continue
        want = np.clip((piece - low) / (high - low), 0, 1)
        stored = np.load(p.path)
        assert stored.dtype == np.float16
        np.testing.assert_allclose(stored, want, atol=2**-11)
        assert json.loads(p.scaling)["clip"] == [0.0, 1.0]
        inside = (want > 0) & (want < 1)
        np.testing.assert_allclose(dataset.patch_values(p)[inside], piece[inside], atol=(high - low) * 2**-11)


def test_float16_says_what_it_costs_and_refuses_what_it_cannot_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw").mkdir()
    made.write_fits(tmp_path / "raw" / "a.fits", made.field(1).astype(np.float32))
    faint = np.random.default_rng(1).normal(0, 1e-3, (90, 90)).astype(np.float32)
    faint[40, 40] = 1e4
    made.write_fits(tmp_path / "raw" / "b.fits", faint)
    images = listed(tmp_path / "raw", tmp_path / "i.csv")
    arguments = ["patches", str(images), "-o", str(tmp_path / "p"), "--manifest", str(tmp_path / "p.csv"), "--dtype", "float16"]
    assert main(arguments) == 1
    said = capsys.readouterr().out
    assert "float16 keeps 11 bits" in said
    assert "b.fits: scaled values reach" in said
    assert {Path(p.parent_path).name for p in dataset.read_patches(tmp_path / "p.csv")} == {"a.fits"}


def test_transparent_pixels_are_flagged_and_take_no_part_in_the_percentiles(images: Path, tmp_path: Path) -> None:
    found = [p for p in cut(tmp_path, images, "--tile", "256") if "clear" in p.parent_path]
    assert found[0].valid == pytest.approx(1 - 600 / (150 * 190))
    flags = np.load(found[0].path.replace(".npy", ".flags.npy"))
    assert flags.shape == (3, 150, 190)
    assert (flags[:, :20, :30] == Flag.NO_DATA).all()
    assert np.count_nonzero(flags) == 1800
    kept = parent(found[0])[flags == 0]
    low, high = np.percentile(kept, [1, 99.5])
    assert high < 255
    law = json.loads(found[0].scaling)
    assert (law["offset"], law["scale"]) == (-low, high - low)


def test_nan_stays_and_is_counted(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    data = made.field(1).astype(np.float32)
    data[:10] = np.nan
    made.write_fits(tmp_path / "raw" / "a.fits", data)
    made.write_fits(tmp_path / "raw" / "empty.fits", np.full((20, 20), np.nan, np.float32))
    made.write_fits(tmp_path / "raw" / "flat.fits", np.full((20, 20), 7, np.uint16))
    found = {Path(p.parent_path).name: p for p in cut(tmp_path, listed(tmp_path / "raw", tmp_path / "i.csv"))}
    assert found["a.fits"].valid == pytest.approx(140 / 150)
    np.testing.assert_array_equal(np.isnan(dataset.patch_values(found["a.fits"])), np.isnan(data))
    assert found["empty.fits"].valid == 0
    assert (dataset.patch_values(found["flat.fits"]) == 7).all()


def test_the_noise_goes_along(images: Path, tmp_path: Path) -> None:
    some = [i for i in dataset.read_images(images) if i.filename.startswith("one_")]
    found = cut(tmp_path, dataset.write_images(images, some), *SMALL, "--detector", "gain=2,read_noise=5,offset=100")
    frame = dataset.patch_frame(next(p for p in found if p.parent_path.endswith("one_a.fits")))
    assert isinstance(frame.noise, Noise)
    np.testing.assert_allclose(frame.noise.variance(np.array(500.0)), 400 / 2 + (5 / 2) ** 2)
    assert frame.data.dtype == np.uint16


def test_another_run_keeps_what_is_done_and_mends_what_is_not(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = cut(tmp_path, images, *SMALL)
    table = (tmp_path / "p.csv").read_bytes()
    kept, lost = found[0], found[-1]
    before = Path(kept.path).stat().st_mtime_ns
    Path(lost.path).write_bytes(b"cut short")
    capsys.readouterr()
    assert cut(tmp_path, images, *SMALL) == found
    assert "6 of them cut before" in capsys.readouterr().out
    assert Path(kept.path).stat().st_mtime_ns == before
    assert (tmp_path / "p.csv").read_bytes() == table
    np.testing.assert_array_equal(dataset.patch_values(lost), parent(lost))


def test_an_interrupted_run_goes_on_and_equals_one_that_was_not(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from firstlight.dataset import patches

    whole = cut(tmp_path, images, *SMALL)
    want = {p.patch_id: np.load(p.path) for p in whole}
    calls = []

    def breaks(path: Path, array: np.ndarray) -> int:
        calls.append(path)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return original(path, array)

    original = patches.save
    other = tmp_path / "other"
    monkeypatch.setattr(patches, "save", breaks)
    with pytest.raises(KeyboardInterrupt):
        dataset.cut_patches(images, other, tmp_path / "o.csv", dataset.Patching(64, 32))
    monkeypatch.setattr(patches, "save", original)
    assert not (tmp_path / "o.csv").exists()
    done = dataset.cut_patches(images, other, tmp_path / "o.csv", dataset.Patching(64, 32))
    assert done.kept >= 1
    found = dataset.read_patches(tmp_path / "o.csv")
    assert {p.patch_id for p in found} == set(want)
    assert all(np.array_equal(np.load(p.path), want[p.patch_id]) for p in found)
    assert {f.relative_to(other) for f in other.glob("*/*.npy")} == {Path(p.path).relative_to(other) for p in found} | {
        f.relative_to(other) for f in other.glob("*/*.flags.npy")
    }


def test_images_that_are_gone_take_their_patches_with_them(images: Path, tmp_path: Path) -> None:
    cut(tmp_path, images, *SMALL)
    fewer = dataset.write_images(tmp_path / "fewer.csv", dataset.read_images(images)[:2])
    found = cut(tmp_path, fewer, *SMALL)
    left = {str(f) for f in (tmp_path / "p").glob("*/*.npy") if not f.name.endswith(".flags.npy")}
    assert left == {p.path for p in found}


def test_one_folder_one_rule(images: Path, tmp_path: Path) -> None:
    cut(tmp_path, images, *SMALL)
    with pytest.raises(FrameError, match="stride 32, tile 64, got stride 256, tile 512"):
        dataset.cut_patches(images, tmp_path / "p", tmp_path / "p.csv")


def test_what_cannot_be_cut_is_named_and_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = made.write_skies(tmp_path / "raw")
    tifffile.imwrite(root / "cube.tif", np.zeros((5, 40, 40), np.float32))
    tifffile.imwrite(root / "alpha.tif", np.zeros((20, 20, 4), np.uint8), photometric="rgb", extrasamples=["unassalpha"])
    table = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(root / "palette.tif", np.zeros((20, 20), np.uint8), photometric="palette", colormap=table)
    images = listed(root, tmp_path / "i.csv")
    made.write_fits(tmp_path / "new.fits", made.field(33))
    (tmp_path / "new.fits").replace(root / "float.fits")
    (root / "grey.png").unlink()
    assert main(["patches", str(images), "-o", str(tmp_path / "p"), "--manifest", str(tmp_path / "p.csv"), *SMALL]) == 1
    said = capsys.readouterr().out
    assert "cube.tif: has axes" in said
    assert said.count("a TIFF with opacity or a colour table") == 1
    assert "alpha.tif, " in said
    assert "palette.tif: is a TIFF" in said
    assert "float.fits: has changed since its manifest" in said
    assert "grey.png: cannot be read (No such file" in said
    assert len({p.parent_id for p in dataset.read_patches(tmp_path / "p.csv")}) == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"low": 50, "high": 50}, "0 <= low < high <= 100"),
        ({"stride": 65, "tile": 64}, "no gaps"),
        ({"stride": 0}, "no gaps"),
        ({"dtype": "float64"}, "float16, float32"),
        ({"profile": "other"}, "physical, documented"),
    ],
)
def test_options_that_are_none(options: dict[str, object], said: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=said):
        dataset.cut_patches(images, tmp_path / "p", tmp_path / "p.csv", dataset.Patching(**options))  # type: ignore[arg-type]
    assert not (tmp_path / "p").exists()


def test_copies_are_cut_once(images: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "copy.png").write_bytes((raw / "grey.png").read_bytes())
    found = cut(tmp_path, listed(raw, tmp_path / "i.csv"), *SMALL)
    assert len({p.parent_path for p in found}) == 7
    assert len({p.patch_id for p in found}) == len(found)


def test_the_rows_say_what_the_contract_says(images: Path, tmp_path: Path) -> None:
    found = cut(tmp_path, images, *SMALL)
    with (tmp_path / "p.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["path"] == f"p/{found[0].parent_id}/{found[0].patch_id}.npy"
    assert row["parent_path"].startswith("raw/")
    assert found[0].parent_id == io.sha1(found[0].parent_path)[:12]


def test_a_folder_that_is_somebody_elses(images: Path, tmp_path: Path) -> None:
    (tmp_path / "p").write_text("a file")
    with pytest.raises(WriteError):
        dataset.cut_patches(images, tmp_path / "p", tmp_path / "p.csv")
