"""Writes docs/cli.md from `--help` of every command; --check fails where the page is stale."""

import io
import sys
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console

from firstlight.cli import app

PAGE = Path(__file__).with_name("cli.md")


def render() -> str:
    parts = ["# Command line\n", "Made from `--help` by `docs/reference.py`.\n"]
    names = sorted(n for n in app if not n.startswith("-"))
    inner = [f"tiles {n}" for n in sorted(app["tiles"]) if not n.startswith("-")]
    for name in ["", *names, *inner]:
        text = io.StringIO()
        with redirect_stdout(text):
            app.help_print(name.split(), console=Console(file=text, width=100, force_terminal=False))
        body = "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())
        parts.append(f"## {('firstlight ' + name).strip()}\n\n```text\n{body}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    page = render()
    if "--check" not in sys.argv:
        PAGE.write_text(page)
    elif not PAGE.exists() or PAGE.read_text() != page:
        sys.exit("docs/cli.md is stale: run `python docs/reference.py`")
