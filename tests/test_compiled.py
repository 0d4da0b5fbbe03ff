"""Where compiled loops are kept; what becomes of them is tests/operators/test_cache.py's matter."""

import subprocess
import sys
from pathlib import Path

import pytest

from firstlight import compiled


def test_importing_the_package_stays_light() -> None:
    code = "import sys, firstlight; print(*sorted({'numba', 'scipy', 'tempfile', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=_paths())
    assert done.stdout.strip() == ""


def _paths() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(p for p in sys.path if p)}


@pytest.mark.parametrize("kept", ["installation", "user", "neither", "named"])
def test_only_where_neither_place_can_be_written(kept: str, tmp_path: Path, monkeypatch) -> None:
    package, home = tmp_path / "site", tmp_path / "home"
    for room in compiled.ROOMS:
        (package / room).mkdir(parents=True)
        if kept != "installation":
            (package / room / "__pycache__").touch()
    home.touch() if kept != "user" else home.mkdir()
    monkeypatch.setattr(compiled, "__file__", str(package / "compiled.py"))
    monkeypatch.setattr(compiled, "_of_user", lambda: home / "numba")
    monkeypatch.setattr(compiled.sys, "modules", {k: v for k, v in sys.modules.items() if k != "numba"})
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    if kept == "named":
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    compiled.find_room()
    folder = compiled.os.environ.get("NUMBA_CACHE_DIR")
    if kept == "neither":
        assert Path(folder).is_dir()
        monkeypatch.setenv("NUMBA_CACHE_DIR", folder)  # what monkeypatch takes back at the end
        return
    assert folder == (str(tmp_path / "mine") if kept == "named" else None)
