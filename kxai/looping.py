"""Time: runs a recurrent node step by step, and hands its relevance back from the last step to the first.

What happens within a step is not known here: it comes as a function. Only the states before each step are kept; the
way back computes a step anew from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import keras
from keras import ops

from kxai import backend
from kxai.graph.graph import Loop

# (x_t, *states) -> (y_t, *new states)
Step = Callable[..., Sequence[Any]]
# (tensors of the step's inputs, relevance of its outputs) -> relevance of its inputs
StepBack = Callable[[list[Any], list[Any]], Sequence[Any]]


@final
@dataclass(frozen=True, eq=False)
class Unrolled:
    """A forward run of a loop; the time is the first axis, in the order of computation.

    Attributes:
        loop: the loop.
        outputs: the first output of the node, and the states after the last step.
        elements: elements of the sequence, one per step.
        present: per step, where it is not masked; None: everywhere.
        states: states before each step.
        reference: the run of the reference, None if there is none.
    """

    loop: Loop
    outputs: tuple[Any, ...]
    elements: Any
    present: Any
    states: list[Any]
    reference: Unrolled | None = None


def unroll(loop: Loop, step: Step, tensors: Sequence[Any]) -> Unrolled:
    """Run a loop forward.

    Args:
        loop: the loop.
        step: computes its body.
        tensors: values of the node's inputs.
    """
    order = loop.order
    sequence, mask, *given = loop.arguments(*tensors)
    elements = _in_order(sequence, order.go_backwards)
    present = None if mask is None else _in_order(ops.cast(mask, "bool"), order.go_backwards)
    initial = [_floating(state) for state in loop.states(given, ops.shape(sequence)[0])]
    y_shape, y_dtype = (ops.shape(sequence)[0], *loop.body.outputs[0].shape[1:]), _wide(loop.body.outputs[0].dtype)
    repeats = present is not None and not order.zero_masked

    def forward(carried: list[Any], read: list[Any]) -> tuple[list[Any], list[Any]]:
        before, previous = carried[1:], carried[0]
        y, *after = step(read[0], *before)
        if present is not None:
            y = _where(read[1], y, previous if repeats else ops.zeros_like(y))
            after = [_where(read[1], new, old) for new, old in zip(after, before, strict=True)]
        written = [*before, y] if order.return_sequences else before
        return [y, *after], written

    read = [elements] if present is None else [elements, present]
    samples = sequence.shape[0]  # if it is known: a reference of one sample is told from as many as there are inputs
    specs = [((samples, *state.shape[1:]), state.dtype) for state in initial]
    if order.return_sequences:
        specs.append(((samples, *loop.body.outputs[0].shape[1:]), y_dtype))
    carried, written = backend.scan(forward, [ops.zeros(y_shape, y_dtype), *initial], read, specs)
    last, *states = (backend.with_shape(x, (samples, *x.shape[1:])) for x in carried)
    output = _batch_first(written[-1]) if order.return_sequences else last
    return Unrolled(loop, (output, *states), elements, present, written[: len(initial)])


def roll_back(run: Unrolled, step_back: StepBack, arrived: Sequence[Any]) -> list[Any]:
    """Relevance of the sequence and of each given state, from that of the node's outputs.

    A masked step hands on what its states received as it is; what its output received goes to the output that it
    repeats, or nowhere if it is 0.

    Args:
        run: the forward run.
        step_back: hands relevance through the body; with a reference, its tensors follow those of the run.
        arrived: per output of the node, relevance or None.
    """
    order = run.loop.order
    like = [run.outputs[0][:, 0] if order.return_sequences else run.outputs[0], *(state[0] for state in run.states)]
    outputs = [None if order.return_sequences else arrived[0], *arrived[1:]]
    outputs += [None] * (len(like) - len(outputs))
    start = [ops.zeros_like(x) if r is None else r for x, r in zip(like, outputs, strict=True)]
    per_step = None
    if order.return_sequences and arrived[0] is not None:
        per_step = ops.moveaxis(arrived[0], 0, 1)

    def backward(carried: list[Any], read: list[Any]) -> tuple[list[Any], list[Any]]:
        others = list(read)
        present = others.pop() if run.present is not None else None
        if per_step is not None:
            carried = [carried[0] + others.pop(), *carried[1:]]
        handed = carried if present is None else [_where(present, r, ops.zeros_like(r)) for r in carried]
        to_x, *to_states = step_back(others, handed)
        to_y = ops.zeros_like(carried[0])
        if present is not None:
            kept = [_where(present, ops.zeros_like(r), r) for r in carried]
            to_y = to_y if order.zero_masked else kept[0]
            to_states = [r + k for r, k in zip(to_states, kept[1:], strict=True)]
        return [to_y, *to_states], [to_x]

    runs = [run] if run.reference is None else [run, run.reference]
    read = [tensor for one in runs for tensor in (one.elements, *one.states)]
    read += [r for r in (per_step, run.present) if r is not None]
    specs = [((None, *run.elements.shape[2:]), _wide(run.elements.dtype))]
    (_, *initial), (sequence,) = backend.scan(backward, start, read, specs, reverse=True)
    return [_batch_first(ops.flip(sequence, axis=0) if order.go_backwards else sequence), *initial]


def _in_order(tensor: Any, backwards: bool) -> Any:
    """Time first, in the order of computation."""
    moved = ops.moveaxis(tensor, 1, 0)
    return ops.flip(moved, axis=0) if backwards else moved


def _batch_first(tensor: Any) -> Any:
    return ops.moveaxis(tensor, 0, 1)


def _where(mask: Any, yes: Any, no: Any) -> Any:
    """Choose; a mask of samples, or of positions, holds for all that follows."""
    missing = len(yes.shape) - len(mask.shape)
    return ops.where(ops.expand_dims(mask, tuple(range(-missing, 0))) if missing > 0 else mask, yes, no)


def _wide(dtype: Any) -> str:
    name = keras.backend.standardize_dtype(dtype)
    return name if "float" in name and "16" not in name else "float32"


def _floating(tensor: Any) -> Any:
    return ops.cast(tensor, _wide(tensor.dtype))
