"""firstlight qc: a good set passes; every way to break one is found and named."""

import json
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from firstlight import dataset
from firstlight.cli import main
from firstlight.errors import FrameError, ReadError

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("skies.py"))))


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, Path]:
    """patches_splits.csv and splits.json of the seven skies."""
    root = made.write_skies(tmp_path / "raw")
    images = dataset.write_images(tmp_path / "i.csv", dataset.catalogue(root).images)
    dataset.cut_patches(images, tmp_path / "p", tmp_path / "p.csv", dataset.Patching(64, 32))
    dataset.split_patches(images, tmp_path / "p.csv", tmp_path / "s.json", tmp_path / "ps.csv")
    return tmp_path / "ps.csv", tmp_path / "s.json"


def test_a_good_set_passes(whole: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qc", "--patches", str(whole[0]), "--splits", str(whole[1])]) == 0
    said = capsys.readouterr().out
    assert "FAIL" not in said
    assert said.rstrip().endswith("passed")
    found = dataset.qc(*whole)
    assert sum(found.patches.values()) == len(dataset.read_patches(whole[0])) == 140
    assert sum(found.images.values()) == 7


Rows = list[dataset.Patch]


def _torn(rows: Rows) -> Rows:
    other = "test" if rows[0].split == "train" else "train"
    return [replace(rows[0], split=other), *rows[1:]]


def _gone(rows: Rows) -> Rows:
    Path(rows[3].path).unlink()
    return rows


def _other_shape(rows: Rows) -> Rows:
    np.save(rows[3].path, np.zeros((64, 63), np.float32))
    return rows


def _other_type(rows: Rows) -> Rows:
    np.save(rows[3].path, np.load(rows[3].path).astype(np.float64))
    return rows


def _not_finite(rows: Rows) -> Rows:
    data = np.load(rows[3].path)
    data[..., 2, 2] = np.nan
    np.save(rows[3].path, data)
    return rows


def _beyond(rows: Rows) -> Rows:
    law = json.dumps({**json.loads(rows[3].scaling), "clip": [0, 1]})
    return [replace(r, scaling=law) if r is rows[3] else r for r in rows]


def _no_scaling(rows: Rows) -> Rows:
    return [replace(r, scaling="{}") if r is rows[3] else r for r in rows]


def _uncovered(rows: Rows) -> Rows:
    return [r for r in rows if not (r.parent_id == rows[3].parent_id and r.y == 0)]


def _twice(rows: Rows) -> Rows:
    return [*rows, rows[3]]


def _outside(rows: Rows) -> Rows:
    return [replace(r, x=r.parent_width - 10) if r is rows[3] else r for r in rows]


def _uncut(rows: Rows) -> Rows:
    return [r for r in rows if r.parent_id != rows[3].parent_id]


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (_torn, "parents"),
        (_torn, "agree"),
        (_gone, "files"),
        (_other_shape, "files"),
        (_other_type, "files"),
        (_not_finite, "values"),
        (_beyond, "values"),
        (_no_scaling, "scaling"),
        (_uncovered, "cover"),
        (_outside, "cover"),
        (_twice, "rows"),
        (_uncut, "complete"),
    ],
)
def test_what_is_broken_is_named(
    broken: Callable[[Rows], Rows], check: str, whole: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = dataset.read_patches(whole[0])
    dataset.write_patches(whole[0], broken(rows), split=True)
    failed = {c.name: c for c in dataset.qc(*whole).checks if c.ok is False}
    named = rows[0] if broken is _torn else rows[3]
    assert check in failed
    assert any(named.patch_id in o or named.parent_id in o for o in failed[check].offenders)
    assert main(["qc", "--patches", str(whole[0]), "--splits", str(whole[1])]) == 1
    assert "NOT passed" in capsys.readouterr().out


def test_an_image_in_two_splits_of_the_json(whole: tuple[Path, Path]) -> None:
    ids = json.loads(whole[1].read_text())
    ids["test"].append(ids["train"][0])
    whole[1].write_text(json.dumps(ids))
    failed = {c.name: c for c in dataset.qc(*whole).checks if c.ok is False}
    assert failed["parents"].offenders == (f"{ids['train'][0]}: in train and test",)


def test_a_near_copy_in_two_splits_is_a_leak(tmp_path: Path) -> None:
    """Two exposures of one field, which the documented shuffle may tear apart."""
    root = made.write_skies(tmp_path / "raw")
    images = dataset.write_images(tmp_path / "i.csv", dataset.catalogue(root).images)
    dataset.cut_patches(images, tmp_path / "p", tmp_path / "p.csv", dataset.Patching(128, 128))
    pair = {i.id for i in dataset.read_images(images) if i.filename.startswith("one_")}
    for seed in range(20):
        with pytest.warns(UserWarning, match="one by one"):
            done = dataset.split_patches(
                images, tmp_path / "p.csv", tmp_path / "s.json", tmp_path / "ps.csv", seed=seed, profile="documented"
            )
        torn = not any(pair <= set(ids) for ids in done.ids.values())
        if torn:
            break
    assert torn
    found = dataset.qc(tmp_path / "ps.csv", tmp_path / "s.json")
    assert not found.passed
    assert {leak.kind for leak in found.audit.leaks} == {"near-duplicate"}


def test_the_loader(whole: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["qc", "--patches", str(whole[0]), "--splits", str(whole[1]), "--loader", "--batch", "4", "--json"]
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)["splits"]
    rows = dataset.read_patches(whole[0])
    for name, said in told.items():
        mine = [r for r in rows if r.split == name]
        assert said["patches"] == len(mine)
        assert said["shape"] in ([4, c, 64, 64] for c in {r.channels for r in mine})
        assert said["dtype"] == "float32"
        assert said["finite"]
    ids = json.loads(whole[1].read_text())
    moved = ids["train"][0]
    elsewhere = {**ids, "train": ids["train"][1:], "test": [*ids["test"], moved]}
    (tmp_path / "other.json").write_text(json.dumps(elsewhere))
    assert main([*arguments[:4], str(tmp_path / "other.json"), "--loader"]) == 2
    assert f"its image {moved} is in test" in capsys.readouterr().err
    bad = next(r for r in rows if r.channels == 1)
    np.save(bad.path, np.full((64, 64), np.nan, np.float32))
    dataset.write_patches(whole[0], [r for r in rows if r.parent_id == bad.parent_id], split=True)
    assert main([*arguments[:-1], "--batches", "1000"]) == 1
    assert "NOT FINITE" in capsys.readouterr().out


def test_what_is_no_set_of_patches(whole: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no patch has a split"):
        dataset.qc(tmp_path / "p.csv", whole[1])
    dataset.write_patches(tmp_path / "none.csv", [], split=True)
    with pytest.raises(ReadError, match="holds no patch"):
        dataset.qc(tmp_path / "none.csv", whole[1])
    assert main(["qc", "--patches", str(tmp_path / "p.csv"), "--splits", str(whole[1]), "--loader"]) == 2


def test_a_number_of_patches_below_none_is_refused(whole: tuple[Path, Path]) -> None:
    with pytest.raises(FrameError, match="-1 patches to compare"):
        dataset.qc(*whole, content=-1)
