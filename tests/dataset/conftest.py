"""Fixtures of the data-set tests: the synthetic trees of `trees.py`."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("firstlight_test_trees", Path(__file__).with_name("trees.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TREES = _load()


@pytest.fixture(scope="session")
def tree() -> ModuleType:
    """The module of tree makers: tree.sid(root, sony=, fuji=), tree.biosr(root, ...), tree.hla(root, ...), tree.w2s(root)."""
    return TREES
