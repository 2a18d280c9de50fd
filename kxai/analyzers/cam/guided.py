"""Guided Grad-CAM: the detail of guided backprop where Grad-CAM looks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, final

import numpy as np
from keras import ops, tree

from kxai.analyzers.analyzer import Compiled
from kxai.analyzers.cam.gradient import GradCAM
from kxai.analyzers.gradient import GradientAnalyzer
from kxai.analyzers.recorded import Recorded
from kxai.composites import Composite
from kxai.composites.presets import guided_backprop
from kxai.explanation import Explanation
from kxai.targets import Target


@final
class GuidedGradCAM(GradientAnalyzer):
    """Guided Grad-CAM: guided backprop times the Grad-CAM map at every position, shaped like the inputs.

    ``explanation.layers`` holds the map in the size of the layer. Inputs on whose axes no map lies have relevance 0.

    Args:
        model: a built Keras model.
        layer: whose output is the feature map, see :class:`CAMAnalyzer`. Default: the last one.
        other_activations: of guided backprop, at activations that are no ReLU: "error" (default), or "gradient".
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        RuleError: (by ``explain``) the model has no feature map, or other activations than ReLUs and
        ``other_activations`` is "error".

    Example:
        >>> from kxai.testing.models import pooled
        >>> case = pooled()
        >>> GuidedGradCAM(case.model).explain(case.inputs, target=0).relevance[0, ..., 0]
        array([[0.25 , 0.375],
               [0.   , 0.25 ]], dtype=float32)

    Source: Selvaraju et al. 2017, section 3.2.
    """

    def __init__(
        self, model: Any, layer: Any = None, *, other_activations: str = "error", strip_softmax: bool = True,
        jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, strip_softmax=strip_softmax, jit=jit)
        self._layer, self._other_activations = layer, other_activations
        self._table = guided_backprop(other_activations)
        self._map = GradCAM(model, layer, strip_softmax=strip_softmax, jit=jit)

    @property
    def name(self) -> str:
        return "guided_grad_cam"

    def composite_table(self) -> Composite:
        return self._table

    def recorded(self, specs: Any, target: Any = None) -> Recorded:
        whole = super().recorded(specs, target)
        mapped = self._map.recorded(specs, whole.target)
        positions = self._map.positions(specs, whole.target)

        def run(inputs: list[Any], data: list[Any]) -> dict[str, Any]:
            detail, where = whole.run(inputs, data), mapped.run(inputs, data)
            return {**detail, "relevance": _times(detail["relevance"], where["relevance"], positions)}

        return replace(whole, run=run)

    def _prepare(
        self, specs: Any, target: Any, count: int | None, globs: tuple[str, ...], audit: bool
    ) -> tuple[Compiled, Target]:
        mapped, resolved = self._map._prepare(specs, target, count, globs, audit)
        guided, _ = super()._prepare(specs, resolved, count, globs, audit)
        positions = self._map.positions(specs, resolved)

        def run(batch: list[np.ndarray], data: list[np.ndarray], rows: np.ndarray) -> Explanation:
            detail, where = guided(batch, data, rows), mapped(batch, data, rows)
            product = _times(tree.flatten(detail.relevance), tree.flatten(where.relevance), positions)
            relevance = tree.pack_sequence_as(specs, product)
            config = {**detail.config, "notes": where.config["notes"]}
            return replace(detail, relevance=relevance, target=where.target, layers=where.layers, config=config)

        return run, resolved


def _times(signals: list[Any], maps: list[Any], positions: list[tuple[int, ...]]) -> list[Any]:
    """Signals shaped like the inputs times maps (batch, *sizes, 1) on the given axes of them; arrays or tensors."""
    product = []
    for signal, shown, axes in zip(signals, maps, positions, strict=True):
        shape = [size if axis in axes else 1 for axis, size in enumerate(signal.shape)]
        placed = np.reshape if isinstance(shown, np.ndarray) else ops.reshape
        product.append(signal * placed(shown, (-1, *shape[1:])) if axes else signal * 0)
    return product
