"""Class activation maps without gradients: a channel counts by the score that the model gives for it, or without it."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import keras
import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.analyzers.analyzer import Step, Stepwise
from kxai.analyzers.cam.base import CAMAnalyzer, activations, explained_edges, input_sizes
from kxai.analyzers.cam.clean import Clean, fixed, given, result
from kxai.analyzers.cam.gradient import weighted
from kxai.analyzers.recorded import Recorded
from kxai.analyzers.scores import Explained, Spec, input_spec
from kxai.analyzers.upsample import upsample
from kxai.composites import Plan
from kxai.errors import InputError, NumericalError
from kxai.graph.cut import beyond
from kxai.graph.feature_maps import FeatureMap
from kxai.graph.graph import Edge, Graph
from kxai.graph.layout import as_edge, per_sample
from kxai.targets import Target

_UNDEFINED = "Ablation-CAM divides by the score, which is 0."
_FIX = "explain another target, or use grad_cam."
_TINY = 1e-8  # added to the range of a channel, as the authors do


class ScoredCAM(CAMAnalyzer):
    """A map whose channels are weighted by what the model scores for each of them; one evaluation per channel.

    The target is fixed by the clean input. ``batch_size`` of ``explain`` counts model evaluations.

    Args:
        model, layer, relu, resize, strip_softmax, jit: see :class:`CAMAnalyzer`.
    """

    def __init__(
        self, model: Any, layer: Any = None, *, relu: bool = True, resize: bool = True, strip_softmax: bool = True,
        jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, layer, relu=relu, resize=resize, strip_softmax=strip_softmax, jit=jit)
        self._chunk = threading.local()

    def stepwise(
        self, specs: Any, target: Any, count: int | None, globs: tuple[str, ...], audit: bool, batch_size: int
    ) -> tuple[Stepwise, Target]:
        run, resolved = super().stepwise(specs, target, count, globs, audit, batch_size)

        def chunked(batch: list[np.ndarray], data: list[np.ndarray], rows: np.ndarray) -> Iterator[Step]:
            self._chunk.rows = batch_size
            yield from run(batch, data, rows)

        return chunked, resolved

    def recorded(self, specs: Any, target: Any = None) -> Recorded:
        plan = self._plan_for(specs)
        resolved = self._targeted(plan.graph, target, None)
        maps = self.maps(plan, explained_edges(plan.graph, resolved))
        look = Clean(plan.graph, resolved, maps, self._count_trace, self._jit)
        scorers = [
            _Scorer(self, plan.graph, self.tail(plan.graph, found), resolved, found, found.edge.dtype) for found in maps
        ]

        def run(inputs: list[Any], data: list[Any]) -> dict[str, Any]:
            inputs = plan.checked(inputs)
            clean = look.run(inputs, data)
            raws = []
            for found, scorer in zip(maps, scorers, strict=True):
                scores = scorer.run(inputs, clean["values"][found.path], given(clean), clean["score"])
                raws.append(self._weighted(clean["maps"][found.path], clean["score"], scores))
            return result(self, clean, maps, raws, inputs)

        return Recorded(plan.graph, resolved, run)

    def _weighted(self, activations: Any, score: Any, scores: Any) -> Any:
        """The map before its ReLU, (batch, positions)."""
        return weighted(activations, ops.cast(self.weights(score, scores), activations.dtype))

    @abstractmethod
    def tail(self, graph: Graph, found: FeatureMap) -> Graph:
        """What is evaluated per channel: the graph, or the part of it behind the map, which is then its last input.

        Args:
            graph: of the model.
            found: the map.
        """

    @abstractmethod
    def changed(self, found: FeatureMap, inputs: list[Any], value: Any, channels: Any) -> list[Any]:
        """Inputs of the tail, of which every row is about one channel.

        Args:
            found: the map.
            inputs: values of the model's inputs.
            value: of the map's edge.
            channels: (batch,), which channel.
        """

    @abstractmethod
    def weights(self, score: Any, scores: Any) -> Any:
        """alpha, (batch, channels).

        Args:
            score: S of the clean input, (batch,).
            scores: S_k per channel, (batch, channels).
        """

    def raw(self, activations: Any, gradients: Any) -> Any:
        raise NotImplementedError  # a readout of gradients, which there are none of

    def compiled(
        self, plan: Plan, target: Target, explained: Sequence[Edge], keep: tuple[str, ...], audit: bool
    ) -> Callable[[list[np.ndarray], list[np.ndarray]], dict[str, Any]]:
        maps = self.maps(plan, explained)
        forward = Clean(plan.graph, target, maps, self._count_trace, self._jit)
        tails = [self.tail(plan.graph, found) for found in maps]
        scorers: dict[str, _Scorer] = {}

        def scorer(found: FeatureMap, tail: Graph, value: Any) -> _Scorer:
            # In mixed precision a value may be wider than its edge says.
            with self._lock:
                if found.path not in scorers:
                    dtype = keras.backend.standardize_dtype(value.dtype)
                    scorers[found.path] = _Scorer(self, plan.graph, tail, target, found, dtype)
                return scorers[found.path]

        def run(batch: list[np.ndarray], data: list[np.ndarray]) -> dict[str, Any]:
            clean = forward(batch, data)
            raws = []
            for found, tail in zip(maps, tails, strict=True):
                value = clean["values"][found.path]
                scores = scorer(found, tail, value)(batch, value, given(clean), self._chunk.rows)
                raws.append(self._weighted(clean["maps"][found.path], clean["score"], scores))
            arrays: dict[str, Any] = tree.map_structure(backend.to_numpy, result(self, clean, maps, raws, batch))
            return arrays

        return run


@final
class _Scorer:
    """Scores of all channels of one map."""

    def __init__(
        self, method: ScoredCAM, graph: Graph, tail: Graph, target: Target, found: FeatureMap, dtype: str
    ) -> None:
        self._method, self._tail, self._found = method, tail, found
        self._explained = Explained(tail, fixed(target))
        specs = (
            [input_spec(edge) for edge in graph.inputs],
            Spec(found.edge.shape, dtype),
            self._explained.specs,
            Spec((None,), "int32"),
            Spec((None,), "int32"),
        )
        self._function: Callable[..., Any] = backend.compile(self._run, specs, method._jit)

    def __call__(self, inputs: list[np.ndarray], value: Any, given: list[Any], rows: int) -> np.ndarray:
        count, channels = len(inputs[0]), self._found.channels
        tensors = [ops.convert_to_tensor(x) for x in inputs]
        sample, channel = np.divmod(np.arange(count * channels, dtype="int32"), np.int32(channels))
        parts = [
            backend.to_numpy(self._function(tensors, value, given, sample[at : at + rows], channel[at : at + rows]))
            for at in range(0, count * channels, rows)
        ]
        return np.concatenate(parts).reshape(count, channels)

    def run(self, inputs: list[Any], value: Any, given: list[Any], score: Any) -> Any:
        """The same inside whatever compiled function calls it: a loop over the channels.

        Args:
            inputs, value, given: of the clean run.
            score: of the clean run, (batch,).
        """

        def step(_: Any, read: list[Any]) -> Any:
            return [], [self._scores(inputs, value, given, ops.zeros_like(score, "int32") + read[0])]

        channels = ops.arange(self._found.channels, dtype="int32")
        _, (scores,) = backend.scan(step, [], [channels], [((None,), score.dtype)])
        return ops.transpose(scores)

    def _run(self, inputs: list[Any], value: Any, given: list[Any], sample: Any, channel: Any) -> Any:
        self._method._count_trace()
        edge = self._found.edge
        picked = [ops.take(x, sample, axis=0) for x in inputs]
        rows = as_edge(ops.take(per_sample(value, edge), sample, axis=0), edge)
        return self._scores(picked, rows, [ops.take(weights, sample, axis=0) for weights in given], channel)

    def _scores(self, inputs: list[Any], value: Any, given: list[Any], channel: Any) -> Any:
        """The score of each row without, or with, its channel."""
        value = backend.with_shape(value, self._found.edge.shape)
        values = self._tail.values(self._method.changed(self._found, inputs, value, channel))
        return self._explained.weights([values[edge] for edge in self._tail.explained], given)[1]


@final
class ScoreCAM(ScoredCAM):
    """Score-CAM: ``relu(sum_k alpha_k A_k)``, alpha the softmax over channels of ``S(x * M_k)``.

    ``M_k`` is the channel, resized linearly to the input (corners aligned) and scaled to [0, 1] there; of a constant
    channel it is 0. The weights of a map add up to 1. One evaluation of the model per channel.

    Args:
        model: a built Keras model; inputs with a map are numbers, not token ids.
        layer: whose output is the feature map, see :class:`CAMAnalyzer`. Default: the last one.
        relu: whether negative numbers of the map become 0. Default True, as in the paper.
        resize: resize to the positions of the input (default), or leave relevance in the layer's size.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        InputError: (by ``explain``) an input with a map has token ids, which cannot be multiplied with a mask.

    Example:
        >>> from kxai.testing.models import pooled
        >>> case = pooled()
        >>> ScoreCAM(case.model).explain(case.inputs, target=0).heatmap()[0].round(3)
        array([[0.852, 1.852],
               [0.444, 0.852]], dtype=float32)

    Source: Wang et al. 2020, Eqs. 3 to 6 (their baseline score cancels in the softmax).
    """

    @property
    def name(self) -> str:
        return "score_cam"

    def tail(self, graph: Graph, found: FeatureMap) -> Graph:
        check_numbers(graph, found, self.name)
        return graph

    def changed(self, found: FeatureMap, inputs: list[Any], value: Any, channels: Any) -> list[Any]:
        every = activations(found, {found.edge: value})
        channel = ops.take_along_axis(every, channels[:, None, None], axis=2)
        return [
            masked(found, position, x, channel, align_corners=True, tiny=_TINY) if position in found.inputs else x
            for position, x in enumerate(inputs)
        ]

    def weights(self, score: Any, scores: Any) -> Any:
        exponentials = ops.exp(scores - ops.max(scores, axis=1, keepdims=True))
        return exponentials / ops.sum(exponentials, axis=1, keepdims=True)


def check_numbers(graph: Graph, found: FeatureMap, name: str) -> None:
    """Raise InputError if an input with a map has token ids.

    Args:
        graph: of the plan.
        found: the map.
        name: of the method.
    """
    for position in found.inputs:
        edge = graph.inputs[position]
        if not edge.is_float:
            raise InputError(
                f"{name} multiplies the input with masks; input {edge.name!r} holds integers.",
                expected="floating point inputs",
                received=edge.dtype,
                fix="use grad_cam or ablation_cam, which leave the input as it is.",
            )


def masked(found: FeatureMap, position: int, x: Any, raw: Any, align_corners: bool = False, tiny: float = 0.0) -> Any:
    """An input times a map that is resized to it and scaled to [0, 1]; a constant map is 0.

    Args:
        found: where the map lies.
        position: of the input.
        x: the input.
        raw: (batch, positions) of the map, or the same with a last axis of size 1.
        align_corners: see :func:`kxai.analyzers.upsample.upsample`.
        tiny: added to the range of the map by which it is divided.
    """
    shaped = ops.reshape(raw, (-1, *found.sizes, 1))
    resized = upsample(shaped, input_sizes(found, position, x), align_corners)[..., 0]
    axes = list(range(1, len(resized.shape)))
    low, high = ops.min(resized, axis=axes, keepdims=True), ops.max(resized, axis=axes, keepdims=True)
    mask = (resized - low) / ops.where(high > low, high - low + tiny, ops.ones_like(high))
    return x * ops.cast(found.over_input(position, len(x.shape), mask), x.dtype)


@final
class AblationCAM(ScoredCAM):
    """Ablation-CAM: ``relu(sum_k alpha_k A_k)``, ``alpha_k = (S - S_k) / |S|``, S_k the score with channel k set to 0.

    The division is by the magnitude of the score (the paper's is by the score), so that channels that speak for the
    target have positive weights whatever its sign. Only what lies behind the layer is evaluated, once per channel.

    Args:
        model: a built Keras model.
        layer: whose output is the feature map, see :class:`CAMAnalyzer`. Default: the last one.
        relu: whether negative numbers of the map become 0. Default True, as in the paper.
        resize: resize to the positions of the input (default), or leave relevance in the layer's size.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Raises:
        NumericalError: (by ``explain``) a score is 0, though without a channel it is not.

    Example:
        >>> from kxai.testing.models import pooled
        >>> case = pooled()
        >>> AblationCAM(case.model, relu=False).explain(case.inputs, target=0).heatmap()[0]
        array([[ 2.,  3.],
               [-3.,  2.]], dtype=float32)

    Source: Desai & Ramaswamy 2020, Eqs. 5 and 6.
    """

    @property
    def name(self) -> str:
        return "ablation_cam"

    def tail(self, graph: Graph, found: FeatureMap) -> Graph:
        return beyond(graph, [found.edge])

    def changed(self, found: FeatureMap, inputs: list[Any], value: Any, channels: Any) -> list[Any]:
        others = 1 - ops.one_hot(channels, found.channels, dtype="float32")
        return [*inputs, found.scaled(value, others)]

    def weights(self, score: Any, scores: Any) -> Any:
        drop = score[:, None] - scores
        undefined = (score == 0) & ops.any(drop != 0, axis=1)
        alpha = drop / ops.where(score == 0, ops.ones_like(score), ops.abs(score))[:, None]
        if not backend.is_eager():
            return backend.asserted(alpha, ops.logical_not(undefined), f"{_UNDEFINED} {_FIX}")
        if ops.any(undefined):
            raise NumericalError(
                _UNDEFINED,
                expected="scores other than 0",
                received=f"0 for {int(ops.sum(undefined))} of {len(score)} samples of a batch",
                fix=_FIX,
            )
        return alpha
