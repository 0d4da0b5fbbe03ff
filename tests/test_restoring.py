"""Restoring files: which method, the self-check, samples, fine-tuning, and all of it within the memory stated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from firstlight import Frame, Noise, Unit, io, measure, model_file, restoring, simulate
from firstlight.cli import main
from firstlight.frame import Observation
from firstlight.geometry import Mosaic

NOISE = Noise(1.0, 4.0)


@pytest.fixture
def spots(tmp_path: Path) -> Path:
    """Electrons with read noise 2 e-, seed 5."""
    rng = np.random.default_rng(5)
    truth = simulate.filaments((160, 144), rng, peak=60.0, n=10) + 4
    io.write(Frame(NOISE.sample(truth, rng).astype(np.float32), "YX", Unit.ELECTRON, NOISE), tmp_path / "in.fits")
    return tmp_path / "in.fits"


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict]:  # type: ignore[type-arg]
    return json.loads(capsys.readouterr().out)


def test_the_self_check_is_printed_and_in_the_history(spots: Path, tmp_path: Path, capsys) -> None:
    assert main(["restore", str(spots), "-o", str(tmp_path / "r.fits"), "--std"]) == 0
    text = capsys.readouterr().out
    assert text.count("self-check good: chi-square ") == 1
    restored = io.read(tmp_path / "r.fits")
    said = restored.history[-1].params["check"]
    assert said in text
    found = measure.residual(io.read(spots), restored)
    assert said == found.line()
    assert f"{found.ratio:.3f} of its expectation" in said
    assert f"flux {found.flux:.4f}" in said


def test_blocks_within_little_memory_give_the_same_and_are_checked_by_a_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    frame = Frame(NOISE.sample(np.full((900, 700), 40.0), rng).astype(np.float32), "YX", Unit.ELECTRON, NOISE)
    outcomes = []
    for memory in (1 << 30, 100 << 20):
        goal = tmp_path / f"{memory}.npy"
        outcomes.append(restoring.restored(frame, goal, restoring.Restoration(std=True, memory=memory)))
    big, small = (io.read(tmp_path / f"{m}.npy") for m in (1 << 30, 100 << 20))
    assert outcomes[1].check.n < outcomes[0].check.n == 900 * 700
    np.testing.assert_allclose(small.data, big.data, atol=0.5)  # bfloat16 rounds as tiles lie, where the CPU is fast at it
    np.testing.assert_allclose(small.std, big.std, rtol=0.2)
    assert outcomes[1].check.ratio == pytest.approx(outcomes[0].check.ratio, abs=0.02)


def test_a_wrong_noise_model_fails_the_check_and_is_warned_of(spots: Path, tmp_path: Path) -> None:
    frame = io.read(spots)
    wrong = frame.replace(noise=Noise(0.5, 2.0))
    outcome = restoring.restored(wrong, tmp_path / "o.fits", restoring.Restoration())
    assert outcome.check.problems
    assert io.read(tmp_path / "o.fits").history[-1].params["check"].startswith("FAILED")
    io.write(wrong.replace(history=()), tmp_path / "wrong.fits")
    with pytest.warns(UserWarning, match="self-check failed: chi-square"):
        (row,) = restoring.restore([tmp_path / "wrong.fits"], tmp_path / "w.fits", restoring.Restoration(), lambda *a: None)
    assert row["check"]["passed"] is False
    assert (tmp_path / "w.fits").exists()


def test_saturated_pixels_of_raw_counts_are_flagged_for_the_check_too(tmp_path: Path) -> None:
    noise = Noise(1.0, 4.0)
    data = noise.sample(np.full((96, 96), 200.0), np.random.default_rng(2)).astype(np.float32)
    data[40:44, 40:44] = 4000
    frame = Frame(data, "YX", Unit.ADU, noise, observation=Observation(saturation=4000.0))
    outcome = restoring.restored(frame, tmp_path / "o.npy", restoring.Restoration())
    assert outcome.check.excluded >= 16
    assert np.all(np.asarray(io.read(tmp_path / "o.npy").data)[40:44, 40:44] == 4000)


def test_samples_have_an_axis_of_their_own_and_a_seed(spots: Path, tmp_path: Path, capsys) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        argv = ["restore", str(spots), "-o", str(tmp_path / f"{name}.fits"), "--samples", "3", "--seed", seed]
        assert main(argv) == 0
    a, b, c = (io.read(tmp_path / f"{k}.fits") for k in "abc")
    assert (a.axes, a.shape) == ("SYX", (3, 160, 144))
    np.testing.assert_array_equal(a.data, b.data)
    assert not np.array_equal(a.data, c.data)
    assert a.history[-1].step == "restore.samples"
    assert "self-check" in capsys.readouterr().out
    assert main(["restore", str(spots), "-o", str(tmp_path / "d.fits"), "--samples", "3", "--memory", "64M"]) == 2
    assert "need" in capsys.readouterr().err


def test_the_mean_under_symmetries_is_near_the_single_estimate_and_told_in_the_history(spots: Path, tmp_path: Path) -> None:
    for name, extra in (("one", []), ("eight", ["--ensemble"])):
        assert main(["restore", str(spots), "-o", str(tmp_path / f"{name}.fits"), "--std", *extra]) == 0
    one, eight = (io.read(tmp_path / f"{name}.fits") for name in ("one", "eight"))
    assert [f.history[-1].params["ensemble"] for f in (one, eight)] == [False, True]
    off = (np.asarray(eight.data) - np.asarray(one.data)) / np.asarray(one.std)
    assert 0.02 < np.sqrt(np.mean(off**2)) < 1
    assert 0.5 < np.median(np.asarray(eight.std) / np.asarray(one.std)) < 1


def test_fine_tuning_says_which_was_kept_and_both_risks(spots: Path, tmp_path: Path, capsys) -> None:
    argv = ["restore", str(spots), "-o", str(tmp_path / "o.fits"), "--finetune", "12 steps", "--json"]
    assert main([*argv, "--keep-model", str(tmp_path / "m.safetensors")]) == 0
    (row,) = rows(capsys)
    assert " model was kept: held-out risk " in row["finetuned"]
    assert io.read(tmp_path / "o.fits").history[-1].params["finetuned"] == row["finetuned"]
    again = ["restore", str(spots), "-o", str(tmp_path / "p.fits"), "--model", str(tmp_path / "m.safetensors")]
    assert main(again) == 0
    np.testing.assert_array_equal(io.read(tmp_path / "p.fits").data, io.read(tmp_path / "o.fits").data)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--method", "means", "--model", "universal"], "leave out"),
        (["--method", "network", "--strength", "2"], "leave out"),
        (["--strength", "2", "--finetune", "3s"], "leave out"),
        (["--samples", "0"], "from 1"),
        (["--samples", "2", "--std"], "no --std"),
        (["--samples", "2", "--ensemble"], "--ensemble is of"),
        (["--strength", "2", "--ensemble"], "--ensemble is of"),
        (["--keep-model", "m.safetensors"], "with --finetune"),
        (["--finetune", "3s", "--keep-model", "m.pt"], "safetensors"),
        (["--finetune", "soon"], "soon"),
    ],
)
def test_options_that_disagree_are_refused_before_any_work(spots: Path, tmp_path: Path, capsys, extra, said) -> None:
    assert main(["restore", str(spots), "-o", str(tmp_path / "x.fits"), *extra]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.fits").exists()


@pytest.mark.filterwarnings("ignore:.*the self-check failed")  # its weights are random
def test_a_model_without_error_bars_restores_and_is_judged_where_that_can_be(spots: Path, tmp_path: Path, capsys) -> None:
    torch.manual_seed(0)
    scaling = {"domain": "stabilised", "prefilter": "input"}
    model = model_file.save(
        model_file.new("lean", {"outputs": 1, "widths": [4, 4]}, scaling=scaling), tmp_path / "m.safetensors"
    )
    words = ["restore", str(spots), "--model", str(model), "-o", str(tmp_path / "r.fits")]
    assert main([*words, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["check"]["passed"] is not True
    assert row["check"]["chi2_expected"] == 1  # no std, no expectation below the noise
    assert main([*words[:-1], str(tmp_path / "s.fits"), "--std"]) == 2
    assert "gives no error bars" in capsys.readouterr().err


def test_mosaics_are_restored_by_means_unless_a_network_is_asked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    data = NOISE.sample(np.full((64, 64), 50.0), rng).astype(np.float32)
    frame = Frame(data, "YX", Unit.ELECTRON, NOISE, geometry=Mosaic(((0, 1), (1, 2))))
    for options, step in (({}, "restore.nonlocal_means"), ({"method": "network"}, "restore.denoise")):
        done = restoring.restored(frame, tmp_path / f"{step}.npy", restoring.Restoration(**options))
        assert done.frame.history[-1].step == step
