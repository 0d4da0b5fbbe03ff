"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# the same examples every time, so that a failure is a change's; HYPOTHESIS_PROFILE=explore looks for new ones
settings.register_profile("steady", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data, from FIRSTLIGHT_DATA or beside the repository; skips where it is absent."""
    folder = Path(os.environ.get("FIRSTLIGHT_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "README.md").exists():
        pytest.skip("real data are absent: set FIRSTLIGHT_DATA to their folder")
    return folder
