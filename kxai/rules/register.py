"""Rules and kinds for layer classes of one's own, known to every composite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import keras

from kxai.errors import ArgumentError, UnknownNameError
from kxai.graph import registered
from kxai.graph.graph import Kind
from kxai.rules.rule import Rule

R = TypeVar("R", bound=type[Rule])

# Kinds that ask nothing of a node but its call. The others need to know its weights.
KINDS = (
    Kind.SCALE, Kind.ELEMENTWISE, Kind.ROUTE, Kind.MAX, Kind.SUM, Kind.PRODUCT, Kind.BILINEAR, Kind.SOFTMAX, Kind.NORM,
)  # fmt: skip


@overload
def register(layer_class: type) -> Callable[[R], R]: ...


@overload
def register(layer_class: type, rule: Rule) -> None: ...


@overload
def register(layer_class: type, *, kind: Kind) -> None: ...


def register(layer_class: type, rule: Rule | None = None, *, kind: Kind | None = None) -> Any:
    """Say how relevance passes a layer class of your own: by a rule, or as a kind of node that has one.

    A call of such a layer stays one node, even if it could be opened. The rule is used by every composite without a
    row of its own for that node: a row by path or by layer class comes first, and gradient methods still take the
    gradient. With a kind, each composite treats the layer as it treats that kind. Subclasses count where they leave
    ``call`` as it is. Analyzers that already have a plan keep it. A second registration replaces the first.

    Args:
        layer_class: a subclass of ``keras.Layer`` that is not one of Keras' own.
        rule: a rule that is defined for nodes of any kind. Without it, and without ``kind``, the result is a
            decorator for a rule class whose fields all have defaults.
        kind: one of ``KINDS``, in place of a rule. SCALE, ELEMENTWISE, SOFTMAX and NORM promise an output shaped like
            the input.

    Returns:
        None, or the decorator, which returns the rule class as it is.

    Raises:
        ArgumentError: no layer class, a class of Keras itself, no rule, a rule or a kind that does not fit.

    Example:
        >>> import keras, kxai
        >>> class Swap(keras.Layer):
        ...     def call(self, x):
        ...         return x[:, ::-1]
        >>> kxai.rules.register(Swap, kind=kxai.Kind.ROUTE)
        >>> @kxai.rules.register(Swap)
        ... class SwapBack(kxai.rules.Rule):
        ...     def propagate(self, step, relevance):
        ...         return [relevance[:, ::-1]]
        >>> kxai.rules.unregister(Swap)
    """
    _check_class(layer_class)
    if rule is not None and kind is not None:
        raise ArgumentError(
            "A layer class is registered with a rule or with a kind, not with both.",
            received=f"{rule!r} and {kind!r}",
            fix="leave one of them out: with a kind, each composite has its rule for it.",
        )
    if kind is not None:
        _check_kind(kind)
        registered.put(layer_class, registered.Registration(kind=kind))
        return None
    if rule is not None:
        _check_rule(rule)
        registered.put(layer_class, registered.Registration(rule=rule))
        return None

    def decorate(rule_class: R) -> R:
        register(layer_class, _instance(rule_class))
        return rule_class

    return decorate


def unregister(layer_class: type) -> None:
    """Forget what :func:`register` was told of a layer class.

    Args:
        layer_class: the class.

    Raises:
        UnknownNameError: the class is not registered.

    Example:
        >>> import keras, kxai
        >>> class Double(keras.Layer):
        ...     def call(self, x):
        ...         return 2 * x
        >>> kxai.rules.register(Double, kind=kxai.Kind.SCALE)
        >>> kxai.rules.unregister(Double)
    """
    if not (isinstance(layer_class, type) and registered.drop(layer_class)):
        name = layer_class.__name__ if isinstance(layer_class, type) else repr(layer_class)
        raise UnknownNameError("registered layer class", name, registered.names() or ["none, nothing is registered"])


def _check_class(layer_class: Any) -> None:
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise ArgumentError(
            "Only layer classes can be registered.",
            expected="a subclass of keras.Layer",
            received=repr(layer_class),
            fix="pass the class, not a layer: type(layer)." if isinstance(layer_class, keras.Layer) else "",
        )
    if layer_class.__module__.split(".")[0] == "keras":
        raise ArgumentError(
            f"{layer_class.__name__} is a class of Keras itself; registering it would change every explanation.",
            expected="a layer class of your own",
            fix=f"give one composite a row for it: composite.but((keras.layers.{layer_class.__name__}, rule)).",
        )


def _check_kind(kind: Any) -> None:
    if not isinstance(kind, Kind) or kind not in KINDS:
        needs = isinstance(kind, Kind)
        raise ArgumentError(
            "A layer class cannot be registered as this kind." if needs else "kind must be a kxai.Kind.",
            expected=", ".join(f"Kind.{kind.name}" for kind in KINDS),
            received=repr(kind),
            fix="write the layer's call with keras.ops and it is opened, or register a rule." if needs else "",
        )


def _check_rule(rule: Any) -> None:
    if not isinstance(rule, Rule):
        raise ArgumentError(
            "A layer class is registered with a rule.",
            expected="an instance of kxai.rules.Rule",
            received=repr(rule),
            fix=f"call it: {rule.__name__}()." if isinstance(rule, type) and issubclass(rule, Rule) else "",
        )
    if Kind.OPAQUE not in rule.kinds:
        raise ArgumentError(
            f"Rule {rule!r} is not defined for a layer as a whole.",
            expected=f"a rule for nodes of kind {Kind.OPAQUE.value}, such as one of your own",
            received=f"a rule for {', '.join(sorted(kind.value for kind in rule.kinds))}",
            fix="leave the layer open and give its inner nodes rules: composite.but((path, rule)); or register a kind.",
        )


def _instance(rule_class: Any) -> Rule:
    if not (isinstance(rule_class, type) and issubclass(rule_class, Rule)):
        raise ArgumentError(
            "register(layer_class) decorates a rule class.",
            expected="a subclass of kxai.rules.Rule",
            received=repr(rule_class),
            fix="for an instance write kxai.rules.register(layer_class, rule).",
        )
    try:
        return rule_class()
    except TypeError as error:
        raise ArgumentError(
            f"{rule_class.__name__} cannot be made without arguments: {error}.",
            expected="a rule class whose fields have defaults and which defines propagate",
            fix=f"register an instance: kxai.rules.register(layer_class, {rule_class.__name__}(...)).",
        ) from None
