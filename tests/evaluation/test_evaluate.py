"""`firstlight evaluate`, `detections` and `analyze` as users run them; what they say is what happened."""

from __future__ import annotations

import csv
import json
import re
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firstlight import Noise, Unit, io, measure, model_file
from firstlight.evaluation import field as fields
from firstlight.evaluation.images import Given, named_model
from firstlight.evaluation.stars import Counts

from .conftest import NOISE

pytestmark = pytest.mark.filterwarnings("default")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_against_a_clean_image(cli: Any, stars: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "ev"
    code, text, err = cli("evaluate", stars[0], "--model", "universal", "--truth", stars[1], "-o", out)
    assert (code, err) == (0, "")
    made = {p.name for p in out.iterdir()}
    pictures = {
        "psnr_hist.png",
        "ssim_hist.png",
        "psnr_vs_ssim.png",
        "flux_scatter.png",
        "detection_confusion.png",
        "checks.png",
    }
    assert made == pictures | {"per_parent_metrics.csv", "detection_summary.txt"}
    found = {r["method"]: r for r in rows(out / "per_parent_metrics.csv")}
    assert list(found) == ["restored", "unchanged", "nonlocal means", "median 3x3"]
    noisy, truth = (np.asarray(io.read(p).data, dtype=float) for p in stars)
    assert float(found["unchanged"]["mse"]) == pytest.approx(np.mean((noisy - truth) ** 2), rel=1e-4)
    assert float(found["unchanged"]["psnr"]) == pytest.approx(measure.psnr(noisy, truth, peak=truth.max()), abs=1e-3)
    assert float(found["restored"]["psnr"]) > float(found["unchanged"]["psnr"]) + 5
    assert {r["reference"] for r in found.values()} == {"truth.fits"}
    assert 0.9 < float(found["restored"]["chi2_ratio"]) < 1.1
    assert float(found["restored"]["flux_balance"]) == pytest.approx(1, abs=0.01)
    summary = (out / "detection_summary.txt").read_text()
    assert "injected stars" in summary
    assert re.search(r"restored +precision 0\.\d+ +recall", summary) or "restored        precision 1.000" in summary
    assert "medians: psnr" in text


def test_without_truth_there_is_no_psnr(cli: Any, patches: Path, tmp_path: Path) -> None:
    code, text, _ = cli("evaluate", "--patches", patches, "--model", "universal", "-o", tmp_path / "ev", "--json")
    assert code == 0
    told = json.loads(text)
    assert {r["reference"] for r in told["rows"]} == {"none"}
    assert not (tmp_path / "ev" / "psnr_hist.png").exists()
    assert (tmp_path / "ev" / "checks.png").exists()
    assert all(r["psnr"] == "nan" for r in rows(tmp_path / "ev" / "per_parent_metrics.csv"))


def test_documented_says_that_it_says_nothing(cli: Any, stars: tuple[Path, Path], tmp_path: Path) -> None:
    words = ("evaluate", stars[0], "--model", "universal", "-o", tmp_path / "ev", "--profile", "documented", "--json")
    code, text, err = cli(*words)
    assert code == 0
    assert "nothing about quality" in err
    told = json.loads(text)
    by = {r["method"]: r for r in told["rows"]}
    assert by["unchanged"]["mse"] == 0
    assert by["restored"]["reference"] == "noisy input"
    assert by["restored"]["peak"] == 1
    assert set(told["detection"]) == {"known_by", "restored"}
    assert "no truth" in told["detection"]["known_by"]


def test_thresholds_swept(cli: Any, stars: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "de"
    code, text, _ = cli("detections", stars[0], "--model", "universal", "-o", out, "--thresholds", "2,4")
    assert code == 0
    names = {"pr_curve.png", "prf_vs_threshold.png", "detection_counts_vs_threshold.png"}
    assert {p.name for p in out.iterdir()} == names | {"detection_threshold_sweep.csv", "summary_metrics.txt"}
    found = rows(out / "detection_threshold_sweep.csv")
    assert [(r["image"], r["threshold"]) for r in found[:3]] == [("restored", "2"), ("restored", "4"), ("unchanged", "2")]
    for r in found:
        assert float(r["f1"]) == pytest.approx(Counts(*(int(r[k]) for k in ("tp", "fp", "fn"))).f1, abs=1e-5)
    best = max((r for r in found if r["image"] == "restored"), key=lambda r: float(r["f1"]))
    assert f"best F1 {float(best['f1']):.3f} at threshold {best['threshold']}:" in text
    assert text == (out / "summary_metrics.txt").read_text()


def test_a_catalogue_is_the_truth_where_it_is_given(cli: Any, stars: tuple[Path, Path], tmp_path: Path) -> None:
    assert cli("sources", stars[1], "--detector", "gain=1,read_noise=5", "--fwhm", "2.5", "-o", tmp_path / "c.csv")[0] == 0
    words = ("--model", "universal", "--catalogue", tmp_path / "c.csv", "--fwhm", "2.5", "--thresholds", "3", "--json")
    code, text, _ = cli("detections", stars[0], *words, "-o", tmp_path / "de")
    told = json.loads(text)
    assert code == 0
    assert "catalogue" in told["known_by"]
    known = len(rows(tmp_path / "c.csv"))
    restored = told["rows"][0]
    assert restored["tp"] + restored["fn"] == known > 20
    assert restored["recall"] > 0.7
    code, _, err = cli("detections", stars[0], stars[0], *words, "-o", tmp_path / "x")
    assert (code, "is of one image" in err) == (2, True)


def test_false_alarms_of_injection_are_counted_on_the_negative(stars: tuple[Path, Path]) -> None:
    """A detector that finds everything that is there has as many false alarms as noise alone gives: few at 5 sigma."""
    f = fields.field(io.read(stars[0]), named_model(None), Given(), fwhm=3.0, rng=np.random.default_rng(0))
    assert f.truth is not None
    high = fields.counted(f, 5.0, 3.0)["unchanged"]
    low = fields.counted(f, 1.5, 3.0)["unchanged"]
    assert high.fp <= 2 < 20 < low.fp
    assert low.tp + low.fn == high.tp + high.fn == len(f.truth)


def test_analysis(cli: Any, stars: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: seen.append(url) or True)
    code, text, _ = cli("analyze", stars[0], "-o", tmp_path / "an", "--json")
    assert (code, seen) == (0, [])
    told = json.loads(text)
    assert told == json.loads((tmp_path / "an" / "light_report.json").read_text())
    noisy, clean = (np.asarray(io.read(p).data, dtype=float) for p in (stars[0], told["cleaned"]))
    assert told["change"]["mae"] == pytest.approx(np.mean(np.abs(clean - noisy)))
    assert told["change"]["mse"] == pytest.approx(np.mean((clean - noisy) ** 2))
    assert told["brightness"]["change_percent"] == pytest.approx(100 * (clean.mean() / noisy.mean() - 1))
    assert told["stars"]["both"] <= min(told["stars"]["before"], told["stars"]["after"])
    assert told["stars"]["threshold"] == pytest.approx(5 * told["sky"][0]["sigma"])
    page = (tmp_path / "an" / "light.html").read_text()
    assert page.count("<circle") == told["stars"]["before"] + told["stars"]["after"]
    assert page.count('class="both"') == 2 * told["stars"]["both"]
    assert not re.search(r'(src|href)="(?!data:)', page)
    code, _, _ = cli("analyze", stars[0], "-o", tmp_path / "an", "--open")
    assert (code, seen) == (0, [(tmp_path / "an" / "light.html").as_uri()])


def test_analysis_of_a_picture(
    cli: Any, colour: Path, rgb_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(model_file, "load", lambda path: pytest.fail("a model is loaded for an image that is refused"))
        code, _, err = cli("analyze", colour, "-o", tmp_path / "no")
    assert code == 2
    assert "--detector" in err
    assert "--model" in err
    assert not (tmp_path / "no").exists()
    code, text, err = cli("analyze", colour, "--model", rgb_model, "-o", tmp_path / "an", "--json", "--no-open")
    assert code == 0
    told = json.loads(text)
    cleaned = io.read(told["cleaned"])
    assert (cleaned.shape, cleaned.data.dtype) == ((3, 96, 80), np.uint8)
    assert abs(told["brightness"]["change_percent"]) > 1
    assert "does not keep light" in err
    assert any("does not keep light" in d for d in told["doubts"])


def test_the_check_fails_where_the_noise_is_overstated(cli: Any, stars: tuple[Path, Path], tmp_path: Path) -> None:
    """With a read noise four times too large chi-square is far below 1: only the network's std says that this is wrong."""
    io.write(io.read(stars[0]).replace(noise=Noise(1.0, 16 * NOISE.b)), tmp_path / "quiet.fits")
    code, text, _ = cli("analyze", tmp_path / "quiet.fits", "-o", tmp_path / "an", "--json")
    told = json.loads(text)["checks"]
    assert (code, told["passed"]) == (0, False)
    assert "chi-square" in told["problems"][0]
    assert io.read(json.loads(text)["cleaned"]).std is None


def test_nothing_is_left_of_what_fails(cli: Any, stars: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.fits").write_bytes(b"nothing")
    io.write(io.read(stars[0]).replace(data=np.full((192, 176), 40, np.float32)), tmp_path / "flat.fits")
    for n, words in enumerate((("evaluate", "bad.fits"), ("detections", "bad.fits"), ("analyze", "flat.fits"))):
        code, _, err = cli(words[0], tmp_path / words[1], "--model", "universal", "-o", tmp_path / f"out{n}")
        assert (code, len(err.splitlines())) == (2, 1), err
        assert not (tmp_path / f"out{n}").exists()


def test_images_beyond_the_most_are_told(cli: Any, stars: tuple[Path, Path], tmp_path: Path) -> None:
    words = ("--model", "universal", "-o", tmp_path / "x", "--max-parents", "1", "--thresholds", "4")
    assert "the first 1 of 2 images" in cli("detections", *stars, *words)[2]


def test_files_that_fail_are_named_and_the_rest_goes_on(cli: Any, stars: tuple[Path, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.fits"
    bad.write_bytes(b"nothing")
    for command in ("evaluate", "detections"):
        code, _, err = cli(command, bad, stars[0], "--model", "universal", "-o", tmp_path / command)
        assert code == 0
        assert "bad.fits" in err
        assert "left out" in err
        code, _, err = cli(command, bad, "--model", "universal", "-o", tmp_path / "x")
        assert (code, len(err.splitlines())) == (2, 1)
    code, _, err = cli("evaluate", "--model", "universal", "-o", tmp_path / "x")
    assert (code, "--patches" in err) == (2, True)


def test_the_field_has_the_noise_it_says(stars: tuple[Path, Path]) -> None:
    frame = io.read(stars[0])
    assert frame.unit is Unit.ELECTRON
    assert frame.noise.b == NOISE.b  # type: ignore[union-attr]
