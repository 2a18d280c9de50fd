"""An analysis as a signature: flat, every tensor with the batch first, and wrong numbers fail where they arise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from keras import ops

from kxai import backend
from kxai.analyzers.recorded import Recorded
from kxai.backend import saved_model
from kxai.backend.saved_model import TensorFacts
from kxai.errors import ExportError
from kxai.exporting.interface import Interface, identifier, in_32_bits
from kxai.graph.graph import Edge, Graph
from kxai.targets import PREDICTED, Part

TARGET = "target"
SCORE, RESIDUAL, RELEVANCE = "score", "residual", "relevance"


@final
@dataclass(frozen=True, eq=False)
class Explaining:
    """The function behind an ``explain`` signature.

    Attributes:
        recorded: the analysis.
        interface: names of the model's inputs.
        asked: whether the class is an input of the signature; else it is fixed.
    """

    recorded: Recorded
    interface: Interface
    asked: bool

    def __post_init__(self) -> None:
        graph, names = self.recorded.graph, self.interface.names
        if self.asked and TARGET in names:
            raise ExportError(
                f"An input of the model is called {TARGET!r}, as is the class to explain.",
                expected="inputs of other names",
                received=", ".join(names),
                fix="rename the input, or fix what is explained with target=.",
            )
        for edge, name in zip(graph.outputs, graph.output_names, strict=True):
            _check_batched(edge, name)
        for node in graph.nodes:
            batch = None if node.loop is None else node.loop.order.batch
            if batch is not None:
                raise ExportError(
                    f"Layer {node.path!r} is stateful: it holds the states of {batch} samples.",
                    expected="layers that take any number of samples",
                    fix="build the model with stateful=False and give it the weights.",
                )

    @property
    def inputs(self) -> dict[str, TensorFacts]:
        """Shape and dtype of the signature's inputs."""
        return {**self.interface.inputs, **({TARGET: TensorFacts((None,), "int32")} if self.asked else {})}

    @property
    def explained_names(self) -> list[str]:
        """What relevance belongs to: inputs, or layers."""
        return [identifier(name) for name in self.recorded.layers] or list(self.interface.names)

    @property
    def relevance_names(self) -> list[str]:
        """What the relevance of each of them is called."""
        names = self.explained_names
        return [RELEVANCE] if len(names) == 1 else [f"{RELEVANCE}_{name}" for name in names]

    @property
    def target_names(self) -> list[str]:
        """What the chosen class is called, per part of the target; empty for parts that are no class."""
        parts, names = self.recorded.target.parts, self.recorded.graph.output_names
        several = len(parts) > 1
        shown = [f"{TARGET}_{identifier(names[part.output])}" if several else TARGET for part in parts]
        return [name if part.form == "index" else "" for name, part in zip(shown, parts, strict=True)]

    @property
    def output_names(self) -> list[str]:
        """What the model's outputs are called; ``output_<name>`` where the explanation has a tensor of that name."""
        taken = {*self.relevance_names, *self.target_names, SCORE, RESIDUAL}
        names = list(self.recorded.graph.output_names)
        renamed = [f"output_{name}" if name in taken else name for name in names]
        if len(set(renamed)) < len(names) or taken & set(renamed):
            raise ExportError(
                "Outputs of the model cannot be told apart from tensors of the explanation.",
                expected=f"names other than {', '.join(sorted(filter(None, taken)))}",
                received=", ".join(names),
                fix="rename the outputs.",
            )
        return renamed

    def run(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Outputs, relevance, target, score and residual by name."""
        inputs = self.interface.given(tensors)
        found = self.recorded.run(inputs, self._numbers(tensors, saved_model.rows(inputs[0])))
        relevance = [
            saved_model.finite(in_32_bits(part), f"{name} is not finite")
            for name, part in zip(self.relevance_names, found["relevance"], strict=True)
        ]
        score = saved_model.finite(in_32_bits(found["score"]), "the score is not finite")
        totals = [
            ops.sum(ops.reshape(ops.cast(part, "float64"), (saved_model.rows(part), -1)), axis=1) for part in relevance
        ]
        residual = ops.cast(score, "float64") - ops.cast(found["base"], "float64") - sum(totals)
        chosen = zip(self.target_names, found["chosen"], strict=True) if found["chosen"] else ()
        return {
            **dict(zip(self.output_names, map(in_32_bits, found["outputs"]), strict=True)),
            **dict(zip(self.relevance_names, relevance, strict=True)),
            **{name: ops.cast(choice, "int32") for name, choice in chosen if name},
            SCORE: score,
            RESIDUAL: residual,
        }

    def _numbers(self, tensors: dict[str, Any], count: Any) -> list[Any]:
        """The target's numbers for each sample."""
        parts = self.recorded.target.parts
        if not self.asked:
            return [ops.repeat(ops.convert_to_tensor(part.data), count, axis=0) for part in parts]
        (part,) = parts
        return [_class(tensors[TARGET], part, self.recorded.graph, count)]


def _class(target: Any, part: Part, graph: Graph, count: Any) -> Any:
    """The classes asked for, one per sample and in range."""
    shape = graph.explained[part.output].shape
    units = shape[-1] if len(shape) > 1 else 1
    target = backend.asserted(target, ops.equal(saved_model.rows(target), count), f"{TARGET}: one class per sample")
    if units is None:
        return backend.asserted(target, target >= PREDICTED, f"{TARGET}: a class index, or -1 for the predicted class")
    allowed = ops.logical_and(target >= PREDICTED, target < units)
    return backend.asserted(target, allowed, f"{TARGET}: from 0 to {units - 1}, or -1 for the predicted class")


def _check_batched(edge: Edge, name: str) -> None:
    if edge.batch != (0, 1):
        raise ExportError(
            f"Output {name!r} has not one row per sample.",
            expected="the batch as first axis of every output",
            received=f"shape {edge.shape}",
            fix="wrap the model in one that returns the other outputs alone.",
        )
