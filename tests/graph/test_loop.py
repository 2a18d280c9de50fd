"""Loops: what a recurrent layer does at each step is a graph, and a plan of its own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import kxai
from kxai import Kind, rules
from kxai.errors import ArgumentError, ModelError, RuleError, UnknownNameError
from kxai.graph.trace import input_specs, trace
from kxai.testing.models import numbers, seeded


def net(*stack, shape=(6, 5)):
    return seeded(keras.Sequential([keras.Input(shape), *stack, layers.Dense(2, name="head")]))


def loops(model):
    return {node.path: node.loop for node in trace(model, input_specs(model)).nodes if node.loop is not None}


def test_one_step_of_an_lstm():
    (loop,) = loops(net(layers.LSTM(4, name="lstm"))).values()
    x, h, c = loop.body.inputs
    assert [edge.shape for edge in (x, h, c)] == [(None, 5), (None, 4), (None, 4)]
    (affine,) = [node for node in loop.body.nodes if node.kind is Kind.AFFINE]
    assert affine.path == "lstm/lstm_cell"
    assert affine.inputs[0].shape == (None, 9)
    assert all(node.path.startswith("lstm/lstm_cell") for node in loop.body.nodes)
    assert loop.body.outputs[0] is loop.body.outputs[1]
    assert loop.sources == (0,)


def test_the_body_computes_what_the_cell_computes():
    for cell in (layers.LSTMCell(4), layers.GRUCell(4), layers.GRUCell(4, reset_after=False, use_bias=False),
                 layers.SimpleRNNCell(4), layers.LSTMCell(4, recurrent_activation="hard_sigmoid")):  # fmt: skip
        (loop,) = loops(net(layers.RNN(cell))).values()
        x, states = numbers(5), [numbers(4, seed=2 + i) for i in range(len(loop.body.inputs) - 1)]
        values = dict(zip(loop.body.inputs, map(tf.constant, [x, *states]), strict=True))
        for node in loop.body.nodes:
            values.update(zip(node.outputs, node.run(*(values[edge] for edge in node.inputs)), strict=True))
        y, after = cell(x, [tf.constant(state) for state in states])
        for edge, expected in zip(loop.body.outputs, [y, *after], strict=True):
            np.testing.assert_allclose(values[edge], expected, atol=1e-6)


def test_order():
    x = keras.Input((6, 5))
    mask, start = keras.Input((6,), dtype="bool"), keras.Input((4,))
    y = layers.GRU(4, go_backwards=True, return_sequences=True)(x, mask=mask, initial_state=start)
    (loop,) = loops(keras.Model([x, mask, start], y)).values()
    assert (loop.order.go_backwards, loop.order.return_sequences, loop.order.zero_masked) == (True, True, False)
    assert loop.sources == (0, 2)
    tensors = [tf.ones((2, 6, 5)), tf.ones((2, 6), "bool"), tf.zeros((2, 4))]
    assert all(got is given for got, given in zip(loop.arguments(*tensors), tensors, strict=True))


def test_both_directions_are_loops_of_their_own():
    assert set(loops(net(layers.Bidirectional(layers.LSTM(4, name="lstm"), name="both")))) == {
        "both/forward_lstm", "both/backward_lstm",
    }  # fmt: skip


def test_gates_are_known():
    for layer in (layers.LSTM(4), layers.GRU(4), layers.GRU(4, reset_after=False)):
        plan = kxai.plan(net(layer), "lrp.epsilon")
        (body,) = plan.bodies.values()
        products = [node for node in body.graph.nodes if node.kind is Kind.PRODUCT]
        assert len(products) == 3
        assert all(body.rules[node] == rules.SignalTakesAll() for node in products)


def test_rows_list_the_steps_after_the_layer():
    plan = kxai.plan(net(layers.LSTM(4, name="lstm")), "lrp.epsilon")
    paths = [path for path, _, _ in plan.rows]
    assert paths[0] == "lstm"
    assert plan.rows[0][1:] == ("recurrent", "step by step")
    assert "lstm/lstm_cell" in paths[1:-1]
    assert paths[-1] == "head"


def test_derivatives_alone_leave_the_loop_closed():
    for composite in ("gradient", kxai.preset("epsilon").but((Kind.RECURRENT, rules.Gradient()))):
        plan = kxai.plan(net(layers.LSTM(4, name="lstm")), composite)
        assert not plan.bodies
        assert ("lstm", "recurrent", "Gradient()") in plan.rows


@pytest.mark.parametrize("match", [Kind.RECURRENT, layers.LSTM, "lstm", "ls*"])
def test_a_row_may_close_a_loop(match):
    assert not kxai.plan(net(layers.LSTM(4, name="lstm")), kxai.preset("epsilon").but((match, rules.Gradient()))).bodies


@pytest.mark.parametrize("match", [layers.LSTMCell, "lstm/lstm_cell", "*/lstm_cell"])
def test_a_row_may_name_the_nodes_of_a_step(match):
    plan = kxai.plan(net(layers.LSTM(4, name="lstm")), kxai.preset("epsilon").but((match, rules.Flat())))
    assert ("lstm/lstm_cell", "affine", repr(rules.Flat())) in plan.rows
    assert ("head", "affine", repr(rules.Epsilon())) in plan.rows


def test_rules_that_are_not_for_loops_are_refused():
    with pytest.raises(RuleError, match="does not apply to node 'lstm'"):
        kxai.plan(net(layers.LSTM(4, name="lstm")), kxai.preset("epsilon").but(("lstm", rules.Flat())))


def test_rows_without_effect_are_mistakes():
    with pytest.raises(UnknownNameError, match="lstm/gru_cell"):
        kxai.plan(net(layers.LSTM(4, name="lstm")), kxai.preset("epsilon").but(("lstm/gru_cell", rules.Flat())))


def test_relevance_inside_a_loop_is_not_kept():
    model, x = net(layers.LSTM(4, name="lstm")), numbers(6, 5)
    explanation = kxai.LRP(model, "epsilon").explain(x, layers="lstm")
    assert explanation.layers["lstm"].shape == (4, 4)
    with pytest.raises(ArgumentError, match=r"within the loop of 'lstm'(.|\n)*layers='lstm'"):
        kxai.LRP(model, "epsilon").explain(x, layers="lstm/lstm_cell")


@pytest.mark.parametrize("method", ["deep_taylor", "lrp.epsilon_plus_flat"])
def test_rules_of_the_first_layer_stop_at_loops(method):
    with pytest.raises(RuleError, match=r"meets first(.|\n)*'lstm/lstm_cell' is in the loop of 'lstm'") as caught:
        kxai.plan(net(layers.LSTM(4, name="lstm")), method)
    assert 'composite.but(("lstm/lstm_cell", kxai.rules.' in str(caught.value)
    assert kxai.plan(net(layers.Conv1D(3, 2), layers.LSTM(4)), method).bodies
    cured = kxai.preset("epsilon_plus_flat").but(("lstm/lstm_cell", rules.Flat()))
    assert kxai.plan(net(layers.LSTM(4, name="lstm")), cured).bodies


class Raw(layers.Layer):
    """A cell out of sight."""

    state_size = 5

    def call(self, x, states):
        y = tf.map_fn(tf.sin, x) + tf.tanh(states[0])
        return y, [y]


def test_cells_out_of_sight_leave_the_gradient():
    model, x = net(layers.RNN(Raw(name="raw"), name="rnn")), numbers(6, 5)
    with pytest.raises(RuleError, match=r"Node 'rnn/raw' .*cannot be opened"):
        kxai.plan(model, "lrp.epsilon")
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        score = model(tensor)[:, 0]
    np.testing.assert_allclose(kxai.Gradient(model).explain(x, 0).relevance, tape.gradient(score, tensor), atol=1e-6)


class Embedded(layers.Layer):
    """A cell that looks its input up."""

    state_size = 3

    def build(self, shape):
        self.table = layers.Embedding(7, 3)
        self.table.build(shape)

    def call(self, x, states):
        y = self.table(ops.cast(x[:, 0], "int32")) + states[0]
        return y, [y]


def test_look_ups_inside_loops_are_refused():
    with pytest.raises(RuleError, match=r"looks up token ids at each step(.|\n)*embed the whole sequence first"):
        kxai.plan(net(layers.RNN(Embedded(), name="rnn")), "lrp.epsilon")


def test_loops_of_ones_own_are_not_opened():
    class Own(layers.SimpleRNN):
        def inner_loop(self, sequences, initial_state, mask, training=False):
            last, outputs, states = super().inner_loop(sequences, initial_state, mask, training)
            return 2 * last, outputs, states

    with pytest.raises(RuleError, match="Own has a loop of its own"):
        kxai.plan(net(Own(4)), "lrp.epsilon")
    assert kxai.plan(net(Own(4)), "gradient").rules


def test_masks_that_keras_applies_in_the_wrong_order():
    x, mask = keras.Input((6, 5)), keras.Input((6,), dtype="bool")
    layer = layers.Bidirectional(layers.LSTM(4, return_sequences=True, unroll=True), name="both")
    model = keras.Model([x, mask], layer(x, mask=mask))
    with pytest.raises(RuleError, match=r"both/backward_lstm(.|\n)*mask to the outputs in the wrong order"):
        kxai.plan(model, "lrp.epsilon")


class MonteCarlo(layers.Layer):
    """Keeps dropout at inference."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(x, training=True)


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_dropout_at_inference_is_refused(layer):
    model = net(MonteCarlo(layer(4, dropout=0.5)))
    with pytest.raises(ModelError, match="draws random numbers for its dropout"):
        trace(model, input_specs(model))
    assert kxai.plan(net(MonteCarlo(layer(4))), "lrp.epsilon").bodies
