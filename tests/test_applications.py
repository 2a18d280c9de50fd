"""The tracer's self-test: a composite of plain gradients is the gradient, on a network of every family.

The only difference allowed is rounding, in the precision that ``architectures.exact_dtype`` gives the reasons for.
"""

from __future__ import annotations

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

import kxai
from scripts import architectures

# One of each family; scripts/coverage takes all of keras.applications.
SMALL = (
    "ConvNeXtTiny DenseNet121 EfficientNetB0 EfficientNetV2B0 InceptionV3 MobileNet MobileNetV2 MobileNetV3Small "
    "NASNetMobile ResNet50 ResNet50V2 VGG16 Xception"
).split()
LONG = ("ConvNeXtTiny", "DenseNet121", "InceptionV3", "NASNetMobile")  # 8 to 18 seconds each
CLASS = 7
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}  # measured: 3e-14 and 2e-6 at most


@pytest.fixture(autouse=True)
def released():
    """A network's memory is given back before the next is built."""
    yield
    keras.utils.clear_session()
    gc.collect()


def tape_gradient(model, x):
    """The reference: TensorFlow's own derivative of one output of the model as it is.

    In a graph, because eager TensorFlow also computes the kernel's gradient, and on CPUs that of a strided 1x1
    convolution writes beyond its memory (seen with 2.21).
    """

    @tf.function
    def gradient(inputs):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            score = model(inputs, training=False)[:, CLASS]
        return tape.gradient(score, inputs)

    return gradient(tf.constant(x)).numpy()


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in SMALL])
def test_gradient_of_an_application_is_the_tape_s(name):
    dtype = architectures.exact_dtype(name)
    model = architectures.build(name, dtype=dtype)
    x = architectures.sample(model, 2, seed=1)
    expected = tape_gradient(model, x)
    explanation = kxai.Gradient(model, strip_softmax=False).explain(x, target=CLASS)
    scale = np.abs(expected).max()
    assert scale > 1e-12, "a vanishing gradient tests nothing"
    assert explanation.relevance.dtype == dtype
    assert np.abs(explanation.relevance - expected).max() <= TOLERANCE[dtype] * scale


def test_all_families_are_covered():
    assert set(SMALL) < set(architectures.names())
    assert len(architectures.names()) >= 38
