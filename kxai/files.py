"""Files on disk: a clear word about one that is missing, and archives of named arrays that are never half written."""

from __future__ import annotations

import difflib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kxai.errors import ArgumentError, LoadError

TEXT = "json"
"""The member of an archive that holds its JSON text."""


def existing(path: str | os.PathLike, what: str) -> Path:
    """Checks that something is at a path.

    Args:
        path: the path.
        what: what it should be, for the message, for example ``"model"``.

    Returns:
        The path.

    Raises:
        LoadError: nothing is there, and the message names files of the same folder with a similar name; or it is a
            device or the like, which may never end.

    Example:
        >>> existing("no/such/model.keras", "model")
        Traceback (most recent call last):
        ...
        kxai.errors.LoadError: There is no model at no/such/model.keras.
          Received: a folder that does not exist, no/such
          Fix: check the path.
    """
    path = Path(path)
    if path.is_file() or path.is_dir():
        return path
    if path.exists():
        raise LoadError(
            f"{path} is no {what}.",
            expected="a file or folder",
            received="a device, pipe or socket",
            fix="copy its content into a file.",
        )
    if not path.parent.is_dir():
        raise LoadError(
            f"There is no {what} at {path}.",
            received=f"a folder that does not exist, {path.parent}",
            fix="check the path.",
        )
    names = sorted(entry.name for entry in path.parent.iterdir())
    near = difflib.get_close_matches(path.name, names, n=5, cutoff=0.5)
    raise LoadError(
        f"There is no {what} at {path}.",
        received=f"a name that is not among the {len(names)} entries of {path.parent}",
        fix=f"did you mean {', '.join(near)}?" if near else "check the path.",
    )


def writable(path: Any, what: str) -> Path:
    """Checks that a file can be where it shall be written, before the work and not after it.

    Args:
        path: as the user gave it.
        what: what the file will be, for the message.

    Returns:
        The path.

    Raises:
        ArgumentError: it is no path, a folder, or in a folder that is not there.

    Example:
        >>> writable("no/such/report.html", "report")
        Traceback (most recent call last):
        kxai.errors.ArgumentError: The report cannot be written to no/such/report.html.
          Expected: a file in a folder that is there
          Received: no folder no/such
          Fix: make the folder first.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"The {what} has no place.", expected="the path of a file", received=repr(path))
    found = Path(path)
    if found.is_dir() or not found.absolute().parent.is_dir():
        raise ArgumentError(
            f"The {what} cannot be written to {found}.",
            expected="a file in a folder that is there",
            received="a folder" if found.is_dir() else f"no folder {found.parent}",
            fix="" if found.is_dir() else "make the folder first.",
        )
    return found


def write_archive(path: str | os.PathLike, text: str, arrays: dict[str, np.ndarray]) -> Path:
    """Writes JSON text and named arrays into one ``.npz`` file, all of it or nothing.

    Args:
        path: where; the name ends in ``.npz``. A file that is there is replaced once the new one is complete.
        text: the JSON text.
        arrays: numeric, boolean or string arrays by name.

    Returns:
        The path.

    Raises:
        ArgumentError: the name does not end in ``.npz``, its folder is not there, or an array would need pickling.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_archive(folder + "/a.npz", "{}", {"x": np.arange(3)})
        ...     read_archive(path, "archive")
        ('{}', {'x': array([0, 1, 2])})
    """
    path = writable(path, "file")
    if path.suffix != ".npz":
        raise ArgumentError(
            "The file name has the wrong ending.", expected="a name that ends in .npz", received=str(path)
        )
    for name, array in arrays.items():
        if array.dtype.kind not in "biufcUS":
            raise ArgumentError(
                f"The array {name} cannot be stored.",
                expected="numbers, booleans or text",
                received=f"dtype {array.dtype}",
            )
    members: dict[str, Any] = {TEXT: np.frombuffer(text.encode(), dtype=np.uint8), **arrays}
    write_whole(path, lambda stream: np.savez(stream, **members))
    return path


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file, all of it or nothing; one that is there is replaced once the new one is complete.

    Args:
        path: where.
        write: writes the content into a stream.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder) / "a.txt", lambda stream: stream.write(b"whole"))
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as stream:
            write(stream)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_archive(path: str | os.PathLike, what: str) -> tuple[str, dict[str, np.ndarray]]:
    """Reads what ``write_archive`` wrote; nothing in the file is executed.

    Args:
        path: the file.
        what: what it should be, for the message.

    Returns:
        The JSON text, and the arrays by name.

    Raises:
        LoadError: the file is missing, truncated, damaged, or no such archive.

    Example:
        >>> read_archive("nowhere/a.npz", "explanation")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        kxai.errors.LoadError: There is no explanation at nowhere/a.npz...
    """
    path = existing(path, what)
    if path.is_dir():
        raise LoadError(f"{path} is no {what}.", expected="an .npz file that kxai wrote", received="a folder")
    try:
        members: dict[str, Any] = _members(path)
        return members.pop(TEXT).tobytes().decode(), members
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise LoadError(
            f"{path} is no {what} that can be read.",
            expected="an .npz file that kxai wrote, complete",
            received=f"{path.stat().st_size} bytes; {type(error).__name__}: {error}",
            fix="write the file again, or copy it again if the copy was interrupted.",
        ) from error


def _members(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise ValueError("this is not a complete zip archive")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def json_copy(config: dict[str, Any]) -> dict[str, Any]:
    """Copies data through JSON, so that it is independent and can be written later; NumPy numbers become plain.

    Args:
        config: text, finite numbers, booleans, None, and lists, tuples and dicts of these.

    Returns:
        The copy, with lists for tuples.

    Raises:
        ArgumentError: something in it is not of these kinds.

    Example:
        >>> json_copy({"epsilon": np.float32(0.5), "shape": (1, 2)})
        {'epsilon': 0.5, 'shape': [1, 2]}
    """

    def number(value: Any) -> Any:
        if isinstance(value, (np.generic, np.ndarray)):
            return value.tolist()
        raise TypeError(f"{type(value).__name__} {value!r}")

    try:
        return json.loads(json.dumps(config, default=number, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            "config cannot be written as JSON.",
            expected="text, numbers that are finite, booleans, None, and lists and dicts of these",
            received=str(error),
        ) from error
