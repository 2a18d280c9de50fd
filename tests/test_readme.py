"""The Python blocks of README.md run as they stand, each by itself."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def python_blocks(text: str) -> list[tuple[int, str]]:
    """Return the fenced ``python`` blocks of a Markdown text, each with the number of its first line."""
    return [
        (text.count("\n", 0, match.start(1)) + 1, match[1])
        for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


BLOCKS = python_blocks(README.read_text(encoding="utf-8")) if README.exists() else []


def test_readme_has_examples():
    assert BLOCKS


@pytest.mark.parametrize(("line", "code"), BLOCKS, ids=[f"line{line}" for line, _ in BLOCKS])
def test_block(line, code, tmp_path, monkeypatch):
    if "import keras_hub" in code:
        pytest.importorskip("keras_hub", reason="KerasHub is not installed")
    # Examples may write files, and name those of the model zoo as one does in the repository.
    (tmp_path / "model_zoo").symlink_to(ROOT / "model_zoo")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    # Empty lines in front make a traceback show the line of the README.
    module = types.ModuleType("readme")  # dataclasses look their module up
    monkeypatch.setitem(sys.modules, "readme", module)
    exec(compile("\n" * (line - 1) + code, README, "exec"), vars(module))
    plt.close("all")


def test_blocks_are_found():
    text = "text\n```python\na = 1\n```\n```bash\nls\n```\n```python\nb = 2\nc = 3\n```\n"
    assert python_blocks(text) == [(3, "a = 1\n"), (9, "b = 2\nc = 3\n")]


def test_method_table_is_complete():
    import kxai

    rows = [line.split("|")[1] for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert named == set(kxai.methods())
