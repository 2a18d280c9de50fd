"""Reference values that other libraries computed, and their small models rebuilt in Keras from a description.

The files lie in ``../shared/golden``, beside the repository; tests that need them skip where they are absent.
"""

from __future__ import annotations

import json
import re
from functools import cache, cached_property
from pathlib import Path

import keras
import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parent.parent.parent / "shared" / "golden"
MODELS = ("mlp_relu", "cnn_plain", "cnn_bn", "conv1d_seq")
SAMPLES = range(3)
WEIGHTS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
_KEY = re.compile(r"/input\d(/.*)?$")


class Golden:
    """Values of one model: ``golden["zennit/zplus"]`` has shape (3, ...), one row per input."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._file = np.load(FOLDER / f"{name}.npz")
        self.spec = json.loads(str(self._file["meta/spec"]))
        self.target = int(self._file["meta/target"])
        self.x = self._file["inputs/x"].astype("float64")

    @cached_property
    def baseline(self) -> np.ndarray:
        """The peers' reference input where it is not zero."""
        return self._file["inputs/baseline"].astype("float64")

    @property
    def background(self) -> np.ndarray:
        """Several references, (count, ...)."""
        return self._file["inputs/background"].astype("float64")

    @cached_property
    def keys(self) -> list[str]:
        """All keys that hold one array per input."""
        return sorted({_KEY.sub("", key) for key in self._file.files if _KEY.search(key)})

    def __getitem__(self, key: str) -> np.ndarray:
        return np.stack([self._file[f"{key}/input{i}"] for i in SAMPLES])

    def noise(self, key: str) -> float:
        """How far the peer's own float32 run is from its float64 run, relative, the worst of the inputs."""
        noise = json.loads(str(self._file["meta/noise32"]))
        return max(value for path, value in noise.items() if _KEY.sub("", path) == key)

    @cached_property
    def logits(self) -> np.ndarray:
        """The explained logit of each input."""
        return self["logits"][:, self.target]

    @cached_property
    def model(self) -> keras.Model:
        """The model in float64, which is what the peers computed in."""
        tensors, layers = {}, []
        for spec in self.spec["layers"]:
            if spec["type"] == "Input":
                tensors[spec["name"]] = keras.Input(spec["input_shape"], name=spec["name"], dtype="float64")
                continue
            layer = _layer(spec)
            (source,) = spec["inbound"]
            tensors[spec["name"]] = layer(tensors[source])
            layers.append(layer)
        (source,) = self.spec["inputs"]
        model = keras.Model(tensors[source], tensors[self.spec["output"]], name=self.name)
        for layer in layers:
            paths = [f"weights/{layer.name}/{weight}" for weight in WEIGHTS]
            layer.set_weights([self._file[path] for path in paths if path in self._file.files])
        return model


def _layer(spec: dict) -> keras.Layer:
    options = {key: value for key, value in spec.items() if key not in ("type", "inbound", "input_shape")}
    return getattr(keras.layers, spec["type"])(**options, dtype="float64")


@cache
def golden(name: str) -> Golden:
    """The values of one model; skips the calling test where the files are absent."""
    if not (FOLDER / f"{name}.npz").is_file():
        pytest.skip(f"the reference values are not there: no {FOLDER}")
    return Golden(name)
