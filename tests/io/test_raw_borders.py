"""Camera raw at its borders: files of other writers, tag by tag, read and developed; what cannot be is refused by name."""

import numpy as np
import pytest
import tifffile

from firstlight import Flag, Frame, Mosaic, Observation, Unit, Unmodelled, io
from firstlight.cli import main
from firstlight.develop import develop
from firstlight.errors import FirstlightError, FrameError, ReadError
from firstlight.geometry import BAYER, XTRANS
from firstlight.io import exif
from firstlight.restore import demosaic

MATRIX = ((0.6640, -0.1847, -0.0503), (-0.5238, 1.3010, 0.2474), (-0.0993, 0.1673, 0.6527))
NEUTRAL = (0.5, 1.0, 0.7)  # of AsShotNeutral
BLACK, WHITE, SHARE = 500, 15000, 0.127 / 0.18
CFA, LINEAR = 32803, 34892
NAN = float("nan")


def ratio(values, d=10000):
    """Numerators and denominators; NaN as 1/0, which is what files with nothing to say hold."""
    return tuple(n for v in np.ravel(values) for n in ((1, 0) if v != v else (round(v * d), d)))


def dng(path, data, pattern=BAYER, planes=(0, 1, 2), neutral=NEUTRAL, matrix=MATRIX, black=None, white=WHITE, active=None,
        orientation=1, extra=()):  # fmt: skip
    """A DNG as other programs write it. planes: DNG's colour codes; (Y, X) with a pattern, (Y, X, 3), or (Y, X) alone: None."""
    mono, linear = pattern is None, data.ndim == 3
    black = np.full((1, 3 if linear else 1), BLACK) if black is None else np.atleast_2d(black)
    tags = [(271, 2, 0, "X", True), (272, 2, 0, "Y", True), (274, 3, 1, orientation, True), (50706, 1, 4, (1, 4, 0, 0), True)]
    tags += [(50717, 4, np.size(white), tuple(np.ravel(white).tolist()), True), (50714, 5, black.size, ratio(black, 100), True)]
    if not (mono or linear):
        cell = np.array(planes, np.uint8)[np.array(pattern)]
        tags += [(33421, 3, 2, cell.shape, True), (33422, 1, cell.size, cell.tobytes(), True), (50711, 3, 1, 1, True)]
        tags += [(50710, 1, len(planes), bytes(planes), True), (50713, 3, 2, black.shape, True)]
    if neutral is not None and not mono:
        tags += [(50728, 5, len(neutral), ratio(neutral), True)]
    if matrix is not None and not mono:
        tags += [(50721, 10, np.size(matrix), ratio(matrix), True), (50778, 3, 1, 21, True)]
    tags += [(50829, 4, 4, active, True)] if active else []
    kind = 1 if mono else LINEAR if linear else CFA
    config = 1 if linear else None
    tifffile.imwrite(path, data, photometric=kind, planarconfig=config, extratags=[*tags, *extra], metadata=None)
    if mono:  # tifffile knows LinearRaw of three samples alone
        with tifffile.TiffFile(path, mode="r+") as tiff:
            tiff.pages[0].tags[262].overwrite(LINEAR)
    return path


def codes(shape=(60, 70), seed=1):
    return np.random.default_rng(seed).integers(BLACK, 14000, shape).astype(np.uint16)


def grey(mosaic, shape, level=0.4):
    """Samples [ADU] of grey that lies at `level` of diffuse white, as a camera of NEUTRAL sees it."""
    return np.rint(BLACK + level * SHARE * (WHITE - BLACK) * np.array(NEUTRAL)[mosaic.at(shape)]).astype(np.uint16)


JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + bytes(900) + b"\xff\xd9"


@pytest.mark.parametrize("suffix", [".ARW", ".raf", ".nef", ".cr2", ".cr3", ".dng"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (JPEG, "JPEG"),
        (np.random.default_rng(3).bytes(5000), "damaged|no raw|decode|not a TIFF"),
        (None, "folder"),
    ],
)
def test_what_is_no_raw_file_is_one_line(suffix, content, words, tmp_path, capsys):
    path = tmp_path / f"photo 1{suffix}"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ReadError, match=words):
        io.read(path)
    assert main(["info", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert path.name in err


def test_a_raw_file_cut_anywhere_is_one_error(data, tmp_path):
    """The real ARW, its first bytes alone: never a frame of zeros."""
    source = data / "raw" / "sony_ilce-7rm3_iso3200.ARW"
    if not source.exists():
        pytest.skip("the ARW is absent")
    with source.open("rb") as f:
        head = f.read(3_000_000)
    for keep in (8, 300, 40_000, 500_000, len(head)):
        (tmp_path / "cut.ARW").write_bytes(head[:keep])
        with pytest.raises(ReadError, match=r"cut\.ARW"):
            io.read(tmp_path / "cut.ARW")


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
@pytest.mark.parametrize("shape", [(22, 23), (37, 41), (65, 67), (100, 511)])
def test_any_size_from_22_px_is_read_and_developed(pattern, shape, tmp_path):
    """LibRaw's own demosaicking wants 512 px of X-Trans; reading and ours do not."""
    frame = io.read(dng(tmp_path / "a.dng", grey(Mosaic(pattern), shape), pattern))
    assert frame.shape == shape
    out = develop(frame, method="lmmse", denoise="off")
    assert out.shape == (3, *shape)
    assert np.abs(out.data - 0.4).max() < 1e-3 * 0.4 + 1 / (SHARE * (WHITE - BLACK))


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1)])
def test_single_rows_and_columns_are_refused(pattern, shape, tmp_path):
    with pytest.raises(ReadError, match=r"a\.dng"):
        io.read(dng(tmp_path / "a.dng", codes(shape), pattern))
    seen = Observation(offset=500.0, saturation=15000.0, white_balance=(2.0, 1.0, 1.5), color_matrix=MATRIX)
    frame = Frame(codes(shape), "YX", Unit.ADU, Unmodelled("x"), geometry=Mosaic(pattern), observation=seen)
    for method in ("lmmse", "bilinear"):
        with pytest.raises(FrameError, match="smaller than the mosaic's period"):
            develop(frame, method=method, denoise="off")
    with pytest.raises(FirstlightError):
        develop(frame)


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
@pytest.mark.parametrize("active", [(0, 0, 60, 70), (2, 4, 58, 60), (3, 5, 57, 66), (2, 1, 60, 70), (5, 2, 60, 69)])
def test_an_active_area_that_starts_anywhere(pattern, active, tmp_path):
    """Pattern and black level begin at its first pixel (DNG 1.4); LibRaw begins a Bayer area at even rows and columns."""
    rows, cols = Mosaic(pattern).period
    black = BLACK + 10 * np.arange(rows * cols).reshape(rows, cols)
    y, x = np.mgrid[:60, :70]
    inside = ((y - active[0]) % rows, (x - active[1]) % cols)
    light = grey(Mosaic(pattern, (-active[0], -active[1])), (60, 70)) - BLACK
    data = (light + black[inside]).astype(np.uint16)
    frame = io.read(dng(tmp_path / "a.dng", data, pattern, black=black, active=active, white=WHITE))
    step = 2 if pattern is BAYER else 1
    first = [n + n % step for n in active[:2]]
    assert np.array_equal(frame.data, data[first[0] : active[2], first[1] : active[3]])
    at_first = inside[0][first[0], first[1]], inside[1][first[0], first[1]]
    assert np.array_equal(
        np.broadcast_to(frame.observation.offset, (rows, cols)), np.roll(black, (-at_first[0], -at_first[1]), (0, 1))
    )
    out = develop(frame, method="lmmse", denoise="off", white=SHARE * (WHITE - BLACK) / (WHITE - black.max())).data
    assert np.ptp(out) < 0.01 * out.mean()


@pytest.mark.parametrize("planes", [(2, 1, 0), (1, 0, 2)])
def test_planes_in_another_order_are_the_same_colours(planes, tmp_path):
    """CFAPlaneColor numbers the planes; balance and matrix follow it."""
    data = codes()
    plain = io.read(dng(tmp_path / "a.dng", data))
    pattern = np.array([planes.index(k) for k in range(3)])[np.array(BAYER)]  # the same letters in other numbers
    neutral, matrix = np.array(NEUTRAL)[list(planes)], np.array(MATRIX)[list(planes)]
    other = io.read(dng(tmp_path / "b.dng", data, pattern.tolist(), planes, neutral, matrix))
    assert np.array_equal(other.geometry.at((8, 8)), plain.geometry.at((8, 8)))
    assert other.observation.white_balance == pytest.approx(plain.observation.white_balance)
    assert np.allclose(other.observation.color_matrix, plain.observation.color_matrix)
    both = [develop(f, method="lmmse", denoise="off").data for f in (plain, other)]
    assert np.abs(both[0] - both[1]).max() < 1e-6


@pytest.mark.parametrize(
    ("planes", "pattern", "letters"),
    [((3, 4, 5), BAYER, "CMY"), ((0, 1, 2, 6), ((0, 1), (3, 2)), "RGBW"), ((3, 4, 5, 1), ((0, 1), (3, 2)), "CMYG"),
     ((1, 4, 3, 5), ((0, 1), (2, 3)), "GMCY")],
)  # fmt: skip
def test_other_colours_are_named_and_not_demosaicked(planes, pattern, letters, tmp_path):
    matrix = (MATRIX * 2)[: len(planes)]
    frame = io.read(dng(tmp_path / "a.dng", codes(), pattern, planes, (0.5, 1.0, 0.7, 0.9)[: len(planes)], matrix))
    assert frame.geometry.colors == letters
    for method in ("auto", "lmmse", "bilinear", "ahd"):
        with pytest.raises(FrameError, match=f"colours {''.join(sorted(letters))}, expected R, G and B"):
            develop(frame, method=method, denoise="off")


def test_a_monochrome_sensor(tmp_path):
    frame = io.read(dng(tmp_path / "m.dng", codes(), None, orientation=3))
    assert (frame.axes, frame.geometry) == ("YX", None)
    out = develop(frame)
    assert np.ptp(out.data, axis=0).max() == 0
    wanted = (codes()[::-1, ::-1] - float(BLACK)) / (WHITE - BLACK) / SHARE
    assert np.abs(out.data[0] - wanted).max() < 1e-5


def test_a_linear_dng_with_levels_of_its_own(tmp_path):
    """Three planes, black and white of each their own; no demosaicking, and none is claimed."""
    black, white = np.array([400.0, 500.0, 600.0]), np.array([12000, 15000, 13000])
    light = np.full((40, 44, 3), 0.3) * SHARE * np.array(NEUTRAL)  # 0 to 1 of each plane's own range, DNG 1.4
    data = np.rint(light * (white - black) + black).astype(np.uint16)
    data[:, 30:, 0] = 12000  # red ends here, below the others' white
    frame = io.read(dng(tmp_path / "l.dng", data, black=black, white=white))
    out = develop(frame)
    assert np.abs(out.data[:, :, :25] - 0.3).max() < 2e-4
    assert np.all(out.flags[..., 31:] & Flag.SATURATED)
    assert not np.any(out.flags[..., :25])
    assert np.ptp(out.data[..., 31:], axis=0).max() < 1e-5
    assert "restore.demosaic" not in [r.step for r in out.history]


def test_black_of_36_pixels_counts_once(tmp_path):
    black = BLACK + 7 * np.arange(36).reshape(6, 6)
    light = grey(Mosaic(XTRANS), (60, 66)) - BLACK
    path = dng(tmp_path / "a.dng", (light + np.tile(black, (10, 11))).astype(np.uint16), XTRANS, black=black)
    frame = io.read(path)
    assert np.array_equal(frame.observation.offset, black)
    out = develop(frame, method="lmmse", denoise="off", white=SHARE * (WHITE - BLACK) / (WHITE - black.max()))
    assert np.ptp(out.data) < 2e-4


@pytest.mark.parametrize("neutral", [None, (0.0, 1.0, 0.7), (0.5, NAN, 0.7), (0.0, 0.0, 0.0)])
def test_without_a_balance_one_must_be_given(neutral, tmp_path):
    """Absent, 0 or n/0 (LibRaw makes 1 of it): not developed as if the light were the camera's own white."""
    frame = io.read(dng(tmp_path / "a.dng", grey(Mosaic(BAYER), (40, 44)), neutral=neutral))
    assert frame.observation.white_balance is None
    with pytest.raises(FrameError, match="states no multipliers; give one for each"):
        develop(frame, denoise="off")
    out = develop(frame, wb=(2.0, 1.0, 1 / 0.7), method="lmmse", denoise="off").data
    assert np.abs(out - 0.4).max() < 1e-3


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (None, "no colour matrix of Y"),
        (((NAN,) * 3,) * 3, "finite"),
        (((1.0, 0, 0),) * 3, "alike"),
        (np.zeros((3, 3)), "no colour matrix"),
    ],
)
def test_without_a_matrix_nothing_is_developed(matrix, words, tmp_path):
    frame = io.read(dng(tmp_path / "a.dng", grey(Mosaic(BAYER), (40, 44)), matrix=matrix))
    with pytest.raises(FrameError, match=words):
        develop(frame, method="bilinear", denoise="off")


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_a_file(orientation, pattern, tmp_path):
    """A mark of light at the top left of the scene, one to its right: where EXIF says that row and column 0 are."""
    rgb = np.full((60, 72), 0.1)
    rgb[:20, :24], rgb[:20, 48:] = 0.5, 0.25  # upright: 60 rows of 72
    back = {1: lambda a: a, 2: np.fliplr, 3: lambda a: a[::-1, ::-1], 4: np.flipud, 5: np.transpose,
            6: lambda a: np.rot90(a, 1), 7: lambda a: a[::-1, ::-1].T, 8: lambda a: np.rot90(a, -1)}[orientation]  # fmt: skip
    stored = np.ascontiguousarray(back(rgb))
    mosaic = Mosaic(pattern)
    data = np.rint(BLACK + stored * SHARE * (WHITE - BLACK) * np.array(NEUTRAL)[mosaic.at(stored.shape)]).astype(np.uint16)
    out = develop(io.read(dng(tmp_path / "a.dng", data, pattern, orientation=orientation)), method="bilinear", denoise="off")
    assert out.shape == (3, 60, 72)
    for y, x in ((10, 12), (10, 36), (10, 60), (50, 12), (50, 60)):
        assert out.data[:, y, x] == pytest.approx([rgb[y, x]] * 3, abs=2e-3)
    assert out.observation.orientation == 1


def test_fujifilms_dynamic_range_of_a_raf(tmp_path):
    """The maker note comes through from the preview's EXIF to the exposure."""
    import struct

    from firstlight.develop.exposure import stops
    from firstlight.io.raw import Header

    entries = struct.pack("<HHIHHHHIHH", 0x1402, 3, 1, 1, 0, 0x1403, 3, 1, 400, 0)
    note = b"FUJIFILM" + struct.pack("<I", 12) + struct.pack("<H", 2) + entries + bytes(4)
    first = 8 + 2 + 12 + 4
    block = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 34665, 4, 1, first, 0)
    block += struct.pack("<HHHIII", 1, 37500, 7, len(note), first + 18, 0) + note
    jpeg = b"\xff\xd8\xff\xe1\0\0Exif\0\0" + block
    head = bytearray(108)
    head[:15] = b"FUJIFILMCCD-RAW"
    struct.pack_into(">IIIIII", head, 84, 108, len(jpeg), 0, 0, 108 + len(jpeg), 0)
    (tmp_path / "a.raf").write_bytes(bytes(head) + jpeg)
    tags = exif.tags(tmp_path / "a.raf")
    seen = Observation(header=Header(tags))
    assert stops(Frame(np.zeros((3, 2, 2)), "CYX", Unit.ADU, Unmodelled("x"), observation=seen)) == 2


@pytest.mark.parametrize("method", ["bilinear", "lmmse", "net", "ahd"])
def test_flagged_pixels_are_replaced_before_demosaicking(method, tmp_path):
    """A hot, a dead, a defect and a lost pixel: nothing of them in any colour anywhere."""
    frame = io.read(dng(tmp_path / "a.dng", grey(Mosaic(BAYER), (48, 54))))
    data, flags = np.array(frame.data), np.zeros(frame.shape, np.uint8)
    for (y, x), flag in {(9, 9): Flag.HOT, (20, 31): Flag.DEAD, (0, 0): Flag.DEFECT, (30, 7): Flag.NO_DATA}.items():
        data[y, x], flags[y, x] = (0 if flag is Flag.DEAD else 16000), flag
    model = untrained() if method == "net" else None
    way = {"method": method, "model": model, "denoise": "off"} | ({"bf16": False} if method == "net" else {})
    clean = develop(frame, **way).data
    assert np.abs(develop(frame.replace(data=data, flags=flags), **way).data - clean).max() < 2e-4
    assert np.abs(develop(frame.replace(data=data), **way).data - clean).max() > 0.1  # without flags they show


def untrained():
    import torch

    from firstlight import model_file

    torch.manual_seed(4)
    scaling = {"domain": "mosaic", "prefilter": "zero", "pattern": [list(row) for row in BAYER]}
    return model_file.new("packed", {"pack": 6, "width": 8, "depth": 2}, scaling=scaling)


def test_demosaicking_puts_balance_and_matrix_into_the_planes_order():
    seen = Observation(saturation=1.0, white_balance=(3.0, 2.0, 1.0), color_matrix=MATRIX[::-1])
    from firstlight import Noise

    frame = Frame(
        np.ones((24, 24)), "YX", Unit.ELECTRON, Noise(0.0, 0.0), geometry=Mosaic(BAYER, colors="BGR"), observation=seen
    )
    out = demosaic(frame, method="bilinear").observation
    assert out.white_balance == (1.0, 2.0, 3.0)
    assert out.color_matrix == MATRIX
