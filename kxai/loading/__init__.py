"""Loading a model from a file, with one kind of error that says what the file is and what can be done about it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import keras

from kxai import files
from kxai.errors import ArgumentError, LoadError
from kxai.loading import black_box, formats, kinds
from kxai.loading.request import Request


def load(
    path: str | os.PathLike,
    safe_mode: bool = True,
    custom_objects: Mapping[str, Any] | None = None,
    *,
    weights: str | os.PathLike | None = None,
    endpoint: str | None = None,
) -> keras.Model:
    """Loads a model for explanation, in whatever way Keras 3, Keras 2 or TensorFlow saved it. It is not compiled.

    ======================  ============================================================================
    ``.keras``              of Keras 3 or Keras 2
    ``.h5``, ``.hdf5``      of Keras 3, Keras 2 or older
    ``.json``               of Keras 3 or Keras 2, with the weights that lie beside it or are given
    a SavedModel folder     of Keras 2, functional or Sequential: its layers, rebuilt
    any other SavedModel    a black box, one ``keras.layers.TFSMLayer``: gradient and noise methods only
    ======================  ============================================================================

    What Keras 2 wrote in other words than Keras 3 is translated. Every stored weight has to find its variable;
    a model is never loaded in part.

    Args:
        path: the file or folder.
        safe_mode: True (default) runs no code from the file, opens no other file for it and bounds its size: it
            refuses Python code in ``Lambda`` layers, names other than those of Keras' layers and their like, a
            model that is larger than the stored weights, and a TensorFlow graph that reads or writes files. False
            only for files whose origin you trust.
        custom_objects: your own layers and functions by the full name under which they were saved, for example
            ``"Package>Name"`` for registered ones; default none.
        weights: for ``.json`` the file of weights (``.weights.h5`` or ``.h5``); default that of the same name, or
            ``model.weights.h5``, in the same folder.
        endpoint: of a SavedModel the signature to call as a black box, even where the layers could be rebuilt;
            default ``"serving_default"``, ``"serve"`` or the only one.

    Returns:
        The model.

    Raises:
        LoadError: the file is missing, truncated, no model, not safe under ``safe_mode``, or names a custom object
            that is not given. The original error, if there is one, is its cause.
        ArgumentError: ``weights`` or ``endpoint`` is given for a file that has no use for it.

    Example:
        >>> import tempfile, keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="toy")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(folder + "/toy.keras")
        ...     load(folder + "/toy.keras").name
        'toy'
    """
    request = Request(files.existing(path, "model"), safe_mode, dict(custom_objects or {}))
    kind = kinds.kind(request.path)
    _check_use("weights", weights, kind == "json", "a .json file")
    _check_use("endpoint", endpoint, kind == "saved_model", "a SavedModel folder")
    model = _load(request, kind, weights, endpoint)
    if not isinstance(model, keras.Model):
        raise LoadError(f"{path} holds no model.", expected="a keras.Model", received=f"a saved {type(model).__name__}")
    return model


def _load(request: Request, kind: str, weights: str | os.PathLike | None, endpoint: str | None) -> Any:
    if kind == "keras":
        return formats.archive(request)
    if kind == "hdf5":
        return formats.file(request)
    if kind == "json":
        return formats.text(request, None if weights is None else files.existing(weights, "file of weights"))
    if request.safe_mode:
        kinds.check_folder(request.path)
    model = formats.described(request) if endpoint is None else None
    return black_box.load(request, endpoint) if model is None else model


def _check_use(name: str, value: Any, used: bool, where: str) -> None:
    if value is not None and not used:
        raise ArgumentError(
            f"{name} has no effect here.", expected=f"{name} together with {where}", received=f"{name}={str(value)!r}"
        )
