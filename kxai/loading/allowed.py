"""What a configuration may name when its file is not trusted.

Keras turns a configuration into objects by name. Here every name is looked up beforehand: it has to be a layer,
an activation or another building block of Keras itself, or something that the caller gave or registered.
Nothing is imported on a file's behalf.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import keras

from kxai.errors import LoadError
from kxai.loading.request import Request

_BLOCKS = (
    keras.Operation,
    keras.Initializer,
    keras.Regularizer,
    keras.constraints.Constraint,
    keras.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.Loss,
    keras.Metric,
    keras.DTypePolicy,
    keras.Quantizer,
    # Keras 3.12 has no such class, and writes none.
    getattr(keras.quantizers, "QuantizationConfig", keras.Quantizer),
    keras.random.SeedGenerator,
)
# Layers that hold or fetch a program of their own.
_PROGRAMS = ("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
_OPERATIONS_OF_KERAS2 = {"TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "TensorFlowOpLayer"}
_PLACES = (
    "layers models initializers regularizers constraints optimizers optimizers.schedules losses metrics dtype_policies "
    "quantizers"
)
_FUNCTIONS = "activations ops initializers regularizers constraints losses metrics"
_NOT_FUNCTIONS = {"get", "serialize", "deserialize"}
# Settings that name a file which Keras opens when the layer is made.
_FILES = ("vocabulary", "idf_weights", "merges", "filepath")
_LOOKUPS = ("StringLookup", "IntegerLookup", "TextVectorization")
_OTHER_WORDS = 10**6
_PLAIN = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__tuple__"}
_ARRAYS = {"__keras_tensor__", "__tensor__", "__numpy__"}
_DTYPES = (
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64 complex64 complex128 "
    "string"
)


def check(config: dict[str, Any], request: Request) -> None:
    """Refuses a configuration that names anything but building blocks of models.

    Args:
        config: of the model, as Keras 2 or Keras 3 writes it.
        request: what the caller gave.

    Raises:
        LoadError: it holds code, names files or other things, or objects that are not known.
    """
    objects = list(_objects({key: part for key, part in config.items() if key != "compile_config"}))
    _check_code(objects, request)
    _check_files(objects, request)
    _check_numbers(objects, request)
    if operations := sorted({_function(item) for item in objects if item["class_name"] in _OPERATIONS_OF_KERAS2}):
        raise LoadError(
            f"{request.path} calls TensorFlow's functions, as Keras 2 writes them, which Keras 3 does not have.",
            expected="layers, and functions that keras.ops has, too",
            received=", ".join(operations[:10]),
            fix="write the model with layers or keras.ops in place of tf functions and load the weights into it."
            + _or_closed(request),
        )
    _check_names(objects, request)
    _check_calls(objects, request)


def without_words(config: dict[str, Any]) -> list[str]:
    """The layers that look up words in a vocabulary which the configuration does not state.

    Args:
        config: of the model.

    Returns:
        Their names.
    """
    found = [item for item in _objects(config) if item["class_name"] in _LOOKUPS]
    return [str(_settings(item).get("name")) for item in found if _settings(item).get("vocabulary") is None]


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields every described object in a configuration."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield {**config, "class_name": str(config["class_name"])}
        for part in config.values():
            yield from _objects(part)
    elif isinstance(config, list):
        for part in config:
            yield from _objects(part)


def _settings(item: dict[str, Any]) -> dict[str, Any]:
    settings = item.get("config")
    return settings if isinstance(settings, dict) else {}


def _check_code(objects: list[dict[str, Any]], request: Request) -> None:
    carriers = [item for item in objects if item["class_name"] == "Lambda" and not _names_function(item, request)]
    carriers += [item for item in objects if item["class_name"] == "__lambda__" and not carriers]
    if carriers:
        names = sorted({repr(_settings(item).get("name", "lambda")) for item in carriers})
        raise LoadError(
            f"{request.path} holds Python code that loading would run.",
            expected="no Lambda layers in safe mode",
            received=f"Lambda layers {', '.join(names)}",
            fix="only if you trust the origin of this file: load it with safe_mode=False. Better: replace the Lambda "
            "layers by keras.ops or by a layer of your own." + _or_closed(request),
        )
    if programs := sorted({item["class_name"] for item in objects if item["class_name"] in _PROGRAMS}):
        raise LoadError(
            f"{request.path} holds layers that run programs which are not made of layers.",
            expected=f"none of {', '.join(_PROGRAMS)} in safe mode",
            received=", ".join(programs),
            fix="only if you trust the origin of this file: load it with safe_mode=False.",
        )


def _names_function(item: dict[str, Any], request: Request) -> bool:
    """Whether a Lambda layer names a function that the caller knows, and carries none itself."""
    functions = [_settings(item).get(key) for key in ("function", "mask", "output_shape")]
    given = [part for part in functions if isinstance(part, (str, dict))]
    names = [part.get("config") if isinstance(part, dict) else part for part in given]
    coded = any(isinstance(part, list) and part and isinstance(part[0], str) for part in functions)
    return bool(names) and not coded and all(isinstance(name, str) and request.knows(name) for name in names)


def _check_files(objects: list[dict[str, Any]], request: Request) -> None:
    for item in objects:
        for key in _FILES:
            if isinstance(value := _settings(item).get(key), str):
                raise LoadError(
                    f"{request.path} names a file or address that Keras would open.",
                    expected=f"{key} with values, or none in safe mode",
                    received=f"{key}={value[:200]!r} of {item['class_name']}",
                    fix="only if you trust the origin of this file: load it with safe_mode=False.",
                )


def _function(item: dict[str, Any]) -> str:
    return str(_settings(item).get("function") or _settings(item).get("name") or item["class_name"])


def _check_numbers(objects: list[dict[str, Any]], request: Request) -> None:
    # Keras makes a list of so many entries as soon as the layer is made.
    for item in objects:
        count = _settings(item).get("num_oov_indices")
        if item["class_name"] in _LOOKUPS and isinstance(count, (int, float)) and count > _OTHER_WORDS:
            raise LoadError(
                f"{request.path} describes a layer with more places for unknown words than any has.",
                expected=f"num_oov_indices of at most {_OTHER_WORDS}",
                received=f"{count} of {_settings(item).get('name')!r}",
                fix="do not use this file, unless you trust its origin: then safe_mode=False loads it.",
            )


def _check_names(objects: list[dict[str, Any]], request: Request) -> None:
    unknown = [item for item in objects if not _is_allowed(item, request)]
    own = [item for item in unknown if _module(item).split(".")[0] == "keras"]
    if own:
        names = sorted({f"{_module(item)}.{_name(item)}" for item in own})
        raise LoadError(
            f"{request.path} names parts of Keras that do not belong into a model.",
            expected="layers, activations, initializers and their like",
            received=", ".join(names[:10]),
            fix="do not use this file, unless it comes from another version of Keras and you trust its origin: "
            "then safe_mode=False loads it.",
        )
    if unknown:
        names = list(dict.fromkeys(_name(item) for item in unknown))
        modules = sorted({_module(item) for item in unknown} - {""})
        given = f"custom_objects with {', '.join(sorted(request.custom_objects)) or 'nothing in it'}"
        raise LoadError(
            f"{request.path} uses objects that are not part of Keras: {', '.join(names[:10])}.",
            expected="their classes or functions",
            received=given + (f"; the file names the modules {', '.join(modules[:5])}" if modules else ""),
            fix=f"import them and pass custom_objects={{{names[0]!r}: ...}}, "
            "or register them with keras.saving.register_keras_serializable before loading." + _or_closed(request),
        )


def _check_calls(objects: list[dict[str, Any]], request: Request) -> None:
    # A layer that is called on values alone computes as soon as it is made, whatever the size of the result.
    for item in objects:
        for call in item.get("inbound_nodes") or []:
            if isinstance(call, dict) and not any(part["class_name"] == "__keras_tensor__" for part in _objects(call)):
                raise LoadError(
                    f"{request.path} calls a layer on no output of another.",
                    expected="calls that depend on the inputs",
                    received=f"constants alone for {item.get('name') or item['class_name']!r}",
                    fix="do not use this file: Keras does not write such models.",
                )


def _or_closed(request: Request) -> str:
    return " As a black box, without its layers: endpoint='serving_default'." if request.path.is_dir() else ""


def _is_allowed(item: dict[str, Any], request: Request) -> bool:
    name = item["class_name"]
    if name in _ARRAYS:
        return _settings(item).get("dtype", "float32") in (*_DTYPES.split(), None)
    if name in _PLAIN:
        return True
    if name == "function":
        return request.knows(_name(item)) or _is_function(_module(item), _name(item))
    if not isinstance(item.get("config", {}), (dict, type(None))):
        return False
    return request.knows(_name(item)) or request.knows(name) or _is_block(_module(item), name)


def _module(item: dict[str, Any]) -> str:
    module = item.get("module")
    return str(module) if module is not None else ""


def _name(item: dict[str, Any]) -> str:
    if item["class_name"] == "function":
        return str(item.get("config"))
    return str(item.get("registered_name") or item["class_name"])


def _is_function(module: str, name: str) -> bool:
    """Whether a name is one of Keras' activations, operations, losses and their like."""
    places = [f"keras.{place}" for place in _FUNCTIONS.split()]
    searched = places if module in ("", "builtins") else [place for place in places if place == module]
    found = [vars(sys.modules[place])[name] for place in searched if name in vars(sys.modules[place])]
    return name not in _NOT_FUNCTIONS and any(callable(one) and not isinstance(one, type) for one in found)


def _is_block(module: str, name: str) -> bool:
    """Whether a name is a class of Keras that belongs into a model; what Keras 2 wrote is looked up by name."""
    if name == "Functional":
        return module.split(".")[0] in ("", "keras")
    places = [module]
    if not module or module.startswith(("keras.src.engine", "keras.engine", "keras.layers", "keras.src.layers")):
        places += ["keras", *(f"keras.{place}" for place in _PLACES.split())]
    searched = [place for place in places if place.split(".")[0] == "keras" and place in sys.modules]
    found = [vars(sys.modules[place]).get(name) for place in searched]
    return any(isinstance(one, type) and issubclass(one, _BLOCKS) and _is_own(one) for one in found)


def _is_own(block: type) -> bool:
    return block.__module__.split(".")[0] == "keras"
