"""Recurrent layers: a loop whose body, one step of the cell, is a graph of its own.

A cell's gates are computed by one affine map of the joined input and state, as in Arras et al. 2017, wherever the
cell allows it: what input and state contribute then shares one denominator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import keras
from keras import ops, tree

from kxai.errors import ModelError
from kxai.graph.affine import Affine
from kxai.graph.classify import layers_named
from kxai.graph.graph import Kind, Order


@final
@dataclass(frozen=True, eq=False)
class RecordedStep:
    """One step as it was recorded: (x_t, states) -> (y_t, states), with the order of the steps.

    The call that holds it has the arguments ``(sequence, mask or None, *given states)``.
    """

    inputs: list[Any]
    calls: list[Any]
    outputs: list[Any]
    order: Order


def _recurrent(
    record: Any, layer: Any, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = False
) -> Any:
    mask = tree.flatten(mask)[0]
    given = [] if initial_state is None else tree.flatten(initial_state)
    batch, training = sequences.shape[0], bool(training)
    structure = layer.get_initial_state(batch)

    def closed(sequences: Any, mask: Any, *states: Any) -> Any:
        initial = tree.pack_sequence_as(structure, list(states)) if states else None
        # Whatever the layer would assign (its state, that of its random generator) is dropped.
        with keras.StatelessScope():
            return layer.call(sequences, initial_state=initial, mask=mask, training=training)

    step = _recorded(record, layer, sequences, given or tree.flatten(structure), structure, training)
    steps = (sequences.shape[1],) if layer.return_sequences else ()
    output = keras.KerasTensor((batch, *steps, *step.outputs[0].shape[1:]), layer.compute_dtype)
    states = [keras.KerasTensor(state.shape, layer.compute_dtype) for state in step.outputs[1:]]
    outputs = (output, *tree.pack_sequence_as(structure, states)) if layer.return_state else output
    reason = _unfit(layer, mask)
    kind, loop = (Kind.OPAQUE, None) if reason else (Kind.RECURRENT, step)
    arguments = [sequences, mask, *given]
    return record.emit("recurrent", kind, closed, arguments, outputs, layer=layer, loop=loop, reason=reason)


def _unfit(layer: Any, mask: Any) -> str:
    """Why a layer does not compute what its cell computes step by step; "" if it does."""
    if not type(layer).inner_loop.__module__.startswith("keras."):
        return f"{type(layer).__name__} has a loop of its own"
    if mask is not None and layer.unroll and layer.go_backwards and layer.zero_output_for_mask:
        return "an unrolled layer that goes backwards applies its mask to the outputs in the wrong order"
    return ""


def _recorded(record: Any, layer: Any, sequences: Any, states: list[Any], structure: Any, training: bool) -> Any:
    """One step, recorded apart from the calls of the model."""
    cell, stateful = layer.cell, layer.stateful
    x = keras.KerasTensor((sequences.shape[0], *sequences.shape[2:]), sequences.dtype)
    before = [keras.KerasTensor(state.shape, cell.compute_dtype) for state in states]
    packed = tree.pack_sequence_as(structure, before)
    convolutional = isinstance(layer, _CONV_LSTM) and type(cell).__module__.startswith("keras.")
    with record.apart(*([cell.name] if convolutional else [])) as calls:
        if convolutional:
            y, after = _conv_lstm_cell(record, cell, x, packed, training)
        else:
            y, after = cell(x, packed, training=True) if training else cell(x, packed)

    def start(batch: Any) -> list[Any]:
        held = layer.states if stateful else layer.get_initial_state(batch)
        return [_widened(ops.convert_to_tensor(state)) for state in tree.flatten(held)]

    order = Order(
        start=start,
        go_backwards=layer.go_backwards,
        return_sequences=layer.return_sequences,
        zero_masked=layer.zero_output_for_mask,
        batch=int(tree.flatten(layer.states)[0].shape[0]) if stateful else None,
    )
    return RecordedStep([x, *before], calls, [y, *tree.flatten(after)], order)


def _widened(tensor: Any) -> Any:
    return ops.cast(tensor, "float32") if "float16" in keras.backend.standardize_dtype(tensor.dtype) else tensor


def _dense(record: Any, cell: Any, x: Any, kernel: Any, bias: Any, width: int, suffix: str = "") -> Any:
    affine = Affine(linear=ops.matmul, kernel=kernel, bias=bias, kernel_out=(1, -1), kernel_in=(-1, 1))
    outputs = keras.KerasTensor((x.shape[0], width), cell.compute_dtype)
    return record.emit("dense", Kind.AFFINE, affine, [x], outputs, layer=cell, affine=affine, suffix=suffix)


def _joined(record: Any, cell: Any, x: Any, h: Any, width: int) -> Any:
    """``[x, h] [K; U] + b`` as one affine map."""

    def kernel() -> Any:
        return ops.concatenate([ops.convert_to_tensor(cell.kernel), ops.convert_to_tensor(cell.recurrent_kernel)])

    bias = (lambda: ops.convert_to_tensor(cell.bias)) if cell.use_bias else None
    return _dense(record, cell, ops.concatenate([x, h], axis=-1), kernel, bias, width)


def _check_dropout(cell: Any, training: Any) -> None:
    if training and (cell.dropout or cell.recurrent_dropout):
        raise ModelError(
            f"Layer {cell.name!r} draws random numbers for its dropout when called with training=True.",
            expected="layers without randomness",
            fix="call it without training, or with training=False.",
        )


def _simple_rnn_cell(record: Any, cell: Any, x: Any, states: Any, training: Any = False) -> Any:
    _check_dropout(cell, training)
    h = states[0] if isinstance(states, (list, tuple)) else states
    z = _joined(record, cell, x, h, cell.units)
    h = record.activate(cell.activation, z, layer=cell)
    return h, [h] if isinstance(states, (list, tuple)) else h


def _lstm_cell(record: Any, cell: Any, x: Any, states: Any, training: Any = False) -> Any:
    _check_dropout(cell, training)
    h, c = states
    return _lstm_step(record, cell, _joined(record, cell, x, h, 4 * cell.units), c, -1)


def _lstm_step(record: Any, cell: Any, z: Any, c: Any, axis: int) -> Any:
    """``c' = f c + i g`` and ``h = o act(c')``, from the pre-activations of i, f, g and o."""
    z_i, z_f, z_g, z_o = ops.split(z, 4, axis=axis)
    i, f, o = (record.activate(cell.recurrent_activation, gate, layer=cell) for gate in (z_i, z_f, z_o))
    c = ops.add(ops.multiply(f, c), ops.multiply(i, record.activate(cell.activation, z_g, layer=cell)))
    h = ops.multiply(o, record.activate(cell.activation, c, layer=cell))
    return h, [h, c]


def _gru_cell(record: Any, cell: Any, x: Any, states: Any, training: Any = False) -> Any:
    _check_dropout(cell, training)
    h, units = states[0] if tree.is_nested(states) else states, cell.units

    def bias(row: int) -> Any:
        if not cell.use_bias or (row and not cell.reset_after):
            return None
        return (lambda: ops.convert_to_tensor(cell.bias)[row]) if cell.reset_after else lambda: +cell.bias

    def recurrent(start: int, stop: int) -> Any:
        return lambda: ops.convert_to_tensor(cell.recurrent_kernel)[:, start * units : stop * units]

    z_x = _dense(record, cell, x, lambda: ops.convert_to_tensor(cell.kernel), bias(0), 3 * units, "input")
    parts = 3 if cell.reset_after else 2
    z_h = _dense(record, cell, h, recurrent(0, parts), bias(1), parts * units, "state")
    (x_z, x_r, x_h), (h_z, h_r, *h_h) = ops.split(z_x, 3, axis=-1), ops.split(z_h, parts, axis=-1)
    z, r = (record.activate(cell.recurrent_activation, gate, layer=cell) for gate in (x_z + h_z, x_r + h_r))
    if cell.reset_after:
        inner = ops.multiply(r, h_h[0])
    else:
        inner = _dense(record, cell, ops.multiply(r, h), recurrent(2, 3), None, units, "candidate")
    candidate = record.activate(cell.activation, x_h + inner, layer=cell)
    h = ops.add(ops.multiply(z, h), ops.multiply(1 - z, candidate))
    return h, [h] if tree.is_nested(states) else h


def _conv_lstm_cell(record: Any, cell: Any, x: Any, states: Any, training: Any = False) -> Any:
    _check_dropout(cell, training)
    h, c = states
    first, ones = cell.data_format == "channels_first", (1,) * cell.rank
    axis = -1 - cell.rank if first else -1
    shape = list(c.shape)
    shape[axis] *= 4

    def conv(x: Any, linear: Any, weight: str, bias: Any, pads: bool, suffix: str) -> Any:
        affine = Affine(
            linear=linear, kernel=lambda: ops.convert_to_tensor(getattr(cell, weight)), bias=bias,
            kernel_out=(*ones, 1, -1), kernel_in=(*ones, -1, 1), axis=axis, pads=pads,
        )  # fmt: skip
        outputs = keras.KerasTensor(shape, cell.compute_dtype)
        return record.emit("conv", Kind.AFFINE, affine, [x], outputs, layer=cell, affine=affine, suffix=suffix)

    def input_conv(x: Any, kernel: Any) -> Any:
        return cell.input_conv(x, kernel, padding=cell.padding)

    bias = (lambda: ops.reshape(cell.bias, (-1,) + (1,) * (-1 - axis))) if cell.use_bias else None
    z_x = conv(x, input_conv, "kernel", bias, cell.padding != "valid", "input")
    z_h = conv(h, cell.recurrent_conv, "recurrent_kernel", None, True, "state")
    return _lstm_step(record, cell, ops.add(z_x, z_h), c, axis)


def _bidirectional(
    record: Any, layer: Any, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = None
) -> Any:
    half = 0 if initial_state is None else len(initial_state) // 2
    results = []
    for inner, begin in ((layer.forward_layer, 0), (layer.backward_layer, half)):
        given = {} if initial_state is None else {"initial_state": initial_state[begin : begin + half]}
        results.append(inner(sequences, mask=mask, training=training, **given))
    states: tuple[Any, ...] = ()
    if layer.return_state:
        states = tuple(state for result in results for state in result[1:])
        results = [result[0] for result in results]
    forth, back = results
    if layer.return_sequences:
        back = ops.flip(back, axis=1)
    if layer.merge_mode is None:
        return (forth, back, *states)
    merged = _MERGES[layer.merge_mode](forth, back)
    return (merged, *states) if layer.return_state else merged


_MERGES: dict[str, Callable[[Any, Any], Any]] = {
    "concat": lambda a, b: ops.concatenate([a, b], axis=-1),
    "sum": ops.add,
    "ave": lambda a, b: ops.divide(ops.add(a, b), 2),
    "mul": ops.multiply,
}
_CONV_LSTM = layers_named("ConvLSTM1D ConvLSTM2D ConvLSTM3D")

RECURRENT_EXPANSIONS: dict[type, Callable[..., Any]] = {
    layer: expansion
    for names, expansion in (
        ("SimpleRNN GRU LSTM RNN ConvLSTM1D ConvLSTM2D ConvLSTM3D", _recurrent),
        ("SimpleRNNCell", _simple_rnn_cell),
        ("GRUCell", _gru_cell),
        ("LSTMCell", _lstm_cell),
        ("Bidirectional", _bidirectional),
    )
    for layer in layers_named(names)
}
