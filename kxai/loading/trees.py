"""What files of Keras 2 hold, ordered by layer: ``model.weights.h5``, and the checkpoint of a SavedModel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from kxai.backend import Checkpoint
from kxai.errors import LoadError
from kxai.loading import keras2
from kxai.loading.weights import Node, Stored, counted

_LAYERS = "_layer_checkpoint_dependencies"
_MODELS = {"Functional", "Sequential", "Model"}
_WAYS = 50
# State of the training, and of random numbers that no prediction uses.
_NOT_LAYERS = {"optimizer", "metrics", "compiled_loss", "compiled_metrics", "_random_generator", "random_generator"}
# Collections by which Keras 2 reaches the same variables once more.
_REPEATED = {
    "keras_api",
    "variables",
    "trainable_variables",
    "non_trainable_variables",
    "regularization_losses",
    "signatures",
    "layers",
}


def is_keras2(stored: h5py.File) -> bool:
    """Whether an HDF5 file of weights has the layout of Keras 2.14's ``.keras``.

    Args:
        stored: the open file.
    """
    return _LAYERS in stored


def from_hdf5(group: h5py.Group, config: dict[str, Any]) -> Node:
    """Reads where the weights of a model lie in ``model.weights.h5``.

    Keras 2 names the group of a layer by its class and counts those of the same class, in the order of the layers.

    Args:
        group: of the model; it stays open until the weights are read.
        config: of the model as Keras 2 wrote it.

    Returns:
        The tree.
    """
    node = _plain(group)
    if config.get("class_name") not in _MODELS or _LAYERS not in group:
        # A layer around a model has it by the name of its setting.
        around = {name: part for name, part in _settings(config).items() if isinstance(part, dict) and name in group}
        models = {
            name: from_hdf5(group[name], part) for name, part in around.items() if part.get("class_name") in _MODELS
        }
        return Node(node.variables, {**node.children, **models})
    groups = dict(group[_LAYERS].items())
    children = {name: child for name, child in node.children.items() if name != _LAYERS}
    layers = _layers(config)
    for layer, place in zip(layers, counted(str(layer.get("class_name")) for layer in layers), strict=True):
        if place in groups:
            children[_name(layer)] = from_hdf5(groups.pop(place), layer)
    # What no layer claims stays in the tree and is found out there.
    children.update({f"{_LAYERS}/{place}": _plain(left) for place, left in groups.items()})
    return Node(node.variables, children)


def _plain(group: h5py.Group) -> Node:
    variables = {name: _dataset(item) for name, item in group.get("vars", {}).items()}
    inner = {name: item for name, item in group.items() if isinstance(item, h5py.Group) and name != "vars"}
    return Node(variables, {name: _plain(item) for name, item in inner.items() if name not in _NOT_LAYERS})


def _dataset(item: h5py.Dataset) -> Stored:
    return Stored(item.name, tuple(item.shape), lambda: np.asarray(item[()]))


def _layers(config: dict[str, Any]) -> list[dict[str, Any]]:
    layers = config["config"]["layers"]
    return [layer for layer in layers if isinstance(layer, dict)]


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    settings = config.get("config")
    return settings if isinstance(settings, dict) else {}


def _name(layer: dict[str, Any]) -> str:
    return keras2.plain(str(layer.get("name") or layer["config"]["name"]))


def from_checkpoint(checkpoint: Checkpoint, names: dict[str, str]) -> Node:
    """Reads where the weights of a model lie in the checkpoint of a SavedModel.

    Args:
        checkpoint: the checkpoint.
        names: from the paths of a model's layers, such as ``"root.layer-1"``, to their names.

    Returns:
        The tree.
    """
    layers = {}
    for path, name in names.items():
        place = checkpoint.find(path.split(".")[1:])
        if place is not None:
            layers[place] = keras2.plain(name)
    # A few names for a layer are usual; with a few for each object, the ways would be more than can be followed.
    return _from_object(checkpoint, 0, layers, (), iter(range(_WAYS * len(checkpoint))))


def _from_object(
    checkpoint: Checkpoint, number: int, layers: dict[int, str], above: tuple[int, ...], ways: Iterator[int]
) -> Node:
    if next(ways, None) is None:
        raise LoadError(
            "The objects of the checkpoint refer to each other in too many ways.",
            expected=f"at most {_WAYS} for each of {len(checkpoint)} objects",
            received="more",
            fix="do not use this folder: Keras does not write such checkpoints.",
        )
    named: dict[str, str] = {}
    children = {}
    for key, child in checkpoint.children(number).items():
        if key in _REPEATED or key in _NOT_LAYERS or child in (*above, number):
            continue
        place = checkpoint.variable(child)
        if place is not None:
            # Of several names for one variable counts the one by which the checkpoint calls it.
            if place not in named or f"/{key}/.ATTRIBUTES" in place:
                named[place] = key
        else:
            # A layer of a model is there as layer-1 and, if it has weights, as layer_with_weights-0.
            name = layers.get(child, key) if re.match(r"layer(_with_weights)?-\d+$", key) else key
            children[name] = _from_object(checkpoint, child, layers, (*above, number), ways)
    return Node({key: _tensor(checkpoint, place) for place, key in named.items()}, children)


def _tensor(checkpoint: Checkpoint, place: str) -> Stored:
    return Stored(place, checkpoint.shape(place), lambda: checkpoint.read(place))
