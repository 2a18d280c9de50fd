"""Files on disk: a clear word about one that is missing, and archives of named arrays that are never half written."""

from __future__ import annotations

import difflib
import json
import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO

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
        The JSON text, and the arrays by name, read-only.

    Raises:
        LoadError: the file is missing, truncated, damaged, no such archive, or holds more than it is large.

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
        # What kxai writes is not compressed.
        members = read_arrays(path, path.stat().st_size)
        return members.pop(TEXT).tobytes().decode(), members
    except UNREADABLE as error:
        raise LoadError(
            f"{path} is no {what} that can be read.",
            expected="an .npz file that kxai wrote, complete",
            received=f"{path.stat().st_size} bytes; {type(error).__name__}: {error}",
            fix="write the file again, or copy it again if the copy was interrupted.",
        ) from error


UNREADABLE = (ValueError, KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
"""What reading a damaged ``.npz`` or ``.npy`` file raises."""


def read_arrays(path: Path, limit: int | None = None) -> dict[str, np.ndarray]:
    """Reads the arrays of an ``.npz`` file, none of them larger than the file says and holds.

    Args:
        path: the file.
        limit: how many bytes they may hold together; default any.

    Returns:
        The arrays by name, read-only.

    Raises:
        ValueError: the file holds other things, more than is allowed, or less than it says. Of a damaged file any of
            ``UNREADABLE``.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("this is not a complete zip archive")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        if limit is not None and total > limit:
            raise ValueError(f"it unpacks to {total} bytes")
        arrays = {}
        for entry in entries:
            with archive.open(entry) as stream:
                arrays[entry.filename.removesuffix(".npy")] = read_array(stream, entry.file_size)
    return arrays


def read_array(stream: IO[bytes], size: int) -> np.ndarray:
    """Reads an array as ``.npy`` files hold it; nothing is allocated for one that is not there.

    Args:
        stream: where it begins.
        size: bytes from there to the end.

    Returns:
        The array, read-only.

    Raises:
        ValueError: these are no such bytes, more or fewer than the array has, or they would have to be unpickled.

    Example:
        >>> import io
        >>> stream = io.BytesIO()
        >>> np.save(stream, np.arange(3))
        >>> stream.seek(0)
        0
        >>> read_array(stream, len(stream.getvalue()))
        array([0, 1, 2])
    """
    begin, version = stream.tell(), np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"an array of format {version}")
    shape, _, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("objects, which would have to be unpickled")
    held = begin + size - stream.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} in {held} bytes")
    stream.seek(begin)
    array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    array.flags.writeable = False
    return array


_HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


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
