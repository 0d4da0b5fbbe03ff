"""`train demosaic`: losses, the card, resuming to the bit, what is refused; a model that restores."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from firstlight import model_file
from firstlight.dataset import write_torture
from firstlight.errors import FrameError, ModelError, WriteError
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import XTRANS, Mosaic
from firstlight.noise import Noise
from firstlight.restore import demosaic
from firstlight.train import Learning, learn_demosaic
from firstlight.train.batches import Batch
from firstlight.train.demosaic import documented, packed
from firstlight.train.mosaics import masks

QUICK = {"budget": "3 steps", "validations": 1, "batch": 2, "patch": 48, "half": False}
TINY = {"width": 8, "depth": 1, "noisy": 0.0, **QUICK}
UNET = {"net": "unet", "width": 2, **QUICK}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "t.npz"
    write_torture(path, count=20, side=64)
    return path


def test_a_packed_model_restores_and_learns(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    row = learn_demosaic(
        data, out, Learning(**{**TINY, "noisy": 0.5}, log=tmp_path / "l", preview=tmp_path / "p", licence="CC0")
    )  # type: ignore[arg-type]
    assert row["steps"] == 3
    model = model_file.load(out)
    assert model.card["data"] == [{"name": "t.npz", "licence": "CC0"}]
    assert [json.loads(line)["step"] for line in (tmp_path / "l").read_text().splitlines()] == [0, 3]
    assert len(list((tmp_path / "p").glob("*.png"))) == 2
    samples = np.random.default_rng(1).random((30, 36)).astype(np.float32)
    seen = Observation(saturation=1.0)
    frame = Frame(samples, "YX", Unit.ARBITRARY, Noise(0.0, 0.0), geometry=Mosaic(XTRANS), observation=seen)
    near = demosaic(frame, method="net", model=model, bf16=False).data - demosaic(frame, method="lmmse").data
    assert 0 < np.abs(near).max() < 0.1  # a correction to the linear estimate, small at first


def test_a_longer_training_is_better(data: Path, tmp_path: Path) -> None:
    options = Learning(**{**TINY, "budget": "60 steps", "rate": 2e-3})  # type: ignore[arg-type]
    row = learn_demosaic(data, tmp_path / "m.safetensors", options)
    assert row["risk"] < 0.99 * row["risk_at_start"]  # the start itself where nothing is learned


def test_a_resumed_training_gives_the_same_weights(data: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    learn_demosaic(data, whole, Learning(**TINY))  # type: ignore[arg-type]

    def ctrl_c(done: int, total: int, what: str) -> None:
        if done == 333:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        learn_demosaic(data, cut, Learning(**TINY), ctrl_c)  # type: ignore[arg-type]
    with pytest.raises(WriteError, match="--resume"):
        learn_demosaic(data, cut, Learning(**TINY))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="another training"):
        learn_demosaic(data, cut, Learning(**{**TINY, "noisy": 0.1}, resume=True))  # type: ignore[arg-type]
    learn_demosaic(data, cut, Learning(**TINY, resume=True))  # type: ignore[arg-type]
    assert model_file.load(cut).digest() == model_file.load(whole).digest()


def test_the_documented_loss_is_l1_gradient_and_chroma() -> None:
    target = torch.zeros(1, 3, 16, 16)
    where = masks(XTRANS, 16)

    class Offset(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x[:, :3]) + torch.tensor(self.add)[:, None, None]

    net = Offset()
    batch, rng = Batch(torch.zeros(1, 1, 16, 16), target), torch.Generator()
    net.add = [0.3, 0.3, 0.3]  # type: ignore[assignment]
    assert float(documented(net, batch, rng, where=where)) == pytest.approx(0.3)  # grey: no gradient, no chroma
    net.add = [0.3, 0.0, -0.3]  # type: ignore[assignment]
    assert float(documented(net, batch, rng, where=where)) == pytest.approx(0.2 + 0.2)


def test_the_documented_network_and_profile(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "u.safetensors"
    with pytest.warns(UserWarning, match="without|no white balance"):
        learn_demosaic(data, out, Learning(**UNET, profile="documented"))  # type: ignore[arg-type]
    model = model_file.load(out)
    assert (model.scaling["light"], model.scaling["balanced"]) == ("linear", False)
    with pytest.warns(UserWarning, match="BatchNorm"), pytest.raises(ModelError, match="another kind"):
        learn_demosaic(data, tmp_path / "v.safetensors", Learning(**{**UNET, "width": None}, start=out))  # type: ignore[arg-type]


def test_a_set_of_the_wrong_balance_warns(data: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(1).random((160, 160, 3)).astype(np.float32))
    (tmp_path / "a_meta.json").write_text('{"source": "a.raf", "balanced": false}')
    with pytest.warns(UserWarning, match="not white-balanced"):
        learn_demosaic(tmp_path, tmp_path / "m.safetensors", Learning(**TINY))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "documented"}, "--net unet"),
        ({"net": "huge"}, "packed or unet"),
        ({"patch": 50}, "multiple of 6"),
        ({"noisy": 2.0}, "noisy 2"),
        ({"rate": 0.0}, "rate 0"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 1 << 32}, "expected 0 to 4294967295"),
        ({"device": "abacus"}, "'abacus' is not there"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict, message: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=message):
        learn_demosaic(data, tmp_path / "m.safetensors", Learning(**{**QUICK, **options}))
    with pytest.raises(FrameError, match="no such file"):
        learn_demosaic(tmp_path / "none", tmp_path / "m.safetensors", Learning(**TINY))  # type: ignore[arg-type]


class Idle(torch.nn.Module):
    """A network of no correction."""

    pack = 6

    def forward(self, mosaic: torch.Tensor, base: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(base)


@pytest.mark.parametrize("chroma", [0.0, 0.25])
def test_the_packed_loss_by_hand(chroma: float) -> None:
    """Filters of zeros are off by the colour itself: (.5 + .2 + .1) / 3, and from green by .3 and .1."""
    colour = torch.tensor([0.5, 0.2, 0.1])[None, :, None, None]
    batch = Batch(torch.ones(1, 1, 36, 36), colour.expand(1, 3, 36, 36), sigma=torch.zeros(1, 3, 1, 1))
    loss = packed(Idle(), batch, torch.Generator(), filters={0.0: torch.zeros(108, 36, 3, 3)}, chroma=chroma)
    assert float(loss) == pytest.approx(0.8 / 3 + chroma * 0.2, rel=1e-5)
