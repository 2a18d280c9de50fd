"""The examples in the docstrings run and give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parent.parent
# __main__.py starts the command line when it is imported.
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in ("kxai", "model_zoo")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__main__.py"
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    # Examples may write files, and name those of the model zoo as one does in the repository.
    (tmp_path / "model_zoo").symlink_to(ROOT / "model_zoo")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(importlib.import_module(name), optionflags=flags)
    plt.close("all")
    assert result.failed == 0
