"""What tf-keras-vis computes, without any of its normalisation; tests that need it are skipped where it is absent."""

from __future__ import annotations

import keras
import numpy as np
import pytest

REASON = "tf-keras-vis is not installed (pip install 'kxai[actmax]')"


def package():
    """The package, or a skipped test."""
    return pytest.importorskip("tf_keras_vis", reason=REASON)


def categorical(classes):
    """Its score for one class, or for one class per sample."""
    package()
    from tf_keras_vis.utils.scores import CategoricalScore

    return CategoricalScore(classes)


def logit_model(model):
    """A functional model that shares layers and tensors, but ends at the logits and takes a list.

    That is how the package calls models; its own ``ReplaceToLinear`` fails on Sequential models and overlooks Softmax
    layers.
    """
    last = model.layers[-1]
    if isinstance(last, keras.layers.Dense):
        # The same weights without the activation.
        linear = keras.layers.Dense(last.units, use_bias=last.use_bias)
        logits = linear(last.input)
        linear.set_weights(last.get_weights())
    else:
        logits = last.input if isinstance(last, keras.layers.Softmax) else last.output
    return keras.Model([model.inputs[0]], logits)


def saliency(model, x, score):
    """``max_c |df/dx|``, ``(batch, height, width)``."""
    package()
    from tf_keras_vis.saliency import Saliency

    return np.asarray(Saliency(logit_model(model))(score, x, normalize_map=False))


def cam(name, model, x, score, layer, **options):
    """The raw map of a CAM method, ``(batch, rows, columns)``, in the layer's own resolution.

    Args:
        name: the class: "Gradcam", "GradcamPlusPlus", "Layercam", "Scorecam".
        model: a Sequential or functional model; the logits of its last layer are explained.
        x: the batch.
        score: for example ``categorical(1)``.
        layer: name of the layer.
        options: of the call, such as ``activation_modifier=None`` to see negative values.
    """
    package()
    import importlib

    kind = getattr(importlib.import_module(f"tf_keras_vis.{_MODULES[name]}"), name)
    options = {"seek_penultimate_conv_layer": False, "expand_cam": False, "normalize_cam": False, **options}
    return np.asarray(kind(logit_model(model))(score, x, penultimate_layer=layer, **options))


_MODULES = {
    "Gradcam": "gradcam",
    "GradcamPlusPlus": "gradcam_plus_plus",
    "Layercam": "layercam",
    "Scorecam": "scorecam",
}
