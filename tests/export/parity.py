"""What an export must answer: the numbers of the analyzer itself."""

from __future__ import annotations

import keras
import numpy as np

from kxai import nest
from kxai.exporting.interface import identifier

# Of the largest number: the same operations, fused and ordered as each runtime likes, round differently by a few
# units of float32's last place (6e-8).
TOLERANCE = 1e-6


def rows(x, start, stop):
    """Some samples of nested inputs."""
    return nest.map_leaves(lambda array: array[start:stop], x)


def flat(x, names):
    """Inputs by the names of a signature."""
    return dict(zip(names, keras.tree.flatten(x), strict=True))


def expected(explanation, names, outputs):
    """Tensors of a signature, from an explanation of a model with these inputs and outputs."""
    relevance = keras.tree.flatten(explanation.relevance)
    called = ["relevance"] if len(names) == 1 else [f"relevance_{name}" for name in names]
    target = explanation.target
    target = next(iter(target.values())) if isinstance(target, dict) else target
    return {
        **dict(zip(outputs, keras.tree.flatten(explanation.outputs), strict=True)),
        **dict(zip(called, relevance, strict=True)),
        "target": target,
        "score": explanation.score,
        "residual": explanation.residual,
    }


def names_of(model, specs):
    return [identifier(spec.name) for spec in keras.tree.flatten(specs)]


def assert_equal(reply, wanted, what):
    """Equal up to TOLERANCE of the largest number; a residual up to that of what it is the difference of."""
    assert set(reply) == set(wanted), what
    parts = [np.abs(array).reshape(len(array), -1).sum(axis=1) for name, array in wanted.items() if "relevance" in name]
    size = np.max(np.abs(wanted["score"])) + max(float(np.max(part)) for part in parts)
    for name, array in wanted.items():
        assert reply[name].shape == np.shape(array), f"{what}: {name}"
        scale = size if name == "residual" else float(np.max(np.abs(array), initial=0.0))
        np.testing.assert_allclose(reply[name], array, rtol=0, atol=TOLERANCE * scale, err_msg=f"{what}: {name}")
