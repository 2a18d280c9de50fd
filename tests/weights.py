"""Weights for models of tests."""

from __future__ import annotations

import numpy as np


def signed(model, seed=0):
    """Random weights everywhere, negative gammas included; variances stay positive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = rng.normal(size=weight.shape)
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)
    return model
