"""What is maximised: a compiled function from inputs to one number per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
from keras import ops

from kxai import backend
from kxai.analyzers.scores import Explained, Spec, input_spec
from kxai.errors import TargetError
from kxai.graph.canonize import canonize, drop_identities, strip_heads
from kxai.graph.cut import layer_output, upto
from kxai.graph.graph import Graph
from kxai.graph.trace import trace
from kxai.targets import Part, Target, weights_of


def explained_graph(model: Any, specs: Any, layer: Any) -> Graph:
    """The graph whose explained edges are what a target picks from.

    Args:
        model: a built Keras model.
        specs: of its inputs.
        layer: see :func:`layer_output`; None: the outputs, without a final softmax or sigmoid.

    Raises:
        UnknownNameError, ArgumentError: no such layer. TargetError: it has no units that inputs could excite.
    """
    graph = canonize(trace(model, specs), drop_identities)
    if layer is None:
        graph = strip_heads(graph)
        # What is left out need not be computed.
        graph = canonize(replace(graph, outputs=graph.explained))
    else:
        graph = replace(upto(graph, [layer_output(graph, layer)]), output_structure=0)
    for edge, name in zip(graph.explained, graph.output_names, strict=True):
        if edge.batch != (0, 1):
            raise TargetError(
                f"{name!r} does not have one entry per image on its first axis.",
                expected="(images, ...)",
                received=f"shape {edge.shape}",
            )
    if not any(edge.is_float and edge in graph.active for edge in graph.explained):
        raise TargetError(
            f"{', '.join(graph.output_names)} does not depend on the model's inputs in a way that could be climbed.",
            expected="numbers with a derivative",
        )
    return graph


@final
class Objective:
    """The score of a target, compiled for all numbers of images.

    Args:
        graph: as from :func:`explained_graph`.
        target: gives the form; its numbers are arguments of each call.
        traced: called whenever the function is traced.
    """

    def __init__(self, graph: Graph, target: Target, traced: Callable[[], None]) -> None:
        self._graph, self._target, self._traced = graph, target, traced
        self._explained = Explained(graph, target)
        inputs = [input_spec(edge) for edge in graph.inputs]
        # Middle and width of the range broadcast to one image: their number of axes may be any up to its own.
        scales = [Spec((None,) * (len(spec.shape) - 1), spec.dtype) for spec in inputs]
        self._function = backend.compile(self._run, (inputs, scales, scales, self._explained.specs))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the graph, for people."""
        return self._graph.notes

    def __call__(
        self, inputs: Sequence[Any], middles: list[np.ndarray], halves: list[np.ndarray], data: list[np.ndarray]
    ) -> Any:
        """The score (images,) at ``middle + half * input``, as a tensor."""
        return self._function(list(inputs), _lifted(middles, inputs), _lifted(halves, inputs), data)

    def _run(self, inputs: list[Any], middles: list[Any], halves: list[Any], data: list[Any]) -> Any:
        self._traced()
        values = self._graph.values([m + h * u for u, m, h in zip(inputs, middles, halves, strict=True)])
        outputs = [values[edge] for edge in self._graph.explained]
        if self._target.function is not None:
            return self._explained.weights(outputs, data)[1]
        parts = zip(self._target.parts, data, strict=True)
        scores = [_score(part, numbers, outputs[part.output]) for part, numbers in parts]
        return sum(scores[1:], scores[0])


def _lifted(arrays: list[np.ndarray], inputs: Sequence[Any]) -> list[np.ndarray]:
    return [a.reshape((1,) * (len(x.shape) - 1 - a.ndim) + a.shape) for a, x in zip(arrays, inputs, strict=True)]


def _score(part: Part, numbers: Any, output: Any) -> Any:
    """A weighted sum; of a channel that has positions the mean, so that the regularisers weigh the same at any size."""
    weighted = weights_of(part.form, numbers, output)[0] * output
    if part.form == "index" and len(output.shape) > 2:
        return ops.mean(ops.sum(weighted, axis=-1), axis=tuple(range(1, len(output.shape) - 1)))
    return ops.sum(weighted, axis=tuple(range(1, len(output.shape))))
