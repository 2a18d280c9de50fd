"""A SavedModel whose layers are not known: one layer that can be run and differentiated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from kxai.backend import SavedModel, stored_bytes
from kxai.errors import LoadError
from kxai.loading import archives
from kxai.loading.request import Request

_USUAL = ("serving_default", "serve")


def load(request: Request, endpoint: str | None) -> keras.Model:
    """Wraps a signature of a SavedModel into a functional model.

    Args:
        request: what is asked for.
        endpoint: the signature; default the usual or only one.

    Returns:
        A model of one layer. Several inputs, or outputs, are a dict by name.

    Raises:
        LoadError: there is no such signature, it takes no batches, its outputs are of any shape, or the
            graph reaches out of the process, computes while it is loaded, or has constants larger than the file.
    """
    folder = request.path
    saved = SavedModel(folder)
    endpoint = _choose(request, saved.endpoints, endpoint)
    if request.safe_mode:
        _check(folder, saved)
    try:
        layer = saved.layer(endpoint)
    except Exception as error:  # TensorFlow raises nearly every kind of exception here.
        raise LoadError(
            f"TensorFlow could not load {folder}.",
            expected="a complete SavedModel",
            received=f"{stored_bytes(folder)} bytes of weights; {type(error).__name__}: {str(error)[:300]}",
            fix="copy the whole folder again.",
        ) from error
    inputs = {name: _input(request, name, spec) for name, spec in layer.specs.items()}
    if unknown := [name for name, spec in layer.results.items() if spec.shape.rank is None]:
        raise LoadError(
            f"{folder} does not say what shape its outputs have.",
            expected="outputs with a known number of axes",
            received=f"{', '.join(unknown)} of unknown shape",
            fix="export the model with tf.ensure_shape(output, (None, ...)) at its end.",
        )
    outputs = layer(inputs)
    return keras.Model(_single(inputs), _single(outputs), name="saved_model")


def _check(folder: Path, saved: SavedModel) -> None:
    refused = (
        (saved.outside, "can run code, or reach files or the network",
         "operations that compute, and keep what they keep in memory"),
        (saved.at_once, "computes while it is loaded, for as long and as much as it likes",
         "tables that are filled with stored values"),
    )  # fmt: skip
    for find, does, expected in refused:
        if found := find():
            raise LoadError(
                f"{folder} has a graph that {does}.",
                expected=expected,
                received=", ".join(found[:10]),
                fix="only if you trust the origin of this folder: load it with safe_mode=False.",
            )
    size = stored_bytes(folder) + (folder / "saved_model.pb").stat().st_size
    if (constants := saved.constants()) > (allowed := archives.bound(size)):
        raise archives.too_large(folder, constants, allowed)


def _choose(request: Request, endpoints: list[str], endpoint: str | None) -> str:
    if endpoint in endpoints:
        return str(endpoint)
    usual = [name for name in _USUAL if name in endpoints]
    if endpoint is None and (usual or len(endpoints) == 1):
        return (usual or endpoints)[0]
    what = f"{request.path} has several endpoints, none with a usual name."
    raise LoadError(
        what if endpoint is None and endpoints else f"{request.path} has no endpoint {endpoint or 'at all'!r}.",
        expected=f"one of {', '.join(endpoints)}" if endpoints else "a SavedModel with signatures",
        received="none" if endpoint is None else f"endpoint={endpoint!r}",
        fix=f"endpoint={endpoints[0]!r}." if endpoints else "export the model with model.export(path).",
    )


def _input(request: Request, name: str, spec: Any) -> keras.KerasTensor:
    shape = spec.shape.as_list() if spec.shape.rank else []
    if not shape or shape[0] is not None:
        raise LoadError(
            f"{request.path} does not take batches of any size.",
            expected="inputs whose first dimension is open",
            received=f"{name} of shape {tuple(shape) if spec.shape.rank is not None else 'unknown'}",
            fix="export the model with an input_signature whose first dimension is None.",
        )
    return keras.Input(batch_shape=shape, dtype=spec.dtype.name, name=name)


def _single(named: dict[str, Any]) -> Any:
    return next(iter(named.values())) if len(named) == 1 else named
