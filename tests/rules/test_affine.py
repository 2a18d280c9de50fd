"""Every rule for affine layers against its slow float64 definition."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kxai
from kxai import Kind, backend, rules
from kxai.composites import first
from kxai.errors import ArgumentError, InputError
from tests import naive

# In float64 only the order of the sums differs (1e-16 each); denominators that nearly cancel amplify that by up to 1e4,
# and 1e-9 still tells every wrong formula. float32 rounds at 6e-8, amplified in the same way.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
BATCH = 2


@dataclass(frozen=True, eq=False)
class Case:
    """A layer and its plain counterpart.

    Attributes:
        name: for the test's id.
        layer: dtype -> Keras layer.
        shape: of one input.
        stages: the layer as linear maps (x, kernel) -> z in order, one per kernel; the last one has the bias.
    """

    name: str
    layer: Callable[..., Any]
    shape: tuple[int, ...]
    stages: tuple[Callable[..., Any], ...]

    def maps(self, weights: list[np.ndarray]) -> list[naive.Affine]:
        kernels, bias = weights[: len(self.stages)], weights[len(self.stages) :]
        shape, found = self.shape, []
        for stage, kernel in zip(self.stages, kernels, strict=True):
            last = len(found) == len(self.stages) - 1
            found.append(naive.Affine(stage, (kernel,), shape, bias[0] if last and bias else None))
            shape = stage(np.zeros((1, *shape)), kernel).shape[1:]
        return found


def one(name: str, layer: Any, shape: tuple[int, ...], linear: Any, *arguments: Any, **window: Any) -> Case:
    """A layer that is one linear map; ``window`` holds strides, padding, dilation and groups."""
    named = {"dilation_rate" if key == "dilation" else key: value for key, value in window.items()}
    return Case(name, partial(layer, *arguments, **named), shape, (partial(linear, **window),))


def two(name: str, layer: Any, shape: tuple[int, ...], *arguments: Any, multiplier: int, **window: Any) -> Case:
    """A separable convolution."""
    named = {"dilation_rate" if key == "dilation" else key: value for key, value in window.items()}
    build = partial(layer, *arguments, depth_multiplier=multiplier, **named)
    return Case(name, build, shape, (partial(naive.depthwise, **window), naive.conv))


HALVED, THIRDS = {"padding": "same", "strides": 2}, {"padding": "same", "strides": 3}
CASES = [
    one("dense", layers.Dense, (5,), naive.dense, 4),
    one("dense on every step", layers.Dense, (3, 4), naive.dense, 2),
    one("einsum dense", partial(layers.EinsumDense, "btc,cd->btd", (3, 2), bias_axes="d"), (3, 4), naive.dense),
    one("dense without bias", partial(layers.Dense, use_bias=False), (5,), naive.dense, 4),
    one("conv1d", layers.Conv1D, (7, 2), naive.conv, 3, 3),
    one("conv1d same, strides 2", layers.Conv1D, (8, 2), naive.conv, 3, 3, **HALVED),
    one("conv1d causal, dilated", layers.Conv1D, (8, 2), naive.conv, 3, 3, padding="causal", dilation=2),
    one("conv2d", layers.Conv2D, (5, 4, 2), naive.conv, 3, (3, 2)),
    one("conv2d strides 2", layers.Conv2D, (6, 5, 2), naive.conv, 3, 3, strides=2),
    one("conv2d same, strides 2", layers.Conv2D, (6, 5, 2), naive.conv, 3, (3, 2), **HALVED),
    one("conv2d same, dilated", layers.Conv2D, (6, 5, 2), naive.conv, 2, 3, padding="same", dilation=2),
    one("conv2d dilated", layers.Conv2D, (7, 6, 1), naive.conv, 2, 3, dilation=2),
    one("conv2d groups", layers.Conv2D, (4, 4, 4), naive.conv, 6, 3, padding="same", groups=2),
    one("conv2d groups of one", layers.Conv2D, (4, 4, 4), naive.conv, 8, 3, padding="same", groups=4),
    one("conv2d groups of one, odd strides", layers.Conv2D, (4, 4, 2), naive.conv, 4, 2, strides=(2, 1), groups=2),
    one("conv3d", layers.Conv3D, (3, 4, 3, 2), naive.conv, 2, 2),
    one("conv3d same, strides 2", layers.Conv3D, (4, 3, 4, 1), naive.conv, 2, 3, **HALVED),
    one("depthwise1d", partial(layers.DepthwiseConv1D, depth_multiplier=2), (7, 2), naive.depthwise, 3),
    one("depthwise2d", partial(layers.DepthwiseConv2D, depth_multiplier=2), (5, 4, 2), naive.depthwise, (3, 2)),
    one("depthwise2d same, strides 2", layers.DepthwiseConv2D, (6, 5, 3), naive.depthwise, 3, **HALVED),
    two("separable1d same", layers.SeparableConv1D, (7, 2), 3, 3, multiplier=2, padding="same"),
    two("separable2d", layers.SeparableConv2D, (5, 4, 2), 3, 3, multiplier=2),
    two("separable2d same, strides 2", layers.SeparableConv2D, (6, 6, 2), 3, 3, multiplier=1, **HALVED),
    one("conv1d transposed", layers.Conv1DTranspose, (4, 2), naive.conv_transpose, 3, 3, strides=2),
    one("conv1d transposed, same", layers.Conv1DTranspose, (4, 2), naive.conv_transpose, 3, 3, **HALVED),
    one("conv2d transposed", layers.Conv2DTranspose, (3, 2, 2), naive.conv_transpose, 3, (3, 2), strides=2),
    one("conv2d transposed, same", layers.Conv2DTranspose, (3, 4, 2), naive.conv_transpose, 2, 3, **HALVED),
    one("conv2d transposed, gaps", layers.Conv2DTranspose, (2, 3, 2), naive.conv_transpose, 2, 2, **THIRDS),
    one("conv3d transposed", layers.Conv3DTranspose, (2, 2, 3, 1), naive.conv_transpose, 2, 2, strides=2),
    one("conv3d transposed, same", layers.Conv3DTranspose, (2, 2, 3, 1), naive.conv_transpose, 2, 3, **HALVED),
]  # fmt: skip

# Rule, definition, and the hyperparameters that both take by the same names.
RULES: list[tuple[Any, Any, dict[str, Any]]] = [
    (rules.Epsilon, naive.epsilon, {"epsilon": 0.0}),
    (rules.Epsilon, naive.epsilon, {}),
    (rules.Epsilon, naive.epsilon, {"epsilon": 0.3}),
    (rules.Epsilon, naive.epsilon, {"epsilon": 0.3, "bias": False}),
    (rules.Epsilon, naive.epsilon, {"epsilon": 0.25, "relative": "rms"}),
    (rules.Epsilon, naive.epsilon, {"epsilon": 0.3, "clip": True}),
    (rules.Epsilon, naive.epsilon, {"epsilon": 0.5, "relative": "rms", "clip": True, "bias": False}),
    (rules.Gamma, naive.gamma, {}),
    (rules.Gamma, naive.gamma, {"gamma": 3.0, "epsilon": 0.1, "bias": False}),
    (rules.GammaOriginal, naive.gamma_original, {"epsilon": 0.1}),
    (rules.GammaOriginal, naive.gamma_original, {"gamma": 3.0, "epsilon": 0.1, "bias": False}),
    (rules.AlphaBeta, naive.alpha_beta, {}),
    (rules.AlphaBeta, naive.alpha_beta, {"alpha": 1.5, "beta": 0.5, "epsilon": 0.1, "bias": False}),
    (rules.AlphaBeta, naive.alpha_beta, {"alpha": 1.0, "beta": 0.0}),
    (rules.ZPlus, naive.z_plus, {}),
    (rules.ZPlus, naive.z_plus, {"epsilon": 0.1, "bias": True}),
    (rules.WSquare, naive.w_square, {}),
    (rules.WSquare, naive.w_square, {"epsilon": 0.1}),
    (rules.Flat, naive.flat, {}),
    (rules.Flat, naive.flat, {"epsilon": 0.1}),
    (rules.ZBox, naive.z_box, {"low": -4.0, "high": 5.0}),
    (rules.ZBox, naive.z_box, {"low": -4.0, "high": 5.0, "epsilon": 0.1}),
]


def named(row: tuple[Any, Any, dict[str, Any]]) -> str:
    return f"{row[0].__name__}({', '.join(f'{key}={value}' for key, value in row[2].items())})"


def built(*parts: Any, shape: tuple[int, ...], dtype: str) -> tuple[Any, np.ndarray, np.random.Generator]:
    """A sequential model with random signed weights, a random signed batch, and the generator."""
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *parts])
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    # Clipped, to lie in the boxes above.
    return model, np.clip(rng.normal(size=(BATCH, *shape)), -3, 3).astype(dtype), rng


def explained(model: Any, composite: kxai.Composite, x: np.ndarray, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    """(relevance, the target's random weights): the relevance starts as weights times outputs.

    float32 runs compiled, as users run it; float64 step by step, which computes the same and saves the compilation
    (TensorFlow has no gradient of grouped convolutions on CPUs that is not compiled).
    """
    weights = rng.normal(size=(len(x), *model.output_shape[1:])).astype("float32")
    stepwise = x.dtype == np.float64 and getattr(model.layers[0], "groups", 1) == 1
    with backend.eagerly() if stepwise else contextlib.nullcontext():
        return kxai.LRP(model, composite).explain(x, weights).relevance, weights


def chain(x: np.ndarray, maps: list[naive.Affine], weights: np.ndarray, rule: Any) -> np.ndarray:
    """One sample through a chain of affine maps and back."""
    values = [np.asarray(x, np.float64).ravel()]
    for m in maps:
        values.append(values[-1] @ m.W + m.b)
    R = weights.ravel() * values[-1]
    for value, m in zip(values[-2::-1], maps[::-1], strict=True):
        R = rule(value, m, R)
    return R.reshape(x.shape)


# Compiling every case takes minutes; test_known_signs_change_nothing runs rules in float32, too.
@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("row", RULES, ids=named)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule_equals_its_definition(case, row, dtype):
    rule, definition, hyperparameters = row
    model, x, rng = built(case.layer(dtype=dtype), shape=case.shape, dtype=dtype)
    composite = kxai.Composite("one", ((Kind.AFFINE, rule(**hyperparameters)),))
    found, weights = explained(model, composite, x, rng)
    maps = case.maps(model.get_weights())
    expected = [chain(x[s], maps, weights[s], partial(definition, **hyperparameters)) for s in range(BATCH)]
    assert found.dtype == dtype
    assert naive.distance(found, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_definitions_compute_the_layers(case):
    model, x, _ = built(case.layer(dtype="float64"), shape=case.shape, dtype="float64")
    z = x.reshape(BATCH, -1)
    for m in case.maps(model.get_weights()):
        z = z @ m.W + m.b
    assert naive.distance(z, np.asarray(model(x)).reshape(BATCH, -1)) <= 1e-13


# --- where signs are known, halves of the computation are left out: the result must not change ----------------------


def relu_nets(dtype: str) -> dict[str, tuple[tuple[int, ...], list[Any]]]:
    """Two affine layers with a ReLU between them (and one behind), in different guises; the input shape first."""
    kwargs = {"dtype": dtype}
    return {
        "conv": ((6, 5, 2), [layers.Conv2D(3, 3, activation="relu", **kwargs), layers.Conv2D(2, 2, **kwargs)]),
        "dense, relu behind": (
            (6,),
            [layers.Dense(7, **kwargs), layers.ReLU(**kwargs), layers.Dense(4, activation="relu", **kwargs)],
        ),
        "pool, relu6, flatten": (
            (6, 6, 1),
            [
                layers.Conv2D(3, 3, padding="same", **kwargs),
                layers.ReLU(max_value=6.0, **kwargs),
                layers.MaxPooling2D(2, **kwargs),
                layers.Flatten(**kwargs),
                layers.Dense(3, **kwargs),
            ],
        ),
    }


def relu_net_relevance(model: Any, x: np.ndarray, weights: np.ndarray, lower: Any, upper: Any) -> np.ndarray:
    """The same nets, layer by layer, for one sample."""
    remaining, undo, value = [lower, upper], [], np.asarray(x, np.float64)

    def relu(value, cap=np.inf):
        return np.clip(value, 0, cap)

    for layer in model.layers:
        if isinstance(layer, (layers.Dense, layers.Conv2D)):
            kernel, bias = layer.get_weights()
            padding = {} if isinstance(layer, layers.Dense) else {"padding": layer.padding}
            linear = partial(naive.dense if isinstance(layer, layers.Dense) else naive.conv, **padding)
            m, rule = naive.Affine(linear, (kernel,), value.shape, bias), remaining.pop(0)
            undo.append(lambda R, v=value, m=m, rule=rule: rule(v.ravel(), m, R.ravel()).reshape(v.shape))
            value = linear(value[None], kernel)[0] + bias
            value = relu(value) if layer.activation is keras.activations.relu else value
        elif isinstance(layer, layers.ReLU):
            value = relu(value, layer.max_value or np.inf)
        elif isinstance(layer, layers.MaxPooling2D):
            undo.append(lambda R, v=value: naive.winner_of_windows(v, R, 2))
            value = value.ravel()[naive.max_pool_winners(value, 2)]
        else:
            undo.append(lambda R, v=value: R.reshape(v.shape))
            value = value.ravel()
    R = weights * value
    for step in reversed(undo):
        R = step(R)
    return R


EPSILON, FLAT = RULES[2], RULES[18]
PAIRS = [(row, EPSILON) for row in RULES] + [(row, FLAT) for row in RULES] + [(EPSILON, row) for row in RULES]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{named(pair[0])} below {named(pair[1])}")
@pytest.mark.parametrize("net", ["conv", "dense, relu behind", "pool, relu6, flatten"])
def test_known_signs_change_nothing(net, pair, dtype):
    shape, parts = relu_nets(dtype)[net]
    model, x, rng = built(*parts, shape=shape, dtype=dtype)
    (lower, define_lower, lower_kwargs), (upper, define_upper, upper_kwargs) = pair
    rows = (
        (first, lower(**lower_kwargs)),
        (Kind.AFFINE, upper(**upper_kwargs)),
        (Kind.ELEMENTWISE, rules.Pass()),
        (Kind.MAX, rules.WinnerTakesAll()),
        (Kind.ROUTE, rules.Gradient()),
    )
    found, weights = explained(model, kxai.Composite("pair", rows), x, rng)
    below, above = partial(define_lower, **lower_kwargs), partial(define_upper, **upper_kwargs)
    expected = [relu_net_relevance(model, x[s], weights[s], below, above) for s in range(BATCH)]
    assert np.abs(expected).max() > 0
    assert naive.distance(found, expected) <= TOLERANCE[dtype]


def test_the_nets_above_take_the_short_ways():
    """Else the test above would compare nothing."""
    for shape, parts in relu_nets("float32").values():
        model, _, _ = built(*parts, shape=shape, dtype="float32")
        plan = kxai.plan(model, "lrp.epsilon")
        lower, upper = (node for node in plan.graph.nodes if node.kind is Kind.AFFINE)
        assert lower in plan.rectified
        assert upper.inputs[0] in plan.facts.nonnegative

        # The flat rule gives relevance to zeros, so that nothing is known below it.
        flat = kxai.plan(model, "lrp.flat")
        assert next(node for node in flat.graph.nodes if node.kind is Kind.AFFINE) not in flat.rectified


# --- bounds of the z^B rule ------------------------------------------------------------------------------------------

BOUNDS = {
    "numbers": (-4.0, 5.0),
    "per channel": (np.array([-3.0, -5.0]), np.array([3.0, 4.0])),
    "array": (-3.0 - np.arange(40.0).reshape(5, 4, 2), 3.0 + np.arange(40.0)[::-1].reshape(5, 4, 2)),
    "list": ([-3.0, -5.0], [3.0, 4.0]),
}


@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS)
def test_box_bounds_of_any_form(bounds):
    model, x, rng = built(layers.Conv2D(3, 3, padding="same", dtype="float64"), shape=(5, 4, 2), dtype="float64")
    found, weights = explained(model, kxai.Composite("box", ((Kind.AFFINE, rules.ZBox(*bounds)),)), x, rng)
    kernel, bias = model.get_weights()
    m = naive.Affine(partial(naive.conv, padding="same"), (kernel,), (5, 4, 2), bias)
    rule = partial(naive.z_box, low=bounds[0], high=bounds[1])
    assert naive.distance(found, [chain(x[s], [m], weights[s], rule) for s in range(BATCH)]) <= 1e-12


def test_box_refuses_what_lies_outside():
    model, x, rng = built(layers.Dense(3, dtype="float64"), shape=(4,), dtype="float64")
    with pytest.raises(InputError, match=r"outside the box.*\n  Expected: low <= x <= high with low=-1.0, high=1.0"):
        explained(model, kxai.Composite("box", ((Kind.AFFINE, rules.ZBox(-1.0, 1.0)),)), 2 + np.abs(x), rng)
    with pytest.raises(ArgumentError, match="The box is empty"):
        rules.ZBox(1.0, -1.0)
    with pytest.raises(ArgumentError, match="The box is empty"):
        rules.ZBox([0.0, 1.0], [1.0, 0.5])


# --- hyperparameters -------------------------------------------------------------------------------------------------

WRONG = [
    (rules.AlphaBeta, {"alpha": 2.0, "beta": 0.5}, r"alpha - beta = 1.*\n  Received: alpha=2.0, beta=0.5"),
    (rules.AlphaBeta, {"alpha": 0.5, "beta": -0.5}, r"alpha >= 1, beta >= 0\n  Received: alpha=0.5, beta=-0.5"),
    (rules.AlphaBeta, {"alpha": float("nan"), "beta": float("nan")}, r"Received: alpha=nan, beta=nan"),
    (rules.AlphaBeta, {"epsilon": -1.0}, r"epsilon is out of range"),
    (
        rules.Epsilon,
        {"epsilon": -0.1},
        r"epsilon is out of range(.|\n)*number >= 0\n  Received: -0.1",
    ),
    (rules.Epsilon, {"epsilon": float("nan")}, r"a finite number >= 0\n  Received: nan"),
    (rules.Epsilon, {"relative": "max"}, r"'rms' or None\n  Received: 'max'"),
    (rules.Gamma, {"gamma": -0.25}, r"gamma is out of range(.|\n)*number >= 0\n  Received: -0.25"),
    (rules.Gamma, {"epsilon": -0.25}, "epsilon is out of range"),
    (
        rules.GammaOriginal,
        {"gamma": -0.25},
        r"gamma is out of range(.|\n)*number >= 0\n  Received: -0.25",
    ),
    (rules.GammaOriginal, {"epsilon": -0.25}, "epsilon is out of range"),
    (rules.ZPlus, {"epsilon": -0.25}, "epsilon is out of range"),
    (rules.WSquare, {"epsilon": -0.25}, "epsilon is out of range"),
    (rules.Flat, {"epsilon": -0.25}, "epsilon is out of range"),
    (rules.ZBox, {"low": 0.0, "high": 1.0, "epsilon": -0.25}, "epsilon is out of range"),
    (rules.ZBox, {"low": 0.0, "high": float("nan")}, r"low <= high everywhere"),
]


@pytest.mark.parametrize(("rule", "hyperparameters", "message"), WRONG)
def test_wrong_hyperparameters_raise(rule, hyperparameters, message):
    with pytest.raises(ArgumentError, match=message):
        rule(**hyperparameters)


# --- a small negative part: z- is computed as z - z+, and rounding must not spoil what it divides --------------------


def negative_share(ratio: float, epsilon: float, bias: bool) -> float:
    """What alpha2-beta1 sends to the negative input, in units of the output's relevance; -1 by definition."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.set_weights([np.array([[1.0], [-ratio]]), np.zeros(1)])
    composite = kxai.Composite("one", ((Kind.AFFINE, rules.AlphaBeta(2, 1, epsilon=epsilon, bias=bias)),))
    found = kxai.LRP(model, composite).explain(np.array([[30000.0, 30000.0]], "float32"), 0)
    return float(found.relevance[0, 1] / found.score[0])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ratio", [1e-2, 1e-3])
def test_small_negative_parts_are_exact(ratio, bias):
    assert abs(negative_share(ratio, 0.0, bias) + 1) <= 1e-4


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ratio", [1e-5, 1e-6, 1e-7, 1e-8, 1e-9])
def test_tiny_negative_parts_are_damped_not_blown_up(ratio, bias):
    assert -1.1 <= negative_share(ratio, 1e-6, bias) <= 0
