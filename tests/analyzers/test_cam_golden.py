"""Class activation maps are those of pytorch-grad-cam, before and after its post-processing."""

from __future__ import annotations

import numpy as np
import pytest

import kxai
from kxai.analyzers.upsample import upsample
from tests.golden import golden

METHODS = {
    "GradCAM": kxai.GradCAM,
    "GradCAMPlusPlus": kxai.GradCAMPlusPlus,
    "XGradCAM": kxai.XGradCAM,
    "HiResCAM": kxai.HiResCAM,
    "LayerCAM": kxai.LayerCAM,
    "ScoreCAM": kxai.ScoreCAM,
    "AblationCAM": kxai.AblationCAM,
    "EigenCAM": kxai.EigenCAM,
}
# What they compute in float32: the principal component, and weights from scores; all else in float64. Relative to the
# largest number of the map. Measured: 2e-7 at most, else 2e-16.
TOLERANCE = {"EigenCAM": 2e-6, "ScoreCAM": 2e-6, "AblationCAM": 2e-6}


def scaled(maps):
    maps = np.maximum(maps, 0)
    maps = maps - maps.min(axis=(1, 2), keepdims=True)
    return maps / (1e-7 + maps.max(axis=(1, 2), keepdims=True))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("model", ["cnn_plain", "cnn_bn"])
def test_maps_are_those_of_pytorch_grad_cam(model, name):
    values = golden(model)
    analyzer = METHODS[name](values.model, values.spec["cam_layer"], relu=False)
    found = analyzer.explain(values.x, values.target)
    (raw,) = found.layers.values()
    raw, expected = raw[..., 0], values[f"gradcam/{name}/raw"]
    if name == "AblationCAM":  # they divide by the score, not by its magnitude
        expected = expected * np.sign(found.score)[:, None, None]
    if name == "EigenCAM":  # either sign is theirs
        expected = expected * np.sign((expected * raw).sum(axis=(1, 2), keepdims=True))
    tolerance = TOLERANCE.get(name, 1e-10) * np.abs(expected).max()
    np.testing.assert_allclose(raw, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("EigenCAM", "AblationCAM")])
@pytest.mark.parametrize("model", ["cnn_plain", "cnn_bn"])
def test_final_maps_are_those_of_pytorch_grad_cam(model, name):
    """They scale, resize and scale again."""
    values = golden(model)
    found = METHODS[name](values.model, values.spec["cam_layer"], resize=False).explain(values.x, values.target)
    resized = np.asarray(upsample(scaled(found.heatmap().astype("float64"))[..., None], (16, 16)))[..., 0]
    np.testing.assert_allclose(scaled(resized), values[f"gradcam/{name}/final"], atol=1e-5)
