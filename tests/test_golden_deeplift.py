"""DeepLIFT of other libraries, in float64 and float32: where their definitions are kxai's, so are their numbers.

At max-pooling kundajelab's library and captum (behind a ReLU) hand all to the winner, as ``max_pooling="gradient"``;
captum's own rule for it is the cross maximum.
"""

from __future__ import annotations

import numpy as np
import pytest

import kxai
from tests.golden import MODELS, golden

# kundajelab computes in float32; it adds 1e-7 to parts that vanish, where kxai takes the limit of the quotient.
SINGLE = 1e-4
# captum's cut at differences of 1e-10 and its sums of float32 steps.
DOUBLE = 1e-6
RULES = {"rescale": "rescale", "revealcancel": "reveal_cancel", "genomics_default": "genomics_default"}
# The largest of many equal references: captum takes the first, TensorFlow's derivative shares among them.
TIED = ("conv1d_seq", "captum/deeplift_rescale_poolrule_zero")
ROWS = {
    **{f"deeplift/{key}": (SINGLE, {"rule": rule, "max_pooling": "gradient"}) for key, rule in RULES.items()},
    "deeplift/rescale_multipliers": (SINGLE, {"max_pooling": "gradient", "multipliers": True}),
    "captum/deeplift_rescale": (DOUBLE, {"max_pooling": "gradient"}),
    "captum/deeplift_multipliers": (DOUBLE, {"max_pooling": "gradient", "multipliers": True}),
    "captum/deeplift_rescale_poolrule": (DOUBLE, {}),
}


@pytest.mark.parametrize("start", ["zero", "base"])
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", MODELS)
def test_equals_the_peer(name, row, start):
    reference, (tolerance, options), key = golden(name), ROWS[row], f"{row}_{start}"
    if key not in reference.keys:
        assert (name, row) == ("mlp_relu", "captum/deeplift_rescale_poolrule")
        return
    baseline = reference.baseline[0] if start == "base" else 0.0
    found = kxai.DeepLIFT(reference.model, baseline, **options).explain(reference.x, reference.target).relevance
    expected = reference[key]
    if (name, key) == TIED:
        found, expected = (r.sum(axis=(1, 2)) for r in (found, expected))
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_deep_shap_equals_captum():
    reference = golden("mlp_relu")
    found = kxai.DeepSHAP(reference.model, reference.background).explain(reference.x, reference.target)
    expected = reference["captum/deeplift_shap_background"]
    assert np.abs(found.relevance - expected).max() <= DOUBLE * np.abs(expected).max()
