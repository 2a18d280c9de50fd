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


def test_opaque_nodes_say_why():
    layer = layers.Lambda(lambda x: tf.map_fn(tf.sin, x), name="raw")
    graph = trace(*_with_specs(keras.Sequential([layers.Input((6,)), layer, layers.Dense(2)])))
    node = graph.find("raw")
    assert node.kind is Kind.OPAQUE
    assert "Could not build a TypeSpec for <KerasTensor" in node.reason


def _with_specs(model):
    return model, input_specs(model)


def test_batch_statistics_are_refused():
    class Always(layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = layers.BatchNormalization()

        def call(self, x):
            return self.norm(x, training=True)

    model = keras.Sequential([layers.Input((6,)), Always(), layers.Dense(2)])
    with pytest.raises(ModelError, match="statistics of the batch") as caught:
        trace(*_with_specs(model))
    assert "training=False" in str(caught.value)


class Tied(keras.Model):
    """Computes with its own weight, and with a sublayer's, before they meet the input."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(4)
        self.table = layers.Embedding(5, 4)

    def build(self, shape):
        self.temperature = self.add_weight(shape=(5,), initializer="ones")
        self.hidden.build(shape)
        self.table.build()
        self.built = True

    def call(self, x):
        logits = ops.matmul(self.hidden(x), ops.transpose(self.table.embeddings))
        return {"logits": logits, "scaled": logits * ops.exp(self.temperature)}


@pytest.mark.parametrize("root", [True, False])
def test_models_that_compute_with_weights_stay_live(root):
    x = np.ones((3, 6), "float32")
    model = Tied()
    model(x)
    if not root:
        inputs = layers.Input((6,))
        model = keras.Model(inputs, model(inputs))
    graph = trace(model, input_specs(model, x))
    assert not any(node.kind is Kind.OPAQUE for node in graph.nodes)
    assert sum(node.kind is Kind.CONSTANT for node in graph.nodes) == 1
    assert sum(node.kind is Kind.AFFINE for node in graph.nodes) == 2
    model.set_weights([w + 1.0 for w in model.get_weights()])
    expected = model(x)
    for got, name in zip(replay(graph, [x]), graph.output_names, strict=True):
        np.testing.assert_allclose(got, expected[name], rtol=1e-5)


class ClassToken(layers.Layer):
    """Tensors made of weights and of the batch size, as vision transformers put them before their patches."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="glorot_uniform")
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        batch = ops.shape(x)[0]
        token = ops.broadcast_to(self.token * 2.0, (batch, 1, x.shape[-1]))
        rows = ops.tile(ops.arange(x.shape[1] + 1, dtype="float32"), (batch,))
        x = ops.concatenate([token, self.scale * x], axis=1)
        return x + ops.reshape(rows, (batch, -1, 1))


class Position(layers.Layer):
    """Returns a tensor that depends on its weights and on the input's shape alone."""

    def build(self, shape):
        self.table = self.add_weight(shape=(9, shape[-1]), initializer="glorot_uniform")

    def call(self, x):
        table = ops.slice(ops.convert_to_tensor(self.table), (0, 0), (x.shape[1], x.shape[2]))
        return ops.broadcast_to(table, ops.shape(x))


def test_constants_follow_the_batch_and_the_weights():
    inputs = layers.Input((4, 3))
    x = ClassToken(name="class_token")(inputs)
    x = layers.Add()([x, Position(name="position")(x)])
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    graph = trace(*_with_specs(model))
    assert not any(node.kind is Kind.OPAQUE for node in graph.nodes)
    assert graph.find("position/weights").kind is Kind.CONSTANT
    for seed, batch in enumerate((1, 2, 5)):
        rng = np.random.default_rng(seed)
        model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
        x = rng.normal(size=(batch, 4, 3)).astype("float32")
        np.testing.assert_allclose(replay(graph, [x])[0], model(x), rtol=1e-5, atol=1e-6)


class Undecided(layers.Layer):
    """Does something else in every call."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1],))
        self.calls = 0

    def call(self, x):
        self.calls += 1
        for _ in range(max(3 - self.calls // 3, 0)):
            x = x * ops.exp(self.kernel)
        return x


def test_layers_that_change_from_call_to_call_are_refused():
    layer = Undecided(name="undecided")
    model = keras.Sequential([layers.Input((6,)), layer])
    layer.calls = 0
    graph = trace(*_with_specs(model))
    layer.calls = 100
    with pytest.raises(ModelError, match="something else whenever it is called"):
        replay(graph, [np.ones((1, 6), "float32")])


class Divides(layers.Layer):
    """Divides by the batch size: a float that differs from one batch to the next."""

    def call(self, x):
        return ops.multiply(x, ops.convert_to_tensor(1.0 / x.shape[0]))


class TakesMiddle(layers.Layer):
    """A slice whose stop is neither fixed nor a multiple of the batch size."""

    def call(self, x):
        return ops.sum(x[: 2 * x.shape[0] - 1], axis=0, keepdims=True) + x


class Clips(layers.Layer):
    """An attribute of an operation that differs from one batch to the next."""

    def call(self, x):
        return ops.leaky_relu(x, negative_slope=0.1 * x.shape[0])


@pytest.mark.parametrize("layer", [Divides, TakesMiddle, Clips])
def test_values_that_depend_on_the_batch_size(layer):
    model = keras.Sequential([layers.Input(batch_shape=(4, 6)), layer(name="odd"), layers.Dense(2)])
    graph = trace(*_with_specs(model))
    assert graph.find("odd").kind is Kind.OPAQUE
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    np.testing.assert_allclose(replay(graph, [x])[0], model(x), rtol=1e-5)


class Counts(layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.count.assign_add(1.0)
        return 2.0 * x


class Draws(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal((6,), seed=self.seed)


@pytest.mark.parametrize("layer", [Counts, Draws])
def test_layers_that_change_their_state_are_refused(layer):
    model = keras.Sequential([layers.Input((6,)), layer(), layers.Dense(2)])
    before = [variable.numpy().copy() for variable in model.variables]
    with pytest.raises(ModelError, match="changes its state when called"):
        trace(*_with_specs(model))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_inputs_by_keyword():
    x = layers.Input((6,))
    model = keras.Model(x, layers.Dense(3)(inputs=layers.Dropout(0.5)(inputs=layers.Activation("relu")(inputs=x))))
    nodes = [node for node in trace(*_with_specs(model)).nodes if node.op != "convert_to_tensor"]
    assert [node.kind for node in nodes] == [Kind.ELEMENTWISE, Kind.AFFINE]


@pytest.mark.parametrize("layer", [layers.Dense(2), layers.Conv1D(2, 1), layers.LayerNormalization()])
def test_integers_meet_float_weights(layer):
    x = layers.Input((5, 3), dtype="uint8")
    graph = trace(*_with_specs(keras.Model(x, layer(x))))
    assert graph.outputs[0].dtype == "float32"
    assert graph.outputs[0] in graph.active


def _kinds_of(function):
    x = layers.Input((6,))
    graph = trace(*_with_specs(keras.Model(x, function(layers.Dense(4)(x), layers.Dense(4)(x)))))
    return {node.op: node.kind for node in graph.nodes}


@pytest.mark.parametrize(
    ("function", "op", "kind"),
    [
        (lambda x, y: x * x, "multiply", Kind.ELEMENTWISE),
        (lambda x, y: x * y, "multiply", Kind.PRODUCT),
        (lambda x, y: layers.Multiply()([x, x, y]), "multiply", Kind.OPAQUE),
        (lambda x, y: x / 2.0, "true_divide", Kind.SCALE),
        (lambda x, y: 2.0 / x, "true_divide", Kind.ELEMENTWISE),
        (lambda x, y: ops.einsum("bi,bj->bij", x, x), "einsum", Kind.BILINEAR),
        (lambda x, y: ops.einsum("bi,bj->bij", x, y), "einsum", Kind.BILINEAR),
        (lambda x, y: ops.matmul(x, np.ones((4, 3), "float32")), "matmul", Kind.AFFINE),
        (lambda x, y: ops.power(x, 2.0), "power", Kind.ELEMENTWISE),
        (lambda x, y: ops.power(x, y), "power", Kind.OPAQUE),
    ],
)
def test_kinds_depend_on_the_operands(function, op, kind):
    assert _kinds_of(function)[op] is kind


@pytest.mark.parametrize(
    ("function", "op", "kind"),
    [
        (tf.nn.relu, "relu", Kind.ELEMENTWISE),
        (tf.nn.softmax, "softmax", Kind.SOFTMAX),
        (tf.tanh, "tanh", Kind.ELEMENTWISE),
    ],
)
def test_activations_of_tensorflow_are_known(function, op, kind):
    model = keras.Sequential([layers.Input((6,)), layers.Dense(3, activation=function)])
    graph = trace(*_with_specs(model))
    assert (graph.nodes[-1].op, graph.nodes[-1].kind) == (op, kind)
    x = np.ones((2, 6), "float32")
    np.testing.assert_allclose(replay(graph, [x])[0], model(x), rtol=1e-6)


@pytest.mark.parametrize("width", [1, 5])
def test_constants_that_broadcast_are_no_channel_scales(width):
    x = layers.Input((6,))
    graph = trace(*_with_specs(keras.Model(x, layers.Dense(width)(x) + np.arange(5.0, dtype="float32"))))
    node = graph.nodes[-1]
    assert node.kind is Kind.SCALE
    assert (node.scale is not None) == (width == 5)


def test_nodes_say_whether_they_hold_constants():
    x = layers.Input((6,))
    joined = ops.concatenate([ops.reshape(x, (-1, 6)), -np.ones((1, 6), "float32")], axis=0)
    held = {node.op: node.holds_constants for node in trace(*_with_specs(keras.Model(x, joined))).nodes}
    assert held["concatenate"]
    assert not held["reshape"]


def test_dictionary_outputs_are_named_by_their_keys():
    assert trace(*_with_specs(dictionaries())).output_names == ("one", "two")


def test_several_call_arguments_are_refused():
    class Two(keras.Model):
        def call(self, x, y):
            return x + y

    model = Two()
    model(np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(ModelError, match="takes its inputs as several arguments") as caught:
        input_specs(model, [np.ones((1, 2)), np.ones((1, 2))])
    assert "x, y = inputs" in str(caught.value)


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
    model, names = nested(), []

    def build():
        for _ in range(30):
            x = layers.Input((4,))
            built = keras.Model(x, layers.Dense(2)(ops.relu(x)))
            names.append([type(operation).__name__ for operation in built.operations])

    thread = threading.Thread(target=build)
    thread.start()
    while thread.is_alive():
        trace(model, input_specs(model))
    assert names == [["InputLayer", "Relu", "Dense"]] * 30


def test_quantised_layers_are_refused():
    model = keras.Sequential([layers.Input((6,)), layers.Dense(4), layers.Dense(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says which layers it leaves as they are
        model.quantize("int8")
    with pytest.raises(ModelError, match="is quantised"):
        trace(model, input_specs(model))


class Computes(layers.Layer):
    """Multiplies by what ``function`` makes of the layer's weights."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def build(self, shape):
        self.vector = self.add_weight(shape=(shape[-1],), initializer="random_normal")
        self.number = self.add_weight(shape=(), dtype="int32", initializer="ones", trainable=False)
        self.raw = tf.Variable(tf.ones(shape[-1]))

    def call(self, x):
        return self.function(self, x)


@pytest.mark.parametrize(
    "function",
    [
        lambda layer, x: x * ops.round(layer.vector),
        lambda layer, x: x * ops.cast(layer.vector > 0, "float32"),
        lambda layer, x: x * ops.where(layer.vector > 0, 1.0, -1.0),
        lambda layer, x: x * (ops.stop_gradient(layer.vector) * 2),
        lambda layer, x: ops.take(x, ops.argsort(layer.vector), axis=1),
        lambda layer, x: x * ops.one_hot(ops.argmax(layer.vector), 6),
        lambda layer, x: x * ops.cast(layer.number, "float32"),
        lambda layer, x: ops.take(x, ops.expand_dims(ops.mod(layer.number, 4), 0), axis=1),
        lambda layer, x: x * (layer.raw * 2),
        lambda layer, x: ops.clip(x, 0.0, ops.max(layer.vector)),
        lambda layer, x: ops.minimum(x, layer.vector),
        lambda layer, x: layer.vector * x,
        lambda layer, x: layer.vector - x,
    ],
)
def test_whatever_is_computed_from_weights_stays_live(function):
    layer = Computes(function)
    model = keras.Sequential([layers.Input((6,)), layer])
    rng = np.random.default_rng(0)
    graph, x = trace(*_with_specs(model)), rng.normal(size=(3, 6)).astype("float32")
    for _ in range(3):
        layer.vector.assign(rng.normal(size=6))
        layer.number.assign(rng.integers(2, 9))
        layer.raw.assign(rng.normal(size=6))
        np.testing.assert_allclose(replay(graph, [x])[0], model(x), rtol=1e-6)


def test_weights_of_another_layer_stay_live():
    table = layers.Embedding(20, 6)
    ids = layers.Input((7,), dtype="int32")
    pooled = layers.GlobalAveragePooling1D()(table(ids))
    model = keras.Model(ids, layers.Lambda(lambda x: ops.matmul(x, ops.transpose(table.embeddings)))(pooled))
    graph, x = trace(*_with_specs(model)), np.arange(14).reshape(2, 7)
    table.set_weights([np.random.default_rng(0).normal(size=(20, 6))])
    np.testing.assert_allclose(replay(graph, [x])[0], model(x), rtol=1e-5)


def test_constants_of_layers_without_weights_are_no_nodes():
    model = keras.Sequential([layers.Input((6,)), layers.Lambda(lambda x: x * ops.arange(6, dtype="float32"))])
    assert not any(node.kind is Kind.CONSTANT for node in trace(*_with_specs(model)).nodes)


def test_rounded_numbers_carry_no_relevance():
    x = layers.Input((6,))
    rounded = ops.cast(ops.cast(x * 3, "int32"), "float32")
    graph = trace(*_with_specs(keras.Model(x, x * rounded)))
    product = graph.nodes[-1]
    assert [edge in graph.active for edge in product.inputs] == [True, False]


@pytest.mark.parametrize("inner", [layers.BatchNormalization, lambda: layers.Dropout(0.5)])
def test_training_reaches_what_is_distributed_over_time(inner):
    class Always(layers.Layer):
        def __init__(self):
            super().__init__()
            self.steps = layers.TimeDistributed(inner())

        def call(self, x):
            return self.steps(x, training=True)

    x = layers.Input((4, 3))
    model = keras.Model(x, Always()(x))
    with pytest.raises(ModelError):
        trace(*_with_specs(model))
