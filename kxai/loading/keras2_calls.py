"""How the layers of a functional model of Keras 2 are called, told in the words of Keras 3."""

from __future__ import annotations

from typing import Any

_MODELS = {"Functional", "Sequential", "Model"}
_RECURRENT = {"SimpleRNN", "LSTM", "GRU", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Bidirectional"}


def modern(settings: dict[str, Any]) -> dict[str, Any]:
    """Translates the calls in the configuration of a functional model.

    Keras 2 counts the calls of a model within a model from 1, because it notes its own inputs as a call. Keras 3
    counts them from 0, but for the outputs of a model that is not sequential, where it subtracts the 1 itself.

    Args:
        settings: the model's ``config``, as Keras 2 wrote it.

    Returns:
        The settings with the calls as Keras 3 writes them.

    Example:
        >>> layers = [{"name": "a", "class_name": "InputLayer", "inbound_nodes": []},
        ...           {"name": "b", "class_name": "ReLU", "inbound_nodes": [[["a", 0, 0, {}]]]}]
        >>> found = modern({"layers": layers, "input_layers": [["a", 0, 0]], "output_layers": [["b", 0, 0]]})
        >>> found["layers"][1]["inbound_nodes"][0]["args"][0]["config"]["keras_history"]
        ['a', 0, 0]
    """
    layers = settings.get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        return settings
    classes = {layer.get("name"): layer.get("class_name") for layer in layers}
    if not any(isinstance(layer.get("inbound_nodes"), list) for layer in layers):
        return settings
    inner = {name: 1 for name, of in classes.items() if of in _MODELS}
    sequential = {name: 1 for name, of in classes.items() if of == "Sequential"}
    called = [
        {
            **layer,
            "inbound_nodes": [_of_layer(layer, node, classes, inner) for node in layer.get("inbound_nodes") or []],
        }
        for layer in layers
    ]
    ends = {key: _unpacked(_ends(settings.get(key), sequential)) for key in ("input_layers", "output_layers")}
    return {**settings, "layers": called, **ends}


def _of_layer(layer: dict[str, Any], node: Any, names: dict[Any, Any], inner: dict[Any, int]) -> dict[str, Any]:
    call = _call(node, names, inner)
    inputs = call["args"][0] if call["args"] else None
    constants = (layer.get("config") or {}).get("num_constants")
    if layer.get("class_name") in _RECURRENT and isinstance(inputs, list) and not constants:
        # Keras 2 has the states among the inputs.
        return {"args": inputs[:1], "kwargs": {**call["kwargs"], "initial_state": inputs[1:]}}
    return call


def _call(node: Any, names: dict[Any, Any], inner: dict[Any, int]) -> dict[str, Any]:
    if isinstance(node, dict) and "args" in node:
        return node
    if isinstance(node, dict):
        return {"args": [{key: _tensor(part, inner) for key, part in node.items()}], "kwargs": {}}
    if node and isinstance(node[0], str):  # the call of a function
        return {"args": [_tensor(node, inner)], "kwargs": _keywords(node[3], names, inner)}
    inputs = [_tensor(part, inner) for part in node]
    keywords: Any = next((part[3] for part in reversed(node) if isinstance(part, list) and len(part) == 4), {})
    return {"args": inputs if len(inputs) == 1 else [inputs], "kwargs": _keywords(keywords, names, inner)}


def _keywords(part: Any, names: dict[Any, Any], inner: dict[Any, int]) -> Any:
    """Arguments of a call; a tensor among them stands as [layer, call, output]."""
    if isinstance(part, dict):
        return {key: _keywords(value, names, inner) for key, value in part.items()}
    if not isinstance(part, list):
        return part
    if len(part) == 3 and isinstance(part[0], str) and part[0] in names and all(type(n) is int for n in part[1:]):
        return _tensor(part, inner)
    return [_keywords(value, names, inner) for value in part]


def _tensor(part: Any, inner: dict[Any, int]) -> Any:
    name, call, output = part[:3]
    if name == "_CONSTANT_VALUE":
        return output
    history = [name, call - inner.get(name, 0), output]
    # Keras looks the tensor up by its history; shape and dtype are those of a placeholder.
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None], "dtype": "float32", "keras_history": history},
    }


def _unpacked(ends: Any) -> Any:
    """Keras 2 writes a list also where a model takes or returns one tensor."""
    return ends[0] if isinstance(ends, list) and len(ends) == 1 else ends


def _ends(part: Any, sequential: dict[Any, int]) -> Any:
    if isinstance(part, dict):
        return {key: _ends(value, sequential) for key, value in part.items()}
    if not isinstance(part, list):
        return part
    if len(part) >= 3 and isinstance(part[0], str):
        return [part[0], part[1] - sequential.get(part[0], 0), part[2]]
    return [_ends(value, sequential) for value in part]
