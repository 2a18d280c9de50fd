"""The networks of keras.applications with random weights, made so that their outputs depend on every layer.

Freshly initialised networks are poor test objects: batch normalisation assumes statistics that are not true, biases
are zero, the residual branches of some are scaled to almost nothing. ``build`` mends all that.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from scripts.sequence_networks import SEQUENCE_NETWORKS
from scripts.small_network import small

OTHERS = {**SEQUENCE_NETWORKS, "Small": small}
SMALLEST = {"Inception": 96, "Xception": 96, "ConvNeXt": 32}  # the first two take no less than 75 and 71


def names() -> list[str]:
    """All architectures that keras.applications offers, in alphabetical order."""
    return sorted(name for name, value in vars(keras.applications).items() if inspect.isfunction(value))


def build(name: str, size: int | None = None, dtype: str = "float32", seed: int = 0, samples: int = 16) -> Any:
    """Build an architecture with random weights and calibrated normalisation.

    Args:
        name: one of :func:`names`, or a key of ``OTHERS``.
        size: height and width (or length) of the input; None: small, 32 to 96.
        dtype: "float32" or "float64".
        seed: of weights and calibration data.
        samples: how many inputs the normalisation is calibrated on.
    """
    keras.utils.set_random_seed(seed)
    if size is None:
        size = next((length for stem, length in SMALLEST.items() if name.startswith(stem)), 64)
    with default_dtype(dtype):
        if name in OTHERS:
            return OTHERS[name](size)
        model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3))
        calibrate(model, sample(model, samples, seed), seed)
    return model


def exact_dtype(name: str) -> str:
    """The precision in which to compare gradients of an architecture.

    In float32 the compiled and the eager forward pass differ in the last digit, and a few of a deep network's ReLUs
    then fall on the other side of 0. ConvNeXt has none, and its large depthwise convolutions are slow in float64.
    """
    return "float32" if name.startswith("ConvNeXt") else "float64"


@contextlib.contextmanager
def default_dtype(name: str) -> Iterator[None]:
    """Layers that are made inside have this precision."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(name)
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def bounds(model: Any) -> tuple[float, float]:
    """Lowest and highest input: pixels where the model scales its input itself, else -1 and 1."""
    scales = any(isinstance(layer, (layers.Rescaling, layers.Normalization)) for layer in model.layers[:4])
    return (0.0, 255.0) if scales else (-1.0, 1.0)


def sample(model: Any, count: int, seed: int = 0) -> Any:
    """Random inputs in the range that the model takes: numbers within :func:`bounds`, small ids for integer inputs.

    One array, or a list of arrays for several inputs; axes of free size get 32.
    """
    random, (low, high) = np.random.default_rng(seed), bounds(model)
    arrays = []
    for tensor in model.inputs:
        shape = (count, *(size or 32 for size in tensor.shape[1:]))
        integers = "int" in tensor.dtype
        array = random.integers(1, 10, shape) if integers else random.uniform(low, high, shape)
        arrays.append(array.astype(tensor.dtype))
    return arrays[0] if len(arrays) == 1 else arrays


def first_map(model: Any) -> Any:
    """The first layer of a convolutional network whose map is smaller than the input."""
    height = model.inputs[0].shape[1]
    maps = [layer for layer in model.layers if len(layer.output.shape) == 4 and layer.output.shape[1] < height]
    if not maps:
        raise LookupError(f"{model.name} has no map that is smaller than its input")
    return maps[0]


def calibrate(model: Any, x: np.ndarray, seed: int = 0) -> None:
    """Give random factors and biases, then batch statistics of ``x``: no signal vanishes or explodes."""
    random = np.random.default_rng(seed)
    normalising = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    for variable in model.trainable_variables:
        if variable.name == "gamma":
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "bias"):
            variable.assign(random.normal(0, 0.1, variable.shape))
        elif variable.name == "kernel" and not normalising:
            variable.assign(variable * 2**0.5)  # what a ReLU halves
    momenta = [layer.momentum for layer in normalising]
    for layer in normalising:
        layer.momentum = 0.0
    model(x, training=True)
    for layer, momentum in zip(normalising, momenta, strict=True):
        layer.momentum = momentum
    head = model.layers[-1]
    if isinstance(head, layers.Dense):  # logits of unit size: a saturated softmax has no gradient
        logits = keras.Model(model.input, head.input)(x) @ head.kernel
        head.kernel.assign(head.kernel / np.std(logits))
