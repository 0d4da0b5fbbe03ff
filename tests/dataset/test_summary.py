"""What a run says at its end."""

from firstlight.dataset.summary import Summary


def bad(*paths, cause):
    return [{"path": p, "cause": cause} for p in paths]


def test_files_are_listed_by_cause_and_a_name_stays_on_its_line():
    said = Summary("o", "physical", "scene")
    said.unreadable = bad("a.fits", "b\n\x1b[2J.fits", cause="is empty") + bad("c.fits", cause="truncated")
    said.unmatched = bad(*(f"{i}.txt" for i in range(5)), cause="no layout knows this name")
    said.doubts = bad("d.fits", cause="1 s or 2 s")
    lines = said.text().split("\n")
    assert lines[-7:] == [
        "  doubt: d.fits: 1 s or 2 s",
        "  not used, 5 files: no layout knows this name: 0.txt, 1.txt, 2.txt and 2 more",
        "  cannot be used, 2 files: is empty",
        "    a.fits",
        "    b??[2J.fits",
        "  cannot be used, 1 file: truncated",
        "    c.fits",
    ]
    assert not said.ok
    assert said.to_dict()["unmatched"] == said.unmatched
    assert said.to_dict()["doubts"] == said.doubts
