"""Activations, scalings and moves: what passes unchanged, what is moved, what is merged."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai import Kind, rules
from kxai.errors import ArgumentError, RuleError
from tests import naive

EPSILON = 0.1  # of all affine layers here: large enough to show
RNG = np.random.default_rng(1)


def randomised(model: Any) -> Any:
    """The model with random weights; variances stay positive, scales of normalisations take both signs."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        value = rng.normal(size=variable.shape)
        variable.assign(0.5 + np.abs(value) if "variance" in variable.path else value)
    return model


def sequential(*parts: Any, shape: tuple[int, ...]) -> Any:
    return randomised(keras.Sequential([keras.Input(shape, dtype="float64"), *parts]))


def explained(model: Any, x: Any, weights: Any, *rows: Any, **options: Any) -> Any:
    composite = kxai.preset("epsilon", epsilon=EPSILON)
    return kxai.LRP(model, composite.but(*rows) if rows else composite).explain(x, weights, **options)


# --- activations -----------------------------------------------------------------------------------------------------

ACTIVATIONS = """
    celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu log_sigmoid mish relu relu6 selu
    sigmoid silu soft_shrink softplus softsign sparse_plus sparse_sigmoid squareplus tanh tanh_shrink
""".split()
LAYERS = {
    "ReLU": partial(layers.ReLU),
    "ReLU capped": partial(layers.ReLU, max_value=1.0),
    "ReLU with threshold": partial(layers.ReLU, threshold=0.5),
    "ReLU with slope": partial(layers.ReLU, negative_slope=0.3),
    "LeakyReLU": partial(layers.LeakyReLU, 0.2),
    "PReLU": partial(layers.PReLU),
    "ELU": partial(layers.ELU),
    "threshold": partial(layers.Activation, partial(ops.threshold, threshold=0.3, default_value=0.1)),
    **{name: partial(layers.Activation, name) for name in ACTIVATIONS if hasattr(keras.activations, name)},
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rule", ["epsilon", "gamma", "alpha_beta"])
def test_relevance_passes_activations_unchanged(name, rule):
    activation = LAYERS[name](dtype="float64")
    lower, upper = layers.Dense(6, dtype="float64"), layers.Dense(3, dtype="float64")
    model = sequential(lower, activation, upper, shape=(4,))
    x, weights = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 3)).astype("float32")
    found = kxai.LRP(model, rule, epsilon=EPSILON).explain(x, weights).relevance
    definition = partial(getattr(naive, rule), epsilon=EPSILON)
    first, second = (naive.Affine(naive.dense, (layer.get_weights()[0],), (size,), layer.get_weights()[1])
                     for layer, size in ((lower, 4), (upper, 6)))  # fmt: skip
    for s in range(3):
        hidden = np.asarray(activation(x[s : s + 1] @ first.W + first.b))[0]
        R = definition(hidden, second, weights[s] * (hidden @ second.W + second.b))
        assert naive.distance(found[s], definition(x[s], first, R)) <= 1e-9


@pytest.mark.parametrize("spelling", ["argument", "layer", "function"])
def test_an_activation_is_the_same_however_it_is_written(spelling):
    inputs = keras.Input((4,), dtype="float64")
    dense = layers.Dense(6, activation="silu" if spelling == "argument" else None, dtype="float64")
    hidden = dense(inputs)
    if spelling == "layer":
        hidden = layers.Activation("silu", dtype="float64")(hidden)
    if spelling == "function":
        hidden = keras.activations.silu(hidden)
    model = randomised(keras.Model(inputs, layers.Dense(1, dtype="float64")(hidden)))
    x = np.linspace(-1, 1, 8).reshape(2, 4)
    kernel, bias, top, _ = model.get_weights()
    n = x @ kernel + bias
    a = n / (1 + np.exp(-n))
    y = np.asarray(model(x))
    ratio = a * top.T * y / naive.stab(y, EPSILON) / naive.stab(n, EPSILON)
    assert naive.distance(explained(model, x, 0).relevance, x * (ratio @ kernel.T)) <= 1e-12


@pytest.mark.parametrize(
    "layer", [layers.Dropout(0.5), layers.SpatialDropout1D(0.5), layers.GaussianNoise(1.0), layers.GaussianDropout(0.5),
              layers.AlphaDropout(0.5), layers.ActivityRegularization(0.1), layers.Identity()],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_what_is_the_identity_at_inference_is_not_there(layer):
    model = keras.Sequential([keras.Input((2, 2)), layer, layers.Flatten(), layers.Dense(1)])
    x = np.arange(4.0).reshape(1, 2, 2)
    kernel = np.array([[1.0], [2.0], [3.0], [-4.0]])
    model.set_weights([kernel, np.zeros(1)])
    found = kxai.explain(model, x, "lrp.zero").relevance
    np.testing.assert_allclose(found, x * kernel.reshape(1, 2, 2), rtol=1e-6)


# --- rules of the ReLU -----------------------------------------------------------------------------------------------


def test_the_masks_of_guided_backprop_and_deconvnet():
    """x = 2, n = (2, -4, 2), f = a1 + a2 - a3."""
    parts = [layers.Dense(3, activation="relu", use_bias=False), layers.Dense(1, use_bias=False)]
    model = keras.Sequential([keras.Input((1,)), *parts])
    model.set_weights([np.array([[1.0, -2.0, 1.0]]), np.array([[1.0], [1.0], [-1.0]])])
    x = np.array([[2.0]])
    found = {
        name: kxai.explain(model, x, name).relevance.item() for name in ("gradient", "deconvnet", "guided_backprop")
    }
    assert found == {"gradient": 0.0, "deconvnet": -1.0, "guided_backprop": 1.0}


@pytest.mark.parametrize("relu", ["relu", "relu6"])
@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_masks_act_on_the_signal_in_deep_nets(method, relu):
    parts = [layers.Dense(8, activation=relu, dtype="float64"), layers.Dense(7, dtype="float64"),
             layers.Activation(relu, dtype="float64"), layers.Dense(3, dtype="float64")]  # fmt: skip
    model = sequential(*parts, shape=(5,))
    x = 4 * RNG.normal(size=(4, 5))
    W1, b1, W2, b2, W3, _ = model.get_weights()
    top = 6.0 if relu == "relu6" else np.inf
    n1 = x @ W1 + b1
    n2 = np.clip(n1, 0, top) @ W2 + b2
    signal = np.broadcast_to(W3[:, 1], n2.shape)
    for n, W in ((n2, W2), (n1, W1)):
        mask = ((n > 0) & (n < top)) if method == "guided_backprop" else True
        signal = (naive.pos(signal) * mask) @ W.T
    assert naive.distance(kxai.explain(model, x, method, target=1).relevance, signal) <= 1e-12


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_other_activations_raise_or_use_their_derivative(method):
    model = sequential(layers.Dense(3, activation="tanh", name="hidden", dtype="float64"),
                       layers.Dense(1, dtype="float64"), shape=(2,))  # fmt: skip
    with pytest.raises(RuleError, match=r"'hidden/tanh'.*\n  Expected: relu or relu6.*\n  Received: tanh\n  Fix: pass"):
        kxai.explain(model, np.ones((1, 2)), method)
    found = kxai.explain(model, np.ones((1, 2)), method, other_activations="gradient").relevance
    W, b, v, _ = model.get_weights()
    assert naive.distance(found, (v[:, 0] * (1 - np.tanh(np.ones((1, 2)) @ W + b) ** 2)) @ W.T) <= 1e-12
    with pytest.raises(ArgumentError, match=r"(?s)other_activations is out of range.*'error', 'gradient'"):
        kxai.explain(model, np.ones((1, 2)), method, other_activations="maybe")


# --- scalings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bias", "expected"), [(True, 1.0), (False, 1.5)])
def test_batch_normalization_alone(bias, expected):
    """gamma=1, beta=.5, mu=0, var+eps=4, x=2: y=1.5; R_in = 1/1.5 R with the shift in the denominator, R without."""
    layer = layers.BatchNormalization(epsilon=1.0, dtype="float64")
    model = keras.Sequential([keras.Input((1,), dtype="float64"), layer])
    layer.set_weights([np.array([1.0]), np.array([0.5]), np.array([0.0]), np.array([3.0])])
    found = explained(model, np.array([[2.0]]), 0, (Kind.SCALE, rules.Epsilon(0.0, bias=bias)))
    assert found.score == pytest.approx([1.5], abs=1e-12)
    assert found.relevance == pytest.approx(np.array([[expected]]), abs=1e-12)


def scale_and_shift(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    weights = {w.path.rsplit("/", 1)[1]: np.asarray(w, np.float64) for w in layer.weights}
    s = weights.get("gamma", 1.0) / np.sqrt(weights["moving_variance"] + layer.epsilon)
    return s, weights.get("beta", 0.0) - weights["moving_mean"] * s


OPTIONS: list[dict[str, bool]] = [{}, {"scale": False}, {"center": False}]
CONVOLUTIONS = {
    "conv": (lambda: layers.Conv2D(3, 2, dtype="float64"), naive.conv),
    "conv same": (lambda: layers.Conv2D(3, 3, padding="same", dtype="float64"), partial(naive.conv, padding="same")),
    "depthwise": (lambda: layers.DepthwiseConv2D(2, depth_multiplier=2, dtype="float64"), naive.depthwise),
    "transposed": (lambda: layers.Conv2DTranspose(3, 2, dtype="float64"), naive.conv_transpose),
    "dense": (lambda: layers.Dense(3, dtype="float64"), naive.dense),
}


@pytest.mark.parametrize(
    "options", [{}, {"scale": False}, {"center": False}, {"scale": False, "center": False}], ids=str
)
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("use_bias", [True, False])
def test_batch_normalization_after_is_merged_exactly(name, options, use_bias):
    build, linear = CONVOLUTIONS[name]
    layer, norm = build(), layers.BatchNormalization(dtype="float64", **options)
    layer.use_bias = use_bias
    model = sequential(layer, norm, shape=(4, 3, 2))
    assert not options.get("scale", True) or (norm.gamma.numpy() < 0).any()
    x = RNG.normal(size=(4, 3, 2))
    kernel, *bias = layer.get_weights()
    s, t = scale_and_shift(norm)
    m = naive.Affine(linear, (kernel,), x.shape, (bias[0] if bias else 0.0) * s + t)
    W = m.W * np.broadcast_to(s, np.shape(linear(x[None], kernel)[0])).ravel()
    merged = naive.Affine(lambda v: v.reshape(len(v), -1) @ W, (), x.shape, m.b)
    weights = RNG.normal(size=model.output_shape[1:]).astype("float32")
    R = weights.ravel() * (x.ravel() @ W + m.b)
    for rule in ("epsilon", "gamma", "alpha_beta", "z_plus"):
        analyzer = kxai.LRP(model, rule)
        assert [kind for _, kind, _ in analyzer.plan().rows] == ["affine"]
        expected = getattr(naive, rule)(x.ravel(), merged, R).reshape(x.shape)
        assert naive.distance(analyzer.explain(x[None], weights).relevance[0], expected) <= 1e-9


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", ["conv", "depthwise", "dense"])
def test_batch_normalization_before_is_merged_exactly(name, options):
    build, linear = CONVOLUTIONS[name]
    layer, norm = build(), layers.BatchNormalization(dtype="float64", **options)
    # A ReLU keeps it from the layer below; the first Dense keeps it from being preprocessing.
    model = sequential(layers.Dense(2, activation="relu", dtype="float64"), norm, layer, shape=(4, 3, 2))
    x = RNG.normal(size=(1, 4, 3, 2))
    analyzer = kxai.LRP(model, "epsilon", epsilon=EPSILON)
    assert [kind for _, kind, _ in analyzer.plan().rows] == ["affine", "elementwise", "affine"]
    weights = RNG.normal(size=model.output_shape[1:]).astype("float32")
    kernel, bias = layer.get_weights()
    lower_kernel, lower_bias = model.layers[0].get_weights()
    n = x[0] @ lower_kernel + lower_bias
    s, t = scale_and_shift(norm)
    inner = naive.Affine(lambda v: linear(v * s, kernel), (), n.shape, bias + linear(np.zeros_like(x) + t, kernel)[0])
    hidden = naive.pos(n).ravel()
    R = naive.epsilon(hidden, inner, weights.ravel() * (hidden @ inner.W + inner.b), epsilon=EPSILON)
    lower = naive.Affine(naive.dense, (lower_kernel,), (4, 3, 2), lower_bias)
    expected = naive.epsilon(x.ravel(), lower, R, epsilon=EPSILON).reshape(x.shape)
    assert naive.distance(analyzer.explain(x, weights).relevance, expected) <= 1e-9


def test_a_shift_before_zero_padding_is_not_merged():
    """The border sees 0, not the shift: no kernel could say so. The normalisation stays a node with its own rule."""
    norm, top = layers.BatchNormalization(dtype="float64"), layers.Conv2D(2, 3, padding="same", dtype="float64")
    model = sequential(layers.Dense(2, activation="relu", dtype="float64"), norm, top, shape=(4, 3, 2))
    composite = kxai.preset("epsilon", epsilon=EPSILON).but((Kind.SCALE, rules.Pass()))
    analyzer = kxai.LRP(model, composite)
    assert [kind for _, kind, _ in analyzer.plan().rows] == ["affine", "elementwise", "scale", "affine"]
    x = RNG.normal(size=(1, 4, 3, 2))
    weights = RNG.normal(size=(4, 3, 2)).astype("float32")
    lower_kernel, lower_bias = model.layers[0].get_weights()
    s, t = scale_and_shift(norm)
    lower = naive.Affine(naive.dense, (lower_kernel,), (4, 3, 2), lower_bias)
    upper = naive.Affine(partial(naive.conv, padding="same"), (top.get_weights()[0],), (4, 3, 2), top.get_weights()[1])
    scaled = (naive.pos(x[0] @ lower_kernel + lower_bias) * s + t).ravel()
    R = naive.epsilon(scaled, upper, weights.ravel() * (scaled @ upper.W + upper.b), epsilon=EPSILON)
    expected = naive.epsilon(x.ravel(), lower, R, epsilon=EPSILON).reshape(x.shape)
    assert naive.distance(analyzer.explain(x, weights).relevance, expected) <= 1e-9


def test_a_normalisation_that_others_read_too_is_not_merged():
    inputs = keras.Input((3,), dtype="float64")
    hidden = layers.Dense(3, dtype="float64")(inputs)
    normed = layers.BatchNormalization(dtype="float64")(hidden)
    model = randomised(keras.Model(inputs, layers.Add(dtype="float64")([hidden, normed])))
    assert [kind for _, kind, _ in kxai.plan(model, "lrp.epsilon").rows] == ["affine", "scale", "sum"]


PREPROCESSING = {
    "rescaling": (lambda: layers.Rescaling(0.5, offset=-1.0, dtype="float64"), 0.5, -1.0),
    "negative scale": (lambda: layers.Rescaling(-0.5, offset=1.0, dtype="float64"), -0.5, 1.0),
    "per channel": (lambda: layers.Rescaling([2.0, -0.5], offset=[0.0, 3.0], dtype="float64"), [2.0, -0.5], [0.0, 3.0]),
    "normalization": (
        lambda: layers.Normalization(mean=[1.0, -2.0], variance=[4.0, 0.25], dtype="float64"),
        [0.5, 2.0], [-0.5, 4.0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PREPROCESSING)
@pytest.mark.parametrize("padded", [False, True])
def test_relevance_passes_preprocessing_and_bounds_are_mapped_through_it(name, padded):
    build, s, t = PREPROCESSING[name]
    between = [layers.ZeroPadding2D(((1, 0), (2, 1)), dtype="float64")] if padded else []
    conv = layers.Conv2D(3, 2, dtype="float64")
    model = keras.Sequential([keras.Input((4, 3, 2), dtype="float64"), build(), *between, conv])
    conv.set_weights([RNG.normal(size=w.shape) for w in conv.get_weights()])
    x = RNG.uniform(-2, 3, size=(1, 4, 3, 2))
    weights = RNG.normal(size=model.output_shape[1:]).astype("float32")
    kernel, bias = conv.get_weights()

    def linear(v):
        return naive.conv(np.pad(v, ((0, 0), (1, 0), (2, 1), (0, 0))) if padded else v, kernel)

    m, scaled = naive.Affine(linear, (), (4, 3, 2), bias), (x[0] * s + t).ravel()
    np.testing.assert_allclose(np.asarray(model(x)).ravel(), scaled @ m.W + m.b, atol=1e-6)  # a variance has an epsilon
    R = weights.ravel() * (scaled @ m.W + m.b)
    low, high = np.array([-2.0, -3.0]), np.array([3.0, 4.0])
    ends = np.broadcast_to(low * s + t, 2), np.broadcast_to(high * s + t, 2)
    box = {"low": np.minimum(*ends), "high": np.maximum(*ends)}
    for rule, define in (
        (rules.Epsilon(EPSILON), partial(naive.epsilon, epsilon=EPSILON)),
        (rules.ZBox(low, high), partial(naive.z_box, **box)),
    ):
        found = explained(model, x, weights, (Kind.AFFINE, rule)).relevance
        # Keras' Normalization computes its statistics in float32.
        assert naive.distance(found[0], define(scaled, m, R).reshape(4, 3, 2)) <= 1e-6


# --- moves -----------------------------------------------------------------------------------------------------------


def bilinear(x: np.ndarray, factor: int) -> np.ndarray:
    """Bilinear enlargement of (batch, height, width, channels): a cell's value sits in its middle."""
    for axis in (1, 2):
        size = x.shape[axis]
        at = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        left = np.minimum(at.astype(int), size - 2)
        part = (at - left).reshape(-1, *(1,) * (3 - axis))
        x = np.take(x, left, axis) * (1 - part) + np.take(x, left + 1, axis) * part
    return x


# The layer, and the plain function; both take (batch, 4, 3, 2).
MOVES = {
    "flatten": (lambda: layers.Flatten(), lambda v: v.reshape(len(v), -1)),
    "reshape": (lambda: layers.Reshape((6, 4)), lambda v: v.reshape(len(v), 6, 4)),
    "permute": (lambda: layers.Permute((3, 1, 2)), lambda v: v.transpose(0, 3, 1, 2)),
    "zero padding": (lambda: layers.ZeroPadding2D((1, 2)), lambda v: np.pad(v, ((0, 0), (1, 1), (2, 2), (0, 0)))),
    "cropping": (lambda: layers.Cropping2D(((1, 0), (0, 1))), lambda v: v[:, 1:, :-1]),
    "nearest": (lambda: layers.UpSampling2D(2), lambda v: v.repeat(2, axis=1).repeat(2, axis=2)),
    "slice": (lambda: layers.Lambda(lambda v: v[:, 1:3, ::2]), lambda v: v[:, 1:3, ::2]),
    "concatenate": (lambda: layers.Lambda(lambda v: ops.concatenate([v, v[:, :1]], 1)),
                    lambda v: np.concatenate([v, v[:, :1]], axis=1)),
    "stack and transpose": (lambda: layers.Lambda(lambda v: ops.transpose(ops.stack([v, v], 1), (0, 2, 1, 3, 4))),
                            lambda v: np.stack([v, v], 1).transpose(0, 2, 1, 3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVES)
def test_moved_values_get_back_what_arrived_where_they_went(name):
    build, move = MOVES[name]
    model = keras.Sequential([keras.Input((4, 3, 2)), build()])
    x = RNG.normal(size=(2, 4, 3, 2)).astype("float32")
    weights = RNG.normal(size=(len(x), *model.output_shape[1:])).astype("float32")
    assert [kind for _, kind, _ in kxai.plan(model, "lrp.epsilon").rows] == ["route"] * len(kxai.plan(model).rows)
    moves = naive.matrix(move, (4, 3, 2))  # of zeros and ones
    R = (weights * move(x)).reshape(2, -1)
    assert naive.distance(explained(model, x, weights).relevance.reshape(2, -1), R @ moves.T) <= 1e-6


def test_bilinear_enlargement_shares_in_proportion():
    layer = layers.UpSampling2D(2, interpolation="bilinear")
    model = keras.Sequential([keras.Input((4, 3, 2)), layer])
    x = RNG.uniform(0.5, 1, size=(1, 4, 3, 2)).astype("float32")
    np.testing.assert_allclose(np.asarray(model(x)), bilinear(x, 2), rtol=1e-5)
    weights = RNG.normal(size=(8, 6, 2)).astype("float32")
    expected = naive.proportional_linear(
        x.ravel(), naive.matrix(partial(bilinear, factor=2), (4, 3, 2)), (weights * bilinear(x, 2)).ravel()
    )
    assert naive.distance(explained(model, x, weights).relevance.ravel(), expected) <= 1e-5


@pytest.mark.parametrize("pooling", ["flatten", "mean"])
def test_an_embedding_gives_one_number_per_token(pooling):
    inner = layers.Flatten() if pooling == "flatten" else layers.GlobalAveragePooling1D()
    model = randomised(
        keras.Sequential([keras.Input((3,), dtype="int32"), layers.Embedding(7, 4), inner, layers.Dense(2)])
    )
    tokens = np.array([[1, 5, 5], [0, 6, 2]])
    found = explained(model, tokens, 1).relevance
    table, kernel, bias = (w.astype(np.float64) for w in model.get_weights())
    for s in range(2):
        vectors = table[tokens[s]]
        hidden = vectors.ravel() if pooling == "flatten" else vectors.mean(axis=0)
        z = hidden @ kernel[:, 1] + bias[1]
        R = hidden * kernel[:, 1] * z / naive.stab(z, EPSILON)
        if pooling == "mean":
            R = vectors / 3 * (R / naive.stab(hidden, 1e-6))
        assert naive.distance(found[s], R.reshape(3, 4).sum(axis=1)) <= 1e-4
    assert found.shape == (2, 3)
