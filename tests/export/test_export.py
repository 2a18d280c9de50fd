"""What an export holds, what it refuses, and what it leaves alone."""

from __future__ import annotations

import gc
import json
import os
import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import kxai
from kxai.analyzers import Analyzer
from kxai.backend import saved_model
from kxai.errors import ArgumentError, ExportError, InputError, TargetError, UnknownNameError
from kxai.exporting.folder import new_version
from kxai.testing import models
from kxai.testing.snapshot import Snapshot
from tests.export import parity

FAILURE = tf.errors.InvalidArgumentError


def loaded(done):
    """(signature, arrays) -> arrays."""
    module = tf.saved_model.load(done.path)

    def call(signature, **arrays):
        run = module.signatures[signature]
        return {name: tensor.numpy() for name, tensor in run(**{k: tf.constant(v) for k, v in arrays.items()}).items()}

    call.module = module  # functions of a module that is gone cannot run
    return call


def dense(name="x", output="y", units=3, size=4):
    model = keras.Sequential([keras.Input((size,), name=name), layers.Dense(units, name=output)], name="dense")
    return models.seeded(model)


def epsilon(model):
    return kxai.LRP(model, "epsilon")


# What is written


def test_signatures_of_one_analyzer(tmp_path):
    done = kxai.export(epsilon(dense()), tmp_path / "model", version=7)
    assert done.path == tmp_path / "model" / "7"
    assert os.fspath(done) == str(done.path)
    assert {name: set(one.outputs) for name, one in done.signatures.items()} == {
        "serving_default": {"y"},
        "explain": {"y", "relevance", "target", "score", "residual"},
    }
    explain = done.signatures["explain"]
    assert {name: (facts.shape, facts.dtype) for name, facts in explain.inputs.items()} == {
        "x": ((None, 4), "float32"), "target": ((None,), "int32"),
    }  # fmt: skip
    assert {name: (facts.shape, facts.dtype) for name, facts in explain.outputs.items()} == {
        "y": ((None, 3), "float32"), "relevance": ((None, 4), "float32"), "target": ((None,), "int32"),
        "score": ((None,), "float32"), "residual": ((None,), "float64"),
    }  # fmt: skip
    assert done.size == sum(file.stat().st_size for file in done.path.rglob("*") if file.is_file())
    assert [entry.name for entry in (tmp_path / "model").iterdir()] == ["7"]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_numbers_are_those_of_the_analyzer(count, tmp_path):
    case = models.cnn()
    analyzer = kxai.LRP(case.model, "epsilon_plus")
    call = loaded(kxai.export(analyzer, tmp_path))
    x = np.resize(case.inputs, (count, 12, 12, 3))
    (name,) = (spec.name for spec in case.model.inputs)
    live = analyzer.explain(x)
    wanted = parity.expected(live, [name], [case.model.layers[-1].name])
    parity.assert_equal(call("explain", **{name: x, "target": np.full(count, -1, np.int32)}), wanted, "predicted")
    wanted = parity.expected(analyzer.explain(x, 2), [name], [case.model.layers[-1].name])
    parity.assert_equal(call("explain", **{name: x, "target": np.full(count, 2, np.int32)}), wanted, "given")
    outputs = call("serving_default", **{name: x})
    np.testing.assert_allclose(outputs[case.model.layers[-1].name], live.outputs, rtol=1e-6, atol=1e-7)


def test_several_analyzers_have_a_signature_each(tmp_path):
    model = dense()
    analyzers = [epsilon(model), kxai.Gradient(model)]
    done = kxai.export(analyzers, tmp_path)
    assert list(done.signatures) == ["serving_default", "explain", "explain_lrp_epsilon", "explain_gradient"]
    call, x = loaded(done), models.numbers(4)
    asked = {"x": x, "target": np.int32([0, 1, 2, -1])}
    first, *others = (call(name, **asked)["relevance"] for name in list(done.signatures)[1:])
    np.testing.assert_array_equal(first, others[0])
    chosen = [0, 1, 2, int(model(x)[3].numpy().argmax())]
    for relevance, analyzer in zip(others, analyzers, strict=True):
        np.testing.assert_allclose(relevance, analyzer.explain(x, chosen).relevance, rtol=1e-6)


def test_analyzers_can_be_named(tmp_path):
    model = dense()
    done = kxai.export({"fine": epsilon(model), "so-so": kxai.LRP(model, "epsilon", epsilon=0.1)}, tmp_path)
    assert list(done.signatures) == ["serving_default", "explain", "explain_fine", "explain_so_so"]


def test_inputs_are_named_as_the_models(tmp_path):
    case = models.dict_inputs()
    analyzer = epsilon(case.model)
    done = kxai.export(analyzer, tmp_path)
    assert {name: facts.dtype for name, facts in done.signatures["explain"].inputs.items()} == {
        "age": "float32", "text": "int32", "target": "int32",
    }  # fmt: skip
    reply = loaded(done)("explain", **case.inputs, target=np.zeros(4, np.int32))
    live = analyzer.explain(case.inputs, 0)
    for name in ("age", "text"):
        np.testing.assert_allclose(reply[f"relevance_{name}"], live.relevance[name], rtol=1e-5, atol=1e-7)
    assert "relevance" not in reply


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("in-put.1", "in_put_1"), ("a b", "a_b"), ("x:0", "x_0"), ("1st", "input_1st"), ("_x", "input__x"),
        ("größe", "gr__e"), ("日本", "input___"), ("class", "input_class"), ("self", "input_self"),
        ("x" * 500, "x" * 500),
    ],
)  # fmt: skip
def test_names_that_no_argument_can_have_are_rewritten(name, written, tmp_path):
    done = kxai.export(epsilon(dense(name)), tmp_path)
    assert list(done.signatures["serving_default"].inputs) == [written]
    assert loaded(done)("serving_default", **{written: models.numbers(4)})["y"].shape == (4, 3)


def test_inputs_may_have_names_that_no_other_layer_could_have(tmp_path):
    names = {"hours per week": "hours_per_week", "état": "input__tat"}
    inputs = {name: keras.Input((2,), name=name) for name in names}
    model = models.seeded(keras.Model(inputs, layers.Dense(2, name="y")(layers.Concatenate()([*inputs.values()]))))
    x = {name: models.numbers(2, seed=seed) for seed, name in enumerate(names)}
    call = loaded(kxai.export(epsilon(model), tmp_path))
    reply = call("explain", target=np.int32([-1] * 4), **{names[name]: array for name, array in x.items()})
    live = epsilon(model).explain(x)
    for name, written in names.items():
        np.testing.assert_allclose(reply[f"relevance_{written}"], live.relevance[name], rtol=1e-5, atol=1e-7)


def test_one_number_per_sample_is_unit_0(tmp_path):
    x = keras.Input((4,), name="x")
    model = models.seeded(keras.Model(x, ops.squeeze(layers.Dense(1)(x), axis=-1)))
    analyzer, batch = epsilon(model), models.numbers(4)
    live = analyzer.explain(batch)
    np.testing.assert_array_equal(live.target, [0] * 4)
    np.testing.assert_array_equal(analyzer.explain(batch, live.target).relevance, live.relevance)
    call = loaded(kxai.export(analyzer, tmp_path))
    reply = call("explain", x=batch, target=np.int32([-1, 0, -1, 0]))
    np.testing.assert_array_equal(reply["target"], [0] * 4)
    np.testing.assert_allclose(reply["relevance"], live.relevance, rtol=1e-6)
    with pytest.raises(FAILURE, match="target: from 0 to 0, or -1"):
        call("explain", x=batch, target=np.int32([0, 1, 0, 0]))


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_inputs_in_a_dict_are_named_by_its_keys(tmp_path):
    inputs = {"b/c": keras.Input((4,)), "a": keras.Input((2,))}
    model = models.seeded(keras.Model(inputs, layers.Dense(3, name="y")(layers.Concatenate()(list(inputs.values())))))
    done = kxai.export(epsilon(model), tmp_path)
    assert {name: facts.shape for name, facts in done.signatures["serving_default"].inputs.items()} == {
        "a": (None, 2), "b_c": (None, 4),
    }  # fmt: skip
    x = {"a": models.numbers(2), "b/c": models.numbers(4, seed=1)}
    reply = loaded(done)("explain", a=x["a"], b_c=x["b/c"], target=np.zeros(4, np.int32))
    live = epsilon(model).explain(x, 0)
    for name, key in (("relevance_a", "a"), ("relevance_b_c", "b/c")):
        np.testing.assert_allclose(reply[name], live.relevance[key], rtol=1e-5, atol=1e-7)


def test_an_output_that_is_called_like_a_tensor_of_the_explanation(tmp_path):
    model = dense(output="score")
    done = kxai.export(epsilon(model), tmp_path)
    assert set(done.signatures["serving_default"].outputs) == {"score"}
    x = models.numbers(4)
    reply = loaded(done)("explain", x=x, target=np.int32([1, 1, 1, 1]))
    np.testing.assert_allclose(reply["output_score"], model(x), rtol=1e-6)
    np.testing.assert_allclose(reply["score"], model(x)[:, 1], rtol=1e-6)


def test_half_precision_arrives_as_float32(tmp_path):
    policy = keras.mixed_precision.DTypePolicy("mixed_float16")
    stack = [layers.Dense(5, "relu", dtype=policy), layers.Dense(3, dtype=policy, name="y")]
    model = models.seeded(keras.Sequential([keras.Input((4,), name="x"), *stack]))
    done = kxai.export(epsilon(model), tmp_path)
    dtypes = {name: facts.dtype for name, facts in done.signatures["explain"].outputs.items()}
    assert dtypes == {
        "y": "float32",
        "relevance": "float32",
        "target": "int32",
        "score": "float32",
        "residual": "float64",
    }
    assert done.signatures["serving_default"].outputs["y"].dtype == "float32"


def test_the_asset_says_how_it_was_made(tmp_path):
    model = dense()
    done = kxai.export(kxai.LRP(model, "epsilon", epsilon=0.25), tmp_path)
    facts = json.loads((done.path / "assets" / "explanation.json").read_text())
    explain = facts["signatures"]["explain"]
    assert (facts["format"], facts["model"], facts["kxai"]) == ("kxai.export", "dense", kxai.__version__)
    assert explain["method"] == "lrp.epsilon"
    assert explain["hyperparameters"]["epsilon"] == 0.25
    assert explain["versions"]["keras"] == keras.version()
    assert explain["plan"] == [["y", "affine", repr(kxai.rules.Epsilon(0.25))]]
    assert explain["rules"]
    assert explain["target"] == {"input": "target", "predicted": -1, "outputs": ["y"]}
    assert explain["inputs"] == {
        "x": {"shape": [None, 4], "dtype": "float32"}, "target": {"shape": [None], "dtype": "int32"},
    }  # fmt: skip
    assert set(facts["signatures"]["serving_default"]) == {"inputs", "outputs"}
    assert explain["relevance"] == {"relevance": "x"}
    assert explain["model_outputs"] == {"y": "y"}


def test_the_asset_is_known_to_loaders(tmp_path):
    call = loaded(kxai.export(epsilon(dense()), tmp_path / "a"))
    tf.saved_model.save(call.module, tmp_path / "b")
    assert json.loads((tmp_path / "b" / "assets" / "explanation.json").read_text())["format"] == "kxai.export"


# Targets


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (1, 1),
        (kxai.Contrast(2, 0), "Contrast(positive=2, negative=0)"),
        (np.float32([1.0, -0.5, 0.0]), [1.0, -0.5, 0.0]),
        (lambda y: y[:, 0] * y[:, 1], None),
    ],
)
def test_a_fixed_target_is_no_input(target, shown, tmp_path):
    analyzer, x = epsilon(dense()), models.numbers(4)
    done = kxai.export(analyzer, tmp_path, target=target)
    assert set(done.signatures["explain"].inputs) == {"x"}
    reply, live = loaded(done)("explain", x=x), analyzer.explain(x, target)
    np.testing.assert_allclose(reply["relevance"], live.relevance, rtol=1e-6)
    np.testing.assert_allclose(reply["score"], live.score, rtol=1e-6)
    assert ("target" in reply) == (shown == 1)
    facts = json.loads((done.path / "assets" / "explanation.json").read_text())["signatures"]["explain"]["target"]
    assert facts["outputs"] == ["y"]
    assert "input" not in facts
    if shown is not None:
        assert facts["fixed"] == shown


def test_an_output_is_chosen_by_name(tmp_path):
    case = models.multi_output()
    analyzer = epsilon(case.model)
    done = kxai.export(analyzer, tmp_path, output="label")
    (name,) = (spec.name for spec in case.model.inputs)
    reply = loaded(done)("explain", **{name: case.inputs, "target": np.int32([0, 1, 2, -1])})
    best = int(np.argmax(case.model(case.inputs)["label"][3]))
    live = analyzer.explain(case.inputs, {"label": [0, 1, 2, best]})
    np.testing.assert_allclose(reply["relevance"], live.relevance, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(reply["target"], [0, 1, 2, best])
    np.testing.assert_allclose(reply["value"], live.outputs["value"], rtol=1e-6)


def test_several_outputs_at_once_are_fixed(tmp_path):
    case = models.multi_output()
    done = kxai.export(epsilon(case.model), tmp_path, target=case.target)
    (name,) = (spec.name for spec in case.model.inputs)
    reply = loaded(done)("explain", **{name: case.inputs})
    live = epsilon(case.model).explain(case.inputs, case.target)
    np.testing.assert_allclose(reply["relevance"], live.relevance, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(reply["target_label"], [2] * 4)
    np.testing.assert_array_equal(reply["target_value"], [0] * 4)


def test_which_of_several_outputs_has_to_be_said(tmp_path):
    with pytest.raises(TargetError, match="2 outputs"):
        kxai.export(epsilon(models.multi_output().model), tmp_path)
    with pytest.raises(UnknownNameError, match="lable"):
        kxai.export(epsilon(models.multi_output().model), tmp_path, output="lable")
    with pytest.raises(ArgumentError, match="says by itself which output"):
        kxai.export(epsilon(models.multi_output().model), tmp_path, output="label", target={"label": 1})


def test_a_target_per_sample_cannot_be_fixed(tmp_path):
    with pytest.raises(ExportError, match="not the same for all samples"):
        kxai.export(epsilon(dense()), tmp_path, target=[0, 1])
    with pytest.raises(TargetError, match="not a unit"):
        kxai.export(epsilon(dense()), tmp_path, target=3)


# What fails when it runs


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return loaded(kxai.export(epsilon(dense()), tmp_path_factory.mktemp("served")))


@pytest.mark.parametrize(
    ("x", "target", "text"),
    [
        (np.ones((2, 4), np.float32), [0, 3], "target: from 0 to 2, or -1 for the predicted class"),
        (np.ones((2, 4), np.float32), [-2, 0], "target: from 0 to 2, or -1 for the predicted class"),
        (np.ones((2, 4), np.float32), [0], "target: one class per sample"),
        (np.float32([[0, 0, np.nan, 0]]), [0], "input 'x' is not finite"),
        (np.float32([[0, 0, np.inf, 0]]), [0], "input 'x' is not finite"),
        (np.ones((0, 4), np.float32), [], "input x is empty"),
    ],
)
def test_wrong_numbers_fail_with_a_message(x, target, text, served):
    with pytest.raises(FAILURE, match=text):
        served("explain", x=x, target=np.int32(target))
    served("serving_default", x=x)


def test_shapes_of_the_signature_are_kept(tmp_path):
    # Global pooling would take any size, and a flat input hides a missing axis.
    stack = [layers.Conv2D(2, 3), layers.GlobalAveragePooling2D(), layers.Dense(2, name="y")]
    model = models.seeded(keras.Sequential([keras.Input((6, 6, 1), name="x"), *stack]))
    call = loaded(kxai.export(epsilon(model), tmp_path))
    for shape in ((2, 7, 7, 1), (2, 6, 6), (2, 6, 6, 2)):
        for signature, target in (("serving_default", {}), ("explain", {"target": np.zeros(2, np.int32)})):
            with pytest.raises(FAILURE, match="not compatible with expected shape"):
                call(signature, x=np.ones(shape, np.float32), **target)
    with pytest.raises(FAILURE, match="not compatible with expected shape"):
        call("explain", x=np.ones((2, 6, 6, 1), np.float32), target=np.zeros((2, 1), np.int32))


def test_inputs_of_different_lengths_fail_with_a_message(tmp_path):
    case = models.dict_inputs()
    call = loaded(kxai.export(epsilon(case.model), tmp_path))
    x = {"age": case.inputs["age"][:1], "text": case.inputs["text"]}
    with pytest.raises(FAILURE, match="input text: as many samples as the other inputs"):
        call("explain", **x, target=np.zeros(1, np.int32))


def test_results_that_are_not_finite_fail_with_a_message(tmp_path):
    model = dense()
    model.set_weights([np.full((4, 3), np.inf), np.zeros(3)])
    call = loaded(kxai.export(kxai.Gradient(model), tmp_path, warmup=False))
    with pytest.raises(FAILURE, match="relevance is not finite"):
        call("explain", x=np.ones((1, 4), np.float32), target=np.int32([0]))


def test_ids_outside_the_vocabulary_fail_with_a_message(tmp_path):
    case = models.tokens()
    call = loaded(kxai.export(epsilon(case.model), tmp_path))
    (name,) = (spec.name for spec in case.model.inputs)
    with pytest.raises(FAILURE, match=r"not in the vocabulary of .*from 0 to 10"):
        call("explain", **{name: np.full((1, 7), 11, np.int32), "target": np.int32([0])})


@pytest.mark.parametrize(
    ("name", "bounds", "x", "text"),
    [
        ("deep_taylor", {"low": 0.0}, -0.5, "an input is negative"),
        ("deep_taylor", {"low": -1.0, "high": 1.0}, -1.5, "an input lies outside of what ZBox"),
        ("deep_taylor", {"low": -1.0, "high": np.float32([1, 1, 2, 1])}, 1.5, "an input lies outside of what ZBox"),
        ("lrp.epsilon_gamma_box", {"low": -1.0, "high": 1.0}, 1.5, "an input lies outside of what ZBox"),
    ],
)
@pytest.mark.filterwarnings("ignore:Deep Taylor explains positive logits")
def test_inputs_outside_of_bounds_fail_with_a_message(name, bounds, x, text, tmp_path):
    case = models.averaged() if name == "lrp.epsilon_gamma_box" else None
    model = case.model if case else dense()
    analyzer = kxai.create_analyzer(name, model, **bounds)
    done = kxai.export(analyzer, tmp_path)
    (key, facts), _ = done.signatures["explain"].inputs.items()
    inside = np.full((1, *facts.shape[1:]), 0.5, np.float32)
    outside = inside.copy()
    outside[..., 0] = x
    call = loaded(done)
    call("explain", **{key: inside, "target": np.int32([0])})
    with pytest.raises(InputError):
        analyzer.explain(outside, 0)
    with pytest.raises(FAILURE, match=text):
        call("explain", **{key: outside, "target": np.int32([0])})


# What is refused


class Steps(Analyzer):
    """A method that computes outside of TensorFlow."""

    name = "steps"

    def _prepare(self, specs, target, count, globs, audit):
        raise NotImplementedError


def test_methods_outside_of_tensorflow_say_so(tmp_path):
    with pytest.raises(ExportError, match="steps takes steps outside of TensorFlow"):
        kxai.export(Steps(dense()), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("analyzers", "error", "text"),
    [
        (lambda: [], ArgumentError, "nothing to export"),
        (lambda: ["lrp.epsilon"], ArgumentError, "nothing to export"),
        (dense, ArgumentError, "nothing to export"),
        (lambda: None, ArgumentError, "nothing to export"),
        (lambda: {"image": epsilon(dense())}, ExportError, "explain_image takes images as bytes"),
        (lambda: {"image.x": epsilon(dense())}, ExportError, "explain_image_x takes images as bytes"),
        (lambda: epsilon(dense(output="a b")), ExportError, "cannot be called in a graph"),
        (lambda: [epsilon(dense()), epsilon(dense())], ArgumentError, "belong to different models"),
        (lambda: [epsilon(one := dense()), epsilon(one)], ExportError, "both be called explain_lrp_epsilon"),
        (lambda: {"a.b": epsilon(one := dense()), "a-b": epsilon(one)}, ExportError, "both be called explain_a_b"),
        (lambda: epsilon(dense("target")), ExportError, "is called 'target'"),
        (lambda: epsilon(models.sequence().model), ExportError, "size that the model leaves open"),
        (lambda: epsilon(models.subclassed().model), ExportError, "does not say what its inputs look like"),
    ],
)
def test_refused(analyzers, error, text, tmp_path):
    with pytest.raises(error, match=text):
        kxai.export(analyzers(), tmp_path / "new" / "model")
    assert list(tmp_path.iterdir()) == []
    # No scope of a name is left open.
    after = layers.Dense(1, name="after")
    after.build((None, 2))
    assert after.kernel.path == "after/kernel"


@pytest.mark.parametrize(
    ("options", "text"),
    [({"image": "unit"}, "image is no Image"), ({"overwrite": "no"}, "overwrite is a switch")],
)
def test_wrong_arguments(options, text, tmp_path):
    with pytest.raises(ArgumentError, match=text):
        kxai.export(epsilon(dense()), tmp_path / "new", **options)
    assert list(tmp_path.iterdir()) == []


def test_where_a_graph_is_built(tmp_path):
    analyzer, message = epsilon(dense()), r"A graph is being built here(.|\n)*outside of tf.function(.|\n)*recorded"

    def both():
        with pytest.raises(ArgumentError, match=message):
            kxai.export(analyzer, tmp_path / "new")
        with pytest.raises(ArgumentError, match=message):
            analyzer.explain(models.numbers(4))

    with tf.Graph().as_default():
        both()
    tf.function(both).get_concrete_function()
    assert list(tmp_path.iterdir()) == []


def test_an_input_called_target_can_be_served_for_a_fixed_one(tmp_path):
    done = kxai.export(epsilon(dense("target")), tmp_path, target=0)
    reply = loaded(done)("explain", target=models.numbers(4))
    np.testing.assert_array_equal(reply["target"], [0] * 4)


def test_inputs_of_one_name_are_refused(tmp_path):
    a, b = keras.Input((2,), name="a.b"), keras.Input((2,), name="a-b")
    model = keras.Model([a, b], layers.Dense(2)(layers.Concatenate()([a, b])))
    with pytest.raises(ExportError, match="both be called 'a_b'"):
        kxai.export(epsilon(model), tmp_path)


def test_outputs_without_a_row_per_sample_are_refused(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, {"y": layers.Dense(2, name="y")(x), "folded": ops.reshape(x, (-1, 2))})
    with pytest.raises(ExportError, match="'folded' has not one row per sample"):
        kxai.export(epsilon(model), tmp_path, output="y")


def test_outputs_that_cannot_be_told_apart_are_refused(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, {name: layers.Dense(2)(x) for name in ("score", "output_score")})
    with pytest.raises(ExportError, match="cannot be told apart"):
        kxai.export(epsilon(model), tmp_path, output="score")


@pytest.mark.parametrize("case", [models.sequence, models.subclassed])
def test_an_example_fixes_the_sizes(case, tmp_path):
    case = case()
    analyzer = epsilon(case.model)
    done = kxai.export(analyzer, tmp_path, example=case.inputs[:1])
    (name,) = done.signatures["serving_default"].inputs
    assert done.signatures["explain"].inputs[name].shape == (None, *case.inputs.shape[1:])
    reply = loaded(done)("explain", **{name: case.inputs, "target": np.int32([0, 1, 0, 1])})
    live = analyzer.explain(case.inputs, [0, 1, 0, 1])
    np.testing.assert_allclose(reply["relevance"], live.relevance, rtol=1e-5, atol=1e-7)


def test_an_example_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match="wrong shape"):
        kxai.export(epsilon(dense()), tmp_path, example=np.zeros((1, 5)))


class CallsPython(layers.Layer):
    def call(self, x):
        return tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), x.shape) if tf.is_tensor(x) else x + 0

    def compute_output_shape(self, shape):
        return shape


class Compiled(layers.Layer):
    def call(self, x):
        return tf.function(tf.math.softplus, jit_compile=True)(x) if tf.is_tensor(x) else ops.softplus(x)

    def compute_output_shape(self, shape):
        return shape


class CallsNumPy(layers.Layer):
    def call(self, x):
        return tf.ensure_shape(tf.numpy_function(lambda y: y, [x], tf.float32), x.shape) if tf.is_tensor(x) else x + 0

    def compute_output_shape(self, shape):
        return shape


class LooksUp(layers.Layer):
    def build(self, shape):
        values = tf.lookup.KeyValueTensorInitializer([0], [2.0], tf.int64, tf.float32)
        self.table = tf.lookup.StaticHashTable(values, 1.0)

    def call(self, x):
        return x * self.table.lookup(tf.constant([0], tf.int64)) if tf.is_tensor(x) else ops.identity(x)

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (CallsPython, "EagerPyFunc"),
        (CallsNumPy, "PyFunc"),
        (Compiled, "XLA"),
        (LooksUp, "cannot write this model as a SavedModel"),
    ],
)
def test_what_no_server_runs_is_refused(layer, text, tmp_path):
    model = keras.Sequential([keras.Input((4,)), layer(), layers.Dense(2)])
    with pytest.raises(ExportError, match=text):
        kxai.export(kxai.Gradient(model), tmp_path / "new", warmup=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((6, 6, 4), {"groups": 2, "strides": 2}),
        ((6, 6, 4), {"groups": 4, "padding": "same", "dilation_rate": 2}),
        ((6, 6, 4), {"groups": 4, "strides": (1, 2), "padding": "same"}),
        ((4, 6, 6), {"groups": 4, "data_format": "channels_first"}),
        ((6, 4), {"groups": 4, "padding": "causal"}),
        ((3, 3, 3, 4), {"groups": 4}),
    ],
    ids=str,
)
def test_grouped_convolutions_need_no_compiler(tmp_path, shape, settings):
    """Keras compiles them, for every shape anew; the graph computes them group by group, of one channel at once."""
    convolution = {2: layers.Conv1D, 3: layers.Conv2D, 4: layers.Conv3D}[len(shape)](8, 2, **settings)
    model = keras.Sequential([keras.Input(shape, name="x"), convolution, layers.Flatten(), layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    reply = loaded(kxai.export(epsilon(model), tmp_path))
    for count in (3, 2):
        np.testing.assert_allclose(
            next(iter(reply("serving_default", x=x[:count]).values())), model.predict(x[:count], verbose=0), atol=1e-6
        )
    answer = reply("explain", x=x, target=np.int32([1] * 3))
    np.testing.assert_allclose(answer["relevance"], epsilon(model).explain(x, 1).relevance, atol=1e-6)


class GroupedByHand(layers.Layer):
    def call(self, x):
        return ops.conv(x, ops.ones((2, 2, 2, 4)))


def test_other_compiled_convolutions_are_refused(tmp_path):
    # Their gradients, and those that follow a bias, are missing where TensorFlow runs without oneDNN.
    model = keras.Sequential([keras.Input((6, 6, 4)), GroupedByHand(), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(ExportError, match=r"Received: XLA '\w*conv_xla\w*'\n(.|\n)*compiles some convolutions by XLA"):
        kxai.export(kxai.Gradient(model), tmp_path / "new", warmup=False)
    assert list(tmp_path.iterdir()) == []


def test_analyzers_that_compile_with_xla_are_recorded_without(tmp_path):
    model, x = dense(), models.numbers(4)
    done = kxai.export(kxai.LRP(model, "epsilon", jit=True), tmp_path)
    reply = loaded(done)("explain", x=x, target=np.int32([0] * 4))
    np.testing.assert_allclose(reply["relevance"], epsilon(model).explain(x, 0).relevance, rtol=1e-6)


def test_layers_that_hold_states_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((5, 2), batch_size=2), layers.LSTM(3, stateful=True), layers.Dense(2)])
    with pytest.raises(ExportError, match="stateful: it holds the states of 2 samples"):
        kxai.export(epsilon(model), tmp_path)


def test_a_saved_model_that_was_loaded_as_a_black_box(tmp_path):
    dense().export(tmp_path / "plain", verbose=False)
    analyzer, x = kxai.Gradient(kxai.load(tmp_path / "plain")), models.numbers(4)
    done = kxai.export(analyzer, tmp_path / "model")
    (name, _), *_ = done.signatures["explain"].inputs.items()
    reply = loaded(done)("explain", **{name: x, "target": np.int32([0, 1, 2, 0])})
    np.testing.assert_allclose(reply["relevance"], analyzer.explain(x, [0, 1, 2, 0]).relevance, rtol=1e-6)


def test_an_export_can_be_loaded_as_a_black_box(tmp_path):
    model, x = dense(), models.numbers(4)
    done = kxai.export([kxai.IntegratedGradients(model), kxai.SmoothGrad(model)], tmp_path)
    np.testing.assert_allclose(
        kxai.Gradient(kxai.load(done.path, endpoint="serving_default")).explain(x, 1).relevance,
        kxai.Gradient(model).explain(x, 1).relevance,
        rtol=1e-6,
    )


def test_references_of_one_number_take_no_space(tmp_path):
    model = dense(size=4000)
    number, array = (
        kxai.export(kxai.IntegratedGradients(model, baseline), tmp_path, version, warmup=False).size
        for version, baseline in enumerate((0.5, np.linspace(0, 1, 4000)))
    )
    assert array - number > 4 * 4000 - 1000


def test_an_export_does_not_tell_where_it_was_made(tmp_path):
    done = kxai.export(epsilon(dense()), tmp_path)
    for file in done.path.rglob("*"):
        if file.is_file():
            assert str(tmp_path).encode() not in file.read_bytes()
            assert b".py" not in file.read_bytes()


# Folders


@pytest.mark.parametrize("version", [-1, True, "1", 1.0, 2**63])
def test_versions_are_whole_numbers(version, tmp_path):
    with pytest.raises(ArgumentError, match="version is out of range"):
        kxai.export(epsilon(dense()), tmp_path, version=version)


def test_a_version_that_is_there_is_kept(tmp_path):
    first = kxai.export(epsilon(dense()), tmp_path)
    before = (first.path / "saved_model.pb").read_bytes()
    with pytest.raises(ExportError, match="is there already"):
        kxai.export(epsilon(dense(units=5)), tmp_path)
    assert (first.path / "saved_model.pb").read_bytes() == before
    second = kxai.export(epsilon(dense(units=5)), tmp_path, overwrite=True)
    assert loaded(second)("serving_default", x=models.numbers(4))["y"].shape == (4, 5)
    kxai.export(epsilon(dense()), tmp_path, version=2)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1", "2"]


def test_a_file_is_no_folder_of_versions(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(ExportError, match="is a file"):
        kxai.export(epsilon(dense()), tmp_path / "model")


def test_a_version_that_is_a_broken_link(tmp_path):
    (tmp_path / "1").symlink_to("gone")
    with pytest.raises(ExportError, match="is there already"):
        kxai.export(epsilon(dense()), tmp_path)
    done = kxai.export(epsilon(dense()), tmp_path, overwrite=True)
    assert done.path.is_dir()
    assert not done.path.is_symlink()
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_a_full_disk(tmp_path, monkeypatch):
    def save(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(OSError, match="No space left on device"):
        kxai.export(epsilon(dense()), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", [False, True])
def test_nothing_is_left_behind_where_writing_fails(before, tmp_path, monkeypatch):
    base = tmp_path / "new" / "model"
    if before:
        kxai.export(epsilon(dense()), base)
    there = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}

    def save(folder, functions, assets):
        os.makedirs(folder)
        open(os.path.join(folder, "half"), "w").close()
        raise OSError("the disk is full")

    monkeypatch.setattr(saved_model, "save", save)
    with pytest.raises(OSError, match="the disk is full"):
        kxai.export(epsilon(dense()), base, overwrite=True)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == there


def test_a_version_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    done = kxai.export(epsilon(dense()), tmp_path)
    rename = os.rename

    def fails(source, place):
        if os.path.basename(source) == "new":
            raise OSError("no")
        rename(source, place)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(OSError, match="no"):
        kxai.export(epsilon(dense(units=5)), tmp_path, overwrite=True)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]
    assert loaded(done)("serving_default", x=models.numbers(4))["y"].shape == (4, 3)


def test_a_version_that_somebody_else_has_written_meanwhile_stays(tmp_path):
    def write():
        with new_version(tmp_path, 1, overwrite=False) as folder:
            folder.mkdir()
            (tmp_path / "1").mkdir()
            (tmp_path / "1" / "theirs").touch()

    with pytest.raises(ExportError, match="is there already"):
        write()
    assert [entry.name for entry in tmp_path.rglob("*")] == ["1", "theirs"]


def test_threads_write_versions_side_by_side(tmp_path):
    model = dense()
    analyzer, failed = epsilon(model), []

    def write(version):
        try:
            kxai.export(analyzer, tmp_path / "model", version=version)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(version,)) for version in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(entry.name for entry in (tmp_path / "model").iterdir()) == ["1", "2", "3"]


# The model


@pytest.mark.parametrize(
    "case", [models.list_inputs, *(pytest.param(m, marks=pytest.mark.slow) for m in (models.residual, models.lstm))]
)
def test_the_model_stays_as_it_is(case, tmp_path):
    case = case()
    case.model.compile("sgd", "mse")
    before = Snapshot.of(case)
    kxai.export([epsilon(case.model), kxai.Gradient(case.model)], tmp_path)
    before.check(case)


def test_no_loss_of_the_export_stays_in_the_model(tmp_path):
    stack = [layers.Dense(3, activity_regularizer="l2"), layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *stack])
    model(models.numbers(4))
    kxai.export(epsilon(model), tmp_path)
    assert [loss for loss in model.losses if tf.is_symbolic_tensor(loss)] == []


def test_an_export_keeps_the_weights_that_it_was_made_with(tmp_path):
    model, x = dense(), models.numbers(4)
    before = model(x).numpy()
    call = loaded(kxai.export(epsilon(model), tmp_path))
    model.compile("sgd", "mse")
    model.fit(x, np.ones((4, 3)), epochs=2, verbose=0)
    assert np.abs(model(x) - before).max() > 1e-3
    np.testing.assert_allclose(call("serving_default", x=x)["y"], before, rtol=1e-6)
    np.testing.assert_allclose(call("explain", x=x, target=np.int32([0] * 4))["score"], before[:, 0], rtol=1e-6)


def test_nothing_of_an_export_keeps_the_model(tmp_path):
    model = dense()
    watch = weakref.ref(model)
    done = kxai.export(epsilon(model), tmp_path)
    del model
    gc.collect()
    assert watch() is None
    assert done.path.is_dir()
