"""TensorFlow: vector-Jacobian products, compilation, conversion."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

# TensorFlow's own functions that models use as activations -> their Keras names.
ACTIVATIONS: dict[Any, str] = {
    tf.nn.relu: "relu",
    tf.nn.relu6: "relu6",
    tf.nn.elu: "elu",
    tf.nn.selu: "selu",
    tf.nn.gelu: "gelu",
    tf.nn.silu: "silu",
    tf.nn.softplus: "softplus",
    tf.nn.softsign: "softsign",
    tf.nn.tanh: "tanh",
    tf.nn.sigmoid: "sigmoid",
    tf.nn.leaky_relu: "leaky_relu",
    tf.nn.softmax: "softmax",
    tf.nn.log_softmax: "log_softmax",
}

T = TypeVar("T")
# TensorFlow has no derivative of an operation.
NoDerivative = LookupError
Pullback = Callable[[Sequence[Any]], list[Any]]

_traces = 0  # how often any compiled function was traced


def vjp(function: Callable[..., Any], *inputs: Any) -> tuple[tuple[Any, ...], Pullback]:
    """Run ``function`` and keep its pullback.

    In a compiled function the pullback costs nothing until it is called, and nothing of the forward pass is computed
    a second time.

    Args:
        function: tensors -> tensor or tuple of tensors.
        inputs: tensors; integer ones get None from the pullback.

    Returns:
        (outputs, pullback): the outputs as a tuple; ``pullback(cotangents)`` takes one cotangent (or None) per output
        and returns one tensor per input, zeros where an input has no influence.

    Raises:
        NoDerivative: (by the pullback) TensorFlow has no derivative of an operation in ``function``.
    """
    # A tensor that is given twice is two inputs, each with its own part of the gradient.
    inputs = tuple(tf.identity(x) if any(x is y for y in inputs[:i]) else x for i, x in enumerate(inputs))
    watched = [x for x in inputs if x.dtype.is_floating]
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(watched)
        result = function(*inputs)
        outputs = tuple(result) if isinstance(result, (tuple, list)) else (result,)

    def pullback(cotangents: Sequence[Any]) -> list[Any]:
        pairs = [(y, c) for y, c in zip(outputs, cotangents, strict=True) if c is not None and y.dtype.is_floating]
        if not pairs or not watched:
            return [tf.zeros_like(x) if x.dtype.is_floating else None for x in inputs]
        gradients = iter(
            tape.gradient(
                [y for y, _ in pairs],
                watched,
                output_gradients=[c for _, c in pairs],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
        )
        return [with_shape(_dense(next(gradients)), x.shape) if x.dtype.is_floating else None for x in inputs]

    return outputs, pullback


def reached(function: Callable[..., Any], specs: Sequence[tuple[Sequence[int | None], str]]) -> list[bool]:
    """Which inputs of a function its derivative depends on; nothing is computed.

    Args:
        function: tensors -> tensor or tuple of tensors.
        specs: (shape, dtype) of each input.
    """
    found: list[bool] = []

    def probe(*tensors: Any) -> Any:
        watched = [x for x in tensors if x.dtype.is_floating]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            outputs = [y for y in tf.nest.flatten(function(*tensors)) if y.dtype.is_floating]
        gradients = iter(tape.gradient(outputs, watched) if outputs else [None] * len(watched))
        found.extend(x.dtype.is_floating and next(gradients) is not None for x in tensors)
        return tf.constant(True)

    tf.function(probe, autograph=False).get_concrete_function(*(tf.TensorSpec(*spec) for spec in specs))
    return found


def jvp(function: Callable[..., Any], inputs: Sequence[Any], directions: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Run ``function`` and its derivative along a direction.

    Args:
        function: tensors -> sequence of floating-point tensors.
        inputs: floating-point tensors of one dtype.
        directions: one tensor per input, of its shape.

    Returns:
        (outputs, derivative of each along the direction; zeros where there is none).

    Raises:
        NoDerivative: TensorFlow has no derivative of an operation in ``function``.
    """
    outputs, pull = vjp(function, *inputs)
    # The pullback is linear in its cotangents: its derivative by them is the derivative forward. TensorFlow's own
    # forward mode cannot follow its loops.
    cotangents = [tf.zeros_like(y) for y in outputs]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(cotangents)
        pairs = zip(pull(cotangents), directions, strict=True)
        total = sum((tf.reduce_sum(back * along) for back, along in pairs), tf.zeros((), inputs[0].dtype))
    slopes = tape.gradient(total, cotangents, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return list(outputs), [with_shape(slope, y.shape) for slope, y in zip(slopes, outputs, strict=True)]


def with_shape(tensor: Any, shape: Any) -> Any:
    """The tensor, with the static sizes of ``shape`` where its own are not known."""
    if not isinstance(tensor, tf.Tensor) or tensor.shape.is_fully_defined():
        return tensor
    known, wanted = tensor.shape, tf.TensorShape(shape)
    if not known.is_compatible_with(wanted):
        return tensor
    merged = known.merge_with(wanted)
    same = known.rank is not None and known.as_list() == merged.as_list()
    return tensor if same else tf.ensure_shape(tensor, merged)


def scan(
    step: Callable[..., tuple[Sequence[Any], Sequence[Any]]],
    carried: Sequence[Any],
    read: Sequence[Any],
    written: Sequence[tuple[Any, Any]],
    reverse: bool = False,
) -> tuple[list[Any], list[Any]]:
    """Run ``step`` once per element of the first axis of ``read``, in a loop: one copy of it, however many elements.

    Args:
        step: (carried, elements) -> (carried, written), sequences of tensors; what it carries keeps shape and dtype.
        carried: tensors before the first step, the batch on their first axis.
        read: tensors whose first axis is the time.
        written: (shape, dtype) of what a step writes; None in a shape is any size.
        reverse: whether the last element comes first.

    Returns:
        (carried after the last step, what was written, with the time of ``read`` as first axis).
    """
    count = tf.shape(read[0])[0] if read[0].shape[0] is None else read[0].shape[0]
    shapes = [tf.TensorShape([None, *x.shape[1:]]) for x in carried]
    arrays = [tf.TensorArray(dtype, count, element_shape=tf.TensorShape(shape)) for shape, dtype in written]

    def body(index: Any, carried: Any, arrays: Any) -> Any:
        place = count - 1 - index if reverse else index
        after, results = step(list(carried), [x[place] for x in read])
        after = [tf.ensure_shape(x, shape) for x, shape in zip(after, shapes, strict=True)]
        return index + 1, after, [a.write(place, x) for a, x in zip(arrays, results, strict=True)]

    _, last, arrays = tf.while_loop(
        lambda index, *_: index < count,
        body,
        (tf.constant(0), list(carried), arrays),
        shape_invariants=(tf.TensorShape([]), shapes, [tf.TensorShape(None)] * len(arrays)),
        maximum_iterations=count,
        parallel_iterations=1,
    )
    return list(last), [array.stack() for array in arrays]


def repeat(step: Callable[[Any, Any], Any], count: int, carried: Any, going: Callable[[Any], Any] | None = None) -> Any:
    """Run ``step`` again and again in a loop: one copy of it, however often.

    Args:
        step: (index, carried) -> carried, nested tensors that keep shape (but for the first axis) and dtype.
        count: how often.
        carried: before the first step.
        going: carried -> whether there is more to do; None: always.

    Returns:
        What is carried after the last step.
    """
    packed = tf.nest.map_structure(tf.convert_to_tensor, carried)
    flat = tf.nest.flatten(packed)
    shapes = [tf.TensorShape([None, *x.shape[1:]] if x.shape.rank else []) for x in flat]

    def body(index: Any, *before: Any) -> Any:
        after = tf.nest.flatten(step(index, tf.nest.pack_sequence_as(packed, before)))
        return index + 1, *(tf.ensure_shape(x, shape) for x, shape in zip(after, shapes, strict=True))

    def more(index: Any, *before: Any) -> Any:
        left = index < count
        return left if going is None else left & going(tf.nest.pack_sequence_as(packed, before))

    _, *last = tf.while_loop(
        more,
        body,
        (tf.constant(0), *flat),
        shape_invariants=(tf.TensorShape([]), *shapes),
        maximum_iterations=count,
        parallel_iterations=1,
    )
    return tf.nest.pack_sequence_as(packed, last)


def asserted(tensor: Any, condition: Any, message: str) -> Any:
    """The tensor, in a graph that fails with this message unless the condition holds when it runs.

    Args:
        tensor: any.
        condition: boolean tensor of any shape, true throughout.
        message: what went wrong.
    """
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(condition), [message])]):
        return tf.identity(tensor)


def compile(function: Callable[..., Any], signature: Any, jit: bool = False) -> Callable[..., Any]:
    """Compile ``function`` once for all batch sizes.

    Args:
        function: takes and returns nested structures of tensors.
        signature: per argument a nested structure of (shape, dtype name); None in a shape is any size.
        jit: compile with XLA.
    """
    specs = [
        tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), argument) for argument in signature
    ]

    def traced(*arguments: Any) -> Any:
        global _traces
        _traces += 1
        # Step by step (see eagerly) the arguments arrive as they are.
        return function(*tf.nest.map_structure(tf.convert_to_tensor, arguments))

    # TensorFlow counts traces per code object, and would warn of "retracing" when many models are explained. A partial
    # has none, so each program counts for itself.
    program = functools.partial(traced)
    return tf.function(program, input_signature=specs, autograph=False, jit_compile=jit or None)


def constant(array: np.ndarray, dtype: str) -> Any:
    """An array as a tensor that compiled functions read and do not hold a copy of, even if made while they compile."""
    with tf.init_scope():
        return tf.constant(array, dtype)


def is_eager() -> bool:
    """Whether operations are computed at once, not recorded for a graph."""
    return bool(tf.executing_eagerly())


def trace_count() -> int:
    """How often functions of :func:`compile` were traced so far, in all threads."""
    return _traces


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Inside, compiled functions run step by step instead: the slow way to the same numbers."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def to_numpy(tensor: Any) -> np.ndarray:
    """A tensor as an array."""
    # NumPy alone does not know what to do with a bfloat16 scalar.
    return np.asarray(tensor.numpy() if isinstance(tensor, tf.Tensor) else tensor)


def is_dataset(value: Any) -> bool:
    """Whether ``value`` is a ``tf.data.Dataset``."""
    return isinstance(value, tf.data.Dataset)


def dataset_batches(dataset: Any, batch_size: int, rank: int | None) -> Iterator[Any]:
    """Batches of inputs of a dataset, as arrays.

    Args:
        dataset: elements are inputs, or tuples of which the first entry is the inputs (as for ``model.fit``).
        batch_size: used when the elements are single samples.
        rank: rank of the model's first input with its batch axis, tells single samples from batches; None: batches.
    """
    spec = dataset.element_spec
    if isinstance(spec, tuple):
        dataset = dataset.map(lambda *element: element[0])
    first = tf.nest.flatten(dataset.element_spec)[0]
    if rank is not None and first.shape.rank == rank - 1:
        dataset = dataset.batch(batch_size)
    return dataset.as_numpy_iterator()


def watched(function: Callable[[], T]) -> tuple[T, list[Any]]:
    """Run ``function``; return its result and the trainable ``tf.Variable`` objects that it read."""
    with tf.GradientTape() as tape:
        result = function()
    return result, list(tape.watched_variables())


def _dense(gradient: Any) -> Any:
    return tf.convert_to_tensor(gradient)
