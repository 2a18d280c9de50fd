"""The reverse run on graphs that are not plain chains of floats: integers, masks, constants, joined axes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai import Kind, rules
from kxai.errors import ArgumentError, RuleError, UnknownNameError


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def dense_net(head, shape, dtype="float32"):
    x = layers.Input(shape, dtype=dtype)
    return keras.Model(x, layers.Dense(3)(layers.Flatten()(head(x))))


INTEGERS = {
    "uint8 rescaled": ("uint8", layers.Rescaling(1 / 255.0)),
    "int32 scaled": ("int32", lambda x: x * 0.5),
    "bool cast": ("bool", lambda x: ops.cast(x, "float32")),
    "int32 reshaped, cast": ("int32", lambda x: ops.cast(ops.reshape(x, (-1, 8)), "float32")),
}


@pytest.mark.parametrize("method", ["gradient", "gradient_x_input", "lrp.epsilon", "lrp.z_plus"])
@pytest.mark.parametrize("case", INTEGERS)
def test_integer_inputs_are_explained_like_floats(case, method):
    dtype, head = INTEGERS[case]
    x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 9, (3, 4, 2)).astype(dtype)
    model = dense_net(head, (4, 2), dtype)
    twin = dense_net(head, (4, 2))
    twin.set_weights(model.get_weights())
    relevance = kxai.explain(model, x, method, target=1).relevance
    expected = kxai.explain(twin, x.astype("float32"), method, target=1).relevance
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(relevance, expected, rtol=1e-6)


def test_token_ids_may_be_computed_with():
    ids = layers.Input((5,), dtype="int32")
    embedding = layers.Embedding(12, 4)
    plain = keras.Model(ids, layers.Dense(2)(layers.Flatten()(embedding(ids))))
    shifted = keras.Model(ids, layers.Dense(2)(layers.Flatten()(embedding(ids + 1))))
    shifted.set_weights(plain.get_weights())
    x = np.random.default_rng(0).integers(0, 10, (3, 5))
    got = kxai.explain(shifted, x, "gradient_x_input", target=0).relevance
    np.testing.assert_allclose(got, kxai.explain(plain, x + 1, "gradient_x_input", target=0).relevance, rtol=1e-6)
    assert np.abs(got).max() > 0


class Offset(layers.Layer):
    """Puts a negative constant beside its input."""

    def build(self, shape):
        self.cls = self.add_weight(shape=(1,), initializer=keras.initializers.Constant(-2.0))

    def call(self, x):
        return ops.concatenate([ops.zeros_like(x[:, :1]) + self.cls, x], axis=1)


def test_a_negative_constant_beside_activations_is_seen():
    x = layers.Input((4,))
    model = keras.Model(x, layers.Dense(2, name="top")(Offset(name="offset")(layers.Dense(3, activation="relu")(x))))
    inputs = np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
    explanation = kxai.LRP(model, "z_plus", bias=False).explain(inputs, target=0, layers="dense*")
    kernel = np.asarray(model.get_layer("top").kernel)[:, 0]
    values = np.concatenate([np.full((4, 1), -2.0), np.asarray(model.layers[1](inputs))], axis=1)
    contributions = np.maximum(values * kernel, 0)
    share = contributions / (contributions.sum(1, keepdims=True) + 1e-6) * explanation.score[:, None]
    (path,) = [path for path in explanation.layers if path.endswith("relu")]
    np.testing.assert_allclose(explanation.layers[path], share[:, 1:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["deep_taylor", "lrp.epsilon_plus_flat", "lrp.w_square", "lrp.epsilon"])
def test_masks_before_the_first_layer(method):
    net = [layers.Input((5, 3)), layers.Masking(), layers.Dense(4, activation="relu"), layers.GlobalAveragePooling1D()]
    model = keras.Sequential([*net, layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    x[:, 3:] = 0
    best = np.asarray(model(x)).argmax(axis=1)
    if method == "deep_taylor":
        model.layers[-1].bias.assign([5.0, 5.0])
    relevance = kxai.explain(model, x, method, target=best).relevance
    assert np.abs(relevance[:, :3]).max() > 0


def test_masked_mean():
    x, mask = layers.Input((5, 3)), layers.Input((5,))
    weights = ops.expand_dims(ops.cast(mask > 0.5, "float32"), -1)
    model = keras.Model([x, mask], layers.Dense(2, use_bias=False)(ops.sum(x * weights, 1) / ops.sum(weights, 1)))
    arrays = [np.random.default_rng(0).normal(size=(2, 5, 3)), np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])]
    explanation = kxai.explain(model, arrays, "lrp.epsilon")
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-4)
    assert np.abs(explanation.relevance[0][0, 2:]).max() == 0


def test_steps_that_join_the_batch():
    net = [layers.Input((3, 6)), layers.TimeDistributed(layers.Dense(4, activation="relu", name="step"), name="steps")]
    model = keras.Sequential([*net, layers.Flatten(), layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(5, 3, 6)).astype("float32")
    explanation = kxai.LRP(model, "epsilon").explain(x, layers="steps/step", audit=True)
    assert explanation.layers["steps/step"].shape == (5, 3, 4)
    np.testing.assert_allclose(sum(explanation.absorbed.values()), explanation.residual, atol=1e-5)


class Pair(keras.Model):
    """Takes a dict, and does not declare it."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(ops.concatenate([inputs["a"], inputs["b"]], axis=-1))


def test_subclassed_model_of_a_dict():
    model, x = Pair(), {"b": np.ones((3, 2), "float32"), "a": np.full((3, 4), 2.0, "float32")}
    model(x)
    explanation = kxai.LRP(model, "zero").explain(x, target=0)
    kernel = np.asarray(model.dense.kernel)[:, 0]
    np.testing.assert_allclose(explanation.relevance["a"], np.tile(2 * kernel[:4], (3, 1)), rtol=1e-5)
    np.testing.assert_allclose(explanation.relevance["b"], np.tile(kernel[4:], (3, 1)), rtol=1e-5)


def test_bounds_are_those_of_the_inputs_that_feed_the_layer():
    image, table = layers.Input((6, 6, 3)), layers.Input((4,))
    joined = layers.Concatenate()([layers.Flatten()(layers.Conv2D(2, 3)(image)), layers.Dense(3)(table)])
    model = keras.Model([image, table], layers.Dense(2)(joined))
    x = [np.zeros((2, 6, 6, 3), "float32"), np.ones((2, 4), "float32")]
    low, high = np.full(3, -9.0), np.full(3, 9.0)
    assert kxai.LRP(model, "epsilon_gamma_box", low=low, high=high).explain(x).relevance[0].shape == (2, 6, 6, 3)
    with pytest.raises(ArgumentError, match="The bound low does not fit the input"):
        kxai.LRP(model, "epsilon_gamma_box", low=np.zeros(4), high=np.ones(4)).explain(x)


def test_rows_without_effect_are_mistakes():
    net = [layers.Input((4,)), layers.Dense(3, name="hidden"), layers.BatchNormalization(), layers.ReLU(name="relu")]
    model = keras.Sequential([*net, layers.Dense(2)])
    with pytest.raises(UnknownNameError, match="'LayerNormalization'"):
        kxai.plan(model, kxai.preset("epsilon").but((layers.LayerNormalization, rules.Pass())))
    plan = kxai.plan(model, kxai.preset("epsilon").but((layers.ReLU, rules.Gradient())))
    assert ("relu", "elementwise", "Gradient()") in plan.rows


def test_a_glob_means_the_nodes_of_the_kinds_that_its_rule_is_for():
    net = [layers.Dense(3, "relu", name="hidden_a"), layers.Dense(3, "relu", name="hidden_b")]
    model = keras.Sequential([layers.Input((4,)), *net, layers.Dense(2, name="top")])
    chosen = {path: rule for path, _, rule in kxai.plan(model, kxai.preset("epsilon").but(("h*", rules.Flat()))).rows}
    assert chosen["hidden_a"] == chosen["hidden_b"] == repr(rules.Flat())
    assert chosen["hidden_a/relu"] == chosen["hidden_b/relu"] == repr(rules.Pass())
    assert chosen["top"] == repr(rules.Epsilon())
    # The name of a node, and a glob that its rule has no node in, are meant.
    with pytest.raises(RuleError, match=r"Flat.* does not apply to node 'hidden_a/relu'"):
        kxai.plan(model, kxai.preset("epsilon").but(("hidden_a/relu", rules.Flat())))
    with pytest.raises(RuleError, match=r"none of the nodes that 'h\*' (.|\n)*kind max(.|\n)*hidden_a \(affine\)"):
        kxai.plan(model, kxai.preset("epsilon").but(("h*", rules.WinnerTakesAll())))


def test_passing_to_several_tensors_is_refused():
    x = layers.Input((4,))
    model = keras.Model(x, layers.Dense(2)(layers.Add(name="sum")([layers.Dense(3)(x), layers.Dense(3)(x)])))
    with pytest.raises(RuleError):
        kxai.plan(model, kxai.preset("epsilon").but(("sum", rules.Pass())))


def test_scalings_without_shift_lose_nothing():
    net = [layers.Input((5,)), layers.Dense(4, use_bias=False), *(layers.Rescaling(2.0) for _ in range(3))]
    model = keras.Sequential([*net, layers.Dense(2, use_bias=False)])
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    for method in ("epsilon", "epsilon_plus", "epsilon_alpha2_beta1", "epsilon_plus_flat"):
        explanation = kxai.LRP(model, method).explain(x)
        np.testing.assert_allclose(explanation.residual, 0, atol=1e-4 * np.abs(explanation.score).max())


def test_plans_and_programs_do_not_pile_up():
    model = keras.Sequential([layers.Input((None, 3)), layers.Conv1D(2, 2), layers.GlobalMaxPooling1D()])
    analyzer = kxai.Gradient(model)
    for length in range(3, 23):
        analyzer.explain(np.zeros((1, length, 3), "float32"), target=0)
    assert analyzer.traces == 20
    assert len(analyzer._plans) <= 16
    assert len(analyzer._programs) <= 16
    assert Kind.MAX in {node.kind for node in analyzer.plan().graph.nodes}


@pytest.mark.parametrize("axis", [-1, 1])
def test_one_hot(axis):
    ids = layers.Input((5,), dtype="int32")
    model = keras.Model(ids, layers.Dense(2)(layers.Flatten()(ops.one_hot(ids, 7, axis=axis))))
    x = np.random.default_rng(0).integers(0, 7, (3, 5))
    if axis == -1:
        assert kxai.explain(model, x, "lrp.epsilon").relevance.shape == (3, 5)
    else:
        with pytest.raises(RuleError, match="one_hot does not put its classes on the last axis"):
            kxai.explain(model, x, "lrp.epsilon")


def test_audit_of_a_network_of_two_precisions():
    class Widened(layers.Layer):
        def call(self, x):
            return ops.cast(ops.cast(x, "float32") * 2.0, "float64")

    x = layers.Input((3,), dtype="float64")
    model = keras.Model(x, layers.Dense(2, bias_initializer="ones", dtype="float64")(Widened(dtype="float64")(x)))
    explanation = kxai.LRP(model, "epsilon").explain(np.random.default_rng(0).normal(size=(4, 3)), 1, audit=True)
    lost = sum(explanation.absorbed.values())
    np.testing.assert_allclose(lost, 1.0, rtol=1e-5)  # the bias
    # Half of it is computed in float32.
    np.testing.assert_allclose(explanation.relevance.sum(axis=1) + lost, explanation.score, rtol=1e-5, atol=1e-6)


def test_samples_behind_another_axis():
    class Swapped(layers.Layer):
        def call(self, x):
            return ops.swapaxes(ops.swapaxes(x, 0, 1) * 2.0, 0, 1)

    x = layers.Input((3, 2), dtype="float64")
    swapped = Swapped(name="swapped", dtype="float64")(x)
    model = keras.Model(x, layers.Dense(1, use_bias=False, dtype="float64")(layers.Flatten()(swapped)))
    values = np.random.default_rng(0).normal(size=(4, 3, 2))
    explanation = kxai.LRP(model, "epsilon").explain(values, 0, batch_size=2, layers="swapped/*", audit=True)
    assert len(explanation.layers) == 3
    for relevance in explanation.layers.values():  # each moves, or scales without a rest
        np.testing.assert_allclose(relevance, explanation.relevance, rtol=1e-4)
    for lost in explanation.absorbed.values():
        assert np.abs(lost).max() < 1e-4


@pytest.mark.parametrize("method", ["lrp.epsilon", "gradient"])
def test_what_tensorflow_cannot_derive_is_named(method):
    x = layers.Input((5, 3))
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(ops.slice_update(x, (0, 2, 0), x[:, :2] * 2.0))))
    with pytest.raises(RuleError, match=r"(?s)'slice_update(_1)?' has no derivative in TensorFlow.*Fix: write it with"):
        kxai.explain(model, np.ones((2, 5, 3), "float32"), method)


@pytest.mark.parametrize("method", ["lrp.epsilon", "gradient_x_input"])
def test_sizes_that_tensorflow_loses_are_restored(method):
    x = layers.Input((7, 6))
    weights = np.arange(1, 8, dtype="float32")
    model = keras.Model(x, layers.Dense(3, use_bias=False)(ops.average(x, axis=1, weights=weights)))
    values = np.random.default_rng(0).normal(size=(4, 7, 6)).astype("float32")
    kernel = model.get_weights()[0]
    expected = values * (weights / weights.sum())[:, None] * kernel[:, 1]
    relevance = kxai.explain(model, values, method, target=1).relevance
    # The stabilizers of both nodes are 1e-6 of values of about 0.1.
    np.testing.assert_allclose(relevance, expected, rtol=1e-3, atol=1e-5)


def test_rounding_has_no_derivative():
    x = keras.Input((6,))
    rounded = keras.ops.cast(keras.ops.cast(x, "int32"), "float32")
    model = keras.Model(x, x * rounded)
    inputs = np.random.default_rng(0).normal(0, 3, size=(2, 6)).astype("float32")
    explanation = kxai.Gradient(model).explain(inputs, target=4)
    expected = np.zeros_like(inputs)
    expected[:, 4] = np.trunc(inputs[:, 4])
    np.testing.assert_allclose(explanation.relevance, expected)


def test_ids_may_be_floats():
    ids = keras.Input((3,))
    embedded = keras.layers.Embedding(5, 2)(keras.ops.cast(ids, "int32"))
    model = keras.Model(ids, keras.layers.Dense(1, use_bias=False)(keras.layers.Flatten()(embedded)))
    explanation = kxai.explain(model, np.array([[1.0, 4.0, 2.0]], "float32"), "lrp.zero", target=0)
    np.testing.assert_allclose(explanation.relevance.sum(1), explanation.score, rtol=1e-5)


@pytest.mark.parametrize("method", ["lrp.epsilon", "integrated_gradients", "deeplift", "fullgrad"])
def test_new_variables_of_a_layer_are_followed(method):
    keras.utils.set_random_seed(1)
    head = layers.Dense(3)
    model = keras.Sequential([layers.Input((6, 6, 1)), layers.Conv2D(2, 3, activation="relu"), layers.Flatten(), head])
    analyzer = kxai.create_analyzer(method, model)
    x = np.random.default_rng(0).random((2, 6, 6, 1), np.float32)
    before = analyzer.explain(x, target=0).relevance
    head.enable_lora(2)
    head.lora_kernel_b.assign(np.random.default_rng(1).normal(size=head.lora_kernel_b.shape))
    found = analyzer.explain(x, target=0).relevance
    np.testing.assert_array_equal(found, kxai.explain(model, x, method, target=0).relevance)
    assert np.abs(found - before).max() > 0.01 * np.abs(before).max()
