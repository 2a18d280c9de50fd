"""Tensors in JSON, as TensorFlow Serving's REST interface writes them.

Binary values are ``{"b64": ...}``; NaN and infinities are the words ``NaN``, ``Infinity`` and ``-Infinity``. Rows are
one object per sample, columns one array per tensor; of a single tensor its name is left out.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from kxai.errors import InputError
from kxai.serving.signature import Spec, regular

CODES = {
    "DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_INT32": "int32", "DT_UINT8": "uint8", "DT_INT16": "int16",
    "DT_INT8": "int8", "DT_STRING": "string", "DT_COMPLEX64": "complex64", "DT_INT64": "int64", "DT_BOOL": "bool",
    "DT_BFLOAT16": "bfloat16", "DT_UINT16": "uint16", "DT_COMPLEX128": "complex128", "DT_HALF": "float16",
    "DT_UINT32": "uint32", "DT_UINT64": "uint64",
}  # fmt: skip
"""Names of types, as metadata spell them."""


def column(array: np.ndarray) -> Any:
    """An array as JSON data.

    Example:
        >>> column(np.array([[b"a"], [b"b"]], object))
        [[{'b64': 'YQ=='}], [{'b64': 'Yg=='}]]
    """
    if array.dtype.kind == "c":
        raise InputError("JSON has no complex numbers.", received=str(array.dtype), fix='protocol="grpc" carries them.')
    if array.dtype.kind != "O":
        return array.tolist()
    return np.array([_coded(item) for item in array.flat], object).reshape(array.shape).tolist()


def rows(arrays: Mapping[str, np.ndarray], *, named: bool) -> list[Any]:
    """Arrays as one object per sample.

    Args:
        arrays: by name, one batch size.
        named: False leaves the name of a single array out.

    Example:
        >>> rows({"x": np.array([[1.0], [2.0]]), "target": np.array([0, -1])}, named=True)
        [{'x': [1.0], 'target': 0}, {'x': [2.0], 'target': -1}]
    """
    columns = {name: column(array) for name, array in arrays.items()}
    if len(columns) == 1 and not named:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def from_column(name: str, value: Any, spec: Spec) -> np.ndarray:
    """An array of what a server wrote, of the type that its signature says; bfloat16 becomes float32.

    Args:
        name: of the tensor, for messages.
        value: JSON data.
        spec: of the tensor.

    Raises:
        InputError: it is no such array.

    Example:
        >>> from_column("x", [[1.0, float("nan")]], Spec("float32", (None, 2)))
        array([[ 1., nan]], dtype=float32)
    """
    if spec.dtype == "string":
        return decoded(value)
    array = regular(name, value)
    fits = array.dtype.kind in "biufc" and spec.shape is not None and array.ndim == len(spec.shape)
    if not fits and array.size:
        raise InputError(
            f"{name} came back in another form.", expected=str(spec), received=f"{array.dtype} {array.shape}"
        )
    return array.astype("float32" if spec.dtype == "bfloat16" else spec.dtype)


def decoded(value: Any) -> np.ndarray:
    """Strings of JSON as an array of objects: text, and bytes where they were ``{"b64": ...}``.

    Raises:
        InputError: something is not coded well.

    Example:
        >>> decoded([{"b64": "AAE="}, "text"])
        array([b'\\x00\\x01', 'text'], dtype=object)
    """

    def item(part: Any) -> Any:
        if isinstance(part, list):
            return [item(inner) for inner in part]
        if isinstance(part, dict) and part.keys() == {"b64"}:
            try:
                return base64.b64decode(part["b64"], validate=True)
            except (binascii.Error, TypeError, ValueError) as error:
                raise InputError("A binary value is not in base64.", received=str(error)) from error
        return part

    return np.array(item(value), object)


def parse(text: bytes | str) -> Any:
    """JSON with NaN and infinities.

    Raises:
        InputError: it is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("This is no JSON.", received=f"{error}: {text[:60]!r}") from error


def _coded(item: Any) -> Any:
    data = item.encode() if isinstance(item, str) else item
    return {"b64": base64.b64encode(data).decode()}
