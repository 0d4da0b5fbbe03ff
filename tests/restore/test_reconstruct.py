"""Reconstruction: a step that ends in 1/mm, agrees with a plain backprojection, and whose error bar is right."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.noise import Noise, Unmodelled
from firstlight.operators.ramp import FILTERS
from firstlight.restore import reconstruct

N, A, ROWS = 64, 101, 3
ANGLES = np.arange(A) * np.pi / A


def scan(pixel=None, center=31.0, noise=0.0, seed=0, angles=ANGLES):
    rng = np.random.default_rng(seed)
    s = np.arange(N) - 31.0
    rows = [
        np.sqrt(2 * np.pi) * 5 * np.exp(-((s - (x * np.cos(angles) + 4 * np.sin(angles))[:, None]) ** 2) / 50)
        for x in (0, 5, 9)
    ]
    data = np.stack(rows, 1) * 0.01
    data = (data + noise * rng.standard_normal(data.shape)).astype(np.float32)
    model = Noise(0.0, noise**2, 0.0) if noise else Unmodelled("none")
    return Frame(data, "AYX", Unit.OPTICAL_DEPTH, model, geometry=Scan(angles, center=center, pixel=pixel))


def truth(k):
    c = np.arange(N) - (N - 1) / 2
    return 0.01 * np.exp(-((c[None] - (0, 5, 9)[k]) ** 2 + (c[:, None] - 4) ** 2) / 50)


def test_units_spacing_and_history():
    out = reconstruct(scan(pixel=2.0))
    assert (out.unit, out.axes, out.shape) == (Unit.ATTENUATION, "ZYX", (ROWS, N, N))
    assert out.spacing == {"Z": 2.0, "Y": 2.0, "X": 2.0}
    np.testing.assert_allclose(out.data[1], truth(1) * 1e3 / 2.0, atol=2e-4 * 5)
    assert out.history[-1].params["center"] == 31.0
    assert isinstance(out.noise, Unmodelled)
    assert reconstruct(scan()).unit is Unit.PER_PIXEL


@pytest.mark.parametrize("filter", sorted(FILTERS))
def test_the_engine_agrees_with_plain_backprojection(filter):
    fast, plain = (reconstruct(scan(), filter=filter, algorithm=a).data for a in ("fourierrec", "linerec"))
    c = np.arange(N) - (N - 1) / 2
    inside = np.hypot(c[None], c[:, None]) < 0.8 * N / 2
    assert np.abs(fast - plain)[:, inside].max() < 0.02 * np.abs(plain).max()  # linear interpolation blurs


def test_a_section_is_part_of_the_whole():
    whole = reconstruct(scan()).data
    part = reconstruct(scan().crop(Box((0, 1, 0), (A, 2, N)))).data
    np.testing.assert_allclose(part[0], whole[1], atol=1e-7)


def test_a_leaning_axis_and_its_sections():
    frame = scan(center=np.array([31.0, 31.0, 31.0]))
    np.testing.assert_allclose(reconstruct(frame).data, reconstruct(scan()).data, atol=1e-7)
    moved = scan().replace(data=np.roll(scan().data, 2, axis=2))
    data = np.stack([scan().data[:, 0], moved.data[:, 1], scan().data[:, 2]], 1)
    both = moved.replace(data=data, geometry=Scan(ANGLES, center=np.array([31.0, 33.0, 31.0])))
    np.testing.assert_allclose(reconstruct(both).data, reconstruct(scan()).data, atol=1e-5)
    assert both.crop(Box((0, 1, 1), (A, 2, N))).geometry.center == pytest.approx([32.0])


@pytest.mark.parametrize("filter", ["ramp", "hann"])
def test_the_standard_error_is_that_of_many_scans(filter):
    runs = np.stack([reconstruct(scan(noise=0.02, seed=s), filter=filter).data[0] for s in range(150)])
    stated = reconstruct(scan(noise=0.02), filter=filter, std=True).std[0]
    middle = (slice(20, 44), slice(20, 44))
    assert np.mean(stated[middle] ** 2) / np.mean(runs.var(0, ddof=1)[middle]) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": Unit.TRANSMISSION}, "expected optical depth"),
        ({"geometry": Scan(ANGLES)}, "find_center"),
        ({"geometry": None}, "angle of each"),
        ({"geometry": Scan(ANGLES, center=80.0)}, "inside the 64 columns"),
        ({"geometry": Scan(ANGLES, center=np.array([30.0, 31.0]))}, "2 centres for 3"),
    ],
)
def test_what_cannot_be_reconstructed(change, message):
    with pytest.raises(FrameError, match=message):
        reconstruct(scan().replace(**change))


@pytest.mark.parametrize(("key", "value"), [("algorithm", "art"), ("filter", "hahn"), ("padding", "mirror")])
def test_unknown_names(key, value):
    with pytest.raises(FrameError, match="expected"):
        reconstruct(scan(), **{key: value})


@pytest.mark.parametrize("std", [False, True])
def test_torch_is_the_same_engine(std):
    frame = scan(noise=0.02, center=np.array([31.0, 30.4, 31.7]))
    cpu, torch = (reconstruct(frame, device=device, std=std) for device in ("cpu", "torch"))
    assert np.abs(torch.data - cpu.data).max() <= 1e-5 * np.abs(cpu.data).max()
    if std:
        assert np.abs(torch.std - cpu.std).max() <= 1e-5 * cpu.std.max()
    assert torch.history == cpu.history  # where it ran is not what it is


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"device": "gpu"}, "expected cpu"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"device": "torch", "algorithm": "linerec"}, "take fbp"),
    ],
)
def test_devices_that_cannot_be_had(params, message):
    with pytest.raises(FrameError, match=message):
        reconstruct(scan(), **params)


def test_the_cpu_path_imports_no_torch():
    code = """
import sys
import numpy as np
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.noise import Unmodelled
from firstlight.restore import reconstruct
data = np.ones((8, 2, 16), np.float32)
frame = Frame(data, "AYX", Unit.OPTICAL_DEPTH, Unmodelled("none"), geometry=Scan(np.arange(8) * 0.4, center=7.5))
for algorithm in ("fbp", "linerec"):
    reconstruct(frame, algorithm=algorithm)
print("torch" in sys.modules)
reconstruct(frame, device="torch")
print("torch" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("params", [{"size": 0}, {"size": 10.5}, {"workers": 0}])
@pytest.mark.parametrize("algorithm", ["fbp", "linerec"])
def test_sizes_of_nonsense_are_refused(params, algorithm):
    with pytest.raises(FrameError, match="whole numbers"):
        reconstruct(scan(), algorithm=algorithm, **params)


def test_a_scan_without_rows_is_refused():
    with pytest.raises(FrameError, match="at least one projection"):
        reconstruct(scan().crop(Box((0, 1, 0), (A, 1, N))))
