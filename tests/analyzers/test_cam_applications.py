"""Grad-CAM finds the last feature map of the networks of keras.applications, and is TensorFlow's derivative there."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import kxai
from scripts import architectures

LAST = {
    "MobileNetV2": "out_relu",
    "MobileNetV3Small": "activation_17",
    "EfficientNetB0": "top_activation",
    "DenseNet121": "relu",
    "ResNet50V2": "post_relu",
    "VGG16": "block5_pool",
}


@pytest.mark.parametrize(
    "name", [name if name == "VGG16" else pytest.param(name, marks=pytest.mark.slow) for name in LAST]
)
def test_grad_cam_of_applications(name):
    model = architectures.build(name, 64)
    x = architectures.sample(model, 2, seed=1)
    found = kxai.GradCAM(model, relu=False, strip_softmax=False).explain(x, 3)
    ((path, raw),) = found.layers.items()
    assert path == LAST[name] or (name == "MobileNetV3Small" and path.startswith("activation"))
    assert found.relevance.shape == (2, 64, 64, 1)
    layer = model.get_layer(path).output
    a = keras.Model(model.input, layer)(x)
    with tf.GradientTape() as tape:
        tape.watch(a)
        score = keras.Model(layer, model.output)(a)[:, 3]
    expected = np.einsum("bhwk,bk->bhw", a, np.mean(tape.gradient(score, a), axis=(1, 2)))
    # float32 twice, in other orders.
    np.testing.assert_allclose(raw[..., 0], expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected).max() > 0
