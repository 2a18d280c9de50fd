"""What different methods, or one method on different networks of the same function, must agree on.

``DEPENDS`` names every method that kxai has, with what it promises; a new one that is not there fails by name.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kxai
from kxai.analyzers import METHODS
from tests import naive
from tests.test_linear import UNDEFINED

BOX = {"low": -2.0, "high": 2.0}
PATTERNS = ("pattern_net", "pattern.net", "pattern_attribution", "pattern.attribution")
# What methods need on the networks below.
NEEDED: dict[str, dict[str, Any]] = {
    "deep_taylor.bounded": BOX,
    "lrp.epsilon_gamma_box": BOX,
    "lrp.sequential_preset_b_flat_until_idx": {"idx": 0},
    # Maps are for images; this is the part of the decomposition that belongs to the inputs.
    "fullgrad": {"psi": None},
    "internal_influence": {"layer": None},
    "layer_conductance": {"layer": None},
    # Patterns that follow from the weights and need no data.
    **{name: {"estimator": "w"} for name in PATTERNS},
}
# Methods that need samples to compare with, and the argument's name.
BACKGROUNDS = {"deepshap": "background", "expected_gradients": "baselines", "gradient_shap": "baselines"}
HERE = sorted(set(METHODS) - set(UNDEFINED))


def explained(method: str, model: Any, x: np.ndarray, target: Any = 0) -> np.ndarray:
    options = NEEDED.get(method, {})
    if method in BACKGROUNDS:
        options = {BACKGROUNDS[method]: np.stack([np.zeros(x.shape[1:]), np.full(x.shape[1:], 0.5)])}
    return kxai.create_analyzer(method, model, **options).explain(x, target).relevance


def filled(model: Any, seed: int = 0) -> Any:
    """The same model with random weights that keep activations near 1."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        fan_in = np.prod(variable.shape[:-1]) if len(variable.shape) > 1 else 25
        variable.assign(random.normal(size=variable.shape) * np.sqrt(2 / fan_in))
    return model


def inputs(model: Any, count: int = 6) -> np.ndarray:
    random = np.random.default_rng(1)
    return random.uniform(-1.5, 1.5, size=(count, *model.input_shape[1:])).astype(model.inputs[0].dtype)


# --- networks without biases -----------------------------------------------------------------------------------------


def dense_network(dtype: str) -> Any:
    hidden = [layers.Dense(n, "relu", use_bias=False, dtype=dtype) for n in (12, 10)]
    return keras.Sequential([keras.Input((6,), dtype=dtype), *hidden, layers.Dense(3, use_bias=False, dtype=dtype)])


def pooled_network(dtype: str) -> Any:
    stack = [
        layers.Conv2D(5, 3, padding="same", activation="relu", use_bias=False, dtype=dtype),
        layers.MaxPooling2D(2, dtype=dtype),
        layers.Conv2D(6, 3, strides=2, activation="relu", use_bias=False, dtype=dtype),
        layers.MaxPooling2D(2, strides=1, dtype=dtype),
        layers.Flatten(dtype=dtype),
        layers.Dense(3, use_bias=False, dtype=dtype),
    ]
    return keras.Sequential([keras.Input((12, 12, 2), dtype=dtype), *stack])


def residual_network(dtype: str) -> Any:
    options = {"padding": "same", "use_bias": False, "dtype": dtype}
    x = keras.Input((6, 6, 2), dtype=dtype)
    first = layers.Conv2D(5, 3, activation="relu", **options)(x)
    branch = layers.Conv2D(5, 3, **options)(layers.Conv2D(5, 3, activation="relu", **options)(first))
    joined = layers.ReLU(dtype=dtype)(layers.Add(dtype=dtype)([first, branch]))
    pooled = layers.GlobalAveragePooling2D(dtype=dtype)(joined)
    return keras.Model(x, layers.Dense(3, use_bias=False, dtype=dtype)(pooled))


# f(t x) = t f(x) makes these one method; grids that begin at 0 are left out, where a ReLU's derivative is 0.
HOMOGENEOUS = [
    ("lrp.zero", {}),
    ("deeplift", {}),
    *[("integrated_gradients", {"grid": grid, "num_steps": 7}) for grid in ("midpoint", "right", "gauss_legendre")],
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("build", [dense_network, pooled_network, residual_network])
def test_without_biases_they_are_all_gradient_times_input(build, dtype):
    model = filled(build(dtype))
    x = inputs(model)
    expected = kxai.explain(model, x, "gradient_x_input", target=1)
    # Rounding, in units of the largest relevance; in float32 amplified by sums that nearly cancel.
    tolerance = {"float32": 1e-5, "float64": 1e-9}[dtype]
    assert np.abs(expected.residual).max() <= tolerance * np.abs(expected.score).max()
    for method, hyperparameters in HOMOGENEOUS:
        found = kxai.explain(model, x, method, target=1, **hyperparameters)
        assert naive.distance(found.relevance, expected.relevance) <= tolerance, (method, hyperparameters)


# --- function or network ---------------------------------------------------------------------------------------------

FUNCTION = "the function alone"
RELUS = "the function alone, up to stabilizers, where all activations are ReLUs: gradient times input"
NETWORK = "the network that computes the function"
CONNECTIONS = "what is connected with what, weights aside: every input gets the same"
ALL_LRP = [name for name in METHODS if name.startswith("lrp.") and name not in UNDEFINED]
GRADIENTS = """
    gradient gradient_x_input input_t_gradient sensitivity fullgrad integrated_gradients expected_gradients
    gradient_shap layer_conductance internal_influence smoothgrad smoothgrad_squared vargrad
""".split()
# name -> what an explanation depends on
DEPENDS: dict[str, str] = {
    **dict.fromkeys(GRADIENTS, FUNCTION),
    **dict.fromkeys(("guided_backprop", "deconvnet", "deep_taylor", "deep_taylor.bounded", *PATTERNS), NETWORK),
    **dict.fromkeys(("deeplift", "deeplift.reveal_cancel", "deeplift.genomics_default", "deepshap"), NETWORK),
    **{name: CONNECTIONS if "flat" in name else NETWORK for name in ALL_LRP},
    **{f"lrp.{name}": RELUS for name in ("zero", "z", "epsilon", "attn", "cp")},
    # Composites for CNNs: their rule for dense layers is epsilon.
    **{f"lrp.{name}": RELUS for name in ("epsilon_plus", "epsilon_alpha2_beta1", "epsilon_gamma_box")},
}
# Rounding; and stabilizers of 1e-6 beside sums down to 1e-3.
EXACT, STABILIZED = 1e-12, 1e-3


def test_every_method_says_what_it_depends_on():
    assert sorted(DEPENDS) == HERE


# Weights of a network of two hidden ReLU layers and one output, without the biases of the second layer: kernel, bias,
# kernel, kernel.
Weights = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def maximum(i: int, j: int, k: int) -> Weights:
    """``max(max(y_i, y_j), y_k)`` of shifted inputs y; ``max(a, b) = b + relu(a - b)``, ``y = relu(y) - relu(-y)``."""
    shifts, pairs = np.array([0.5, -0.3, 0.2]), np.eye(3)
    hidden = np.stack([pairs[i] - pairs[j], pairs[j], -pairs[j], pairs[k], -pairs[k]], axis=1)
    # max(y_i, y_j) - y_k; then y_k
    upper = np.array([[1, 0, 0], [1, 0, 0], [-1, 0, 0], [-1, 1, -1], [1, -1, 1]])
    return hidden, shifts @ hidden, upper, np.array([1, 1, -1])


def side_by_side(blocks: list[Weights], bias: float) -> Any:
    """The sum of some networks as one."""
    kernels, shifts, uppers, outward = zip(*blocks, strict=True)
    wide, high = np.concatenate(kernels, axis=1), np.concatenate(outward)
    upper, row, column = np.zeros((wide.shape[1], len(high))), 0, 0
    for block in uppers:
        upper[row : row + len(block), column : column + block.shape[1]] = block
        row, column = row + len(block), column + block.shape[1]
    hidden = [layers.Dense(size, "relu", dtype="float64") for size in upper.shape]
    model = keras.Sequential([keras.Input((3,), dtype="float64"), *hidden, layers.Dense(1, dtype="float64")])
    zeros = np.zeros(len(high))
    model.set_weights([wide, np.concatenate(shifts), upper, zeros, high[:, None], np.array([bias])])
    return model


def positive(x: np.ndarray, *models: Any) -> np.ndarray:
    """The samples of a clearly positive score, which deep Taylor asks for; all models must give the same."""
    first, *others = [np.asarray(model(x))[:, 0] for model in models]
    for other in others:
        np.testing.assert_allclose(other, first, rtol=0, atol=EXACT)
    assert (first > 0.1).sum() > 10
    return x[first > 0.1]


def deaf(connected: bool) -> Any:
    """A function of x0 and x1 that ignores x2: no weight leads from there, or all that it adds cancels."""
    block = np.array([[1, 1], [-1, 2], [0, 0]]), np.array([0.1, -0.2]), np.eye(2), np.array([1, 0.7])
    *one, outward = maximum(0, 2, 1)
    cancelling = [(*one, outward), (*maximum(0, 1, 2)[:3], -outward)]
    return side_by_side([block, *(cancelling if connected else [])], 0.4)


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("method", DEPENDS)
def test_an_input_that_the_function_ignores(method, connected):
    model = deaf(connected)
    x = positive(np.random.default_rng(0).uniform(-1.5, 1.5, (60, 3)), deaf(False), deaf(True))
    found = explained(method, model, x)
    share = np.abs(found[:, 2]).max() / np.abs(found).max()
    if DEPENDS[method] == CONNECTIONS or (DEPENDS[method] == NETWORK and connected):
        assert share > 0.05  # promised nowhere, and not given here
    else:
        assert share <= (STABILIZED if DEPENDS[method] == RELUS else EXACT)


@pytest.mark.parametrize("method", DEPENDS)
def test_two_networks_of_one_function(method):
    one, other = (side_by_side([maximum(*order)], 0.0) for order in ((0, 1, 2), (2, 0, 1)))
    x = positive(np.random.default_rng(0).uniform(-1.5, 1.5, (60, 3)), one, other)
    found, again = explained(method, one, x), explained(method, other, x)
    difference = naive.distance(again, found)
    if DEPENDS[method] == FUNCTION:
        assert difference <= EXACT
    elif DEPENDS[method] == RELUS:
        assert difference <= STABILIZED
        assert naive.distance(found, explained("gradient_x_input", one, x)) <= STABILIZED
    elif DEPENDS[method] == NETWORK:
        assert difference > 0.1
    else:
        assert naive.distance(found, np.broadcast_to(found[:, :1], found.shape)) <= EXACT


# --- the last activation ---------------------------------------------------------------------------------------------


def classifier(head: str | None, units: int) -> Any:
    hidden = layers.Dense(8, "relu", dtype="float64")
    last = [layers.Activation(head, dtype="float64")] if head else []
    stack = [hidden, layers.Dense(units, dtype="float64"), *last]
    return filled(keras.Sequential([keras.Input((5,), dtype="float64"), *stack]))


# The graph is cut before either; a few methods of each family show it for the sigmoid.
SIGMOID = ("gradient", "lrp.epsilon_plus", "deeplift", "integrated_gradients", "smoothgrad", "fullgrad")
HEADS = [*((method, "softmax", 3) for method in HERE), *((method, "sigmoid", 1) for method in SIGMOID)]


@pytest.mark.parametrize(("method", "head", "units"), HEADS)
def test_the_logit_is_explained_whatever_follows_it(method, head, units):
    plain, headed = classifier(None, units), classifier(head, units)
    x = inputs(plain, 40)
    x = x[np.asarray(plain(x))[:, 0] > 0]
    np.testing.assert_array_equal(explained(method, headed, x), explained(method, plain, x))
