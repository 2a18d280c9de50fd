"""Analyzers that say that they share out the score do, where nothing can absorb any of it; the others do not."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kxai
from kxai.analyzers import METHODS
from kxai.analyzers.pattern.methods import PatternAnalyzer
from kxai.testing import models

NEEDED = {
    "lrp.epsilon_gamma_box": {"low": -9.0, "high": 9.0},
    "lrp.sequential_preset_b_flat_until_idx": {"idx": 0},
    "deep_taylor.bounded": {"low": -9.0, "high": 9.0},
    "guided_grad_cam": {"other_activations": "error"},
    "opti_cam": {"num_steps": 3},
    "expected_gradients": {"baselines": 0.0},
    "gradient_shap": {"baselines": 0.0},
    "internal_influence": {"layer": None},
    "layer_conductance": {"layer": None},
    "deepshap": {"background": 0.0},
}
# These need models of their own.
LEFT_OUT = {"lrp.vgg16_tutorial", "attention_rollout", "attention_relevance"}


@pytest.fixture(scope="module")
def case():
    """A network without biases, so that its logits are homogeneous and 0 at 0, and samples of positive logits.

    The logits are large, so that the stabilizers of presets, up to 0.1, absorb little.
    """
    stack = [
        layers.Conv2D(6, 3, activation="relu", use_bias=False, name="conv"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, use_bias=False, name="logits"),
    ]
    model = models.seeded(keras.Sequential([keras.Input((6, 6, 2)), *stack]))
    model.get_layer("logits").set_weights([1e3 * model.get_layer("logits").get_weights()[0]])
    x = models.numbers(6, 6, 2, samples=12)
    return model, x[np.asarray(model(x)).max(axis=1) > 50][:4]


@pytest.mark.parametrize("method", sorted(METHODS.keys() - LEFT_OUT))
def test_what_methods_say_of_themselves(method, case):
    model, x = case
    analyzer = kxai.create_analyzer(method, model, **NEEDED.get(method, {}))
    if isinstance(analyzer, PatternAnalyzer):
        analyzer.fit(models.numbers(6, 6, 2, samples=64))
    explanation = analyzer.explain(x)
    # Relative to the score: stabilizers and sums in single precision leave less than that.
    left = np.abs(explanation.residual / explanation.score).max()
    assert (left < 1e-2) == analyzer.conserves, left


def test_options_decide():
    model = models.cnn().model
    assert kxai.FullGrad(model, psi=None).conserves
    assert not kxai.FullGrad(model).conserves
    assert kxai.DeepLIFT(model).conserves
    assert not kxai.DeepLIFT(model, multipliers=True).conserves
