"""One function per format: checked first, then built, then given its weights."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras

from kxai.backend import Checkpoint, stored_bytes
from kxai.errors import LoadError
from kxai.loading import allowed, archives, failures, hdf5, keras2, metadata, sizes, texts, trees, weights
from kxai.loading.request import Request


def archive(request: Request) -> Any:
    """Loads a ``.keras`` file of Keras 3 or Keras 2.

    Args:
        request: what is asked for.

    Raises:
        LoadError: it is refused or cannot be loaded.
    """
    path = request.path
    with failures.of_archive(path):
        archives.check(path, request.safe_mode)
        config = texts.parse(archives.read(path, archives.CONFIG), path)
        about = texts.parse(_optional(path, archives.METADATA) or b"{}", path)
    by = str(about.get("keras_version", ""))
    if keras2.is_keras2(config, by):
        return _archive_of_keras2(request, config)
    with failures.told(request, "keras", by):
        _check(request, config, lambda: _expanded(path))
        return keras.saving.load_model(path, custom_objects=request.objects, compile=False, safe_mode=request.safe_mode)


def _optional(path: Path, name: str) -> bytes | None:
    try:
        return archives.read(path, name)
    except KeyError:
        return None


def _expanded(path: Path) -> int:
    """Bytes of weights in an archive, whose HDF5 file is checked on the way."""
    with failures.of_archive(path):
        # Without it Keras would look for weights in other formats, which are not checked.
        content = archives.read(path, archives.WEIGHTS)
    hdf5.check(io.BytesIO(content), path, path.stat().st_size)
    with zipfile.ZipFile(path) as entries:
        return sum(entry.file_size for entry in entries.infolist())


def _archive_of_keras2(request: Request, config: dict[str, Any]) -> Any:
    with failures.of_archive(request.path):
        content = archives.read(request.path, archives.WEIGHTS)
    size = request.path.stat().st_size
    return _with_tree(request, config, io.BytesIO(content), size)


def _with_tree(request: Request, config: dict[str, Any], file: Path | io.BytesIO, size: int) -> Any:
    """Builds a model of either Keras and takes its weights from a file in the layout of Keras 2.14."""
    with failures.told(request, "keras"):
        new = _modern(config)
        _check(request, new, lambda: hdf5.check(file, request.path, size))
        _check_words(new, request.path)
        model = _build(request, new)
        with h5py.File(file, "r") as stored:
            weights.assign(model, trees.from_hdf5(stored, config), request.path)
        return model


def file(request: Request) -> Any:
    """Loads an ``.h5`` file of Keras 3, Keras 2 or older.

    Args:
        request: what is asked for.

    Raises:
        LoadError: it is refused or cannot be loaded.
    """
    path = request.path
    with failures.told(request, "hdf5"):
        held = hdf5.check(path, path, path.stat().st_size) if request.safe_mode else 0
        config = hdf5.read_config(path)
        if config is None:
            raise failures.weights_only(path)
        by = hdf5.keras_version(path)
    with failures.told(request, "hdf5", by):
        old = keras2.is_keras2(config, by or "2.")
        return _by_order(request, keras2.modern(config) if old else keras2.repair(config), config, path, held)


def _by_order(request: Request, new: dict[str, Any], old: dict[str, Any], path: Path, held: int) -> Any:
    """Loads a configuration together with weights that lie layer after layer, by Keras' own reader of such files."""
    _check(request, new, lambda: held)
    _check_words(new, request.path)
    with _unchanged(path) if new == old else hdf5.with_config(path, new) as readable:
        model = keras.saving.load_model(
            readable, custom_objects=request.objects, compile=False, safe_mode=request.safe_mode
        )
    _check_order(model, path)
    return model


def _check_order(model: Any, path: Path) -> None:
    # Keras reads such weights by order alone, and takes layers of equal shapes for each other.
    if not isinstance(model, keras.Model):
        return
    wanted = [layer.name for layer in model.layers if layer.weights]
    found = [keras2.plain(name) for name in hdf5.layers_with_weights(path)]
    if wanted != found and sorted(wanted) == sorted(found):
        raise LoadError(
            f"{path} holds the weights in another order than the model has its layers.",
            expected=", ".join(wanted[:20]),
            received=", ".join(found[:20]),
            fix="save the model again: model.save('name.keras').",
        )


def _check_words(config: dict[str, Any], path: Path) -> None:
    if without := allowed.without_words(config):
        raise LoadError(
            f"{path} does not hold the vocabulary of {', '.join(without[:5])}.",
            expected="a vocabulary in the configuration",
            received="none: what adapt() found lies elsewhere, where only .keras files of Keras 3 say it",
            fix="make the layer with vocabulary=layer.get_vocabulary(), or save the model as name.keras with Keras 3."
            + (" As a black box, without its layers: endpoint='serving_default'." if path.is_dir() else ""),
        )


@contextmanager
def _unchanged(path: Path) -> Iterator[Path]:
    yield path


def text(request: Request, given: Path | None) -> Any:
    """Loads a ``.json`` file of a configuration together with a file of weights.

    Args:
        request: what is asked for.
        given: the weights; None looks for them beside the configuration.

    Raises:
        LoadError: there are no weights, or something is refused or cannot be loaded.
    """
    path = request.path
    found = given or _beside(path)
    config = texts.parse(path.read_bytes(), path)
    if found.suffix.lower() not in (".h5", ".hdf5") or not h5py.is_hdf5(found):
        raise LoadError(
            f"{found} is no file of weights.",
            expected="HDF5, with a name that ends in .weights.h5, .h5 or .hdf5",
            received=f"{found.stat().st_size} bytes",
            fix="save the weights with model.save_weights('name.weights.h5').",
        )
    size = found.stat().st_size
    with failures.told(request, "json"):
        held = hdf5.check(found, found, size) if request.safe_mode else 0
        if hdf5.is_by_order(found):
            return _by_order(request, _modern(config), {}, found, held)
        with h5py.File(found, "r") as stored:
            old = trees.is_keras2(stored)
        if old:
            return _with_tree(request, config, found, size)
        return _with_archive(request, _modern(config), found, held)


def _with_archive(request: Request, config: dict[str, Any], found: Path, held: int) -> Any:
    _check(request, config, lambda: held)
    _check_words(config, found)
    model = _build(request, config)
    weights.check_counts(model, found)
    model.load_weights(found)
    return model


def _beside(path: Path) -> Path:
    stem = path.with_suffix("")
    names = [f"{stem}.weights.h5", f"{stem}.h5", str(path.parent / "model.weights.h5")]
    for name in dict.fromkeys(names):
        if Path(name).is_file():
            return Path(name)
    raise LoadError(
        f"{path} is a configuration without weights.",
        expected=f"one of {', '.join(Path(name).name for name in dict.fromkeys(names))} beside it, or weights=",
        received="none of them",
        fix="kxai.load('model.json', weights='model.weights.h5').",
    )


def described(request: Request) -> Any | None:
    """Rebuilds a SavedModel that Keras 2 described layer by layer.

    Args:
        request: what is asked for.

    Returns:
        The model; None if the folder describes no functional or sequential model.

    Raises:
        LoadError: it is refused or cannot be rebuilt.
    """
    found = metadata.read(request.path)
    if found is None:
        return None
    with failures.told(request, "saved_model"):
        new = keras2.modern(found.config)
        checkpoint = Checkpoint(request.path)
        _check(request, new, lambda: stored_bytes(request.path))
        _check_words(new, request.path)
        model = _build(request, new)
        weights.assign(model, trees.from_checkpoint(checkpoint, found.names), request.path)
        return model


def _modern(config: dict[str, Any]) -> dict[str, Any]:
    return keras2.modern(config) if keras2.is_keras2(config, str(config.get("keras_version", ""))) else config


def _check(request: Request, config: dict[str, Any], held: Callable[[], int]) -> None:
    """In safe mode, everything that can be known of a model before it is built."""
    if request.safe_mode:
        allowed.check(config, request)
        sizes.check(config, held(), request)


def _build(request: Request, config: dict[str, Any]) -> Any:
    return request.build({**config, "compile_config": None})
