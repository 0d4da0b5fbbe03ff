"""The page says what the set holds, shows pairs, stands alone, and appears whole or not at all."""

from __future__ import annotations

import re
import runpy
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from firstlight.dataset.page import _brightness, _histogram, _number, _share, write_page
from firstlight.dataset.verify import verify
from firstlight.errors import ReadError, WriteError

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sets.py"))))


class Balanced(HTMLParser):
    """Fails on a tag that is closed without being open."""

    VOID = {"meta", "img", "br", "link", "input"}

    def __init__(self):
        super().__init__()
        self.open, self.images = [], []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs).get("src", ""))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_shows_each_domain_its_counts_and_its_pairs(tmp_path):
    made.tile_set(tmp_path)
    text = write_page(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8")
    for words in ("astronomy", "microscopy", "photography", "train 24 (33.3 %)", "24 tiles (12 clean, 12 noisy)"):
        assert words in text
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    pictures = [src for src in parser.images if src.startswith("data:image/webp")]
    assert len(pictures) == 3 * 6 * 2  # of three domains each scene and other signal levels, noisy beside clean


def test_it_stands_alone(tmp_path):
    made.tile_set(tmp_path)
    text = write_page(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "http" not in text
    assert "prefers-color-scheme: dark" in text


def test_it_tells_what_is_wrong(tmp_path):
    meta = made.tile_set(tmp_path, documented=True)
    meta["unreadable"] = [{"path": f"SID/{n}<x>.ARW", "cause": "truncated & lost"} for n in range(3)]
    made.write_metadata(tmp_path, meta)
    (tmp_path / meta["tiles"][0]["npy_path"]).unlink()
    text = write_page(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "not verified" in text
    assert "clean and noisy of one scene" in text
    assert "1 rows have no tile" in text
    assert "3 files: truncated &amp; lost" in text
    assert "SID/0&lt;x&gt;.ARW" in text


def test_a_verification_that_was_done_is_not_done_again(tmp_path, monkeypatch):
    made.tile_set(tmp_path)
    checks = verify(tmp_path)
    monkeypatch.setattr("firstlight.dataset.page.verify", lambda *a, **k: pytest.fail("verified again"))
    assert write_page(tmp_path, tmp_path / "page.html", checks=checks, examples=1).stat().st_size > 1000


def test_rows_without_the_schema_still_give_a_page(tmp_path):
    meta = made.tile_set(tmp_path)
    for row in meta["tiles"]:
        del row["norm_std"]
    made.write_metadata(tmp_path, meta)
    assert "lack fields of the schema" in write_page(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8")


def test_what_cannot_be_read_or_written_is_refused(tmp_path):
    with pytest.raises(ReadError):
        write_page(tmp_path, tmp_path / "page.html")
    made.tile_set(tmp_path / "set")
    with pytest.raises(WriteError, match="absent"):
        write_page(tmp_path / "set", tmp_path / "absent" / "page.html")


def test_a_noisy_tile_is_brought_to_the_clean_ones_brightness():
    rng = np.random.default_rng(5)
    clean = np.kron(rng.uniform(0, 1e4, (8, 8)), np.ones((8, 8))).astype(np.float32)
    noisy = clean / 250 + 2600 + rng.normal(0, 5, clean.shape).astype(np.float32)
    scale, offset = _brightness(noisy, clean, float("nan"))
    assert scale == pytest.approx(1 / 250, rel=0.05)
    assert offset == pytest.approx(2600, abs=3)
    assert _brightness(noisy, clean, 0.5) == (0.5, 0.0)  # what the pair was proved with comes first
    assert _brightness(rng.normal(0, 1, (64, 64)).astype("f4"), clean, float("nan")) == (1.0, 0.0)


def test_histograms_count_every_value_on_one_axis():
    rng = np.random.default_rng(6)
    plot = _histogram("x", {"noisy": rng.lognormal(2, 2, 500), "clean": rng.lognormal(5, 2, 500)})
    assert plot["scale"].endswith("logarithmic")
    assert [s["name"] for s in plot["series"]] == ["noisy", "clean"]
    assert plot["series"][0]["x"] < plot["series"][1]["x"]
    xs = [t["x"] for t in plot["ticks"]]
    assert xs == sorted(xs)
    assert 2 <= len(xs) <= 8
    assert _histogram("x", {"noisy": np.zeros(0)})["empty"]
    one = _histogram("x", {"noisy": np.full(4, 3.0)})
    assert one["series"][0]["median"].startswith("3.0")
    assert _number(-3.499869, 0.0005) == "-3.499869"


def test_noise_that_the_finest_detail_falls_short_of_is_told(tmp_path):
    meta = made.tile_set(tmp_path, domains=("microscopy",))
    read = (write_page(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8"),)
    for row in meta["tiles"]:
        row["noise_b"] = 1e10  # 1e5 e-; the tiles spread by 1320 e-
    made.write_metadata(tmp_path, meta)
    read += (write_page(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8"),)
    assert ["so rows state too much" in text for text in read] == [False, True]
    assert "noisy, finest detail" in read[0]


def test_valid_pixels_are_never_rounded_up_to_all():
    assert [_share(v) for v in (1.0, 0.999999, 0.98765432)] == ["100%", "99.999%", "98.765%"]


def test_one_scene_is_shown_at_several_signal_levels(tmp_path):
    rng = np.random.default_rng(8)
    rows = []
    for number in range(12):
        electrons = rng.normal(100 * (number + 1), 5, (made.SIZE, made.SIZE))
        row = made.row("astronomy", "field", "noisy", "train", number, electrons)
        (tmp_path / row.npy_path).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / row.npy_path, ((electrons + 5) / 170).astype(np.float32))
        rows.append(row.to_dict())
    made.write_metadata(tmp_path, {"profile": "physical", "split": "scene", "pairs": [], "unreadable": [], "tiles": rows})
    parser = Balanced()
    parser.feed(write_page(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(parser.images) == 6


def test_an_audit_that_could_not_see_all_is_no_pass_on_the_page(tmp_path):
    meta = made.tile_set(tmp_path)
    (tmp_path / meta["tiles"][0]["npy_path"]).write_bytes(b"cut short")
    text = write_page(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<span class="chip good">no leak found</span>' not in text
    assert 'class="chip failed">unreadable' in text
