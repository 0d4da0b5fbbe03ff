"""constraints.txt: the versions installed here of what firstlight and its extras need, and of nothing else.

python scripts/constraints.py, in an environment that holds '.[test,lint,docs]' and passes `make test`
"""

import tomllib
from importlib.metadata import distribution, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HEAD = """\
# Versions that the tests pass with, on Python 3.11: the closure of pyproject.toml's dependencies and extras as installed,
# written by scripts/constraints.py. Ranges are in pyproject.toml; these are for a repeatable environment.
"""


def closure(texts: list[str]) -> dict[str, str]:
    """{distribution: version} of these requirements and of everything that they need in turn."""
    found: dict[str, str] = {}
    todo, seen = [Requirement(t) for t in texts], set()
    while todo:
        need = todo.pop()
        key = canonicalize_name(need.name), frozenset(need.extras)
        if key in seen:
            continue
        seen.add(key)
        found[key[0]] = Version(distribution(need.name).version).public
        inner = [Requirement(t) for t in requires(need.name) or []]
        todo += [r for r in inner if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in need.extras | {""})]
    return found


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    pins = closure([*project["dependencies"], *(text for extra in extras for text in extra)])
    (root / "constraints.txt").write_text(HEAD + "".join(f"{name}=={version}\n" for name, version in sorted(pins.items())))
