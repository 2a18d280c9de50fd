"""An analysis as a function of tensors: what a larger compiled function, such as a served one, can hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from kxai.graph.graph import Graph
from kxai.targets import Target


@final
@dataclass(frozen=True, eq=False)
class Recorded:
    """What an analyzer computes for a batch, without a step outside of TensorFlow.

    Attributes:
        graph: names and structures of the inputs and outputs.
        target: resolved; its form is fixed, its numbers are arguments of ``run``.
        run: (tensors of the inputs, numbers of the target's parts, one row per sample) -> ``"outputs"`` and
            ``"relevance"``, a list each, ``"score"`` and ``"base"`` of shape (batch,), and ``"chosen"``, a list of what
            was explained per part of the target. Holds for every batch size.
    """

    graph: Graph
    target: Target
    run: Callable[[list[Any], list[Any]], dict[str, Any]]
