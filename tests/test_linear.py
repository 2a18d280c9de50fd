"""What every method says about a linear model: its formula, written out.

``CLOSED`` and ``UNDEFINED`` name every method that kxai has; a new one that is in neither fails here by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kxai
from kxai.analyzers import METHODS
from tests import naive

INPUTS, UNITS, TARGET = 5, 3, 1
LOW, HIGH = -2.0, 2.5
BOX = {"low": LOW, "high": HIGH}
# Rounding in float64; the largest sums have eight terms of order one.
EXACT = 1e-12

# (x, w, b) of one sample, the weights and the bias of the explained unit -> relevance.
Formula = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def rule(definition: Callable[..., np.ndarray], **hyperparameters: Any) -> Formula:
    """A rule of LRP on the one layer, started at the logit."""

    def formula(x: np.ndarray, w: np.ndarray, b: float) -> np.ndarray:
        layer = naive.Affine(naive.dense, (w[:, None],), x.shape, np.array([b]))
        return definition(x, layer, np.array([x @ w + b]), **hyperparameters)

    return formula


def contribution(x: np.ndarray, w: np.ndarray, b: float) -> np.ndarray:
    """Gradient times input, and LRP-0 with the bias in the denominator."""
    return x * w


def slope(x: np.ndarray, w: np.ndarray, b: float) -> np.ndarray:
    return w


REFERENCE = np.array([0.5, -1.0, 0.0, 2.0, -0.3])
BACKGROUND = np.stack([REFERENCE, np.array([1.0, 1.0, -2.0, 0.0, 0.7]), np.zeros(INPUTS)])


def difference(x: np.ndarray, w: np.ndarray, b: float) -> np.ndarray:
    return w * (x - REFERENCE)


# name -> (hyperparameters, formula)
CLOSED: dict[str, tuple[dict[str, Any], Formula]] = {
    "gradient": ({}, slope),
    "gradient_x_input": ({}, contribution),
    "input_t_gradient": ({}, contribution),
    "fullgrad": ({"psi": None}, contribution),
    "sensitivity": ({}, lambda x, w, b: w**2),
    "guided_backprop": ({}, slope),
    "deconvnet": ({}, slope),
    "deep_taylor": ({}, rule(naive.w_square)),
    "deep_taylor.bounded": (BOX, rule(naive.z_box, low=LOW, high=HIGH)),
    "integrated_gradients": ({"baseline": REFERENCE}, difference),
    # One baseline: of several, every sample meets its own share.
    "expected_gradients": ({"baselines": REFERENCE[None]}, difference),
    "gradient_shap": ({"baselines": REFERENCE[None]}, difference),
    "deeplift": ({"reference": REFERENCE}, difference),
    "deeplift.reveal_cancel": ({"reference": REFERENCE}, difference),
    "deeplift.genomics_default": ({"reference": REFERENCE}, difference),
    "deepshap": ({"background": BACKGROUND}, lambda x, w, b: w * (x - BACKGROUND.mean(axis=0))),
    "layer_conductance": ({"layer": None, "baseline": REFERENCE}, difference),
    "internal_influence": ({"layer": None}, slope),
    "smoothgrad": ({}, slope),
    "smoothgrad_squared": ({}, lambda x, w, b: w**2),
    "vargrad": ({}, lambda x, w, b: np.zeros_like(x)),
    # Patterns that follow from the weights, a = w / w.w, and so need no data.
    **dict.fromkeys(("pattern_net", "pattern.net"), ({"estimator": "w"}, lambda x, w, b: w / (w @ w) * (x @ w + b))),
    **dict.fromkeys(
        ("pattern_attribution", "pattern.attribution"),
        ({"estimator": "w"}, lambda x, w, b: w**2 / (w @ w) * (x @ w + b)),
    ),
    "lrp.zero": ({}, contribution),
    "lrp.z": ({}, contribution),
    "lrp.z_IB": ({}, rule(naive.epsilon, epsilon=0.0, bias=False)),
    "lrp.epsilon": ({"epsilon": 0.25}, rule(naive.epsilon, epsilon=0.25)),
    "lrp.epsilon_IB": ({"epsilon": 0.25}, rule(naive.epsilon, epsilon=0.25, bias=False)),
    "lrp.gamma": ({}, rule(naive.gamma)),
    "lrp.alpha_beta": ({}, rule(naive.alpha_beta)),
    "lrp.alpha_2_beta_1": ({}, rule(naive.alpha_beta)),
    "lrp.alpha_2_beta_1_IB": ({}, rule(naive.alpha_beta, bias=False)),
    "lrp.alpha1_beta0": ({}, rule(naive.alpha_beta, alpha=1.0, beta=0.0)),
    "lrp.alpha_1_beta_0": ({}, rule(naive.alpha_beta, alpha=1.0, beta=0.0)),
    "lrp.alpha_1_beta_0_IB": ({}, rule(naive.alpha_beta, alpha=1.0, beta=0.0, bias=False)),
    "lrp.z_plus": ({}, rule(naive.z_plus)),
    "lrp.excitation_backprop": ({}, rule(naive.z_plus, bias=True)),
    "lrp.w_square": ({}, rule(naive.w_square)),
    "lrp.flat": ({}, lambda x, w, b: np.full_like(x, (x @ w + b) / len(x))),
    # Composites for CNNs: their rule for dense layers, or for the first layer.
    "lrp.epsilon_plus": ({}, rule(naive.epsilon)),
    "lrp.epsilon_plus_flat": ({}, rule(naive.flat)),
    "lrp.epsilon_alpha2_beta1": ({}, rule(naive.epsilon)),
    "lrp.epsilon_alpha2_beta1_flat": ({}, rule(naive.flat)),
    "lrp.epsilon_gamma_box": (BOX, rule(naive.epsilon)),
    "lrp.sequential_preset_a": ({}, rule(naive.epsilon, epsilon=0.1)),
    "lrp.sequential_preset_a_flat": ({}, rule(naive.flat)),
    "lrp.sequential_preset_b": ({}, rule(naive.epsilon, epsilon=0.1)),
    "lrp.sequential_preset_b_flat": ({}, rule(naive.flat)),
    "lrp.sequential_preset_b_flat_until_idx": ({"idx": 0}, rule(naive.flat)),
    "lrp.attn": ({"epsilon": 0.25}, rule(naive.epsilon, epsilon=0.25)),
    "lrp.cp": ({"epsilon": 0.25}, rule(naive.epsilon, epsilon=0.25)),
}
MAPS = """
    cam grad_cam grad_cam_plus_plus xgrad_cam hires_cam layer_cam eigen_cam score_cam ablation_cam opti_cam
    guided_grad_cam
""".split()
# Methods that a network of dense layers has nothing for, and what they say.
UNDEFINED = {
    **dict.fromkeys(MAPS, "has no feature map"),
    "attention_rollout": "has no attention",
    "attention_relevance": "has no attention",
    "lrp.vgg16_tutorial": "block1_conv1",
}
# What the methods that need hyperparameters are given where any do.
NEEDED = {"lrp.vgg16_tutorial": BOX}


def linear(**options: Any) -> Any:
    model = keras.Sequential([keras.Input((INPUTS,), dtype="float64"), layers.Dense(UNITS, dtype="float64", **options)])
    random = np.random.default_rng(0)
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    return model


def samples() -> np.ndarray:
    """Within the box; all logits of the target are positive, which deep Taylor asks for."""
    found = np.random.default_rng(1).uniform(LOW, HIGH, size=(60, INPUTS))
    positive = np.asarray(linear()(found))[:, TARGET] > 0.1
    assert positive.sum() > 8
    return found[positive][:8]


def test_every_method_has_its_formula():
    assert not CLOSED.keys() & UNDEFINED.keys()
    assert sorted(CLOSED.keys() | UNDEFINED.keys()) == sorted(METHODS)


@pytest.mark.parametrize("method", CLOSED)
def test_a_linear_model(method):
    model, x = linear(), samples()
    hyperparameters, formula = CLOSED[method]
    found = kxai.create_analyzer(method, model, **hyperparameters).explain(x, TARGET)
    kernel, bias = model.get_weights()
    expected = [formula(sample, kernel[:, TARGET], bias[TARGET]) for sample in x]
    np.testing.assert_allclose(found.relevance, expected, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("method", UNDEFINED)
def test_methods_that_need_more_than_a_linear_model(method):
    with pytest.raises(kxai.KxaiError, match=UNDEFINED[method]):
        kxai.create_analyzer(method, linear(), **NEEDED.get(method, {})).explain(samples(), TARGET)
