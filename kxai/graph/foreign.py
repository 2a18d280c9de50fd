"""TensorFlow's own functions in a layer's call: their kinds, and the form in which they are recorded."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, final

import keras
import numpy as np
from keras import ops, tree

from kxai.graph.graph import Kind

# Name of the function, and after ":" the canonical name of the operation if it is another.
_FUNCTIONS = {
    Kind.ROUTE: """
        reshape concat:concatenate transpose squeeze expand_dims expand_dims_v2:expand_dims tile pad pad_v2:pad stack
        unstack split gather:take gather_v2:take slice strided_slice reverse_v2:flip reverse:flip roll broadcast_to
        where_v2:where where identity:copy convert_to_tensor_v2_with_dispatch:convert_to_tensor cast repeat
        depth_to_space depth_to_space_v2:depth_to_space space_to_depth space_to_depth_v2:space_to_depth
        extract_image_patches_v2:extract_patches top_k:top_k""",
    Kind.MAX: """
        reduce_max:max reduce_min:min maximum minimum max_pool1d:max_pool max_pool2d:max_pool max_pool3d:max_pool
        max_pool_v2:max_pool""",
    Kind.SUM: """
        reduce_mean:mean reduce_sum:sum add _add_dispatch:add subtract negative bias_add cumsum
        avg_pool1d:average_pool avg_pool2d:average_pool avg_pool3d:average_pool avg_pool_v2:average_pool
        resize_images_v2:resize""",
    Kind.PRODUCT: "multiply divide truediv:divide div_no_nan:divide_no_nan",
    Kind.BILINEAR: "matmul einsum tensordot",
    Kind.AFFINE: """
        conv2d:conv conv2d_v2:conv conv3d_v2:conv convolution_v2:conv depthwise_conv2d:depthwise_conv
        depthwise_conv2d_v2:depthwise_conv""",
    Kind.SOFTMAX: "softmax softmax_v2:softmax log_softmax log_softmax_v2:log_softmax",
    Kind.NORM: "l2_normalize",
    Kind.LOOKUP: "embedding_lookup:take embedding_lookup_v2:take one_hot",
    Kind.ELEMENTWISE: """
        relu relu6 elu selu gelu swish:silu leaky_relu sigmoid tanh softplus softsign exp expm1 log log1p sqrt rsqrt
        square abs pow:power clip_by_value:clip sin cos tan sinh cosh asinh atan erf reciprocal log_sigmoid
        squared_difference stop_gradient sign round floor ceil zeros_like zeros_like_v2:zeros_like ones_like
        ones_like_v2:ones_like""",
}
FUNCTIONS: dict[str, tuple[str, Kind]] = {
    entry.partition(":")[0]: (entry.rpartition(":")[2], kind)
    for kind, names in _FUNCTIONS.items()
    for entry in names.split()
}
# Their two operands stay operands even if one is a Python number.
_BINARY = frozenset("add _add_dispatch subtract multiply divide truediv div_no_nan maximum minimum pow".split())


@final
class Foreign:
    """A call of a TensorFlow function in the form of a Keras operation: tensors are arguments, the rest attributes."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function = function
        self.name = function.__name__
        signature = inspect.signature(function)
        arguments = signature.bind(*args, **kwargs).arguments
        arguments.pop("name", None)
        operands = list(arguments)[:2] if self.name in _BINARY else []
        self.places = [name for name, value in arguments.items() if name in operands or _holds_tensor(value)]
        self.options = {name: value for name, value in arguments.items() if name not in self.places}
        self.starred = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_POSITIONAL), "")

    @classmethod
    def recorded(
        cls, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Foreign, tuple[Any, ...]]:
        """(the operation, its operands)."""
        operation = cls(function, args, kwargs)
        arguments = inspect.signature(function).bind(*args, **kwargs).arguments
        operands: list[Any] = []
        for place in operation.places:
            operands += arguments[place] if place == operation.starred else [arguments[place]]
        return operation, tuple(operands)

    def call(self, *operands: Any) -> Any:
        """The function on tensors in the places of its operands."""
        arguments, rest = dict(self.options), list(operands)
        for place in self.places:
            arguments[place] = tuple(rest) if place == self.starred else rest.pop(0)
        signature = inspect.signature(self.function)
        ordered = {name: arguments[name] for name in signature.parameters if name in arguments}
        bound = inspect.BoundArguments(signature, ordered)
        return self.function(*bound.args, **bound.kwargs)

    def kind(self, operands: tuple[Any, ...]) -> tuple[str, Kind, str]:
        """(operation, kind, why it is OPAQUE)."""
        if self.name not in FUNCTIONS:
            return self.name, Kind.OPAQUE, f"kxai has no rule for TensorFlow's {self.name}"
        op, kind = FUNCTIONS[self.name]
        if op == "matmul" and any(self.options.values()):
            return "matmul_transposed", kind, ""
        if op == "take" and _is_table(operands[0]) and self._takes_rows(operands):
            return op, Kind.LOOKUP, ""
        if op == "one_hot":
            last = self.options.get("axis") in (None, -1)
            reason = "" if last else "one_hot does not put its classes on the last axis"
            return op, kind if last else Kind.OPAQUE, reason
        if op == "bias_add" and not str(self.options.get("data_format")).startswith("NC"):
            return "add", kind, ""
        return op, (Kind.ROUTE if kind is Kind.LOOKUP else kind), ""

    def _takes_rows(self, operands: tuple[Any, ...]) -> bool:
        plain = all(self.options.get(name) in (None, 0) for name in ("axis", "batch_dims"))
        return plain and len(operands) == 2 and isinstance(operands[1], keras.KerasTensor)


def _is_table(value: Any) -> bool:
    return not isinstance(value, (keras.KerasTensor, list, tuple)) and len(value.shape) == 2


def _holds_tensor(value: Any) -> bool:
    kinds = (keras.KerasTensor, keras.Variable, np.ndarray)
    return any(isinstance(leaf, kinds) or ops.is_tensor(leaf) for leaf in tree.flatten(value))
