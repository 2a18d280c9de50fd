"""The code has the structure that its map, the table in kxai/README.md, shows.

Each unit, a module or a package directly in kxai, stands on a floor and imports only from floors below.
"""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path

import pytest

KXAI = Path(__file__).parent.parent / "kxai"
FILES = sorted(path.relative_to(KXAI).as_posix() for path in KXAI.rglob("*.py"))

MAX_LINES = 400
KERAS_PRIVATES = {"graph/trace.py"}  # the one reader of what Keras does not promise to keep
TENSORFLOW = "backend/"
# Imports between units of one floor: (importing, imported) -> reason.
SIDEWAYS = {("arguments.py", "errors.py"): "every floor checks its arguments, and a check is the error that it raises"}


def read_map(text: str) -> dict[str, int]:
    """Read the rows ``| floor | `module` | what |`` of a Markdown table: path of a module or package -> floor."""
    return {path: int(floor) for floor, path in re.findall(r"^\|\s*(\d+)\s*\|\s*`([\w./]+)`\s*\|", text, re.MULTILINE)}


MAP = read_map((KXAI / "README.md").read_text(encoding="utf-8"))


def unit_of(path: str) -> str:
    """Name the unit that a file belongs to: ``graph/`` for ``graph/trace.py``."""
    return re.match(r"[^/]+/?", path)[0]


def imports(source: str, path: str) -> set[str]:
    """Return all modules and names that a file imports, absolute and dotted, in whatever place it does so."""
    package = ["kxai", *Path(path).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *filter(None, [node.module])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def imported_units(names: set[str]) -> set[str]:
    """Translate ``kxai.graph.trace.Tracer`` to ``graph/``, ``kxai.errors`` to ``errors.py``, ``kxai.LRP`` to kxai."""
    units = set()
    for name in names:
        if name.split(".")[0] == "kxai":
            second = [*name.split("."), ""][1]
            places = {f"{second}/": KXAI / second, f"{second}.py": KXAI / f"{second}.py"}
            units |= {unit for unit, place in places.items() if second and place.exists()} or {"__init__.py"}
    return units


def misplaced(path: str, source: str, floors: dict[str, int], sideways=SIDEWAYS) -> list[str]:
    """Return the units that a file imports though they are not on a floor below its own."""
    own = unit_of(path)
    others = imported_units(imports(source, path)) - {own}
    # What the map does not show is above everything.
    height = {unit: floors.get(unit, math.inf) for unit in others | {own}}
    return sorted(other for other in others if height[other] >= height[own] and (own, other) not in sideways)


def private_keras(source: str, path: str) -> list[str]:
    """Return what a file takes from Keras though Keras does not export it."""
    dotted = {name for name in imports(source, path) if name.split(".")[0] == "keras"}
    dotted |= {
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and re.match(r"keras\.[\w.]+$", ast.unparse(node))
    }
    return sorted(name for name in dotted if re.search(r"\.(src|_(?!_)\w+)(\.|$)", name))


def read(path: str) -> str:
    return (KXAI / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES)
def test_imports_come_from_below(path):
    assert misplaced(path, read(path), MAP) == []


@pytest.mark.parametrize("path", FILES)
def test_tensorflow_stays_in_the_backend(path):
    uses = {name for name in imports(read(path), path) if name.split(".")[0] == "tensorflow"}
    assert path.startswith(TENSORFLOW) or not uses


@pytest.mark.parametrize("path", FILES)
def test_keras_privates_stay_in_the_tracer(path):
    assert path in KERAS_PRIVATES or private_keras(read(path), path) == []


@pytest.mark.parametrize("path", FILES)
def test_files_are_short(path):
    lines = read(path).count("\n")
    assert lines <= MAX_LINES


@pytest.mark.parametrize("path", FILES)
def test_map_mentions(path):
    # A package's row speaks for its __init__.py.
    assert (path.removesuffix("__init__.py") or path) in MAP


@pytest.mark.parametrize("path", MAP)
def test_map_is_true(path):
    assert (KXAI / path / "__init__.py" if path.endswith("/") else KXAI / path).is_file()
    assert MAP[path] == MAP[unit_of(path)]


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        ("errors.py", "from kxai.backend import vjp", ["backend/"]),
        ("errors.py", "import kxai.backend", ["backend/"]),
        ("errors.py", "def f():\n    from kxai import version", ["version.py"]),
        ("errors.py", "from . import backend", ["backend/"]),
        ("backend/tensorflow.py", "from .. import errors\nfrom ..errors import KxaiError", []),
        ("backend/tensorflow.py", "from . import compile\nfrom kxai.backend import vjp", []),
        ("backend/tensorflow.py", "import kxai", ["__init__.py"]),
        ("backend/tensorflow.py", "from kxai import LRP", ["__init__.py"]),
        ("__init__.py", "from kxai.backend import vjp\nimport numpy", []),
    ],
)
def test_misplaced_imports_are_seen(path, source, found):
    floors = {"errors.py": 0, "version.py": 0, "backend/": 1, "__init__.py": 9}
    assert misplaced(path, source, floors) == found


def test_listed_sideways_imports_are_allowed():
    floors = {"errors.py": 0, "version.py": 0}
    assert misplaced("errors.py", "import kxai.version", floors, {("errors.py", "version.py"): "a reason"}) == []


@pytest.mark.parametrize(
    "source",
    [
        "import keras.src.ops",
        "from keras.src import tree",
        "from keras import _tf_keras",
        "import keras\nkeras.src.utils",
    ],
)
def test_private_keras_is_seen(source):
    assert private_keras(source, "errors.py")


def test_public_keras_is_fine():
    assert private_keras("import keras\nfrom keras import ops\nkeras.__version__\nkeras.ops.abs", "errors.py") == []
