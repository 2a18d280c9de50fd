"""The tracer: graphs equal their models, whatever they are made of, and models are not touched."""

from __future__ import annotations

import threading
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from kxai.errors import ModelError
from kxai.graph.graph import Kind
from kxai.graph.trace import input_specs, trace


def replay(graph, inputs):
    """Run a graph node by node."""
    values = dict(zip(graph.inputs, map(ops.convert_to_tensor, inputs), strict=True))
    for node in graph.nodes:
        outputs = node.run(*(values[edge] for edge in node.inputs))
        values.update(zip(node.outputs, outputs, strict=True))
    return [np.asarray(values[edge]) for edge in graph.outputs]


def image_net():
    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.MaxPooling2D(),
            layers.Flatten(),
        ],
        name="backbone",
    )


def nested():
    net = [layers.Input((8, 8, 3)), layers.RandomFlip(), layers.Rescaling(0.5, offset=0.1), image_net()]
    return keras.Sequential([*net, layers.Dropout(0.5), layers.Dense(3)])


def siamese():
    backbone = image_net()
    a, b = layers.Input((8, 8, 3)), layers.Input((8, 8, 3))
    return keras.Model([a, b], layers.Dense(1)(layers.Subtract()([backbone(a), backbone(b)])))


def dictionaries():
    image, table = layers.Input((8, 8, 3), name="image"), layers.Input((6,), name="table")
    joined = layers.Concatenate()([image_net()(image), layers.Dense(5, activation="gelu")(table)])
    return keras.Model({"image": image, "table": table}, {"one": layers.Dense(2)(joined), "two": joined})


@keras.saving.register_keras_serializable("kxai-tests")
class Subclassed(keras.Model):
    """Uses the batch size, slices, and operators on tensors."""

    def __init__(self):
        super().__init__()
        self.conv, self.dense = layers.Conv2D(4, 3, activation="relu"), layers.Dense(3)
        self.norm = layers.BatchNormalization()

    def call(self, x, training=None):
        hidden = self.norm(self.conv(x), training=training)
        batch = ops.shape(hidden)[0]
        flat = ops.reshape(hidden, (batch, -1))
        rows = ops.reshape(flat, (2 * batch, -1))
        flat = ops.reshape(rows, (batch, flat.shape[1]))
        return self.dense(ops.concatenate([flat[:, 1:], 2.0 * flat + 1.0], axis=-1))


class Projection(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 5))
        self.bias = self.add_weight(shape=(5,), initializer="ones")

    def call(self, x):
        return ops.matmul(x, self.kernel) + self.bias


class Baked(Projection):
    def call(self, x):
        return ops.matmul(x, ops.softplus(self.kernel)) + self.bias


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8, 8, 3), "float32"))
    return model


def tokens():
    net = [layers.Input((7,), dtype="int32"), layers.Embedding(20, 5, mask_zero=True), layers.Masking()]
    return keras.Sequential([*net, layers.Bidirectional(layers.LSTM(4)), layers.Dense(2, activation="softmax")])


def attention():
    x = layers.Input((7, 6))
    mixed = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(mixed)))


def per_step():
    net = [layers.Input((3, 8, 8, 3)), layers.TimeDistributed(layers.Conv2D(2, 3, activation="relu")), layers.Flatten()]
    return keras.Sequential([*net, layers.Dense(2)])


def any_size():
    net = [layers.Input((None, None, 3)), layers.SeparableConv2D(4, 3, activation="relu"), layers.GlobalMaxPooling2D()]
    return keras.Sequential([*net, layers.Dense(2)])


def norms():
    net = [layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.GroupNormalization(2), layers.Activation("hard_silu")]
    return keras.Sequential([*net, layers.UnitNormalization(), layers.Flatten(), layers.Dense(2)])


def own_activation():
    net = [layers.Input((6,)), layers.Dense(4, activation=lambda x: ops.tanh(x) * x), Projection(), layers.PReLU()]
    return keras.Sequential([*net, layers.Dense(2, activation=layers.LeakyReLU())])


def raw_tensorflow():
    return keras.Sequential([layers.Input((6,)), layers.Lambda(lambda x: tf.sin(x)), Baked(), layers.Dense(2)])


MODELS = [
    nested, siamese, dictionaries, subclassed, tokens, attention, per_step, any_size, norms, own_activation,
    raw_tensorflow,
]  # fmt: skip


def example(model, batch):
    """Random inputs of a model, flat."""
    rng = np.random.default_rng(batch)
    arrays = []
    for spec in keras.tree.flatten(input_specs(model, np.zeros((1, 8, 8, 3), "float32"))):
        shape = (batch, *(size or 9 for size in spec.shape[1:]))
        arrays.append(rng.integers(0, 20, shape) if "int" in spec.dtype else rng.normal(size=shape).astype("float32"))
    return arrays


def call(model, arrays):
    specs = input_specs(model, np.zeros((1, 8, 8, 3), "float32"))
    return [
        np.asarray(y) for y in keras.tree.flatten(model(keras.tree.pack_sequence_as(specs, arrays), training=False))
    ]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("batch", [1, 4])
def test_graph_equals_model(make, batch):
    keras.utils.set_random_seed(0)
    model = make()
    graph = trace(model, input_specs(model, np.zeros((1, 8, 8, 3), "float32")))
    arrays = example(model, batch)
    for got, expected in zip(replay(graph, arrays), call(model, arrays), strict=True):
        # Norms are computed in two steps and may round differently; everything else is the same computation.
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", MODELS)
def test_model_is_not_touched(make):
    keras.utils.set_random_seed(0)
    model = make()
    specs = input_specs(model, np.zeros((1, 8, 8, 3), "float32"))
    flat = list(model._flatten_layers())
    before = [(len(layer._inbound_nodes), len(layer._outbound_nodes), layer.built, len(layer.losses)) for layer in flat]
    next_name = layers.Dense(1).name
    trace(model, specs)
    after = [(len(layer._inbound_nodes), len(layer._outbound_nodes), layer.built, len(layer.losses)) for layer in flat]
    assert before == after
    # Automatic names go on where they were.
    assert int(layers.Dense(1).name.split("_")[1]) == int(next_name.split("_")[1]) + 1


def paths(model):
    return [node.path for node in trace(model, input_specs(model)).nodes]


def test_paths_are_the_users_names():
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(4, activation="relu", name="hidden")], name="encoder")
    x = layers.Input((4,))
    model = keras.Model(x, layers.Add(name="join")([inner(x), inner(inner(x))]))
    calls = ("encoder", "encoder#2", "encoder#3")
    expected = {f"{call}/hidden{part}" for call in calls for part in ("", "/relu")} | {"join"}
    assert {path for path in paths(model) if "convert" not in path} == expected


def test_shared_layer_is_two_nodes():
    dense = layers.Dense(3, name="shared")
    x = layers.Input((3,))
    assert [path for path in paths(keras.Model(x, dense(dense(x)))) if "convert" not in path] == ["shared", "shared#2"]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (
            layers.Lambda(lambda x: tf.sin(x), name="raw"),
            "KerasTensor cannot be used as input to a TensorFlow function",
        ),
        (Baked(name="raw"), "before they meet the input"),
    ],
)
def test_opaque_nodes_say_why(layer, reason):
    graph = trace(*_with_specs(keras.Sequential([layers.Input((6,)), layer, layers.Dense(2)])))
    node = graph.find("raw")
    assert node.kind is Kind.OPAQUE
    assert reason in node.reason


def _with_specs(model):
    return model, input_specs(model)


def test_weights_that_batch_statistics_would_change_stay_closed():
    class Always(layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = layers.BatchNormalization()

        def call(self, x):
            return self.norm(x, training=True)

    model = keras.Sequential([layers.Input((6,)), Always(), layers.Dense(2)])
    kinds = {node.op: node.kind for node in trace(model, input_specs(model)).nodes}
    assert kinds["batch_norm"] is Kind.OPAQUE


def test_not_a_model():
    with pytest.raises(ModelError, match="Only Keras models can be explained") as caught:
        trace(object(), None)
    assert "kxai.load(path)" in str(caught.value)


def test_not_built():
    model = keras.Sequential([layers.Dense(2)])
    with pytest.raises(ModelError, match="has not been built") as caught:
        input_specs(model)
    assert "call the model once" in str(caught.value)
    assert not model.built


def test_layer_that_was_never_called():
    model = Subclassed()
    model.built = True
    with pytest.raises(ModelError, match="has not been built"):
        trace(model, input_specs(model, np.zeros((1, 8, 8, 3), "float32")))
    assert not model.conv.built
    assert layers.Dense(1).built is False  # and Keras works as before


def test_structure_that_depends_on_the_batch_is_refused():
    class Odd(layers.Layer):
        def call(self, x):
            for _ in range(x.shape[0]):
                x = ops.relu(x)
            return x

    model = keras.Sequential([layers.Input(batch_shape=(2, 3)), Odd()])
    with pytest.raises(ModelError, match="depends on the batch size"):
        trace(model, input_specs(model))


def test_subclassed_without_example():
    model = Subclassed()
    model(np.zeros((1, 8, 8, 3), "float32"))
    assert input_specs(model).shape == (None, 8, 8, 3)


def test_other_threads_see_keras_as_it_is():
    """While one thread traces, another builds functional models, again and again."""
    model, stop, names = nested(), threading.Event(), []

    def build():
        while not stop.is_set():
            x = layers.Input((4,))
            built = keras.Model(x, layers.Dense(2)(ops.relu(x)))
            names.append([type(operation).__name__ for operation in built.operations])

    thread = threading.Thread(target=build)
    thread.start()
    for _ in range(20):
        trace(model, input_specs(model))
    stop.set()
    thread.join()
    assert names
    assert all(name == ["InputLayer", "Relu", "Dense"] for name in names)


def test_stateful_layers_are_refused():
    model = keras.Sequential([layers.Input(batch_shape=(2, 5, 3)), layers.LSTM(4, stateful=True)])
    with pytest.raises(ModelError, match="is stateful: explaining it would change its state"):
        trace(model, input_specs(model))


def test_quantised_layers_are_refused():
    model = keras.Sequential([layers.Input((6,)), layers.Dense(4), layers.Dense(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says which layers it leaves as they are
        model.quantize("int8")
    with pytest.raises(ModelError, match="is quantised"):
        trace(model, input_specs(model))
