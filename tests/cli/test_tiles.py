"""The commands of tile sets as a user types them: exit codes, what stands on standard output, what is left of a folder."""

import importlib.util
import json
from pathlib import Path

import pytest

from firstlight.cli import main

SPEC = importlib.util.spec_from_file_location("trees", Path(__file__).parents[1] / "dataset" / "trees.py")
trees = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(trees)
GIVEN = ("--detector", "microscopy:gain=1,read_noise=1.5,offset=100", "--unit", "microscopy:adu")
METADATA = "comprehensive_tiles_metadata.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two small astronomy frames, two of microscopy and a note."""
    folder = tmp_path_factory.mktemp("raw")
    trees.hla(folder, pairs=1, shape=(270, 300))
    trees.biosr(folder, standard=1, er=0, side=260, phases=1)
    (folder / "notes.txt").write_text("x")
    return folder


def run(capsys, *words):
    code = main(["tiles", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_build_and_what_was_left_out(root, tmp_path, capsys):
    code, text, _ = run(capsys, root, tmp_path / "o", *GIVEN)
    assert code == 0
    assert "not used, 1 file: no layout knows this name: notes.txt" in text
    code, text, err = run(capsys, root, tmp_path / "o", *GIVEN, "--json")
    said = json.loads(text)
    assert (code, err) == (0, "")
    assert said["unmatched"] == [{"path": "notes.txt", "cause": "no layout knows this name"}]
    assert (said["made"], said["kept"], said["split"]) == (0, 4, "scene")


def test_unusable_files_are_listed_by_cause_and_the_code_is_1(root, tmp_path, capsys):
    code, text, _ = run(capsys, root, tmp_path / "o")
    assert code == 1
    assert text.count("nothing says how many electrons") == 1
    assert "cannot be used, 2 files: physical" in text
    assert "\n    microscopy/structures/F-actin_Nonlinear/Cell_001/RawSIMData_gt.mrc\n" in text


@pytest.mark.parametrize("profile", ["documented", "document0"])
def test_a_documented_profile_brings_its_split_and_says_what_is_wrong_once(root, tmp_path, capsys, profile):
    code, text, err = run(capsys, root, tmp_path / "o", "--profile", profile)
    assert code == 0
    assert f"profile {profile}, split documented" in text
    assert text.count("one scene is in train and in test") == 1
    assert err == ""
    rows = json.loads((tmp_path / "o" / METADATA).read_text())["tiles"]
    assert {(r["data_type"], r["split"]) for r in rows if r["split"] == "test"} == {("clean", "test")}
    assert {r["data_type"] for r in rows if r["split"] != "test"} == {"noisy"}
    code, text, _ = run(capsys, root, tmp_path / "scene", "--profile", profile, "--split", "scene")
    assert f"profile {profile}, split scene" in text
    assert "one scene is in train and in test" not in text


def test_a_changed_split_is_said(root, tmp_path, capsys):
    run(capsys, root, tmp_path / "o", *GIVEN)
    _, text, _ = run(capsys, root, tmp_path / "o", *GIVEN)
    assert "the split was" not in text
    code, text, _ = run(capsys, root, tmp_path / "o", *GIVEN, "--split", "seeded")
    assert code == 0
    assert "the split was 'scene' and is 'seeded' now" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ROOT", "ROOT"), "holds the images themselves"),
        (("ROOT", "ROOT/../ROOTNAME"), "holds the images themselves"),
        (("NONE", "OUT"), "is no folder"),
        (("ROOT", "OUT", "--workers", "0"), "expected at least 1"),
        (("ROOT", "OUT", "--workers", "-1"), "expected at least 1"),
        (("ROOT", "OUT", "--max-files", "0"), "expected at least 1"),
        (("ROOT", "OUT", "--mapping", "NONE"), "cannot be read"),
        (("ROOT", "OUT", "--detector", "micro:gain=1"), "expected a domain or a layout"),
        (("ROOT", "OUT", "--detector", "gain=1", "--detector", "hla:gain=2"), "expected NAME:VALUE each"),
        (("ROOT", "OUT", "--detector", "gain=abc"), "expected a JSON file or gain="),
        (("ROOT", "OUT", "--detector", "microscopy:gain=abc"), "expected a JSON file or gain="),
        (("ROOT", "OUT", "--detector", "NONE/x.json"), "no such detector file"),
        (("ROOT", "OUT", "--detector", "gian=2,read_noise=3"), "gian"),
        (("ROOT", "OUT", "--unit", "furlong"), "furlong"),
    ],
)
def test_bad_usage_is_2_says_why_and_leaves_nothing(root, tmp_path, capsys, words, says):
    names = {"ROOTNAME": root.name, "ROOT": str(root), "OUT": str(tmp_path / "o"), "NONE": str(tmp_path / "none")}
    for name, value in names.items():
        words = [w.replace(name, value) for w in words]
    before = sorted(root.rglob("*"))
    code, text, err = run(capsys, *words)
    assert (code, text) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert sorted(root.rglob("*")) == before
    assert not (tmp_path / "o").exists()


def test_a_root_without_images_removes_nothing(root, tmp_path, capsys):
    run(capsys, root, tmp_path / "o", *GIVEN)
    tiles = sorted((tmp_path / "o").rglob("*.npy"))
    (tmp_path / "empty").mkdir()
    code, _, err = run(capsys, tmp_path / "empty", tmp_path / "o", *GIVEN)
    assert code == 2
    assert "no image to make tiles of, it holds no files" in err
    (tmp_path / "empty" / "a.png").write_bytes(b"")
    code, _, err = run(capsys, tmp_path / "empty", tmp_path / "o", *GIVEN)
    assert code == 2
    assert "no image to make tiles of (a.png: no layout knows this name)" in err
    assert sorted((tmp_path / "o").rglob("*.npy")) == tiles


def test_audit_speaks_json_alone(root, tmp_path, capsys):
    run(capsys, root, tmp_path / "o", *GIVEN)
    code, text, err = run(capsys, "audit", tmp_path / "o", "--json")
    found = json.loads(text)
    assert {"tiles", "pairs", "splits", "leaks"} <= set(found)
    assert code == (1 if found["leaks"] else 0)
    assert err == ""


@pytest.mark.parametrize("command", ["verify", "audit", "unscale", "page"])
@pytest.mark.parametrize("there", ["nothing", "file", "cut", "no rows"])
def test_what_is_no_tile_set(tmp_path, capsys, command, there):
    out = tmp_path / "o"
    if there == "file":
        out.write_bytes(b"x")
    elif there != "nothing":
        out.mkdir()
        (out / METADATA).write_text('{"tiles": [{"tile_id": "a"' if there == "cut" else '{"a": 1}')
    code, text, err = run(capsys, command, out, *([tmp_path / "d"] if command in ("unscale", "page") else []))
    assert code == 2
    assert text == ""
    assert str(out) in err
    assert not (tmp_path / "d").exists()


def test_a_set_with_noise_maps_is_verified_and_audited(tmp_path, capsys):
    trees.sid(tmp_path / "raw", sony=0, fuji=1, fuji_shape=(1060, 1100))
    run(capsys, tmp_path / "raw", tmp_path / "o", "--detector", "sid:gain=2,read_noise=2")
    assert list((tmp_path / "o" / "noise_maps").iterdir())
    for command in ("verify", "audit"):
        code, text, err = run(capsys, command, tmp_path / "o")
        assert (code, err) == (0, ""), text


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("tiles", {"fixed_scale": "x"}),
        ("tiles", {"norm_max": "x"}),
        ("tiles", {"flags": {"SATURATED": "x"}}),
        ("tiles", {"image_x": "a"}),
        ("tiles", {"tile_size": [1]}),
        ("pairs", 3),
        ("pairs", [3]),
        ("pairs", [{"noisy": "a"}]),
        ("pairs", [{"noisy": "a", "clean": "b", "proved": True, "figures": {"scale": "x"}}]),
    ],
)
def test_rows_of_nonsense_are_said_without_a_traceback(root, tmp_path, capsys, where, change):
    run(capsys, root, tmp_path / "o", *GIVEN, "--max-files", "2")
    file = tmp_path / "o" / METADATA
    meta = json.loads(file.read_text())
    if where == "tiles":
        meta["tiles"][0].update(change)
    else:
        meta["pairs"] = change
    file.write_text(json.dumps(meta))
    code, text, err = run(capsys, "verify", tmp_path / "o")
    assert code in (1, 2)
    assert "FAIL" in text or "build the set again" in err
    assert run(capsys, "audit", tmp_path / "o")[0] in (0, 1, 2)
    assert run(capsys, "page", tmp_path / "o", tmp_path / "p.html")[0] in (0, 2)
