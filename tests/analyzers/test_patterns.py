"""PatternNet and PatternAttribution: patterns against two-pass moments of explicit patches, signals against loops."""

from __future__ import annotations

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kxai
from kxai import files
from kxai.analyzers.pattern.quality import rho
from kxai.errors import ArgumentError, InputError, LoadError, NumericalError, RuleError, UnknownNameError
from kxai.testing import models

METHODS = (kxai.PatternNet, kxai.PatternAttribution)
both = pytest.mark.parametrize("method", METHODS)


def numbers(*shape, samples=20, seed=1):
    return np.random.default_rng(seed).normal(size=(samples, *shape))


def chain(shape, *stack, seed=0):
    return models.seeded(keras.Sequential([keras.Input(shape), *stack]), seed)


# --- a naive definition -------------------------------------------------------------------------------------------


def places(size, kernel, stride, dilation, padding):
    """Per output position along one axis, the input position of each tap; None in the padding."""
    extent = (kernel - 1) * dilation + 1
    if padding == "causal":
        low, count = extent - 1, -(-size // stride)
    elif padding == "same":
        count = -(-size // stride)
        low = max((count - 1) * stride + extent - size, 0) // 2
    else:
        low, count = 0, (size - extent) // stride + 1
    taps = [[start * stride + tap * dilation - low for tap in range(kernel)] for start in range(count)]
    return [[at if 0 <= at < size else None for at in row] for row in taps]


def taps(layer, shape):
    """Output position -> [(tap of the kernel, input position)], over all axes; Dense has one position and one tap."""
    if isinstance(layer, layers.Dense):
        return {(): [((), ())]}
    axes = [
        places(size, *options, layer.padding)
        for size, *options in zip(shape, layer.kernel_size, layer.strides, layer.dilation_rate, strict=False)
    ]
    found = {}
    for position in itertools.product(*(range(len(axis)) for axis in axes)):
        rows = [axis[i] for axis, i in zip(axes, position, strict=True)]
        inside = itertools.product(*(range(len(row)) for row in rows))
        pairs = [(tap, tuple(row[i] for row, i in zip(rows, tap, strict=True))) for tap in inside]
        found[position] = [(tap, at) for tap, at in pairs if None not in at]
    return found


def patches(layer, x):
    """(samples, positions) x (kernel without its output axis): all patches, zeros in the padding."""
    shape = layer.kernel.shape[:-1]
    found = []
    for sample in x:
        for pairs in taps(layer, sample.shape[:-1]).values():
            patch = np.zeros(shape)
            for tap, at in pairs:
                patch[tap] = sample[at]
            found.append(patch)
    return np.array(found)


def naive_patterns(layer, x):
    """(S_a, a+, a-), each filter from its own list of patches."""
    kernel, seen = np.asarray(layer.kernel), patches(layer, x)
    results = np.zeros((3, *kernel.shape))
    for j in range(kernel.shape[-1]):
        w = kernel[..., j]
        y = np.array([(w * patch).sum() for patch in seen])
        active = y + layer.bias[j].numpy() > 0
        centred = (seen - seen.mean(axis=0)) * (y - y.mean()).reshape(-1, *[1] * w.ndim)
        results[0, ..., j] = centred.mean(axis=0) / y.var()
        for index, regime in ((1, active), (2, ~active)):
            xs, ys = seen[regime], y[regime].reshape(-1, *[1] * w.ndim)
            if len(xs):
                top = (xs * ys).mean(axis=0) - xs.mean(axis=0) * y.mean()
                below = (w * (xs * ys).mean(axis=0)).sum() - (w * xs.mean(axis=0)).sum() * y.mean()
                results[index, ..., j] = top / below
    return results


def naive_down(layer, x, relevance, positive, negative, weighted):
    """One sample's relevance through an affine layer, entry by entry; positive and negative are patterns."""
    kernel, result = np.asarray(layer.kernel), np.zeros_like(x)
    for position, pairs in taps(layer, x.shape[:-1]).items():
        for j in range(kernel.shape[-1]):
            w = kernel[..., j]
            z = sum((w[tap] * x[at]).sum() for tap, at in pairs) + layer.bias[j].numpy()
            a = (positive if z > 0 else negative)[..., j]
            for tap, at in pairs:
                result[at] += (w[tap] * a[tap] if weighted else a[tap]) * relevance[(*position, j)]
    return result


# --- patterns -----------------------------------------------------------------------------------------------------


LAYERS = {
    "Dense": (lambda: layers.Dense(4), (3,)),
    "Conv1D causal dilated": (lambda: layers.Conv1D(3, 2, padding="causal", dilation_rate=2), (6, 2)),
    "Conv1D strided 1": (lambda: layers.Conv1D(3, 1, strides=2), (5, 2)),
    "Conv2D same strided": (lambda: layers.Conv2D(3, (3, 2), strides=2, padding="same"), (5, 4, 2)),
    "Conv2D valid": (lambda: layers.Conv2D(2, 2, strides=(1, 2)), (4, 5, 2)),
    "Conv2D same dilated": (lambda: layers.Conv2D(2, 2, padding="same", dilation_rate=2), (4, 4, 1)),
    "Conv2D strided 1 x 1": (lambda: layers.Conv2D(3, 1, strides=2), (4, 4, 3)),
    "Conv3D": (lambda: layers.Conv3D(2, 2, strides=2, padding="same"), (3, 3, 2, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_patterns(double, name):
    make, shape = LAYERS[name]
    layer = make()
    model, x = chain(shape, layer), 0.5 + numbers(*shape, samples=40 if len(shape) == 1 else 8)
    expected = naive_patterns(layer, x)
    linear = kxai.PatternNet(model, "linear").fit(x, batch_size=3)
    # Float64; the moments of one pass and of two.
    np.testing.assert_allclose(linear.patterns[layer.name][0], expected[0], rtol=1e-9, atol=1e-12)
    assert linear.patterns[layer.name][1] is None
    found = kxai.PatternNet(model).fit(x, batch_size=3).patterns[layer.name]
    np.testing.assert_allclose(found, expected[1:], rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    axes = tuple(range(layer.kernel.ndim - 1))
    for a in (linear.patterns[layer.name][0], *found):
        np.testing.assert_allclose((np.asarray(layer.kernel) * a).sum(axis=axes), 1, rtol=1e-9)


@pytest.mark.parametrize("make", [
    lambda: layers.DepthwiseConv2D(2, depth_multiplier=2), lambda: layers.DepthwiseConv2D(2, padding="same"),
    lambda: layers.Conv2DTranspose(3, 3, strides=2), lambda: layers.Conv2D(4, 2, groups=2),
])  # fmt: skip
def test_every_filter_has_its_pattern(double, make):
    """The other convolutions: w.a = 1 for each of their filters."""
    layer = make()
    model = chain((4, 4, 2), layer)
    # Each output of a transposed convolution sees a part of the kernel; together they make the filter.
    axes = (0, 1, 3) if isinstance(layer, layers.Conv2DTranspose) else (0, 1)
    axes = (0, 1, 2) if type(layer) is layers.Conv2D else axes
    for a in kxai.PatternNet(model).fit(numbers(4, 4, 2)).patterns[layer.name]:
        np.testing.assert_allclose((np.asarray(layer.kernel) * a).sum(axis=axes), 1, rtol=1e-9)


def two_convolutions(activation="relu"):
    first = layers.Conv2D(3, 3, strides=2, padding="same", activation=activation, name="first")
    second = layers.Conv2D(4, 2, activation=activation, name="second")
    hidden = layers.Dense(5, activation, name="hidden")
    stack = [first, second, layers.MaxPooling2D(2), layers.Flatten(), hidden, layers.Dense(2, name="logits")]
    return chain((9, 8, 2), *stack)


def test_one_pass_is_one_batch_in_any_order(double):
    model, x = two_convolutions(), numbers(9, 8, 2, samples=21)
    whole = kxai.PatternNet(model).fit(x, batch_size=100).patterns
    dataset = tf.data.Dataset.from_tensor_slices((x[::-1], np.zeros(21))).batch(5)
    for other in (
        kxai.PatternNet(model).fit(x, batch_size=4),
        kxai.PatternNet(model).fit(np.random.default_rng(0).permutation(x), batch_size=7),
        kxai.PatternNet(model).fit(dataset),
    ):
        for path, pair in other.patterns.items():
            # Rounding of sums in float64, divided by small denominators.
            np.testing.assert_allclose(pair, whole[path], rtol=1e-9, atol=1e-12 * np.abs(whole[path]).max())


def test_a_large_mean_costs_no_digits(double):
    """Moments about 0 would lose all: 1e8 squared, times 1e-16."""
    layer = layers.Dense(2)
    model, x = chain((3,), layer), numbers(3, samples=200)
    at_zero = kxai.PatternNet(model, "linear").fit(x).patterns[layer.name][0]
    moved = kxai.PatternNet(model, "linear").fit(x + 1e8).patterns[layer.name][0]
    # Inputs of 1e8 are rounded to 1e-8.
    np.testing.assert_allclose(moved, at_zero, atol=1e-7)


def test_toy_of_the_paper():
    """x = y (1, 0) + e (1, 1), w = (1, -1): the signal is (1, 0), the weights only filter."""
    random = np.random.default_rng(0)
    y, e = random.normal(size=(2, 1_000_000))
    x = np.stack([y + e, e], axis=1)
    layer = layers.Dense(1, name="unit")
    model = keras.Sequential([keras.Input((2,)), layer])
    model.set_weights([np.array([[1.0], [-1.0]]), np.zeros(1)])
    probe = np.array([[3.0, 2.0], [-1.0, 2.0]])  # y = 1 and -3
    for estimator in ("linear", "relu"):
        net = kxai.PatternNet(model, estimator).fit(x, batch_size=250_000)
        # A million samples: the error of a covariance is about 1e-3 / sqrt(1e6) per unit of its entries.
        for a in net.patterns["unit"]:
            if a is not None:
                np.testing.assert_allclose(a[:, 0], [1, 0], atol=5e-3 if estimator == "relu" else 2e-3)
        np.testing.assert_allclose(net.explain(probe).relevance, [[1, 0], [-3, 0]], atol=2e-2)
        share = kxai.PatternAttribution(model, estimator).fit(x, batch_size=250_000)
        np.testing.assert_allclose(share.explain(probe).relevance, [[1, 0], [-3, 0]], atol=2e-2)
    weights = kxai.PatternNet(model, "w").explain(probe).relevance
    np.testing.assert_allclose(weights, [[0.5, -0.5], [-1.5, 1.5]], atol=1e-6)
    some = x[:20_000]
    assert kxai.PatternNet(model, "w").quality(some, "unit") == pytest.approx(1 - 1 / np.sqrt(5), abs=0.02)
    assert kxai.PatternNet(model, "linear").fit(some).quality(some, "unit") == pytest.approx(1, abs=1e-6)
    assert kxai.PatternNet(model, "x").quality(some, "unit") == 1


def test_silent_and_constant_units(double):
    """A unit that never varies, or never was active, has the pattern 0: no division by nothing."""
    layer = layers.Dense(3, name="units")
    model = keras.Sequential([keras.Input((2,)), layer])
    model.set_weights([np.array([[1.0, 0.0, 1.0], [2.0, 0.0, 1.0]]), np.array([0.0, 1.0, -100.0])])
    found = kxai.PatternNet(model).fit(numbers(2)).patterns["units"]
    assert np.all(found[0][:, 1:] == 0)
    assert np.all(found[1][:, 1] == 0)
    assert np.all(found[1][:, 2] != 0)
    with pytest.warns(kxai.KxaiWarning, match="All patterns of units are 0"):
        constant = kxai.PatternNet(model, "linear").fit(np.full((7, 2), 0.1)).patterns["units"][0]
    assert np.all(constant == 0)


def test_batch_normalisation_is_merged(double):
    conv, norm = layers.Conv2D(3, 3, name="conv"), layers.BatchNormalization(name="norm")
    model = chain((6, 6, 2), conv, norm, layers.ReLU(), layers.Flatten(), layers.Dense(2, name="logits"))
    gamma, beta, mean, variance = norm.get_weights()
    scale = gamma / np.sqrt(variance + norm.epsilon)
    plain = two = layers.Conv2D(3, 3, activation="relu", name="conv")
    merged = chain((6, 6, 2), plain, layers.Flatten(), layers.Dense(2, name="logits"))
    merged.layers[-1].set_weights(model.layers[-1].get_weights())
    kernel, bias = conv.get_weights()
    two.set_weights([kernel * scale, beta + (bias - mean) * scale])
    x = numbers(6, 6, 2)
    for method in METHODS:
        results = [method(m).fit(x).explain(x, 1).relevance for m in (model, merged)]
        np.testing.assert_allclose(*results, rtol=1e-9, atol=1e-12)


def test_the_regime_is_that_of_the_activation(double):
    """A normalisation that cannot be merged stands between a unit and its ReLU: it decides who is active."""
    conv, norm = layers.Conv1D(2, 1, name="conv"), layers.BatchNormalization(axis=1, name="norm")
    model = chain((4, 2), conv, norm, layers.ReLU(), layers.Flatten(), layers.Dense(1))
    assert any(path == "norm" for path, _, _ in kxai.PatternNet(model).plan().rows)
    x = numbers(4, 2, samples=30)
    active = np.asarray(norm(conv(x), training=False)) > 0
    w, bias = conv.get_weights()
    y = x @ w[0]
    assert np.any(active != (y + bias > 0))
    expected = np.zeros((2, 2))
    for j in range(2):
        xs, ys = x[active[..., j]], y[active[..., j], j]
        top = (xs * ys[:, None]).mean(axis=0) - xs.mean(axis=0) * y[..., j].mean()
        expected[:, j] = top / (w[0, :, j] @ top)
    found = kxai.PatternNet(model).fit(x).patterns["conv"][0]
    np.testing.assert_allclose(found[0], expected, rtol=1e-9)


# --- signals and attributions -------------------------------------------------------------------------------------


def naive_explain(model, x, data, target, estimator, weighted):
    """Through ``two_convolutions``, sample by sample and entry by entry."""
    named = [model.get_layer(name) for name in ("first", "second", "hidden", "logits")]
    first, second, hidden, logits = named
    relu = lambda z: np.maximum(z, 0)  # noqa: E731
    pooling = model.layers[2]

    def activations(x):
        one = np.asarray(first(x))
        two = np.asarray(second(one))
        flat = np.asarray(pooling(two)).reshape(len(x), -1)
        return [x, one, flat, np.asarray(hidden(flat))], two

    inputs, _ = activations(data)
    patterns = []
    for layer, seen in zip(named, inputs, strict=True):
        linear, positive, negative = naive_patterns(layer, seen)
        w = np.asarray(layer.kernel)
        by_weight = w / (w * w).sum(axis=tuple(range(w.ndim - 1)))
        patterns.append(
            {"linear": (linear, linear), "relu": (positive, negative), "w": (by_weight, by_weight)}[estimator]
        )
    results = []
    inputs, twos = activations(x)
    for i in range(len(x)):
        r = np.zeros(2)
        r[target] = np.asarray(logits(inputs[3][i : i + 1]))[0, target]
        r = naive_down(logits, inputs[3][i], r, *patterns[3], weighted)
        r = naive_down(hidden, inputs[2][i], np.where(inputs[3][i] > 0, r, 0), *patterns[2], weighted)
        r, two, spread = r.reshape(np.asarray(pooling(twos[i : i + 1])).shape[1:]), twos[i], np.zeros_like(twos[i])
        for a, b, c in np.ndindex(*r.shape):
            window = two[2 * a : 2 * a + 2, 2 * b : 2 * b + 2, c]
            u, v = np.unravel_index(window.argmax(), window.shape)
            spread[2 * a + u, 2 * b + v, c] += r[a, b, c]
        r = naive_down(second, inputs[1][i], np.where(relu(two) > 0, spread, 0), *patterns[1], weighted)
        results.append(naive_down(first, inputs[0][i], np.where(inputs[1][i] > 0, r, 0), *patterns[0], weighted))
    return np.array(results)


@both
@pytest.mark.parametrize("estimator", ["relu", "linear", "w"])
def test_relevance(double, method, estimator):
    model, data = two_convolutions(), numbers(9, 8, 2, samples=6)
    x = data[:2]
    analyzer = method(model, estimator)
    if estimator != "w":
        analyzer.fit(data)
    expected = naive_explain(model, x, data, 1, estimator, weighted=method is kxai.PatternAttribution)
    e = analyzer.explain(x, 1)
    np.testing.assert_allclose(e.relevance, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(e.score, np.asarray(model(x))[:, 1], rtol=1e-12)


def test_the_signal_of_x(double):
    """S_x(x) = x: the attribution is LRP-0 without biases; PatternNet's a is x / y."""
    model, x = two_convolutions(), numbers(9, 8, 2, samples=3)
    lrp = kxai.LRP(model, "zero", bias=False).explain(x, 0).relevance
    ours = kxai.PatternAttribution(model, "x").explain(x, 0).relevance
    np.testing.assert_allclose(ours, lrp, rtol=1e-9, atol=1e-12 * np.abs(lrp).max())
    layer = layers.Dense(2)
    single, p = chain((3,), layer), numbers(3, samples=4)
    w, bias = layer.get_weights()
    y = p @ w
    expected = p * ((y + bias) / y)[:, 1:]
    np.testing.assert_allclose(kxai.PatternNet(single, "x").explain(p, 1).relevance, expected, rtol=1e-9)


@pytest.mark.parametrize("estimator", ["relu", "linear", "w", "x"])
def test_linear_layers_conserve(double, estimator):
    stack = [
        layers.Conv2D(3, 3, strides=2, use_bias=False),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        layers.Dense(2),
    ]
    model, x = chain((7, 7, 2), *stack), numbers(7, 7, 2)
    analyzer = kxai.PatternAttribution(model, estimator)
    if estimator in ("relu", "linear"):
        analyzer.fit(x)
    np.testing.assert_allclose(analyzer.explain(x, 0).residual, 0, atol=1e-10)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.AveragePooling2D(2, padding="same"), (5, 3, 2)),
        (lambda: layers.AveragePooling2D(3, strides=2), (5, 7, 1)),
        (lambda: layers.AveragePooling1D(3, strides=1, padding="same"), (4, 2)),
    ],
)
def test_averages(double, layer, shape):
    """a = 1 for every value of a window, w a = 1 / (values in the window)."""
    layer = layer()
    model = chain(shape, layer, layers.Flatten(), layers.Dense(1, use_bias=False, name="sum"))
    x = numbers(*shape, samples=2)
    pooled = np.asarray(layer(x))
    s = kxai.PatternNet(model, "w").explain(x, 0, layers=[layer.name])
    up = s.layers[layer.name]
    axes = [places(n, p, q, 1, layer.padding) for n, p, q in zip(shape, layer.pool_size, layer.strides, strict=False)]
    signal, share = np.zeros((2, *x.shape))
    given = kxai.PatternAttribution(model, "w").explain(x, 0, layers=[layer.name]).layers[layer.name]
    for position in np.ndindex(*pooled.shape[1:-1]):
        window = list(
            itertools.product(
                *([at for at in axis[i] if at is not None] for axis, i in zip(axes, position, strict=True))
            )
        )
        for at in window:
            signal[(slice(None), *at)] += up[(slice(None), *position)]
            share[(slice(None), *at)] += given[(slice(None), *position)] / len(window)
    np.testing.assert_allclose(s.relevance, signal, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        kxai.PatternAttribution(model, "w").explain(x, 0).relevance, share, rtol=1e-9, atol=1e-12
    )


def test_global_averages_and_rescaling(double):
    """A mean over everything is a window; a rescaling of the input has the pattern 1 / s."""
    dense = layers.Dense(1, use_bias=False)
    stack = [layers.Rescaling(0.5, offset=3.0), layers.GlobalAveragePooling2D(), dense]
    model, x = chain((3, 4, 2), *stack), numbers(3, 4, 2, samples=2)
    w = dense.get_weights()[0][:, 0]
    score = np.asarray(model(x))[:, 0]
    a = w / (w @ w)
    expected = np.broadcast_to(score[:, None, None, None] * a / 0.5, x.shape)
    np.testing.assert_allclose(kxai.PatternNet(model, "w").explain(x).relevance, expected, rtol=1e-9)
    expected = np.broadcast_to(score[:, None, None, None] * a * w / 12, x.shape)
    np.testing.assert_allclose(kxai.PatternAttribution(model, "w").explain(x).relevance, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("join", "weights"),
    [(layers.Add, (1, 1)), (layers.Subtract, (1, -1)), (layers.Average, (0.5, 0.5))],
    ids=["add", "subtract", "average"],
)
def test_sums(double, join, weights):
    """A sum of tensors is a unit per channel: its inputs share by their covariances with it."""
    x = keras.Input((6, 3))
    left = layers.Conv1D(4, 2, activation="relu", name="left")(x)
    joined = layers.ReLU(name="relu")(join(name="join")([left, layers.Conv1D(4, 2, name="right")(x)]))
    model = models.seeded(keras.Model(x, layers.Dense(1, name="logit")(layers.Flatten()(joined))))
    data = 0.3 + numbers(6, 3, samples=30)
    terms = [keras.Model(x, model.get_layer(name).output)(data) for name in ("left", "right")]
    terms, w = np.stack(terms).reshape(2, -1, 4), np.array(weights, float)
    expected = np.zeros((3, 2, 4))
    for j in range(4):
        xs, y = terms[:, :, j], w @ terms[:, :, j]
        expected[0, :, j] = np.cov(np.vstack([xs, y]), bias=True)[2, :2] / y.var()
        for index, regime in ((1, y > 0), (2, y <= 0)):
            top = (xs * y)[:, regime].mean(axis=1) - xs[:, regime].mean(axis=1) * y.mean()
            expected[index, :, j] = top / (w @ top)
    linear = kxai.PatternNet(model, "linear").fit(data).patterns["join"][0]
    np.testing.assert_allclose(linear, expected[0], rtol=1e-9)
    net, attribution = (method(model).fit(data, batch_size=7) for method in METHODS)
    np.testing.assert_allclose(net.patterns["join"], expected[1:], rtol=1e-9)
    for analyzer, factor in ((net, np.ones(2)), (attribution, w)):
        kept = analyzer.explain(data, layers=["join", "left/relu", "right"]).layers
        for index, name in enumerate(("left/relu", "right")):
            # The ReLU above lets only the positive regime through.
            passed = factor[index] * expected[1, index] * kept["join"]
            np.testing.assert_allclose(kept[name], passed, rtol=1e-9, atol=1e-12)
    shares = [method(model, "x").explain(data[:3], layers=["join", "left/relu"]).layers for method in METHODS]
    y = keras.Model(x, model.get_layer("join").output)(data[:3])
    one = keras.Model(x, model.get_layer("left").output)(data[:3])
    np.testing.assert_allclose(shares[0]["left/relu"], one / y * shares[0]["join"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(shares[1]["left/relu"], w[0] * one / y * shares[1]["join"], rtol=1e-9, atol=1e-12)


@both
def test_sums_that_broadcast(method):
    x = keras.Input((4, 3))
    mean = layers.GlobalAveragePooling1D(keepdims=True)(x)
    model = keras.Model(x, layers.Flatten()(layers.Add()([layers.Dense(3)(x), mean])))
    with pytest.raises(RuleError, match="a sum of tensors of one shape that all depend on the input"):
        method(model).plan()


@both
def test_a_residual_network(method):
    """Normalised before, after and apart from convolutions."""
    case = models.residual()
    analyzer = method(case.model).fit(models.numbers(8, 8, 2, seed=5, samples=40))
    assert analyzer.explain(case.inputs, 1).relevance.shape == case.inputs.shape
    for path, pair in analyzer.patterns.items():
        assert np.isfinite(pair).all(), path


def test_normalize(double):
    model, x = two_convolutions(), numbers(9, 8, 2)
    raw = kxai.PatternNet(model).fit(x).explain(x, 0).relevance
    scaled = kxai.PatternNet(model, normalize=True).fit(x).explain(x, 0).relevance
    largest = np.abs(raw).max(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(scaled, np.divide(raw, largest, out=np.zeros_like(raw), where=largest > 0), rtol=1e-12)


def test_a_signal_beyond_all_numbers():
    """40 layers that each enlarge it by 10, of which the score makes up for a half: 1e40 is no float32."""
    x = keras.Input((3,))
    y = x
    for i in range(40):
        dense = layers.Dense(3, use_bias=False, name=f"dense_{i}")
        y = dense(y) if i != 20 else layers.Average()([dense(y), layers.Dense(3, use_bias=False, name="branch")(y)])
    model = keras.Model(x, y)
    model.set_weights([np.full((3, 3), 0.1) for _ in model.weights])
    p = 1e21 * np.array([[1.0, 1, 1], [-1, -1, -1]])
    with pytest.raises(NumericalError, match="The signal is beyond all numbers") as error:
        kxai.PatternNet(model, "w").explain(p, 0)
    assert "normalize=True keeps its direction only" in str(error.value)
    result = kxai.PatternNet(model, "w", normalize=True).explain(p, 0).relevance
    np.testing.assert_allclose(result, [[1, 1, 1], [-1, -1, -1]], atol=1e-6)


@pytest.mark.parametrize("build", [models.residual, models.multi_output])
def test_normalizing_on_the_way_keeps_the_direction(double, build):
    """Around branches and with several outputs, too."""
    case = build()
    data = models.numbers(*case.inputs.shape[1:], seed=5, samples=40)
    raw = kxai.PatternNet(case.model).fit(data).explain(case.inputs, case.target).relevance
    scaled = kxai.PatternNet(case.model, normalize=True).fit(data).explain(case.inputs, case.target).relevance
    axes = tuple(range(1, raw.ndim))
    expected = raw / np.abs(raw).max(axis=axes, keepdims=True)
    np.testing.assert_allclose(scaled, expected, rtol=1e-9, atol=1e-12)


def test_quality_orders_the_estimators():
    """On a trained network: chance and weights are bad, linear patterns good, those of active units better."""
    random = np.random.default_rng(0)
    label = random.integers(0, 2, 4000)
    signal = random.normal(size=(2, 12))
    mixing = random.normal(size=(6, 12))
    x = signal[label] * random.uniform(0.5, 1.5, (4000, 1)) + random.normal(size=(4000, 6)) @ mixing
    x = (x + 0.1 * random.normal(size=x.shape)).astype("float32")
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(8, "relu", name="hidden")
    model = keras.Sequential([keras.Input((12,)), hidden, layers.Dense(2, name="logits")])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:3000], label[:3000], epochs=15, batch_size=50, verbose=0)
    test = x[3000:]
    means = {}
    for estimator in ("w", "linear", "relu"):
        net = kxai.PatternNet(model, estimator)
        if estimator != "w":
            net.fit(x[:3000])
        means[estimator] = net.quality(test, "hidden").mean()
    w = hidden.get_weights()[0].astype("float64")
    chance = []
    for j in range(8):
        y, a = test @ w[:, j], random.normal(size=12)
        chance.append(rho(test, y, y[:, None] * (a / (a @ w[:, j]))))
    assert means["linear"] > means["w"] + 0.2
    assert means["linear"] > np.mean(chance) + 0.2
    assert means["relu"] >= means["linear"] - 0.02


# --- fitted, saved, refused ---------------------------------------------------------------------------------------


@both
def test_not_fitted(method):
    case = models.mlp()
    with pytest.raises(ArgumentError, match="has no patterns") as error:
        method(case.model).explain(case.inputs)
    assert f"analyzer.fit(data) first, or {method.__name__}.load(path, model)" in str(error.value)
    for act in (lambda a: a.save("a.npz"), lambda a: a.patterns, lambda a: a.quality(case.inputs, "dense")):
        with pytest.raises((ArgumentError, UnknownNameError)):
            act(method(case.model))


def test_a_second_fit_counts():
    model, x = two_convolutions(), numbers(9, 8, 2).astype("float32")
    analyzer = kxai.PatternNet(model).fit(x)
    before = analyzer.explain(x, 0).relevance
    again = analyzer.fit(x**3).explain(x, 0).relevance
    assert not np.allclose(before, again)
    np.testing.assert_array_equal(again, kxai.PatternNet(model).fit(x**3).explain(x, 0).relevance)
    traces = analyzer.traces
    analyzer.explain(x[:3], 1)
    assert analyzer.traces == traces


@both
@pytest.mark.parametrize("estimator", ["relu", "linear"])
def test_saved_and_loaded(method, estimator, tmp_path):
    model, x = two_convolutions(), numbers(9, 8, 2).astype("float32")
    analyzer = method(model, estimator).fit(x)
    analyzer.save(tmp_path / "patterns.npz")
    model.save(tmp_path / "model.keras")
    reloaded = kxai.load(tmp_path / "model.keras")
    expected = analyzer.explain(x, 0).relevance
    again = method.load(tmp_path / "patterns.npz", reloaded)
    assert again.hyperparameters() == analyzer.hyperparameters()
    np.testing.assert_allclose(again.explain(x, 0).relevance, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_array_equal(again.patterns["first"][0], analyzer.patterns["first"][0])
    # Fitted once, used by both methods.
    (other,) = set(METHODS) - {method}
    crossed = other.load(tmp_path / "patterns.npz", model).explain(x, 0).relevance
    np.testing.assert_array_equal(crossed, other(model, estimator).fit(x).explain(x, 0).relevance)


def test_other_models_are_refused(tmp_path):
    model, x = two_convolutions(), numbers(9, 8, 2).astype("float32")
    analyzer = kxai.PatternNet(model).fit(x)
    analyzer.save(tmp_path / "patterns.npz")
    other = chain((9, 8, 2), layers.Flatten(), layers.Dense(3, name="first"))
    with pytest.raises(ArgumentError, match="belong to another model") as error:
        kxai.PatternNet.load(tmp_path / "patterns.npz", other)
    assert "node 'first': conv, kernel (3, 3, 2, 3)" in str(error.value)
    assert "node 'first': dense, kernel (144, 3)" in str(error.value)
    model.get_layer("hidden").bias.assign_add([0, 0, 0.5, 0, 0])
    for act in (lambda: analyzer.explain(x), lambda: kxai.PatternAttribution.load(tmp_path / "patterns.npz", model)):
        with pytest.raises(ArgumentError, match="belong to other weights") as error:
            act()
        assert "fit(data) again" in str(error.value)
    assert len(analyzer.fit(x).explain(x)) == 20


def test_bound_to_another_model():
    """With its patterns if they fit, else not fitted."""
    model, x = two_convolutions(), numbers(9, 8, 2).astype("float32")
    analyzer = kxai.PatternNet(model, "linear", normalize=True).fit(x)
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    bound = analyzer.bind(twin)
    assert bound.hyperparameters() == analyzer.hyperparameters()
    np.testing.assert_allclose(bound.explain(x, 1).relevance, analyzer.explain(x, 1).relevance, rtol=1e-5, atol=1e-6)
    with pytest.raises(ArgumentError, match="has no patterns"):
        analyzer.bind(two_convolutions("linear")).explain(x, 1)
    twin.set_weights([2 * w for w in model.get_weights()])
    with pytest.raises(ArgumentError, match="has no patterns"):
        analyzer.bind(twin).explain(x, 1)
    kxai.PatternNet(model).bind(twin)  # not fitted, neither


def test_files_that_are_no_patterns(tmp_path):
    model = two_convolutions()
    with pytest.raises(LoadError, match="There is no file of patterns at"):
        kxai.PatternNet.load(tmp_path / "a.npz", model)
    files.write_archive(tmp_path / "b.npz", '{"format": "kxai.explanation", "version": 1}', {})
    with pytest.raises(LoadError, match="holds no patterns that this version") as error:
        kxai.PatternNet.load(tmp_path / "b.npz", model)
    assert "format 'kxai.explanation' version 1" in str(error.value)
    text = {"format": "kxai.patterns", "version": 1, "estimator": "w", "samples": 1, "weights": "", "nodes": {}}
    files.write_archive(tmp_path / "c.npz", json.dumps({**text, "fitted": []}), {})
    with pytest.raises(LoadError, match="unknown estimator"):
        kxai.PatternNet.load(tmp_path / "c.npz", model)
    with pytest.raises(ArgumentError, match="wrong ending"):
        kxai.PatternNet(model).fit(numbers(9, 8, 2)).save(tmp_path / "patterns.npy")


def test_data_that_cannot_be_fitted():
    model, x = two_convolutions(), numbers(9, 8, 2)
    with pytest.raises(InputError, match="empty"):
        kxai.PatternNet(model).fit(x[:0])
    with pytest.raises(InputError, match="The dataset is empty"):
        kxai.PatternNet(model).fit(tf.data.Dataset.from_tensor_slices(x).take(0))
    x[3, 2, 1, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        kxai.PatternNet(model).fit(x)
    with pytest.raises(NumericalError, match=r"The values of node '(second|hidden|logits)' are not finite"):
        kxai.PatternNet(model).fit(3e38 * np.ones((2, 9, 8, 2)))
    with pytest.raises(ArgumentError, match="batch_size is out of range"):
        kxai.PatternNet(model).fit(x, batch_size=0)
    for estimator in ("w", "x"):
        with pytest.raises(ArgumentError, match="there is nothing to fit"):
            kxai.PatternNet(model, estimator).fit(x)
        with pytest.raises(ArgumentError, match='"linear" or "relu"'):
            kxai.PatternNet(model, estimator).save("a.npz")


def test_arguments():
    model = two_convolutions()
    with pytest.raises(ArgumentError, match="estimator is out of range") as error:
        kxai.PatternNet(model, "positive")
    assert "'x', 'w', 'linear', 'relu'" in str(error.value)
    net = kxai.PatternNet(model).fit(numbers(9, 8, 2))
    with pytest.raises(UnknownNameError, match="Unknown node 'frist'"):
        net.quality(numbers(9, 8, 2), "frist")
    with pytest.raises(ArgumentError, match="not defined for node 'flatten"):
        net.quality(numbers(9, 8, 2), next(layer.name for layer in model.layers if "flatten" in layer.name))


@both
@pytest.mark.parametrize("build", [models.lstm, models.gated, models.encoder])
def test_networks_that_it_is_not_defined_for(method, build):
    with pytest.raises(RuleError, match=f"{method.__name__} is not defined for node") as error:
        method(build().model).plan()
    assert "use LRP or a gradient method" in str(error.value)


@both
def test_other_affine_layers(method):
    model = chain((2, 3), layers.EinsumDense("abc,cd->abd", (2, 4)), layers.Flatten(), layers.Dense(1))
    with pytest.raises(RuleError, match="has no patterns: which of its weights belong to which output"):
        method(model).plan()


def test_what_the_plan_shows():
    text = str(kxai.PatternNet(two_convolutions()).plan())
    for active in (True, False):
        assert f"Pattern(estimator='relu', weighted=False, active={active}, normalize=False)" in text


@pytest.mark.parametrize("estimator", ["relu", "linear"])
def test_data_that_do_not_vary(estimator):
    case = models.mlp()
    for data in (case.inputs[:1], np.ones_like(case.inputs)):
        with pytest.warns(kxai.KxaiWarning, match=r"All patterns of dense.* are 0(.|\n)*Fit to more data"):
            kxai.PatternNet(case.model, estimator).fit(data)
