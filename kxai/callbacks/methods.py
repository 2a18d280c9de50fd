"""From the methods that a user names to functions that bind them to a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras

from kxai.analyzers import Analyzer, create_analyzer
from kxai.composites import Composite
from kxai.errors import ArgumentError

Binder = Callable[[Any], Analyzer]


def binders(method: Any) -> dict[str, Binder]:
    """What makes the analyzers of a model, by name.

    Args:
        method: a method's name, a Composite, a sequence of these, or a dict: a method's name -> hyperparameters, or a
            name of one's own -> a function of the model that returns an analyzer.

    Raises:
        ArgumentError: there is none, a value of the dict is something else, hyperparameters are wrong, or two names
            cannot be told apart in logs.
        UnknownNameError: no such method.

    Example:
        >>> list(binders({"lrp.epsilon": {"epsilon": 0.1}, "gradient": {}}))
        ['lrp.epsilon', 'gradient']
    """
    found: dict[str, Binder] = {}
    for name, binder in _pairs(method):
        if word(name) in map(word, found):
            raise ArgumentError(
                "Two methods have the same name in logs.",
                expected="names that differ in letters and digits",
                received=name,
                fix="name them in a dict: {name: a function of the model that returns an analyzer}.",
            )
        found[name] = binder
    if not found:
        raise ArgumentError("There is no method.", expected="at least one name", received=repr(method))
    return found


def word(name: str) -> str:
    """A name as one word of letters, digits and underscores, for logs and files.

    Args:
        name: the name.

    Example:
        >>> word("lrp.epsilon_plus"), word("lrp (mine)")
        ('lrp_epsilon_plus', 'lrp_mine')
    """
    return re.sub(r"\W+", "_", name).strip("_")


def _pairs(method: Any) -> list[tuple[str, Binder]]:
    if isinstance(method, (str, Composite)):
        method = [method]
    if isinstance(method, Mapping):
        return [(str(name), _of_entry(str(name), value)) for name, value in method.items()]
    if not isinstance(method, (list, tuple)):
        raise ArgumentError(
            "method names no methods.",
            expected='a name such as "lrp.epsilon_plus", a Composite, a list of these, or a dict',
            received=repr(method),
            fix="for an analyzer: {name: a function of the model that returns it}, such as {name: analyzer.bind}."
            if isinstance(method, Analyzer)
            else "",
        )
    return [(f"lrp ({one.name})" if isinstance(one, Composite) else str(one), _checked(one, {})) for one in method]


def _of_entry(name: str, value: Any) -> Binder:
    if isinstance(value, Mapping):
        return _checked(name, dict(value))
    if not callable(value):
        raise ArgumentError(
            f"The entry of {name!r} is neither hyperparameters nor a function.",
            expected="a dict of hyperparameters, or a function of the model that returns an analyzer",
            received=repr(value),
        )
    return partial(_called, name, value)


def _called(name: str, function: Callable[[Any], Any], model: Any) -> Analyzer:
    analyzer = function(model)
    if not isinstance(analyzer, Analyzer):
        raise ArgumentError(
            f"The function of {name!r} returned no analyzer.", expected="a kxai.Analyzer", received=repr(analyzer)
        )
    return analyzer


def _checked(name: Any, hyperparameters: dict[str, Any]) -> Binder:
    """Hyperparameters are checked on a model without weights: a training should not begin with wrong ones."""
    # Named, so that Keras counts nothing and the names of the user's layers stay as they would be.
    layers = [keras.Input((1,), name="stand_in_input"), keras.layers.Identity(name="stand_in_output")]
    create_analyzer(name, keras.Sequential(layers, name="stand_in"), **hyperparameters)
    return partial(_created, name, hyperparameters)


def _created(name: Any, hyperparameters: dict[str, Any], model: Any) -> Analyzer:
    return create_analyzer(name, model, **hyperparameters)
