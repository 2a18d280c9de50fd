"""Opti-CAM: the weights of the channels that make the masked input score highest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, final

import keras
import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.analyzers.analyzer import Analyzer
from kxai.analyzers.cam.base import CAMAnalyzer
from kxai.analyzers.cam.gradient import weighted
from kxai.analyzers.cam.scored import Clean, check_numbers, fixed, masked, result
from kxai.analyzers.recorded import Recorded
from kxai.analyzers.scores import Explained, Spec, input_spec
from kxai.composites import Plan
from kxai.errors import ArgumentError
from kxai.graph.feature_maps import FeatureMap
from kxai.graph.graph import Edge
from kxai.reverse import backward, forward
from kxai.targets import Target

_BETAS = (0.9, 0.999)  # of Adam
_TINY = 1e-8
_ROUNDING = 1e-6  # of a score, relative: less is no rise of the loss
_FIRST = 0.5  # weight of every channel before the first step
_CHECKS = 10  # how often it is looked whether the loss rose


@final
class OptiCAM(CAMAnalyzer):
    """Opti-CAM: ``sum_k softmax(w)_k relu(A_k)``, w such that the input scores highest behind the map as a mask.

    The mask is the map, resized to the input and scaled to [0, 1]; a constant map is 0. Adam minimises
    ``S(x) - S(x * mask)``, for each sample on its own. Ten times on the way the loss is looked at; where it is higher
    than the time before, w stays as it is from then on.

    Args:
        model: a built Keras model; inputs with a map are numbers, not token ids.
        layer: whose output is the feature map, see :class:`CAMAnalyzer`. Default: the last one.
        num_steps: of the optimiser, >= 1, default 100.
        learning_rate: > 0, default 0.1.
        relu: whether negative activations count as 0 (True, the default, as in the paper).
        resize: resize to the positions of the input (default), or leave relevance in the layer's size.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError: num_steps or learning_rate are out of range. InputError: (by ``explain``) an input with a map has
        token ids, which cannot be multiplied with a mask.

    Example:
        >>> from kxai.testing.models import pooled
        >>> case = pooled()
        >>> heatmap = OptiCAM(case.model, num_steps=20).explain(case.inputs, target=0).heatmap()[0]
        >>> heatmap.shape, bool(heatmap.argmax() == 1)
        ((2, 2), True)

    Source: Zhang et al. 2024, Eqs. 4 to 8.
    """

    def __init__(
        self, model: Any, layer: Any = None, *, num_steps: int = 100, learning_rate: float = 0.1, relu: bool = True,
        resize: bool = True, strip_softmax: bool = True, jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, layer, relu=relu, resize=resize, strip_softmax=strip_softmax, jit=jit)
        if isinstance(num_steps, bool) or not isinstance(num_steps, (int, np.integer)) or num_steps < 1:
            raise ArgumentError("num_steps is out of range.", expected="an int >= 1", received=repr(num_steps))
        number = isinstance(learning_rate, (int, float)) and not isinstance(learning_rate, bool)
        if not number or not 0 < learning_rate < float("inf"):
            raise ArgumentError("learning_rate is out of range.", expected="a number > 0", received=repr(learning_rate))
        self._num_steps, self._learning_rate = num_steps, learning_rate

    @property
    def name(self) -> str:
        return "opti_cam"

    def raw(self, activations: Any, weights: Any) -> Any:
        return weighted(ops.relu(activations) if self._relu else activations, ops.softmax(weights, axis=-1))

    def _scaled(self, activations: Any, weights: Any) -> Any:
        """The map, with the denominator of the softmax as a constant.

        A mask does not depend on the scale of its map: the derivative is the same, but for silent channels it is 0 to
        the last digit. Adam would make whole steps of what rounding leaves there.
        """
        shown = ops.relu(activations) if self._relu else activations
        return weighted(shown, ops.exp(weights - ops.stop_gradient(ops.logsumexp(weights, axis=-1, keepdims=True))))

    def compiled(
        self, plan: Plan, target: Target, explained: Sequence[Edge], keep: tuple[str, ...], audit: bool
    ) -> Callable[[list[np.ndarray], list[np.ndarray]], dict[str, Any]]:
        maps = self.maps(plan, explained)
        for found in maps:
            check_numbers(plan.graph, found, self.name)
        look = Clean(plan.graph, target, maps, self._count_trace, self._jit)
        step = self._compiled_step(plan, target, maps)

        def run(batch: list[np.ndarray], data: list[np.ndarray]) -> dict[str, Any]:
            clean = look(batch, data)
            given = [ops.cast(weights, "float32") for weights in clean["weights"]]
            values = [clean["maps"][found.path] for found in maps]
            ws = self._optimized(step, [ops.convert_to_tensor(x) for x in batch], values, given)
            raws = [self.raw(a, w) for a, w in zip(values, ws, strict=True)]
            return result(self, clean, maps, raws, batch)

        return run

    def recorded(self, specs: Any, target: Any = None) -> Recorded:
        # What the gradient alone is recorded as would be another method.
        return Analyzer.recorded(self, specs, target)

    def _optimized(self, step: Callable[..., Any], inputs: list[Any], values: list[Any], given: list[Any]) -> list[Any]:
        """The weights of the channels, per map."""
        count, every = len(inputs[0]), max(1, self._num_steps // _CHECKS)
        active, before = np.ones(count, bool), np.full(count, -np.inf)
        states = [
            [np.full((count, a.shape[2]), start, keras.backend.standardize_dtype(a.dtype)) for start in (_FIRST, 0, 0)]
            for a in values
        ]
        for number in range(self._num_steps):
            score, after = step(inputs, values, given, states, np.float32(number + 1))
            if number % every == 0:
                # The loss rises where the score falls.
                score = backend.to_numpy(score)
                active, before = active & (score >= before - _ROUNDING * np.abs(score)), score
                if not active.any():
                    break
            states = tree.map_structure(
                lambda new, old: np.where(active[:, None], backend.to_numpy(new), old),  # noqa: B023 (called at once)
                after,
                states,
            )
        return [w for w, _, _ in states]

    def _compiled_step(self, plan: Plan, target: Target, maps: Sequence[FeatureMap]) -> Callable[..., Any]:
        """(inputs, feature maps, target's weights, states, number of the step) -> score, states after the step.

        A state is the weights and Adam's two means of their gradient, per map.
        """
        graph = plan.graph
        explained = Explained(graph, fixed(target))

        def run(inputs: list[Any], values: list[Any], given: list[Any], states: list[Any], number: Any) -> Any:
            self._count_trace()

            def mask(*ws: Any) -> tuple[Any, ...]:
                result = list(inputs)
                for found, a, w in zip(maps, values, ws, strict=True):
                    for position in found.inputs:
                        result[position] = masked(found, position, inputs[position], self._scaled(a, w))
                return tuple(result)

            seen, pull = backend.vjp(mask, *(w for w, _, _ in states))
            passed = forward(plan, list(seen))
            weights, score, _ = explained.weights([passed.values[edge] for edge in graph.explained], given)
            start = {graph.explained[position]: t for position, t in weights.items()}
            gradients = pull(backward(plan, passed, start).inputs)
            rate = self._learning_rate
            return score, [_adam(state, -g, number, rate) for state, g in zip(states, gradients, strict=True)]

        maps_specs = [Spec((None, math.prod(found.sizes), found.channels), _wide(found)) for found in maps]
        weights_specs = [[Spec((None, found.channels), _wide(found))] * 3 for found in maps]
        inputs_specs = [input_spec(edge) for edge in graph.inputs]
        signature = (inputs_specs, maps_specs, explained.specs, weights_specs, Spec((), "float32"))
        return backend.compile(run, signature, self._jit)


def _wide(found: FeatureMap) -> str:
    return "float32" if "16" in found.edge.dtype else found.edge.dtype


def _adam(state: Sequence[Any], g: Any, number: Any, rate: float) -> list[Any]:
    """The state (weights, means of the gradient and of its square) after one step."""
    (w, mean, square), (one, two) = state, _BETAS
    number = ops.cast(number, w.dtype)
    mean = one * mean + (1 - one) * g
    square = two * square + (1 - two) * ops.square(g)
    step = mean / (1 - one**number) / (ops.sqrt(square / (1 - two**number)) + _TINY)
    return [w - rate * step, mean, square]
