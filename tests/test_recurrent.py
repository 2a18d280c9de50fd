"""LRP through recurrent layers equals its plain definition; gradients through them equal TensorFlow's."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import kxai
from kxai import Kind, backend, rules
from kxai.analyzers.gradient import Gradient
from kxai.composites import PRESETS, Composite
from kxai.composites.composite import anything, gated
from kxai.errors import InputError, RuleError
from kxai.testing.models import numbers, seeded
from tests import naive_recurrent as naive

STEPS, FEATURES, UNITS = 6, 5, 4
# Float64 against float64, of numbers about 1: rounding, magnified where a denominator is small.
EXACT = 1e-10
# The same in float32, whose rounding is 5e8 times as large; no denominator here is below 1e-3 of its summands.
SINGLE = 1e-4


def sequence_model(layer, dtype="float64", masked=False, shape=(STEPS, FEATURES)):
    """A recurrent layer, then a dense one over all that it returns."""
    x, mask = keras.Input(shape, dtype=dtype), keras.Input(shape[:1], dtype="bool", name="mask")
    y = layer(x, mask=mask) if masked else layer(x)
    head = layers.Dense(2, dtype=dtype, name="head")(ops.reshape(y, (-1, int(np.prod(y.shape[1:])))))
    return seeded(keras.Model([x, mask] if masked else x, head))


def head_relevance(model, values, target):
    """(logit, its relevance per value) of the dense head, for one sample."""
    kernel, bias = (np.asarray(w, "float64")[..., target] for w in model.get_layer("head").weights)
    logit = values.ravel() @ kernel + bias
    return logit, (values.ravel() * kernel * logit / naive.stab(logit)).reshape(values.shape)


def defined(model, cell, x, states, *, mask=None, layer=None, target=0):
    """Relevance of the inputs by definition, sample by sample."""
    found, logits = [], []
    for index, sample in enumerate(x.astype("float64")):
        present = None if mask is None else mask[index]
        zeros = [np.zeros(shape) for shape in states]
        backwards, zero_masked = layer.go_backwards, layer.zero_output_for_mask
        outputs, _, memories = naive.run(cell, sample, zeros, present, backwards)
        if zero_masked and mask is not None:
            outputs[[memory is None for memory in memories]] = 0
        logit, r = head_relevance(model, outputs if layer.return_sequences else outputs[-1], target)
        if not layer.return_sequences:
            r = np.concatenate([np.zeros_like(outputs[:-1]), r[None]])
        found.append(naive.relevance(cell, sample, memories, r, zeros, backwards=backwards, zero_masked=zero_masked)[0])
        logits.append(logit)
    return np.array(found), np.array(logits)


def close(got, expected, tolerance):
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


WEIGHTS = {
    "simple_rnn": (layers.SimpleRNN, {}, naive.SimpleRNN, 1),
    "lstm": (layers.LSTM, {}, naive.LSTM, 2),
    "gru": (layers.GRU, {}, naive.GRU, 1),
    "gru before": (layers.GRU, {"reset_after": False}, lambda *w: naive.GRU(*w, reset_after=False), 1),
}
OPTIONS = {
    "plain": {},
    "sequences": {"return_sequences": True},
    "backwards": {"go_backwards": True, "return_sequences": True},
    "unrolled": {"unroll": True},
}


def cell_and_states(kind, layer):
    _, _, cell, count = WEIGHTS[kind]
    return cell(*(np.asarray(w, "float64") for w in layer.get_weights())), [(UNITS,)] * count


def quick(cases, *chosen):
    """The chosen cases in every run of the tests, the others in slow ones."""
    return [pytest.param(*case, marks=() if case in chosen else pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(
    ("kind", "options", "dtype"),
    quick(
        itertools.product(WEIGHTS, OPTIONS, ["float64", "float32"]),
        *[(kind, "sequences", "float64") for kind in WEIGHTS],
        *[("lstm", options, "float64") for options in OPTIONS],
        ("lstm", "plain", "float32"),
    ),
)
def test_equals_definition(kind, options, dtype):
    build, more, _, _ = WEIGHTS[kind]
    layer = build(UNITS, dtype=dtype, **more, **OPTIONS[options])
    model, x = sequence_model(layer, dtype), numbers(STEPS, FEATURES).astype(dtype)
    explanation = kxai.LRP(model, "epsilon").explain(x, target=1, audit=True)
    cell, states = cell_and_states(kind, layer)
    expected, logits = defined(model, cell, x, states, layer=layer, target=1)
    close(explanation.score, logits, EXACT if dtype == "float64" else SINGLE)
    close(explanation.relevance, expected, EXACT if dtype == "float64" else SINGLE)
    np.testing.assert_allclose(sum(explanation.absorbed.values()), explanation.residual, atol=1e-5)


MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1]], bool)


@pytest.mark.parametrize(
    ("kind", "options", "zero_masked"),
    quick(
        itertools.product(["lstm", "gru", "simple_rnn"], ["plain", "sequences", "backwards"], [False, True]),
        *itertools.product(["lstm"], ["plain", "backwards"], [False, True]),
    ),
)
def test_masked_steps(kind, options, zero_masked):
    layer = WEIGHTS[kind][0](UNITS, dtype="float64", zero_output_for_mask=zero_masked, **OPTIONS[options])
    model, x = sequence_model(layer, masked=True), numbers(STEPS, FEATURES).astype("float64")
    explanation = kxai.LRP(model, "epsilon").explain([x, MASK], target=0)
    cell, states = cell_and_states(kind, layer)
    expected, logits = defined(model, cell, x, states, mask=MASK, layer=layer)
    close(explanation.score, logits, EXACT)
    close(explanation.relevance[0], expected, EXACT)
    assert not explanation.relevance[0][~MASK].any()
    np.testing.assert_allclose(explanation.outputs, model([tf.constant(x), tf.constant(MASK)]), atol=EXACT)


def test_lrp_half():
    layer = layers.LSTM(UNITS, dtype="float64", return_sequences=True)
    model, x = sequence_model(layer), numbers(STEPS, FEATURES).astype("float64")
    half = kxai.preset("epsilon").but((gated, rules.Uniform()))
    cell = naive.LSTM(*(np.asarray(w, "float64") for w in layer.get_weights()), half=True)
    expected, _ = defined(model, cell, x, [(UNITS,)] * 2, layer=layer)
    close(kxai.LRP(model, half).explain(x, target=0).relevance, expected, EXACT)


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_bidirectional(merge):
    both = layers.Bidirectional(
        layers.LSTM(UNITS, dtype="float64", return_sequences=True), merge_mode=merge, dtype="float64"
    )
    model, x = sequence_model(both), numbers(STEPS, FEATURES).astype("float64")
    weights = [
        [np.asarray(w, "float64") for w in part.get_weights()] for part in (both.forward_layer, both.backward_layer)
    ]
    cells, expected = [naive.LSTM(*w) for w in weights], []
    for sample in x:
        zeros = [np.zeros(UNITS)] * 2
        forth, back = (
            naive.run(cell, sample, zeros, None, backwards) for cell, backwards in zip(cells, (0, 1), strict=True)
        )
        pair = [forth[0], back[0][::-1]]
        values = np.concatenate(pair, axis=1) if merge == "concat" else sum(pair)
        _, r = head_relevance(model, values, 0)
        parts = np.split(r, 2, axis=1) if merge == "concat" else [p / naive.stab(values) * r for p in pair]
        expected.append(
            naive.relevance(cells[0], sample, forth[2], parts[0], zeros)[0]
            + naive.relevance(cells[1], sample, back[2], parts[1][::-1], zeros, backwards=True)[0]
        )
    close(kxai.LRP(model, "epsilon").explain(x, target=0).relevance, np.array(expected), EXACT)


@pytest.mark.parametrize("options", ["plain", "sequences"])
def test_convolutional_lstm(options):
    shape = (4, 5, 4, 2)
    layer = layers.ConvLSTM2D(3, (3, 2), dtype="float64", **OPTIONS[options])
    model, x = sequence_model(layer, shape=shape), numbers(*shape).astype("float64")
    cell = naive.ConvLSTM2D(*(np.asarray(w, "float64") for w in layer.get_weights()), *shape[1:3])
    expected, logits = defined(model, cell, x, [(3, 3, 3)] * 2, layer=layer)
    explanation = kxai.LRP(model, "epsilon").explain(x, target=0)
    close(explanation.score, logits, EXACT)
    close(explanation.relevance, expected, EXACT)


def test_states_given_and_returned():
    """A decoder starts where the encoder ends: relevance passes through the states."""
    x, start = keras.Input((STEPS, FEATURES), dtype="float64"), keras.Input((UNITS,), dtype="float64")
    layer = layers.LSTM(UNITS, dtype="float64", return_state=True)
    _, h, c = layer(x, initial_state=[start, start])
    model = seeded(
        keras.Model([x, start], layers.Dense(2, dtype="float64", name="head")(ops.concatenate([h, c], axis=-1)))
    )
    arrays = [numbers(STEPS, FEATURES).astype("float64"), numbers(UNITS, seed=5).astype("float64")]
    got = kxai.LRP(model, "epsilon").explain(arrays, target=0).relevance
    cell = naive.LSTM(*(np.asarray(w, "float64") for w in layer.get_weights()))
    for index, (sample, first) in enumerate(zip(*arrays, strict=True)):
        outputs, last, memories = naive.run(cell, sample, [first, first])
        _, r = head_relevance(model, np.concatenate(last), 0)
        r_x, r_first = naive.relevance(cell, sample, memories, np.zeros_like(outputs), np.split(r, 2))
        close(got[0][index], r_x, EXACT)
        close(got[1][index], sum(r_first), EXACT)


def test_stacked_cells_are_layers_one_upon_the_other():
    cells = [layers.LSTMCell(UNITS, dtype="float64"), layers.GRUCell(3, dtype="float64")]
    stacked = sequence_model(layers.RNN(layers.StackedRNNCells(cells, dtype="float64"), dtype="float64"))
    plain = keras.Sequential([
        keras.Input((STEPS, FEATURES), dtype="float64"),
        layers.LSTM(UNITS, dtype="float64", return_sequences=True),
        layers.GRU(3, dtype="float64"),
        layers.Dense(2, dtype="float64"),
    ])  # fmt: skip
    plain.set_weights(stacked.get_weights())
    x = numbers(STEPS, FEATURES).astype("float64")
    got, expected = (kxai.LRP(model, "epsilon").explain(x, target=0).relevance for model in (stacked, plain))
    close(got, expected, EXACT)


def stateful_model():
    net = [layers.LSTM(UNITS, stateful=True, return_sequences=True, name="memory"), layers.GRU(3, stateful=True)]
    model = keras.Sequential([keras.Input(batch_shape=(2, STEPS, FEATURES)), *net, layers.Dense(2)])
    return seeded(model)


@pytest.mark.parametrize("method", ["lrp.epsilon", "gradient"])
def test_states_of_stateful_layers_are_read_and_not_changed(method):
    model, x = stateful_model(), numbers(STEPS, FEATURES, samples=2)
    fresh = kxai.explain(model, x, method, target=0)
    model.predict(x, verbose=0, batch_size=2)
    before = [v.numpy() for v in model.variables]
    analyzer = kxai.create_analyzer(method, model)
    later, again = analyzer.explain(x, target=0), analyzer.explain(x, target=0)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    np.testing.assert_array_equal(later.relevance, again.relevance)
    assert np.abs(later.outputs - fresh.outputs).max() > 1e-3
    np.testing.assert_allclose(later.outputs, model.predict(x, verbose=0, batch_size=2), atol=1e-6)
    after = analyzer.explain(x, target=0)  # the states that predicting has changed are seen at once
    assert np.abs(after.outputs - later.outputs).max() > 1e-4
    assert analyzer.traces == 1


def test_stateful_layers_hold_so_many_samples():
    model = stateful_model()
    x = numbers(STEPS, FEATURES)
    assert kxai.explain(model, x, "lrp.epsilon", batch_size=2).relevance.shape == x.shape
    with pytest.raises(InputError, match=r"'memory' is stateful: it holds the states of 2 samples(.|\n)*batch_size=2"):
        kxai.explain(model, x, "lrp.epsilon")


def test_random_numbers_are_not_drawn():
    net = [layers.SimpleRNN(3, dropout=0.5, recurrent_dropout=0.3, return_sequences=True), layers.LSTM(3, dropout=0.5)]
    model = seeded(keras.Sequential([keras.Input((STEPS, FEATURES)), *net, layers.Dense(2)]))
    plain = [layers.SimpleRNN(3, return_sequences=True), layers.LSTM(3)]
    twin = keras.Sequential([keras.Input((STEPS, FEATURES)), *plain, layers.Dense(2)])
    twin.set_weights(model.get_weights())
    before = [v.numpy() for v in model.variables]
    x = numbers(STEPS, FEATURES)
    for method in ("lrp.epsilon", "gradient"):
        got, expected = (kxai.explain(m, x, method, target=0).relevance for m in (model, twin))
        np.testing.assert_allclose(got, expected, atol=1e-6)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


# --- gradients -------------------------------------------------------------------------------------------------------


class Leaky(layers.Layer):
    """A cell of one's own: a leaky average, then a dense layer."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.state_size, self.units = units, units

    def build(self, shape):
        self.inner = layers.Dense(self.units, "tanh", name="inner")
        self.inner.build((shape[0], shape[-1] + self.units))
        self.rate = self.add_weight(shape=(self.units,), name="rate")

    def call(self, x, states):
        h = states[0] * self.rate + self.inner(ops.concatenate([x, states[0]], axis=-1))
        return h, [h]


NETWORKS = {
    "lstm": lambda: layers.LSTM(UNITS),
    "gru": lambda: layers.GRU(UNITS, return_sequences=True),
    "gru before": lambda: layers.GRU(UNITS, reset_after=False),
    "simple_rnn": lambda: layers.SimpleRNN(UNITS, activation="relu", go_backwards=True),
    "bidirectional": lambda: layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True), merge_mode="mul"),
    "stacked": lambda: layers.RNN([layers.LSTMCell(UNITS), layers.GRUCell(3)]),
    "own cell": lambda: layers.RNN(Leaky(UNITS, name="leaky")),
}
# A rule that is no Gradient opens the loops.
FORCED = Composite(
    "forced", ((Kind.ELEMENTWISE, rules.GuidedReLU("gradient")), (anything, rules.Gradient())), merge=False
)


class Forced(Gradient):
    """The gradient, through opened loops; GuidedReLU is the derivative where there is no ReLU."""

    def composite_table(self):
        return FORCED


@pytest.mark.parametrize(
    ("network", "masked"),
    quick(
        itertools.product([name for name in NETWORKS if name != "simple_rnn"], [False, True]),
        ("lstm", True), ("own cell", False), ("bidirectional", False),
    ),
)  # fmt: skip
def test_gradient_through_opened_and_closed_loops(network, masked):
    layer = NETWORKS[network]()
    model, x = sequence_model(layer, "float32", masked), numbers(STEPS, FEATURES)
    arrays = [x, MASK] if masked else x
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        score = model([tensor, tf.constant(MASK)] if masked else tensor)[:, 0]
    expected = tape.gradient(score, tensor).numpy()
    closed, opened = kxai.Gradient(model), Forced(model)
    assert not closed.plan().bodies
    assert opened.plan().bodies
    for analyzer in (closed, opened):
        got = analyzer.explain(arrays, target=0).relevance
        close(got[0] if masked else got, expected, 1e-5)  # float32, two orders of summation


def test_guided_backprop_opens_loops():
    model = sequence_model(layers.SimpleRNN(UNITS, activation="relu"), "float32")
    x = numbers(STEPS, FEATURES)
    kernel, recurrent, bias = (np.asarray(w, "float64") for w in model.layers[1].get_weights())
    head = np.asarray(model.get_layer("head").kernel, "float64")[:, 0]
    expected = np.zeros(x.shape)
    for index, sample in enumerate(x.astype("float64")):
        h, actives = np.zeros(UNITS), []
        for row in sample:
            z = row @ kernel + h @ recurrent + bias
            h = np.maximum(z, 0)
            actives.append(z > 0)
        signal = head
        for t in reversed(range(STEPS)):
            signal = np.maximum(signal, 0) * actives[t]
            expected[index, t], signal = kernel @ signal, recurrent @ signal
    close(kxai.GuidedBackprop(model).explain(x, target=0).relevance, expected, 1e-5)
    with pytest.raises(RuleError, match=r"'lstm/lstm_cell/(sigmoid|tanh)(.|\n)*other_activations"):
        kxai.GuidedBackprop(sequence_model(layers.LSTM(UNITS, name="lstm"), "float32")).plan()


# --- time ------------------------------------------------------------------------------------------------------------


def test_each_step_meets_the_inner_layer_with_its_mask():
    """Keras hands the inner layer, at each step, that step's mask."""
    x, mask = keras.Input((3, STEPS, FEATURES), dtype="float64"), keras.Input((3, STEPS), dtype="bool")
    inner = layers.LSTM(UNITS, dtype="float64")
    y = layers.TimeDistributed(inner, dtype="float64")(x, mask=mask)
    model = seeded(keras.Model([x, mask], layers.Dense(2, dtype="float64", name="head")(ops.reshape(y, (-1, 12)))))
    values = numbers(3, STEPS, FEATURES).astype("float64")
    masks = np.stack([MASK, MASK[::-1], np.roll(MASK, 1, axis=0)], axis=1)
    explanation = kxai.LRP(model, "epsilon").explain([values, masks], target=0)
    np.testing.assert_allclose(explanation.outputs, model([tf.constant(values), tf.constant(masks)]), atol=EXACT)
    cell = naive.LSTM(*(np.asarray(w, "float64") for w in inner.get_weights()))
    zeros = [np.zeros(UNITS)] * 2
    for index in range(len(values)):
        runs = [naive.run(cell, *pair) for pair in zip(values[index], [zeros] * 3, masks[index], strict=True)]
        _, r = head_relevance(model, np.array([outputs[-1] for outputs, _, _ in runs]), 0)
        for step, (outputs, _, memories) in enumerate(runs):
            last = np.concatenate([np.zeros_like(outputs[:-1]), r[step][None]])
            expected, _ = naive.relevance(cell, values[index, step], memories, last, zeros)
            close(explanation.relevance[0][index, step], expected, EXACT)


def test_masks_from_embeddings():
    """Padding tokens are skipped, and receive nothing."""
    net = [layers.Embedding(9, FEATURES, mask_zero=True), layers.Bidirectional(layers.GRU(UNITS)), layers.Dense(2)]
    model = seeded(keras.Sequential([keras.Input((STEPS,), dtype="int32"), *net]))
    ids = np.array([[3, 1, 4, 0, 0, 0], [1, 5, 8, 2, 6, 5]], "int32")
    explanation = kxai.LRP(model, "epsilon").explain(ids, target=0)
    np.testing.assert_allclose(explanation.outputs, model.predict(ids, verbose=0), atol=1e-6)
    assert not explanation.relevance[0, 3:].any()
    short = kxai.LRP(model, "epsilon").explain(ids[:1, :3].repeat(2, axis=1), target=0)
    assert short.relevance.all()


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_open_length(kind):
    layer = WEIGHTS[kind][0](UNITS, dtype="float64")
    model = sequence_model(layer, shape=(None, FEATURES))
    for length in (1, 3, STEPS):
        x = numbers(length, FEATURES).astype("float64")
        cell, states = cell_and_states(kind, layer)
        expected, _ = defined(model, cell, x, states, layer=layer)
        close(kxai.LRP(model, "epsilon").explain(x, target=0).relevance, expected, EXACT)


def concrete_graph(model, steps):
    """All operations of the compiled program, those of its loops' bodies among them."""
    analyzer = kxai.LRP(model, "epsilon")
    x = numbers(steps, FEATURES, samples=2)
    explanation = analyzer.explain(x, target=0)
    (program,) = analyzer._programs.values()
    function = program._function.get_concrete_function()
    library = function.graph.as_graph_def().library.function
    return len(function.graph.get_operations()) + sum(len(inner.node_def) for inner in library), explanation


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_long_sequences_make_no_larger_graph(layer):
    model = sequence_model(layer(UNITS), "float32", shape=(None, FEATURES))
    short, _ = concrete_graph(model, 20)
    long, explanation = concrete_graph(model, 2000)
    assert long == short
    assert np.isfinite(explanation.relevance).all()
    assert np.abs(explanation.relevance).max() > 0


def test_new_weights_and_batch_sizes_are_not_traced_again():
    model, x = sequence_model(layers.LSTM(UNITS), "float32"), numbers(STEPS, FEATURES)
    analyzer = kxai.LRP(model, "epsilon")
    first = analyzer.explain(x, target=0)
    np.testing.assert_allclose(analyzer.explain(x[:3], target=0).relevance, first.relevance[:3], atol=1e-6)
    seeded(model, seed=7)
    second = analyzer.explain(x, target=0)
    assert analyzer.traces == 1
    assert np.abs(second.relevance - first.relevance).max() > 1e-3
    np.testing.assert_allclose(second.relevance, kxai.LRP(model, "epsilon").explain(x, target=0).relevance, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_is_lost_without_biases(network):
    model = sequence_model(NETWORKS[network](), "float64")
    for weight in model.weights:
        if "bias" in weight.path:
            weight.assign(ops.zeros_like(weight))
    explanation = kxai.LRP(model, "zero").explain(numbers(STEPS, FEATURES).astype("float64"), target=0)
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-5)  # the cells are float32


def test_mixed_precision():
    layer = layers.LSTM(UNITS, dtype="mixed_float16", return_sequences=True)
    model = sequence_model(layer, "float32")
    twin = sequence_model(layers.LSTM(UNITS, return_sequences=True), "float32")
    twin.set_weights(model.get_weights())
    x = numbers(STEPS, FEATURES)
    got, expected = (kxai.LRP(m, "epsilon").explain(x, target=0) for m in (model, twin))
    assert got.relevance.dtype == np.float32
    np.testing.assert_allclose(got.relevance, expected.relevance, atol=2e-2 * np.abs(expected.relevance).max())


@pytest.mark.parametrize("masked", [False, True])
def test_compiled_by_xla_and_step_by_step(masked):
    model, x = sequence_model(layers.LSTM(UNITS), "float32", masked), numbers(STEPS, FEATURES)
    arrays = [x, MASK] if masked else x
    expected = kxai.LRP(model, "epsilon").explain(arrays, target=0)
    compiled = kxai.LRP(model, "epsilon", jit=True).explain(arrays, target=0)
    with backend.eagerly():
        stepwise = kxai.LRP(model, "epsilon").explain(arrays, target=0)
    for got in (compiled, stepwise):
        close(np.array(got.relevance[0] if masked else got.relevance),
              np.array(expected.relevance[0] if masked else expected.relevance), SINGLE)  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"vgg16_tutorial"}))  # it names the layers of one network
def test_every_preset(name):
    needed = {"low": -1.0, "high": 1.0} if name == "epsilon_gamma_box" else {}
    needed |= {"idx": 1} if name == "sequential_preset_b_flat_until_idx" else {}
    stack = [layers.Conv1D(4, 2, activation="relu"), layers.Bidirectional(layers.LSTM(UNITS)), layers.Dense(2)]
    model = seeded(keras.Sequential([keras.Input((STEPS, FEATURES)), *stack]))
    plan = kxai.plan(model, kxai.preset(name, **needed))
    assert len(plan.bodies) == 2


# --- what is known of the answer ----------------------------------------------------------------------------------


def trained(cell, features, outputs, x, y, loss):
    """Without biases, so that steps alone make the output."""
    keras.utils.set_random_seed(1)
    net = [cell(16, use_bias=False), layers.Dense(outputs, use_bias=False)]
    model = keras.Sequential([keras.Input((12, features)), *net])
    model.compile(keras.optimizers.Adam(5e-3), loss)
    model.fit(x, y, batch_size=64, epochs=30, verbose=0)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("cell", [layers.LSTM, layers.GRU])
def test_the_token_that_is_remembered(cell):
    """The class is the first of twelve tokens: its step has the most relevance."""
    ids = np.random.default_rng(0).integers(0, 4, (6500, 12))
    x, y = np.eye(4, dtype="float32")[ids], ids[:, 0]
    model = trained(cell, 4, 4, x[500:], y[500:], keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert (model.predict(x[:500], verbose=0).argmax(1) == y[:500]).mean() > 0.99
    relevance = kxai.LRP(model, "epsilon").explain(x[:500]).relevance.sum(-1)
    assert (relevance.argmax(1) == 0).mean() >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("cell", [layers.LSTM, layers.GRU])
def test_the_numbers_that_are_added(cell):
    """The output is the sum of two marked numbers among twelve: a marked step has the most relevance."""
    random = np.random.default_rng(0)
    values, marks = random.uniform(0, 1, (8500, 12)), np.zeros((8500, 12))
    np.put_along_axis(marks, random.uniform(size=(8500, 12)).argsort(1)[:, :2], 1, axis=1)
    x, y = np.stack([values, marks], -1).astype("float32"), (values * marks).sum(1, keepdims=True)
    model = trained(cell, 2, 1, x[500:], y[500:], "mse")
    assert model.evaluate(x[:500], y[:500], verbose=0) < 2e-3  # a constant answer is wrong by 0.17
    relevance = kxai.LRP(model, "epsilon").explain(x[:500]).relevance.sum(-1)
    found = np.take_along_axis(marks[:500], np.abs(relevance).argmax(1)[:, None], 1)
    assert found.mean() >= 0.95


# --- other layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("method", ["gradient", "lrp.zero"])
def test_convolutional_lstms_of_any_rank(rank, method):
    build, shape = getattr(layers, f"ConvLSTM{rank}D"), (3, *(5, 4, 3)[:rank], 2)
    layer = build(2, 2, strides=(2, 1, 1)[:rank], padding="same", use_bias=False, dropout=0.3, return_sequences=True)
    model, x = sequence_model(layer, "float32", shape=shape), numbers(*shape)
    model.get_layer("head").bias.assign([0.0, 0.0])
    explanation = kxai.explain(model, x, method, target=0)
    if method == "lrp.zero":
        np.testing.assert_allclose(explanation.residual, 0, atol=1e-4)
        return
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        score = model(tensor)[:, 0]
    close(explanation.relevance, tape.gradient(score, tensor).numpy(), 1e-5)


def test_deep_taylor_of_a_rectified_network():
    """Non-negative inputs, biases that are not positive: relevance is not negative and adds up."""
    model = sequence_model(layers.SimpleRNN(UNITS, activation="relu", use_bias=False), "float32")
    model.get_layer("head").bias.assign([0.0, 0.0])
    x = np.abs(numbers(STEPS, FEATURES))
    best = model.predict(x, verbose=0).argmax(axis=1)
    explanation = kxai.DeepTaylor(model, low=0.0).explain(x, target=best)
    assert explanation.relevance.min() >= 0
    assert explanation.score.max() > 0.1
    np.testing.assert_allclose(explanation.relevance.sum((1, 2)), np.maximum(explanation.score, 0), rtol=1e-3)


class Sliced(layers.Layer):
    """A cell that takes its weights apart before they meet the input."""

    state_size = UNITS

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1] + UNITS, 2 * UNITS), name="kernel")

    def call(self, x, states):
        joined = ops.concatenate([x, states[0]], axis=-1)
        gate = ops.sigmoid(ops.matmul(joined, self.kernel[:, :UNITS]))
        h = gate * ops.tanh(ops.matmul(joined, self.kernel[:, UNITS:]))
        return h, [h]


def test_cells_that_take_their_weights_apart():
    model, x = sequence_model(layers.RNN(Sliced(name="sliced")), "float32"), numbers(STEPS, FEATURES)
    model.get_layer("head").bias.assign([0.0, 0.0])
    analyzer = kxai.LRP(model, "zero")
    before = analyzer.explain(x, target=0)
    np.testing.assert_allclose(before.residual, 0, atol=1e-4)
    np.testing.assert_allclose(before.outputs, model.predict(x, verbose=0), atol=1e-6)
    seeded(model, seed=3)
    np.testing.assert_allclose(analyzer.explain(x, target=0).outputs, model.predict(x, verbose=0), atol=1e-6)
    (body,) = analyzer.plan().bodies.values()
    (product,) = [node for node in body.graph.nodes if node.kind is Kind.PRODUCT]
    assert body.rules[product] == rules.SignalTakesAll()
