"""Patches of `firstlight split` as training data: in the parent's unit, with its noise, validated on images apart."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from firstlight import dataset
from firstlight.cli import main
from firstlight.errors import FrameError
from firstlight.train import patch_set
from firstlight.train.job import measured

skies = Path(__file__).parents[1] / "dataset" / "skies.py"
made = SimpleNamespace(**runpy.run_path(str(skies)))
DETECTOR = "gain=2,read_noise=5,offset=0"


def a_set(folder: Path, *, profile: str = "physical", detector: str | None = None) -> Path:
    """Patches of six star fields, with splits."""
    (folder / "raw").mkdir()
    for k in range(6):
        made.write_fits(folder / "raw" / f"{k}.fits", made.field(k), BUNIT="adu")
    images = dataset.write_images(folder / "i.csv", dataset.catalogue(folder / "raw").images)
    options = dataset.Patching(96, 64, profile=profile, detector=detector)
    dataset.cut_patches(images, folder / "p", folder / "p.csv", options)
    dataset.split_patches(images, folder / "p.csv", folder / "s.json", folder / "ps.csv", look=False)
    return folder / "ps.csv"


def test_planes_are_the_parents_electrons_stabilised(tmp_path: Path) -> None:
    path = a_set(tmp_path, detector=DETECTOR)
    patches = patch_set.chosen(path, "train")
    assert patch_set.known(patches, None)
    planes = patch_set.planes(patches, measured, detector=None, unit=None, colour=False)
    assert len(planes) == len(patches)
    row = patches[5]
    counts = dataset.patch_values(row).astype(float)
    want = 2 * np.sqrt(counts * 2 + 3 / 8 + 25)  # generalised Anscombe of electrons
    np.testing.assert_allclose(planes[5].z[0], want, rtol=1e-5)


def test_training_and_validation_are_images_apart(tmp_path: Path) -> None:
    path = a_set(tmp_path)
    train, validation = (patch_set.chosen(path, s) for s in ("train", "validation"))
    assert {p.parent_id for p in train}.isdisjoint(p.parent_id for p in validation)
    assert not patch_set.known(train, None)
    assert patch_set.known(train, DETECTOR)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = a_set(tmp_path)
    with pytest.raises(FrameError, match="it has no split"):
        patch_set.chosen(tmp_path / "p.csv", "train")
    rows = dataset.read_patches(path)
    dataset.write_patches(path, [r for r in rows if r.split != "validation"], split=True)
    with pytest.raises(FrameError, match="no patch in split 'validation'"):
        patch_set.chosen(path, "validation")


def test_clipped_patches_have_no_detector(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="loses for good"):
        path = a_set(tmp_path, profile="documented")
    with pytest.raises(FrameError, match="were clipped"):
        patch_set.chosen(path, "train", detector=DETECTOR)
    patches = patch_set.chosen(path, "train")
    assert np.isfinite(patch_set.planes(patches, measured, detector=None, unit=None, colour=False)[0].z).all()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = a_set(tmp_path, detector=DETECTOR)
    out = tmp_path / "m.safetensors"
    assert main(["train", "r2r", str(path), "-o", str(out), "--budget", "3steps", "--patch", "32", "--batch", "2"]) == 0, (
        capsys.readouterr().err
    )
    assert "r2r, 3 steps" in capsys.readouterr().out
    assert out.is_file()
    assert main(["train", "supervised", str(path), "-o", str(tmp_path / "n.safetensors")]) == 2
    assert "bring no target" in capsys.readouterr().err
