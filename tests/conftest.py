"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data, from FIRSTLIGHT_DATA or beside the repository; skips where it is absent."""
    folder = Path(os.environ.get("FIRSTLIGHT_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "README.md").exists():
        pytest.skip("real data are absent: set FIRSTLIGHT_DATA to their folder")
    return folder
