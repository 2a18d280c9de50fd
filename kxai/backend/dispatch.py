"""TensorFlow's functions on symbolic tensors: where TensorFlow gives up, somebody else may answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, final

import keras
import tensorflow as tf
from keras import tree
from tensorflow.python.util import dispatch

# (function, args, kwargs) -> the result, or None to leave the error to TensorFlow.
Handler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


@final
class _Dispatcher(dispatch.GlobalOpDispatcher):
    """Asks the handler about every function that was given a symbolic tensor and could not use it."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def handle(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not any(isinstance(leaf, keras.KerasTensor) for leaf in tree.flatten((args, kwargs))):
            return self.NOT_SUPPORTED
        result = self._handler(op, args, kwargs)
        return self.NOT_SUPPORTED if result is None else result


@contextlib.contextmanager
def foreign_calls(handler: Handler) -> Iterator[None]:
    """Inside, ``handler`` answers for TensorFlow's functions that are called with symbolic tensors.

    TensorFlow offers to register such a dispatcher, but not to take it back, so its list is kept in order here.
    """
    dispatcher = _Dispatcher(handler)
    dispatch._GLOBAL_DISPATCHERS.append(dispatcher)
    try:
        yield
    finally:
        dispatch._GLOBAL_DISPATCHERS.remove(dispatcher)


def output_spec(function: Callable[..., Any], args: Any) -> Any:
    """What ``function(*args)`` returns, as symbolic tensors; symbolic tensors among ``args`` give shapes and dtypes."""
    symbolic = [leaf for leaf in tree.flatten(args) if isinstance(leaf, keras.KerasTensor)]

    def run(*tensors: Any) -> Any:
        rest = iter(tensors)
        return function(
            *tree.map_structure(lambda leaf: next(rest) if isinstance(leaf, keras.KerasTensor) else leaf, args)
        )

    specs = [tf.TensorSpec(leaf.shape, leaf.dtype) for leaf in symbolic]
    outputs = tf.function(run, autograph=False).get_concrete_function(*specs).structured_outputs
    return tree.map_structure(lambda y: keras.KerasTensor(y.shape.as_list(), y.dtype.name), outputs)
