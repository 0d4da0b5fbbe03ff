"""Parents by id or path, read again or put together exactly; pictures keep type and opacity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firstlight import Flag, Frame, Unit, Unmodelled, io
from firstlight.dataset.manifest import read_patches, write_patches
from firstlight.errors import FirstlightError
from firstlight.evaluation.images import assembled, parents, saved
from firstlight.nets import build

from .conftest import cut

pytestmark = pytest.mark.filterwarnings("default")  # an untrained network leaves the codes, and its self-check fails


def test_a_parent_is_put_together_exactly(colour: Path, tmp_path: Path) -> None:
    frame = io.read(colour)
    got = assembled(cut(frame, colour, tmp_path))
    np.testing.assert_array_equal(got.data, frame.data)
    assert (got.data.dtype, got.unit, got.flags) == (np.uint8, Unit.DISPLAY, None)


def test_of_several_patches_the_inner_one_counts_and_gaps_are_flagged(tmp_path: Path) -> None:
    frame = Frame(np.full((96, 96), 50.0, np.float32), "YX", Unit.ARBITRARY, Unmodelled("x"))
    rows = cut(frame, tmp_path / "gone.fits", tmp_path)
    for row in rows:  # borders inside the parent are made wrong: they must never be taken where another patch is better
        a = np.load(row.path)
        for edge, inner in ((np.s_[:1], row.y > 0), (np.s_[-1:], row.y + 64 < 96), (np.s_[:, :1], row.x > 0)):
            a[edge] = 999 if inner else a[edge]
        np.save(row.path, a)
    np.testing.assert_allclose(assembled(rows).data, 50, rtol=1e-6)
    few = assembled([r for r in rows if (r.y, r.x) == (0, 0)])
    assert np.asarray(few.flags)[80, 80] == Flag.NO_DATA
    assert np.count_nonzero(few.flags) == 96 * 96 - 64 * 64


def test_clipped_patches_come_back_without_seams_below_the_clip(tmp_path: Path) -> None:
    data = np.random.default_rng(0).uniform(10, 60, (96, 96)).astype(np.float32)
    frame = Frame(data, "YX", Unit.ARBITRARY, Unmodelled("x"))
    got = assembled(cut(frame, tmp_path / "gone.fits", tmp_path, clip=True))
    np.testing.assert_allclose(got.data, data, rtol=1e-5)
    assert isinstance(got.noise, Unmodelled)


def test_patches_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    frame = Frame(np.ones((96, 96), np.float32), "YX", Unit.ARBITRARY, Unmodelled("x"))
    rows = cut(frame, tmp_path / "gone.fits", tmp_path)
    for bad in (replace(rows[-1], parent_id="other"), replace(rows[-1], y=70)):
        with pytest.raises(FirstlightError, match=r"p_32_32\.npy"):
            assembled([*rows[:-1], bad])


def test_parents_of_a_split(patches: Path, tmp_path: Path) -> None:
    rows = read_patches(patches)
    more = [replace(r, parent_id=f"q{i}", split="train" if i else "test") for i, r in enumerate(rows[:3])]
    path = write_patches(tmp_path / "more.csv", [*rows, *more], split=True)
    assert [p.id for p in parents(path)] == ["parent", "q0"]
    assert [p.id for p in parents(path, split="train")] == ["q1", "q2"]
    assert len(parents(path, most=1)[0].patches) == len(rows)
    bare = write_patches(tmp_path / "bare.csv", rows)
    with pytest.warns(UserWarning, match="no splits"):
        assert len(parents(bare)) == 1
    for words in ({"split": "validation"}, {"most": 0}):
        with pytest.raises(FirstlightError, match=r"validation|max-parents"):
            parents(path, **words)  # type: ignore[arg-type]
    with pytest.raises(FirstlightError, match="one of the two"):
        parents(path, [path])


def test_codes_are_whole_numbers_again_and_clipping_is_told(colour: Path, tmp_path: Path) -> None:
    frame = io.read(colour)
    data = frame.data.astype(np.float32) + 0.3
    saved(frame.replace(data=data), frame, tmp_path / "a.png")
    back = io.read(tmp_path / "a.png")
    np.testing.assert_array_equal(back.data, frame.data)
    assert back.data.dtype == np.uint8
    np.testing.assert_array_equal(back.observation.header.plane, frame.observation.header.plane)
    data[:, 40, 40] = 300
    with pytest.warns(UserWarning, match="3 of 23040 values outside 0..255"):
        saved(frame.replace(data=data), frame, tmp_path / "b.png")
    assert np.all(io.read(tmp_path / "b.png").data[:, 40, 40] == 255)


def test_whole_by_path_and_by_parent(cli: Any, colour: Path, rgb_model: Path, tmp_path: Path) -> None:
    code, _, _ = cli("whole", colour, "--model", rgb_model, "-o", tmp_path / "by_path.png")
    assert code == 0
    first = io.read(tmp_path / "by_path.png")
    assert first.data.dtype == np.uint8
    assert np.all(first.observation.header.plane[:9, :11] == 0)
    plain = tmp_path / "plain.png"
    io.write(
        io.read(colour).replace(
            flags=None, observation=Frame(np.zeros((1, 1)), "YX", Unit.DISPLAY, Unmodelled("")).observation
        ),
        plain,
    )
    rows = cut(io.read(plain), plain, tmp_path)
    table = write_patches(tmp_path / "p.csv", rows, split=True)
    words = ("--patches", table, "--model", rgb_model, "-o")
    assert cli("whole", "parent", *words, tmp_path / "a.png")[0] == 0
    plain.unlink()
    code, _, err = cli("whole", "parent", *words, tmp_path / "b.png")
    assert code == 0
    assert "put together from its" in err
    np.testing.assert_array_equal(io.read(tmp_path / "a.png").data, io.read(tmp_path / "b.png").data)
    code, _, err = cli("whole", "nobody", *words, tmp_path / "c.png")
    assert code == 2
    assert "no parent 'nobody'; there are 1: parent" in err


def test_fits_stays_fits_with_its_history(cli: Any, stars: tuple[Path, Path], rgb_model: Path, tmp_path: Path) -> None:
    code, out, _ = cli("whole", stars[0], "--model", rgb_model, "-o", tmp_path / "o.fits")
    assert (code, "light.fits ->" in out) == (0, True)
    frame = io.read(tmp_path / "o.fits")
    assert (frame.unit, frame.data.dtype.kind, frame.shape) == (Unit.ELECTRON, "f", (192, 176))
    assert [r.step for r in frame.history][-2:] == ["io.read", "restore.denoise_picture"]
    assert cli("whole", stars[0], "--model", rgb_model, "-o", stars[0])[0] == 2


def test_pairs_of_patches(cli: Any, patches: Path, rgb_model: Path, tmp_path: Path) -> None:
    code, out, _ = cli("preview", "--patches", patches, "--model", rgb_model, "-o", tmp_path / "pairs", "--n", "3")
    assert code == 0
    names = sorted(p.name for p in (tmp_path / "pairs").iterdir())
    assert len(names) == 6
    assert [n.replace("in_", "out_") for n in names[:3]] == names[3:]
    one = io.read(tmp_path / "pairs" / names[0])
    assert one.shape == (64, 64)
    assert np.ptp(one.data) > 100
    assert len(out.splitlines()) == 3
    code, _, err = cli("preview", "--patches", patches, "--model", rgb_model, "-o", tmp_path / "x", "--split", "train")
    assert (code, "split 'train'" in err) == (2, True)


def test_restore_takes_such_a_model_too(cli: Any, colour: Path, rgb_model: Path, tmp_path: Path) -> None:
    code, out, err = cli("restore", colour, "--model", rgb_model, "-o", tmp_path / "new")
    assert code == 0
    assert "self-check" in out
    assert cli("whole", colour, "--model", rgb_model, "-o", tmp_path / "w.png")[0] == 0
    np.testing.assert_array_equal(io.read(tmp_path / "new" / "picture.png").data, io.read(tmp_path / "w.png").data)
    for more in (("--std",), ("--samples", "2"), ("--finetune", "1s")):
        code, _, err = cli("restore", colour, "--model", rgb_model, "-o", tmp_path / "x.png", *more)
        assert code == 2
        assert "3 channels" in err


def test_a_checkpoint_becomes_a_model_file(cli: Any, colour: Path, tmp_path: Path) -> None:
    made = build("seed", channels=3, base=2)
    old = {"encode": "enc", "up": "up", "decode": "dec"}
    names = {}
    for key, value in made.state_dict().items():
        part, number, rest = (*key.split(".", 2), "", "")[:3]
        place = {"middle": f"bott.{number}.{rest}", "last": f"head.{number}"}.get(part)
        level = int(number) + 1 if part == "encode" else 4 - int(number) if part in old else 0
        names[place or f"{old[part]}{level}.{rest}"] = value
    torch.save({"model": names, "step": 3}, tmp_path / "ckpt.pt")
    code, out, _ = cli("convert", tmp_path / "ckpt.pt", "-o", tmp_path / "m.safetensors")
    assert (code, "3 channels" in out) == (0, True)
    assert cli("whole", colour, "--model", tmp_path / "m.safetensors", "-o", tmp_path / "o.png")[0] == 0
    code, _, err = cli("whole", colour, "--model", tmp_path / "ckpt.pt", "-o", tmp_path / "p.png")
    assert (code, "firstlight convert" in err) == (2, True)
    (tmp_path / "bad.pt").write_bytes(b"junk")
    assert cli("convert", tmp_path / "bad.pt", "-o", tmp_path / "n.safetensors")[0] == 2
    assert not (tmp_path / "n.safetensors").exists()
