"""Which functions an export has: traced, named, and free of what no server runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import keras

from kxai.analyzers import Analyzer
from kxai.backend.saved_model import Concrete
from kxai.errors import ArgumentError, ExportError
from kxai.exporting.explaining import Explaining
from kxai.exporting.facts import method_facts
from kxai.exporting.image import Image, ImageExplaining
from kxai.exporting.interface import Interface
from kxai.targets import Target

_SCOPE = re.compile(r"[\w.\\/>-]*", re.ASCII)

_KERAS_COMPILED = "conv_xla"  # Keras' name of the function that it has compiled
_UNCOMPILED = (
    "Keras compiles some convolutions by XLA, which TensorFlow does not have for every CPU: grouped ones of "
    "keras.ops.conv, where a layer such as Conv2D(groups=...) does without, and 3D ones with the channels first, where "
    "data_format='channels_last' does."
)

SERVING, EXPLAIN, EXPLAIN_IMAGE = "serving_default", "explain", "explain_image"


@final
@dataclass(frozen=True, eq=False)
class Signatures:
    """The functions of an export, by name, and what the asset says of those that explain."""

    functions: dict[str, Concrete] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, function: Concrete, facts: Any) -> None:
        """Adds one that explains."""
        self.functions[name], self.facts[name] = function, facts


def named(analyzer: Analyzer | Sequence[Analyzer] | Mapping[str, Analyzer]) -> dict[str, Analyzer]:
    """Analyzers by the name of their signature.

    Raises:
        ArgumentError: there are none, or they are of several models or no analyzers at all.
        ExportError: two have the same name.
    """
    if isinstance(analyzer, Analyzer):
        return {EXPLAIN: analyzer}
    if isinstance(analyzer, Mapping):
        pairs = list(analyzer.items())
    else:
        several = analyzer if isinstance(analyzer, Iterable) else ()
        pairs = [(one.name if isinstance(one, Analyzer) else "", one) for one in several]
    if not pairs or not all(isinstance(one, Analyzer) for _, one in pairs):
        raise ArgumentError(
            "There is nothing to export.",
            expected="an analyzer, or several in a list or by name",
            received=repr(analyzer),
        )
    if any(one.model is not pairs[0][1].model for _, one in pairs):
        raise ArgumentError(
            "The analyzers belong to different models.",
            expected="one model, whose outputs serving_default returns",
            received=", ".join(dict.fromkeys(repr(one.model.name) for _, one in pairs)),
            fix="export each model to a folder of its own.",
        )
    names = [f"{EXPLAIN}_{_word(str(name))}" for name, _ in pairs]
    images = [name for name in names if name == EXPLAIN_IMAGE or name.startswith(f"{EXPLAIN_IMAGE}_")]
    if images:
        raise ExportError(
            f"A signature called {images[0]} takes images as bytes.",
            expected="a name that does not begin with 'image'",
            received=", ".join(str(name) for name, _ in pairs),
        )
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ExportError(
            f"Two analyzers would both be called {', '.join(sorted(twice))}.",
            expected="a name for each",
            received=", ".join(str(name) for name, _ in pairs),
            fix='give names: {"lrp": analyzer, "lrp_rough": other}.',
        )
    return {name: one for name, (_, one) in zip(names, pairs, strict=True)}


def signatures(
    analyzers: Mapping[str, Analyzer], interface: Interface, target: Any, output: str | None, image: Image | None
) -> Signatures:
    """Trace everything.

    Args:
        analyzers: by the name of their signature.
        interface: of their model.
        target: fixed, or None: an input.
        output: which output it refers to.
        image: how the bytes of images become inputs, or None.

    Raises:
        ExportError: a method, or a layer, cannot be part of a graph that runs by itself.
    """
    asked, wanted = target is None, _wanted(target, output)
    made = Signatures()
    for name, analyzer in analyzers.items():
        explaining = Explaining(_recorded(analyzer, interface, wanted), interface, asked)
        if not made.functions:
            made.functions[SERVING] = _serving(explaining)
        function = _traced(explaining, repr(analyzer))
        facts = method_facts(analyzer, explaining, target)
        _add(made, name, function, facts, EXPLAIN)
        if image is not None:
            drawing = _traced(ImageExplaining(image, explaining, function), repr(analyzer))
            _add(made, name.replace(EXPLAIN, EXPLAIN_IMAGE, 1), drawing, facts, EXPLAIN_IMAGE)
    return made


def _add(made: Signatures, name: str, function: Concrete, facts: Any, first: str) -> None:
    """The first of several has the short name, too."""
    if first not in made.functions:
        made.add(first, function, facts)
    made.add(name, function, facts)


def _wanted(target: Any, output: str | None) -> Any:
    """The target as an analyzer takes it."""
    if output is None:
        return target
    if callable(target) or isinstance(target, (Mapping, str)):
        raise ArgumentError(
            "The target says by itself which output it means.", expected="output=None", received=f"output={output!r}"
        )
    return {output: target}


def _recorded(analyzer: Analyzer, interface: Interface, wanted: Any) -> Any:
    recorded = analyzer.recorded(interface.specs, wanted)
    target: Target = recorded.target
    if target.length is not None:
        raise ExportError(
            "The target is not the same for all samples.",
            expected="one class, one row of weights, a Contrast or a function",
            received=f"{target.length} rows",
            fix="leave target= out: the signature then takes one class per sample.",
        )
    return recorded


def _serving(explaining: Explaining) -> Concrete:
    interface, names = explaining.interface, explaining.recorded.graph.output_names

    def run(tensors: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(names, interface.predicted(tensors), strict=True))

    def computed(tensors: dict[str, Any]) -> dict[str, Any]:
        graph = explaining.recorded.graph
        values = graph.values([tensors[name] for name in interface.names])
        return {name: values[edge] for name, edge in zip(names, graph.outputs, strict=True)}

    _check_names(interface.model)
    try:
        function = Concrete(run, interface.inputs)
        if _compiled_by_keras(function.foreign()):
            # The graph that is explained computes grouped convolutions otherwise.
            function = Concrete(computed, interface.inputs)
    except Exception as error:  # of whatever the model's layers do
        raise ExportError(
            f"Model {interface.model.name!r} cannot be called in a graph.",
            expected="a model whose predict() works",
            received=f"{type(error).__name__}: {str(error).strip()}",
        ) from error
    return _checked(function, f"model {interface.model.name!r}")


def _check_names(model: keras.Layer) -> None:
    """Refuse names that TensorFlow's graphs do not take: within the call, Keras would leave their scope open."""
    unfit = [name for name in _layer_names(model) if not _SCOPE.fullmatch(name)]
    if unfit:
        raise ExportError(
            f"Model {model.name!r} cannot be called in a graph.",
            expected="layers named with letters, digits and _ . - / > alone, as TensorFlow's graphs need",
            received=", ".join(map(repr, unfit)),
            fix="rename them: keras.models.clone_model with a clone_function, then set_weights.",
        )


def _layer_names(layer: keras.Layer) -> Iterator[str]:
    if not isinstance(layer, keras.layers.InputLayer):  # which is not called
        yield layer.name
    for inner in layer.layers if isinstance(layer, keras.Model) else ():
        yield from _layer_names(inner)


def _traced(function: Explaining | ImageExplaining, what: str) -> Concrete:
    return _checked(Concrete(function.run, function.inputs), what)


def _checked(function: Concrete, what: str) -> Concrete:
    foreign = function.foreign()
    if foreign:
        raise ExportError(
            f"The graph of {what} holds what a server does not run.",
            expected="TensorFlow's own operations, not compiled by XLA",
            received=", ".join(foreign),
            fix=_UNCOMPILED if _compiled_by_keras(foreign) else "write the layer with keras.ops, without jit_compile.",
        )
    return function


def _compiled_by_keras(foreign: Sequence[str]) -> bool:
    """Whether Keras has compiled what a server does not run, and there is no more of that kind."""
    return bool(foreign) and all(_KERAS_COMPILED in name for name in foreign)


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "method"
