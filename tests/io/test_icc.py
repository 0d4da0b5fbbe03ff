"""ICC profiles of our own, judged by Little CMS (Pillow's ImageCms, imagecodecs' cms_transform)."""

from io import BytesIO

import numpy as np
import pytest
from imagecodecs import cms_profile, cms_transform
from PIL import ImageCms

from firstlight.errors import WriteError
from firstlight.io import icc

PAIRS = [("srgb", "srgb"), ("rec2020", "linear"), ("srgb", "linear")]
# IEC 61966-2-1 and SMPTE RP 177 on ITU-R BT.2020's chromaticities, as published to four and six digits
SRGB = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
REC2020 = [[0.636958, 0.144617, 0.168881], [0.262700, 0.677998, 0.059302], [0.0, 0.028073, 1.060985]]


@pytest.mark.parametrize(("space", "want", "most"), [("srgb", SRGB, 6e-5), ("rec2020", REC2020, 1e-6)])
def test_matrices_are_the_published_ones(space: str, want: list[list[float]], most: float) -> None:
    assert np.abs(icc.to_xyz(space) - want).max() < most


@pytest.mark.parametrize(("space", "transfer"), PAIRS)
def test_littlecms_reads_name_white_and_kind(space: str, transfer: str) -> None:
    found = ImageCms.ImageCmsProfile(BytesIO(icc.profile(space, transfer))).profile
    assert found.profile_description == {"srgb": "sRGB", "linear": "Linear "}[transfer] + (
        "" if transfer == "srgb" else {"srgb": "sRGB", "rec2020": "BT.2020"}[space]
    )
    assert (found.xcolor_space.strip(), found.connection_space.strip(), found.device_class) == ("RGB", "XYZ", "mntr")
    assert found.is_matrix_shaper
    assert np.allclose(found.media_white_point[0], icc.D50, atol=2e-5)
    columns = np.array([found.red_colorant[0], found.green_colorant[0], found.blue_colorant[0]])
    assert np.allclose(columns.sum(axis=0), np.rint(np.array(icc.D50) * 65536) / 65536, atol=1e-9)


def test_srgb_is_littlecms_own() -> None:
    rgb = np.random.default_rng(3).integers(0, 65536, (40, 50, 3)).astype(np.uint16)
    out = cms_transform(rgb, icc.profile("srgb", "srgb"), cms_profile("srgb"), colorspace="rgb", outcolorspace="rgb")
    assert np.abs(out.astype(int) - rgb).max() <= 64  # a quarter of a code of 8 bits


@pytest.mark.parametrize("space", ["rec2020", "srgb"])
def test_linear_to_srgb_is_the_equation(space: str) -> None:
    """In gamut: the inverse matrix, then IEC 61966-2-1's curve."""
    srgb = np.random.default_rng(4).random((40, 50, 3)) * 0.9 + 0.05
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    wide = linear @ np.linalg.solve(icc.to_xyz(space), icc.to_xyz("srgb")).T
    out = cms_transform(
        np.ascontiguousarray(wide),
        icc.profile(space, "linear"),
        icc.profile("srgb", "srgb"),
        colorspace="rgb",
        outcolorspace="rgb",
    )
    assert np.abs(out - srgb).max() < 1e-3


def test_grey_is_neutral_in_pcs() -> None:
    grey = np.repeat(np.linspace(0, 1, 30)[:, None, None], 3, axis=2)
    out = cms_transform(
        grey, icc.profile("rec2020", "linear"), icc.profile("srgb", "srgb"), colorspace="rgb", outcolorspace="rgb"
    )
    assert np.ptp(out, axis=2).max() < 1e-4


def test_hlg_has_no_profile_here() -> None:
    with pytest.raises(WriteError, match="no ICC profile for hlg"):
        icc.profile("rec2020", "hlg")


@pytest.mark.parametrize(("space", "transfer"), PAIRS)
def test_size_and_alignment(space: str, transfer: str) -> None:
    data = icc.profile(space, transfer)
    assert int.from_bytes(data[:4], "big") == len(data) < 700
    assert data[36:40] == b"acsp"
    count = int.from_bytes(data[128:132], "big")
    for i in range(count):
        at, size = (int.from_bytes(data[136 + 12 * i + k : 140 + 12 * i + k], "big") for k in (0, 4))
        assert at % 4 == 0
        assert at + size <= len(data)
