"""SavedModels of whose layers nothing is known."""

from __future__ import annotations

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import kxai
from kxai.errors import InputError, LoadError, RuleError
from kxai.loading import load
from tests.fixtures.saved_models import make
from tests.loading.test_formats import FIXTURES, message, predictions, stored

IMAGE = FIXTURES / "keras2_image_saved_model"


def export(folder, function, *specs, **variables):
    module = tf.Module()
    for name, value in variables.items():
        setattr(module, name, value)
    module.score = tf.function(function, input_signature=list(specs))
    tf.saved_model.save(module, str(folder), signatures={"score": module.score})
    return folder


ROWS = tf.TensorSpec((None, 3), tf.float32, "x")


def test_subclassed_model_of_keras2():
    inputs, expected = stored("keras2_custom")
    model = load(FIXTURES / "keras2_custom")
    assert isinstance(model.layers[-1], keras.layers.TFSMLayer)
    # Another version of TensorFlow runs the same graph.
    np.testing.assert_allclose(model(inputs["input_1"]), expected[0], atol=1e-6)
    np.testing.assert_allclose(model(inputs["input_1"][:1]), expected[0][:1], atol=1e-6)


def test_outputs_of_unknown_shape(tmp_path):
    def shapeless(x):
        shape = tf.cast(tf.unique(tf.reshape(x, [-1]))[0], tf.int32)  # as the values say
        return {"y": tf.reshape(x, shape), "z": x}

    text = message(export(tmp_path / "shapeless", shapeless, ROWS))
    assert "does not say what shape its outputs have" in text
    assert "y of unknown shape" in text


def test_several_inputs_and_outputs_go_by_name():
    inputs, expected = stored("plain")
    model = load(FIXTURES / "plain")
    outputs = model(inputs)
    np.testing.assert_allclose(outputs["product"], expected[0], atol=1e-6)
    np.testing.assert_allclose(outputs["sum"], expected[1], atol=1e-6)
    explanation = kxai.explain(model, inputs, "gradient", target={"sum": 1})
    kernel = np.asarray(model.layers[-1].weights[0])
    np.testing.assert_allclose(explanation.relevance["x"], np.tile(kernel[:, 1], (3, 1)), atol=1e-6)
    np.testing.assert_allclose(explanation.relevance["y"], np.tile([0.0, 1.0], (3, 1)), atol=1e-6)


@pytest.fixture(scope="module")
def both():
    """The same model with its layers, and as a black box."""
    return load(IMAGE), load(IMAGE, endpoint="serving_default"), stored("keras2_image")[0].popitem()[1]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("gradient", {}),
        ("gradient_x_input", {}),
        ("sensitivity", {}),
        ("integrated_gradients", {"num_steps": 8}),
        ("smoothgrad", {"num_samples": 4, "noise": 0.1}),
        ("expected_gradients", {"baselines": 0.5, "num_samples": 4}),
    ],
)
def test_gradient_methods_agree_with_those_of_the_layers(both, method, settings):
    layers, box, images = both
    want = kxai.explain(layers, images, method, target=1, **settings).relevance
    got = kxai.explain(box, images, method, target=1, **settings)
    # The same derivative by other kernels, and of numbers up to 1.
    np.testing.assert_allclose(got.relevance, want, atol=1e-5 * max(1, abs(want).max()))
    assert abs(want).max() > 1e-3


def test_any_batch_size(both):
    layers, box, images = both
    for size in (1, 2, 3):
        got = kxai.explain(box, images, "gradient", target=0, batch_size=size).relevance
        np.testing.assert_allclose(got, kxai.explain(layers, images, "gradient", target=0).relevance, atol=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        "lrp.epsilon",
        "lrp.epsilon_plus",
        "lrp.attn",
        "deep_taylor",
        "deeplift",
        "guided_backprop",
        "deconvnet",
        "grad_cam",
        "score_cam",
        "attention_rollout",
    ],
)
def test_propagation_methods_say_why_not(both, method):
    _, box, images = both
    with pytest.raises(RuleError) as caught:
        kxai.explain(box, images, method, target=1)
    text = str(caught.value)
    assert "'saved_model' is the graph of a SavedModel, which does not say what layers it is made of" in text
    assert "save the model with model.save('name.keras') where it was built and load that file" in text
    assert "gradient methods work: gradient, integrated_gradients, smoothgrad" in text


def test_plan_says_it_too(both):
    with pytest.raises(RuleError, match="which does not say what layers it is made of"):
        kxai.plan(both[1], "lrp.epsilon")
    assert kxai.plan(both[1], "gradient").rows[0][0] == "saved_model"


def ids(x):
    return {"y": 2 * tf.cast(x, tf.float32)}


def place_of_the_largest(x):
    return {"y": tf.cast(tf.argmax(x, 1)[:, None], tf.float32) + tf.round(x)}


@pytest.mark.parametrize("function", [ids, place_of_the_largest])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad"])
def test_what_no_derivative_reaches_is_an_error(tmp_path, function, method):
    """And neither a silent zero nor an error of TensorFlow."""
    dtype = tf.int32 if function is ids else tf.float32
    model = load(export(tmp_path / "blind", function, tf.TensorSpec((None, 3), dtype, "x")))
    with pytest.raises(InputError, match="No output of the model depends on its inputs in a way that could be expl"):
        kxai.explain(model, np.ones((2, 3), dtype.name), method, target=0)


def test_integers_beside_numbers(tmp_path):
    def product(n, x):
        return {"y": tf.cast(n, tf.float32) * x}

    specs = tf.TensorSpec((None, 3), tf.int32, "n"), tf.TensorSpec((None, 3), tf.float32, "x")
    model = load(export(tmp_path / "product", product, *specs))
    inputs = {"n": np.array([[1, 2, 3]], "int32"), "x": np.array([[4, 5, 6]], "float32")}
    found = kxai.explain(model, inputs, "gradient", target=2).relevance
    np.testing.assert_array_equal(found["x"], [[0, 0, 3]])
    np.testing.assert_array_equal(found["n"], [[0, 0, 0]])


def test_text_is_refused(tmp_path):
    def length(x):
        return {"y": tf.cast(tf.strings.length(x), tf.float32)}

    model = load(export(tmp_path / "text", length, tf.TensorSpec((None, 1), tf.string, "x")))
    with pytest.raises(InputError, match="takes text, in which nothing can be weighed") as caught:
        kxai.explain(model, np.array([["a"], ["bc"]]), "gradient")
    assert "TextVectorization" in str(caught.value)


def test_exported_by_keras3(tmp_path):
    model = make.image()
    model.export(tmp_path / "exported", verbose=False)
    inputs = make.inputs_of(model)
    images = next(iter(inputs.values()))
    for endpoint in (None, "serve", "serving_default"):
        box = load(tmp_path / "exported", endpoint=endpoint)
        np.testing.assert_allclose(box(images), predictions(model, inputs)[0], atol=1e-6)


def test_endpoints(tmp_path):
    assert "has no endpoint 'no'" in (text := message(IMAGE, endpoint="no"))
    assert "Expected: one of serving_default" in text
    assert "Fix: endpoint='serving_default'." in text
    module = tf.Module()
    one = tf.function(lambda x: x + 1, input_signature=[ROWS])
    two = tf.function(lambda x: x + 2, input_signature=[ROWS])
    tf.saved_model.save(module, str(tmp_path / "two"), signatures={"one": one, "two": two})
    text = message(tmp_path / "two")
    assert "has several endpoints, none with a usual name" in text
    assert "one of one, two" in text
    assert load(tmp_path / "two", endpoint="two")(np.ones((1, 3))).numpy().tolist() == [[3.0] * 3]
    tf.saved_model.save(module, str(tmp_path / "none"))
    text = message(tmp_path / "none")
    assert "has no endpoint at all" in text.replace("'", "")
    assert "a SavedModel with signatures" in text


@pytest.mark.parametrize("shape", [(2, 3), (), None])
def test_batches_of_any_size_are_needed(tmp_path, shape):
    folder = export(tmp_path / "fixed", lambda x: {"y": x + 1.0}, tf.TensorSpec(shape, tf.float32, "x"))
    text = message(folder)
    assert "does not take batches of any size" in text
    assert "whose first dimension is None" in text


def read_a_file(x):
    return {"y": x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)}


def map_a_file(x):
    return {"y": x + tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[3], memory_region_name="/etc/hostname")}


def write_a_file(x):
    tf.io.write_file("/nowhere/at/all", "text")
    return {"y": x}


def print_to_a_file(x):
    tf.print(x, output_stream="file:///nowhere/at/all")
    return {"y": x}


def run_python(x):
    return {"y": tf.ensure_shape(tf.numpy_function(lambda value: value, [x], tf.float32), (None, 3))}


def deep_inside(x):
    def body(_, y):
        return tf.cond(
            tf.reduce_sum(y) > 0, lambda: tf.io.decode_raw(tf.io.read_file("f"), tf.float32)[0] + y, lambda: y
        )

    return {"y": tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, body(i, y)), [0, x])[1]}


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (read_a_file, "ReadFile"),
        (map_a_file, "ImmutableConst"),
        (write_a_file, "WriteFile"),
        (print_to_a_file, "PrintV2"),
        (run_python, "PyFunc"),
        (deep_inside, "ReadFile"),
    ],
)
def test_a_graph_that_reaches_out_is_refused(tmp_path, function, operation):
    folder = export(tmp_path / "reaching", function, ROWS)
    text = message(folder)
    assert "has a graph that can run code, or reach files or the network" in text
    assert operation in text
    assert "only if you trust the origin of this folder: load it with safe_mode=False" in text


def test_what_reaches_out_can_be_trusted(tmp_path):
    folder = export(tmp_path / "reaching", read_a_file, ROWS)
    assert isinstance(load(folder, safe_mode=False), keras.Model)


def test_random_numbers_and_tables_stay_in_memory(tmp_path):
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1, 2], [10.0, 20.0]), 0.0)

    def use(x):
        return {"y": x + table.lookup(tf.cast(x, tf.int32)) + 0 * tf.random.uniform(tf.shape(x))}

    model = load(export(tmp_path / "table", use, ROWS, table=table))
    assert model(np.array([[1.0, 2.0, 3.0]])).numpy().tolist() == [[11.0, 22.0, 3.0]]


@pytest.mark.parametrize("unlisted", [False, True])
def test_a_saver_is_no_hiding_place(tmp_path, unlisted):
    """The functions that save and restore may use files; not so if the object calls them itself."""
    from tensorflow.core.protobuf import saved_model_pb2

    folder = export(tmp_path / "hidden", write_a_file, ROWS)
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = saved.meta_graphs[0]
    call = next(node for node in graph.graph_def.node if "signature_wrapper" in node.attr["f"].func.name)
    graph.saver_def.restore_op_name = call.name
    if unlisted:
        graph.object_graph_def.concrete_functions.clear()
    path.write_bytes(saved.SerializeToString())
    assert "WriteFile" in message(folder)


def test_an_asset_elsewhere_is_refused(tmp_path):
    from tensorflow.core.protobuf import saved_model_pb2

    folder = shutil.copytree(FIXTURES / "plain", tmp_path / "plain")
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    saved.meta_graphs[0].asset_file_def.add(filename="../../secret.txt")
    path.write_bytes(saved.SerializeToString())
    assert "../../secret.txt" in message(folder)


def test_damaged(tmp_path):
    folder = shutil.copytree(FIXTURES / "plain", tmp_path / "plain")
    (folder / "variables" / "variables.data-00000-of-00001").unlink()
    assert "TensorFlow could not load" in message(folder)
    path = folder / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:-9])
    assert "saved_model.pb is damaged" in message(folder)
    path.write_bytes(b"")
    text = message(folder)
    assert "is no SavedModel of TensorFlow 2" in text
    assert "save it again with tf.saved_model.save" in text


def test_the_error_is_one_of_loading():
    with pytest.raises(LoadError):
        load(IMAGE, endpoint="x")
