"""The contract of every format: what is written is read again, whole or not at all, and a bad file gets one clear line.

One row of FORMATS a format. Seeds are stated where numbers are drawn.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firstlight import io
from firstlight.box import Box
from firstlight.errors import ReadError, WriteError
from firstlight.frame import Flag, Frame, Observation, Record, Unit
from firstlight.geometry import BAYER, Mosaic, Scan, Sky
from firstlight.noise import Noise, Unmodelled

FLOATS, WORDS = ("float32", "float64"), ("uint8", "int16", "uint16")
IMAGES = ("YX", "TYX", "CYX", "ZYX", "AYX", "TCYX", "CZYX")
ODD = "dé jà vu (1)"  # spaces, parentheses and letters beyond ASCII


class Format(NamedTuple):
    """A suffix that can be written, with the types and axes that it holds; `mosaic`: it holds CFA frames alone."""

    suffix: str
    dtypes: tuple[str, ...]
    axes: tuple[str, ...]
    unit: Unit = Unit.ADU
    mosaic: bool = False


FORMATS = [
    Format(".fits", (*WORDS, "int8", "int32", "uint32", "int64", "uint64", *FLOATS), (*IMAGES, "TCZYX")),
    Format(".fits.gz", ("uint16", "float32"), ("YX", "TYX")),
    Format(".fits.bz2", ("uint16",), ("YX",)),
    Format(".npy", (*WORDS, "int64", "float16", *FLOATS), (*IMAGES, "TCZYX")),
    Format(".png", ("uint8", "uint16"), ("YX", "CYX"), Unit.DISPLAY),
    Format(".tif", (*WORDS, *FLOATS), IMAGES),
    Format(".ome.tif", ("uint16", "float32"), ("YX", "TYX", "CYX", "ZYX", "CZYX")),
    Format(".mrc", ("int8", "int16", "uint16", "float32"), IMAGES),
    Format(".dng", ("uint16",), ("YX",), mosaic=True),
    Format(".dng", ("uint16",), ("CYX",), Unit.CAMERA),
    Format(".h5", (*WORDS, *FLOATS), IMAGES),
    Format(".zarr", (*WORDS, *FLOATS), IMAGES),
]
OPTIONS = [  # what `create` may be asked for besides, by suffix
    *((".zarr", {"codec": c, "section": 2}) for c in ("bitshuffle-lz4", "zstd", "gzip", "none")),
    *((".h5", {"codec": c, "section": 2}) for c in ("bitshuffle-lz4", "lz4", "zstd", "gzip", "none")),
    (".zarr", {"section": 3, "resume": "key"}),
    (".h5", {"section": 3, "resume": "key"}),
    (".tif", {"codec": "none", "resume": "key"}),
    (".ome.tif", {"resume": "key"}),
    ("_####.tif", {}),
    ("_####.tif", {"resume": "key"}),
]
READ_ONLY = {"avif", "jxl"}  # written from codes whose transfer is known: firstlight.io.rendered
LENGTH = {"T": 2, "C": 3, "Z": 4, "A": 5, "Y": 24, "X": 26}  # a DNG is at least 22 px wide

WCS = Sky(
    (
        ("CTYPE1", "RA---TAN"),
        ("CTYPE2", "DEC--TAN"),
        ("CRVAL1", 150.40612525),
        ("CRVAL2", 1.0 / 3.0),
        ("CRPIX1", 3.5),
        ("CRPIX2", 2.25),
        ("CD1_1", -1.4130103002015e-06),
        ("CD1_2", 0.0),
        ("CD2_1", 0.0),
        ("CD2_2", 7.2852759958e-05),
    )
)


def each(keep: Callable[[Format], bool] = lambda form: True) -> pytest.MarkDecorator:
    """A test for every format that `keep` holds for."""
    return pytest.mark.parametrize("form", [f for f in FORMATS if keep(f)], ids=lambda f: f.suffix)


def str_of(value: object) -> str:
    return value.suffix if isinstance(value, Format) else value if isinstance(value, str) else type(value).__name__


formats = each()
files = each(lambda form: form.suffix != ".zarr")  # the damaged parts of a folder are its own tests'
BESIDE = {".mrc", ".tif", ".ome.tif", ".npy", ".png"}  # formats whose description is a companion
beside = each(lambda form: form.suffix in BESIDE)


def numbers(shape: tuple[int, ...], dtype: str, unit: Unit, seed: int = 0) -> np.ndarray:
    """Values over the whole range of `dtype`, its ends included."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (rng.random(shape) if unit == Unit.DISPLAY else rng.normal(100, 30, shape)).astype(dtype)
    info = np.iinfo(dtype)
    out = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    out.flat[0], out.flat[-1] = info.min, info.max
    return out


def sample(form: Format, dtype: str | None = None, axes: str | None = None) -> Frame:
    """A frame that `form` can hold, with nothing but what every frame has."""
    axes = axes or form.axes[0]
    shape = tuple(LENGTH[a] for a in axes)
    return Frame(
        numbers(shape, dtype or form.dtypes[0], form.unit),
        axes,
        form.unit,
        Noise(0.5, 6.25, 0.0) if form.unit == Unit.ADU else Unmodelled("display-referred"),
        geometry=Mosaic(BAYER, (1, 0)) if form.mosaic else Scan(np.linspace(0, 3, 5)) if "A" in axes else None,
    )


def full(form: Format) -> Frame:
    """A frame with everything that a frame can have."""
    frame = sample(form)
    y, x = frame.shape[-2:]
    rng = np.random.default_rng(7)
    return frame.replace(
        std=rng.random(frame.shape).astype(np.float32),
        flags=rng.choice([0, int(Flag.SATURATED), int(Flag.HOT | Flag.NO_DATA)], (y, x)).astype(np.uint8),
        psf=rng.random((5, 5)),
        spacing={"Y": 0.25, "X": 0.25},
        observation=Observation(
            "Télescope 1 m",
            "gain 3",
            0.04,
            "2026-11-21T01:02:03",
            "r'",
            64.0,
            4095.0,
            (2.0, 1.0, 1.5),
            ((1.0, 0.0, 0.5), (0.25, 1.0, 0.0), (0.0, -0.5, 1.0)),
            1,
        ),
        history=(
            Record("calibrate.remove_offset", {"offset": 1 / 3, "master": None}),
            Record("restore.denoise", {"search": [5, 21], "name": "Ω"}, {"light.fits": "00ff"}),
        ),
    )


NOISES: dict[str, Noise | Unmodelled] = {
    "scalar": Noise(1 / 2.45, 5.9, 915.8, 1e-5, 0.3),
    "cell": Noise(0.5, np.array([[1.0, 2.0], [2.5, 4.0]]), np.array([[512.0, 511.5], [513.0, 512.25]])),
    "map": Noise(
        np.linspace(0.5, 2, 624, dtype=np.float32).reshape(24, 26),
        np.linspace(1, 9, 624).reshape(24, 26),
        100.0,
        0.0,
        np.ones((1, 26)),
    ),
    "wide map": Noise(1.0, np.linspace(1, 9, 624).reshape(1, 24, 26)),
    "unmodelled": Unmodelled("drizzled: neighbouring pixels are correlated (≈ 0.45)"),
}


def same(a: object, b: object) -> bool:
    """Equality of values, arrays compared by type, shape and bits."""
    if isinstance(a, (np.ndarray, np.generic)) or hasattr(a, "__array__"):
        x, y = np.asarray(a), np.asarray(b)
        return x.shape == y.shape and x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
    if isinstance(a, dict) or hasattr(a, "keys"):
        return dict(a) == dict(b)
    return a == b and type(a) is type(b)


def close(a: Noise | Unmodelled, b: Noise | Unmodelled) -> bool:
    if isinstance(a, Unmodelled) or isinstance(b, Unmodelled):
        return a == b
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("a", "b", "offset", "c", "d"))


def assert_same(got: Frame, want: Frame) -> None:
    assert same(got.data, want.data)
    for name in ("axes", "unit"):
        assert getattr(got, name) == getattr(want, name)
    for name in ("std", "flags", "psf"):
        assert same(getattr(want, name), getattr(got, name)), name
    assert close(got.noise, want.noise)
    assert got.spacing == want.spacing
    assert len(got.history) == len(want.history)
    for one, other in zip(got.history, want.history, strict=True):
        assert (one.step, dict(one.params), dict(one.inputs)) == (other.step, dict(other.params), dict(other.inputs))
    for f in fields(Observation):
        if f.name not in ("header", "source"):
            assert same(getattr(want.observation, f.name), getattr(got.observation, f.name)), f.name
    if isinstance(want.geometry, Scan):
        assert isinstance(got.geometry, Scan)
        assert all(same(getattr(got.geometry, f.name), getattr(want.geometry, f.name)) for f in fields(Scan))
    else:
        assert got.geometry == want.geometry


def test_every_suffix_that_can_be_written_has_a_row() -> None:
    modules = {io.FORMATS["." + f.suffix.split(".")[1].replace("ome", "tif")] for f in FORMATS}
    assert modules | READ_ONLY == {m for m in set(io.FORMATS.values()) if find_spec(f"firstlight.io.{m}")}


@pytest.mark.parametrize(
    ("form", "dtype", "axes"),
    [(f, d, a) for f in FORMATS for d, a in dict.fromkeys([*product(f.dtypes, f.axes[:1]), *product(f.dtypes[:1], f.axes)])],
    ids=str_of,
)
def test_data_of_every_type_and_axes_return_bit_by_bit(form: Format, dtype: str, axes: str, tmp_path: Path) -> None:
    frame = sample(form, dtype, axes)
    before = np.array(frame.data)
    path = io.write(frame, tmp_path / f"{ODD}{form.suffix}")
    assert_same(io.read(path), frame)
    assert same(frame.data, before)
    assert io.read(path).observation.source == str(path)


@pytest.mark.parametrize(
    ("form", "kind"), [(f, k) for f in FORMATS for k in NOISES if k != "wide map" or "CYX" in f.axes], ids=str_of
)
def test_noise_returns(form: Format, kind: str, tmp_path: Path) -> None:
    frame = sample(form, None, "CYX" if kind == "wide map" else None).replace(noise=NOISES[kind])
    assert_same(io.read(io.write(frame, tmp_path / f"a{form.suffix}")), frame)


@formats
def test_std_flags_psf_observation_history_return(form: Format, tmp_path: Path) -> None:
    frame = full(form)
    path = io.write(frame, tmp_path / f"{ODD}{form.suffix}")
    assert_same(io.read(path), frame)
    again = io.write(io.read(path), tmp_path / f"b{form.suffix}")
    assert_same(io.read(again), frame)


@pytest.mark.parametrize(
    ("form", "geometry"),
    [(f, g) for f in FORMATS for g in (Mosaic(BAYER, (1, 1)), WCS, None) if isinstance(g, Mosaic) or not f.mosaic],
    ids=str_of,
)
def test_geometry_returns(form: Format, geometry: Mosaic | Sky | None, tmp_path: Path) -> None:
    frame = sample(form).replace(geometry=geometry)
    assert_same(io.read(io.write(frame, tmp_path / f"a{form.suffix}")), frame)


@formats
def test_a_saturation_for_each_cfa_colour_returns(form: Format, tmp_path: Path) -> None:
    cell = np.array([[4095.0, 4000.0], [4000.0, 3900.0]])
    frame = sample(form).replace(observation=Observation(saturation=cell))
    assert same(io.read(io.write(frame, tmp_path / f"a{form.suffix}")).observation.saturation, cell)


@formats
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.tuples(st.integers(1, 23), st.integers(1, 25)), seed=st.integers(0, 999))
def test_blocks_in_any_order_equal_one_write(form: Format, cut: tuple[int, int], seed: int, tmp_path: Path) -> None:
    frame = full(form)
    whole, parts = tmp_path / f"whole{form.suffix}", tmp_path / f"parts{form.suffix}"
    io.write(frame, whole)
    corners = list(pieces(frame.shape, cut))
    np.random.default_rng(seed).shuffle(corners)
    with io.create(parts, frame, std=True) as out:
        for start, stop in corners:
            box = Box(tuple(start), tuple(stop))
            out.put(box, frame.data[box.slices], frame.std[box.slices])
    assert_same(io.read(parts), io.read(whole))


def pieces(shape: tuple[int, ...], cut: tuple[int, int]) -> Iterator[tuple[list[int], list[int]]]:
    y, x = shape[-2:]
    for ys, xs in product([(0, cut[0]), (cut[0], y)], [(0, cut[1]), (cut[1], x)]):
        yield [0] * (len(shape) - 2) + [ys[0], xs[0]], [*shape[:-2], ys[1], xs[1]]


@formats
def test_another_shape_and_type_than_the_model(form: Format, tmp_path: Path) -> None:
    like = sample(form, form.dtypes[0])
    shape = (*like.shape[:-2], 30, 22)
    data = numbers(shape, form.dtypes[-1], form.unit, seed=3)
    path = tmp_path / f"a{form.suffix}"
    with io.create(path, like, shape, dtype=form.dtypes[-1]) as out:
        out.put(Box.whole(shape), data)
    assert same(io.read(path).data, data)


options = pytest.mark.parametrize(("suffix", "asked"), OPTIONS, ids=str)


def stack(dtype: str) -> Frame:
    rng = np.random.default_rng(5)
    data = numbers((5, 24, 26), dtype, Unit.ATTENUATION)
    flags = rng.choice([0, int(Flag.NO_DATA)], (24, 26)).astype(np.uint8)
    std, spacing = rng.random(data.shape).astype(np.float32), {"Z": 0.5, "Y": 0.25, "X": 0.25}
    history = (Record("restore.reconstruct", {"center": 12.25}, {"scan.h5": "00ff"}),)
    noise = Unmodelled("reconstructed")
    return Frame(data, "ZYX", Unit.ATTENUATION, noise, std=std, flags=flags, spacing=spacing, history=history)


@options
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_volumes_return_with_every_option(suffix: str, asked: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    frame, path = stack(dtype), tmp_path / f"a{suffix}"
    with io.create(path, frame, std=True, **asked) as out:
        for box in reversed(out.sections(asked.get("section", 2))):
            out.put(box, frame.data[box.slices], frame.std[box.slices])
    assert_same(io.read(path), frame)
    assert not list(tmp_path.glob("*.partial"))


@options
def test_volumes_from_two_threads_and_abort(suffix: str, asked: dict[str, Any], tmp_path: Path) -> None:
    frame, path = stack("float32"), tmp_path / f"a{suffix}"
    out = io.create(path, frame, std=True, **asked)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda b: out.put(b, frame.data[b.slices], frame.std[b.slices]), out.sections(asked.get("section", 2))))
    out.close()
    assert_same(io.read(path), frame)
    before = sorted(p.name for p in tmp_path.iterdir())
    out = io.create(path, frame, std=True, **asked)
    out.put(out.sections(1)[0], 0.0, 0.0)
    out.abort()
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert_same(io.read(path), frame)


@options
@pytest.mark.parametrize("bits", [1, 9, 30])
def test_rounded_volumes_say_so_and_err_by_at_most_half_a_digit(
    suffix: str, asked: dict[str, Any], bits: int, tmp_path: Path
) -> None:
    frame, path = stack("float32").replace(std=None), tmp_path / f"a{suffix}"
    with io.create(path, frame, bits=bits, **asked) as out:
        for box in out.sections(asked.get("section", 2)):
            out.put(box, frame.data[box.slices])
    back = io.read(path)
    assert (back.history[-1].step, back.history[-1].params) == ("io.round_bits", {"bits": bits})
    assert np.max(np.abs(back.data[...] / frame.data - 1)) <= 2.0**-bits
    assert same(back.data[...], io.round_bits(frame, bits=bits).data)


def partly(form: Format, folder: Path) -> io.Writer:
    frame = full(form)
    out = io.create(folder / f"a{form.suffix}", frame, std=True)
    box = Box.whole(frame.shape)
    out.put(box, frame.data, frame.std)
    return out


@formats
def test_abort_leaves_nothing_behind(form: Format, tmp_path: Path) -> None:
    partly(form, tmp_path).abort()
    assert not list(tmp_path.iterdir())


@formats
def test_an_exception_leaves_nothing_behind_and_the_old_output_as_it_was(form: Format, tmp_path: Path) -> None:
    old = sample(form)
    path = io.write(old, tmp_path / f"a{form.suffix}")
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), partly(form, tmp_path):
        raise ZeroDivisionError
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert_same(io.read(path), old)


@formats
def test_an_output_replaces_an_older_one_and_its_maps(form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"a{form.suffix}"
    io.write(full(form), path)
    io.write(sample(form), path)
    assert_same(io.read(path), sample(form))
    names = [p.name for p in tmp_path.iterdir()]
    assert not [n for n in names if "std" in n or "flags" in n or ".part." in n]


@formats
def test_its_own_input_is_refused(form: Format, tmp_path: Path) -> None:
    path = io.write(sample(form), tmp_path / f"a{form.suffix}")
    link = tmp_path / f"link{form.suffix}"
    link.symlink_to(path)
    frame = io.read(path)
    for target in (path, link):
        with pytest.raises(WriteError, match="own input"):
            io.write(frame, target)
    assert_same(io.read(path), sample(form))


@formats
def test_a_missing_folder_is_refused(form: Format, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="does not exist"):
        io.write(sample(form), tmp_path / "none" / f"a{form.suffix}")


def refuses(path: Path, action: Callable[[Path], object] = io.read) -> str:
    """The one line of a refusal that names the file; anything else fails."""
    with pytest.raises(ReadError) as caught:
        action(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@formats
@pytest.mark.parametrize("action", [io.read, io.read_set], ids=["read", "read_set"])
def test_absent_and_empty_files(form: Format, action: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / f"{ODD}{form.suffix}"
    assert "no such file" in refuses(path, action)
    path.touch()
    if form.suffix != ".zarr":
        assert "empty" in refuses(path, action)


@formats
@pytest.mark.parametrize("seed", range(3))
def test_garbage(form: Format, seed: int, tmp_path: Path) -> None:
    path = tmp_path / f"a{form.suffix}"
    path.write_bytes(np.random.default_rng(seed).bytes([40, 4000, 20000][seed]))
    refuses(path)
    path.write_bytes(bytes(5000))
    refuses(path)


@files
@pytest.mark.parametrize("part", [0.002, 0.1, 0.3, 0.5, 0.7, 0.95])
def test_truncated_files(form: Format, part: float, tmp_path: Path) -> None:
    path = io.write(full(form), tmp_path / f"a{form.suffix}")
    whole = path.read_bytes()
    length = min(math.ceil(part * len(whole)), len(whole) - 1)
    path.write_bytes(whole[: length - (length % 2880 == 0)])  # a FITS file cut between two units is a FITS file
    try:
        got = io.read(path)
    except ReadError:
        refuses(path)
    else:
        assert part == 0.95, "only the padding at the end may be missed"
        assert_same(got, full(form))


@beside
def test_a_description_of_another_file_is_refused(form: Format, tmp_path: Path) -> None:
    """Companions that do not fit, or a damaged description, give a ReadError and never another exception."""
    path = io.write(full(form), tmp_path / f"a{form.suffix}")
    side = tmp_path / f"a{form.suffix}.json"
    for text in ('{"firstlight": 1}', '{"firstlight": 1, "axes"', '["firstlight"]', side.read_text().replace('"YX"', '"ZZYX"')):
        side.write_text(text)
        refuses(path)


@files
def test_any_damaged_byte_gives_a_frame_or_a_read_error(form: Format, tmp_path: Path) -> None:
    path = io.write(sample(form), tmp_path / f"a{form.suffix}")
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(11)
    for at in rng.integers(0, min(len(whole), 3000), 12):
        damaged = bytearray(whole)
        damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with suppress(ReadError):
            np.asarray(io.read(path).data)


@formats
def test_read_set_holds_what_read_gives(form: Format, tmp_path: Path) -> None:
    frame = sample(form)
    path = io.write(frame, tmp_path / f"a{form.suffix}")
    found = io.read_set(path)
    assert len(found) == 1
    assert_same(next(iter(found.values())), frame)


@formats
def test_links_are_followed(form: Format, tmp_path: Path) -> None:
    path = io.write(sample(form), tmp_path / f"a{form.suffix}")
    link = tmp_path / f"link{form.suffix}"
    link.symlink_to(path)
    assert same(io.read(link).data, sample(form).data)
