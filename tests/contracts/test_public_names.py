"""Names that load on first use: what type checkers see, what `__all__` says and what is found are the same."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

LAZY = ["firstlight", "firstlight.calibrate", "firstlight.restore"]
ROOMS = ["firstlight", *(f"firstlight.{r}" for r in ("calibrate", "domains", "io", "measure", "recipe", "restore", "simulate"))]


def source(module: ModuleType) -> Path:
    assert module.__file__ is not None
    return Path(module.__file__)


def seen_by_type_checkers(module: ModuleType) -> dict[str, str]:
    """{name: module it is imported from} of every import at the top level and under TYPE_CHECKING."""
    tree = ast.parse(source(module).read_text())
    blocks = [tree.body, *(n.body for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
    imports = [n for block in blocks for n in block if isinstance(n, ast.ImportFrom)]
    return {a.asname or a.name: n.module or "" for n in imports for a in n.names}


@pytest.mark.parametrize("room", LAZY)
def test_type_checkers_see_what_loads(room: str) -> None:
    module = importlib.import_module(room)
    own = {k: v for k, v in seen_by_type_checkers(module).items() if v.split(".")[0] == "firstlight"}
    loads = {k: f"{room}.{v}" for k, v in module._NAMES.items()} | dict.fromkeys(getattr(module, "_ROOMS", ()), "firstlight")
    assert own == loads
    assert sorted(module.__all__) == sorted({*loads, *({"__version__"} if room == "firstlight" else ())})


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_there_and_documented(room: str) -> None:
    module = importlib.import_module(room)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing) or inspect.isclass(thing) or inspect.ismodule(thing):
            assert inspect.getdoc(thing), f"{room}.{name} has no docstring"
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


def test_users_get_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "user.py"
    script.write_text(
        "import firstlight as fl\n"
        "frame: int = fl.read('a.fits')\n"
        "electrons: int = fl.calibrate.to_electrons(fl.read('a.fits'))\n"
        "fl.restore.nonlocal_means(fl.read('a.fits'), force=1.0)\n"
        "fl.no_such_name\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml"), str(script)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    wrong = [line for line in done.stdout.splitlines() if "user.py:" in line and ": error:" in line]
    assert [line.rpartition("[")[2] for line in wrong] == ["assignment]", "assignment]", "call-arg]", "attr-defined]"], (
        done.stdout
    )
