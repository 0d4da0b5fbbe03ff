"""A set of torture pictures: its mosaic samples its colours, and a longer set begins with a shorter one."""

from pathlib import Path

import numpy as np
import pytest

from firstlight.dataset.torture import read_torture, write_torture
from firstlight.errors import FrameError, ReadError, WriteError
from firstlight.geometry import XTRANS
from firstlight.operators import mosaic
from firstlight.simulate.torture import CONTRAST, KINDS, contrast


def test_a_set(tmp_path: Path) -> None:
    write_torture(tmp_path / "a.npz", count=30, seed=4, side=24)
    write_torture(tmp_path / "b.npz", count=14, seed=4, side=24)
    rgb, kind = read_torture(tmp_path / "a.npz")
    np.testing.assert_array_equal(read_torture(tmp_path / "b.npz")[0], rgb[:14])
    assert np.bincount(kind).tolist() == [3] * 4 + [2] * 9
    assert min(contrast(p.astype(np.float64)) for p in rgb) > CONTRAST - 0.002
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["cfa"], mosaic(XTRANS, (24, 24))(rgb))
        assert tuple(file["kinds"]) == KINDS


def test_half_of_the_julia_sets_are_zoomed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from firstlight.dataset import torture as module

    asked: list[tuple[int, bool]] = []

    def drawn(kind: int, rng: np.random.Generator, *, side: int, zoomed: bool) -> np.ndarray:
        asked.append((kind, zoomed))
        return np.zeros((3, side, side), np.float32)

    monkeypatch.setattr(module, "torture", drawn)
    write_torture(tmp_path / "a.npz", count=52, side=16)
    assert [zoomed for kind, zoomed in asked if kind == 11] == [False, True, False, True]


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(ReadError, match="no whole set"):
        read_torture(tmp_path / "a.npz")
    with pytest.raises(WriteError, match=r"\.npz"):
        write_torture(tmp_path / "a.npy", count=1)


def test_what_cannot_be_made_is_told_before_any_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firstlight.dataset.torture.torture", lambda *args, **more: pytest.fail("too late"))
    for seed, side in ((-1, 24), (0, -4), (0, 15)):
        with pytest.raises(FrameError, match=f"seed {seed}, side {side} px; expected a seed of 0 or more, and 16 px"):
            write_torture(tmp_path / "a.npz", seed=seed, side=side)
    with pytest.raises(WriteError, match="absent does not exist"):
        write_torture(tmp_path / "absent" / "a.npz")
