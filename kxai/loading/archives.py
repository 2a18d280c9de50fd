"""``.keras`` files as zip archives: read within bounds, and nothing is ever written to where an entry points."""

from __future__ import annotations

import stat
import zipfile
from collections import Counter
from pathlib import Path

from kxai.errors import LoadError

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
FLOOR, RATIO = 16 * 2**20, 10
"""A file may expand to FLOOR bytes plus RATIO times its own size; what Keras writes is not compressed at all."""


def check(path: Path, safe_mode: bool) -> None:
    """Refuses an archive that is not made as Keras makes one.

    Args:
        path: the archive.
        safe_mode: whether its size when unpacked is bounded, too.

    Raises:
        LoadError: an entry points out of the archive, is a link or there twice, or the archive is a bomb.
        zipfile.BadZipFile: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if odd := [entry.filename for entry in entries if _leaves(entry.filename) or _is_link(entry)]:
        raise _refused(path, "entries that point out of the archive", "plain names below the archive's root", odd)
    if twice := [name for name, count in Counter(entry.filename for entry in entries).items() if count > 1]:
        raise _refused(path, "entries that are there twice", "every name once", twice)
    expanded = sum(entry.file_size for entry in entries)
    if safe_mode and expanded > (allowed := bound(path.stat().st_size)):
        raise too_large(path, expanded, allowed)


def read(path: Path, name: str) -> bytes:
    """Reads one entry, at most as many bytes as it declares.

    Args:
        path: the archive, checked.
        name: of the entry.

    Raises:
        KeyError: there is no such entry.
        zipfile.BadZipFile: it is damaged.
    """
    with zipfile.ZipFile(path) as archive, archive.open(name) as stream:
        return stream.read(archive.getinfo(name).file_size)


def bound(size: int) -> int:
    """How many bytes a file of this size may expand to.

    Args:
        size: of the file.
    """
    return FLOOR + RATIO * size


def too_large(path: Path, expanded: int, allowed: int) -> LoadError:
    """The error of a file that unpacks to far more than it is.

    Args:
        path: the file.
        expanded: bytes that it would unpack to.
        allowed: bytes that are allowed.
    """
    return LoadError(
        f"{path} unpacks to far more than a model of its size holds.",
        expected=f"at most {allowed} bytes from a file of {path.stat().st_size}",
        received=f"{expanded} bytes",
        fix="do not use this file, unless you trust its origin: then safe_mode=False loads it.",
    )


def _leaves(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name


def _is_link(entry: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(entry.external_attr >> 16)


def _refused(path: Path, what: str, expected: str, names: list[str]) -> LoadError:
    return LoadError(
        f"{path} has {what}.",
        expected=expected,
        received=", ".join(map(repr, names[:5])),
        fix="do not use this file: Keras does not write such archives.",
    )
