"""FullGrad: the gradient times input, and what every node adds that does not come from its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, final

from keras import ops

from kxai import backend
from kxai.analyzers.analyzer import Compiled
from kxai.analyzers.gradient import GradientAnalyzer
from kxai.analyzers.program import Readout
from kxai.analyzers.upsample import upsample
from kxai.arguments import check_choice
from kxai.composites import Plan
from kxai.composites.composite import shifting
from kxai.errors import RuleError
from kxai.explanation import Explanation
from kxai.graph.facts import RECTIFIERS, Facts
from kxai.graph.graph import Edge, Graph, Kind, Node
from kxai.graph.positions import positioned
from kxai.reverse import Finish, Forward
from kxai.rules import Step
from kxai.targets import Target

_TINY = 1e-7
_FILLING = frozenset({"pad", "pad_images", "append", "slice_update", "scatter", "scatter_update"})


def _scaled(maps: Any, axes: list[int]) -> Any:
    maps = maps - ops.min(maps, axis=axes, keepdims=True)
    return maps / (_TINY + ops.max(maps, axis=axes, keepdims=True))


# Magnitudes (batch, *spatial, channels) -> what is added up over channels and nodes.
_PSI: dict[str, Callable[[Any], Any]] = {
    "channel": lambda maps: _scaled(maps, list(range(1, len(maps.shape) - 1))),
    "layer": lambda maps: _scaled(maps, list(range(1, len(maps.shape)))),
    "magnitude": lambda maps: maps,
}


@final
class FullGrad(GradientAnalyzer):
    """FullGrad: ``f(x) = x . df/dx + sum_nodes b . df/dy``, exact for every network, and the map that its terms make.

    ``b`` is what a node adds that does not come from its input: with y the node's output and J its Jacobian,
    ``b = y - J x``. Of a dense or convolutional node that is its bias, of a batch normalisation
    ``beta - gamma mean / sqrt(var + eps)``, of a ReLU, a maximum or a sum nothing, of an activation
    ``phi(n) - phi'(n) n``. Each term is one entry of ``explanation.absorbed``, by node path: with ``psi=None``
    score = relevance + absorbed, to rounding. A callable target has an entry of its own, "(target)".

    The map is ``sum_c psi(x g)_c + sum_nodes sum_c up(psi(b g))_c``: psi takes the magnitude and scales it, up resizes
    bilinearly (half-pixel centres). Nodes whose output has no positions, such as dense layers at the end, have no place
    in it; the notes of the result's ``config`` name them, and ``absorbed`` holds their terms as well.

    Args:
        model: a built Keras model; for a map with one input (batch, *spatial, channels), such as images.
        psi: "channel" (default): the magnitude of each channel, scaled to [0, 1], ``(m - min) / (1e-7 + max)``, min and
            max over its positions; "layer": scaled over all channels of a node at once; "magnitude": not scaled. None:
            no map; relevance is ``x df/dx``, for any model.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.

    Returns:
        (by ``explain``) relevance (batch, *spatial, 1), never negative; with ``psi=None`` shaped like the inputs.

    Raises:
        ArgumentError: psi is none of these. RuleError: (by ``explain``) a map of a model with several inputs, or with
        an input that has no positions.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")])
        >>> model.set_weights([np.array([[2.], [3.]]), np.array([1.])])
        >>> e = FullGrad(model, psi=None).explain(np.array([[5., 7.]]))
        >>> e.score, e.relevance, e.absorbed["dense"]
        (array([32.], dtype=float32), array([[10., 21.]], dtype=float32), array([1.], dtype=float32))

    Source: Srinivas & Fleuret 2019, Eqs. 3 and 5; "layer" is how the authors' code scales.
    """

    def __init__(
        self, model: Any, *, psi: str | None = "channel", strip_softmax: bool = True, jit: bool = False
    ) -> None:
        super().__init__(model, strip_softmax=strip_softmax, jit=jit)
        if psi is not None:
            check_choice("psi", psi, [*_PSI], also="None")
        self._psi = psi

    @property
    def name(self) -> str:
        return "fullgrad"

    @property
    def granularity(self) -> str:
        return "value" if self._psi is None else "position"

    @property
    def conserves(self) -> bool:
        return self._psi is None

    def finish(self) -> Finish:
        return lambda value, signal: value * signal

    def accounts(self) -> bool:
        return True

    def _prepare(
        self, specs: Any, target: Any, count: int | None, globs: tuple[str, ...], audit: bool
    ) -> tuple[Compiled, Target]:
        # The account is the method.
        return super()._prepare(specs, target, count, globs, audit=True)

    def readout(self, plan: Plan, explained: Sequence[Edge]) -> Readout | None:
        if self._psi is None:
            return None
        psi, edge = _PSI[self._psi], _image(plan.graph)
        placed, _ = _split(plan, edge)

        def read(run: Forward, kept: dict[str, Any], arrived: list[Any]) -> list[Any]:
            sizes = run.values[edge].shape[1:-1]
            result = ops.sum(psi(ops.abs(arrived[0])), axis=-1, keepdims=True)
            for node in placed:
                signal = kept[node.path]
                term = ops.cast(added(run.steps[node]), signal.dtype) * signal
                term = backend.with_shape(term, node.outputs[0].shape)
                total = ops.sum(psi(ops.abs(term)), axis=-1, keepdims=True)
                result = result + upsample(ops.cast(total, result.dtype), sizes)
            return [result]

        return Readout(tuple(node.path for node in placed), read)

    def _explanation(self, result: dict[str, Any], plan: Plan, resolved: Target, target: Any) -> Explanation:
        explanation = super()._explanation(result, plan, resolved, target)
        if self._psi is None:
            return explanation
        _, left = _split(plan, _image(plan.graph))
        if not left:
            return explanation
        paths = ", ".join(node.path for node in left)
        note = f"the map leaves out the bias terms of nodes without positions, see absorbed: {paths}"
        config = {**explanation.config, "notes": [*explanation.config["notes"], note]}
        return replace(explanation, config=config)


def added(step: Step) -> Any:
    """What a node of one output adds that does not come from its input, shaped like the output y: ``y - J x``.

    Args:
        step: the node and its values.
    """
    node, y = step.node, step.outputs[0]
    if node.kind is Kind.AFFINE:
        return ops.zeros_like(y) + (0 if step.bias is None else step.bias)
    if node.kind in (Kind.SCALE, Kind.ROUTE, Kind.SUM):
        operands = zip(step.inputs, step.active, strict=True)
        return node.run(*[ops.zeros_like(x) if active else x for x, active in operands])[0]
    # The pullback is linear in the cotangent; its own pullback is the Jacobian.
    carriers = [i for i, active in enumerate(step.active) if active]

    def pull(cotangent: Any) -> tuple[Any, ...]:
        pulled = step.pullback(cotangent)
        return tuple(pulled[i] for i in carriers)

    _, push = backend.vjp(pull, ops.zeros_like(y))
    return y - push([step.inputs[i] for i in carriers])[0]


def _adds(node: Node, facts: Facts) -> bool:
    """Whether a node may add something that does not come from its input."""
    if node.kind is Kind.AFFINE and node.affine is not None:
        return node.affine.bias is not None
    if node.kind is Kind.MAX:
        return node.op == "logsumexp"
    if node.kind in (Kind.ROUTE, Kind.SUM):
        constants = node.holds_constants or not all(edge in facts.graph.active for edge in node.inputs)
        return constants or node.op in _FILLING
    return node.op not in RECTIFIERS - {"relu6"} and (node.kind is not Kind.SCALE or shifting(node, facts))


def _image(graph: Graph) -> Edge:
    """The input that has positions and channels."""
    edge = graph.inputs[0]
    if len(graph.inputs) > 1 or len(edge.shape) < 3 or not edge.is_float:
        raise RuleError(
            "The map of FullGrad needs positions.",
            expected="a model with one input of shape (batch, *spatial, channels), floating point",
            received=", ".join(f"{edge.name} {edge.shape} {edge.dtype}" for edge in graph.inputs),
            fix="psi=None gives the exact decomposition of any model.",
        )
    return edge


def _split(plan: Plan, image: Edge) -> tuple[list[Node], list[Node]]:
    """Nodes that may add something: those whose output lies on the image, and the others."""
    there, adding = positioned(plan.graph, image), [node for node in plan.rules if _adds(node, plan.facts)]
    placed = [node for node in adding if len(node.outputs) == 1 and node.outputs[0] in there]
    for node in placed:
        if node.affine is not None and node.affine.axis != -1:
            raise RuleError(
                "The map of FullGrad needs channels on the last axis.",
                expected='data_format="channels_last"',
                received=f"channels on axis {node.affine.axis} of {node.path!r}",
                fix="psi=None gives the exact decomposition of any model.",
            )
    return placed, [node for node in adding if node not in placed]
