"""The explained quantity: what a target picks of the outputs, and a compiled function that computes nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.errors import TargetError
from kxai.graph.graph import Edge, Graph
from kxai.targets import Part, Target, weights_of


@final
@dataclass(frozen=True)
class Spec:
    """Shape and dtype of an argument of a compiled function."""

    shape: tuple[int | None, ...]
    dtype: str


def input_spec(edge: Edge) -> Spec:
    """The spec of a graph's input; 16-bit numbers arrive in 32 bits."""
    return Spec((None, *edge.shape[1:]), "float32" if "float16" in edge.dtype else edge.dtype)


@final
@dataclass(frozen=True, eq=False)
class Explained:
    """What one form of target picks of a graph's outputs.

    Attributes:
        graph: the graph.
        target: gives the form; its numbers are arguments of each call.
    """

    graph: Graph
    target: Target

    @property
    def specs(self) -> list[Spec]:
        """Specs of the target's numbers, one per part."""
        return [self._spec(part) for part in self.target.parts]

    def _spec(self, part: Part) -> Spec:
        if part.form == "index":
            return Spec((None,), "int32")
        return Spec((None, *self.graph.explained[part.output].shape[1:]), "float32")

    def weights(self, outputs: list[Any], data: list[Any]) -> tuple[dict[int, Any], Any, list[Any]]:
        """Weights per explained output, score per sample, and what was chosen per part.

        Args:
            outputs: values of the explained edges.
            data: the target's numbers, per part.
        """
        if self.target.function is not None:
            return self._linearised(self.target.function, outputs)
        weights, chosen, score = {}, [], 0.0
        for part, numbers in zip(self.target.parts, data, strict=True):
            output = outputs[part.output]
            weights[part.output], choice = weights_of(part.form, numbers, output)
            chosen.append(choice)
            score = score + per_sample(weights[part.output] * output)
        return weights, score, chosen

    def value(self, outputs: list[Any], weights: dict[int, Any]) -> Any:
        """The explained quantity of other outputs (of one sample, or as many), for the same weights."""
        if self.target.function is not None:
            return self.target.function(tree.pack_sequence_as(self.graph.output_structure, list(outputs)))
        return sum(per_sample(weight * outputs[i]) for i, weight in weights.items())

    def _linearised(self, function: Callable[..., Any], outputs: list[Any]) -> tuple[dict[int, Any], Any, list[Any]]:
        """A callable target counts with its derivative at the outputs."""

        def score(*tensors: Any) -> Any:
            value = function(tree.pack_sequence_as(self.graph.output_structure, list(tensors)))
            if not ops.is_tensor(value) or len(value.shape) != 1:
                raise TargetError(
                    "A callable target must return one number per sample.",
                    expected="a tensor of shape (samples,)",
                    received=f"shape {tuple(value.shape)}" if ops.is_tensor(value) else repr(value),
                    fix="for example target=lambda y: y[:, 3] - y[:, 5].",
                )
            return value

        (value,), pull = backend.vjp(score, *outputs)
        return dict(enumerate(pull([ops.ones_like(value)]))), value, []


@final
class Scorer:
    """A graph's outputs and the explained quantity, without any explanation: one forward pass, compiled.

    Args:
        graph: as a plan has it, so that ``explained`` are the logits.
        target: gives the form; its numbers are arguments of each call.
        traced: called whenever the function is traced (once, whatever batch sizes follow).
        jit: compile with XLA.
        read: inner edges whose values are returned, too.
    """

    def __init__(
        self, graph: Graph, target: Target, traced: Callable[[], None], jit: bool = False, read: Sequence[Edge] = ()
    ) -> None:
        self._graph, self._explained, self._traced, self._read = graph, Explained(graph, target), traced, read
        self._function: Callable[..., Any] = backend.compile(self.run, self.signature, jit)

    @property
    def signature(self) -> tuple[list[Spec], list[Spec]]:
        """Specs of the arguments."""
        return [input_spec(edge) for edge in self._graph.inputs], self._explained.specs

    def __call__(self, inputs: list[np.ndarray], data: list[np.ndarray]) -> dict[str, Any]:
        """``{"outputs", "score", "chosen", "weights", "read"}`` of one batch, as arrays.

        ``weights`` are those of each part of the target over its output: a target of form "weights" that stays the
        same whatever the inputs then are. None for a callable target.
        """
        result: dict[str, Any] = tree.map_structure(backend.to_numpy, self._function(inputs, data))
        return result

    def run(self, inputs: list[Any], data: list[Any]) -> dict[str, Any]:
        """The same, of tensors, inside whatever compiled function calls it."""
        self._traced()
        values = self._graph.values(inputs)
        weights, score, chosen = self._explained.weights([values[edge] for edge in self._graph.explained], data)
        return {
            "outputs": [values[edge] for edge in self._graph.outputs],
            "score": score,
            "chosen": chosen,
            "weights": [weights[part.output] for part in self._explained.target.parts],
            "read": [values[edge] for edge in self._read],
        }


def per_sample(tensor: Any) -> Any:
    """The sum over all axes but the first."""
    return ops.sum(ops.reshape(tensor, (ops.shape(tensor)[0], -1)), axis=1)
