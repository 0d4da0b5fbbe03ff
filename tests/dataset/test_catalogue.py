"""firstlight manifest: every image by its bytes and its header; what cannot be read is listed."""

import hashlib
import runpy
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from firstlight import dataset
from firstlight.cli import main
from firstlight.errors import FrameError, ReadError

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("skies.py"))))


def test_every_kind(tmp_path: Path) -> None:
    root = made.write_skies(tmp_path / "raw")
    found = {i.filename: i for i in dataset.catalogue(root).images}
    assert sorted(found) == ["clear.png", "deep.tif", "float.fits", "grey.png", "hubble_f606w.png", "one_a.fits", "one_b.fits"]
    assert {k: (i.fmt, i.mode, i.channels) for k, i in found.items()} == {
        "clear.png": ("PNG", "RGBA", 3),
        "deep.tif": ("TIFF", "uint16", 1),
        "float.fits": ("FITS", "float32", 1),
        "grey.png": ("PNG", "L", 1),
        "hubble_f606w.png": ("PNG", "RGB", 3),
        "one_a.fits": ("FITS", "uint16", 1),
        "one_b.fits": ("FITS", "uint16", 1),
    }
    for name, image in found.items():
        raw = (root / name).read_bytes()
        assert (image.sha1, image.bytes) == (hashlib.sha1(raw).hexdigest(), len(raw))
        assert image.id == image.sha1[:12]
        assert (image.height, image.width) == (150, 190)


def test_telescope_and_band_are_the_headers_or_said_to_be_the_names(tmp_path: Path) -> None:
    root = made.write_skies(tmp_path / "raw")
    made.write_fits(root / "sdss_r.fits", made.field(12), FILTER="g")
    result = dataset.catalogue(root)
    found = {i.filename: (i.telescope, i.band) for i in result.images}
    assert found["one_a.fits"] == ("SAAO 1.0m", "V")
    assert found["hubble_f606w.png"] == ("HST", "F606W")
    assert found["grey.png"] == ("", "")
    assert found["sdss_r.fits"] == ("SDSS", "g")
    assert "hubble_f606w.png: telescope HST by its name alone" in result.notes
    assert "hubble_f606w.png: band F606W by its name alone" in result.notes
    assert "sdss_r.fits: its header says band g, its name r: the header's is taken" in result.notes
    assert any("1 files are no image" in n and ".txt" in n for n in result.notes)


def test_what_cannot_be_read_is_listed_and_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = made.write_skies(tmp_path / "raw")
    (root / "cut.png").write_bytes((root / "grey.png").read_bytes()[:200])
    (root / "gone.fits").symlink_to(root / "nowhere")
    (root / "again.png").write_bytes((root / "grey.png").read_bytes())
    assert main(["manifest", str(root), "-o", str(tmp_path / "i.csv"), "--print-summary"]) == 1
    said = capsys.readouterr().out
    assert "unreadable: cut.png: " in said
    assert "unreadable: gone.fits: " in said
    assert "has the same bytes as" in said
    assert len(dataset.read_images(tmp_path / "i.csv")) == 8


def test_the_output_of_every_run_is_the_same(tmp_path: Path) -> None:
    root = made.write_skies(tmp_path / "raw")
    for name in ("a", "b"):
        assert main(["manifest", str(root), "-o", str(tmp_path / f"{name}.csv")]) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_sample_of_a_manifest(tmp_path: Path) -> None:
    root = made.write_skies(tmp_path / "raw")
    assert main(["manifest", str(root), "-o", str(tmp_path / "i.csv")]) == 0
    every = dataset.read_images(tmp_path / "i.csv")
    drawn = []
    for seed in (1, 1, 2, 3):
        options = ["-o", str(tmp_path / "s.csv"), "--sample", "3", "--seed", str(seed)]
        assert main(["manifest", str(tmp_path / "i.csv"), *options]) == 0
        drawn.append(dataset.read_images(tmp_path / "s.csv"))
    assert drawn[0] == drawn[1]
    assert len({tuple(d) for d in drawn}) > 1
    for some in drawn:
        assert [i for i in every if i in some] == some
        assert len(some) == 3
    assert main(["manifest", str(tmp_path / "i.csv"), "-o", str(tmp_path / "s.csv"), "--sample", "8"]) == 2
    with pytest.raises(FrameError, match="expected 1 to 7"):
        dataset.sampled(dataset.catalogue(root), 0, 1)


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ReadError, match="holds no image"):
        dataset.catalogue(tmp_path)
    with pytest.raises(ReadError, match="is no folder"):
        dataset.catalogue(tmp_path / "absent")


def test_several_images_in_one_file_are_said(tmp_path: Path) -> None:
    from astropy.io import fits

    planes = [fits.ImageHDU(made.field(k, (20, 30)), name=f"P{k}") for k in range(3)]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(tmp_path / "many.fits")
    notes = dataset.catalogue(tmp_path).notes
    assert any("many.fits: holds 3 images" in n for n in notes)


def test_16_bits_are_in_the_mode(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 9, 3), 40000, np.uint16))
    assert dataset.catalogue(tmp_path).images[0].mode == "RGB;16"
