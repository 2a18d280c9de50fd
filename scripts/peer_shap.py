"""SHAP's DeepExplainer on TensorFlow, from array to array in NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import shap
from keras import layers

from scripts import architectures, units
from scripts.bench_methods import DEEPLIFT, FORWARD, TAPE
from scripts.peer_worker import Prepared
from scripts.rounds import Run


def prepare(name: str, size: int, batch: int) -> Prepared:
    """The network with SHAP's method."""
    model = architectures.build(name, size, samples=1)
    x = architectures.sample(model, batch, seed=1)
    explained = one_logit(model)
    logit = units.forward(explained)
    return Prepared(
        framework=units.FRAMEWORK,
        parameters=model.count_params(),
        x=x,
        makers={
            TAPE: lambda: units.gradient(model),
            FORWARD: lambda: units.forward(model),
            DEEPLIFT.label: lambda: deep_explainer(explained, x),
        },
        evaluations={},
        sums={DEEPLIFT.label: lambda: (logit(x) - logit(0 * x))[:, units.CLASS]},
    )


def one_logit(model: Any) -> Any:
    """The network with one output, before the softmax: SHAP would explain every class."""
    head = model.layers[-1]
    logit = layers.Dense(1)
    found = keras.Model(model.inputs, logit(head.input))
    logit.set_weights([weight[..., units.CLASS : units.CLASS + 1] for weight in head.get_weights()])
    return found


def deep_explainer(model: Any, x: np.ndarray) -> Run:
    explainer = shap.DeepExplainer(model, np.zeros_like(x[:1]))
    # Its own check of sums has an absolute tolerance, which the rounding of large logits exceeds.
    return lambda x: explainer.shap_values(x, check_additivity=False)
