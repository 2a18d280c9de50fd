"""Loading a model from a file, with one kind of error that says what the file is and what can be done about it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from kxai import files, legacy_h5
from kxai.errors import LoadError

_ZIP, _HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
_KERAS2_OPERATIONS = {"TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "TensorFlowOpLayer"}
_ENDINGS = {".keras": "keras", ".h5": "hdf5", ".hdf5": "hdf5"}


def load(
    path: str | os.PathLike, safe_mode: bool = True, custom_objects: Mapping[str, Any] | None = None
) -> keras.Model:
    """Loads a model for explanation: ``.keras``, or ``.h5`` of Keras 3 or Keras 2. It is not compiled.

    Settings that Keras 2 wrote and Keras 3 refuses, and that change nothing, are dropped on the way (``groups=1``
    of a depthwise convolution, ``time_major=False`` of a recurrent layer).

    Args:
        path: the file.
        safe_mode: True (default) refuses files whose ``Lambda`` layers carry Python code, because loading would run
            it. False only for files whose origin you trust.
        custom_objects: your own layers and functions by the full name under which they were saved, for example
            ``"Package>Name"`` for registered ones; default none.

    Returns:
        The model.

    Raises:
        LoadError: the file is missing, truncated, no Keras model, a SavedModel folder, holds a Lambda layer under
            ``safe_mode``, or names a custom object that is not given. The original error is its cause.

    Example:
        >>> import tempfile, keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="toy")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(folder + "/toy.keras")
        ...     load(folder + "/toy.keras").name
        'toy'
    """
    path = files.existing(path, "model")
    kind = _kind(path)
    try:
        with legacy_h5.loadable(path) if kind == "hdf5" else contextlib.nullcontext(path) as readable:
            model = keras.saving.load_model(
                readable, custom_objects=dict(custom_objects or {}), compile=False, safe_mode=safe_mode
            )
    except LoadError:
        raise
    except Exception as error:  # Keras raises nearly every kind of exception here; all are told in one way.
        raise _explained(path, kind, error, safe_mode, custom_objects or {}) from error
    if not isinstance(model, keras.Model):
        raise LoadError(f"{path} holds no model.", expected="a keras.Model", received=f"a saved {type(model).__name__}")
    return model


def _kind(path: Path) -> str:
    """Returns "keras" or "hdf5" if ending and content of the file agree."""
    if path.is_dir():
        raise _folder_error(path)
    with open(path, "rb") as stream:
        begin = stream.read(8)
    content = "keras" if begin.startswith(_ZIP) else "hdf5" if begin == _HDF5 else None
    kind = _ENDINGS.get(path.suffix.lower())
    if content is not None and content == kind:
        return kind
    if content is not None:
        endings = " or ".join(ending for ending, of in _ENDINGS.items() if of == content)
        raise LoadError(
            f"{path} does not have the ending of its content.",
            expected=f"a name that ends in {endings}, because the content is {_named(content)}",
            received=f"the ending {path.suffix!r}",
            fix="rename the file if it is a Keras model.",
        )
    raise LoadError(
        f"{path} is no Keras model.",
        expected="a .keras file (a zip archive) or an .h5 file (HDF5)",
        received=f"{path.stat().st_size} bytes that are neither",
        fix="save the model with model.save('name.keras').",
    )


def _named(content: str) -> str:
    return "a zip archive" if content == "keras" else "HDF5"


def _folder_error(path: Path) -> LoadError:
    if (path / "saved_model.pb").is_file():
        return LoadError(
            f"{path} is a SavedModel, which holds a compiled graph and no layers.",
            expected="a .keras or .h5 file",
            received="a SavedModel folder",
            fix="save the model again with model.save('name.keras') where it was built. Only if that cannot be done, "
            f"wrap it: keras.layers.TFSMLayer({str(path)!r}, call_endpoint='serving_default') is one layer that can "
            "be run and differentiated, but no layer inside it has a rule.",
        )
    models = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in _ENDINGS)
    return LoadError(
        f"{path} is a folder, not a model.",
        expected="a .keras or .h5 file",
        received="a folder without saved_model.pb",
        fix=f"take one of its models: {', '.join(models[:10])}." if models else "give the path of the file.",
    )


def _explained(
    path: Path, kind: str, error: Exception, safe_mode: bool, custom_objects: Mapping[str, Any]
) -> LoadError:
    try:
        config = _read_config(path, kind)
    except (OSError, zipfile.BadZipFile, EOFError) as broken:
        return LoadError(
            f"{path} is damaged.",
            expected=f"a complete {path.suffix} file",
            received=f"{path.stat().st_size} bytes; {_first_line(broken)}",
            fix="copy or download the file again; it was probably cut off.",
        )
    except (KeyError, ValueError) as broken:
        return LoadError(
            f"{path} is {_named(kind)} without a Keras model in it.",
            expected="config.json in the archive",
            received=_first_line(broken),
            fix="save the model with model.save('name.keras').",
        )
    if config is None:
        return LoadError(
            f"{path} holds no model, at most weights.",
            expected="an .h5 file written by model.save",
            received="HDF5 without the attribute model_config",
            fix="build the model in code and call model.load_weights(path), then give kxai the model.",
        )
    if safe_mode and (lambdas := sorted(set(_lambdas(config)))):
        return LoadError(
            f"{path} holds Python code that loading would run.",
            expected="no Lambda layers in safe mode",
            received=f"Lambda layers {', '.join(lambdas)}",
            fix="only if you trust the origin of this file: load it with safe_mode=False. Better: replace the Lambda "
            "layers by keras.ops or by a layer of your own.",
        )
    return _unreadable(path, config, error, custom_objects)


def _unreadable(path: Path, config: Any, error: Exception, custom_objects: Mapping[str, Any]) -> LoadError:
    if "keras.src.engine" in str(error):
        return LoadError(
            f"{path} was saved by Keras 2, whose .keras files Keras 3 cannot read.",
            expected="a .keras file of Keras 3, or an .h5 file of either",
            received=_first_line(error),
            fix="load it with Keras 2 and save it as .h5: model.save('name.h5').",
        )
    if operations := sorted({item["class_name"] for item in _objects(config)} & _KERAS2_OPERATIONS):
        return LoadError(
            f"{path} holds TensorFlow operations in the way of Keras 2, which Keras 3 cannot rebuild.",
            expected="layers only",
            received=", ".join(operations),
            fix="write the model with layers or keras.ops in place of tf functions and load the weights into it.",
        )
    if missing := _missing(config, error, custom_objects):
        return LoadError(
            f"{path} uses objects that are not part of Keras: {', '.join(missing)}.",
            expected="their classes or functions",
            received=f"custom_objects with {', '.join(sorted(custom_objects)) or 'nothing in it'}",
            fix=f"import them and pass custom_objects={{{missing[0]!r}: ...}}, "
            "or register them with keras.saving.register_keras_serializable before loading.",
        )
    return LoadError(
        f"Keras could not load {path}.",
        expected=f"a model that keras {keras.__version__} can rebuild",
        received=f"{type(error).__name__}: {_first_line(error)}",
        fix="see the original error above this one; a file of an older Keras is best saved again there as .h5.",
    )


def _read_config(path: Path, kind: str) -> Any:
    if kind == "hdf5":
        return legacy_h5.read_config(path)
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(f"{broken} fails its checksum")
        return json.loads(archive.read("config.json"))


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields every described object in a configuration, the outer ones first."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config
        for part in config.values():
            yield from _objects(part)
    elif isinstance(config, list):
        for part in config:
            yield from _objects(part)


def _lambdas(config: Any) -> Iterator[str]:
    for item in _objects(config):
        settings = item.get("config")
        if item["class_name"] != "Lambda" or not isinstance(settings, dict):
            continue
        function = settings.get("function")
        coded = isinstance(function, dict) and function.get("class_name") == "__lambda__"
        if coded or settings.get("function_type") == "lambda":
            yield repr(settings.get("name", "lambda"))


def _missing(config: Any, error: Exception, custom_objects: Mapping[str, Any]) -> list[str]:
    """Names that the configuration refers to and that neither Keras nor the caller provides."""
    said = re.findall(r"(?:Could not locate (?:class|function)|Unknown layer:) '([^']+)'", str(error))
    stored = [_plain_name(item) for item in _objects(config) if item.get("registered_name")]
    names = [name for name in (*stored, *said) if name is not None]
    return [
        name
        for name in dict.fromkeys(names)
        if name not in custom_objects
        and not any(other.endswith(f">{name}") for other in names)
        and keras.saving.get_registered_object(name) is None
    ]


def _plain_name(item: dict[str, Any]) -> str | None:
    if str(item.get("module", "")).split(".")[0] == "keras" or item["class_name"] == "__lambda__":
        return None
    return item["config"] if item["class_name"] == "function" else item["registered_name"]


def _first_line(error: Exception) -> str:
    line = str(error).strip().split("\n")[0]
    return line if len(line) <= 300 else line[:300] + "..."
