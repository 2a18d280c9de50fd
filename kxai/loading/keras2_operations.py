"""TensorFlow's functions in functional models of Keras 2, told as operations of Keras 3.

Keras 2 wrote ``x + 1`` on the output of a layer as a layer ``TFOpLambda`` that names a function of TensorFlow, its
first argument as an input and the others by name. Those that Keras 3 has, too, are told in its words; the rest is left
as it is, and refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras

CLASSES = ("TFOpLambda", "SlicingOpLambda")
# Of a call: the arguments by TensorFlow's names -> settings of the operation, and its inputs. Each takes what it uses.
_Told = Callable[[dict[str, Any]], tuple[dict[str, Any], list[Any]]]


def modern(layer: dict[str, Any]) -> dict[str, Any] | None:
    """Translates a layer that calls a function of TensorFlow.

    Args:
        layer: as Keras 2 wrote it, but for its calls, which are those of Keras 3.

    Returns:
        The operation of Keras 3; None if there is none that does the same.

    Example:
        >>> call = {"args": [1.0], "kwargs": {"y": 2.0, "name": None}}
        >>> layer = {"config": {"name": "a", "function": "math.add"}, "inbound_nodes": [call]}
        >>> told = modern({"class_name": "TFOpLambda", **layer})
        >>> told["class_name"], told["config"], told["inbound_nodes"]
        ('Add', {'name': 'a'}, [{'args': [1.0, 2.0], 'kwargs': {}}])
    """
    settings, calls = layer.get("config"), layer.get("inbound_nodes")
    if not isinstance(settings, dict) or not isinstance(calls, list) or len(calls) != 1:
        return None
    # Of a function that TensorFlow 1 had already, Keras 2 may write that name.
    function = str(settings.get("function")).removeprefix("compat.v1.")
    operation, first, told = _FUNCTIONS.get(function, ("", "", None))
    if told is None or len(calls[0]["args"]) != 1:
        return None
    given = {first: calls[0]["args"][0]} | {key: _listed(value) for key, value in calls[0]["kwargs"].items()}
    given.pop("name", None)
    try:
        config, inputs = told(given)
    except (KeyError, ValueError, TypeError):
        return None
    if any(value is not None and value is not False for value in given.values()):  # more than the operation can do
        return None
    name = {"name": settings.get("name")}
    return {
        **placed({"class_name": operation, "config": {**name, **config}, "inbound_nodes": []}),
        **name,
        "inbound_nodes": [{"args": inputs, "kwargs": {}}],
    }


def placed(item: dict[str, Any]) -> dict[str, Any]:
    """Says of an operation where its class is, as ``.h5`` files of Keras 3 do not.

    Args:
        item: class_name and config, and the calls that tell it from a setting.

    Returns:
        The item with a module; unchanged if it is no operation, or a layer.
    """
    config, name = item.get("config"), item.get("class_name")
    # Of a layer and an operation of one name, such as Add, the layer can be trained.
    if "inbound_nodes" not in item or "module" in item or not isinstance(config, dict) or "trainable" in config:
        return item
    found = [one for one in _operations(keras.Operation) if one.__name__ == name]
    return {**item, "module": found[0].__module__, "registered_name": name} if len(found) == 1 else item


def _operations(kind: type) -> Iterator[type]:
    known: list[type] = kind.__subclasses__()
    for one in known:
        if not issubclass(one, keras.Layer) and one.__module__.split(".")[0] == "keras":
            yield one
            yield from _operations(one)


def _of(*names: str, **defaults: Any) -> _Told:
    """Of an operation whose inputs and settings go by other names.

    Args:
        names: of the inputs.
        defaults: of the settings: TensorFlow's name and default, or these and the name in Keras.
    """

    def told(given: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        inputs = [given.pop(name) for name in names]
        settings = {}
        for name, default in defaults.items():
            of, value = default if isinstance(default, tuple) else (name, default)
            settings[of] = _constant(given.pop(name) if value is _NEEDED else given.pop(name, value))
        return settings, inputs

    return told


_NEEDED = object()


def _constant(value: Any) -> Any:
    """A setting, which is no tensor."""
    if isinstance(value, dict):
        raise ValueError("a tensor")
    return [_constant(part) for part in value] if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    """Lists for tuples as SavedModels write them."""
    if isinstance(value, dict) and value.get("class_name") == "__tuple__":
        value = value.get("items")
    return [_listed(part) for part in value] if isinstance(value, list) else value


def _matmul(given: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    first = "ji" if given.pop("transpose_a", False) else "ij"
    second = "kj" if given.pop("transpose_b", False) else "jk"
    return {"subscripts": f"...{first},...{second}->...ik"}, [given.pop("a"), given.pop("b")]


def _split(given: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    parts = _constant(given.pop("num_or_size_splits"))
    if isinstance(parts, list):
        if min(parts) < 0:
            raise ValueError("a size that is not stated")
        parts = [sum(parts[: index + 1]) for index in range(len(parts) - 1)]
    return {"indices_or_sections": parts, "axis": given.pop("axis", 0)}, [given.pop("value")]


def _clip(given: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    bounds = {"x_min": _constant(given.pop("clip_value_min")), "x_max": _constant(given.pop("clip_value_max"))}
    return bounds, [given.pop("t")]


def _normalize(given: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    # TensorFlow bounds the square of the norm, Keras the norm.
    epsilon = math.sqrt(given.pop("epsilon", 1e-12))
    axis = _constant(given.pop("axis"))
    if not isinstance(axis, int):
        raise ValueError("several axes")
    return {"axis": axis, "order": 2, "epsilon": epsilon}, [given.pop("x")]


def _pad(given: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    if str(given.pop("mode", "CONSTANT")).upper() != "CONSTANT":
        raise ValueError("another way to pad")
    settings = {"pad_width": _constant(given.pop("paddings")), "mode": "constant"}
    return settings, [given.pop("tensor"), _constant(given.pop("constant_values", 0))]


def _silu(given: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    if given.pop("beta", 1.0) != 1.0:
        raise ValueError("a silu of another slope")
    return {}, [given.pop("features")]


def _slice(given: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    parts = given.pop("slice_spec")
    key = [_index(part) for part in (parts if isinstance(parts, list) else [parts])]
    return {}, [given.pop("tensor"), key]


def _index(part: Any) -> Any:
    if isinstance(part, dict) and set(part) == {"start", "stop", "step"}:
        if not all(value is None or isinstance(value, int) for value in part.values()):
            raise ValueError("a bound that is no number")
        return {"class_name": "__slice__", "config": part}
    if part is None or isinstance(part, int):
        return part
    if isinstance(part, dict) and part.get("class_name") in ("Ellipsis", "__ellipsis__"):
        return {"class_name": "__ellipsis__", "config": {}}
    raise ValueError("an index that is a tensor")


_ELEMENTWISE = {
    "x": "math.sigmoid math.tanh math.exp math.log math.sqrt math.rsqrt math.square math.negative math.sin math.cos "
    "math.floor math.ceil math.round math.sign math.reciprocal math.erf math.log1p math.expm1 math.logical_not",
    "features": "nn.relu nn.relu6 nn.elu nn.selu nn.softsign math.softplus",
}
_PAIRS = {
    "__operators__.add": "Add",
    "math.truediv": "TrueDivide",
    "math.pow": "Power",
    "math.floormod": "Mod",
    **{
        f"math.{name}": "".join(map(str.capitalize, name.split("_")))
        for name in "add subtract multiply divide maximum minimum greater greater_equal less less_equal equal "
        "not_equal logical_and logical_or".split()
    },
}
_REDUCED = {
    "reduce_mean": "Mean",
    "reduce_sum": "Sum",
    "reduce_max": "Max",
    "reduce_min": "Min",
    "reduce_prod": "Prod",
    "reduce_std": "Std",
    "reduce_variance": "Var",
    "reduce_logsumexp": "Logsumexp",
}
_FUNCTIONS: dict[str, tuple[str, str, _Told]] = {
    # function: operation, name of its first argument, how it is told
    **{
        name: ("".join(map(str.capitalize, name.split(".")[1].split("_"))), argument, _of(argument))
        for argument, names in _ELEMENTWISE.items()
        for name in names.split()
    },
    **{name: (operation, "x", _of("x", "y")) for name, operation in _PAIRS.items()},
    **{
        f"math.{name}": (operation, "input_tensor", _of("input_tensor", axis=None, keepdims=False))
        for name, operation in _REDUCED.items()
    },
    "math.abs": ("Absolute", "x", _of("x")),
    "nn.silu": ("Silu", "features", _silu),
    "nn.gelu": ("Gelu", "features", _of("features", approximate=False)),
    "nn.leaky_relu": ("LeakyRelu", "features", _of("features", alpha=("negative_slope", 0.2))),
    "nn.softmax": ("Softmax", "logits", _of("logits", axis=-1)),
    "nn.log_softmax": ("LogSoftmax", "logits", _of("logits", axis=-1)),
    "linalg.matmul": ("Einsum", "a", _matmul),
    "math.l2_normalize": ("Normalize", "x", _normalize),
    "linalg.l2_normalize": ("Normalize", "x", _normalize),
    "reshape": ("Reshape", "tensor", _of("tensor", shape=("newshape", _NEEDED))),
    "transpose": ("Transpose", "a", _of("a", perm=("axes", None))),
    "expand_dims": ("ExpandDims", "input", _of("input", axis=_NEEDED)),
    "squeeze": ("Squeeze", "input", _of("input", axis=None)),
    "concat": ("Concatenate", "values", _of("values", axis=_NEEDED)),
    "stack": ("Stack", "values", _of("values", axis=0)),
    "unstack": ("Unstack", "value", _of("value", num=None, axis=0)),
    "split": ("Split", "value", _split),
    "tile": ("Tile", "input", _of("input", multiples=("repeats", _NEEDED))),
    "cast": ("Cast", "x", _of("x", dtype=_NEEDED)),
    "clip_by_value": ("Clip", "t", _clip),
    "pad": ("Pad", "tensor", _pad),
    "where": ("Where", "condition", _of("condition", "x", "y")),
    "stop_gradient": ("StopGradient", "input", _of("input")),
    "__operators__.getitem": ("GetItem", "tensor", _slice),
}
