"""Which calls mix the samples of a batch though the batch axis stays: a flip along it, a softmax over it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from math import prod
from typing import Any

import keras
from keras import tree

from kxai.graph.foreign import Foreign
from kxai.graph.graph import Edge

# What they compute at one place depends on other places of their axes.
_ALONG = frozenset(
    "flip flipud fliplr roll rot90 cumsum cumprod nancumsum nancumprod sort take take_along_axis softmax log_softmax "
    "sparsemax normalize l2_normalize unit_norm rms_norm layer_norm center".split()
)
# The same, of all axes but the first.
_BATCH_FIRST = frozenset(
    "conv depthwise_conv conv_transpose max_pool average_pool resize gaussian_blur group_norm".split()
)
_FIXED = {"flipud": 0, "fliplr": 1, "softmax": -1, "log_softmax": -1, "sparsemax": -1}
_NAMES = ("axis", "axes", "dims")


def mixes_samples(one: Any, two: Any, edges: dict[int, Edge]) -> bool:
    """Whether a call makes an entry of a sample from those of others.

    Args:
        one, two: the call as it was recorded at two batch sizes.
        edges: edges of the tensors of ``one``, by identity.
    """
    pairs = zip([*one.tensors(), *one.outputs], [*two.tensors(), *two.outputs], strict=True)
    if any(_following(*pair) > 1 for pair in pairs):
        return True
    data = [x for x in tree.flatten(one.args[:1]) if isinstance(x, keras.KerasTensor)]
    carriers = [edges[id(x)] for x in data if edges[id(x)].batch is not None]
    return any(_mixes(one, edge, edges[id(one.outputs[0])]) for edge in carriers)


def _following(one: Any, two: Any) -> int:
    """How many axes of a tensor follow the batch."""
    return sum(a != b for a, b in zip(one.shape, two.shape, strict=True))


def _mixes(call: Any, edge: Edge, output: Edge) -> bool:
    axis, factor = edge.batch or (0, 1)
    if call.op in _ALONG:
        return axis in _axes(call, len(edge.shape))
    if call.op in _BATCH_FIRST:
        return axis != 0
    if factor > 1 or output.batch is None:
        return False  # which sample owns which place is not known; without a batch axis the node is refused anyway
    if call.op == "get_item":
        return not _takes_all(call.args[1], axis, len(edge.shape))
    if call.op == "reshape" and output.batch[1] == 1:
        before, after = _known(edge.shape[:axis]), _known(output.shape[: output.batch[0]])
        return before is not None and after is not None and prod(before) != prod(after)
    return False


def _known(sizes: Sequence[int | None]) -> list[int] | None:
    """The sizes, None if one of them is not known."""
    found = [size for size in sizes if size is not None]
    return found if len(found) == len(sizes) else None


def _axes(call: Any, rank: int) -> tuple[int, ...]:
    """The axes that an operation of ``_ALONG`` works along."""
    found = _attribute(call)
    if found is None:
        found = range(rank)
    several = isinstance(found, (list, tuple, range))
    return tuple(axis % rank for axis in (found if several else (found,)) if isinstance(axis, int))


def _attribute(call: Any) -> Any:
    default = _FIXED.get(call.op)
    if isinstance(call.operation, Foreign):
        parameters = inspect.signature(call.operation.function).parameters
        name = next((name for name in _NAMES if name in parameters), None)
        found = None if name is None else call.operation.options.get(name, parameters[name].default)
        # What tf.gather takes lies behind the axes that it pairs.
        return call.operation.options.get("batch_dims") or default if found is None else found
    holder = {} if call.operation is None else vars(call.operation)
    if not any(name in holder for name in _NAMES) and call.layer is not None:
        holder = vars(call.layer)
    return next((holder[name] for name in _NAMES if name in holder), -1 if default is None else default)


def _takes_all(key: Any, axis: int, rank: int) -> bool:
    """Whether a key leaves an axis as it is."""
    entries: Sequence[Any] = key if isinstance(key, tuple) else (key,)
    if any(not isinstance(entry, (int, slice, type(None), type(Ellipsis))) for entry in entries):
        return axis != 0  # an array chooses along the axes that it stands for; elsewhere than first this is not read
    consuming = sum(entry is not None and entry is not Ellipsis for entry in entries)
    expanded: list[Any] = []
    for entry in entries:
        expanded += [slice(None)] * (rank - consuming) if entry is Ellipsis else [] if entry is None else [entry]
    return axis >= len(expanded) or expanded[axis] == slice(None)
