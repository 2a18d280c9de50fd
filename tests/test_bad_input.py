"""Every kind of bad input gives kxai's own error, which says what happened and what to do, and breaks nothing."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import kxai
from kxai import Contrast, rules
from kxai.errors import (
    ArgumentError,
    InputError,
    KxaiError,
    LoadError,
    ModelError,
    NumericalError,
    RuleError,
    TargetError,
    UnknownNameError,
)
from kxai.testing import models


def raises(kind, *texts):
    """The error, with all texts in its message, in any order."""
    assert issubclass(kind, KxaiError)
    return pytest.raises(kind, match="".join(f"(?=[\\s\\S]*{re.escape(text)})" for text in texts))


@pytest.fixture(scope="module")
def analyzers():
    """One analyzer per model, used by all tests: errors must not break it."""
    made = {}

    def get(build, method="lrp.epsilon_plus"):
        key = (build.__name__, method)
        if key not in made:
            case = build()
            analyzer = kxai.create_analyzer(method, case.model)
            made[key] = case, analyzer, analyzer.explain(case.inputs, case.target)
        return made[key]

    return get


@pytest.fixture
def healthy(analyzers):
    """Get (case, analyzer); after the test the analyzer must still explain as before."""
    used = []

    def get(build, method="lrp.epsilon_plus"):
        used.append(analyzers(build, method))
        return used[-1][:2]

    yield get
    for case, analyzer, before in used:
        after = analyzer.explain(case.inputs, case.target)
        for a, b in zip(keras.tree.flatten(before.relevance), keras.tree.flatten(after.relevance), strict=True):
            np.testing.assert_array_equal(a, b)


# --- inputs

X = models.numbers(6)
BAD = np.where(np.arange(6) == 2, np.nan, X)
HUGE = np.where(np.arange(6) == 2, np.inf, X)

BAD_INPUTS = {
    "a single sample": (X[0], ["wrong shape", "(samples, 6)", "(6,)", "x[None]"]),
    "wrong number of features": (X[:, :5], ["wrong shape", "(samples, 6)", "(4, 5)"]),
    "an axis too many": (X[..., None], ["wrong shape", "(4, 6, 1)"]),
    "a number": (1.0, ["wrong shape", "()"]),
    "empty batch": (X[:0], ["empty", "(0, 6)"]),
    "NaN": (BAD, ["not finite", "4 of 24"]),
    "infinity": (HUGE, ["not finite", "4 of 24"]),
    "strings": (X.astype(str), ["does not hold numbers", "float32"]),
    "objects": (np.array([[None] * 6]), ["does not hold numbers"]),
    "None": (None, ["does not hold numbers"]),
    "complex numbers": (X + 1j, ["does not hold numbers", "complex"]),
    "ragged lists": ([[1.0, 2.0], [3.0]], ["rows of different lengths"]),
    "text": ("image.png", ["does not hold numbers"]),
    "inputs and labels": (
        (X, X[:, 0]),
        ["one input", "a list of 2 arrays of shapes (4, 6), (4,)", "labels do not belong"],
    ),
    "samples of many shapes": (
        [np.ones(n) for n in range(1, 9)],
        ["of shapes (1,), (2,), (3,), (4,), ...", "one by one"],
    ),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_one_input(healthy, name):
    x, texts = BAD_INPUTS[name]
    with raises(InputError, *texts):
        healthy(models.mlp)[1].explain(x)


def test_fractions_as_ids(healthy):
    case, analyzer = healthy(models.tokens)
    with raises(InputError, "takes integers", "int32", "fractions"):
        analyzer.explain(case.inputs + 0.5)


def test_ids_outside_the_vocabulary(healthy):
    case, analyzer = healthy(models.tokens)
    for wrong in (11, -12):
        with raises(InputError, "vocabulary of 'embedding", "0 to 10", str(wrong)):
            analyzer.explain(np.full_like(case.inputs, wrong))


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (lambda a, b: a, ["The model has 2 inputs", "a list of 2 arrays", "a, b"]),
        (lambda a, b: [a], ["The model has 2 inputs", "a list of 1"]),
        (lambda a, b: [a, b, b], ["The model has 2 inputs", "a list of 3"]),
        (lambda a, b: [b, a], ["wrong shape", "'a'"]),
        (lambda a, b: [a, b[:2]], ["different numbers of samples", "a: 4", "b: 2"]),
        (lambda a, b: {"a": a}, ["names do not match", "a, b"]),
        (lambda a, b: {"a": a, "c": b}, ["names do not match", "a, b", "a, c"]),
    ],
)
def test_several_inputs(healthy, change, texts):
    case, analyzer = healthy(models.list_inputs)
    with raises(InputError, *texts):
        analyzer.explain(change(*case.inputs), 0)


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (lambda x: [x["text"], x["age"], x["age"]], ["The model has 2 inputs", "dict by name"]),
        (lambda x: x["text"], ["The model has 2 inputs", "ndarray"]),
        (lambda x: {"text": x["text"]}, ["names do not match", "text, age"]),
        (lambda x: {**x, "extra": x["age"]}, ["names do not match", "text, age, extra"]),
    ],
)
def test_dict_inputs(healthy, change, texts):
    case, analyzer = healthy(models.dict_inputs)
    with raises(InputError, *texts):
        analyzer.explain(change(case.inputs))


def test_empty_dataset(healthy):
    with raises(InputError, "dataset is empty"):
        healthy(models.mlp)[1].explain(tf.data.Dataset.from_tensor_slices(X).batch(2).take(0))


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "many", None])
def test_batch_size(healthy, batch_size):
    with raises(ArgumentError, "batch_size is out of range", "an integer >= 1", repr(batch_size)):
        healthy(models.mlp)[1].explain(X, batch_size=batch_size)


# --- targets


def matrix(y):
    return y[:, :2]


BAD_TARGETS = {
    "too large": (3, ["not a unit of output", "0 to 2", "Received: 3"]),
    "negative": (-1, ["not a unit of output", "0 to 2"]),
    "one of several too large": ([0, 1, 2, 3], ["not a unit of output", "0 to 2"]),
    "too few": ([0, 1], ["wrong length", "one per sample (4)", "(2,)"]),
    "too many": ([0, 1, 2, 0, 1], ["wrong length", "(5,)"]),
    "a matrix of integers": ([[0, 1, 0]] * 4, ["wrong length", "give weights over the outputs as floats"]),
    "weights of the wrong length": ([0.5, 0.5], ["weights", "wrong shape", "(3,)", "(2,)"]),
    "weights for other samples": (np.ones((3, 3)), ["weights", "wrong shape", "(3, 3)"]),
    "a fraction": (0.5, ["weights", "wrong shape", "give class indices as integers"]),
    "NaN": ([np.nan, 0.0, 0.0], ["not finite"]),
    "contrast": (Contrast(0, 7), ["not a unit of output", "7"]),
    "object": (object(), ["neither an index nor weights", "object"]),
    "strings": (["cat"] * 4, ["neither an index nor weights"]),
    "ragged lists": ([[0.0, 1.0], [2.0]], ["neither an index nor weights"]),
    "a boolean": (True, ["neither an index nor weights"]),
    "a callable of several numbers": (matrix, ["one number per sample", "(samples,)"]),
    "a callable of one number": (lambda y: ops.sum(y), ["one number per sample"]),
    "a callable of None": (lambda y: None, ["one number per sample"]),
}


@pytest.mark.parametrize("name", BAD_TARGETS)
@pytest.mark.parametrize("method", ["lrp.epsilon_plus", "gradient"])
def test_target(healthy, name, method):
    target, texts = BAD_TARGETS[name]
    case, analyzer = healthy(models.mlp, method)
    with raises(TargetError, *texts):
        analyzer.explain(case.inputs, target)


def test_unknown_output(healthy):
    case, analyzer = healthy(models.multi_output)
    with raises(UnknownNameError, "Unknown output 'labels'", "label"):
        analyzer.explain(case.inputs, "labels")
    with raises(UnknownNameError, "Unknown output 'valu'", "value"):
        analyzer.explain(case.inputs, {"valu": 0})


@pytest.mark.parametrize("target", [None, 0, [0, 1, 2, 0], Contrast(0, 1)])
def test_ambiguous_target(healthy, target):
    case, analyzer = healthy(models.multi_output)
    with raises(TargetError, "has 2 outputs", "label, value", 'target="label"'):
        analyzer.explain(case.inputs, target)


def test_no_target_at_all(healthy):
    case, analyzer = healthy(models.multi_output)
    with raises(TargetError, "empty"):
        analyzer.explain(case.inputs, {})


def test_unit_outside_of_an_output_with_positions(healthy):
    case, analyzer = healthy(models.transposed)
    with raises(TargetError, "not a unit of output", "3 indices below (6, 6, 2)", "(6, 0, 0)"):
        analyzer.explain(case.inputs, (6, 0, 0))
    with raises(TargetError, "3 indices below (6, 6, 2)", "(0, 0)"):
        analyzer.explain(case.inputs, (0, 0))


def test_targets_for_more_samples_than_a_dataset_has(healthy):
    dataset = tf.data.Dataset.from_tensor_slices(X).batch(2)
    for target in ([0, 1, 2], [0, 1, 2, 0, 1]):
        with raises(TargetError, "one entry per sample", str(len(target))):
            healthy(models.mlp)[1].explain(dataset, target)


# --- names and hyperparameters


def test_unknown_method():
    with raises(UnknownNameError, "Unknown method 'lrp.epsilon_pluss'", "lrp.epsilon_plus", "kxai.methods()"):
        kxai.create_analyzer("lrp.epsilon_pluss", models.mlp().model)


def test_unknown_composite():
    with raises(UnknownNameError, "Unknown composite 'epsilom'", "epsilon"):
        kxai.LRP(models.mlp().model, "epsilom")


@pytest.mark.parametrize("layer", ["dense_99x", "block/*"])
def test_unknown_layer(healthy, layer):
    case, analyzer = healthy(models.mlp)
    with raises(UnknownNameError, f"Unknown layer {layer!r}", "kxai.plan"):
        analyzer.explain(case.inputs, layers=layer)


def test_near_matches_of_layers_are_listed(healthy):
    case, analyzer = healthy(models.vgg, "gradient")
    with raises(UnknownNameError, "did you mean", "block1_conv1"):
        analyzer.explain(case.inputs, layers="block1_convo1")


def test_a_row_of_a_composite_that_names_nothing():
    composite = kxai.preset("epsilon").but(("block1_convo1", rules.Flat()))
    with raises(UnknownNameError, "Unknown node 'block1_convo1'", "block1_conv1"):
        kxai.LRP(models.vgg().model, composite).plan()


@pytest.mark.parametrize("row", [("block1/*",), ("block1/*", "flat"), rules.Flat(), (7, rules.Flat())])
def test_a_row_that_is_none(row):
    with raises(ArgumentError, "A row of a composite", "Expected: ", "7" if row == (7, rules.Flat()) else repr(row)):
        kxai.preset("epsilon").but(row)


@pytest.mark.parametrize(
    ("method", "hyperparameters", "texts"),
    [
        ("lrp.epsilon", {"eps": 1.0}, ["does not take eps", "epsilon"]),
        ("lrp.epsilon_gamma_box", {"low": 0.0}, ["needs high", "low"]),
        ("lrp.sequential_preset_b_flat_until_idx", {}, ["needs idx"]),
        ("lrp.sequential_preset_b_flat_until_idx", {"idx": -1}, ["idx is out of range", "an integer >= 0", "-1"]),
        ("deep_taylor.bounded", {}, ["needs low, high"]),
        ("deep_taylor", {"low": 1.0}, ["one of the three", "low=1.0"]),
        ("deep_taylor", {"low": 1.0, "high": 0.0}, ["low <= high", "low=1.0, high=0.0"]),
        ("deep_taylor", {"max_pooling": "mean"}, ["max_pooling", "winner", "proportional", "'mean'"]),
        ("gradient", {"epsilon": 1.0}, ["does not take epsilon", "strip_softmax"]),
        ("lrp.epsilon", {"epsilon": -1.0}, ["epsilon is out of range", "-1.0"]),
        ("lrp.gamma", {"gamma": -1.0}, ["gamma is out of range", "-1.0"]),
        ("lrp.alpha_beta", {"alpha": 2.0, "beta": 2.0}, ["alpha - beta = 1", "alpha=2.0, beta=2.0"]),
        ("lrp.epsilon_gamma_box", {"low": 1.0, "high": -1.0}, ["low <= high", "low=1.0, high=-1.0"]),
    ],
)
def test_hyperparameters(method, hyperparameters, texts):
    with raises(ArgumentError, *texts):
        kxai.create_analyzer(method, models.mlp().model, **hyperparameters)


def test_other_activations_that_are_none_of_two():
    with pytest.raises(KxaiError, match=r"(?s)other.*error.*gradient.*'maybe'"):
        kxai.GuidedBackprop(models.mlp().model, other_activations="maybe").plan()


@pytest.mark.parametrize("value", [np.nan, -1.0])
@pytest.mark.parametrize("make", [rules.Epsilon, rules.Gamma, rules.Proportional, rules.WSquare, rules.Flat])
def test_values_that_are_no_hyperparameters(make, value):
    with raises(ArgumentError, "is out of range", "a finite number >= 0", repr(value)):
        make(value)


def test_hyperparameters_beside_a_composite():
    with raises(ArgumentError, "already holds its hyperparameters", "epsilon"):
        kxai.LRP(models.mlp().model, kxai.preset("epsilon"), epsilon=1.0)


def test_the_box_must_hold_the_inputs():
    case = models.cnn()
    analyzer = kxai.create_analyzer("lrp.epsilon_gamma_box", case.model, low=-1.0, high=1.0)
    before = analyzer.explain(case.inputs).relevance
    with raises(InputError, "outside the box", "low=-1.0, high=1.0", "as low= and high="):
        analyzer.explain(3 * case.inputs)
    np.testing.assert_array_equal(analyzer.explain(case.inputs).relevance, before)


# --- models


@pytest.mark.parametrize("method", ["lrp.epsilon", "gradient"])
def test_what_is_no_model(method):
    for thing in ("model.keras", None, np.ones(3), lambda x: x, tf.Module()):
        with raises(ModelError, "Only Keras models", "kxai.load"):
            kxai.create_analyzer(method, thing)


def test_never_built():
    sequential = keras.Sequential([layers.Dense(3)])
    subclassed = models.Subclassed()
    for model in (sequential, subclassed):
        with raises(ModelError, "has not been built", "call the model once"):
            kxai.LRP(model)
    sequential(np.ones((1, 2)))
    subclassed(np.ones((1, 6)))
    assert kxai.LRP(sequential).explain(np.ones((1, 2))).relevance.shape == (1, 2)
    assert kxai.LRP(subclassed).explain(np.ones((1, 6))).relevance.shape == (1, 6)


def test_plan_of_a_model_that_does_not_declare_its_inputs():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, inputs):
            return self.dense(ops.concatenate([inputs["a"], inputs["b"]], axis=-1))

    model, x = Two(), {"a": np.ones((2, 1), "float32"), "b": np.ones((2, 3), "float32")}
    model(x)
    with raises(ModelError, "does not say what its inputs look like", "inputs=x"):
        kxai.plan(model)
    assert len(kxai.plan(model, inputs=x).rows) == 2


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`:UserWarning")
@pytest.mark.parametrize("method", ["lrp.epsilon_plus", "gradient"])
def test_quantised(method):
    case = models.mlp()
    case.model.quantize("int8")
    with raises(ModelError, "is quantised", "int8", "before quantisation"):
        kxai.create_analyzer(method, case.model).explain(case.inputs)


def test_errors_inside_a_layer_arrive_as_they_were_raised():
    case = models.nested()
    case.model.get_layer("outer").get_layer("inner").get_layer("inner_a").quantize("int8")
    with pytest.raises(ModelError) as caught:
        kxai.plan(case.model, "gradient")
    assert str(caught.value).startswith("Layer 'inner_a' is quantised (int8).")
    assert "Exception encountered" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_in_half_precision(dtype):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, dtype=dtype)])
    with raises(ModelError, "in half precision", "mixed_bfloat16", dtype, 'dtype="float32"', "set_weights"):
        kxai.explain(model, np.ones((1, 3)), "lrp.epsilon")


def test_sizes_that_are_left_open():
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(5, 4)(ids)
    model = keras.Model(ids, layers.MultiHeadAttention(2, 2)(x, x, use_causal_mask=True))
    with raises(KxaiError, "sizes that the model leaves open", "inputs=x"):
        kxai.plan(model, "lrp.attn")
    assert kxai.plan(model, "lrp.attn", inputs=np.ones((1, 3), "int32")).rows


def test_weights_that_are_not_finite():
    case = models.mlp()
    analyzer, weights = kxai.Gradient(case.model), case.model.get_weights()
    before = analyzer.explain(case.inputs).relevance
    case.model.set_weights([np.full_like(w, np.nan) for w in weights])
    with raises(NumericalError, "not finite"):
        analyzer.explain(case.inputs)
    case.model.set_weights(weights)
    np.testing.assert_array_equal(analyzer.explain(case.inputs).relevance, before)


# --- nodes without a rule


def opaque():
    raw = layers.Lambda(lambda x: tf.map_fn(tf.sin, x), name="raw")
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), raw, layers.Dense(2)])


def softmax_inside():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax", name="mixture"), layers.Dense(2)])


class RawCell(layers.Layer):
    """A cell that computes with TensorFlow itself."""

    state_size = 3

    def call(self, x, states):
        y = tf.map_fn(tf.sin, x) + states[0]
        return y, [y]


def raw_cell():
    return keras.Sequential([keras.Input((5, 3)), layers.RNN(RawCell(name="raw"), name="memory"), layers.Dense(2)])


def dot():
    x = keras.Input((4,))
    product = layers.Dot(-1, name="similarity")([layers.Dense(3)(x), layers.Dense(3)(x)])
    return keras.Model(x, layers.Dense(2)(product))


@pytest.mark.parametrize(
    ("build", "node", "texts"),
    [
        (opaque, "raw", ["Lambda", "cannot be opened", "keras.ops", "kxai.rules.Gradient()"]),
        (softmax_inside, "mixture/softmax", ["has no rule", "does not weigh values", "kxai.rules.Gradient()"]),
        (raw_cell, "memory/raw", ["RawCell", "cannot be opened", "keras.ops", "kxai.rules.Gradient()"]),
        (dot, "similarity", ["Dot", "has no rule", "both depend on the input", "kxai.rules.Gradient()"]),
    ],
)
@pytest.mark.parametrize("method", ["lrp.epsilon_plus", "lrp.alpha_beta", "deep_taylor"])
def test_nodes_without_a_rule(build, node, texts, method):
    model = models.seeded(build())
    x = models.numbers(*model.input_shape[1:])
    with raises(RuleError, f"Node {node!r}", *texts):
        kxai.create_analyzer(method, model).explain(x, 0)
    # Gradient methods work as they are, and the cure that the message names works.
    with tf.GradientTape() as tape:
        tensor = tf.constant(x)
        tape.watch(tensor)
        score = model(tensor)[:, 0]
    reference = tape.gradient(score, tensor)
    np.testing.assert_allclose(kxai.Gradient(model).explain(x, 0).relevance, reference, rtol=1e-4, atol=1e-6)
    cured = kxai.preset("epsilon").but((node, rules.Gradient()))
    assert np.isfinite(kxai.LRP(model, cured).explain(x, 0).relevance).all()


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_activations_that_are_no_relu(method):
    case = models.gated()
    with raises(RuleError, "defined for ReLUs only", "Received: tanh", 'other_activations="gradient"'):
        kxai.create_analyzer(method, case.model).explain(case.inputs)
    kxai.create_analyzer(method, case.model, other_activations="gradient").explain(case.inputs)


def test_a_rule_where_it_does_not_apply():
    case = models.mlp()
    composite = kxai.preset("epsilon").but((kxai.Kind.AFFINE, rules.WinnerTakesAll()))
    with raises(RuleError, "WinnerTakesAll() does not apply to node", "a node of kind max", "affine"):
        kxai.LRP(case.model, composite).plan()


# --- files


def test_files_that_are_no_models(tmp_path):
    whole = tmp_path / "whole.keras"
    models.mlp().model.save(whole)
    cut, text = tmp_path / "cut.keras", tmp_path / "text.keras"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    text.write_text("not a model")
    with raises(LoadError, "is damaged", "download the file again"):
        kxai.load(cut)
    with raises(LoadError, "is no Keras model", "model.save"):
        kxai.load(text)
    with raises(LoadError, "missing.keras"):
        kxai.load(tmp_path / "missing.keras")
    assert kxai.load(whole).name == "mlp"


def test_code_in_a_file(tmp_path):
    path = tmp_path / "code.keras"
    keras.Sequential([keras.Input((2,)), layers.Lambda(lambda x: 2 * x, name="double")]).save(path)
    with raises(LoadError, "Python code", "'double'", "safe_mode=False"):
        kxai.load(path)
    assert kxai.load(path, safe_mode=False).layers[0].name == "double"
