"""The network and the test images of the DeepLIFT paper's experiment on MNIST, read from a folder."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

WEIGHTS = "mnist_w.npz"
IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
PUBLISHED = "expected.json"
ARRAYS = tuple(
    f"{layer}_{part}" for layer in ("conv2d_1", "conv2d_2", "dense_1", "dense_2") for part in ("kernel", "bias")
)
_UNSIGNED_BYTES = 8


class DigitsError(Exception):
    """The folder does not hold what it should."""


@dataclass(frozen=True, eq=False)
class Digits:
    """What a folder holds.

    Attributes:
        model: 28 x 28 x 1 pixels, 0..255 as they are, to ten logits.
        images: (count, 28, 28, 1) float32, 0..255.
        labels: (count,) of 0..9.
        published: by conversion ("8->3") and the notebook's name of a method, the ten images whose log-odds change
            most; empty where the folder holds no ``expected.json``.
    """

    model: keras.Model
    images: np.ndarray
    labels: np.ndarray
    published: dict[str, dict[str, list[int]]]


def read(folder: Path) -> Digits:
    """Weights, images, labels and the published lists of a folder.

    Raises:
        DigitsError: a file is missing or has another form.
    """
    images = idx(folder, IMAGES, axes=3)[..., None].astype("float32")
    labels = idx(folder, LABELS, axes=1).astype(int)
    if len(images) != len(labels):
        raise DigitsError(f"{folder}: {len(images)} images, but {len(labels)} labels")
    published = {}
    if (folder / PUBLISHED).is_file():
        published = json.loads((folder / PUBLISHED).read_text(encoding="utf-8"))
    return Digits(network(folder), images, labels, published.get("top10_test_indices_by_change_in_logodds", {}))


def network(folder: Path) -> keras.Model:
    """The network: two convolutions of stride 2, two dense layers, ReLUs; its outputs are logits."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise DigitsError(f"{folder}: there is no {WEIGHTS}")
    stack = [
        layers.Conv2D(32, 4, strides=2, activation="relu"),
        layers.Conv2D(64, 4, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dense(128, "relu"),
        layers.Dense(10),
    ]
    model = keras.Sequential([keras.Input((28, 28, 1)), *stack], name="digits")
    with np.load(path) as arrays:
        missing = [name for name in ARRAYS if name not in arrays.files]
        if missing:
            raise DigitsError(f"{path}: there is no array {', '.join(missing)}")
        weights = [arrays[name] for name in ARRAYS]
    for name, weight, variable in zip(ARRAYS, weights, model.weights, strict=True):
        if weight.shape != tuple(variable.shape):
            raise DigitsError(f"{path}: {name} has shape {weight.shape}, not {tuple(variable.shape)}")
    model.set_weights(weights)
    return model


def idx(folder: Path, name: str, axes: int) -> np.ndarray:
    """An array of bytes in MNIST's own format, packed with gzip or not."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return _parsed(
                gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes(), path, axes
            )
    raise DigitsError(f"{folder}: there is neither {name} nor {name}.gz")


def _parsed(data: bytes, path: Path, axes: int) -> np.ndarray:
    head = 4 + 4 * axes
    shape: Any = np.frombuffer(data[4:head], ">u4")
    if data[:4] != bytes([0, 0, _UNSIGNED_BYTES, axes]) or len(data) != head + int(np.prod(shape, dtype=np.int64)):
        raise DigitsError(f"{path}: expected MNIST's idx format, unsigned bytes on {axes} axes")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
