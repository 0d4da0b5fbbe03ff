"""Every ```bash and ```python block of the README and the user pages runs as it stands, in a folder of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.M | re.S)
CASES = [
    pytest.param(m[1], m[2], id=f"{page.name}-{i}") for page in PAGES for i, m in enumerate(BLOCK.finditer(page.read_text()))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from firstlight.sample import write_sample

    here = tmp_path_factory.mktemp("docs")
    write_sample(here / "sample")
    return here


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_block_runs(kind: str, text: str, folder: Path) -> None:
    tools = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", text] if kind == "bash" else [sys.executable, "-W", "error", "-c", text]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_the_console_script_is_installed() -> None:
    assert shutil.which("firstlight", path=str(Path(sys.executable).parent))


def test_the_command_reference_is_fresh() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "reference.py"), "--check"], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
