"""From data to a model file: methods, noise that correlates or is unknown, tile sets, resuming."""

import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from firstlight import intake, io, model_file, simulate
from firstlight.errors import FrameError, ModelError, WriteError
from firstlight.frame import Frame, Unit
from firstlight.noise import Noise, Unmodelled
from firstlight.train import METHODS, Options, train
from firstlight.train.batches import Plane, Planes
from firstlight.train.job import _width, measured

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "dataset" / "sets.py")))
NOISE = Noise(1.0, 2.5, 0.0)
QUICK = Options(budget="4 steps", batch=2, patch=16, validations=2)


def write(path: Path, seed: int = 1, **changes: object) -> Path:
    scene = simulate.spots((96, 96), np.random.default_rng(3)) + 20
    data = NOISE.sample(scene, np.random.default_rng(seed)).astype(np.float32)
    io.write(Frame(data, "YX", Unit.ELECTRON, NOISE).replace(**changes), path)
    return path


def correlated(path: Path) -> Path:
    flat = np.random.default_rng(4).normal(100, 10, (128, 128))
    data = (100 + 3 * (uniform_filter(flat, 3) - 100)).astype(np.float32)
    return write(path, data=data)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("n2n", "supervised", "masked-l2")])
def test_a_file_gives_a_model_that_loads(method: str, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    row = train(method, write(tmp_path / "a.fits"), out, replace(QUICK, licence="CC0", log=tmp_path / "log.jsonl"), command="c")
    model = model_file.load(out)
    assert model.card["method"] == method
    assert model.card["data"] == [{"name": "a.fits", "licence": "CC0"}]
    assert model.card["figures"]["risk"] == row["risk"]
    assert row["steps"] == 4
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3
    assert sorted(p.name for p in tmp_path.glob("*.safetensors")) == ["m.safetensors"]


def test_exposures_of_one_scene_train_by_n2n_and_a_folder_by_r2r(tmp_path: Path) -> None:
    for k in range(2):
        write(tmp_path / f"{k}.fits", seed=k)
    out = tmp_path / "out" / "m.safetensors"
    assert train("n2n", tmp_path, out, QUICK)["risk_is"].startswith("held-out mean")
    out.unlink()
    out.parent.rmdir()
    assert train("r2r", tmp_path, tmp_path / "m.safetensors", QUICK)["steps"] == 4


def test_the_documented_objective_warns_that_it_is_the_identity(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="identity"):
        train("masked-l2", write(tmp_path / "a.fits"), tmp_path / "m.safetensors", QUICK)


def test_correlated_noise_is_refused_assumed_white_or_given_a_wider_hole(tmp_path: Path) -> None:
    path, out = correlated(tmp_path / "a.fits"), tmp_path / "m.safetensors"
    with pytest.raises(FrameError, match=r"correlate.*--widen"):
        train("n2v", path, out, QUICK)
    with pytest.raises(FrameError, match="correlate"):
        train("r2r", path, out, QUICK)
    assert train("n2v", path, out, replace(QUICK, widen=True))["risk_is"] == "held-out loss"
    assert train("r2r", path, out, replace(QUICK, assume_white=True))["steps"] == 4


def test_a_network_is_no_wider_than_the_data_bear(tmp_path: Path) -> None:
    def width(planes: int, side: int) -> int:
        return _width(Planes([lambda: Plane(np.broadcast_to(np.float32(0), (1, side, side)))] * planes))

    assert [width(1, 96), width(1, 512), width(4, 512), width(4, 1024), width(400, 512)] == [8, 8, 16, 32, 32]
    for options, first in ((QUICK, 8), (replace(QUICK, width=16), 16)):
        train("r2r", write(tmp_path / "a.fits"), tmp_path / "m.safetensors", options)
        assert model_file.load(tmp_path / "m.safetensors").card["net"]["config"]["widths"] == [first, 2 * first, 3 * first]


@pytest.mark.parametrize(
    ("method", "option", "message"),
    [
        ("r2r", {"widen": True}, "--widen is of n2v, n2v2 alone"),
        ("masked-l2", {"widen": True}, "--widen is of n2v, n2v2 alone"),
        ("n2v", {"alpha": 0.3}, "--alpha is of r2r alone"),
        ("r2r", {"hole": 3}, "--hole is of n2v, n2v2, masked-l2 alone"),
        ("n2n", {"colour": True}, "--colour is of"),
        ("r2r", {"start": Path("m.safetensors"), "prefilter": "zero"}, "--prefilter is for a new network"),
        ("r2r", {"net": "seed", "prefilter": "zero"}, "takes no --prefilter"),
    ],
)
@pytest.mark.filterwarnings("ignore:masked-l2")
def test_options_that_would_do_nothing_are_refused(
    method: str, option: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FrameError, match=message):
        train(method, write(tmp_path / "a.fits"), tmp_path / "m.safetensors", replace(QUICK, **option))


def test_unknown_noise_trains_by_what_needs_none(tmp_path: Path) -> None:
    path, out = write(tmp_path / "a.npy", noise=Unmodelled("nobody said")), tmp_path / "m.safetensors"
    assert train("n2v2", path, out, QUICK)["risk_is"] == "held-out loss"
    with pytest.raises(FrameError, match="nobody said"):
        train("r2r", path, out, QUICK)


def test_the_size_of_unknown_noise_is_measured() -> None:
    _, x = np.mgrid[:256, :256]
    data = 500 + 90 * np.sin(x / 20) + np.random.default_rng(6).normal(0, 7, (256, 256))
    found = measured(Frame(data, "YX", Unit.ELECTRON, Unmodelled("nobody said"))).noise
    assert isinstance(found, Noise)
    assert np.sqrt(found.b) == pytest.approx(7, rel=0.03)
    assert np.var(found.stabilise(data) - found.stabilise(data - 7)) < 1e-6
    with pytest.raises(FrameError, match="show none"):
        measured(Frame(np.ones((9, 9)), "YX", Unit.ELECTRON, Unmodelled("nobody said")))


def test_it_resumes_when_told_and_never_mixes_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = write(tmp_path / "a.fits"), tmp_path / "m.safetensors"

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("step 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("r2r", path, out, QUICK, tick=stop)
    assert not out.exists()
    with pytest.raises(WriteError, match="--resume"):
        train("r2r", path, out, QUICK)
    resumed = train("r2r", path, out, replace(QUICK, resume=True))
    whole = train("r2r", path, tmp_path / "w.safetensors", QUICK)
    assert resumed["risk"] == whole["risk"]
    assert model_file.load(out).digest() == model_file.load(tmp_path / "w.safetensors").digest()


def test_a_model_is_trained_further_and_previews_are_drawn(tmp_path: Path) -> None:
    path, out = write(tmp_path / "a.fits"), tmp_path / "m.safetensors"
    train("r2r", path, out, QUICK)
    row = train("r2r", path, tmp_path / "n.safetensors", replace(QUICK, start=out, preview=tmp_path / "seen"))
    assert row["risk_at_start"] == pytest.approx(json.loads(json.dumps(model_file.load(out).card))["figures"]["risk"], rel=1e-5)
    assert [p.name for p in sorted((tmp_path / "seen").iterdir())] == [f"preview-{k:07d}.png" for k in (0, 2, 4)]
    assert io.read(tmp_path / "seen" / "preview-0000000.png").shape[1] == 48


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    path, out = write(tmp_path / "a.fits"), tmp_path / "m.safetensors"
    with pytest.raises(FrameError, match="expected one of n2v"):
        train("gan", path, out, QUICK)
    with pytest.raises(FrameError, match="clean targets"):
        train("supervised", path, out, QUICK)
    with pytest.raises(FrameError, match="two or more"):
        train("n2n", path, out, QUICK)
    with pytest.raises(WriteError, match=r"ends in \.safetensors"):
        train("r2r", path, tmp_path / "m.pt", QUICK)
    seed = model_file.new("seed", {"channels": 1, "base": 2}, scaling=model_file.PERCENTILE)
    model_file.save(seed, tmp_path / "seed.safetensors")
    with pytest.raises(ModelError, match="expected stabilised"):
        train("r2r", path, out, replace(QUICK, start=tmp_path / "seed.safetensors"))


def test_a_tile_set_trains_supervised_and_by_r2r(tmp_path: Path) -> None:
    made.tile_set(tmp_path / "set", domains=("astronomy",))
    out = tmp_path / "m.safetensors"
    for method in ("supervised", "r2r"):
        row = train(method, tmp_path / "set", out, QUICK)
        assert row["risk_is"].startswith("held-out mean squared")


def test_tiles_with_correlated_noise_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.tile_set(tmp_path / "set", domains=("astronomy",))
    smooth = correlated(tmp_path / "a.fits")

    def check(frame: Frame, what: str) -> None:
        intake.check_white(io.read(smooth), what)

    monkeypatch.setattr("firstlight.train.job.intake", SimpleNamespace(check_white=check))
    with pytest.raises(FrameError, match=r"tile astronomy_.*correlate"):
        train("r2r", tmp_path / "set", tmp_path / "m.safetensors", QUICK)
