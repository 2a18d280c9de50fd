"""Model files of Keras 2 (``.h5``): the few settings that Keras 3 no longer knows, taken out of a copy of the file.

Keras 2 wrote settings into every layer that only some layers had a use for, such as ``groups=1`` into a depthwise
convolution. Keras 3 refuses a setting that it does not know. Those here are dropped where they have the value
that changes nothing, and named in an error where they have another.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from kxai.errors import LoadError

_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
_UNGROUPED = ("DepthwiseConv1D", "DepthwiseConv2D", *_SEPARABLE, *(f"Conv{n}DTranspose" for n in (1, 2, 3)))
_RECURRENT = ("SimpleRNN", "LSTM", "GRU", "RNN")

_HARMLESS: dict[str, dict[str, Any]] = {
    **{name: {"groups": 1} for name in _UNGROUPED},
    **{name: {"time_major": False} for name in _RECURRENT},
}
# A separable convolution has depthwise and pointwise kernels; these belong to a kernel that it does not have.
_UNUSED = dict.fromkeys(_SEPARABLE, ("kernel_initializer", "kernel_regularizer", "kernel_constraint"))


def read_config(path: Path) -> dict[str, Any] | None:
    """Reads the configuration of the model in an HDF5 file.

    Args:
        path: the file.

    Returns:
        The configuration; None if the file holds none (weights only, or not written by Keras).

    Raises:
        OSError: the file is not HDF5 or is truncated.
    """
    with h5py.File(path, "r") as stored:
        text = stored.attrs.get("model_config")
    return None if text is None else json.loads(text)


@contextlib.contextmanager
def loadable(path: Path) -> Iterator[Path]:
    """Gives a path that Keras 3 can load: the file's own, or that of a repaired temporary copy.

    Args:
        path: an HDF5 file.

    Yields:
        The path; a copy is deleted at the end.

    Raises:
        LoadError: a layer uses a setting that Keras 3 cannot reproduce.
        OSError: the file is not HDF5 or is truncated.
    """
    config = read_config(path)
    repaired = None if config is None else repair(config)
    if repaired == config:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="kxai-") as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
        with h5py.File(copy, "r+") as stored:
            stored.attrs["model_config"] = json.dumps(repaired).encode()
        yield copy


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
