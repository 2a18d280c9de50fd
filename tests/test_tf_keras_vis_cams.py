"""Grad-CAM and LayerCAM are those of tf-keras-vis, without its normalisation."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kxai
from kxai.testing.models import seeded
from tests import oracle_tf_keras_vis as oracle

oracle.package()

X = np.random.default_rng(0).normal(size=(3, 12, 12, 3)).astype("float32")


def network(*head):
    conv = layers.Conv2D(4, 3, strides=2, activation="tanh", name="conv")
    return seeded(keras.Sequential([keras.Input((12, 12, 3)), conv, *head]), 3)


@pytest.mark.parametrize(
    "head",
    [
        lambda: (layers.GlobalAveragePooling2D(), layers.Dense(4, activation="softmax")),
        lambda: (layers.Conv2D(5, 3, activation="relu"), layers.Flatten(), layers.Dense(4)),
    ],
    ids=["pooled", "deep"],
)
@pytest.mark.parametrize("name", ["Gradcam", "Layercam"])
@pytest.mark.parametrize("classes", [[1], [2, 0, 1]], ids=["one class", "a class per sample"])
def test_maps_are_those_of_tf_keras_vis(name, classes, head):
    model = network(*head())
    method = {"Gradcam": kxai.GradCAM, "Layercam": kxai.LayerCAM}[name]
    target = classes if len(classes) > 1 else classes[0]
    for relu in (True, False):
        options = {} if relu else {"activation_modifier": None}
        theirs = oracle.cam(name, model, X, oracle.categorical(classes), "conv", **options)
        ours = method(model, "conv", relu=relu, resize=False).explain(X, target).heatmap()
        assert np.abs(theirs).max() > 1e-3
        # The same formula in float32; sums may run in another order.
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
