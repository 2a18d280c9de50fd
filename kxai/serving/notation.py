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


def text(array: np.ndarray) -> str:
    """An array as JSON text, which reads as the same numbers of the array's type.

    float32 takes nine digits rather than the seventeen of Python's numbers, which are slow to write and to read. They
    have exponents: TensorFlow Serving refuses numbers without a point from 2^24 on where it wants a float32.

    Example:
        >>> text(np.float32([[0.1, -2], [1e10, np.nan]]))
        '[[1.00000001e-01,-2.00000000e+00],[1.00000000e+10,NaN]]'
    """
    kind = array.dtype.kind
    if kind == "f" and array.dtype.itemsize <= 4:
        form, items = "%.8e", array
    elif kind == "b":
        form, items = "%s", np.where(array, "true", "false")
    else:
        return json.dumps(column(array), separators=(",", ":"))
    for size in reversed(array.shape):
        form = f"[{','.join([form] * size)}]"
    written = form % tuple(items.ravel().tolist())
    return written.replace("nan", "NaN").replace("inf", "Infinity") if not np.isfinite(array).all() else written


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
