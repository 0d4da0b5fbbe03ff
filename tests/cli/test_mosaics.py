"""`mosaic-dataset build`, `torture`, `sharpness`, `train demosaic`, `compare`: thin doors, errors in one line."""

import inspect
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from firstlight import io, model_file
from firstlight.cli import main
from firstlight.cli.mosaics import demosaic
from firstlight.cli.train import Run
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import BAYER, Mosaic
from firstlight.noise import Unmodelled
from firstlight.train import Learning


def test_the_flags_are_the_options_with_their_defaults() -> None:
    parameters = {
        n: p.default for n, p in inspect.signature(demosaic).parameters.items() if n not in ("data", "out", "run", "json")
    }
    lists = {"mix": (), "shrink": (1,)}
    assert {f.name: f.default for f in fields(Learning)} == {k: lists.get(k, v) for k, v in parameters.items()} | vars(Run())


def test_from_raw_files_and_torture_to_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    (tmp_path / "raws").mkdir()
    for k in range(2):
        seen = Observation(offset=64.0, saturation=4000.0, white_balance=(2.0, 1.0, 1.5))
        data = rng.integers(64, 3000, (256, 256)).astype(np.uint16)
        frame = Frame(data, "YX", Unit.ADU, Unmodelled("none"), geometry=Mosaic(BAYER), observation=seen)
        io.write(frame, tmp_path / "raws" / f"{k}.dng")
    run = [str(tmp_path / n) for n in ("raws", "set", "t.npz", "s.csv", "m.safetensors", "cmp")]
    raws, dataset, torture, table, model, folder = run
    assert main(["mosaic-dataset", "build", raws, dataset, "--shrink", "2"]) == 0
    assert main(["torture", torture, "--count", "13", "--side", "128", "--seed", "2"]) == 0
    assert main(["sharpness", raws, "-o", table, "--top", "1", "2"]) == 0
    assert (tmp_path / "s_top1.txt").exists()
    capsys.readouterr()
    quick = ["--budget", "2 steps", "--validations", "1", "--width", "4", "--depth", "1", "--batch", "2", "--patch", "48"]
    assert main(["train", "demosaic", dataset, "-o", model, *quick, "--mix", f"{torture}:0.1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert (
        model_file.load(model).card["command"].startswith("firstlight train demosaic set --width 4 --depth 1 --mix t.npz:0.1")
    )
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), rng.integers(0, 256, (48, 48, 3)).astype(np.uint8))
    assert main(["compare", model, "--images", str(tmp_path / "a.png"), "-o", folder]) == 0
    assert "lmmse" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mosaic-dataset", "build", "only"], "expected RAWS and OUT"),
        (["mosaic-dataset", "build", "nothing", "OUT"], "no such file"),
        (["mosaic-dataset", "build", "mars:a", "OUT"], "scp"),
        (["torture", "OUT.npy"], r".npz"),
        (["sharpness", "nothing", "-o", "OUT.csv"], "no such folder"),
        (["train", "demosaic", "nothing", "-o", "m.safetensors"], "no such file"),
        (["compare", "nothing.safetensors", "--images", "a.png", "-o", "OUT"], "no such file"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no scp
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_file_that_fails_among_others_makes_the_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raws").mkdir()
    (tmp_path / "raws" / "a.dng").write_bytes(b"")
    assert main(["mosaic-dataset", "build", str(tmp_path / "raws"), str(tmp_path / "set")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
