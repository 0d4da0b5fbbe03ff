"""Splits against published oracles, and the property that counts: a scene is in one split."""

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.dataset.rows import Source
from firstlight.dataset.split import RULES, assign, bucket, split
from firstlight.errors import FrameError

SCENES = st.lists(st.text(min_size=1, max_size=12), max_size=60)


def source(path, scene, data_type="noisy", layout="own"):
    return Source(path, "photography", layout, scene, scene, data_type)


@pytest.mark.parametrize(
    ("scene", "number"),
    [
        ("photo_00001", 76),
        ("photo_00002", 48),
        ("photo_10003", 41),
        ("astro_j8hqbifjq", 13),
        ("micro_F-actin_Cell_005_RawSIMData", 2),
    ],
)
def test_buckets_as_published(scene, number):
    assert bucket(scene) == number


def test_the_seeded_rule_as_published():
    found = split("0123456789", rule="seeded")
    assert {k for k, v in found.items() if v == "train"} == set("5607324")
    assert [k for k, v in found.items() if v == "validation"] == ["9"]
    assert {k for k, v in found.items() if v == "test"} == set("18")


def test_sid_goes_by_the_first_digit():
    found = split(["photo_00001", "photo_10003", "photo_20007"], rule="sid")
    assert list(found.values()) == ["train", "test", "validation"]
    for bad in ("photo_30001", "photo_1", "micro_x"):
        with pytest.raises(FrameError, match="five digits"):
            split([bad], rule="sid")


def test_the_scene_rule_at_its_borders():
    by_number = {bucket(f"s{i}"): f"s{i}" for i in range(3000)}
    expected = {0: "train", 69: "train", 70: "validation", 84: "validation", 85: "test", 99: "test"}
    found = split([by_number[b] for b in expected], rule="scene")
    assert list(found.values()) == list(expected.values())
    documented = split([by_number[b] for b in expected], rule="documented")
    assert list(documented.values()) == ["train", "train", "validation", "validation", "train", "train"]


@given(SCENES)
def test_a_scene_does_not_depend_on_the_others(scenes):
    for rule in ("scene", "documented"):
        whole = split(scenes, rule=rule)
        assert all(split([s], rule=rule)[s] == whole[s] for s in scenes)


@given(SCENES, st.sampled_from(["scene", "seeded"]))
def test_all_sources_of_a_scene_go_together(scenes, rule):
    sources = [source(f"{i}-{k}.tif", s, t) for i, s in enumerate(scenes) for k, t in enumerate(("noisy", "clean"))]
    found = assign(sources, rule)
    assert set(found) == {s.path for s in sources}
    for scene in set(scenes):
        assert len({found[s.path] for s in sources if s.scene == scene}) == 1
    assert assign(sources[::-1], rule) == found


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=50))
def test_seeded_shares(scenes):
    values = list(split(scenes, rule="seeded").values())
    assert values.count("train") == int(0.7 * len(scenes))
    assert values.count("validation") == int(0.15 * len(scenes))


def test_the_documented_rule_puts_a_scene_in_train_and_test_and_says_so():
    sources = [source("a.dng", "photo_00002"), source("b.dng", "photo_00002", "clean"), source("c.dng", "photo_00001")]
    with pytest.warns(UserWarning, match="in train and in test"):
        found = assign(sources, "documented")
    assert found == {"a.dng": "train", "b.dng": "test", "c.dng": "validation"}


def test_the_documented_rule_uses_documented_scenes():
    cell = "microscopy/structures/CCPs/Cell_001/RawSIMData_level_02.mrc"
    with pytest.warns(UserWarning, match="documented"):
        found = assign([source(cell, "micro_CCPs_Cell_001", layout="biosr raw")], "documented")
    assert found[cell] == split(["micro_RawSIMData_level_02"], rule="documented")["micro_RawSIMData_level_02"]


def test_unknown_rules_name_the_known():
    with pytest.raises(FrameError, match="scene, documented, seeded, sid"):
        split(["a"], rule="random")
    with warnings.catch_warnings(), pytest.raises(FrameError):
        assign([source("a", "b")], "random")
    assert all(split([], rule=rule) == {} for rule in RULES)
