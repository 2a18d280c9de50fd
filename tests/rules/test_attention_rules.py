"""The rules of attention against their definitions, one sum at a time."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai import rules
from kxai.errors import ArgumentError, RuleError
from kxai.graph.facts import Facts
from kxai.graph.trace import input_specs, trace
from kxai.testing.nodes import plan_of, sent, steps, tiny, values


def stab(z, epsilon=1e-9):
    return z + np.where(z < 0, -epsilon, epsilon)


def only_step(rule, name):
    model = tiny(name, "float64")
    inputs = values(model, -2, 2)
    *_, step = steps(rule, plan_of(rule, model), inputs)
    relevance = np.random.default_rng(3).normal(size=step.outputs[0].shape)
    return [np.asarray(x) for x in step.inputs], relevance, sent(rule, step, relevance)


def test_softmax():
    (x,), R, (received,) = only_step(rules.SoftmaxTaylor(), "Softmax")
    for sample in range(len(x)):
        s = np.exp(x[sample]) / np.exp(x[sample]).sum()
        for i in range(x.shape[1]):
            expected = x[sample, i] * (R[sample, i] - s[i] * R[sample].sum())
            np.testing.assert_allclose(received[sample, i], expected, rtol=1e-12)


def contributions(a, v):
    """c[b, j, i, p] of attention weights ``a`` and values ``v`` to the output (b, j, p)."""
    return np.einsum("bji,bip->bjip", a, v)


def test_bilinear():
    (a, v), R, (to_a, to_v) = only_step(rules.Bilinear(), "attention")
    c = contributions(a, v)
    shares = c * (R / stab(2 * c.sum(2)))[:, :, None]
    np.testing.assert_allclose(to_a, shares.sum(3), rtol=1e-9)
    np.testing.assert_allclose(to_v, shares.sum(1), rtol=1e-9)


def test_values_take_all():
    (a, v), R, (to_a, to_v) = only_step(rules.ValuesTakeAll(), "attention")
    c = contributions(a, v)
    assert to_a is None
    np.testing.assert_allclose(to_v, (c * (R / stab(c.sum(2)))[:, :, None]).sum(1), rtol=1e-9)


def test_stop():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Add()([layers.Activation("tanh", name="stopped")(x), x]))
    inputs = np.array([[1.0, -2.0, 3.0]], "float32")
    analyzer = kxai.LRP(model, kxai.preset("epsilon").but(("stopped", rules.Stop())))
    explanation = analyzer.explain(inputs, target=2, audit=True)
    np.testing.assert_allclose(explanation.relevance, [[0, 0, 3.0]], rtol=1e-5)
    np.testing.assert_allclose(explanation.absorbed["stopped"], np.tanh(3.0), rtol=1e-5)


@pytest.mark.parametrize("lowest", [-np.inf, -1e9])
def test_masked_scores_receive_nothing(lowest):
    x = keras.Input((4,), dtype="float64")
    mask = np.array([True, False, True, False])
    model = keras.Model(x, ops.softmax(ops.where(mask, x, lowest)) * 1.0)
    rule = rules.SoftmaxTaylor()
    (step,) = steps(rule, plan_of(rule, _Traced(model)), [np.array([[1.0, 2.0, -3.0, 4.0]])])
    (received,) = sent(rule, step, np.array([[1.0, 1.0, 2.0, 1.0]]))
    s = np.exp([1.0, -3.0]) / np.exp([1.0, -3.0]).sum()
    expected = np.array([1.0, -3.0]) * (np.array([1.0, 2.0]) - s * 3.0)
    # A masked entry's relevance of 1 is a contradiction that the rule does not spread.
    np.testing.assert_allclose(received[0, mask], expected, rtol=1e-12)
    np.testing.assert_array_equal(received[0, ~mask], 0.0)


class _Traced:
    def __init__(self, model):
        self.graph = trace(model, input_specs(model))


def node_of(function, *shapes):
    inputs = [layers.Input(shape) for shape in shapes]
    model = keras.Model(inputs, function(*inputs))
    graph = trace(model, input_specs(model))
    return graph.nodes[-1], Facts(graph)


def test_log_softmax_is_refused():
    node, facts = node_of(lambda x: ops.log_softmax(x), (4,))
    with pytest.raises(RuleError, match=r"SoftmaxTaylor is defined for the softmax; node 'log_softmax.*' is none"):
        rules.SoftmaxTaylor().check(node, facts)


def test_values_need_weights():
    node, facts = node_of(ops.matmul, (3, 4), (4, 2))
    with pytest.raises(RuleError, match=r"The product 'matmul.*' has no operand that is recognisable") as caught:
        rules.ValuesTakeAll().check(node, facts)
    assert "comes from a softmax" in str(caught.value)
    assert "kxai.rules.Bilinear()" in str(caught.value)
    rules.Bilinear().check(node, facts)


@pytest.mark.parametrize("rule", [rules.Bilinear, rules.ValuesTakeAll])
def test_epsilon_is_checked(rule):
    with pytest.raises(ArgumentError, match="epsilon is out of range"):
        rule(-1.0)


def test_what_does_not_receive_relevance_needs_no_rule():
    node, facts = node_of(lambda q, k, v: layers.Attention()([q, v, k]), (3, 2), (4, 2), (4, 3))
    assert rules.ValuesTakeAll().reaches(node, facts) == (False, True)
    assert rules.Stop().reaches(node, facts) == (False, False)
    assert rules.Bilinear().reaches(node, facts) == (True, True)


def test_a_tensor_times_itself():
    x = keras.Input((4, 3))
    model = keras.Model(x, layers.Flatten()(ops.einsum("bti,btj->bij", x, x)))
    inputs = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    explanation = kxai.LRP(model, "cp").explain(inputs, target=5)
    # x_ti x_tj with i = 1, j = 2: half to each factor.
    products = inputs[:, :, 1] * inputs[:, :, 2]
    expected = np.stack([np.zeros_like(products), products / 2, products / 2], axis=-1)
    np.testing.assert_allclose(explanation.relevance, expected, rtol=1e-4, atol=1e-6)


def test_only_attention_weights_are_constants_of_cp():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2)(layers.Dense(4, activation="softmax", name="inner")(x)))
    with pytest.raises(RuleError, match="Node 'inner/softmax'") as caught:
        kxai.plan(model, "lrp.cp")
    assert "does not weigh" in str(caught.value)
