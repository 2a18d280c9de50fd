"""Arrays as TensorFlow's tensors on the wire, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from kxai.errors import InputError
from kxai.wire.messages import addressed, message

DTYPES = {
    "float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "string": 7, "complex64": 8, "int64": 9,
    "bool": 10, "bfloat16": 14, "uint16": 17, "complex128": 18, "float16": 19, "uint32": 22, "uint64": 23,
}  # fmt: skip
"""TensorFlow's numbers of the types."""

_NAMES = {code: name for name, code in DTYPES.items()}
_FIELDS = {
    "float32": "float_val", "float64": "double_val", "int64": "int64_val", "bool": "bool_val", "uint32": "uint32_val",
    "uint64": "uint64_val", "complex64": "scomplex_val", "complex128": "dcomplex_val", "float16": "half_val",
    "bfloat16": "half_val",
}  # fmt: skip


def to_tensor(array: Any) -> Any:
    """Writes an array as a ``TensorProto``.

    Args:
        array: anything that NumPy takes as an array of numbers, booleans, bytes or text; text is written as UTF-8.

    Returns:
        The message.

    Raises:
        InputError: TensorFlow has no such type, or this is no array.

    Example:
        >>> from_tensor(to_tensor([[1.5, 2.0]]))
        array([[1.5, 2. ]])
    """
    array = _array(array)
    tensor = message("TensorProto")()
    tensor.tensor_shape.dim.extend([message("Dim")(size=size) for size in array.shape])
    if array.dtype.kind == "O":
        tensor.dtype = DTYPES["string"]
        tensor.string_val.extend([_bytes(value) for value in array.ravel().tolist()])
        return tensor
    if array.dtype.name not in DTYPES:
        raise InputError(
            "TensorFlow has no type for these values.",
            expected=f"one of {', '.join(DTYPES)}",
            received=str(array.dtype),
        )
    tensor.dtype = DTYPES[array.dtype.name]
    tensor.tensor_content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return tensor


def from_tensor(tensor: Any) -> np.ndarray:
    """Reads a ``TensorProto``, whichever of its fields a server fills.

    Args:
        tensor: the message.

    Returns:
        The array, writable; bfloat16, which NumPy does not know, becomes float32, and strings become objects (bytes).

    Raises:
        InputError: the message is of a type that kxai does not read, or holds another number of values than its shape.
    """
    name = _NAMES.get(tensor.dtype)
    if name is None:
        raise InputError("A tensor has a type that cannot be read.", received=f"DataType {tensor.dtype}")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    count = math.prod(shape)
    try:
        values = _values(tensor, name)
        if len(values) < count and not tensor.tensor_content:
            # The shortened form of a tensor that ends in equal values, or is zero.
            last = values[-1:] if len(values) else np.full(1, b"" if name == "string" else 0, values.dtype)
            values = np.concatenate([values, np.repeat(last, count - len(values))])
        if len(values) != count:
            raise InputError("A tensor is incomplete.", expected=f"{count} values, {shape}", received=str(len(values)))
        return values.reshape(shape)
    except InputError:
        raise
    except (ValueError, OverflowError, MemoryError) as error:
        raise InputError(
            "A tensor does not hold what its type and its shape say.", expected=f"{name} {shape}", received=str(error)
        ) from error


def predict_request(
    model: str,
    signature: str,
    inputs: Mapping[str, Any],
    *,
    version: int | str | None = None,
    outputs: Iterable[str] = (),
) -> Any:
    """A ``PredictRequest``.

    Args:
        model: name of the model.
        signature: name of the signature.
        inputs: arrays by the names of the signature's inputs.
        version: number or label of the model's version; None: what the server takes as newest.
        outputs: which outputs to return; default all.

    Returns:
        The message.

    Example:
        >>> request = predict_request("digits", "explain", {"image": np.zeros((1, 8, 8, 1), np.float32)})
        >>> request.model_spec.signature_name
        'explain'
    """
    request = message("PredictRequest")()
    addressed(request.model_spec, model, version)
    request.model_spec.signature_name = signature
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(to_tensor(array))
    request.output_filter.extend(outputs)
    return request


def _array(value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
        # NumPy's own type of texts would drop zeros at their ends, and turn numbers among them into text.
        return np.asarray(value, object) if array.dtype.kind in "SU" else array
    except ValueError as error:
        raise InputError("This is no array.", received=str(error)) from error


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise InputError(
        "An array of objects holds something else than text.", received=f"{type(value).__name__} {value!r}"
    )


def _values(tensor: Any, name: str) -> np.ndarray:
    if name == "string":
        values = np.empty(len(tensor.string_val), object)
        values[:] = list(tensor.string_val)
        return values
    stored = np.dtype("<u2") if name in ("bfloat16", "float16") else np.dtype(name).newbyteorder("<")
    if tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, stored).copy()
    elif name.startswith("complex"):
        parts = np.array(getattr(tensor, _FIELDS[name]), np.dtype(name).type(0).real.dtype)
        values = parts.view(name)
    else:
        values = _fitting(getattr(tensor, _FIELDS.get(name, "int_val")), stored)
    if name == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.view(np.float16) if name == "float16" else values.astype(name, copy=False)


def _fitting(numbers: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """The numbers as that type; raises ValueError where they are none of its integers."""
    if dtype.kind not in "iu":
        return np.array(numbers, dtype)
    # Older versions of NumPy would take integers that do not fit modulo the range of the type.
    wide = np.array(numbers, "uint64" if dtype.name == "uint64" else "int64")
    values = wide.astype(dtype)
    if (outside := wide[values != wide]).size:
        raise ValueError(f"{outside[0]} is out of range")
    return values
