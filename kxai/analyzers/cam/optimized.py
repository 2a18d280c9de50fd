"""Opti-CAM: the weights of the channels that make the masked input score highest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.analyzers.cam.base import CAMAnalyzer, explained_edges
from kxai.analyzers.cam.clean import Clean, fixed, given, result
from kxai.analyzers.cam.gradient import weighted
from kxai.analyzers.cam.scored import check_numbers, masked
from kxai.analyzers.recorded import Recorded
from kxai.analyzers.scores import Explained, Spec, input_spec
from kxai.arguments import check_integer, check_number
from kxai.composites import Plan
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
        check_integer("num_steps", num_steps)
        check_number("learning_rate", learning_rate, above=0)
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
        run, specs = self._analysis(plan, target)
        compiled = backend.compile(run, ([input_spec(edge) for edge in plan.graph.inputs], specs), self._jit)
        return lambda batch, data: tree.map_structure(backend.to_numpy, compiled(batch, data))

    def recorded(self, specs: Any, target: Any = None) -> Recorded:
        plan = self._plan_for(specs)
        resolved = self._targeted(plan.graph, target, None)
        run, _ = self._analysis(plan, resolved)
        return Recorded(plan.graph, resolved, lambda inputs, data: run(plan.checked(inputs), data))

    def _analysis(self, plan: Plan, target: Target) -> tuple[Callable[..., dict[str, Any]], list[Spec]]:
        """(inputs, target's numbers) -> result, of tensors; and specs of the target's numbers."""
        maps = self.maps(plan, explained_edges(plan.graph, target))
        for found in maps:
            check_numbers(plan.graph, found, self.name)
        look = Clean(plan.graph, target, maps, self._count_trace, self._jit)
        explained = Explained(plan.graph, fixed(target))

        def run(inputs: list[Any], data: list[Any]) -> dict[str, Any]:
            clean = look.run(inputs, data)
            weights, values = given(clean), [clean["maps"][found.path] for found in maps]

            def masks(*ws: Any) -> tuple[Any, ...]:
                result = list(inputs)
                for found, a, w in zip(maps, values, ws, strict=True):
                    for position in found.inputs:
                        result[position] = masked(found, position, inputs[position], self._scaled(a, w))
                return tuple(result)

            def slopes(ws: list[Any]) -> tuple[Any, list[Any]]:
                """The score behind the masks, and its derivative by the weights."""
                seen, pull = backend.vjp(masks, *ws)
                passed = forward(plan, list(seen))
                picked, score, _ = explained.weights([passed.values[edge] for edge in plan.graph.explained], weights)
                start = {plan.graph.explained[position]: t for position, t in picked.items()}
                return score, pull(backward(plan, passed, start).inputs)

            ws = self._optimized(slopes, [a[:, 0] for a in values], clean["score"])
            return result(self, clean, maps, [self.raw(a, w) for a, w in zip(values, ws, strict=True)], inputs)

        return run, Explained(plan.graph, target).specs

    def _optimized(
        self, slopes: Callable[[list[Any]], tuple[Any, list[Any]]], like: list[Any], score: Any
    ) -> list[Any]:
        """The weights of the channels, per map.

        Args:
            slopes: weights -> score, derivatives.
            like: tensors shaped like the weights.
            score: of the clean input.
        """
        every = max(1, self._num_steps // _CHECKS)

        def step(index: Any, carried: Any) -> Any:
            states, active, before = carried
            score, gradients = slopes([w for w, _, _ in states])
            # The loss rises where the score falls.
            holds = active & (score >= before - _ROUNDING * ops.abs(score))
            looks = index % every == 0
            active, before = ops.where(looks, holds, active), ops.where(looks, score, before)
            number = index + 1
            after = [_adam(state, -g, number, self._learning_rate) for state, g in zip(states, gradients, strict=True)]
            return (
                tree.map_structure(lambda new, old: ops.where(active[:, None], new, old), after, states),
                active,
                before,
            )

        # A state is the weights and Adam's two means of their gradient.
        states = [[ops.full_like(x, start) for start in (_FIRST, 0, 0)] for x in like]
        carried = states, ops.ones_like(score, "bool"), ops.full_like(score, -np.inf)
        last, _, _ = backend.repeat(step, self._num_steps, carried, going=lambda carried: ops.any(carried[1]))
        return [w for w, _, _ in last]


def _adam(state: Sequence[Any], g: Any, number: Any, rate: float) -> list[Any]:
    """The state (weights, means of the gradient and of its square) after one step."""
    (w, mean, square), (one, two) = state, _BETAS
    number = ops.cast(number, w.dtype)
    mean = one * mean + (1 - one) * g
    square = two * square + (1 - two) * ops.square(g)
    step = mean / (1 - one**number) / (ops.sqrt(square / (1 - two**number)) + _TINY)
    return [w - rate * step, mean, square]
