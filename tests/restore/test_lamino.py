"""Laminography: a tomogram at 90 degrees; elsewhere the truth without the frequencies that are never seen."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.noise import Unmodelled
from firstlight.restore import laminography, reconstruct

N, A = 48, 120
TURN = np.arange(A) * 2 * np.pi / A
BLOBS = ((2, -4, 6, 3.0), (-5, 3, -5, 3.5))  # z, y, x from the centre, sigma [px]


def scan(tilt, angles=TURN, rows=70, columns=70, center=34.2, pixel=None):
    t, lean = angles[:, None, None], np.deg2rad(tilt)
    data = np.zeros((len(angles), rows, columns))
    for z, y, x, sigma in BLOBS:
        u = x * np.cos(t) + y * np.sin(t) + center
        v = z * np.sin(lean) + (y * np.cos(t) - x * np.sin(t)) * np.cos(lean) + (rows - 1) / 2
        d2 = (np.arange(columns) - u) ** 2 + (np.arange(rows)[:, None] - v) ** 2
        data += np.sqrt(2 * np.pi) * sigma * np.exp(-d2 / (2 * sigma**2))
    geometry = Scan(angles, center=center, pixel=pixel)
    return Frame(data.astype(np.float32), "AYX", Unit.OPTICAL_DEPTH, Unmodelled("none"), geometry=geometry)


def truth(tilt, n=N, box=160):
    """The blobs without the frequencies within |90 - tilt| of the axis, (n, n, n)."""
    c = np.arange(box) - (box - 1) / 2
    image = sum(
        np.exp(-((c[:, None, None] - z) ** 2 + (c[:, None] - y) ** 2 + (c - x) ** 2) / (2 * s**2)) for z, y, x, s in BLOBS
    )
    k = np.fft.fftfreq(box)
    across = np.hypot(k[:, None], k[None, : box // 2 + 1])
    seen = across >= np.abs(k)[:, None, None] / np.abs(np.tan(np.deg2rad(tilt)))
    seen[0, 0, 0] = False
    cut = slice((box - n) // 2, (box + n) // 2)
    return np.fft.irfftn(np.fft.rfftn(image) * seen)[cut, cut, cut]


@pytest.mark.parametrize("tilt", [60.0, 110.0])
def test_what_is_seen_comes_back_to_scale(tilt):
    out = laminography(scan(tilt), tilt=tilt, height=N, size=N, padding="zero").data
    middle = (slice(12, 36),) * 3
    expected, found = truth(tilt)[middle], out[middle]
    assert np.vdot(found, expected) / np.vdot(expected, expected) == pytest.approx(1, abs=0.015)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9995
    wrong = laminography(scan(tilt), tilt=180 - tilt, height=N, size=N, padding="zero").data[middle]
    assert np.corrcoef(wrong.ravel(), expected.ravel())[0, 1] < 0.95


@pytest.mark.parametrize("padding", ["edge", "zero"])
def test_at_90_degrees_it_is_reconstruct(padding):
    frame = scan(90.0, np.arange(60) * np.pi / 60, rows=9, pixel=2.0)
    found, plain = (
        laminography(frame, tilt=90.0, filter="hann", padding=padding),
        reconstruct(frame, algorithm="linerec", filter="hann", padding=padding),
    )
    assert (found.unit, found.axes, found.spacing) == (Unit.ATTENUATION, "ZYX", plain.spacing)
    assert np.abs(found.data - plain.data).max() < 2e-6 * np.abs(plain.data).max()
    engine = reconstruct(frame, filter="hann", padding=padding)
    assert np.abs(found.data - engine.data).max() < 0.02 * np.abs(engine.data).max()
    assert found.history[-1].params["tilt"] == 90.0


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        ({}, {"tilt": 0.0}, "between 0 and 180"),
        ({}, {"tilt": 60.0, "padding": "mirror"}, "expected edge or zero"),
        ({}, {"tilt": 60.0, "filter": "hahn"}, "expected one of"),
        ({"unit": Unit.TRANSMISSION}, {"tilt": 60.0}, "expected optical depth"),
        ({"geometry": Scan(TURN, center=np.linspace(30, 32, 70))}, {"tilt": 60.0}, "one for all rows"),
        ({"geometry": Scan(TURN)}, {"tilt": 60.0}, "find_center"),
    ],
)
def test_what_cannot_be_reconstructed(change, params, message):
    with pytest.raises(FrameError, match=message):
        laminography(scan(60.0).replace(**change), **params)


def test_what_is_not_finite_is_refused():
    frame = scan(60.0)
    data = frame.data.copy()
    data[3, 4, 5] = np.inf
    with pytest.raises(FrameError, match="not finite"):
        laminography(frame.replace(data=data), tilt=60.0)
