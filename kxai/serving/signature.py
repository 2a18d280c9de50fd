"""What a signature of a served model takes and returns, and arrays that fit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, final

import numpy as np

from kxai.errors import InputError

TARGET = "target"
"""The input that says which class is explained; -1 stands for the predicted one."""

DEFAULT = "serving_default"
EXPLAIN = "explain"


NUMBERS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128",
)  # fmt: skip


@final
@dataclass(frozen=True)
class Spec:
    """Type and shape of a tensor.

    Attributes:
        dtype: NumPy's name of the type, or ``"string"``, or TensorFlow's name of a type that NumPy does not have.
        shape: sizes, None where they are open; None as a whole where not even the rank is known.
    """

    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of any shape"
        sizes = ["batch" if i == 0 else "any" if size is None else str(size) for i, size in enumerate(self.shape)]
        return f"{self.dtype} ({', '.join(sizes)}{',' * (len(sizes) == 1)})"


@final
@dataclass(frozen=True)
class Signature:
    """A function that a server offers.

    Attributes:
        inputs: specs by name, in the order of the names, batched on their first axis.
        outputs: likewise.
    """

    inputs: Mapping[str, Spec]
    outputs: Mapping[str, Spec]

    def __post_init__(self) -> None:
        # Servers list them in an order that changes from run to run.
        for name in ("inputs", "outputs"):
            object.__setattr__(self, name, MappingProxyType(dict(sorted(getattr(self, name).items()))))

    def checked(self, inputs: Mapping[str, Any], *, finite: bool) -> dict[str, np.ndarray]:
        """Arrays of the types and shapes that the signature takes.

        Args:
            inputs: by name; numbers become the signature's type where this loses no more than rounding.
            finite: refuse NaN and infinity.

        Raises:
            InputError: names, types, shapes or batch sizes do not fit.

        Example:
            >>> signature = Signature({"x": Spec("float32", (None, 2))}, {})
            >>> signature.checked({"x": [[1, 2]]}, finite=True)
            {'x': array([[1., 2.]], dtype=float32)}
        """
        if inputs.keys() != self.inputs.keys():
            raise InputError(
                "The inputs are not those of the signature.",
                expected=", ".join(sorted(self.inputs)),
                received=", ".join(sorted(map(str, inputs))) or "none",
            )
        arrays = {name: fitting(name, inputs[name], spec, finite=finite) for name, spec in self.inputs.items()}
        sizes = {name: len(array) for name, array in arrays.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise InputError("The batch sizes do not fit.", expected="one number of samples, >= 1", received=str(sizes))
        return arrays

    def returned(self, outputs: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        """Arrays of the types and shapes that the signature returns; bfloat16 becomes float32.

        Args:
            outputs: what came back, by name; others than the signature's are left out.
            count: how many samples went there.

        Raises:
            InputError: outputs are missing, or of other types, shapes or batch sizes.

        Example:
            >>> Signature({}, {"y": Spec("float32", (None,))}).returned({"y": [1.5]}, 2)
            Traceback (most recent call last):
            ...
            kxai.errors.InputError: y came back for another number of samples.
              Expected: 2
              Received: 1
        """
        missing = [name for name in self.outputs if name not in outputs]
        if missing:
            raise InputError(
                "Outputs are missing.",
                expected=", ".join(self.outputs),
                received=", ".join(map(str, outputs)) or "none",
            )
        arrays = {}
        for name, spec in self.outputs.items():
            held = replace(spec, dtype="float32") if spec.dtype == "bfloat16" else spec
            arrays[name] = fitting(name, outputs[name], held, finite=False)
            if len(arrays[name]) != count:
                raise InputError(
                    f"{name} came back for another number of samples.",
                    expected=str(count),
                    received=str(len(arrays[name])),
                )
        return arrays


def fitting(name: str, value: Any, spec: Spec, *, finite: bool) -> np.ndarray:
    """One array of the type and shape that a spec says.

    Args:
        name: of the input, for messages.
        value: anything that NumPy takes as an array; text and bytes for strings.
        spec: what is expected.
        finite: refuse NaN and infinity.

    Raises:
        InputError: see the message.

    Example:
        >>> fitting("target", [3, 2**40], Spec("int32", (None,)), finite=True)
        Traceback (most recent call last):
        ...
        kxai.errors.InputError: target has values that its type does not hold.
          Expected: int32 (batch,)
          Received: 1099511627776
    """
    array = _strings(name, value) if spec.dtype == "string" else _numbers(name, value, spec)
    wrong = spec.shape is not None and (
        array.ndim != len(spec.shape)
        or any(size not in (None, given) for size, given in zip(spec.shape[1:], array.shape[1:], strict=True))
    )
    if wrong or array.ndim == 0:
        raise InputError(f"{name} has the wrong shape.", expected=str(spec), received=str(array.shape))
    if finite and array.dtype.kind in "fc" and not np.isfinite(array).all():
        sample = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(axis=1)))
        raise InputError(
            f"{name} is not finite.", expected="finite numbers", received=f"NaN or infinity, first in sample {sample}"
        )
    return array


def regular(name: str, value: Any) -> np.ndarray:
    """Turns nested lists into an array.

    Raises:
        InputError: they are of different lengths, or nested too deeply.
    """
    try:
        return np.asarray(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{name} is no array.",
            expected="the same number of values in every sample, row and column",
            received=str(error),
        ) from error


def _numbers(name: str, value: Any, spec: Spec) -> np.ndarray:
    given = regular(name, value)
    if spec.dtype not in NUMBERS:
        raise InputError(f"NumPy has no arrays of the type that {name} has.", received=spec.dtype)
    wanted = np.dtype(spec.dtype)
    if given.dtype == wanted:
        return given
    booleans = (given.dtype.kind == "b") != (wanted.kind == "b")
    if given.size and (
        given.dtype.kind not in "biufc" or booleans or not np.can_cast(given.dtype, wanted, "same_kind")
    ):
        raise InputError(f"{name} has values of the wrong type.", expected=str(spec), received=_kind(given))
    with np.errstate(over="ignore", invalid="ignore"):
        array = given.astype(wanted)
    lost = array != given if wanted.kind in "iu" else np.isfinite(array) != np.isfinite(given)
    if lost.any():
        raise InputError(
            f"{name} has values that its type does not hold.", expected=str(spec), received=str(given[lost].flat[0])
        )
    return array


def _kind(array: np.ndarray) -> str:
    return {"U": "text", "S": "bytes", "O": "something else than numbers"}.get(array.dtype.kind, str(array.dtype))


def _strings(name: str, value: Any) -> np.ndarray:
    # NumPy's own type of bytes would drop zeros at their ends.
    array = np.asarray(value, object)
    if not all(isinstance(item, (str, bytes)) for item in array.flat):
        raise InputError(f"{name} has values of the wrong type.", expected="text or bytes", received="something else")
    coded = [item.encode() if isinstance(item, str) else item for item in array.flat]
    return np.array(coded, object).reshape(array.shape)
