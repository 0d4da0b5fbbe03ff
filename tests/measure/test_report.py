"""What measure returns, prints and draws."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from firstlight import Flag, Frame, Mosaic, Noise, Observation, Unmodelled, measure
from firstlight.errors import FrameError, WriteError
from firstlight.geometry import BAYER, XTRANS

NOISE = Noise(1.0, 9.0)


def frames(seed: int = 0, shape: tuple[int, ...] = (96, 120), axes: str = "YX", **more: object) -> tuple[Frame, Frame, Frame]:
    rng = np.random.default_rng(seed)
    truth = 60 + 50 * np.sin(np.arange(shape[-1]) / 9) * np.ones(shape)
    frame = Frame(NOISE.sample(truth, rng), axes, "electron", NOISE, observation=Observation(instrument="bench <1>"), **more)
    true = frame.replace(data=truth)
    return frame, true.then("restore.known", {"by": "<the truth>"}, noise=Unmodelled("restored"), std=np.zeros(shape)), true


def test_stable_keys_and_plain_json() -> None:
    frame, restored, truth = frames()
    out = measure.measure(frame, restored, truth)
    assert json.loads(json.dumps(out, allow_nan=False)) == out
    assert {"chi2", "chi2_expected", "chi2_by_signal", "lag1", "bias", "psnr", "ssim", "peak", "doubts", "passed"} <= set(out)
    assert set(out["unchanged"]) == set(out["median3"]) == {"psnr", "ssim", "peak"}
    assert {"low", "high", "n", "chi2", "expected", "ratio"} <= set(out["chi2_by_signal"][0])
    assert out["psnr"] is None  # infinite
    assert out["passed"] is True
    assert "psnr" not in measure.measure(frame, restored)


def test_a_frame_alone() -> None:
    rng = np.random.default_rng(1)
    frame = Frame(NOISE.sample(np.full((300, 300), 50.0), rng), "YX", "electron", NOISE)
    out = measure.measure(frame)
    assert (out["chi2"], out["bias"], out["passed"]) == (None, None, None)
    assert "no restored image" in out["reason"]
    assert abs(out["lag1"]) < 0.05
    assert out["doubts"] == []
    assert set(out) == set(measure.measure(frame, frame))
    assert measure.measure(frame, truth=frame.replace(data=np.full((300, 300), 50.0)))["psnr"] == pytest.approx(16.25, abs=0.1)


def printed(figures: dict[str, object]) -> str:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=120).print(measure.table(figures, title="test"))
    return out.getvalue()


def test_table() -> None:
    frame, restored, truth = frames()
    text = printed(measure.measure(frame, restored, truth))
    for word in ("chi-square of the residual", "0.9 to 1.1", "unchanged", "median 3x3", "good"):
        assert word in text
    unknown = measure.measure(frame.replace(noise=Unmodelled("drizzled")), restored)
    assert "not judged: drizzled" in printed(unknown)
    assert "no restored image" in printed(measure.measure(frame))
    wrong = measure.measure(frame, restored.replace(data=truth.data + 9))
    assert "failed" in printed(wrong)


class Page(HTMLParser):
    """Every address the page refers to, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_self_contained(tmp_path) -> None:
    frame, restored, truth = frames()
    unknown = frame.replace(noise=Unmodelled("correlated & unknown"))
    entries = [
        measure.Entry("with truth", frame, restored, truth=truth),
        measure.Entry("no <model>", unknown, restored, note="a note"),
    ]
    path = measure.html(entries, tmp_path / "a report é.html", title="Test")
    page = Page(path.read_text(encoding="utf-8"))
    assert len([a for a in page.addresses if a.startswith("data:image/")]) == 2 * (4 + 3)
    assert all(a.startswith(("data:image/", "#")) for a in page.addresses)
    for word in (
        "with truth",
        "no <model>",
        "restore.known(by = <the truth>)",
        "correlated & unknown",
        "bench <1>",
        "a note",
        "not judged",
    ):
        assert word in page.text
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path) -> None:
    frame, restored, _ = frames()
    with pytest.raises(WriteError, match="cannot be written"):
        measure.html([measure.Entry("x", frame, restored)], tmp_path / "absent" / "r.html")
    (tmp_path / "old.html").write_text("old")
    with pytest.raises(FrameError):
        measure.html([measure.Entry("x", frame, restored.replace(data=restored.data[1:], std=None))], tmp_path / "old.html")
    assert (tmp_path / "old.html").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("shape", "axes", "geometry"),
    [
        ((50, 70), "YX", None),
        ((3, 40, 60), "CYX", None),
        ((2, 40, 60), "CYX", None),
        ((5, 40, 60), "AYX", None),
        ((2, 3, 40, 30), "TCYX", None),
        ((48, 60), "YX", Mosaic(BAYER, (1, 0))),
        ((48, 60), "YX", Mosaic(XTRANS, (2, 5))),
        ((3, 2), "YX", None),
        ((1, 1), "YX", None),
    ],
)
def test_any_frame_has_a_picture_and_a_page(tmp_path, shape, axes, geometry) -> None:
    frame, restored, truth = frames(shape=shape, axes=axes)
    frame, restored = frame.replace(geometry=geometry), restored.replace(geometry=geometry)
    image = measure.picture(frame)
    assert image.dtype == np.uint8
    assert image.ndim == (3 if geometry or "C" in axes else 2)
    if frame.data.size > 1:
        measure.html([measure.Entry("x", frame, restored, truth=truth.replace(geometry=geometry))], tmp_path / "r.html")


def test_picture_is_ordered_bounded_and_tells_no_data() -> None:
    ramp = np.tile(np.linspace(0, 1000.0, 3000), (40, 1))
    flags = np.zeros(ramp.shape, np.uint8)
    flags[:, -50:] = Flag.NO_DATA
    image = measure.picture(Frame(ramp, "YX", "electron", NOISE, flags=flags), size=300)
    assert max(image.shape) == 300
    assert np.all(np.diff(image[0].astype(int))[:290] >= 0)
    assert image[0, -1] == 0 < image[0, 200]


def test_mosaic_picture_has_the_scene_colours() -> None:
    for pattern in (BAYER, XTRANS):
        mosaic = Mosaic(pattern, (1, 1))
        data = np.array([900.0, 500.0, 100.0])[mosaic.at((60, 60))]
        frame = Frame(data, "YX", "adu", NOISE, geometry=mosaic, observation=Observation(white_balance=(1.0, 1.0, 1.0)))
        red, green, blue = measure.picture(frame)[5, 5]
        assert red > green > blue


def test_black_level_does_not_tint_a_raw_mosaic() -> None:
    mosaic = Mosaic(BAYER)
    grey = np.linspace(0, 1, 64) * np.ones((64, 1)) * np.array([400.0, 1000.0, 500.0])[mosaic.at((64, 64))]
    seen = Observation(white_balance=(2.5, 1.0, 2.0))
    for noise in (Unmodelled("no gain"), Noise(1.0, 4.0, 512.0)):
        image = measure.picture(Frame(512 + grey, "YX", "adu", noise, geometry=mosaic, observation=seen)).astype(int)
        assert np.ptp(image.mean(axis=(0, 1))) < 6


def test_the_residual_picture_shows_what_was_taken_where_it_was_taken() -> None:
    from firstlight.measure.pictures import residual_picture

    rng = np.random.default_rng(3)
    truth = np.full((1500, 3000), 50.0)  # more than one strip
    frame = Frame(NOISE.sample(truth, rng), "YX", "electron", NOISE)
    lost = truth.copy()
    lost[1400:, 2900:] -= 8  # one sigma: orange
    lost[:100, :100] += 8
    for shown in (frame, frame.replace(noise=Unmodelled("x"))):
        image = residual_picture(shown, frame.replace(data=lost), block=10).astype(int)
        assert image.shape == (150, 300, 3)
        assert image[142:, 292:, 0].mean() > 200 > 80 > image[50:100, 100:200, 0].mean()
        assert image[:8, :8, 2].mean() > 200 > 80 > image[50:100, 100:200, 2].mean()


def test_the_verdict_is_that_of_the_self_check() -> None:
    """Chi-square alone is right, but neighbours were taken off together: structure is gone, and `restore` says FAILED."""
    pairs = np.repeat(np.random.default_rng(5).standard_normal((200, 100)), 2, axis=1)
    frame = Frame(100 + pairs, "YX", "electron", Noise(0.0, 1.0))
    restored = frame.replace(data=np.full((200, 200), 100.0), noise=Unmodelled("restored"), std=np.zeros((200, 200)))
    out = measure.measure(frame, restored)
    assert 0.9 < out["chi2_ratio"] < 1.1
    assert out["passed"] is False
    assert "failed: neighbouring residuals correlate by 0.5" in printed(out)
