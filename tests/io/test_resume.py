"""Outputs that are killed, cut short or refused: what stays, and that another run ends with the same file."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from firstlight import io
from firstlight.box import Box
from firstlight.errors import WriteError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.io import partial, zarr_write
from firstlight.io.journal import Journal
from firstlight.noise import Unmodelled

NAMES = ("a.zarr", "a.h5", "a.tif", "a_####.tif")
SHAPE = (21, 40, 300)  # 300: one level more for Zarr; 21: the last section is short


def volume(seed=0):
    data = np.random.default_rng(seed).random(SHAPE).astype(np.float32)
    spacing = {"Z": 0.65, "Y": 0.65, "X": 0.65}
    return Frame(data, "ZYX", Unit.ATTENUATION, Unmodelled("reconstructed"), std=data + 1, spacing=spacing)


def begin(path, frame=None, **changes):
    frame = frame or volume()
    return io.create(path, frame, **({"std": True, "section": 8, "resume": "k"} | changes))


def done(path):
    """The sections that an unfinished output has."""
    out = begin(path)
    out.leave()
    return out.done


def put(out, frame, boxes):
    for box in boxes:
        out.put(box, frame.data[box.slices], frame.std[box.slices])


CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_resume import begin, put, volume
path, kill = sys.argv[1], int(sys.argv[2])
folder, seen = os.path.dirname(path), 0
def hook(event, args):
    global seen
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and args and folder in str(args[0]):
        seen += 1
        if seen == kill:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
out = begin(path)
print("done", len(out.done), flush=True)
with out:
    put(out, volume(), [b for b in out.sections(8) if not out.has(b)])
print("seen", seen)
"""


def child(path, kill):
    code = CHILD.format(tests=str(Path(__file__).parent))
    run = subprocess.run([sys.executable, "-c", code, str(path), str(kill)], capture_output=True, text=True, check=False)
    said = dict(line.split() for line in run.stdout.splitlines())
    assert run.returncode in (0, -signal.SIGKILL), run.stderr
    return run.returncode == 0, {k: int(v) for k, v in said.items()}


@pytest.fixture(scope="module", params=NAMES)
def whole(request, tmp_path_factory):
    """An output that nothing disturbed, and how many file operations it took."""
    path = tmp_path_factory.mktemp("whole") / request.param
    ended, said = child(path, 0)
    assert ended
    return path, said["seen"]


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a signal of POSIX")
@pytest.mark.parametrize(("low", "high", "kills"), [(0.4, 0.6, 2), (0.8, 0.9, 1)], ids=["sections", "end"])
def test_a_killed_run_goes_on_where_it_stopped(whole, low, high, kills, tmp_path):
    """Killed at file operations drawn with seed 4; each further run goes on with what the others left."""
    first, count = whole
    goal = tmp_path / first.name
    found = []
    for i, share in enumerate(np.random.default_rng(4).uniform(low, high, kills), 1):
        ended, said = child(goal, int(share * count / i))  # less is left to do for the later ones
        found.append(said.get("done", 0))
        assert not ended
    ended, said = child(goal, 0)
    assert ended
    assert [*found, said["done"]] == sorted([*found, said["done"]])
    assert said["done"] > 0
    frame, back = volume(), io.read(goal)
    assert np.array_equal(back.data[...], frame.data)
    assert np.array_equal(back.std[...], frame.std)
    assert dict(back.spacing) == dict(frame.spacing)
    assert not list(tmp_path.glob("*.partial"))
    assert goal.suffix != ".zarr" or same_files(goal, first)


def same_files(one, other):
    """Every file of a folder, pyramid and metadata included, byte by byte."""
    names = [sorted(p.relative_to(f) for p in f.rglob("*") if p.is_file()) for f in (one, other)]
    return names[0] == names[1] and all((one / n).read_bytes() == (other / n).read_bytes() for n in names[0])


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_keeps_the_sections_done_and_abort_removes_them(name, tmp_path):
    frame = volume()

    def interrupted():
        with begin(tmp_path / name) as out:
            put(out, frame, out.sections(8)[:2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == [f"{name}.partial"]
    again = begin(tmp_path / name)
    assert again.done == frozenset(again.sections(8)[:2])
    assert [again.has(b) for b in again.sections(8)] == [True, True, False]
    assert again.has(Box((3, 0, 0), (12, *SHAPE[1:])))
    put(again, frame, again.sections(8)[2:])
    again.close()
    assert np.array_equal(io.read(tmp_path / name).data[...], frame.data)
    third = begin(tmp_path / name)
    put(third, frame, third.sections(8)[:1])
    third.abort()
    assert not list(tmp_path.glob("*.partial"))
    assert np.array_equal(io.read(tmp_path / name).data[...], frame.data)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "changes", [{"resume": "other"}, {"bits": 9}, {"section": 4}, {"dtype": "float64"}, {"std": False}], ids=str
)
def test_another_recipe_or_option_is_refused_or_starts_anew(name, changes, tmp_path):
    frame = volume()
    first = begin(tmp_path / name)
    put(first, frame, first.sections(8)[:1])
    first.leave()
    with pytest.raises(WriteError, match="another recipe, input or option"):
        begin(tmp_path / name, **changes)
    assert done(tmp_path / name)  # refused, but not harmed
    out = begin(tmp_path / name, **changes, anew=True)
    assert not out.done
    out.abort()


@pytest.mark.parametrize(
    ("name", "moves"), [("a.zarr", 0), ("a.h5", 0), *((n, k) for n in ("a.tif", "a_####.tif") for k in (0, 1, 2))]
)
def test_an_output_whose_files_lack_their_names_only_gets_them(name, moves, tmp_path, monkeypatch):
    """The kill falls between two renames of the end: nothing is computed again."""
    frame, out = volume(), begin(tmp_path / name)
    put(out, frame, out.sections(8))
    real, left = Path.replace, [moves]

    def replace(self, target):
        if Path(target).parent == tmp_path:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        out.close()
    monkeypatch.undo()
    again = begin(tmp_path / name)
    assert len(again.done) == 3
    again.leave()
    last = begin(tmp_path / name)
    assert len(last.done) == 3
    last.close()
    back = io.read(tmp_path / name)
    assert np.array_equal(back.data[...], frame.data)
    assert np.array_equal(back.std[...], frame.std)
    assert not list(tmp_path.glob("*.partial"))


def test_a_key_changes_with_recipe_geometry_and_input(tmp_path):
    file = tmp_path / "in.h5"
    file.write_bytes(b"one")
    keys = [io.resume_key({"steps": [1]}, inputs=[file]), io.resume_key({"steps": [2]}, inputs=[file])]
    assert io.resume_key({"steps": [1]}, inputs=[file]) == keys[0]
    os.utime(file, ns=(0, 5))
    keys.append(io.resume_key({"steps": [1]}, inputs=[file]))
    assert len(set(keys)) == 3
    scans = [
        Frame(np.ones((3, 8, 9)), "AYX", Unit.TRANSMISSION, Unmodelled("x"), geometry=Scan(np.arange(3) + k)) for k in (0, 1)
    ]
    io.create(tmp_path / "s.h5", scans[0], section=8, resume="k").leave()
    with pytest.raises(WriteError, match="another"):
        io.create(tmp_path / "s.h5", scans[1], section=8, resume="k")


def test_two_runs_of_one_output(tmp_path):
    out = begin(tmp_path / "a.zarr")
    with pytest.raises(WriteError, match="another run is writing"):
        begin(tmp_path / "a.zarr")
    out.leave()
    begin(tmp_path / "a.zarr").abort()


@pytest.mark.parametrize("name", NAMES)
def test_a_resumable_output_takes_whole_sections_and_all_of_them(name, tmp_path):
    frame, out = volume(), begin(tmp_path / name)
    with pytest.raises(WriteError, match="whole sections"):
        out.put(Box((0, 0, 0), (8, 20, 300)), frame.data[:8, :20], 1.0)
    put(out, frame, out.sections(8)[1:])
    with pytest.raises(WriteError, match="before all its sections"):
        out.close()
    again = begin(tmp_path / name)
    assert len(again.done) == 2
    put(again, frame, again.sections(8)[:1])
    again.close()
    assert np.array_equal(io.read(tmp_path / name).std[...], frame.std)


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_keeps_what_is_done(name, tmp_path, monkeypatch):
    frame, out = volume(), begin(tmp_path / name)
    put(out, frame, out.sections(8)[:1])

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(out._output, "flush", full)
    with pytest.raises(WriteError, match=r"No space left on device.*partial keeps what is done") as caught:
        put(out, frame, out.sections(8)[1:])
    assert "\n" not in str(caught.value)
    out.leave()
    assert len(done(tmp_path / name)) == 1


@pytest.mark.parametrize(("name", "where"), [("a.zarr", "halved"), ("a.h5", "_copy_chunks")])
def test_a_disk_that_fills_while_closing_keeps_all_sections(name, where, tmp_path, monkeypatch):
    from firstlight.io import hdf_write

    frame, out = volume(), begin(tmp_path / name)
    put(out, frame, out.sections(8))
    if name == "a.zarr":
        out._output._streamed = 0  # all levels are made at the end
    real = partial.Partial.commit

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zarr_write if name == "a.zarr" else hdf_write, where, full)
    with pytest.raises(WriteError, match="No space left"):
        out.close()
    monkeypatch.undo()
    assert partial.Partial.commit is real
    again = begin(tmp_path / name)
    assert len(again.done) == 3
    again.close()
    assert np.array_equal(io.read(tmp_path / name).data[...], frame.data)


def test_formats_that_cannot_be_resumed_say_so(tmp_path):
    assert [io.resumable(n) for n in (*NAMES, "a.mrc", "a.npy")] == [True] * 4 + [False] * 2
    with pytest.raises(WriteError, match="cannot be resumed"):
        io.create(tmp_path / "a.mrc", volume(), resume="k")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("torn", [b'{"start": [0, 0, 0], "st', b"\0\0\0\n", b'{"start": [8, 0, 0], "stop": [16, 4, 4]}'])
def test_a_torn_line_of_a_journal_counts_for_nothing(torn, tmp_path):
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    first.begin("k")
    box = Box((0, 0, 0), (8, 4, 4))
    first.add(box)
    first.close()
    with path.open("ab") as file:
        file.write(torn)
    again = Journal(path)
    assert (again.key, again.done) == ("k", {box})
    again.add(Box((8, 0, 0), (16, 4, 4)))
    again.close()
    last = Journal(path)
    assert len(last.done) == 2
    last.close()
