"""Pictures and mosaics to learn from: what is read, held out, mixed, exposed; targets are what encoded samples average to."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from firstlight.dataset import write_torture
from firstlight.errors import FrameError, ReadError
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.noise import Noise
from firstlight.restore.encoding import Encoding
from firstlight.simulate import linearise
from firstlight.train.mosaics import Light, MosaicBatches, bank, exposed, masks
from firstlight.train.pictures import Pool, described, drawn, encoded, light_of, mixes, pool, recoloured


def flat(value: float, side: int = 64) -> Pool:
    return Pool([np.full((3, side, side), value, np.float16)], np.ones(1))


def test_srgb_there_and_back_beyond_its_ends() -> None:
    light = np.array([-0.02, 0.0, 0.001, 0.2, 1.0, 2.5])
    values = encoded(light)
    np.testing.assert_allclose(light_of(torch.from_numpy(values)).numpy(), light, atol=1e-7)
    np.testing.assert_allclose(linearise(values[1:5]), light[1:5], atol=1e-7)


def test_what_is_read(tmp_path: Path) -> None:
    light = np.random.default_rng(1).random((40, 50, 3)).astype(np.float32) * 1.5
    np.save(tmp_path / "a.npy", light)
    np.save(tmp_path / "b.npy", np.stack([light[:32, :32]] * 2))
    codes = np.random.default_rng(2).integers(0, 256, (40, 48, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "c.png"), codes[..., ::-1])
    write_torture(tmp_path / "d.npz", count=3, side=32)
    (tmp_path / "a_meta.json").write_text('{"source": "a.raf", "balanced": true}')
    found = pool(tmp_path, side=32)
    assert [p.shape[1:] for p in found.pictures] == [(40, 50), (32, 32), (32, 32), (40, 48), (32, 32), (32, 32), (32, 32)]
    np.testing.assert_allclose(found.pictures[0].transpose(1, 2, 0), encoded(light), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.pictures[3].transpose(1, 2, 0), codes / 255, atol=5e-4)  # sRGB -> linear -> sRGB
    assert described(tmp_path) == [{"source": "a.raf", "balanced": True}]
    half = pool(tmp_path / "a.npy", side=16, shrink=(2,)).pictures[0]
    np.testing.assert_allclose(
        light_of(torch.from_numpy(half[:, 0, 0].astype(np.float64))), light[:2, :2].mean((0, 1)), rtol=3e-3
    )


def test_what_is_held_out_is_not_learned_from(tmp_path: Path) -> None:
    for k in range(12):
        np.save(tmp_path / f"{k:02d}.npy", np.full((16, 16, 3), k / 12, np.float32))
    names = [set(pool(tmp_path, side=16, held=h).names) for h in (False, True, None)]
    assert names[1] == {"09.npy"}
    assert names[0] | names[1] == names[2]
    assert not names[0] & names[1]
    light = np.linspace(0, 1, 100)[:, None, None] * np.ones((1, 20, 3))
    np.save(tmp_path / "one.npy", light)
    above, below = (pool(tmp_path / "one.npy", side=16, held=h).pictures[0] for h in (False, True))
    assert (above.shape[1], below.shape[1]) == (84, 16)
    assert above.max() < below.min()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((40, 40)), "expected colours"),
        (np.full((40, 40, 3), np.nan), "not finite"),
        (np.zeros((8, 8, 3)), "no picture of 32"),
    ],
)
def test_what_is_no_picture_is_refused(array: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ReadError, match=message):
        pool(tmp_path, side=32)


def test_mixes_are_named_with_their_share(tmp_path: Path) -> None:
    write_torture(tmp_path / "t.npz", count=12, side=32)
    found = mixes([f"{tmp_path / 't.npz'}:0.1"], 32)
    assert [(len(p.pictures), share) for p, share in found.values()] == [(11, 0.1)]
    (plain,) = mixes([str(tmp_path / "t.npz")], 32).values()
    assert plain[1] == 0.1  # document 4: 90 % real, 10 % synthetic
    for texts in (["t.npz:2"], ["t.npz:0"], [":0.1"], [f"{tmp_path / 't.npz'}:0.1", f"{tmp_path / 't.npz'}:0.2"]):
        with pytest.raises(FrameError, match="PATH:SHARE"):
            mixes(texts, 32)
    for text in (f"{tmp_path}/u.npz:0.5", f"{tmp_path}/u.npz", f"{tmp_path / 't.npz'}:x"):
        with pytest.raises(ReadError, match="no such file"):
            mixes([text], 32)


def test_a_tenth_is_mixed_in() -> None:
    batches = MosaicBatches(flat(0.2), XTRANS, Light(None), side=16, batch=40, mix={"t": (flat(0.8), 0.1)})
    marks = torch.stack([batches(k).target[:, 0, 0, 0] for k in range(50)]) > 0.3  # type: ignore[index]
    assert marks.sum(1).tolist() == [4] * 50  # of every batch, not on average
    several = MosaicBatches(
        flat(0.1), XTRANS, Light(None), side=16, batch=12, mix={"t": (flat(0.5), 0.1), "u": (flat(0.9), 0.2)}
    )
    found = torch.stack([several(k).target[:, 0, 0, 0] for k in range(200)])  # type: ignore[index]
    for low, high, share in ((0.3, 0.7, 0.1), (0.7, 1.1, 0.2)):
        own = ((found > float(light_of(torch.tensor(low)))) & (found <= float(light_of(torch.tensor(high))))).sum(1)
        assert own.min() >= int(12 * share)
        assert own.max() <= int(12 * share) + 1
        assert abs(float(own.float().mean()) - 12 * share) < 4 * 0.5 / 200**0.5
    with pytest.raises(FrameError, match="shares"):
        MosaicBatches(flat(0.2), XTRANS, Light(None), mix={"t": (flat(0.8), 0.6), "u": (flat(0.8), 0.4)})


@pytest.mark.parametrize("pattern", [XTRANS, BAYER])
@pytest.mark.parametrize("light", [Light(None), Light.encoded(1, 0.0)])
def test_without_noise_the_mosaic_samples_its_target(pattern: tuple, light: Light) -> None:
    rng = np.random.default_rng(3)
    batches = MosaicBatches(Pool([rng.random((3, 60, 60)).astype(np.float16)], np.ones(1)), pattern, light, side=24, batch=3)
    one, again = batches(5), batches(5)
    assert one.target is not None
    color = torch.from_numpy(Mosaic(pattern).at((24, 24)))[None, None].expand(3, 1, 24, 24)
    torch.testing.assert_close(one.z, one.target.gather(1, color))
    torch.testing.assert_close(one.z, again.z, rtol=0, atol=0)
    assert not torch.equal(one.z, batches(6).z)


def test_targets_are_what_encoded_samples_average_to_and_noise_is_sigma() -> None:
    # oracle: the encoding that restoration uses, told the same noise
    one = bank(1600, np.random.default_rng(4))
    code = Encoding(np.array(one.own), 1.0)
    assert code.sigma == pytest.approx(one.sigma, rel=1e-5)
    rng = np.random.default_rng(5)
    truth = torch.full((400, 3, 24, 24), float(encoded(np.array(0.18))))
    z, target = exposed(truth, one, masks(XTRANS, 24), rng)
    color = Mosaic(XTRANS).at((24, 24))
    for k in range(3):
        gap = (z[:, 0] - target[:, k])[:, color == k]
        assert abs(float(gap.mean())) < 5 * one.sigma[k] / gap.numel() ** 0.5 + 2e-5
    samples = Noise(*one.own[1]).sample(np.full((24, 24), 0.18), np.random.default_rng(6))
    assert code.encode(samples, np.ones((24, 24), int)).std() == pytest.approx(one.sigma[1], rel=0.1)


def test_recoloured_stays_a_picture_and_grey_pixels_share_their_gains() -> None:
    grey = np.repeat(np.linspace(0.05, 0.6, 36, dtype=np.float32).reshape(1, 6, 6), 3, 0)
    found = recoloured(grey, np.random.default_rng(2))
    gains = found / grey
    np.testing.assert_allclose(gains, np.broadcast_to(gains[:, :1, :1], gains.shape), rtol=1e-5)
    assert drawn(flat(0.4), np.random.default_rng(1), 16).shape == (3, 16, 16)


def test_exposures_reach_from_full_to_six_stops_under_each_picture_its_own() -> None:
    """At ISO 100 encoded light is nearly its root; a quarter of full light, two stops under, is 0.5. Seed 8."""
    rng = np.random.default_rng(8)
    target = exposed(torch.ones(3000, 3, 6, 6), bank(100.0, rng), masks(XTRANS, 6), rng)[1].mean((1, 2, 3))
    assert len(set(target.tolist())) > 2900
    assert 0.12 < float(target.min()) < 0.2
    assert 0.97 < float(target.max()) < 1.02  # the root of no light, of read noise alone, is up to 0.013
    assert float((target < 0.5).float().mean()) == pytest.approx(4 / 6, abs=0.03)
