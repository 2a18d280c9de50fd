"""What all class activation maps share: which layer, and from its positions to those of the inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import ops

from kxai import backend
from kxai.analyzers.analyzer import Compiled
from kxai.analyzers.gradient import GradientAnalyzer
from kxai.analyzers.program import Readout
from kxai.analyzers.upsample import upsample
from kxai.arguments import check_flags
from kxai.composites import Plan
from kxai.errors import ArgumentError, UnknownNameError
from kxai.explanation import Explanation
from kxai.graph.cut import layer_outputs
from kxai.graph.feature_maps import FeatureMap, explained_part, feature_maps
from kxai.graph.graph import Edge, Graph
from kxai.graph.layout import per_sample
from kxai.reverse import Forward
from kxai.targets import Target


class CAMAnalyzer(GradientAnalyzer):
    """A method that makes one number per position of a layer's feature map.

    The map of an input is resized linearly to its positions and not normalised: relevance is ``(batch, *spatial, 1)``.
    ``explanation.layers`` holds the map in the size of the layer, ``(batch, *sizes, 1)``, by the layer's path. Inputs
    on whose axes no map lies, such as tables, have relevance 0, and a note in ``explanation.config`` says so.

    Args:
        model: a built Keras model.
        layer: whose output is the feature map: a path ("conv1"; "backbone/conv1" in a nested model), a glob, or a Keras
            layer; one map per input. None (default): the last one of each input, before the first global pooling or
            flattening, or the logits of a dense prediction; of branches that end apart, the last one before them.
        relu: whether negative numbers of the map become 0.
        resize: resize to the positions of the input (True, the default), or leave relevance in the layer's size.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        RuleError: (by ``explain``) the model has no feature map. UnknownNameError: it has no such layer.
        ArgumentError: the layer's output has no spatial axes, or several maps lie on one input.
    """

    def __init__(
        self, model: Any, layer: Any = None, *, relu: bool = True, resize: bool = True, strip_softmax: bool = True,
        jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, strip_softmax=strip_softmax, jit=jit)
        check_flags(relu=relu, resize=resize)
        if layer is not None and not isinstance(layer, (str, keras.Layer)):
            expected = "None, a path, a glob or a Keras layer of the model"
            raise ArgumentError("This is no layer.", expected=expected, received=repr(layer))
        self._layer, self._relu, self._resize = layer, relu, resize

    @abstractmethod
    def raw(self, activations: Any, gradients: Any) -> Any:
        """The map before its ReLU.

        Args:
            activations: A, (batch, positions, channels).
            gradients: of the explained quantity with respect to A.

        Returns:
            (batch, positions).
        """

    @property
    def granularity(self) -> str:
        return "position" if self._resize else "feature"

    def maps(self, plan: Plan, explained: Sequence[Edge]) -> tuple[FeatureMap, ...]:
        """The feature maps that are explained; see :func:`kxai.graph.feature_maps.feature_maps`.

        Args:
            plan: the plan.
            explained: outputs that the target refers to.
        """
        part = explained_part(plan.graph, explained)
        if self._layer is not None:
            _check_leads_on(plan.graph, part, self._layer)
        return feature_maps(part, self._layer)

    def positions(self, specs: Any, target: Target) -> list[tuple[int, ...]]:
        """Per model input the axes of it on which a map lies; none for inputs without a map.

        Args:
            specs: of the inputs.
            target: resolved.
        """
        plan = self._plan_for(specs)
        maps = self.maps(plan, explained_edges(plan.graph, target))
        found = {position: axes for one in maps for position, axes in one.inputs.items()}
        return [found.get(position, ()) for position, _ in enumerate(plan.graph.inputs)]

    def readout(self, plan: Plan, explained: Sequence[Edge]) -> Readout:
        maps = self.maps(plan, explained)

        def raws(run: Forward, kept: dict[str, Any]) -> list[Any]:
            pairs = [(activations(found, run.values), found.arranged(kept[found.path])) for found in maps]
            return [self.raw(a, widened(g)) for a, g in pairs]

        def layers(run: Forward, kept: dict[str, Any]) -> dict[str, Any]:
            return self.shown(maps, raws(run, kept))

        def read(run: Forward, kept: dict[str, Any], arrived: list[Any]) -> list[Any]:
            return self.placed(maps, raws(run, kept), [run.values[edge] for edge in plan.graph.inputs])

        return Readout(tuple(found.path for found in maps), read, layers)

    def shown(self, maps: Sequence[FeatureMap], raws: Sequence[Any]) -> dict[str, Any]:
        """The maps in their own size, (batch, *sizes, 1), by path.

        Args:
            maps: where they lie.
            raws: (batch, positions) each, before the ReLU.
        """
        raws = [ops.relu(raw) if self._relu else raw for raw in raws]
        return {found.path: ops.reshape(raw, (-1, *found.sizes, 1)) for found, raw in zip(maps, raws, strict=True)}

    def placed(self, maps: Sequence[FeatureMap], raws: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        """Relevance per input.

        Args:
            maps, raws: as :meth:`shown` takes them.
            inputs: values of the model's inputs.
        """
        zeros = [x if "float" in keras.backend.standardize_dtype(x.dtype) else ops.cast(x, "float32") for x in inputs]
        relevance = [ops.zeros_like(x) for x in zeros]
        for found, shown in zip(maps, self.shown(maps, raws).values(), strict=True):
            for position in found.inputs:
                sizes = input_sizes(found, position, inputs[position])
                relevance[position] = upsample(shown, sizes) if self._resize else shown
        return relevance

    def _prepare(
        self, specs: Any, target: Any, count: int | None, globs: tuple[str, ...], audit: bool
    ) -> tuple[Compiled, Target]:
        if globs:
            raise ArgumentError(
                f"{self.name} explains by one layer; its map is in explanation.layers in any case.",
                expected=f"{type(self).__name__}(model, layer=...)",
                received=f"layers={globs!r}",
            )
        return super()._prepare(specs, target, count, globs, audit)

    def _explanation(self, result: dict[str, Any], plan: Plan, resolved: Target, target: Any) -> Explanation:
        explanation = super()._explanation(result, plan, resolved, target)
        graph = plan.graph
        maps = self.maps(plan, explained_edges(graph, resolved))
        found = {position for one in maps for position in one.inputs}
        notes = [f"the map is that of {one.path!r}" for one in maps]
        notes += [
            f"no map lies on input {edge.name!r}: its relevance is 0"
            for position, edge in enumerate(graph.inputs)
            if position not in found
        ]
        return replace(explanation, config={**explanation.config, "notes": [*explanation.config["notes"], *notes]})


def explained_edges(graph: Graph, target: Target) -> list[Edge]:
    """The outputs that a target refers to.

    Args:
        graph: of the plan.
        target: resolved.
    """
    return [graph.explained[part.output] for part in target.parts] or list(graph.explained)


def _check_leads_on(graph: Graph, part: Graph, layer: Any) -> None:
    edges = layer_outputs(graph, layer)
    try:
        layer_outputs(part, layer)
    except UnknownNameError:
        raise ArgumentError(
            "The explained outputs do not depend on this layer.",
            expected="a layer on the way from the inputs to the explained outputs",
            received=", ".join(graph.producer[edge].path for edge in edges),
        ) from None


def activations(found: FeatureMap, values: Any) -> Any:
    """(batch, positions, channels) of a feature map, in single precision at least.

    Args:
        found: the map.
        values: of every edge.
    """
    value = backend.with_shape(values[found.edge], found.edge.shape)
    return widened(found.arranged(per_sample(value, found.edge)))


def widened(tensor: Any) -> Any:
    """The tensor, in single precision at least."""
    return ops.cast(tensor, "float32") if "16" in keras.backend.standardize_dtype(tensor.dtype) else tensor


def input_sizes(found: FeatureMap, position: int, value: Any) -> list[int]:
    """Sizes of an input along the axes on which a map lies.

    Args:
        found: the map.
        position: of the input.
        value: of the input.
    """
    return [value.shape[axis] for axis in found.inputs[position]]
