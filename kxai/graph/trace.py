"""The tracer: a Keras model -> a flat graph of primitive calls. The only reader of Keras privates.

The model is called once on symbolic tensors while every layer and operation call is recorded. Primitive layers stay
nodes under the user's own names; composite and custom layers are opened. This is done twice, for two batch sizes:
what differs between the two recordings follows the batch size, so one graph serves every batch.
"""

from __future__ import annotations

import collections
import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import keras
import keras.src.layers.layer as layer_module
from keras import tree
from keras.src.backend.common import global_state

from kxai import backend
from kxai.errors import KxaiError, ModelError
from kxai.graph.assemble import assemble
from kxai.graph.graph import Graph
from kxai.graph.join import Unjoinable
from kxai.graph.recorder import Recorder

BATCH_SIZES = (2, 3)
_THREAD = threading.local()
_LOCK = threading.RLock()


@final
@dataclass(frozen=True)
class InputSpec:
    """Shape (with the batch axis, None where free) and dtype of one model input."""

    shape: tuple[int | None, ...]
    dtype: str
    name: str


def input_specs(model: Any, example: Any = None) -> Any:
    """What the model expects, as a nested structure of InputSpec.

    Args:
        model: a Keras model.
        example: nested structure of arrays, to take shapes and dtypes from where the model does not declare them
            (subclassed models).

    Raises:
        ModelError: the model declares no input and no example was given.
    """
    check_model(model)
    declared = _declared_inputs(model)
    if declared is not None:
        flat = tree.flatten(declared)
        specs = [InputSpec((None, *t.shape[1:]), keras.backend.standardize_dtype(t.dtype), t.name) for t in flat]
        return tree.pack_sequence_as(declared, specs)
    if example is not None:
        pairs = [("/".join(map(str, path)) or "input", x) for path, x in tree.flatten_with_path(example)]
        specs = [InputSpec((None, *x.shape[1:]), keras.backend.standardize_dtype(x.dtype), name) for name, x in pairs]
        return tree.pack_sequence_as(example, specs)
    shape = (model.get_build_config() or {}).get("input_shape")
    if isinstance(shape, (tuple, list)) and shape and all(size is None or isinstance(size, int) for size in shape):
        return InputSpec((None, *shape[1:]), "float32", "input")
    raise ModelError(
        f"Model {model.name!r} does not say what its inputs look like (it is subclassed).",
        fix="pass an example batch: kxai.plan(model, method, inputs=x), or call analyzer.explain(x) first.",
    )


def check_model(model: Any) -> None:
    """Raise ModelError unless ``model`` is a built Keras model."""
    if not isinstance(model, keras.Layer):
        raise ModelError(
            "Only Keras models can be explained.",
            expected="a keras.Model of Keras 3",
            received=f"{type(model).__module__}.{type(model).__qualname__}",
            fix="load a file with kxai.load(path); wrap foreign code in a Keras layer.",
        )
    if not model.built or (isinstance(model, keras.Sequential) and not model.inputs):
        raise ModelError(
            f"Model {model.name!r} has not been built: it has no weights yet.",
            fix="call the model once on a batch of data, or model.build(input_shape), before explaining it.",
        )
    half = {v.dtype for v in model.variables if v.dtype in ("float16", "bfloat16")}
    if half:
        raise ModelError(
            f"The weights of model {model.name!r} are in half precision.",
            expected="weights in float32 or float64; policies mixed_float16 and mixed_bfloat16 have them",
            received=", ".join(sorted(half)),
            fix='build the model with dtype="float32" and give it the weights: new.set_weights(model.get_weights()).',
        )
    _, *others = inspect.signature(model.call).parameters.values()
    required = [p.name for p in others if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if required:
        raise ModelError(
            f"Model {model.name!r} takes its inputs as several arguments.",
            expected="call(self, inputs), where inputs is a tensor, list, tuple or dictionary",
            received=f"call that also requires {', '.join(required)}",
            fix="take one structure and unpack it: def call(self, inputs): x, y = inputs.",
        )


def trace(model: Any, specs: Any, whole: tuple[type, ...] = ()) -> Graph:
    """Read the graph of a model, which is not changed in any way.

    Args:
        model: a built Keras model.
        specs: nested structure of InputSpec, as from :func:`input_specs`.
        whole: custom layer classes that are not opened, but stay one node.

    Returns:
        The graph, not canonized; shapes hold None where a size follows the batch.

    Raises:
        ModelError: not a Keras model, not built, quantised, or of different structure for different batch sizes.
    """
    check_model(model)
    closed: dict[str, str] = {}
    while True:
        recordings = [_record(model, specs, batch, closed, whole) for batch in BATCH_SIZES]
        names = _output_names(model, recordings[0].outputs)
        try:
            return assemble(specs, names, recordings, BATCH_SIZES)
        except Unjoinable as error:
            # Called as a whole, a custom layer may do with the batch size what it likes.
            if error.within is None or error.within in closed:
                raise ModelError(
                    f"Node {error.path!r} cannot be described for every batch size: {error}.",
                    fix="do not compute with the batch size outside custom layers; let constants broadcast.",
                ) from None
            closed[error.within] = str(error)


def predict(model: Any, tensors: Any) -> Any:
    """The model's outputs at inference, without what a call leaves behind in it, such as losses.

    Args:
        model: a built Keras model.
        tensors: structured like the specs of :func:`input_specs`.
    """
    with keras.StatelessScope():
        return model([tensors] if _takes_list_of_one(model) else tensors, training=False)


def call_counts(model: Any) -> dict[str, tuple[int, int]]:
    """How many calls Keras has recorded from and to each layer; reading a model's graph must not add to them."""
    return {
        f"{i} {layer.name}": (len(layer._inbound_nodes), len(layer._outbound_nodes))
        for i, layer in enumerate(model._flatten_layers())
    }


@final
@dataclass(frozen=True)
class Recording:
    """One symbolic run: its input tensors, its calls, its (nested) output tensors."""

    inputs: list[Any]
    calls: list[Any]
    outputs: Any


def _record(model: Any, specs: Any, batch: int, closed: dict[str, str], whole: tuple[type, ...]) -> Recording:
    def recording(recorder: Recorder) -> contextlib.AbstractContextManager[Recorder]:
        return _recording(recorder, _unbuilt(model))

    recorder = Recorder(model, closed, recording, whole)
    with recording(recorder):
        tensors = tree.map_structure(lambda s: keras.KerasTensor((batch, *s.shape[1:]), s.dtype), specs)
        try:
            outputs = model([tensors] if _takes_list_of_one(model) else tensors, training=False)
        except KxaiError as error:
            raise _original(error) from None
        return Recording(tree.flatten(tensors), recorder.calls, outputs)


def _original(error: BaseException) -> BaseException:
    """The error as it was raised, before Keras wrapped it into errors about every layer on the way out."""
    while isinstance(error.__context__, KxaiError):
        error = error.__context__
    return error


def _unbuilt(model: Any) -> dict[int, Any]:
    """Layers that would make weights if they were called now."""
    return {
        id(layer): layer
        for layer in model._flatten_layers()
        if not layer.built and type(layer).build is not keras.Layer.build
    }


@contextlib.contextmanager
def _recording(recorder: Recorder, unbuilt: dict[int, Any]) -> Iterator[Recorder]:
    """While active, symbolic calls in this thread go to ``recorder`` and leave no trace in Keras' own graph.

    Other threads see Keras as it is. Automatic names are counted by Keras per thread; the counter is put back, so
    that the user's next layer is called what it would have been called.
    """
    layer_call, operation_call = keras.Layer.symbolic_call, keras.Operation.symbolic_call
    maybe_build, node, assign = keras.Layer._maybe_build, layer_module.Node, keras.Variable.assign
    value = keras.Variable.value
    add_loss = keras.Layer.add_loss

    def active() -> Recorder | None:
        found: Recorder | None = getattr(_THREAD, "recorder", None)
        return None if found is None or found.paused else found

    def on_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
        found = active()
        return layer_call(layer, *args, **kwargs) if found is None else found.on_layer(layer, args, kwargs)

    def on_operation(operation: Any, *args: Any, **kwargs: Any) -> Any:
        found = active()
        if found is None:
            return operation_call(operation, *args, **kwargs)
        return found.on_operation(operation, args, kwargs)

    def on_foreign(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = active()
        return None if found is None else found.on_foreign(function, args, kwargs)

    def on_build(layer: Any, *args: Any) -> None:
        if getattr(_THREAD, "recorder", None) is not None and id(layer) in unbuilt:
            raise ModelError(
                f"Layer {layer.name!r} has not been built: it has no weights yet.",
                fix="call the model once on a batch of data before explaining it.",
            )
        maybe_build(layer, *args)

    def on_assign(variable: Any, value: Any) -> Any:
        found: Recorder | None = getattr(_THREAD, "recorder", None)
        if found is None:
            return assign(variable, value)
        raise ModelError(
            f"Layer {found.path!r} changes its state when called (variable {variable.path!r}).",
            expected="layers that leave their variables, and their random seeds, as they are at inference",
            fix="assign, or draw random numbers, only if training is True, and call the layer with training=False.",
        )

    def on_loss(layer: Any, loss: Any) -> None:
        # Losses are for training; those of a symbolic run would stay in the layer.
        if getattr(_THREAD, "recorder", None) is None:
            add_loss(layer, loss)

    def on_node(*args: Any, **kwargs: Any) -> Any:
        return None if getattr(_THREAD, "recorder", None) is not None else node(*args, **kwargs)

    def on_value(variable: Any) -> Any:
        found = active()
        # Keras computes shapes in graphs of its own; what is read there goes nowhere.
        if found is not None and backend.is_eager():
            found.reads += 1
        return value.fget(variable)

    patches = [
        (keras.Layer, "symbolic_call", on_layer),
        (keras.Operation, "symbolic_call", on_operation),
        (keras.Layer, "_maybe_build", on_build),
        (keras.Layer, "add_loss", on_loss),
        (keras.Variable, "assign", on_assign),
        (keras.Variable, "value", property(on_value)),
        (layer_module, "Node", on_node),
        *((keras.Variable, f"__{name}__", _with_symbolic(name, active)) for name in _OPERATORS),
    ]
    with _LOCK:
        uids = global_state.get_global_attribute("object_name_uids")
        originals = [(owner, name, vars(owner).get(name)) for owner, name, _ in patches]
        for owner, name, patch in patches:
            setattr(owner, name, patch)
        _THREAD.recorder = recorder
        if uids is not None:
            global_state.set_global_attribute("object_name_uids", collections.defaultdict(int, uids))
        try:
            with backend.foreign_calls(on_foreign):
                yield recorder
        finally:
            global_state.set_global_attribute("object_name_uids", uids)
            del _THREAD.recorder
            for owner, name, original in originals:
                if original is None:  # it was inherited
                    delattr(owner, name)
                else:
                    setattr(owner, name, original)


_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")


def _with_symbolic(name: str, active: Callable[[], Recorder | None]) -> Callable[[Any, Any], Any]:
    """An operator of variables that leaves symbolic tensors to their own; Keras' would refuse them."""
    original = getattr(keras.Variable, f"__{name}__")

    def operator(variable: Any, other: Any) -> Any:
        if isinstance(other, keras.KerasTensor) and active() is not None:
            return getattr(other, f"__r{name}__")(variable)
        return original(variable, other)

    return operator


def _declared_inputs(model: Any) -> Any:
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    if not isinstance(model, keras.Function):
        return None
    return model.input[0] if _takes_list_of_one(model) else model.input


def _takes_list_of_one(model: Any) -> bool:
    """Whether the model declares a list of one input; its users pass, and get back, that one array."""
    if not isinstance(model, keras.Function) or isinstance(model, keras.Sequential):
        return False
    return isinstance(model.input, (list, tuple)) and len(model.input) == 1


def _output_names(model: Any, outputs: Any) -> tuple[str, ...]:
    if isinstance(model, keras.Sequential):
        return (model.layers[-1].name,)
    if isinstance(model, keras.Model) and isinstance(model, keras.Function) and not isinstance(outputs, dict):
        return tuple(model.output_names)
    return tuple("/".join(map(str, path)) or "output" for path, _ in tree.flatten_with_path(outputs))
