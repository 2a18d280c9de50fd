"""Relevance of layers has their names in an export."""

from __future__ import annotations

import numpy as np

import kxai
from kxai.testing import models
from tests.export import test_export


def test_relevance_of_a_layer_of_a_model_of_several_inputs(tmp_path):
    case = models.list_inputs()
    layer = next(layer.name for layer in case.model.layers if "concat" in layer.name)
    analyzer = kxai.IntegratedGradients(case.model, num_steps=3, layer=[layer])
    done = kxai.export(analyzer, tmp_path)
    tensors = {tensor.name: x for tensor, x in zip(case.model.inputs, case.inputs, strict=True)}
    reply = test_export.loaded(done)("explain", **tensors, target=np.full(4, -1, "int32"))
    (expected,) = analyzer.explain(case.inputs).relevance
    np.testing.assert_allclose(reply["relevance"], expected, rtol=0, atol=1e-6 * np.abs(expected).max())
