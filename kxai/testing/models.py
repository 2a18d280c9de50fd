"""Small models of every structure that Keras offers, with fixed weights and inputs: what the checks run on.

Each function builds a fresh :class:`Case`. ``ALL`` lists those that every method should explain, ``CORE`` the few that
cover the most; ``ATTENTION`` is for methods that read attention weights; ``TWINS`` holds pairs of models that compute
the same in two ways.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np
from keras import layers, ops

SAMPLES = 4


@final
@dataclass(frozen=True, eq=False)
class Case:
    """A model with inputs and a target to explain.

    Args:
        name: for messages.
        model: built, with fixed weights.
        inputs: arrays for :meth:`kxai.Analyzer.explain`, at least two samples.
        target: the same for all samples; default None, the predicted class.

    Example:
        >>> mlp().inputs.shape
        (4, 6)
    """

    name: str
    model: keras.Model
    inputs: Any
    target: Any = None


Builder = Callable[[], Case]


def seeded(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give a model fixed weights of both signs (variances and scales positive).

    Args:
        model: built.
        seed: of the random numbers.

    Returns:
        The same model.

    Example:
        >>> model = seeded(keras.Sequential([keras.Input((2,)), layers.Dense(1)]))
        >>> model.get_weights()[0].shape
        (2, 1)
    """
    random = np.random.default_rng(seed)
    for weight in model.weights:
        positive = weight.path.endswith(("variance", "gamma"))
        fan_in = max(1.0, np.prod(weight.shape[:-1]))
        values = random.uniform(0.5, 1.5, weight.shape) if positive else random.normal(size=weight.shape) / fan_in**0.5
        if len(weight.shape) == 1 and not positive:
            values = 0.2 * np.abs(values) * (-1.0) ** np.arange(len(values))
        weight.assign(values)
    return model


def numbers(*shape: int, seed: int = 1, samples: int = SAMPLES) -> np.ndarray:
    """Fixed inputs between -1 and 1.

    Args:
        shape: of one sample.
        seed: of the random numbers.
        samples: how many.

    Returns:
        float32 array (samples, *shape).

    Example:
        >>> numbers(2, 3).shape
        (4, 2, 3)
    """
    return np.random.default_rng(seed).uniform(-1, 1, (samples, *shape)).astype("float32")


def _case(name: str, model: keras.Model, inputs: Any, target: Any = None) -> Case:
    return Case(name, seeded(model), inputs, target)


def mlp() -> Case:
    """Dense layers, softmax at the end."""
    hidden = [layers.Dense(8, "relu"), layers.Dense(6), layers.ReLU()]
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, "softmax")], name="mlp")
    return _case("mlp", model, numbers(6))


def cnn() -> Case:
    """Convolutions of several kinds, max- and average-pooling, padding, dropout."""
    stack = [
        layers.ZeroPadding2D(1),
        layers.Conv2D(4, 3, strides=2, activation="relu"),
        layers.DepthwiseConv2D(3, padding="same", activation="relu"),
        layers.MaxPooling2D(2),
        layers.SeparableConv2D(6, 2, activation="relu"),
        layers.AveragePooling2D(2, padding="same"),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(3, "softmax"),
    ]
    return _case("cnn", keras.Sequential([keras.Input((12, 12, 3)), *stack], name="cnn"), numbers(12, 12, 3))


def residual() -> Case:
    """A residual CNN with batch normalisation after, before and apart from convolutions."""
    x = keras.Input((8, 8, 2))
    first = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", use_bias=False)(x)))
    branch = layers.Conv2D(4, 3, padding="same")(layers.BatchNormalization()(first))
    joined = layers.ReLU()(layers.Add()([first, branch]))
    pooled = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(joined))
    model = keras.Model(x, layers.Dense(3)(pooled), name="residual")
    return _case("residual", model, numbers(8, 8, 2), target=1)


def pooled() -> Case:
    """Two channels of two by two positions, their means, and one dense unit with weights 2 and -1."""
    copy = layers.Conv2D(2, 1, use_bias=False, name="maps")
    head = layers.Dense(1, use_bias=False, name="score")
    model = keras.Sequential([keras.Input((2, 2, 2)), copy, layers.GlobalAveragePooling2D(), head], name="pooled")
    model.set_weights([np.eye(2).reshape(1, 1, 2, 2), np.array([[2.0], [-1.0]])])
    first = np.stack([[[1, 2], [0, 1]], [[0, 1], [3, 0]]], axis=-1).astype("float32")
    return Case("pooled", model, np.stack([first, first[::-1] + 0.25]), target=0)


def averaged() -> Case:
    """Signed feature maps of half the input's size, global average pooling, one dense layer with softmax."""
    maps = layers.Conv2D(4, 3, strides=2, use_bias=False, activation="tanh", name="maps")
    stack = [layers.Conv2D(6, 1, activation="relu", name="early"), maps, layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((9, 9, 2)), *stack, layers.Dense(3, "softmax")], name="averaged")
    return _case("averaged", model, numbers(9, 9, 2))


def transposed() -> Case:
    """An encoder and decoder that predicts two classes per position: dense prediction."""
    x = keras.Input((6, 6, 2))
    low = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    high = layers.Conv2DTranspose(3, 2, strides=2, activation="relu")(low)
    joined = layers.Concatenate()([high, layers.UpSampling2D(2)(low)])
    return _case("transposed", keras.Model(x, layers.Conv2D(2, 1)(joined), name="decoder"), numbers(6, 6, 2), (2, 3, 1))


def sequence() -> Case:
    """One-dimensional convolutions, causal and dilated, with length left open."""
    stack = [
        layers.Conv1D(4, 2, padding="causal", dilation_rate=2, activation="relu"),
        layers.Conv1D(4, 3, activation="relu"),
        layers.GlobalMaxPooling1D(),
        layers.Dense(2),
    ]
    return _case("sequence", keras.Sequential([keras.Input((None, 3)), *stack], name="sequence"), numbers(9, 3))


def tokens() -> Case:
    """Token ids through an embedding."""
    ids = np.random.default_rng(2).integers(0, 11, (SAMPLES, 7)).astype("int32")
    stack = [layers.Embedding(11, 5), layers.Conv1D(6, 3, activation="relu"), layers.GlobalMaxPooling1D()]
    model = keras.Sequential([keras.Input((7,), dtype="int32"), *stack, layers.Dense(2, "softmax")], name="tokens")
    return _case("tokens", model, ids)


def list_inputs() -> Case:
    """Two inputs in a list, joined by Concatenate and Subtract."""
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    left, right = layers.Dense(5, "relu")(a), layers.Dense(5, "relu")(b)
    joined = layers.Concatenate()([left, right, layers.Subtract()([left, right])])
    model = keras.Model([a, b], layers.Dense(2)(joined), name="list_inputs")
    return _case("list_inputs", model, [numbers(4), numbers(3, seed=3)], target=0)


def dict_inputs() -> Case:
    """A dict of numbers and token ids."""
    inputs = {"text": keras.Input((5,), dtype="int32", name="text"), "age": keras.Input((2,), name="age")}
    embedded = layers.Flatten()(layers.Embedding(7, 3)(inputs["text"]))
    joined = layers.Concatenate()([embedded, layers.Dense(4, "relu")(inputs["age"])])
    model = keras.Model(inputs, layers.Dense(1, "sigmoid")(joined), name="dict_inputs")
    text = np.random.default_rng(4).integers(0, 7, (SAMPLES, 5)).astype("int32")
    return _case("dict_inputs", model, {"text": text, "age": numbers(2)})


def multi_output() -> Case:
    """Two named outputs of one trunk."""
    x = keras.Input((5,))
    trunk = layers.Dense(6, "relu")(x)
    outputs = {"label": layers.Dense(3, "softmax", name="label")(trunk), "value": layers.Dense(1, name="value")(trunk)}
    return _case("multi_output", keras.Model(x, outputs, name="multi_output"), numbers(5), {"label": 2, "value": 0})


@keras.saving.register_keras_serializable("kxai.testing")
class Subclassed(keras.Model):
    """A subclassed model with ``keras.ops`` in its ``call``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.hidden, self.head = layers.Dense(6), layers.Dense(3)

    def call(self, x: Any) -> Any:
        """Two parallel uses of one hidden layer's values."""
        hidden = ops.relu(self.hidden(ops.reshape(x, (-1, 6))))
        return self.head(ops.concatenate([hidden, ops.multiply(hidden, 0.5)], axis=-1))


def subclassed() -> Case:
    """A subclassed model."""
    model = Subclassed(name="subclassed")
    model(numbers(2, 3))
    return _case("subclassed", model, numbers(2, 3))


def _block(name: str) -> list[keras.Layer]:
    return [layers.Dense(6, "relu", name=f"{name}_a"), layers.Dense(5, name=f"{name}_b"), layers.ReLU()]


def nested() -> Case:
    """A model in a model in a model."""
    inner = keras.Sequential([keras.Input((4,)), *_block("inner")], name="inner")
    x = keras.Input((4,))
    outer = keras.Model(x, layers.Dense(4, "relu", name="outer_a")(inner(x)), name="outer")
    return _case("nested", keras.Sequential([keras.Input((4,)), outer, layers.Dense(3)], name="nested"), numbers(4))


def inlined() -> Case:
    """What :func:`nested` computes, without nesting."""
    stack = [*_block("inner"), layers.Dense(4, "relu"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,)), *stack], name="inlined")
    model.set_weights(nested().model.get_weights())
    return Case("inlined", model, numbers(4))


def _twice(first: keras.Layer, second: keras.Layer, name: str) -> keras.Model:
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(2, name="head")(second(first(x))), name=name)


def shared() -> Case:
    """One layer called twice."""
    layer = layers.Dense(4, "relu", name="shared")
    return _case("shared", _twice(layer, layer, "shared"), numbers(4))


def unshared() -> Case:
    """What :func:`shared` computes, with two layers of equal weights."""
    model = _twice(layers.Dense(4, "relu"), layers.Dense(4, "relu"), "unshared")
    kernel, bias, *head = shared().model.get_weights()
    model.set_weights([kernel, bias, kernel, bias, *head])
    return Case("unshared", model, numbers(4))


def gated() -> Case:
    """Squeeze and excitation: channels scaled by a sigmoid gate; hard to explain for methods that need ReLUs."""
    x = keras.Input((6, 6, 2))
    signal = layers.Conv2D(4, 3, activation="relu")(x)
    gate = layers.Dense(4, "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(signal))
    scaled = layers.Activation("tanh")(layers.Multiply()([signal, gate]))
    return _case("gated", keras.Model(x, layers.Dense(2)(layers.Flatten()(scaled)), name="gated"), numbers(6, 6, 2))


def vgg() -> Case:
    """VGG-16 in small, with its names of layers, for methods that refer to them."""
    stack: list[keras.Layer] = []
    for block, depth in enumerate((2, 2, 3, 3, 3), start=1):
        for index in range(1, depth + 1):
            conv = layers.Conv2D(3, 3, padding="same", activation="relu", name=f"block{block}_conv{index}")
            stack.append(conv)
        stack.append(layers.MaxPooling2D(2, name=f"block{block}_pool"))
    stack += [layers.Flatten(name="flatten"), layers.Dense(4, "relu", name="fc1")]
    stack += [layers.Dense(4, "relu", name="fc2"), layers.Dense(3, "softmax", name="predictions")]
    model = keras.Sequential([keras.Input((32, 32, 3)), *stack], name="vgg16")
    return _case("vgg", model, numbers(32, 32, 3, samples=2))


def lstm() -> Case:
    """Token ids, read in both directions."""
    ids = np.random.default_rng(6).integers(1, 11, (SAMPLES, 6)).astype("int32")
    stack = [layers.Embedding(11, 5), layers.Bidirectional(layers.LSTM(4)), layers.Dense(3, "softmax")]
    return _case("lstm", keras.Sequential([keras.Input((6,), dtype="int32"), *stack], name="lstm"), ids)


def gru() -> Case:
    """A convolution over time, then a GRU that returns every step."""
    stack = [layers.Conv1D(4, 2, activation="relu"), layers.GRU(4, return_sequences=True), layers.Flatten()]
    model = keras.Sequential([keras.Input((6, 3)), *stack, layers.Dense(2)], name="gru")
    return _case("gru", model, numbers(6, 3))


def _attend(x: Any, name: str, dropout: float = 0.0) -> Any:
    attended = layers.MultiHeadAttention(2, 4, dropout=dropout, name=name)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    return layers.LayerNormalization()(layers.Add()([x, layers.Dense(6)(layers.Dense(8, "relu")(x))]))


def encoder() -> Case:
    """A transformer encoder over token ids, pooled by its mean; one layer uses fused attention, one does not."""
    ids = keras.Input((7,), dtype="int32")
    x = layers.Embedding(11, 6)(ids)
    for index, dropout in enumerate((0.0, 0.1)):
        x = _attend(x, f"attention_{index}", dropout)
    model = keras.Model(ids, layers.Dense(3, "softmax")(layers.GlobalAveragePooling1D()(x)), name="encoder")
    return _case("encoder", model, np.random.default_rng(5).integers(0, 11, (SAMPLES, 7)).astype("int32"))


@keras.saving.register_keras_serializable("kxai.testing")
class ClassToken(layers.Layer):
    """Puts a learned token before a sequence."""

    def build(self, shape: Any) -> None:
        """Makes the token."""
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")

    def call(self, x: Any) -> Any:
        """One more token than ``x``."""
        return ops.concatenate([ops.add(ops.zeros_like(x[:, :1]), self.token), x], axis=1)


def vision_transformer() -> Case:
    """Patches of 2 x 2, a class token that is read at the end."""
    x = keras.Input((4, 6, 3))
    patches = layers.Reshape((6, 6))(layers.Conv2D(6, 2, strides=2)(x))
    tokens = ClassToken(name="class_token")(patches)
    for index in range(2):
        tokens = _attend(tokens, f"attention_{index}")
    model = keras.Model(x, layers.Dense(3)(tokens[:, 0]), name="vision_transformer")
    return _case("vision_transformer", model, numbers(4, 6, 3))


@keras.saving.register_keras_serializable("kxai.testing")
class GatedUnit(layers.Layer):
    """The feed-forward block of today's language models: ``(x U * silu(x G)) D``."""

    def build(self, shape: Any) -> None:
        """Makes the kernels."""
        self.up, self.gate = (self.add_weight(shape=(shape[-1], 8), name=name) for name in ("up", "gate"))
        self.down = self.add_weight(shape=(8, shape[-1]), name="down")

    def call(self, x: Any) -> Any:
        """As many features as ``x``."""
        return ops.matmul(ops.matmul(x, self.up) * ops.silu(ops.matmul(x, self.gate)), self.down)


def decoder() -> Case:
    """A causal language model with grouped attention, gated units and tied embeddings; one word is explained."""
    ids = keras.Input((6,), dtype="int32")
    table = layers.ReversibleEmbedding(11, 6, name="table")
    x = table(ids)
    h = layers.RMSNormalization()(x)
    x = layers.Add()([x, layers.GroupQueryAttention(4, 4, 2, name="attention")(h, h, use_causal_mask=True)])
    x = layers.Add()([x, GatedUnit(name="gated_unit")(layers.RMSNormalization()(x))])
    model = keras.Model(ids, table(x, reverse=True), name="decoder")
    words = np.random.default_rng(6).integers(0, 11, (SAMPLES, 6)).astype("int32")
    return Case("decoder", seeded(model), words, target=(3, 7))


CORE: tuple[Builder, ...] = (mlp, cnn, residual)
ALL: tuple[Builder, ...] = (
    *CORE, transposed, sequence, tokens, list_inputs, dict_inputs, multi_output, subclassed, nested, shared,
    lstm, gru,
)  # fmt: skip
ATTENTION: tuple[Builder, ...] = (encoder, vision_transformer)
TWINS: tuple[tuple[Builder, Builder], ...] = ((nested, inlined), (shared, unshared))
