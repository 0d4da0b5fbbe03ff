"""The CSV contract: what is written is read, what is none is refused by column and line, scalings are undone."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.dataset import Image, Patch, patch_frame, patch_values, read_images, read_patches, read_splits
from firstlight.dataset.manifest import write_images, write_patches, write_splits
from firstlight.errors import ReadError
from firstlight.frame import Unit
from firstlight.noise import Noise, Unmodelled

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12)


def an_image(folder: Path, **changes: object) -> Image:
    return replace(
        Image(
            "05b8fb844e0a", "05b8fb844e0a" + "0" * 28, str(folder / "raw/a.png"), "a.png", "PNG", "RGB", 9, 8, 3, "", "", 7, "t"
        ),
        **changes,  # type: ignore[arg-type]
    )


def a_patch(folder: Path, **changes: object) -> Patch:
    row = Patch("p", "05b8fb844e0a", str(folder / "raw/a.png"), str(folder / "p.npy"), 0, 0, 4, 6, 1, "float32", "", 4, 6)
    return replace(row, scaling='{"scale": 50.0, "offset": -100.0}', **changes)  # type: ignore[arg-type]


@given(telescope=TEXT, band=TEXT)
def test_images_come_back(telescope: str, band: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("csv")
    images = [an_image(folder, telescope=telescope, band=band)]
    assert read_images(write_images(folder / "images.csv", images)) == images


def test_the_columns_are_the_documented_ones(tmp_path: Path) -> None:
    said = "id,sha1,path,filename,fmt,mode,width,height,channels,telescope,band,bytes,mtime"
    assert write_images(tmp_path / "i.csv", [an_image(tmp_path)]).read_text().splitlines()[0] == said
    said = "patch_id,parent_id,parent_path,path,y,x,height,width,channels,dtype,scaling,parent_height,parent_width"
    for split in (False, True):
        head = write_patches(tmp_path / "p.csv", [a_patch(tmp_path)], split=split).read_text().splitlines()[0]
        assert head.startswith(said)
        assert head.endswith(",split") is split


def test_a_project_can_be_moved(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "manifests").mkdir(parents=True)
    write_patches(here / "manifests" / "p.csv", [a_patch(here)])
    here.rename(there)
    found = read_patches(there / "manifests" / "p.csv")[0]
    assert (found.path, found.parent_path) == (str(there / "p.npy"), str(there / "raw/a.png"))


def test_columns_beyond_are_left_alone_and_val_is_validation(tmp_path: Path) -> None:
    row = {**vars(a_patch(tmp_path)), "split": "val", "mine": "x"}
    with (tmp_path / "p.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(row))
        table.writeheader()
        table.writerow(row)
    assert read_patches(tmp_path / "p.csv")[0].split == "validation"


def test_what_is_no_manifest_is_refused_by_name(tmp_path: Path) -> None:
    path = write_images(tmp_path / "i.csv", [an_image(tmp_path)])
    with pytest.raises(ReadError, match="no column patch_id, parent_id"):
        read_patches(path)
    path.write_text(path.read_text().replace(",9,8,3,", ",nine,8,3,"))
    with pytest.raises(ReadError, match=r"line 2: width is 'nine', expected a whole number"):
        read_images(path)
    path.write_bytes(b"\xff\xfe\0\x01")
    with pytest.raises(ReadError, match="expected CSV"):
        read_images(path)
    path.write_text("id,sha1\nx,y,z\n")
    with pytest.raises(ReadError, match="has no column path"):
        read_images(path)
    with pytest.raises(ReadError, match="No such file"):
        read_images(tmp_path / "absent.csv")


def test_splits_come_back_and_others_are_refused(tmp_path: Path) -> None:
    ids = {"train": ["a", "b"], "validation": [], "test": ["c"]}
    assert read_splits(write_splits(tmp_path / "s.json", ids, {"seed": 42})) == ids
    (tmp_path / "s.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    assert read_splits(tmp_path / "s.json") == {"train": ["a"], "validation": ["b"], "test": []}
    for text in ("[]", '{"a": "b"}', '{"train": [1]}', "{"):
        (tmp_path / "s.json").write_text(text)
        with pytest.raises(ReadError, match="expected"):
            read_splits(tmp_path / "s.json")


@pytest.mark.parametrize(("kind", "top"), [("uint8", 255), ("uint16", 65535), ("int16", 32767)])
@given(low=st.floats(0, 1000), width=st.floats(0.5, 5000))
def test_whole_numbers_come_back_exactly(
    kind: str, top: int, low: float, width: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("patch")
    codes = np.random.default_rng(3).integers(0, top, (4, 6), dtype=kind, endpoint=True)
    np.save(folder / "p.npy", ((codes - low) / width).astype(np.float32))
    row = a_patch(folder, parent_dtype=kind)
    row = replace(row, scaling=json.dumps({"scale": width, "offset": -low}))
    found = patch_values(row)
    np.testing.assert_array_equal(found, codes)
    assert found.dtype == kind


def test_a_scaling_a_channel(tmp_path: Path) -> None:
    data = np.random.default_rng(4).normal(0, 1, (3, 4, 6)).astype(np.float32)
    np.save(tmp_path / "p.npy", data)
    laws = [{"scale": 2.0**k, "offset": -k} for k in range(3)]
    row = replace(a_patch(tmp_path, channels=3), scaling=json.dumps(laws))
    np.testing.assert_allclose(patch_values(row), [data[k] * 2.0**k + k for k in range(3)], rtol=1e-6)


@pytest.mark.parametrize(
    "scaling", ["", "{}", '{"scale": 0, "offset": 0}', '{"scale": 1, "offset": null}', "[1]", '[{"scale": 1, "offset": NaN}]']
)
def test_a_scaling_that_is_none(scaling: str, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros((4, 6), np.float32))
    with pytest.raises(ReadError, match="scaling"):
        patch_values(replace(a_patch(tmp_path), scaling=scaling))


def test_a_file_that_is_not_what_its_row_says(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros((4, 5), np.float32))
    with pytest.raises(ReadError, match=r"its row says float32 \(4, 6\)"):
        patch_values(a_patch(tmp_path))
    np.save(tmp_path / "p.npy", np.zeros((4, 6), np.float64))
    with pytest.raises(ReadError, match="holds float64"):
        patch_values(a_patch(tmp_path))


def test_a_patch_as_a_frame(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.ones((4, 6), np.float32))
    known = a_patch(tmp_path, unit="adu", noise='{"a": 0.5, "b": 6.25, "offset": 100.0}')
    frame = patch_frame(known)
    assert (frame.axes, frame.unit) == ("YX", Unit.ADU)
    assert isinstance(frame.noise, Noise)
    np.testing.assert_allclose(frame.noise.variance(np.array(300.0)), 0.5 * 200 + 6.25)
    clipped = replace(known, scaling='{"scale": 50.0, "offset": -100.0, "clip": [0.0, 1.0]}')
    noise = patch_frame(clipped).noise
    assert isinstance(noise, Unmodelled)
    assert "clipped" in noise.reason
    with pytest.raises(ReadError, match="unit 'photons'"):
        patch_frame(replace(known, unit="photons"))
