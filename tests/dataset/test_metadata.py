import json
from pathlib import Path

import pytest

from firstlight.dataset.metadata import (
    METADATA,
    domain_file,
    is_inside,
    read_metadata,
    resolve,
    resolved,
    row_lines,
    write_metadata,
    write_rows,
)
from firstlight.errors import FrameError, WriteError

HEAD = {"profile": "physical", "pairs": [{"noisy": "a"}], "unreadable": []}


def row(name, **more):
    return {"tile_id": name, "domain": "astronomy", "npy_path": f"npy_tiles/{name}.npy", "flags": {}} | more


def test_rows_are_json_a_row_a_line_and_appear_whole(tmp_path):
    rows, path = [row(f"t{i}") for i in range(3)], tmp_path / METADATA
    for head in ({}, HEAD):
        for some in ([], rows[:1], rows):
            write_rows(path, head, iter(some))
            assert json.loads(path.read_text()) == {**head, "tiles": some}
            assert row_lines(path) == [json.dumps(r).encode() for r in some]
    before = path.read_bytes()

    def broken():
        yield rows[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match="No space left"):
        write_rows(path, {"profile": "x"}, broken())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_is_no_json_is_refused_with_the_name_of_its_row(tmp_path):
    for value in (float("nan"), float("inf"), {1, 2}):
        with pytest.raises(FrameError, match=r"tiles: bad is no JSON .*; expected finite numbers"):
            write_metadata(tmp_path, {**HEAD, "tiles": [row("good"), row("bad", gain=value)]})
    with pytest.raises(FrameError, match="head is no JSON"):
        write_rows(tmp_path / METADATA, {"root": tmp_path}, [])
    assert not list(tmp_path.iterdir())


def test_each_domain_has_its_own_json(tmp_path):
    rows = [row("a"), row("b", domain="microscopy"), row("c")]
    write_metadata(tmp_path, {**HEAD, "tiles": rows})
    assert read_metadata(tmp_path, absolute=False) == {**HEAD, "tiles": rows}
    for domain, own in (("astronomy", [rows[0], rows[2]]), ("microscopy", [rows[1]])):
        assert json.loads(domain_file(tmp_path, domain).read_text()) == {**HEAD, "tiles": own}
    for name in ("../x", "a/b", "a\\b", ""):
        with pytest.raises(FrameError, match="cannot name a file"):
            write_metadata(tmp_path, {"tiles": [row("a", domain=name)]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"tiles": []}',
        '{"tiles": [\n{"a": 1},\n{"a": 2}',
        '{"tiles": [\n{"a": 1}, {"a": 2},\n{"a":\n3}\n]}\n',
        '{"tiles": [\n{"a": [1,\n2]}\n]}\n',
    ],
)
def test_rows_that_are_no_lines_are_not_taken_for_lines(tmp_path, text):
    (tmp_path / METADATA).write_text(text)
    assert row_lines(tmp_path / METADATA) == []


def test_paths_become_absolute_once(tmp_path):
    rows = [row("a", noise_a="noise_maps/m.npy", noise_b=2.0), row("b", npy_path="/elsewhere/b.npy")]
    found = resolve(rows, tmp_path)
    assert found[0] == {**rows[0], "npy_path": str(tmp_path / "npy_tiles/a.npy"), "noise_a": str(tmp_path / "noise_maps/m.npy")}
    assert found[1] == rows[1]
    assert resolve(found, Path("/other")) == found
    assert resolved(["a", "/b", None], "/c") == ["/c/a", "/b", None]


def test_a_path_that_leads_out_of_its_folder_is_told_on_any_system():
    assert all(is_inside(p) for p in ("a.npy", "npy_tiles/a..b.npy", "npy_tiles/..a/b.npy", "ä/b c.npy"))
    outside = ("", "/a", "\\a", "\\\\host\\a", "C:/a", "C:a", "..", "../a", "a/../../b", "a\\..\\..\\b", "a/..", None, 3)
    assert not any(is_inside(p) for p in outside)
