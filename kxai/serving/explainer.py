"""An exported model behind the V1 protocol: JSON data in, JSON data out, whatever the server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from kxai.arguments import check_integer
from kxai.backend.loaded import SavedFunction, load_signatures
from kxai.errors import InputError, LoadError, NumericalError, UnknownNameError
from kxai.files import existing
from kxai.serving.notation import decoded, parse, rows
from kxai.serving.signature import DEFAULT, EXPLAIN, TARGET, Signature, Spec

FILE = "saved_model.pb"
LONGEST_NAME = 200
KEYS = ("instances", "signature_name", "target")


@final
class Explainer:
    """Answers ``:predict`` and ``:explain`` from a SavedModel that :func:`kxai.export` wrote. Thread-safe.

    Args:
        path: folder of a version; or of a model, with a folder per version, of which the largest number is taken.
        batch_size: samples computed at once, >= 1, default 32; bounds the memory.

    Raises:
        ArgumentError: ``batch_size`` is out of range.
        LoadError: there is no SavedModel, it is damaged, or it explains nothing.

    Example:
        >>> import keras, kxai, tempfile
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3, name="y")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = kxai.export(kxai.LRP(model, "epsilon"), folder)
        ...     explainer = Explainer(folder)
        >>> replies = explainer.explain({"instances": [[1, 2, 3, 4]], "target": 2})
        >>> sorted(replies["explanations"][0])
        ['relevance', 'residual', 'score', 'target', 'y']
    """

    def __init__(self, path: str | os.PathLike, batch_size: int = 32) -> None:
        batch_size = check_integer("batch_size", batch_size)
        folder = _version(existing(path, "SavedModel"))
        self._functions = load_signatures(str(folder))
        self._batch_size = batch_size
        self.signatures = {name: _signature(function) for name, function in self._functions.items()}
        if not self._names(EXPLAIN):
            raise LoadError(
                f"The SavedModel in {folder} explains nothing.",
                expected=f"a signature {EXPLAIN!r}",
                received=", ".join(sorted(self.signatures)) or "none",
                fix="kxai.export(analyzer, folder) writes it.",
            )

    def predict(self, payload: Any) -> dict[str, Any]:
        """``{"instances": [...]}``, perhaps with ``signature_name`` -> ``{"predictions": [...]}``.

        An instance is an object of the inputs by name, or the input itself where there is one; so are predictions.

        Raises:
            InputError, UnknownNameError: the payload does not fit. NumericalError: a result is not finite.
        """
        name, arrays = self._read(payload, DEFAULT, self.signatures)
        return {"predictions": rows(self._computed(name, arrays), named=False)}

    def explain(self, payload: Any) -> dict[str, Any]:
        """``{"instances": [...]}``, perhaps with ``target`` and ``signature_name`` -> ``{"explanations": [...]}``.

        ``target`` is a class, or one per instance, or stands in every instance; -1, the default, is the predicted one.
        An explanation is an object of all outputs of the signature.

        Raises:
            InputError, UnknownNameError: the payload does not fit. NumericalError: a result is not finite.
        """
        name, arrays = self._read(payload, EXPLAIN, self._names(EXPLAIN))
        return {"explanations": rows(self._computed(name, arrays), named=True)}

    def _names(self, start: str) -> list[str]:
        return [name for name in self.signatures if name.startswith(start)]

    def _read(self, payload: Any, default: str, names: Any) -> tuple[str, dict[str, np.ndarray]]:
        content = _content(payload)
        name = content.get("signature_name", default)
        if not isinstance(name, str) or name not in names:
            raise UnknownNameError("signature", str(name)[:LONGEST_NAME], names)
        signature = self.signatures[name]
        instances = content["instances"]
        columns = _columns(instances, signature)
        if "target" in content:
            if TARGET in columns or TARGET not in signature.inputs:
                raise InputError(
                    "target stands where none is expected.",
                    expected=f"one target, of a signature that explains ({', '.join(self._names(EXPLAIN))})",
                    received=f"target next to instances, for {name!r}" + " with targets" * (TARGET in columns),
                )
            given = content["target"]
            columns[TARGET] = given if isinstance(given, list) else [given] * len(instances)
        elif TARGET in signature.inputs:
            columns.setdefault(TARGET, [-1] * len(instances))
        read = {n: decoded(c) if n in signature.inputs and _text(signature, n) else c for n, c in columns.items()}
        return name, signature.checked(read, finite=True)

    def _computed(self, name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        count, size = len(next(iter(arrays.values()))), self._batch_size
        parts = [
            self._functions[name]({key: array[start : start + size] for key, array in arrays.items()})
            for start in range(0, count, size)
        ]
        outputs = {key: np.concatenate([part[key] for part in parts]) for key in self.signatures[name].outputs}
        for key, array in outputs.items():
            if array.dtype.kind in "fc" and not np.isfinite(array).all():
                raise NumericalError(f"{key} is not finite.", expected="finite numbers", received="NaN or infinity")
        return outputs


def _content(payload: Any) -> dict[str, Any]:
    content = parse(payload) if isinstance(payload, (bytes, str)) else payload
    wrong = not isinstance(content, dict) or not isinstance(content.get("instances"), list)
    if wrong or not content["instances"]:
        raise InputError(
            "This is no request of the V1 protocol.",
            expected='{"instances": [...]}, with at least one instance',
            received=", ".join(map(repr, content)) if isinstance(content, dict) else type(content).__name__,
        )
    unknown = sorted(set(map(str, content)) - set(KEYS))
    if unknown:
        raise InputError("The request has unknown keys.", expected=f"of {', '.join(KEYS)}", received=", ".join(unknown))
    return content


def _columns(instances: list[Any], signature: Signature) -> dict[str, Any]:
    """One list per input, of instances that are objects, or values of the only input."""
    objects = [isinstance(one, dict) and one.keys() != {"b64"} for one in instances]
    wanted = [name for name in signature.inputs if name != TARGET]
    if not any(objects) and len(wanted) == 1:
        return {wanted[0]: instances}
    keys = set(instances[0]) if objects[0] else set()
    odd = next((i for i, one in enumerate(instances) if not objects[i] or set(one) != keys), None)
    if odd is not None:
        one = instances[odd]
        raise InputError(
            "The instances do not have the same inputs.",
            expected=f"objects of {', '.join(wanted)}" + " and perhaps target" * (TARGET in signature.inputs),
            received=f"{sorted(map(str, one)) if objects[odd] else type(one).__name__}, in instance {odd}",
        )
    return {name: [one[name] for one in instances] for name in keys}


def _text(signature: Signature, name: str) -> bool:
    return signature.inputs[name].dtype == "string"


def _signature(function: SavedFunction) -> Signature:
    return Signature(
        {name: Spec(dtype, shape) for name, (dtype, shape) in function.inputs.items()},
        {name: Spec(dtype, shape) for name, (dtype, shape) in function.outputs.items()},
    )


def _version(folder: Path) -> Path:
    if (folder / FILE).is_file():
        return folder
    numbers = {int(part.name): part for part in folder.glob("*") if part.name.isdecimal() and (part / FILE).is_file()}
    if not numbers:
        raise LoadError(
            f"There is no SavedModel in {folder}.",
            expected=f"{FILE}, or folders with numbers as names that hold it",
            received=", ".join(sorted(part.name for part in folder.glob("*"))[:10]) or "nothing",
            fix="kxai.export(analyzer, folder) writes one.",
        )
    return numbers[max(numbers)]
