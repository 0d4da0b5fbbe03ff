"""firstlight split: the published shuffle to the last id, scenes whole, shares kept."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from firstlight import dataset
from firstlight.cli import main
from firstlight.dataset.parents import split_images
from firstlight.errors import FrameError

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("skies.py"))))


def images(names: list[str], folder: str = "") -> list[dataset.Image]:
    return [dataset.Image(n, n * 4, f"/{folder or n}/{n}.png", f"{n}.png", "PNG", "L", 9, 9, 1, "", "", 1, "") for n in names]


def test_seed_42s_oracle() -> None:
    """numpy.random.default_rng(42) shuffles "0".."9", int(0.7 n), int(0.15 n), rest: 5,6,0,7,3,2,4 | 9 | 1,8."""
    want = {"train": list("5607324"), "validation": ["9"], "test": list("18")}
    with pytest.warns(UserWarning, match="image by image|one by one"):
        ids, groups, _ = split_images(images(list("0123456789")), profile="documented")
    assert (ids, groups) == (want, [])
    assert split_images(images(list("0123456789")), look=False)[0] == want


@given(count=st.integers(1, 60), seed=st.integers(0, 99), train=st.integers(1, 8), validation=st.integers(0, 2))
def test_the_documented_rule(count: int, seed: int, train: int, validation: int) -> None:
    names = [f"i{k}" for k in range(count)]
    order = list(names)
    np.random.default_rng(seed).shuffle(order)  # the published call itself
    shares = dataset.Shares(train / 10, validation / 10, 1 - (train + validation) / 10)
    n, m = int(shares.train * count), int(shares.validation * count)
    with pytest.warns(UserWarning, match="one by one"):
        ids, _, notes = split_images(images(names), shares, seed=seed, profile="documented")
    assert ids == {"train": order[:n], "validation": order[n : n + m], "test": order[n + m :]}
    assert any("train gets none" in note for note in notes) == (n == 0)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30), seed=st.integers(0, 20))
def test_scenes_stay_whole_and_no_split_with_a_share_stays_empty(sizes: list[int], seed: int) -> None:
    rows = [i for g, n in enumerate(sizes) for i in images([f"g{g}_{k}" for k in range(n)])]
    ids, groups, notes = split_images(rows, seed=seed, scene=r"(?P<scene>g\d+)_", look=False)
    where = {i: name for name, some in ids.items() for i in some}
    assert sorted(where) == sorted(i.id for i in rows)
    for g in range(len(sizes)):
        assert len({where[i.id] for i in rows if i.id.startswith(f"g{g}_")}) == 1
    assert sorted(map(len, groups)) == sorted(n for n in sizes if n > 1)
    if len(sizes) >= 3:
        assert all(ids.values())
        assert not notes


def test_images_that_show_one_scene_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = made.write_skies(tmp_path / "raw")
    found = dataset.catalogue(root).images
    ids = {i.filename: i.id for i in found}
    groups = split_images(found)[1]
    assert groups == [[ids["one_a.fits"], ids["one_b.fits"]]]
    assert split_images(found, look=False)[1] == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = made.write_skies(tmp_path / "raw")
    tifffile.imwrite(root / "cube.tif", np.zeros((5, 40, 40), np.float32))
    i, p, s, out = (str(tmp_path / n) for n in ("i.csv", "p.csv", "s.json", "ps.csv"))
    assert main(["manifest", str(root), "-o", i]) == 0
    assert main(["patches", i, "-o", str(tmp_path / "p"), "--manifest", p, "--tile", "64", "--stride", "32"]) == 1
    assert main(["split", "--images", i, "--patches", p, "--out-json", s, "--out-patches", out]) == 0
    assert "1 images have no patches and are in no split" in capsys.readouterr().out
    ids, rows = dataset.read_splits(s), dataset.read_patches(out)
    assert {k: len(v) for k, v in ids.items()} == {"train": 4, "validation": 1, "test": 2}
    assert all(r.parent_id in ids[r.split] for r in rows)
    first = Path(s).read_bytes(), Path(out).read_bytes()
    assert main(["split", "--images", i, "--patches", p, "--out-json", s, "--out-patches", out]) == 0
    assert (Path(s).read_bytes(), Path(out).read_bytes()) == first
    assert main(["split", "--images", i, "--patches", p, "--out-json", s, "--out-patches", out, "--test", "0.2"]) == 2
    fewer = str(dataset.write_images(tmp_path / "fewer.csv", dataset.read_images(i)[3:]))
    assert main(["split", "--images", fewer, "--patches", p, "--out-json", s, "--out-patches", out]) == 2
    assert "does not list" in capsys.readouterr().err


@pytest.mark.parametrize("shares", [(0.7, 0.7, 0.15), (-0.1, 0.6, 0.5), (0, 0.5, 0.5), (float("nan"), 0.5, 0.5)])
def test_shares_that_are_none(shares: tuple[float, float, float]) -> None:
    with pytest.raises(FrameError, match="1 in all"):
        split_images(images(["a"]), dataset.Shares(*shares))


def test_the_exposures_of_one_field_are_one_scene(data: Path, tmp_path: Path) -> None:
    some = sorted((data / "astronomy" / "hatp32").glob("*.gz"))[::9]
    (tmp_path / "raw").mkdir()
    for k, path in enumerate(some):
        (tmp_path / "raw" / f"frame{k}.fits.gz").symlink_to(path)  # names that say nothing
    for name in ("n281.png", "n6543.png", "n7023.png"):
        (tmp_path / "raw" / name).symlink_to(data / "astronomy" / "rgb" / name)
    _, groups, _ = split_images(dataset.catalogue(tmp_path / "raw").images)
    assert [len(g) for g in groups] == [len(some)]
