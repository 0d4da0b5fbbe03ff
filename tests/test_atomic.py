"""Files appear whole or not at all, and what cannot be written is told with its cause."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from firstlight.atomic import replacing, writable
from firstlight.errors import WriteError


def interrupted(path: Path) -> None:
    with replacing(path) as temp:
        temp.write_text("half")
        raise KeyboardInterrupt


def test_a_file_appears_where_its_writing_ends_well(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt") as temp:
        temp.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "new"
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "a.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of a file's size are of POSIX systems")
def test_a_file_that_does_not_fit_is_told_as_such(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, before[1]))
    try:
        with pytest.raises(WriteError, match="no room for all of it"), replacing(tmp_path / "a.npy") as temp:
            np.save(temp, np.zeros(1 << 12))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writable(tmp_path / "a.txt")
    with pytest.raises(WriteError, match="absent does not exist"):
        writable(tmp_path / "absent" / "a.txt")
    with pytest.raises(WriteError, match="is a folder"):
        writable(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(WriteError, match="cannot be written to"):
        writable(tmp_path / "a.txt")
