"""The reverse run: relevance from the explained outputs to the inputs, node by node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import keras
from keras import ops

from kxai.composites.plan import Plan
from kxai.graph.graph import Edge, Kind, Node
from kxai.graph.layout import batch_first, per_sample
from kxai.looping import roll_back
from kxai.reverse.differences import compared
from kxai.reverse.forward import CASTS, Forward, forward
from kxai.rules import DifferenceRule, Multipliers, Pass
from kxai.rules.differences import collapsed

# (value of a model input or embedding, signal that arrived there) -> what is reported.
Finish = Callable[[Any, Any], Any]


@final
@dataclass
class Backward:
    """Relevance of one backward run.

    Attributes:
        inputs: per model input.
        kept: per requested node path, the relevance of its output.
        absorbed: per node path, relevance that came in and was not handed on, per sample, in its final form.
    """

    inputs: list[Any]
    kept: dict[str, Any]
    absorbed: dict[str, Any]


def backward(
    plan: Plan,
    run: Forward,
    start: Mapping[Edge, Any],
    *,
    finish: Finish | None = None,
    keep: Collection[str] = (),
    audit: bool = False,
) -> Backward:
    """Send relevance from the explained outputs to the inputs.

    Args:
        plan: the plan that ``run`` was made with.
        run: the forward run.
        start: relevance of explained outputs; in a run beside that of a reference, their multipliers.
        finish: applied to (value, signal) at the inputs and at embeddings; None reports the signal itself. With a
            reference the value is the difference from it, and kept relevance is finished, too.
        keep: node paths whose output relevance is wanted.
        audit: also account, node by node, for relevance that is not handed on. With ``finish``, what it makes of the
            values and signals around a node counts.
    """
    graph, active = plan.graph, plan.graph.active
    relevance = {edge: _signal(run, r) for edge, r in start.items()}
    finished: dict[Edge, Any] = {}  # of integer edges: already in their final form
    kept: dict[str, Any] = {}
    absorbed: dict[str, Any] = {}
    wanted = {graph.find(path): path for path in keep}
    batch = ops.shape(run.values[graph.inputs[0]])[0]
    for node in reversed(graph.nodes):
        arrived = [relevance.pop(edge, None) for edge in node.outputs]
        done = [finished.pop(edge, None) for edge in node.outputs]
        if node in wanted:
            kept[wanted[node]] = per_sample(_kept(node, run, arrived, done, finish), node.outputs[0])
        if node in plan.lookups and arrived[0] is not None:
            _add(finished, node.inputs[0], ops.sum(_finished(node.outputs[0], run, arrived[0], finish), axis=-1))
            continue
        if node not in plan.rules and node not in plan.bodies:
            continue
        for book, came in ((relevance, arrived), (finished, done)):
            if all(r is None for r in came):
                continue
            sent = _sent(plan, node, run, came, final=book is finished)
            receivers = node.inputs[: len(sent)]
            for edge, r in zip(receivers, sent, strict=True):
                if r is not None and edge in active:
                    _add(book, edge, r)
            if audit:
                gone = [(r, edge) for r, edge in zip(sent, receivers, strict=True) if r is not None and edge in active]
                here = [(r, edge) for r, edge in zip(came, node.outputs, strict=True) if r is not None]
                if finish is not None and book is relevance:
                    here, gone = (
                        [(_finished(edge, run, r, finish), edge) for r, edge in pairs] for pairs in (here, gone)
                    )
                lost = _lost(here, gone, batch)
                absorbed[node.path] = absorbed[node.path] + lost if node.path in absorbed else lost
    return Backward([_report(edge, run, relevance, finished, finish) for edge in graph.inputs], kept, absorbed)


def _sent(plan: Plan, node: Node, run: Forward, came: list[Any], final: bool) -> Sequence[Any]:
    """What a node hands to its inputs."""
    if node in plan.bodies:
        return _rolled_back(plan, node, run, came)
    if not final and node.op in CASTS and node.inputs[0].is_float and not node.outputs[0].is_float:
        return [None]  # rounding has no derivative
    # What is in its final form already only moves.
    rule = Pass() if final and node.kind is not Kind.ROUTE else plan.rules[node]
    if run.reference is None or final or isinstance(rule, DifferenceRule):
        return rule.propagate(run.steps[node], came[0] if len(came) == 1 else came)
    # Other rules, such as the plain derivative, know of one multiplier.
    whole = collapsed(run.steps[node], came)
    sent = rule.propagate(run.steps[node], whole[0] if len(whole) == 1 else whole)
    return [None if m is None else Multipliers.of(m) for m in sent]


def _rolled_back(plan: Plan, node: Node, run: Forward, arrived: list[Any]) -> list[Any]:
    """Relevance of the inputs of a recurrent node."""
    body, loop = plan.bodies[node], run.loops[node].loop

    def step_back(inputs: list[Any], arrived: list[Any]) -> list[Any]:
        start: dict[Edge, Any] = {}
        for edge, r in zip(body.graph.outputs, arrived, strict=True):
            _add(start, edge, r)
        if run.reference is None:
            return backward(body, forward(body, inputs, run.weights), start).inputs
        half = len(inputs) // 2
        return backward(body, compared(body, inputs[:half], inputs[half:], run.weights), start).inputs

    arrived = [_whole(edge, run, r) for edge, r in zip(node.outputs, arrived, strict=True)]
    sent: dict[int, Any] = {}
    for position, r in zip(loop.sources, roll_back(run.loops[node], step_back, arrived), strict=False):
        if position is not None:
            sent[position] = sent[position] + r if position in sent else r
    signals = (sent.get(position) for position, _ in enumerate(node.inputs))
    return [None if r is None else _signal(run, r) for r in signals]


def _add(book: dict[Edge, Any], edge: Edge, relevance: Any) -> None:
    """A tensor used several times receives the sum of what its readers send."""
    book[edge] = book[edge] + relevance if edge in book else relevance


def _lost(here: list[tuple[Any, Edge]], gone: list[tuple[Any, Edge]], batch: Any) -> Any:
    # Some networks compute in several precisions.
    precision = keras.backend.result_type(*(r.dtype for r, _ in (*here, *gone)))
    return _total(here, batch, precision) - _total(gone, batch, precision)


def _total(tensors: Sequence[tuple[Any, Edge]], batch: Any, dtype: str) -> Any:
    sums = [ops.sum(ops.reshape(ops.cast(batch_first(t, edge), dtype), (batch, -1)), axis=1) for t, edge in tensors]
    return sum(sums[1:], sums[0]) if sums else 0.0


def _signal(run: Forward, tensor: Any) -> Any:
    """What is handed down: relevance, or beside a reference the multipliers of both parts of a difference."""
    return tensor if run.reference is None else Multipliers.of(tensor)


def _whole(edge: Edge, run: Forward, signal: Any) -> Any:
    """A signal as one tensor."""
    if not isinstance(signal, Multipliers):
        return signal
    return signal.positive if signal.equal else signal.collapsed(run.moved(edge))


def _finished(edge: Edge, run: Forward, signal: Any, finish: Finish | None) -> Any:
    """What is reported of a signal that arrived at an edge."""
    if finish is None:
        return _whole(edge, run, signal)
    if isinstance(signal, Multipliers) and not signal.equal and edge in run.parts:
        parts = run.parts[edge]
        return finish(parts.positive, signal.positive) + finish(parts.negative, signal.negative)
    signal = _whole(edge, run, signal)
    return finish(ops.cast(run.moved(edge), signal.dtype), signal)


def _kept(node: Node, run: Forward, arrived: list[Any], done: list[Any], finish: Finish | None) -> Any:
    if arrived[0] is not None:
        return arrived[0] if run.reference is None else _finished(node.outputs[0], run, arrived[0], finish)
    return ops.zeros_like(run.values[node.outputs[0]]) if done[0] is None else done[0]


def _report(
    edge: Edge, run: Forward, relevance: dict[Edge, Any], finished: dict[Edge, Any], finish: Finish | None
) -> Any:
    value = run.values[edge]
    result = finished.get(edge)
    if edge in relevance:
        signal = _finished(edge, run, relevance[edge], finish)
        result = signal if result is None else result + signal
    if result is None:
        result = ops.zeros_like(value) if edge.is_float else ops.cast(ops.zeros_like(value), "float32")
    return result
