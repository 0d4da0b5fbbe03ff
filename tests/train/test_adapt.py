"""Adapting a model to one file: better where it can be, the same object where it cannot, as held-out pixels judge."""

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from firstlight import model_file, simulate
from firstlight.denoiser import estimate
from firstlight.errors import FrameError, ModelError
from firstlight.frame import Frame, Unit
from firstlight.model_file import Model
from firstlight.noise import Noise, Unmodelled
from firstlight.train import Batch, Batches, Plane, Planes, finetune
from firstlight.train.adapt import COUNT, HELD, _halves
from firstlight.train.sources import expected, stabilised

NOISE = Noise(1.0, 2.5, 0.0)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:  # type: ignore[type-arg]
    return simulate.filaments((160, 160), np.random.default_rng(1), n=12) + 5


@pytest.fixture(scope="module")
def frame(scene: np.ndarray) -> Frame:  # type: ignore[type-arg]
    return Frame(NOISE.sample(scene, np.random.default_rng(2)), "YX", Unit.ELECTRON, NOISE)


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(3)
    return model_file.new("lean", {"inputs": 2, "outputs": 2, "widths": [12, 16]})


def errors(model: Model, frame: Frame, scene: np.ndarray) -> tuple[float, float]:  # type: ignore[type-arg]
    """Mean squared error against truth, of the whole frame and of the cells that judge."""
    plane = Plane(stabilised(frame)[0].z, expected(NOISE, scene)[None])
    judging = _halves(Batches(Planes([lambda: plane]), 4, 32, 0, HELD).held_out(COUNT))[1]
    whole = [Batch(torch.from_numpy(plane.z)[None], torch.from_numpy(plane.target)[None])]
    with torch.no_grad():
        one, two = (torch.cat([estimate(model.net, b.z).mean - b.target for b in bs]) for bs in (whole, judging))
    return float((one**2).mean()), float((two**2).mean())


def test_it_improves_a_model_and_says_by_how_much(frame: Frame, scene: np.ndarray, model: Model) -> None:  # type: ignore[type-arg]
    before = [w.clone() for w in model.net.state_dict().values()]
    found = finetune(frame, model, budget="160 steps", rate=3e-3, batch=4, patch=32)
    assert found is not model
    assert all(torch.equal(a, b) for a, b in zip(before, model.net.state_dict().values(), strict=True))
    (told,) = found.card["finetuned"]
    (old, old_there), (new, new_there) = errors(model, frame, scene), errors(found, frame, scene)
    assert new < 0.6 * old
    assert told["risk_before"] == pytest.approx(old_there, abs=0.1)
    assert told["risk_after"] == pytest.approx(new_there, abs=0.1)
    assert told["risk_before"] - told["risk_after"] == pytest.approx(old_there - new_there, abs=3 * told["error"])
    assert not found.net.training


def test_what_makes_it_worse_is_thrown_away(frame: Frame, model: Model) -> None:
    assert finetune(frame, model, budget="6 steps", rate=30.0, batch=2, patch=32, validations=2) is model


def test_a_gain_within_its_error_is_no_gain(frame: Frame, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firstlight.train.adapt.difference", lambda after, before: (-0.1, 0.2))
    assert finetune(frame, model, budget="2 steps", batch=2, patch=32, validations=1) is model
    monkeypatch.setattr("firstlight.train.adapt.difference", lambda after, before: (-0.1, float("nan")))
    assert finetune(frame, model, budget="2 steps", batch=2, patch=32, validations=1) is model


def test_noise_that_is_unknown_or_correlates_is_refused(frame: Frame, model: Model) -> None:
    with pytest.raises(FrameError, match="drizzled"):
        finetune(frame.replace(noise=Unmodelled("drizzled")), model, budget="1 steps")
    flat = np.random.default_rng(4).normal(100, 10, (160, 160))
    smooth = frame.replace(data=100 + 3 * (uniform_filter(flat, 3) - 100))
    with pytest.raises(FrameError, match="correlate"):
        finetune(smooth, model, budget="1 steps")
    finetune(smooth, model, budget="1 steps", assume_white=True)


def test_models_and_frames_that_it_cannot_take(frame: Frame, model: Model) -> None:
    seed = model_file.new("seed", {"channels": 1, "base": 2}, scaling=model_file.PERCENTILE)
    with pytest.raises(ModelError, match="expected stabilised"):
        finetune(frame, seed, budget="1 steps")
    small = frame.replace(data=np.asarray(frame.data)[:40, :40])
    with pytest.raises(FrameError, match="fewer than 10 patches"):
        finetune(small, model, budget="1 steps")
