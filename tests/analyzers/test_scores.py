"""The explained quantity alone, and targets that are fixed at some inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import kxai
from kxai.analyzers.scores import Scorer
from kxai.targets import OutputSpec, resolve
from kxai.testing import models


def test_it_equals_the_explanation_and_its_weights_fix_the_target():
    case = models.cnn()
    analyzer = kxai.Gradient(case.model)
    plan = analyzer.plan()
    traces = []
    target = resolve(None, [OutputSpec("output", plan.graph.explained[0].shape)], 4)
    scorer = Scorer(plan.graph, target, lambda: traces.append(1))
    data = [part.batch(0, 4) for part in target.parts]
    found = scorer([case.inputs], data)
    expected = analyzer.explain(case.inputs)
    np.testing.assert_allclose(found["score"], expected.score, rtol=1e-6)
    np.testing.assert_array_equal(found["chosen"][0], expected.target)
    np.testing.assert_allclose(found["outputs"][0], expected.outputs, rtol=1e-6)

    # The weights are a target of their own: what was predicted for these inputs, whatever the inputs then are.
    pinned = replace(target, parts=(replace(target.parts[0], form="weights", data=found["weights"][0]),))
    other = 3 * case.inputs[::-1]
    fixed = analyzer.explain(other, pinned)
    np.testing.assert_allclose(fixed.relevance, analyzer.explain(other, expected.target).relevance, rtol=1e-5)
    scorer([case.inputs[:2]], [part.batch(0, 2) for part in target.parts])
    assert traces == [1]
