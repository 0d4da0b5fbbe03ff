"""Names to scenes: the domains' rows on published names, and mappings of one's own with every fault named."""

import re

import pytest

from firstlight import domains
from firstlight.dataset import layout
from firstlight.dataset.rows import Source
from firstlight.errors import ReadError

CELL = "microscopy/structures"
HLA = "astronomy/hla_associations"
GOOD = """
[[layout]]
name = "mine"
domain = "microscopy"
pattern = "{day}/{field}_c{channel}_{kind}.tif"
scene = "{day}_{field}"
view = "{day}_{field}_{channel}"
channel = "{channel}"
data_type = "{kind}"
labels = { short = "noisy", long = "clean" }
"""


def said(path, known=None):
    found = layout.match(path, layout.rows() if known is None else known)
    return None if found is None else (found.scene, found.view, found.data_type)


@pytest.mark.parametrize(
    ("path", "scene", "view", "data_type"),
    [
        ("SID/Sony/short/00001_00_0.04s.ARW", "photo_00001", "photo_Sony_00001", "noisy"),
        ("data/raw/SID/Sony/long/00001_00_10s.ARW", "photo_00001", "photo_Sony_00001", "clean"),
        ("Fuji/long/20004_00_30s.RAF", "photo_20004", "photo_Fuji_20004", "clean"),
        (f"{CELL}/F-actin/Cell_005/RawSIMData_level_02.mrc", *["micro_F-actin_Cell_005"] * 2, "noisy"),
        (f"{CELL}/F-actin/Cell_005/RawSIMData_gt.mrc", *["micro_F-actin_Cell_005"] * 2, "clean"),
        (f"{CELL}/CCPs/Cell_01/SIM_gt_a.mrc", *["micro_CCPs_Cell_01"] * 2, "clean"),
        (f"{CELL}/ER/Cell_001/RawSIMData_level_03.mrc", "micro_ER_Cell_001", "micro_ER_Cell_001_level_03", "noisy"),
        (
            f"{CELL}/ER/Cell_001/RawGTSIMData/RawGTSIMData_level_03.mrc",
            "micro_ER_Cell_001",
            "micro_ER_Cell_001_level_03",
            "clean",
        ),
        (f"{CELL}/ER/Cell_001/GTSIM/GTSIM_level_03.mrc", "micro_ER_Cell_001", "micro_ER_Cell_001_level_03", "clean"),
        (f"{HLA}/direct_images/j8hqbifjq_detection_sci.fits", *["astro_j8hqbifjq"] * 2, "clean"),
        (f"{HLA}/g800l_images/hst_9583_acs_j8hqbifjq_g800l_sci.fits", *["astro_j8hqbifjq"] * 2, "noisy"),
        ("w2s/input_avg1_007_2.tif", "micro_w2s_007", "micro_w2s_007_2", "noisy"),
        ("w2s/target_avg400_007_2.tif", "micro_w2s_007", "micro_w2s_007_2", "clean"),
        ("HATP-32171220013343.FITS.gz", *["astro_HATP-32"] * 2, "noisy"),
    ],
)
def test_published_names(path, scene, view, data_type):
    assert said(path) == (scene, view, data_type)


@pytest.mark.parametrize(
    "path",
    ["00001_00_0.04s.ARW", "xSony/short/00001_00_0.04s.ARW", "SID/Sony/short/00001_00_0.04s.ARW.bak", "a/input_avg1_1.tif", ""],
)
def test_other_names_are_not_guessed(path):
    assert said(path) is None


@pytest.mark.parametrize(
    ("path", "scene", "data_type"),
    [
        ("SID/Sony/short/00001_00_0.04s.ARW", "photo_00001", "noisy"),
        (f"{CELL}/CCPs/Cell_01/RawSIMData_level_02.mrc", "micro_RawSIMData_level_02", "noisy"),
        (f"{CELL}/CCPs/Cell_01/RawSIMData_gt.mrc", "micro_gt", "noisy"),
        (f"{CELL}/CCPs/Cell_01/SIM_gt.mrc", "micro_gt", "clean"),
        (f"{CELL}/ER/Cell_01/RawGTSIMData/RawGTSIMData_level_02.mrc", "micro_RawGTSIMData_level_02", "noisy"),
        (f"{CELL}/ER/Cell_01/GTSIM/GTSIM_level_02.mrc", "micro_GTSIM_level_02", "clean"),
        (f"{HLA}/direct_images/j8hqbifjq_detection_sci.fits", "astro_j8hqbifjq", "clean"),
        (f"{HLA}/g800l_images/j8hqbifjq_g800l_sci.fits", "astro_j8hqbifjq", "noisy"),
    ],
)
def test_documented_names(path, scene, data_type):
    physical = layout.match(path, layout.rows())
    source = Source(path, physical.row.domain, physical.row.name, physical.scene, physical.view, physical.data_type)
    (found,) = layout.documented([source])
    assert (found.scene, found.data_type) == (scene, data_type)
    assert layout.documented([found]) == [found]
    assert len(layout.warning(found)) > 40
    assert said(path, layout.rows(profile="documented"))[0] == scene


def test_what_no_documented_row_knows_stays():
    source = Source("w2s/input_avg1_001_0.tif", "microscopy", "w2s", "micro_w2s_001", "v", "noisy")
    assert layout.documented([source]) == [source]
    assert layout.warning(source) == ""
    # a mapping of one's own is not overruled, whatever its files are called
    own = Source("SID/Sony/short/00001_00_0.04s.ARW", "photography", "mine", "s", "v", "unknown")
    assert layout.documented([own]) == [own]


def test_rows_are_sound():
    for row in (*domains.layouts(), *domains.layouts("documented")):
        groups = set(re.compile(row.pattern).groupindex)
        for key in layout.TEMPLATES:
            assert set(re.findall(r"\{(\w+)\}", getattr(row, key))) <= groups, (row.name, key)
        assert set(row.labels.values()) <= set(layout.DATA_TYPES)
        assert row.domain in domains.names()
    assert all(row.warning for row in domains.layouts("documented"))


def mapping(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_mapping_of_globs(tmp_path):
    known = layout.rows(mapping(tmp_path, GOOD))
    assert said("a/b/monday/f1_c2_short.tif", known) == ("monday_f1", "monday_f1_2", "noisy")
    assert said("monday/f1_c2_long.tif", known) == ("monday_f1", "monday_f1_2", "clean")
    assert said("monday/sub/f1_c2.tif", known) is None
    assert said("w2s/input_avg1_007_2.tif", known) is not None  # the domains' own rows stay


@pytest.mark.parametrize(
    ("pattern", "path", "field"),
    [
        ("**/{field}.tif", "a/b/c.tif", "c"),
        ("x/**/{field}.tif", "r/x/c.tif", "c"),
        ("x/**/{field}.tif", "x/y/z/c.tif", "c"),
        ("{field}/{field}_?.tif", "ab/ab_1.tif", "ab"),
        ("{field}/{field}_?.tif", "ab/ac_1.tif", None),
        ("{field}*.tif", "a+b.tif", "a"),
        ("{field}.t.f", "axtxf", None),
        (r"(?P<field>\\d+)\\.tif", "12.tif", "12"),
    ],
)
def test_what_patterns_mean(tmp_path, pattern, path, field):
    text = f'[[layout]]\nname="m"\ndomain="astronomy"\npattern="{pattern}"\nscene="{{field}}"\ndata_type="unknown"\n'
    found = layout.match(path, layout.load(mapping(tmp_path, text)))
    assert (None if found is None else found.scene) == field
    assert found is None or found.view == found.scene


def test_the_first_row_that_knows_a_name_decides(tmp_path):
    text = GOOD.replace('"{day}/{field}_c{channel}_{kind}.tif"', "'(?P<kind>input)_avg1_(?P<field>\\d+)_(?P<channel>.)\\.tif'")
    text = text.replace("{day}_", "").replace("short", "input")
    assert said("w2s/input_avg1_007_2.tif", layout.rows(mapping(tmp_path, text)))[0] == "007"


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "says"),
    [
        ('domain = "microscopy"', 'domain = "micro"', 4, "domain", "expected one of photography"),
        ('name = "mine"', "name = 3", 3, "name", "expected text"),
        ('scene = "{day}_{field}"\n', "", 2, "scene", "is missing"),
        ("scene =", "scenes =", 6, "scenes", "did you mean 'scene'"),
        ('"{day}_{field}_{channel}"', '"{dag}_{field}"', 7, "view", "names {dag}, which the pattern does not"),
        ('"{day}_{field}"', '"{day"', 6, "scene", "no template"),
        ('"{day}_{field}"', '"{day:d}_{field}"', 6, "scene", "asks for a format of day, expected {day} alone"),
        ('"{day}_{field}"', '"{day!z}_{field}"', 6, "scene", "asks for a format of day, expected {day} alone"),
        ('"{day}_{field}"', '"{}"', 6, "scene", "names {}, which the pattern does not"),
        ('short = "noisy"', 'short = "dirty"', 10, "labels", "gives 'dirty'"),
        ('data_type = "{kind}"', 'data_type = "dirty"', 9, "data_type", "is 'dirty'"),
        ('"{day}/{field}_c{channel}_{kind}.tif"', '"(a|b).tif"', 5, "pattern", "neither a glob nor"),
        ('"{day}/{field}_c{channel}_{kind}.tif"', '"(?P<day>[a.tif"', 5, "pattern", "no pattern"),
        ('labels = { short = "noisy", long = "clean" }', "labels = 3", 10, "labels", "labels from text to text"),
        ("[[layout]]", "[[layouts]]", 2, "layouts", "unknown key"),
    ],
)
def test_faults_name_line_and_key(tmp_path, old, new, line, key, says):
    assert old in GOOD
    with pytest.raises(ReadError) as caught:
        layout.load(mapping(tmp_path, GOOD.replace(old, new, 1)))
    found = [text for text in str(caught.value).splitlines() if f"line {line}, key {key!r}" in text]
    assert found, str(caught.value)
    assert says in found[0]


def test_the_fault_of_a_second_table_stands_at_its_own_line(tmp_path):
    with pytest.raises(ReadError, match="line 15, key 'domain'"):
        layout.load(mapping(tmp_path, GOOD + "\n" + GOOD.replace('"microscopy"', '"x"')))


@pytest.mark.parametrize("text", ["", "[[layout]]\nname = ", "layout = 3", "\x00"])
def test_what_is_no_mapping(tmp_path, text):
    with pytest.raises(ReadError, match=r"own\.toml"):
        layout.load(mapping(tmp_path, text))


def test_an_absent_mapping(tmp_path):
    with pytest.raises(ReadError, match="absent"):
        layout.load(tmp_path / "absent.toml")


def test_a_label_that_the_row_does_not_know_is_said(tmp_path):
    known = layout.load(mapping(tmp_path, GOOD))
    with pytest.raises(ReadError, match="'medium', expected one of noisy, clean, unknown"):
        layout.match("monday/f1_c2_medium.tif", known)
    text = GOOD.replace('channel = "{channel}"', 'exposure = "{channel}"')
    with pytest.raises(ReadError, match="expected seconds"):
        layout.match("monday/f1_cx_long.tif", layout.load(mapping(tmp_path, text)))


def test_a_file_without_a_scene_is_said(tmp_path):
    text = GOOD.replace(
        '"{day}/{field}_c{channel}_{kind}.tif"', "'(?P<day>1)(?P<field>a?)_(?P<channel>c)_(?P<kind>short|long).tif'"
    )
    known = layout.load(mapping(tmp_path, text.replace('"{day}_{field}"', '"{field}"')))
    assert layout.match("1a_c_short.tif", known).scene == "a"
    with pytest.raises(ReadError, match="finds no scene in 1_c_short"):
        layout.match("1_c_short.tif", known)
