"""The ```bash and ```python blocks of the README and of every user page run as they stand, a page from top to bottom."""

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
TEXTS = {page.name: BLOCK.findall(page.read_text()) for page in PAGES}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from firstlight.sample import write_sample

    here = tmp_path_factory.mktemp("docs") / "sample"
    write_sample(here)
    return here


@pytest.mark.parametrize("page", [name for name, blocks in TEXTS.items() if blocks])
def test_page_runs(page: str, sample: Path, tmp_path: Path) -> None:
    shutil.copytree(sample, tmp_path / "sample")
    tools = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    for kind, text in TEXTS[page]:
        command = ["bash", "-euo", "pipefail", "-c", text] if kind == "bash" else [sys.executable, "-W", "error", "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_the_console_script_is_installed() -> None:
    assert shutil.which("firstlight", path=str(Path(sys.executable).parent))


def test_the_command_reference_is_fresh() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "reference.py"), "--check"], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
