"""The run of the clean input, from which maps without a backward pass start, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
from keras import ops

from kxai import backend
from kxai.analyzers.cam.base import CAMAnalyzer, activations
from kxai.analyzers.scores import Scorer
from kxai.graph.feature_maps import FeatureMap
from kxai.graph.graph import Graph
from kxai.targets import Target


def result(
    method: CAMAnalyzer, clean: dict[str, Any], maps: Sequence[FeatureMap], raws: Sequence[Any], inputs: list[Any]
) -> dict[str, Any]:
    """What :class:`Recorded` returns, and what :meth:`BackwardAnalyzer.compiled` returns besides.

    Args:
        method: the analyzer.
        clean: of :class:`Clean`.
        maps, raws: see :meth:`CAMAnalyzer.shown`.
        inputs: of the batch.
    """
    return {
        "outputs": clean["outputs"],
        "relevance": method.placed(maps, raws, inputs),
        "score": clean["score"],
        "base": ops.zeros_like(clean["score"]),
        "chosen": clean["chosen"],
        "kept": method.shown(maps, raws),
        "absorbed": {},
    }


def given(clean: dict[str, Any]) -> list[Any]:
    """The target's weights, fixed at the clean input.

    Args:
        clean: of :class:`Clean`.
    """
    return [ops.cast(weights, "float32") for weights in clean["weights"]]


@final
class Clean:
    """One forward pass: outputs, score, what is explained of them, and the feature maps.

    Args:
        graph: of the plan.
        target: gives the form.
        maps: the feature maps.
        traced: called whenever the function is traced.
        jit: compile with XLA.
    """

    def __init__(
        self, graph: Graph, target: Target, maps: Sequence[FeatureMap], traced: Callable[[], None], jit: bool
    ) -> None:
        self._maps = maps
        self._scorer = Scorer(graph, target, traced, read=[found.edge for found in maps])
        self._function: Callable[..., Any] = backend.compile(self.run, self._scorer.signature, jit)

    def __call__(self, inputs: list[np.ndarray], data: list[np.ndarray]) -> dict[str, Any]:
        """Tensors: outputs, score, chosen, weights per part of the target, values and maps by path."""
        result: dict[str, Any] = self._function(inputs, data)
        return result

    def run(self, inputs: list[Any], data: list[Any]) -> dict[str, Any]:
        """The same inside whatever compiled function calls it."""
        found = self._scorer.run(inputs, data)
        values = dict(zip(self._maps, found.pop("read"), strict=True))
        return {
            **found,
            "values": {one.path: value for one, value in values.items()},
            "maps": {one.path: activations(one, {one.edge: value}) for one, value in values.items()},
        }


def fixed(target: Target) -> Target:
    """The target, as weights over the outputs where it is not a callable: the predicted class of the clean input stays.

    Args:
        target: of any form.
    """
    return replace(target, parts=tuple(replace(part, form="weights") for part in target.parts))
