import errno
import os

import numpy as np
import pytest

from firstlight.dataset.cut import save
from firstlight.dataset.journal import files_of, locked
from firstlight.dataset.rows import Source, TileRow
from firstlight.errors import FrameError, WriteError


def source(path="a/b.fits", sha256="1", **more):
    return Source(path, "astronomy", "l", "scene", "view", "noisy", sha256=sha256, **more)


def row(name, **more):
    numbers = dict.fromkeys(TileRow.__dataclass_fields__, 1.0) | {"flags": {}, "noise_a": None, "noise_b": None}
    return TileRow(**(numbers | {"tile_id": name, "npy_path": f"npy_tiles/{name}.npy"} | more))


def put(out, name, size=4):
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, np.zeros(size, np.float32))
    return {name: path.stat().st_size}


def test_an_entry_comes_back_as_it_was(tmp_path):
    with locked(tmp_path) as journal:
        files = put(tmp_path, "npy_tiles/x.npy")
        journal.add(source(), files, [row("x", flags={"hot": 3}, noise_b=[1.0, 2.0])])
    with locked(tmp_path) as journal:
        (entry,) = journal.entries()
        assert entry.files == files
        assert entry.rows == [row("x", flags={"hot": 3}, noise_b=[1.0, 2.0]).to_dict()]
        assert journal.rows("a/b.fits") == entry.rows
        assert entry.whole(tmp_path)
        assert entry.made_of(source())
        assert not entry.made_of(source(sha256="2"))
        assert entry.made_of(source(level="renamed"))  # what a row says of its scene is joined later
        (tmp_path / "npy_tiles" / "x.npy").write_bytes(b"short")
        assert not entry.whole(tmp_path)
        journal.remove([entry])
        assert not list(journal.entries())


def test_of_a_damaged_entry_nothing_is_known(tmp_path):
    with locked(tmp_path) as journal:
        journal.add(source(), {}, [])
        (file,) = (tmp_path / ".firstlight" / "sources").iterdir()
        for text in ("", '{"path": "a/b.fits"}', "[1]", file.read_text()[:20]):
            file.write_text(text)
            (entry,) = journal.entries()
            assert (entry.path, entry.files, entry.made_of(source())) == ("", {}, False)
        journal.remove([entry])
        assert not list(journal.entries())


def test_sweep_keeps_what_is_named_and_nothing_else(tmp_path):
    with locked(tmp_path) as journal:
        names = ["npy_tiles/d/noisy/a.npy", "npy_tiles/d/noisy/a.flags.npy", "noise_maps/m.npy", "npy_tiles/d/noisy/b.npy"]
        for name in [*names, "npy_tiles/d/noisy/.7.part.c.npy", "noise_maps/n.npy"]:
            put(tmp_path, name)
        (tmp_path / ".7.part.comprehensive_tiles_metadata.json").write_text("{")
        (tmp_path / "notes.txt").write_text("mine")
        journal.add(source(), {}, [])
        assert journal.sweep(set(names[:3])) == 3
        left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file() and ".firstlight" not in p.parts}
        assert left == {*names[:3], "notes.txt"}
        assert len(list(journal.entries())) == 1


def test_options_bind_only_where_something_was_made(tmp_path):
    with locked(tmp_path) as journal:
        journal.agree({"profile": "physical"})
        journal.agree({"profile": "documented"})
        journal.add(source(), {}, [])
        journal.agree({"profile": "documented"})
        with pytest.raises(FrameError, match="built with profile 'documented', got profile 'physical'"):
            journal.agree({"profile": "physical"})


def test_one_holder_at_a_time(tmp_path):
    with locked(tmp_path):  # noqa: SIM117
        with pytest.raises(WriteError, match=f"built by process {os.getpid()};"), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


def test_a_disk_without_locks_is_told_from_a_busy_folder(tmp_path, monkeypatch):
    def no_locks(*a):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(WriteError, match=r"knows no locks .No locks available"), locked(tmp_path):
        pass


def test_files_of_rows():
    rows = [row("a").to_dict(), row("b", flags={"hot": 1}, noise_a="noise_maps/m.npy", noise_b=2.0).to_dict()]
    assert files_of(rows) == {"npy_tiles/a.npy", "npy_tiles/b.npy", "npy_tiles/b.flags.npy", "noise_maps/m.npy"}
