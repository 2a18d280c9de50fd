"""Sums, maxima and products."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai import Kind, rules
from kxai.errors import ArgumentError, RuleError
from tests import naive


def joined(join: Any, shape: tuple[int, ...], count: int = 2) -> Any:
    """A model of several inputs and nothing but ``join``."""
    inputs = [keras.Input(shape, dtype="float64", name=f"x{i}") for i in range(count)]
    return keras.Model(inputs, join(inputs))


def explained(model: Any, x: Any, weights: Any, *rows: Any) -> Any:
    composite = kxai.preset("epsilon")
    return kxai.LRP(model, composite.but(*rows) if rows else composite).explain(x, weights).relevance


def sent(model: Any, values: list[float], R: float, *rows: Any) -> list[float]:
    """What one number R becomes at scalar operands; R = 0 at an output of 0."""
    x = [np.array([[value]]) for value in values]
    output = float(np.asarray(model(x)).item())
    found = explained(model, x, np.array([R / output if output else 1.0]), *rows)
    return [float(r.item()) for r in found]


# The stabilizer of 1e-6 moves these numbers by 1e-6 relative to the sum.
NUMBERS = [
    ("add", layers.Add(), [3.0, -1.0], 4.0, [6.0, -2.0]),
    ("add 3", layers.Add(), [3.0, -1.0, 2.0], 8.0, [6.0, -2.0, 4.0]),
    ("subtract", layers.Subtract(), [3.0, 1.0], 4.0, [6.0, -2.0]),
    ("average", layers.Average(), [1.0, 3.0], 4.0, [1.0, 3.0]),
    ("average 3", layers.Average(), [1.0, 3.0, -2.0], 4.0, [2.0, 6.0, -4.0]),
    ("+", lambda v: v[0] + v[1], [3.0, -1.0], 4.0, [6.0, -2.0]),
    ("-", lambda v: v[0] - v[1], [3.0, 1.0], 4.0, [6.0, -2.0]),
    ("sum of a stack", lambda v: ops.sum(ops.stack(v, 1), axis=1), [3.0, -1.0], 4.0, [6.0, -2.0]),
    ("mean of a stack", lambda v: ops.mean(ops.stack(v, 1), axis=1), [3.0, -1.0], 4.0, [6.0, -2.0]),
    ("add zeros", layers.Add(), [0.0, 0.0], 4.0, [0.0, 0.0]),
    ("maximum", layers.Maximum(), [1.0, 3.0], 4.0, [0.0, 4.0]),
    ("maximum 3", layers.Maximum(), [5.0, 3.0, 4.0], 4.0, [4.0, 0.0, 0.0]),
    ("maximum, tie", layers.Maximum(), [3.0, 3.0], 4.0, [2.0, 2.0]),
    ("maximum, tie of 3", layers.Maximum(), [3.0, 1.0, 3.0], 4.0, [2.0, 0.0, 2.0]),
    ("minimum", layers.Minimum(), [1.0, 3.0], 4.0, [4.0, 0.0]),
    ("minimum, tie", layers.Minimum(), [-3.0, -3.0], 4.0, [2.0, 2.0]),
    ("ops.maximum", lambda v: ops.maximum(*v), [1.0, 3.0], 4.0, [0.0, 4.0]),
    ("multiply", layers.Multiply(), [2.0, 3.0], 4.0, [2.0, 2.0]),
    ("multiply 3", layers.Multiply(), [2.0, 3.0, -1.0], 6.0, [2.0, 2.0, 2.0]),
    ("*", lambda v: v[0] * v[1], [2.0, -3.0], 4.0, [2.0, 2.0]),
    ("quotient", lambda v: v[0] / v[1], [2.0, 4.0], 3.0, [3.0, 0.0]),
    ("gate", lambda v: layers.Multiply()([v[0], ops.sigmoid(v[1])]), [2.0, 0.5], 4.0, [4.0, 0.0]),
    ("gate first", lambda v: ops.sigmoid(v[0]) * v[1], [0.5, 2.0], 4.0, [0.0, 4.0]),
    ("two gates", lambda v: ops.sigmoid(v[0]) * ops.sigmoid(v[1]), [0.5, 2.0], 4.0, [2.0, 2.0]),
]


@pytest.mark.parametrize(
    ("join", "values", "R", "expected"), [row[1:] for row in NUMBERS], ids=[row[0] for row in NUMBERS]
)
def test_numbers(join, values, R, expected):
    found = sent(joined(join, (1,), len(values)), values, R)
    assert found == pytest.approx(expected, rel=3e-6, abs=1e-12)


def test_the_square_of_a_tensor_is_no_product_of_two():
    model = keras.Sequential([keras.Input((1,)), layers.Lambda(lambda v: v * v)])
    assert explained(model, np.array([[3.0]]), np.array([1.0])) == pytest.approx(np.array([[9.0]]))


def test_a_constant_operand_receives_nothing():
    model = keras.Sequential([keras.Input((2,)), layers.Lambda(lambda v: v * np.array([2.0, -3.0], "float32") + 1.0)])
    x = np.array([[1.0, 2.0]])
    # Outputs 3 and -5; a scaling passes relevance.
    np.testing.assert_allclose(explained(model, x, np.array([1.0, 1.0])), [[3.0, -5.0]], rtol=1e-6)


@pytest.mark.parametrize("name", ["Add", "Subtract", "Average", "Maximum", "Minimum", "Multiply"])
def test_tensors_of_random_values(name):
    model = joined(getattr(layers, name)(dtype="float64"), (3, 2))
    rng = np.random.default_rng(0)
    x = [np.round(rng.normal(size=(4, 3, 2)), 1) for _ in range(2)]  # rounded: with ties
    weights = rng.normal(size=(4, 3, 2)).astype("float32")
    R = weights * np.asarray(model(x))
    expected = {
        "Add": lambda: naive.proportional(x, R),
        "Subtract": lambda: naive.proportional([x[0], -x[1]], R),
        "Average": lambda: naive.proportional([x[0] / 2, x[1] / 2], R),
        "Maximum": lambda: naive.winner_takes_all(x, R),
        "Minimum": lambda: naive.winner_takes_all(x, R, np.minimum),
        "Multiply": lambda: [R / 2, R / 2],
    }[name]()
    for found, wanted in zip(explained(model, x, weights), expected, strict=True):
        assert naive.distance(found, wanted) <= 1e-9


@pytest.mark.parametrize("rule", [rules.Proportional(0.5), rules.Epsilon(0.5)])
def test_the_stabilizer_of_sums(rule):
    found = sent(joined(layers.Add(), (1,)), [3.0, -1.0], 4.0, (Kind.SUM, rule))
    assert found == pytest.approx([4.8, -1.6], rel=1e-6)
    relative = rules.Proportional(0.25, relative="rms")
    found = sent(joined(layers.Add(), (1,)), [3.0, -1.0], 4.0, (Kind.SUM, relative))
    assert found == pytest.approx([4.8, -1.6], rel=1e-6)  # the rms of the sum is 2


# --- windows ---------------------------------------------------------------------------------------------------------


def test_average_pooling_numbers():
    model = keras.Sequential([keras.Input((2, 1)), layers.AveragePooling1D(2)])
    found = explained(model, np.array([[[1.0], [3.0]]]), np.array([[2.0]]))
    np.testing.assert_allclose(found, [[[1.0], [3.0]]], rtol=1e-6)
    zeros = explained(model, np.zeros((1, 2, 1)), np.array([[2.0]]))
    assert (zeros == 0).all()  # a window of zeros absorbs what arrives


# Keras layer, (size, strides, padding), and the input's shape.
WINDOWS = {
    "1d": (1, (2, None, "valid"), (6, 2)),
    "1d overlapping": (1, (3, 1, "same"), (6, 2)),
    "2d": (2, (2, None, "valid"), (4, 5, 2)),
    "2d same": (2, (3, 2, "same"), (5, 4, 2)),
    "2d overlapping": (2, ((2, 3), 1, "valid"), (4, 5, 1)),
    "3d": (3, (2, 1, "same"), (3, 2, 3, 2)),
}


def tolerance(name: str) -> float:
    """float64 but for volumes; windows whose sum nearly cancels amplify the rounding."""
    return 1e-4 if name == "3d" else 1e-9


def pooling(kind: str, name: str) -> tuple[Any, np.ndarray, np.ndarray, dict[str, Any]]:
    """(model, one input of distinct values, its random weights, the window)."""
    rank, (size, strides, padding), shape = WINDOWS[name]
    dtype = "float32" if rank == 3 else "float64"  # TensorFlow pools volumes in float32 only
    layer = getattr(layers, f"{kind}Pooling{rank}D")(size, strides, padding, dtype=dtype)
    model = keras.Sequential([keras.Input(shape, dtype=dtype), layer])
    rng = np.random.default_rng(0)
    x = rng.permutation(np.prod(shape)).reshape(shape) - 8.0
    weights = rng.normal(size=model.output_shape[1:]).astype("float32")
    return model, x, weights, {"size": size, "strides": strides, "padding": padding}


@pytest.mark.parametrize("name", WINDOWS)
def test_average_pooling_shares_in_proportion(name):
    model, x, weights, window = pooling("Average", name)
    matrix = naive.matrix(partial(naive.average_pool, **window), x.shape)
    output = x.ravel() @ matrix
    np.testing.assert_allclose(np.asarray(model(x[None])).ravel(), output, rtol=1e-6, atol=1e-6)
    expected = naive.proportional_linear(x.ravel(), matrix, weights.ravel() * output)
    assert naive.distance(explained(model, x[None], weights)[0], expected.reshape(x.shape)) <= tolerance(name)


@pytest.mark.parametrize("name", WINDOWS)
def test_max_pooling_gives_all_to_the_winner(name):
    model, x, weights, window = pooling("Max", name)
    R = weights * np.asarray(model(x[None]))[0]
    assert naive.distance(explained(model, x[None], weights)[0], naive.winner_of_windows(x, R, **window)) <= 1e-6


@pytest.mark.parametrize("name", WINDOWS)
def test_max_pooling_can_share_in_proportion(name):
    model, x, weights, window = pooling("Max", name)
    R = (weights * np.asarray(model(x[None]))[0]).ravel()
    matrix = naive.matrix(partial(naive.average_pool, **window), x.shape)
    expected = naive.proportional_linear(x.ravel(), matrix, R).reshape(x.shape)
    found = explained(model, x[None], weights, (Kind.MAX, rules.Proportional()))
    assert naive.distance(found[0], expected) <= tolerance(name)


def test_one_winner_of_a_tie():
    model = keras.Sequential([keras.Input((2, 2, 1)), layers.MaxPooling2D(2)])
    found = explained(model, np.full((1, 2, 2, 1), 3.0), np.ones((1, 1, 1)))
    assert sorted(found.ravel()) == [0.0, 0.0, 0.0, 3.0]


GLOBAL = {
    "average": (layers.GlobalAveragePooling2D, lambda v: v.mean(axis=(1, 2))),
    "average kept": (partial(layers.GlobalAveragePooling2D, keepdims=True), lambda v: v.mean(axis=(1, 2))),
    "mean": (lambda **_: layers.Lambda(lambda v: ops.mean(v, axis=(1, 2))), lambda v: v.mean(axis=(1, 2))),
    "sum": (lambda **_: layers.Lambda(lambda v: ops.sum(v, axis=2)), lambda v: v.sum(axis=2)),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_global_sums_share_in_proportion(name):
    build, plain = GLOBAL[name]
    model = keras.Sequential([keras.Input((3, 4, 2), dtype="float64"), build(dtype="float64")])
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(3, 4, 2)), rng.normal(size=model.output_shape[1:]).astype("float32")
    matrix = naive.matrix(plain, x.shape)
    expected = naive.proportional_linear(x.ravel(), matrix, weights.ravel() * (x.ravel() @ matrix)).reshape(x.shape)
    tolerance = 1e-9 if "average" in name else 1e-5  # a Lambda computes in float32
    assert naive.distance(explained(model, x[None], weights)[0], expected) <= tolerance


@pytest.mark.parametrize("rule", [rules.WinnerTakesAll(), rules.Proportional()])
def test_global_max_pooling(rule):
    model = keras.Sequential([keras.Input((3, 1)), layers.GlobalMaxPooling1D()])
    found = explained(model, np.array([[[1.0], [3.0], [2.0]]]), np.array([2.0]), (Kind.MAX, rule))
    wanted = [0.0, 6.0, 0.0] if isinstance(rule, rules.WinnerTakesAll) else [1.0, 3.0, 2.0]
    np.testing.assert_allclose(found.ravel(), wanted, rtol=1e-6)


# --- gates -----------------------------------------------------------------------------------------------------------


def test_squeeze_and_excite_gives_all_to_the_signal():
    """The gate is broadcast over space and comes from a sigmoid; nothing flows through it."""
    inputs = keras.Input((3, 3, 2))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(inputs)
    gate = layers.Dense(2, activation="sigmoid")(gate)
    model = keras.Model(inputs, layers.Multiply()([inputs, gate]))
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(2, 3, 3, 2)).astype("float32"), rng.normal(size=(3, 3, 2)).astype("float32")
    np.testing.assert_allclose(explained(model, x, weights), weights * np.asarray(model(x)), rtol=1e-6, atol=1e-7)


def test_a_broadcast_operand_is_the_gate():
    inputs = [keras.Input((3, 2)), keras.Input((1, 2))]
    model = keras.Model(inputs, layers.Multiply()(inputs))
    x = [np.ones((1, 3, 2)), np.full((1, 1, 2), 2.0)]
    signal, gate = explained(model, x, np.ones((3, 2)))
    assert (signal == 2).all()
    assert (gate == 0).all()


def test_uniform_on_request_sums_over_broadcast_axes():
    inputs = [keras.Input((3, 2)), keras.Input((1, 2))]
    model = keras.Model(inputs, layers.Multiply()(inputs))
    x = [np.ones((1, 3, 2)), np.full((1, 1, 2), 2.0)]
    signal, gate = explained(model, x, np.ones((3, 2)), (Kind.PRODUCT, rules.Uniform()))
    assert (signal == 1).all()
    assert (gate == 3).all()


def test_a_broadcast_summand_receives_the_sum():
    inputs = [keras.Input((3, 2)), keras.Input((1, 2))]
    model = keras.Model(inputs, layers.Add()(inputs))
    x = [np.ones((1, 3, 2)), np.full((1, 1, 2), 2.0)]
    one, other = explained(model, x, np.ones((3, 2)))
    np.testing.assert_allclose(one, np.ones((1, 3, 2)), rtol=1e-6)
    np.testing.assert_allclose(other, np.full((1, 1, 2), 6.0), rtol=1e-6)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_signal_takes_all_needs_a_gate():
    with pytest.raises(RuleError, match=r"'multiply.*' has no operand that is recognisable as a gate"):
        sent(joined(layers.Multiply(), (1,)), [2.0, 3.0], 4.0, (Kind.PRODUCT, rules.SignalTakesAll()))


def test_proportional_needs_windows():
    with pytest.raises(RuleError, match="no windows to average over"):
        sent(joined(layers.Maximum(), (1,)), [2.0, 3.0], 4.0, (Kind.MAX, rules.Proportional()))


@pytest.mark.parametrize(
    ("options", "message"), [({"epsilon": -1.0}, "epsilon is out of range"), ({"relative": "max"}, "'rms' or None")]
)
def test_wrong_hyperparameters_of_sums(options, message):
    with pytest.raises(ArgumentError, match=message):
        rules.Proportional(**options)


@pytest.mark.parametrize("rule", [rules.WinnerTakesAll(), rules.SignalTakesAll(), rules.Uniform(), rules.Pass()])
def test_rules_refuse_other_kinds(rule):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, name="top")])
    with pytest.raises(RuleError, match=r"does not apply to node 'top'.\n  Expected: .*\n  Received: affine"):
        kxai.plan(model, kxai.preset("epsilon").but((Kind.AFFINE, rule)))


def test_a_tensor_used_twice_receives_the_sum():
    inputs = keras.Input((2,), dtype="float64")
    branches = [layers.Dense(1, use_bias=False, dtype="float64")(inputs) for _ in range(2)]
    model = keras.Model(inputs, layers.Concatenate(dtype="float64")(branches))
    model.set_weights([np.array([[1.0], [2.0]]), np.array([[3.0], [-1.0]])])
    found = kxai.LRP(model, "zero").explain(np.array([[1.0, 1.0]]), np.array([1.0, 10.0])).relevance
    np.testing.assert_allclose(found, [[1 + 30, 2 - 10]], rtol=1e-12)
