"""The recorder: collects the calls of one symbolic run of a model."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import keras
from keras import tree

from kxai import backend
from kxai.errors import KxaiError, ModelError
from kxai.graph.affine import Affine, Scale
from kxai.graph.classify import ACTIVATIONS, CLOSED, HIGHER_ORDER, IDENTITIES, LAYERS, OPS, op_name, own_class
from kxai.graph.constants import Constants, Repeat, found_in, symbolic
from kxai.graph.expand import EXPANSIONS, OP_EXPANSIONS, average_of
from kxai.graph.expand.recurrent import RecordedStep
from kxai.graph.foreign import Foreign
from kxai.graph.graph import Kind
from kxai.graph.group import Group
from kxai.graph.registered import registration_of


@final
@dataclass
class Call:
    """One recorded call; ``function(*args, **kwargs)`` repeats it on real tensors.

    ``within`` is the path of the innermost custom layer that was opened for it, None if there is none. ``values`` are
    the outputs of a CONSTANT call, as they were when it was recorded.
    """

    path: str
    op: str
    kind: Kind
    function: Callable[..., Any]
    args: tuple[Any, ...]
    outputs: list[Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    operation: Any = None
    layer: Any = None
    affine: Affine | None = None
    scale: Scale | None = None
    average: Callable[..., Any] | None = None
    group: Group | None = None
    loop: RecordedStep | None = None
    reason: str = ""
    within: str | None = None
    entries: int | None = None
    values: tuple[Any, ...] = ()

    def tensors(self) -> list[Any]:
        """Symbolic tensors among the arguments, in order, repeated as they are."""
        return [x for x in tree.flatten((self.args, self.kwargs)) if isinstance(x, keras.KerasTensor)]


@final
class _Unopenable(Exception):
    """The layer has to stay closed; the message says why."""


@final
class Recorder:
    """Collects calls; expansions (``expand.py``) write into it with :meth:`emit` and :meth:`activate`.

    Args:
        model: the model that is called.
        closed: path -> reason, of custom layers that must not be opened.
        recording: makes a recorder the one that symbolic calls go to, while the context lasts.
        whole: layer classes that stay one node because somebody has a rule for them.
    """

    def __init__(
        self,
        model: Any,
        closed: Mapping[str, str],
        recording: Callable[[Recorder], contextlib.AbstractContextManager[Any]],
        whole: tuple[type, ...] = (),
    ) -> None:
        self.calls: list[Call] = []
        self.paused = False
        self.reads = 0  # how often the value of a variable was read
        self._model = model
        self._own = {id(variable.value) for variable in model.variables}
        self._closed = dict(closed)
        self._recording = recording
        self._whole = whole
        self._repeats = False
        self._opened: list[str] = []
        self._scopes: list[str] = []
        self._counts: dict[str, int] = {}
        self._named: set[int] = set()  # operations of functional models: their names are the user's

    def emit(
        self, op: str, kind: Kind, function: Callable[..., Any], args: Sequence[Any], outputs: Any, *,
        suffix: str = "", **fields: Any,
    ) -> Any:  # fmt: skip
        """Record a call and return its symbolic outputs.

        Args:
            op, kind: of the node.
            function: pure function of ``args`` (and ``kwargs``) on real tensors.
            args: symbolic tensors and constants.
            outputs: symbolic outputs.
            suffix: appended to the current path.
            fields: further fields of :class:`Call`.
        """
        return self._append(Call("", op, kind, function, tuple(args), [], **fields), outputs, suffix)

    def activate(self, function: Any, x: Any, *, layer: Any = None, suffix: bool = True) -> Any:
        """Record an activation function applied to ``x``; None and "linear" record nothing."""
        if function is None or function is keras.activations.linear:
            return x
        if isinstance(function, keras.Layer):
            return function(x)
        spec = keras.KerasTensor(x.shape, x.dtype)
        if function in ACTIVATIONS:
            op, kind = ACTIVATIONS[function]
            return self.emit(op, kind, function, [x], spec, layer=layer, suffix=op if suffix else "")
        name = vars(type(function)).get("__name__") or type(function).__name__
        closed = Call("", name, Kind.OPAQUE, function, (x,), [spec], layer=layer)
        return self._open(lambda: function(x), closed, lambda: spec)

    def on_layer(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A layer was called with symbolic tensors."""
        if layer.quantization_mode is not None:
            raise ModelError(
                f"Layer {layer.name!r} is quantised ({layer.quantization_mode}).",
                expected="a model with floating-point weights",
                fix="explain the model as it was before quantisation.",
            )
        args, kwargs = _first_is_positional(layer, args, kwargs)
        root = layer is self._model and not self.calls and not self._scopes
        with contextlib.nullcontext() if root else self._scope(layer.name):
            registration = registration_of(layer)
            if registration is not None:
                return self._keep_whole(layer, args, kwargs, registration.kind)
            base = own_class(layer, EXPANSIONS)
            if base is not None:
                return EXPANSIONS[base](self, layer, *args, **kwargs)
            if own_class(layer, IDENTITIES) is not None and not kwargs.get("training"):
                return args[0]
            base = own_class(layer, LAYERS)
            op, kind = LAYERS[base] if base is not None else (type(layer).__name__.lower(), Kind.OPAQUE)
            closed = Call(
                "", op, kind, layer.call, args, [], kwargs, layer=layer,
                average=average_of(layer) if kind is Kind.MAX else None,
            )  # fmt: skip
            if base is not None:
                return self._append(closed, self.spec(layer, *args, **kwargs))
            if isinstance(layer, self._whole):
                return self._keep_whole(layer, args, kwargs)
            if isinstance(layer, keras.Function):
                self._named.update(id(operation) for operation in layer.operations)
            return self._open(
                lambda: layer.call(*args, **kwargs), closed, lambda: layer.compute_output_spec(*args, **kwargs)
            )

    def _keep_whole(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], kind: Kind | None = None) -> Any:
        """Record a layer as one node, whatever it is made of."""
        self.paused = True
        try:
            outputs = layer.compute_output_spec(*args, **kwargs)
        finally:
            self.paused = False
        call = Call("", type(layer).__name__.lower(), kind or Kind.OPAQUE, layer.call, args, [], kwargs, layer=layer)
        call.reason = "it was asked for as a whole" if kind is None else ""
        shape = tuple(call.tensors()[0].shape)
        shapes = {tuple(y.shape) for y in tree.flatten(outputs)}
        if kind in (Kind.SCALE, Kind.ELEMENTWISE, Kind.SOFTMAX, Kind.NORM) and shapes != {shape}:
            raise ModelError(
                f"Layer {layer.name!r} is registered as {kind!r}, but its output has another shape than its input.",
                expected=f"shape {shape}",
                received=", ".join(map(str, shapes)),
                fix="register a rule for it: kxai.rules.register(layer_class, rule).",
            )
        return self._append(call, outputs)

    def on_operation(self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A ``keras.ops`` operation was called with symbolic tensors."""
        class_name, op = type(operation).__name__, op_name(operation)
        with self._scope(operation.name if id(operation) in self._named else op):
            if class_name in OP_EXPANSIONS:
                return OP_EXPANSIONS[class_name](self, operation, *args, **kwargs)
            if class_name in HIGHER_ORDER and self._opened:
                raise _Unopenable(f"it uses keras.ops.{op}, which calls a Python function that cannot be looked into")
            kind = OPS.get(class_name, Kind.OPAQUE)
            unknown = "" if class_name in OPS else "it is not in kxai's table of operations"
            reason = CLOSED.get(class_name, unknown)
            closed = Call("", op, kind, operation.call, args, [], kwargs, operation=operation, reason=reason)
            return self._append(closed, self.spec(operation, *args, **kwargs))

    def on_foreign(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function of TensorFlow was called with symbolic tensors."""
        if function.__name__ == "shape":
            (tensor,) = (x for x in tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor))
            return tuple(tensor.shape)
        if any(callable(leaf) and not isinstance(leaf, type) for leaf in tree.flatten((args, kwargs))):
            raise _Unopenable(f"TensorFlow's {function.__name__} calls a Python function that cannot be looked into")
        operation, operands = Foreign.recorded(function, args, kwargs)
        op, kind, reason = operation.kind(operands)
        entries = operands[0].shape[0] if kind is Kind.LOOKUP and op == "take" else None
        with self._scope(op):
            call = Call("", op, kind, operation.call, operands, [], operation=operation, reason=reason, entries=entries)
            return self._append(call, backend.output_spec(operation.call, operands))

    def spec(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """The symbolic outputs of an operation or a layer."""
        if self._repeats:  # Keras may look at values, which tensors of a compiled function do not have
            args, kwargs = symbolic(args), symbolic(kwargs)
        return operation.compute_output_spec(*args, **kwargs)

    @contextlib.contextmanager
    def apart(self, *scopes: str) -> Iterator[list[Call]]:
        """Inside, calls go to a list of their own (the body of a loop), under ``scopes`` in the current layer."""
        outer, self.calls = self.calls, []
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(self._scope(scope))
            try:
                yield self.calls
            finally:
                self.calls = outer

    @property
    def path(self) -> str:
        """Path of the layer that is being called; "" for the model itself."""
        return "/".join(self._scopes)

    def _append(self, call: Call, outputs: Any, suffix: str = "") -> Any:
        call.path = self._unique("/".join([*self._scopes, suffix] if suffix else self._scopes) or call.op)
        call.outputs = tree.flatten(outputs)
        call.within = self._opened[-1] if self._opened else None
        self.calls.append(call)
        return outputs

    def _open(self, run: Callable[[], Any], closed: Call, spec: Callable[[], Any]) -> Any:
        """Record what happens inside ``run``; if that cannot be followed, record the one OPAQUE call ``closed``."""
        start, counts = len(self.calls), dict(self._counts)
        try:
            return self._run(run, closed, start)
        except KxaiError:
            raise
        except Exception as error:
            # Whatever foreign code raises on a symbolic tensor means the same: the call stays closed. The plan
            # reports it with this reason, and a propagation rule for it is refused.
            del self.calls[start:]
            self._counts = counts
            closed.reason = _first_words(error)
            self._closed.setdefault(self.path, closed.reason)
            self.paused = True
            try:
                outputs = spec()
            except ValueError as unknown:
                name = self.path or closed.op
                raise ModelError(
                    f"Layer {name!r} cannot be opened ({closed.reason}), and its output is not known beforehand.",
                    received=_first_words(unknown),
                    fix="write its call with keras.ops, or give it compute_output_shape.",
                ) from None
            finally:
                self.paused = False
            return self._append(closed, outputs)

    def _run(self, run: Callable[[], Any], closed: Call, start: int) -> Any:
        """Run a custom layer; what it computes from its weights alone is recorded as one CONSTANT call."""
        if _only_calls_layers(closed.layer):
            return run()
        if self.path in self._closed:
            raise _Unopenable(self._closed[self.path])
        repeat = Repeat(run, self._resumed())
        self._opened.append(self.path)
        try:
            if self._repeats:
                return symbolic(run())
            before = self.reads
            outputs, variables = backend.watched(run)
            live = self.reads > before or any(id(variable) not in self._own for variable in variables)
            found = found_in(outputs, self.calls[start:], live)
            return self._with_constants(outputs, found, repeat, closed, start)
        finally:
            self._opened.pop()

    def _with_constants(self, outputs: Any, found: Constants, repeat: Repeat, closed: Call, start: int) -> Any:
        if found.hidden:
            raise _Unopenable("it computes with its weights before they meet the input, out of kxai's sight")
        if found.places:
            path = self._unique("/".join([*self._scopes, "weights"]))
            carriers = tuple({id(x): x for x in closed.tensors()}.values())
            function = repeat.reading(found.places)
            call = Call(path, "weights", Kind.CONSTANT, function, carriers, list(found.stand_ins), values=found.values)
            call.within = self.path
            self.calls.insert(start, call)
        return found.replace(outputs)

    def _resumed(self) -> Callable[[], contextlib.AbstractContextManager[Recorder]]:
        """A context in which symbolic calls are recorded again, from here on, apart from this recording."""
        scopes, counts, opened = list(self._scopes), dict(self._counts), list(self._opened)

        @contextlib.contextmanager
        def again() -> Iterator[Recorder]:
            other = Recorder(self._model, self._closed, self._recording, self._whole)
            other._scopes, other._counts, other._opened = list(scopes), dict(counts), list(opened)
            other._named, other._repeats = self._named, True
            with self._recording(other):
                yield other

        return again

    def _unique(self, path: str) -> str:
        self._counts[path] = self._counts.get(path, 0) + 1
        return path if self._counts[path] == 1 else f"{path}#{self._counts[path]}"

    @contextlib.contextmanager
    def _scope(self, name: str) -> Iterator[None]:
        key = "/".join([*self._scopes, name, ""])  # the trailing "/" keeps scopes apart from paths
        self._counts[key] = self._counts.get(key, 0) + 1
        self._scopes.append(name if self._counts[key] == 1 else f"{name}#{self._counts[key]}")
        try:
            yield
        finally:
            self._scopes.pop()


def _first_words(error: Exception) -> str:
    """The first line of an error that says something, without the colours of a terminal."""
    lines = [re.sub(r"\x1b\[\d*m", "", line).strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    return said[0] if said else type(error).__name__


def _only_calls_layers(layer: Any) -> bool:
    """Whether a layer is a declared graph or list of layers: it computes nothing with weights itself."""
    declared = isinstance(layer, (keras.Function, keras.Sequential))
    return declared and type(layer).call.__module__.startswith("keras.")


def _first_is_positional(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, with the first one by position however the caller passed it."""
    first = next(iter(inspect.signature(layer.call).parameters), None)
    if args or first not in kwargs:
        return args, kwargs
    return (kwargs[first],), {key: value for key, value in kwargs.items() if key != first}
