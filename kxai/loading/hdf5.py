"""HDF5 files: checked without reading what they hold, so that no link leads out and no dataset is larger than real."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py

from kxai.errors import LoadError
from kxai.loading import archives, hdf5_texts, texts


def check(file: Path | IO[bytes], path: Path, size: int) -> int:
    """Refuses an HDF5 file that reaches into other files or unpacks to far more than it is.

    Args:
        file: the file, or an open stream of it.
        path: what messages name.
        size: bytes of the file.

    Returns:
        How many bytes its datasets hold.

    Raises:
        LoadError: it does such things, or names an object twice.
        OSError: it is damaged.
    """
    allowed = archives.bound(size)
    with h5py.File(file, "r") as stored, _raw(file) as stream:
        if stored.userblock_size:
            raise _refused(path, "/", "a block of other data")
        total = 0
        for name, item in _items(stored, path):
            _check_attributes(path, name, item, _texts(path, name, stream, size, item), allowed)
            total += _bytes(path, name, item)
    if total > allowed:
        raise archives.too_large(path, total, allowed)
    return total


def _items(root: h5py.File, path: Path) -> Iterator[tuple[str, Any]]:
    """Yields every group and dataset once, by hard links alone."""
    seen, waiting = set(), [("/", root)]
    while waiting:
        name, item = waiting.pop()
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            # Each reader would follow every way to it, and there may be more of them than can be counted.
            raise _refused(path, name, "a second name of an object")
        seen.add(address)
        yield name, item
        if isinstance(item, h5py.Group):
            for key in item:
                inner = f"{name.rstrip('/')}/{key}"
                if type(item.get(key, getlink=True)) is not h5py.HardLink:
                    raise _refused(path, inner, "a link")
                waiting.append((inner, item[key]))


@contextlib.contextmanager
def _raw(file: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    if isinstance(file, Path):
        with open(file, "rb") as stream:
            yield stream
    else:
        yield file


def _texts(path: Path, name: str, stream: IO[bytes], size: int, item: Any) -> dict[str, int]:
    try:
        return hdf5_texts.lengths(stream, size, item)
    except ValueError as error:
        raise _refused(path, name, str(error)) from error


def _check_attributes(path: Path, name: str, item: Any, texts: dict[str, int], allowed: int) -> None:
    for key in item.attrs:
        attribute = item.attrs.get_id(key)
        size = texts.get(key, math.prod(attribute.shape or ()) * attribute.dtype.itemsize)
        if size > allowed:
            raise archives.too_large(path, size, allowed)


def _bytes(path: Path, name: str, item: Any) -> int:
    if not isinstance(item, h5py.Dataset):
        return 0
    if item.is_virtual or item.external:
        raise _refused(path, name, "values that lie in other files")
    if item.dtype.hasobject:
        raise _refused(path, name, "values without a size")
    # Whole chunks are unpacked, however little of them belongs to the array.
    shape = item.shape or ()
    chunks = item.chunks or (1,) * len(shape)
    return item.dtype.itemsize * math.prod(-(-size // chunk) * chunk for size, chunk in zip(shape, chunks, strict=True))


def _refused(path: Path, name: str, received: str) -> LoadError:
    return LoadError(
        f"{path} reaches out of itself, or into itself.",
        expected="weights that lie in the file, each once and of a known size",
        received=f"{received} at {name}",
        fix="do not use this file: Keras does not write such files.",
    )


def read_config(path: Path) -> dict[str, Any] | None:
    """Reads the configuration of the model in an HDF5 file.

    Args:
        path: the file.

    Returns:
        The configuration; None if the file holds none (weights only, or not written by Keras).

    Raises:
        LoadError: the text is no JSON object.
        OSError: the file is not HDF5 or is truncated.
    """
    with h5py.File(path, "r") as stored:
        text = stored.attrs.get("model_config")
    return None if text is None else texts.parse(text, path)


def keras_version(path: Path) -> str:
    """The version of Keras that wrote a file; "" where it does not say.

    Args:
        path: an HDF5 file.
    """
    with h5py.File(path, "r") as stored:
        version = stored.attrs.get("keras_version", "")
    return version.decode() if isinstance(version, bytes) else str(version)


def is_by_order(path: Path) -> bool:
    """Whether a file has weights in the way of Keras 2, layer after layer.

    Args:
        path: an HDF5 file.
    """
    with h5py.File(path, "r") as stored:
        return any(key.startswith("layer_names") for key in stored.get("model_weights", stored).attrs)


def layers_with_weights(path: Path) -> list[str]:
    """The names of the layers that have weights in a file, in the order in which they are read.

    Args:
        path: an HDF5 file with weights layer after layer.
    """
    with h5py.File(path, "r") as stored:
        weights = stored.get("model_weights", stored)
        # Keras cuts long lists into layer_names0, layer_names1, ...
        keys = ["layer_names"] if "layer_names" in weights.attrs else _numbered(weights.attrs)
        names = [name.decode() if isinstance(name, bytes) else str(name) for key in keys for name in weights.attrs[key]]
        return [name for name in names if name in weights and _has_weights(weights[name].attrs)]


def _numbered(attributes: Any) -> list[str]:
    return sorted((key for key in attributes if key.startswith("layer_names")), key=lambda key: int(key[11:]))


def _has_weights(attributes: Any) -> bool:
    return any(key.startswith("weight_names") and len(attributes[key]) for key in attributes)


@contextlib.contextmanager
def with_config(path: Path, config: dict[str, Any], name: str = "model.h5") -> Iterator[Path]:
    """Gives a temporary ``.h5`` file of a model: this configuration, and the weights of a file.

    Args:
        path: an HDF5 file with weights layer after layer, alone or as part of a model.
        config: the configuration.
        name: of the temporary file.

    Yields:
        The path; the file is deleted at the end.
    """
    with tempfile.TemporaryDirectory(prefix="kxai-") as folder:
        copy = Path(folder) / name
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
        with h5py.File(copy, "r+") as stored:
            if "model_weights" not in stored:
                _gather(stored)
            stored.attrs["model_config"] = json.dumps(config).encode()
        yield copy


def _gather(stored: h5py.File) -> None:
    weights = stored.create_group("model_weights")
    for key in [key for key in stored if key != "model_weights"]:
        stored.move(key, f"model_weights/{key}")
    for key, value in stored.attrs.items():
        weights.attrs[key] = value
