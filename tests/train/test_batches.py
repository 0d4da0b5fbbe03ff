"""Batches: functions of (seed, step), held-out cells never touched; augmentation moves pixels and mixes none."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from firstlight.errors import FrameError
from firstlight.train.augment import turned
from firstlight.train.batches import Batches, Plane, Planes


def numbered(height: int, width: int, start: int = 0) -> Plane:
    """Every pixel its own number, so that a patch tells where it came from."""
    z = (start + np.arange(height * width, dtype=np.float32)).reshape(1, height, width)
    return Plane(z, z + 0.5, (z % 7 != 0))


def planes(*parts: Plane) -> Planes:
    return Planes([lambda p=p: p for p in parts])


@given(height=st.integers(32, 90), width=st.integers(32, 90), seed=st.integers(0, 99), held=st.sampled_from([0.1, 0.3]))
def test_no_training_patch_touches_a_held_out_pixel(height: int, width: int, seed: int, held: float) -> None:
    batches = Batches(planes(numbered(height, width)), batch=4, patch=16, seed=seed, held=held)
    judged = torch.cat([b.z for b in batches.held_out()]).unique()
    cells = (height // 16) * (width // 16)
    assert judged.numel() == max(1, round(held * cells)) * 256
    learned = torch.cat([batches(k).z for k in range(6)])
    assert not torch.isin(learned, judged).any()


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    batches = Batches(planes(numbered(64, 64)), patch=16, seed=5)
    assert torch.equal(batches(7).z, batches(7).z)
    assert not torch.equal(batches(7).z, batches(8).z)
    assert not torch.equal(batches(7).z, Batches(planes(numbered(64, 64)), patch=16, seed=6)(7).z)
    one, two = (torch.cat([b.z for b in batches.held_out()]) for _ in range(2))
    assert torch.equal(one, two)


def test_target_and_mask_go_with_their_pixels() -> None:
    batch = Batches(planes(numbered(64, 64)), patch=16)(0)
    assert batch.target is not None
    assert batch.valid is not None
    assert torch.equal(batch.target, batch.z + 0.5)
    assert torch.equal(batch.valid, batch.z % 7 != 0)
    assert Batches(planes(Plane(numbered(64, 64).z)), patch=16)(0).valid is None


def test_every_place_and_symmetry_is_drawn() -> None:
    batches = Batches(planes(numbered(18, 18)), batch=400, patch=16, held=0.0)
    patches = batches(0).z[:, 0]
    corners = {tuple(p[[0, 0, -1], [0, -1, 0]].tolist()) for p in patches}
    assert len(corners) == 9 * 8  # whole-pixel shifts and the symmetries of the square
    plain = Batches(planes(numbered(18, 18)), batch=400, patch=16, held=0.0, augment=False)
    assert len({tuple(p[[0, 0, -1], [0, -1, 0]].tolist()) for p in plain(0).z[:, 0]}) == 9


def test_channels_stay_together_in_colour_and_come_one_at_a_time_else() -> None:
    z = np.stack([np.full((32, 32), k, np.float32) for k in range(3)])
    batches = Batches(planes(Plane(z)), batch=60, patch=16, held=0.0)
    assert batches(0).z.shape == (60, 1, 16, 16)
    assert batches(0).z.unique().tolist() == [0, 1, 2]
    together = Batches(planes(Plane(z)), batch=2, patch=16, held=0.0, colour=True)(0).z
    assert together[0, :, 0, 0].tolist() == [0, 1, 2]


def test_the_eight_symmetries_move_pixels_and_mix_none() -> None:
    plane = numbered(8, 8)
    found = [turned(plane, k) for k in range(8)]
    assert len({p.z.tobytes() for p in found}) == 8
    for p in found:
        assert np.array_equal(np.sort(p.z, axis=None), np.sort(plane.z, axis=None))
        assert p.target is not None
        assert np.array_equal(p.target, p.z + 0.5)


def test_planes_load_when_asked_and_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firstlight.train.batches.CACHE", 2 * 64 * 64 * 4)
    calls: list[int] = []

    def loader(i: int) -> Plane:
        calls.append(i)
        return Plane(np.zeros((1, 64, 64), np.float32))

    many = Planes([lambda i=i: loader(i) for i in range(3)])
    assert calls == []
    for i in (0, 1, 0, 2, 0, 1):
        many[i]
    assert calls == [0, 1, 2, 1]  # the least recently asked for went first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Batches(planes(numbered(20, 20)), patch=16)(0), "holds 1 patches of 16 px"),
        (lambda: Batches(planes(numbered(20, 20)), patch=32, held=0.0)(0), "holds 0 patches of 32 px"),
        (lambda: Batches(planes(numbered(20, 20)), patch=4), "patch 4 px"),
        (lambda: Planes([]), "no plane of data"),
    ],
)
def test_what_cannot_be_sampled_is_refused(make: object, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        make()  # type: ignore[operator]
