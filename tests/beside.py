"""Files that lie beside the repository, in ``../shared``; tests that need them skip where they are absent."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
import pytest

FOLDER = Path(__file__).resolve().parent.parent.parent / "shared"


def existing(*parts: str) -> Path:
    """A file; skips the test where it is absent, and where it is a model of a newer Keras than the installed one."""
    path = FOLDER.joinpath(*parts)
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            by = json.loads(archive.read("metadata.json"))["keras_version"]
        if release(by) > release(keras.__version__):
            pytest.skip(f"{path.name} was written by Keras {by}, and Keras {keras.__version__} is older")
    return path


def release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
