"""What rules promise for every model and input: conservation, invariances, limits."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai import Kind, rules
from kxai.composites import PRESETS
from kxai.errors import ArgumentError, KxaiWarning
from tests import naive

BOX = {"low": -3.0, "high": 3.0}
# Every preset but the one that is written for the layer names of VGG-16, and aliases.
METHODS: dict[str, dict[str, Any]] = {
    f"lrp.{name}": {"epsilon_gamma_box": BOX, "sequential_preset_b_flat_until_idx": {"idx": 1}}.get(name, {})
    for name in PRESETS
    if name not in ("vgg16_tutorial", "z", "alpha_2_beta_1", "alpha_1_beta_0")
}


def cnn(dtype: str = "float64", use_bias: bool = True, head: str | None = "argument", seed: int = 0) -> Any:
    """Convolutions, ReLUs, max-pooling, dense layers; random weights of a size that keeps activations near 1."""
    rng = np.random.default_rng(seed)
    kwargs = {"use_bias": use_bias, "dtype": dtype}
    inputs = keras.Input((8, 8, 2), dtype=dtype)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="one", **kwargs)(inputs)
    x = layers.MaxPooling2D(2, dtype=dtype)(x)
    x = layers.Conv2D(6, 3, activation="relu", name="two", **kwargs)(x)
    x = layers.Flatten(dtype=dtype)(x)
    x = layers.Dense(12, activation="relu", name="three", **kwargs)(x)
    x = layers.Dense(4, activation="softmax" if head == "argument" else None, name="top", **kwargs)(x)
    if head == "layer":
        x = layers.Softmax(dtype=dtype)(x)
    if head == "function":
        x = ops.softmax(x)
    model = keras.Model(inputs, x)
    for v in model.variables:
        size = np.prod(v.shape[:-1]) if len(v.shape) > 1 else 1
        v.assign(rng.normal(size=v.shape) * np.sqrt(2 / size) * (0.2 if len(v.shape) == 1 else 1))
    return model


def images(count: int = 4, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(7).uniform(-2, 2, size=(count, 8, 8, 2)).astype(dtype)


def largest(values: Any) -> float:
    return float(np.max(np.abs(values)))


# --- conservation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_epsilon_conserves_without_biases(dtype):
    found = kxai.explain(cnn(dtype, use_bias=False), images(8, dtype), "lrp.epsilon", epsilon=1e-9)
    # float32: 1e-7 per sum, amplified where a pre-activation nearly cancels.
    assert largest(found.residual / found.score) <= (1e-5 if dtype == "float32" else 1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_the_residual_is_what_nodes_absorbed(method):
    found = kxai.create_analyzer(method, cnn(), **METHODS[method]).explain(images(), audit=True)
    # The stabilizer of 1e-6 makes no difference here: what it absorbs is accounted for like all else.
    scale = sum(np.abs(absorbed) for absorbed in found.absorbed.values()) + np.abs(found.score)
    assert largest((sum(found.absorbed.values()) - found.residual) / scale) <= 1e-12
    if method == "lrp.epsilon":
        assert largest(found.residual) > 1e-3  # biases do absorb
    affine = {node.path for node in kxai.plan(cnn(), method, **METHODS[method]).graph.nodes if node.kind is Kind.AFFINE}
    others = [largest(absorbed) for path, absorbed in found.absorbed.items() if path not in affine]
    assert max(others) <= 1e-12 * largest(scale)  # activations, pooling and flattening absorb nothing


@pytest.mark.parametrize("bias", [True, False])
def test_what_epsilon_absorbs_at_each_node(bias):
    """``(b_j + epsilon sgn(z_j)) / stab(z_j) R_j`` with the bias, the second term alone without."""
    rng = np.random.default_rng(0)
    parts = [
        layers.Dense(6, activation="relu", name="one", dtype="float64"),
        layers.Dense(3, name="two", dtype="float64"),
    ]
    model = keras.Sequential([keras.Input((5,), dtype="float64"), *parts])
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    x, weights = rng.normal(size=(3, 5)), rng.normal(size=(3, 3)).astype("float32")
    found = kxai.LRP(model, "epsilon", epsilon=0.1, bias=bias).explain(x, weights, audit=True)
    W1, b1, W2, b2 = model.get_weights()
    hidden = np.maximum(x @ W1 + b1, 0)
    R = weights * (hidden @ W2 + b2)
    for name, value, W, b in (("two", hidden, W2, b2), ("one", x, W1, b1)):
        z = value @ W + b * bias
        lost = (b * bias + 0.1 * np.where(z < 0, -1, 1)) / naive.stab(z, 0.1) * R
        path = next(path for path in found.absorbed if path.startswith(name) and "relu" not in path)
        assert naive.distance(found.absorbed[path], lost.sum(axis=1)) <= 1e-9
        R = value * ((R / naive.stab(z, 0.1)) @ W.T)


LAYERS = {
    "dense": (lambda: layers.Dense(4, dtype="float64"), (6,)),
    "conv same": (lambda: layers.Conv2D(3, 3, strides=2, padding="same", dtype="float64"), (5, 4, 2)),
    "transposed": (lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same", dtype="float64"), (3, 2, 2)),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, padding="same", dtype="float64"), (5, 4, 2)),
    "causal": (lambda: layers.Conv1D(3, 3, padding="causal", dtype="float64"), (5, 2)),
}


def single(name: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """(one layer, inputs, weights that make all relevance positive)."""
    build, shape = LAYERS[name]
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input(shape, dtype="float64"), build()])
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    x = rng.uniform(-2, 2, size=(3, *shape))
    return model, x, np.sign(np.asarray(model(x))).astype("float32")


def one(rule: Any) -> kxai.Composite:
    return kxai.Composite("one", ((Kind.AFFINE, rule),))


@pytest.mark.parametrize("rule", [rules.WSquare(), rules.Flat(), rules.ZBox(-2.0, 2.0), rules.ZBox(-2.0, 9.0)])
@pytest.mark.parametrize("name", LAYERS)
def test_rules_that_conserve_exactly(name, rule):
    model, x, weights = single(name)
    found = kxai.LRP(model, one(rule)).explain(x, weights)
    assert largest(found.residual / found.score) <= 1e-12
    assert (found.relevance >= 0).all()  # and keep the sign


@pytest.mark.parametrize("name", LAYERS)
def test_z_plus_conserves_where_there_is_a_positive_part_and_drops_the_rest(name):
    model, x, weights = single(name)
    found = kxai.LRP(model, one(rules.ZPlus(0.0))).explain(x, weights)
    kernel = model.get_weights()[0]
    linear = {"dense": naive.dense, "transposed": naive.conv_transpose, "depthwise": naive.depthwise}.get(
        name, naive.conv
    )
    window = {"conv same": (2, "same"), "transposed": (2, "same"), "depthwise": (1, "same"), "causal": (1, "causal")}
    m = naive.Affine(lambda v: linear(v, kernel, *window.get(name, ())), (), x.shape[1:])
    output = np.asarray(model(x)).reshape(len(x), -1)
    for s in range(len(x)):
        has_part = naive.pos(x[s].ravel()[:, None] * m.W).sum(axis=0) > 0
        assert found.relevance[s].sum() == pytest.approx(np.abs(output[s])[has_part].sum(), rel=1e-12)
    assert (found.relevance >= 0).all()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((2.0, -1.0), 1.0), ((2.0, 1.0), 2.0), ((-2.0, -1.0), -1.0)],
    ids=["both", "positive", "negative"],
)
def test_alpha_beta_conserves_where_both_parts_are_present(weights, expected):
    """A neuron without negative part hands down alpha R, one without positive part -beta R."""
    model = keras.Sequential([keras.Input((2,), dtype="float64"), layers.Dense(1, use_bias=False, dtype="float64")])
    model.set_weights([np.array(weights)[:, None]])
    found = kxai.LRP(model, one(rules.AlphaBeta(2, 1, epsilon=0.0))).explain(np.ones((1, 2)), 0)
    assert found.relevance.sum() / found.score[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 0.5), (0.5, -0.5), (1.0, 1.0), (3.0, 1.0)])
def test_alpha_and_beta_that_do_not_fit_raise(alpha, beta):
    message = rf"do not fit together.\n  Expected: alpha - beta = 1.*\n  Received: alpha={alpha}, beta={beta}"
    with pytest.raises(ArgumentError, match=message):
        kxai.LRP(cnn(), "alpha_beta", alpha=alpha, beta=beta)


# --- limits ----------------------------------------------------------------------------------------------------------


def test_without_epsilon_lrp_is_gradient_times_input():
    """On ReLUs and max-pooling, biases included."""
    model, x = cnn(), images()
    expected = kxai.explain(model, x, "gradient_x_input").relevance
    assert naive.distance(kxai.explain(model, x, "lrp.epsilon", epsilon=1e-12).relevance, expected) <= 1e-9
    assert naive.distance(kxai.explain(model, x, "lrp.zero").relevance, expected) <= 1e-9


def test_gamma_zero_is_epsilon():
    model, x = cnn(), images()
    for bias in (True, False):
        one = kxai.explain(model, x, "lrp.gamma", gamma=0.0, epsilon=0.1, bias=bias).relevance
        assert naive.distance(one, kxai.explain(model, x, "lrp.epsilon", epsilon=0.1, bias=bias).relevance) <= 1e-12


def test_gamma_tends_to_z_plus():
    """Where z > 0; so the explained logit must be positive too."""
    model, x = cnn(head=None), images()
    positive = (np.asarray(model(x)) > 0).astype("float32")
    for bias in (True, False):
        limit = kxai.LRP(model, "z_plus", bias=bias, epsilon=0.0).explain(x, positive).relevance
        near, far = (
            naive.distance(
                kxai.LRP(model, "gamma", gamma=g, bias=bias, epsilon=0.0).explain(x, positive).relevance, limit
            )
            for g in (1e4, 1e8)
        )
        assert far <= 1e-6
        assert near > 100 * far


# --- invariances -----------------------------------------------------------------------------------------------------

SCALE_FREE = [
    rules.Epsilon(0.0), rules.Epsilon(0.0, bias=False), rules.Epsilon(0.25, relative="rms"), rules.Gamma(0.25, 0.0),
    rules.GammaOriginal(0.25, 0.0), rules.AlphaBeta(2, 1, 0.0), rules.ZPlus(0.0), rules.ZPlus(0.0, bias=True),
    rules.WSquare(), rules.Flat(), rules.ZBox(-2.0, 2.0),
]  # fmt: skip


@pytest.mark.parametrize("rule", SCALE_FREE, ids=repr)
@pytest.mark.parametrize("name", ["dense", "conv same"])
def test_the_scale_of_a_layer_does_not_matter(name, rule):
    """For the same relevance: the target's weights make up for the larger output."""
    model, x, weights = single(name)
    before = kxai.LRP(model, one(rule)).explain(x, weights).relevance
    model.set_weights([4 * w for w in model.get_weights()])
    assert naive.distance(kxai.LRP(model, one(rule)).explain(x, weights / 4).relevance, before) <= 1e-12


def test_the_scale_does_matter_to_epsilon():
    model, x, weights = single("dense")
    before = kxai.LRP(model, one(rules.Epsilon(0.5))).explain(x, weights).relevance
    model.set_weights([4 * w for w in model.get_weights()])
    assert naive.distance(kxai.LRP(model, one(rules.Epsilon(0.5))).explain(x, weights / 4).relevance, before) > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_rules_are_linear_in_relevance(method):
    model, x = cnn(), images()
    analyzer = kxai.create_analyzer(method, model, **METHODS[method])
    rng = np.random.default_rng(0)
    # Multiples of 1/8, so that float32 holds their sums exactly.
    first, second = (np.round(8 * rng.normal(size=(4, 4))).astype("float32") / 8 for _ in range(2))
    parts = analyzer.explain(x, first).relevance - 2 * analyzer.explain(x, second).relevance
    assert naive.distance(analyzer.explain(x, first - 2 * second).relevance, parts) <= 1e-10
    assert (analyzer.explain(x, np.zeros((4, 4), "float32")).relevance == 0).all()


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_relevance_is_finite_at_zero(method, use_bias):
    analyzer = kxai.create_analyzer(method, cnn("float32", use_bias), **METHODS[method])
    assert np.isfinite(analyzer.explain(np.zeros((1, 8, 8, 2)), 1).relevance).all()
    dead = cnn("float32", use_bias)
    dead.set_weights([0 * w for w in dead.get_weights()])
    assert (kxai.create_analyzer(method, dead, **METHODS[method]).explain(images(1), 1).relevance == 0).all()


@pytest.mark.parametrize("head", ["argument", "layer", "function"])
@pytest.mark.parametrize("method", ["gradient", "lrp.epsilon_plus", "lrp.gamma", "lrp.epsilon_alpha2_beta1_flat"])
def test_a_softmax_at_the_end_does_not_matter(method, head):
    x = images()
    with_softmax = kxai.explain(cnn(head=head), x, method)
    without = kxai.explain(cnn(head=None), x, method)
    np.testing.assert_array_equal(with_softmax.relevance, without.relevance)
    np.testing.assert_array_equal(with_softmax.score, without.score)
    assert not np.allclose(with_softmax.outputs, without.outputs)


# --- deep Taylor -----------------------------------------------------------------------------------------------------

DOMAINS = {"any": ({}, -2), "not negative": ({"low": 0.0}, 0), "box": ({"low": -2.0, "high": 2.0}, -2)}


@pytest.mark.parametrize("max_pooling", ["winner", "proportional"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_deep_taylor_is_consistent(domain, max_pooling):
    """Biases <= 0: relevance is not negative and adds up to the logit."""
    model = cnn(head=None)
    for layer in model.layers:
        if layer.weights:
            layer.bias.assign(-np.abs(layer.bias.numpy()))
    bounds, low = DOMAINS[domain]
    x = np.random.default_rng(3).uniform(low, 2, size=(8, 8, 8, 2))
    best = np.asarray(model(x)).argmax(axis=1)
    chosen = np.asarray(model(x)).max(axis=1) > 0
    assert chosen.sum() > 2
    found = kxai.DeepTaylor(model, **bounds, max_pooling=max_pooling).explain(x[chosen], best[chosen])
    assert (found.relevance >= 0).all()
    # Stabilizers of 1e-6 in three layers and the pooling.
    assert largest(found.residual / found.score) <= 1e-4
    assert found.relevance.sum() > 0


def test_deep_taylor_of_a_logit_that_is_not_positive():
    model = cnn(head=None)
    x = images(1)
    worst = int(np.asarray(model(x)).argmin())
    assert np.asarray(model(x))[0, worst] < 0
    with pytest.warns(KxaiWarning, match="Deep Taylor explains positive logits; for 1 of 1 samples"):
        found = kxai.DeepTaylor(model).explain(x, worst)
    assert (found.relevance == 0).all()


@pytest.mark.parametrize(
    "bounds",
    [{"high": 1.0}, {"low": -1.0}, {"low": 0.5}],
    ids=["high alone", "negative low alone", "positive low alone"],
)
def test_deep_taylor_knows_three_domains(bounds):
    with pytest.raises(ArgumentError, match=r"domain of deep Taylor.*\n  Expected: no bounds \(w\^2\)"):
        kxai.DeepTaylor(cnn(), **bounds)
