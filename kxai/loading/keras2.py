"""Configurations of Keras 2, told in the words of Keras 3.

Keras 2 wrote settings into every layer that only some layers had a use for, such as ``groups=1`` into a depthwise
convolution. Keras 3 refuses a setting that it does not know. Those here are dropped where they have the value
that changes nothing, and named in an error where they have another.
"""

from __future__ import annotations

from typing import Any

import keras

from kxai.errors import LoadError
from kxai.loading import keras2_calls, keras2_operations
from kxai.loading.request import HARD_SIGMOID

_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
_UNGROUPED = ("DepthwiseConv1D", "DepthwiseConv2D", *_SEPARABLE, *(f"Conv{n}DTranspose" for n in (1, 2, 3)))
_RECURRENT = ("SimpleRNN", "LSTM", "GRU", "RNN", *(f"ConvLSTM{n}D" for n in (1, 2, 3)))

_HARMLESS: dict[str, dict[str, Any]] = {
    **{name: {"groups": 1} for name in _UNGROUPED},
    **{name: {"time_major": False} for name in _RECURRENT},
}
# A separable convolution has depthwise and pointwise kernels; these belong to a kernel that it does not have.
_UNUSED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_SEPARABLE, ("kernel_initializer", "kernel_regularizer", "kernel_constraint")),
    "Embedding": ("input_length",),
    "MultiHeadAttention": ("query_shape", "key_shape", "value_shape"),
    "Discretization": ("trainable",),
    **dict.fromkeys((f"SpatialDropout{n}D" for n in (1, 2, 3)), ("trainable", "noise_shape")),
}
_RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}}
# What Keras 2 adds to the description of an object and Keras 3 finds out or has in other words.
_ADDED = {"module", "registered_name", "build_config", "compile_config", "shared_object_id"}
_PLACES = ("layers", "initializers", "regularizers", "constraints")


def is_keras2(config: dict[str, Any], version: str) -> bool:
    """Whether a configuration is one of Keras 2.

    Args:
        config: of a model.
        version: of Keras as the file states it, or "".
    """
    return version.startswith(("1.", "2.")) or "keras_version" in config or not _is_keras3(config)


def _is_keras3(config: dict[str, Any]) -> bool:
    layers = config["config"].get("layers") if isinstance(config.get("config"), dict) else None
    first = layers[0] if isinstance(layers, list) and layers else {}
    settings = first.get("config") if isinstance(first, dict) else {}
    return not isinstance(settings, dict) or "batch_input_shape" not in settings


def modern(config: Any) -> Any:
    """Translates a configuration of Keras 2 into one of Keras 3.

    Args:
        config: the JSON data; it is not changed.

    Returns:
        The configuration as Keras 3 would write it.

    Raises:
        LoadError: a layer has a setting that Keras 3 cannot reproduce.

    Example:
        >>> modern({"class_name": "LeakyReLU", "config": {"name": "leaky", "alpha": 0.25}})["config"]
        {'name': 'leaky', 'negative_slope': 0.25}
    """
    return _modern(_renamed(config))


def plain(name: str) -> str:
    """The name of a layer in Keras 3, which has no use for slashes in it.

    Args:
        name: in Keras 2.
    """
    return name.replace("/", "_")


def _renamed(config: Any) -> Any:
    if isinstance(config, list):
        head = [plain(config[0])] if len(config) > 2 and isinstance(config[0], str) and type(config[1]) is int else []
        return head + [_renamed(part) for part in config[len(head) :]]
    if not isinstance(config, dict):
        return config
    return {
        key: plain(part) if key == "name" and isinstance(part, str) else _renamed(part) for key, part in config.items()
    }


def _modern(config: Any) -> Any:
    if isinstance(config, list):
        return [_modern(part) for part in config]
    if not isinstance(config, dict):
        return config
    name = config.get("class_name")
    if name == "__tuple__":
        return _modern(config.get("items"))
    if name == "function":
        own = str(config.get("registered_name"))
        return _function(own) if ">" in own else config.get("config")
    if name == "Policy":
        return config.get("config", {}).get("name")
    if not isinstance(name, str):
        return {key: _modern(part) for key, part in config.items()}
    if name == "ThresholdedReLU" and isinstance(config.get("config"), dict):
        config = {**config, "class_name": (name := "ReLU"), "config": _threshold(config["config"])}
    if name == "Sequential":
        config = {**config, "config": _with_input(config.get("config"))}
    elif name in ("Functional", "Model") and isinstance(config.get("config"), dict):
        config = {**config, "config": keras2_calls.modern(config["config"])}
    elif name in keras2_operations.CLASSES and (operation := keras2_operations.modern(config)):
        return operation
    kept = {key: _modern(part) for key, part in config.items() if key not in _ADDED}
    if isinstance(kept.get("config"), dict):
        kept["config"] = _modern_settings(name, kept["config"])
    return {**repair(kept), **_modern_name(name, config.get("registered_name"))}


def placed(config: Any) -> Any:
    """Says of every object where its class is, as ``.h5`` files of Keras 3 do not.

    Args:
        config: the JSON data; it is not changed.

    Returns:
        The data with a module for every class.

    Example:
        >>> placed({"class_name": "Dense", "config": {}})["module"]
        'keras.layers'
    """
    if isinstance(config, list):
        return [placed(part) for part in config]
    if not isinstance(config, dict):
        return config
    name = config.get("class_name")
    config = {key: placed(part) for key, part in config.items()}
    if not isinstance(name, str) or "module" in config or name.startswith("__") or "config" not in config:
        return config
    return {**config, **_modern_name(name, config.get("registered_name"))}


def _modern_name(name: str, registered: Any) -> dict[str, Any]:
    if name in ("Functional", "Model", "Sequential"):
        return {"module": "keras", "class_name": "Sequential" if name == "Sequential" else "Model"}
    own = registered if isinstance(registered, str) and ">" in registered else name
    place = next((place for place in _PLACES if name in vars(getattr(keras, place))), None)
    if own != name or place is None:
        return {"module": None, "class_name": name, "registered_name": own}
    return {"module": f"keras.{place}", "class_name": name, "registered_name": None}


def _function(name: str) -> dict[str, Any]:
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": name}


def _modern_settings(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    renamed = _RENAMED.get(name, {})
    settings = {renamed.get(key, key): value for key, value in settings.items()}
    for key in ("activation", "recurrent_activation"):
        if settings.get(key) == "hard_sigmoid":
            settings[key] = _function(HARD_SIGMOID)
    if name in ("GRU", "GRUCell"):
        # Files that do not say it are older than the choice.
        settings.setdefault("reset_after", False)
    shape = settings.pop("batch_input_shape", None)
    if name == "InputLayer" and shape is not None:
        settings["batch_shape"] = shape
    return settings


def _threshold(settings: dict[str, Any]) -> dict[str, Any]:
    return {**{key: part for key, part in settings.items() if key != "theta"}, "threshold": settings.get("theta", 1.0)}


def _with_input(settings: Any) -> Any:
    """Gives a Sequential an input layer where its first layer alone has the shape."""
    settings = {"name": "sequential", "layers": settings} if isinstance(settings, list) else settings
    layers = settings.get("layers") if isinstance(settings, dict) else None
    first = layers[0] if isinstance(layers, list) and layers else None
    if not isinstance(first, dict) or first.get("class_name") == "InputLayer":
        return settings
    config = first.get("config")
    if not isinstance(config, dict) or "batch_input_shape" not in config:
        return settings
    dtype = {"dtype": config["dtype"]} if isinstance(config.get("dtype"), str) else {}
    given = {"batch_input_shape": config["batch_input_shape"], "name": f"{config.get('name')}_input", **dtype}
    return {**settings, "layers": [{"class_name": "InputLayer", "config": given}, *(layers or [])]}


def repair(config: Any) -> Any:
    """Drops from a Keras 2 configuration what Keras 3 does not know and what changes nothing.

    Args:
        config: the JSON data; it is not changed.

    Returns:
        The repaired data.

    Raises:
        LoadError: such a setting has a value that does change something.

    Example:
        >>> repair({"class_name": "DepthwiseConv2D", "config": {"name": "dw", "groups": 1}})
        {'class_name': 'DepthwiseConv2D', 'config': {'name': 'dw'}}
    """
    if isinstance(config, list):
        return [repair(part) for part in config]
    if not isinstance(config, dict):
        return config
    config = {key: repair(part) for key, part in config.items()}
    name, settings = config.get("class_name"), config.get("config")
    if not isinstance(name, str) or not isinstance(settings, dict):
        return config
    _refuse(name, settings)
    config = keras2_operations.placed(config)
    dropped = {*_HARMLESS.get(name, ()), *_UNUSED.get(name, ())}
    settings = {key: value for key, value in settings.items() if key not in dropped}
    if name == "BatchNormalization" and isinstance(settings.get("axis"), list) and len(settings["axis"]) == 1:
        settings["axis"] = settings["axis"][0]
    if name == "Sequential" and isinstance(settings.get("layers"), list):
        settings["layers"] = _without_repeated_shape(settings["layers"])
    return {**config, "config": settings}


def _refuse(name: str, settings: dict[str, Any]) -> None:
    for key, harmless in _HARMLESS.get(name, {}).items():
        if settings.get(key, harmless) != harmless:
            raise LoadError(
                f"The layer {settings.get('name', name)!r} uses a setting of Keras 2 that Keras 3 does not have.",
                expected=f"{name} with {key}={harmless!r}",
                received=f"{key}={settings[key]!r}",
                fix=f"rebuild the model with keras {keras.__version__} and load the weights into it.",
            )


def _without_repeated_shape(layers: list[Any]) -> list[Any]:
    # Only where the input layer says it too: older files have the shape on the first layer alone.
    if not layers or not isinstance(layers[0], dict) or layers[0].get("class_name") != "InputLayer":
        return layers
    return [layers[0]] + [
        {**layer, "config": {key: value for key, value in layer["config"].items() if key != "batch_input_shape"}}
        for layer in layers[1:]
    ]
