"""A version's folder that is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kxai.arguments import check_integer
from kxai.errors import ExportError

LARGEST = 2**63 - 1
"""Servers hold versions in 64 bits and pass over folders of larger numbers."""


@contextlib.contextmanager
def new_version(base: str | os.PathLike, version: int, overwrite: bool) -> Iterator[Path]:
    """A folder to be filled, which becomes ``base/version`` when the block ends without an error.

    It is made beside its place, under a name that servers do not take for a version.

    Args:
        base: folder of all versions, made if needed, and removed again if the block fails.
        version: of the model, 0 to LARGEST.
        overwrite: whether a version that is there is replaced.

    Raises:
        ArgumentError: the version is no such number.
        ExportError: the version is there, or ``base`` is a file.
    """
    base = Path(base)
    place = base / str(check_integer("version", version, least=0, most=LARGEST))
    if base.exists() and not base.is_dir():
        raise ExportError(f"{base} is a file.", expected="a folder for the versions of a model, or none yet")
    if os.path.lexists(place) and not overwrite:
        raise _taken(place)
    made = _make(base)
    part = Path(tempfile.mkdtemp(prefix=f".{version}.", suffix=".part", dir=base))
    try:
        filled = part / "new"
        yield filled
        if os.path.lexists(place):
            if not overwrite:
                raise _taken(place)  # by somebody else, meanwhile
            os.rename(place, part / "old")
        try:
            os.rename(filled, place)
        except OSError:
            if os.path.lexists(part / "old"):
                os.rename(part / "old", place)
            raise
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # something else is in it by now
                folder.rmdir()
        raise
    shutil.rmtree(part, ignore_errors=True)


def _taken(place: Path) -> ExportError:
    return ExportError(
        f"{place} is there already.",
        expected="a version that is not there yet",
        fix="choose another version, or replace this one with overwrite=True (kxai export: --overwrite).",
    )


def _make(folder: Path) -> list[Path]:
    """Makes a folder and those above it; returns what was made, the innermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
