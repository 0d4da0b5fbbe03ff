"""The picture of the house is the house."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "firstlight"


def test_the_picture_lists_every_module_and_no_other() -> None:
    block = re.search(r"```text\nsrc/firstlight/\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
    assert block is not None
    drawn = [line.split()[0] for line in block[1].splitlines()]
    rooms = [f"{p.parent.name}/" for p in SOURCE.glob("*/__init__.py")]
    modules = [p.name for p in SOURCE.glob("*.py") if not p.name.startswith("__")]
    assert sorted(drawn) == sorted(rooms + modules)


def test_decisions_are_numbered_without_a_gap() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    assert [int(p.name[:3]) for p in pages] == list(range(1, len(pages) + 1))
    assert all(re.match(rf"# {p.name[:3]}\b", p.read_text()) for p in pages)


def test_no_file_is_called_for_nothing() -> None:
    shelves = {"utils", "helpers", "common", "misc", "manager", "handler", "base", "v2"}
    assert not [p for p in SOURCE.rglob("*.py") if p.stem in shelves]
