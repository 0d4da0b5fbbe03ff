"""Peeking at a header gives what reading gives, and leaves camera raw undecoded."""

import numpy as np
import pytest

from firstlight import io
from firstlight.errors import ReadError
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.io.peek import peek
from firstlight.noise import Unmodelled


def same(path):
    facts, frame = peek(path), io.read(path)
    seen = frame.observation
    assert (facts.instrument, facts.setting, facts.time) == (seen.instrument, seen.setting, seen.time)
    assert facts.exposure == pytest.approx(seen.exposure)
    assert facts.shape == frame.shape
    assert facts.dtype == np.dtype(frame.data.dtype).name


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
@pytest.mark.parametrize("ours", [True, False])
def test_a_dng_says_the_same_read_or_peeked_at(tmp_path, pattern, ours):
    seen = Observation(instrument="Cam", setting="ISO 400", exposure=0.04, time="2020-01-02T03:04:05", saturation=4000.0)
    data = np.arange(48 * 60, dtype=np.uint16).reshape(48, 60)
    frame = Frame(data, "YX", Unit.ADU, Unmodelled("no gain"), geometry=Mosaic(pattern), observation=seen)
    path = io.write(frame, tmp_path / "a.dng")
    if not ours:
        path.write_bytes(path.read_bytes().replace(b"firstlight\0", b"somebodyXX\0"))
    same(path)


def test_the_real_raw_file_is_not_decoded(data, monkeypatch):
    path = data / "raw" / "sony_ilce-7rm3_iso3200.ARW"
    same(path)
    monkeypatch.setattr("firstlight.io.raw.read", None)
    monkeypatch.setattr("firstlight.io.raw._decode", None)
    assert peek(path).instrument == "ILCE-7RM3"


@pytest.mark.parametrize(
    ("name", "content"), [("a.ARW", b""), ("a.ARW", b"II*\0nonsense"), ("a.RAF", b"FUJIFILMCCD-RAW" + b"x" * 200)]
)
def test_damage_is_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ReadError, match=name) as caught:
        peek(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_absent_and_unknown_files(tmp_path):
    for name in ("absent.ARW", "absent.fits"):
        with pytest.raises(ReadError, match="no such file"):
            peek(tmp_path / name)
