"""Planes: stabilised with the noise that each frame and tile brings, flags out, mosaics phase by phase."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from firstlight import io, simulate
from firstlight.errors import FrameError, ReadError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import Mosaic
from firstlight.noise import Noise, Unmodelled
from firstlight.train import sources

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "dataset" / "sets.py")))
NOISE = Noise(1.0, 2.5, 0.0)


def frame(data: np.ndarray, axes: str = "YX", **more: object) -> Frame:  # type: ignore[type-arg]
    return Frame(data, axes, Unit.ELECTRON, more.pop("noise", NOISE), **more)  # type: ignore[arg-type]


def exposure(mean: float = 40.0, shape: tuple[int, ...] = (64, 64), seed: int = 1) -> np.ndarray:  # type: ignore[type-arg]
    return NOISE.sample(np.full(shape, mean), np.random.default_rng(seed))


def test_stabilised_data_have_noise_of_variance_one() -> None:
    (plane,) = sources.stabilised(frame(exposure(shape=(256, 256))))
    assert plane.z.dtype == np.float32
    assert plane.z.shape == (1, 256, 256)
    assert plane.valid is None
    assert plane.z.var() == pytest.approx(1, abs=0.02)


def test_every_plane_of_a_stack_and_every_phase_of_a_mosaic_stands_alone() -> None:
    stack = exposure(shape=(2, 3, 32, 32))
    assert len(sources.stabilised(frame(stack, "TCYX"))) == 6
    colour = sources.stabilised(frame(stack, "TCYX"), colour=True)
    assert [p.z.shape for p in colour] == [(3, 32, 32)] * 2
    bayer = frame(stack[0, 0], geometry=Mosaic(((0, 1), (1, 2))))
    phases = sources.stabilised(bayer)
    whole = NOISE.stabilise(stack[0, 0]).astype(np.float32)
    assert [p.z.shape for p in phases] == [(1, 16, 16)] * 4
    assert np.array_equal(phases[1].z[0], whole[::2, 1::2])
    with pytest.raises(FrameError, match="expected one named C"):
        sources.stabilised(frame(stack[0, 0]), colour=True)


def test_flagged_and_missing_pixels_are_filled_and_never_learned_from() -> None:
    data = exposure()
    flags = np.zeros((64, 64), np.uint8)
    data[5, 5], data[7, 7], data[9, 9] = np.nan, -3e38, 1e6
    flags[9, 9] = Flag.COSMIC_RAY
    (plane,) = sources.stabilised(frame(data, flags=flags))
    assert plane.valid is not None
    assert [tuple(p) for p in np.argwhere(~plane.valid[0])] == [(5, 5), (7, 7), (9, 9)]
    assert np.all(np.abs(plane.z[0, [5, 7, 9], [5, 7, 9]] - plane.z.mean()) < 1.5)
    empty = sources.stabilised(frame(np.full((32, 32), np.nan)))[0]
    assert np.all(empty.z == 0)


def test_a_frame_without_noise_is_refused_with_its_reason() -> None:
    with pytest.raises(FrameError, match="drizzled"):
        sources.stabilised(frame(exposure(), noise=Unmodelled("drizzled")))


@pytest.mark.parametrize("noise", [Noise(1.0, 2.5, 0.0), Noise(0.5, 4.0, 10.0), Noise(1.0, np.full((1, 1, 5), 3.0), 0.0)])
def test_expected_is_the_mean_of_stabilised_data(noise: Noise) -> None:
    level = np.array([0.0, 1.0, 5.0, 60.0, 3000.0]) + np.max(noise.offset)
    found = sources.expected(noise, level.reshape(1, 1, 5))
    assert np.allclose(noise.unstabilise(found), level, rtol=1e-4, atol=2e-3)
    draws = noise.sample(np.broadcast_to(level, (1, 40000, 5)), np.random.default_rng(3))
    assert np.allclose(noise.stabilise(draws).mean(axis=1), found[0], atol=0.025)


def test_pairs_are_two_exposures_of_one_scene_or_refused() -> None:
    scene = simulate.spots((64, 64), np.random.default_rng(4))
    takes = [frame(NOISE.sample(scene, np.random.default_rng(k))) for k in range(3)]
    planes = sources.pairs(takes)
    assert len(planes) == 3
    assert planes[2].target is not None
    assert np.array_equal(planes[2].target, planes[0].z)
    other = frame(NOISE.sample(np.roll(scene, 9) + 30, np.random.default_rng(9)))
    with pytest.raises(FrameError, match="times their noise"):
        sources.pairs([takes[0], other])
    with pytest.raises(FrameError, match="two or more"):
        sources.pairs(takes[:1])
    (one,) = (frame(np.stack([np.asarray(f.data) for f in takes]), "TYX"),)
    assert all(np.array_equal(sources.pairs([one])[k].z, planes[k].z) for k in range(3))


def test_pairs_that_drifted_are_moved_by_whole_pixels_or_refused_with_figures() -> None:
    wide = 10 * simulate.spots((160, 160), np.random.default_rng(4)) + 10
    half = (wide + np.roll(wide, 1, axis=1)) / 2  # half a pixel along x

    def taken(scene: np.ndarray, y: int, x: int, seed: int) -> Frame:  # type: ignore[type-arg]
        return frame(NOISE.sample(scene[y : y + 128, x : x + 128], np.random.default_rng(seed)))

    first, drifted, between = taken(wide, 10, 10, 1), taken(wide, 14, 7, 2), taken(half, 10, 10, 3)
    plane = sources.pairs([first, drifted])[0]
    assert plane.target is not None
    assert plane.valid is not None
    moved = NOISE.stabilise(np.asarray(drifted.data)).astype(np.float32)
    assert np.array_equal(plane.target[0, 4:, :-3], moved[:-4, 3:])
    assert not plane.valid[0, :4].any()
    assert not plane.valid[0, :, -3:].any()
    assert plane.valid[0, 4:, :-3].all()
    assert np.mean((plane.z - plane.target)[plane.valid] ** 2) == pytest.approx(2, abs=0.1)
    with pytest.raises(FrameError, match=r"whole pixels leave \(.*0\.[3-7].* px and no"):
        sources.pairs([first, between])
    far = taken(np.roll(half, (3, 2), axis=(0, 1)), 10, 10, 4)  # its partner is the frame half a pixel off too
    assert np.array_equal(sources.pairs([first, between, drifted, far])[0].z, plane.z)


def test_a_folder_gives_every_image_in_order_and_names_the_one_that_fails(tmp_path: Path) -> None:
    for k in (2, 1):
        io.write(frame(exposure(seed=k).astype(np.float32)), tmp_path / f"{k}.fits")
    (tmp_path / "notes.txt").write_text("no image")
    found = sources.folder(tmp_path)
    assert [f.unit for f in found] == [Unit.ELECTRON] * 2
    assert np.allclose(found[0].data, exposure(seed=1), rtol=1e-6)
    (tmp_path / "3.fits").write_bytes(b"SIMPLE  =")
    with pytest.raises(ReadError, match=r"3\.fits"):
        sources.folder(tmp_path)
    with pytest.raises(ReadError, match="no such file"):
        sources.folder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="no image"):
        sources.folder(tmp_path / "empty")


def test_tiles_come_with_their_own_noise_and_their_clean_target(tmp_path: Path) -> None:
    meta = made.tile_set(tmp_path, domains=("astronomy",))
    rng, clean = np.random.default_rng(5), {}
    for row in meta["tiles"]:
        scene = clean.setdefault((row["scene_id"], row["tile_id"].split("_")[-1]), rng.uniform(20, 60))
        e = np.full((made.SIZE, made.SIZE), scene)
        noise = Noise(1.0, row["read_noise"] ** 2, 0.0)
        e = noise.sample(e, rng) if row["data_type"] == "noisy" else e
        np.save(tmp_path / row["npy_path"], ((e + 5) / 170).astype(np.float32))
    planes = sources.tile_set(tmp_path, "train", target=True)
    differences = [p.z - p.target for p in (planes[i] for i in range(len(planes))) if p.target is not None]
    assert len(differences) == len(planes)
    assert np.mean(differences) == pytest.approx(0, abs=4 / np.size(differences) ** 0.5)
    assert np.var(differences) == pytest.approx(1, abs=0.1)
    assert len(sources.tile_set(tmp_path, "validation")) > 0
