"""The shipped denoiser: better than non-local means on scenes it has not seen, honest about its error, and with a card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from firstlight import model_file, restore, simulate
from firstlight.frame import Frame, Unit
from firstlight.noise import Noise

SCENES = {  # seeds that training never saw (it took 1000 to 1023); gain [dB] asked of it over non-local means
    "filaments": (lambda rng: simulate.filaments((256, 256), rng), 1.6, 1.5),
    "spots": (lambda rng: simulate.spots((256, 256), rng), 1.6, 2.0),
    "stars": (lambda rng: simulate.star_field((256, 256), rng)[0], 5.0, 1.0),
}


def noisy(kind):
    draw, read_noise, gain = SCENES[kind]
    rng = np.random.default_rng(77)
    truth = draw(rng)
    counts = rng.poisson(truth) + rng.normal(0, read_noise, truth.shape)
    return truth, Frame(counts.astype(np.float32), "YX", Unit.ELECTRON, Noise(1.0, read_noise**2)), gain


@pytest.mark.parametrize("kind", SCENES)
def test_it_beats_non_local_means(kind):
    truth, frame, gain = noisy(kind)
    ours, theirs = restore.denoise(frame), restore.nonlocal_means(frame, std=False)
    errors = [np.mean((f.data - truth) ** 2) for f in (ours, theirs)]
    assert 10 * np.log10(errors[1] / errors[0]) > gain


@pytest.mark.parametrize("kind", SCENES)
def test_its_error_bar_is_about_right(kind):
    truth, frame, _ = noisy(kind)
    found = restore.denoise(frame, std=True)
    pull = (found.data - truth) / found.std
    assert 0.8 < np.mean(np.abs(pull) < 1.645) < 0.97
    assert 0.7 < np.sqrt(np.mean(pull**2)) < 1.5


def test_flat_light_keeps_its_mean_at_every_level():
    rng = np.random.default_rng(3)
    for level in (5.0, 50.0, 5000.0):
        counts = rng.poisson(level, (128, 128)) + rng.normal(0, 2.0, (128, 128))
        out = restore.denoise(Frame(counts.astype(np.float32), "YX", Unit.ELECTRON, Noise(1.0, 4.0))).data
        assert out.mean() == pytest.approx(counts.mean(), rel=0.005)
        assert out.std() < 0.25 * counts.std()


def test_its_card_says_what_it_was_made_of():
    path = model_file.shipped()
    card = model_file.load(path).card
    assert path.stat().st_size < 2 << 20
    assert all(d["licence"] for d in card["data"])
    assert "train_universal" in card["command"]
    assert card["figures"]


def test_the_command_restores_with_it_block_by_block(tmp_path, capsys):
    from firstlight import io
    from firstlight.cli import main

    _, frame, _ = noisy("filaments")
    io.write(frame, tmp_path / "in.npy")
    assert main(["restore", str(tmp_path / "in.npy"), "-o", str(tmp_path / "out.npy"), "--model", "universal"]) == 0
    np.testing.assert_allclose(io.read(tmp_path / "out.npy").data, restore.denoise(frame).data, atol=0.2)
    assert main(["restore", str(tmp_path / "in.npy"), "-o", str(tmp_path / "x.npy"), "--model", "none.safetensors"]) == 2
    again = ["restore", str(tmp_path / "in.npy"), "-o", str(tmp_path / "x.npy"), "--model", "universal", "--strength", "2"]
    assert main(again) == 2
    assert "leave out" in capsys.readouterr().err
    assert not (tmp_path / "x.npy").exists()


def test_the_script_that_makes_it_starts():
    script = Path(__file__).parents[2] / "scripts" / "train_universal.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "PHOTOS" in done.stdout or "photos" in done.stdout


def test_whoever_may_read_plain_files_may_read_a_model(tmp_path):
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    model = model_file.save(model_file.load(model_file.shipped()), tmp_path / "m.safetensors")
    assert model.stat().st_mode == plain.stat().st_mode
