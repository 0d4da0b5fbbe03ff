"""`firstlight train`: flags as the options, figures and errors as one line, without torch until it trains."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from firstlight import io, model_file
from firstlight.cli import main
from firstlight.cli.train import Run, train
from firstlight.frame import Frame, Unit
from firstlight.noise import Noise, Unmodelled
from firstlight.train import METHODS, Options

QUICK = ["--budget", "3 steps", "--patch", "16", "--batch", "2", "--validations", "1"]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    noise = Noise(1.0, 4.0, 0.0)
    data = noise.sample(np.full((64, 64), 50.0), np.random.default_rng(1)).astype(np.float32)
    io.write(Frame(data, "YX", Unit.ELECTRON, noise), tmp_path / "a.fits")
    return tmp_path / "a.fits"


def test_the_flags_are_the_options_with_their_defaults() -> None:
    parameters = inspect.signature(train).parameters
    own = {n: p.default for n, p in parameters.items() if n not in ("method", "data", "out", "run", "json")}
    assert {f.name: f.default for f in fields(Options)} == own | vars(Run())
    assert inspect.get_annotations(train, eval_str=True)["method"].__args__ == tuple(METHODS)


def test_a_model_and_its_figures(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.safetensors"
    assert main(["train", "r2r", str(image), "-o", str(out), *QUICK, "--alpha", "0.3", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["steps"] == 3
    card = model_file.load(out).card
    assert card["command"] == "firstlight train r2r a.fits --budget '3 steps' --batch 2 --patch 16 --alpha 0.3 --validations 1"
    assert main(["train", "n2v2", str(image), "-o", str(out), *QUICK]) == 0
    assert "n2v2, 3 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budget", "soon"], "expected such as 60s"),
        (["--hole", "2"], "odd number"),
        (["--patch", "512"], "holds 0 patches"),
        (["--patch", "18"], "patch 18 px, expected a multiple"),
        (["--device", "abacus"], "'abacus' is not there"),
        (["--start", "absent.safetensors"], "no such file"),
        (["--rate", "1e30"], "not finite|became"),
        (["--alpha", "0"], "alpha 0, expected"),
    ],
)
def test_bad_input_is_one_line(
    more: list[str], message: str, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = "r2r" if "--alpha" in more else "n2v"
    quick = [part for k in range(0, len(QUICK), 2) if QUICK[k] != more[0] for part in QUICK[k : k + 2]]
    assert main(["train", method, str(image), "-o", str(tmp_path / "m.safetensors"), *quick, *more]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1


def test_unknown_noise_says_why(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = io.read(image).replace(noise=Unmodelled("nobody said"))
    io.write(frame, tmp_path / "b.npy")
    assert main(["train", "r2r", str(tmp_path / "b.npy"), "-o", str(tmp_path / "m.safetensors"), *QUICK]) == 2
    assert "nobody said" in capsys.readouterr().err


def test_the_command_line_loads_no_torch() -> None:
    code = "import sys, firstlight.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
