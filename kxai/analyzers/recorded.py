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

    It has the numbers of ``explain``, and no warnings: nobody looks at the numbers on the way. Where ``explain`` raises
    an error because of them, the function fails when it runs.

    Attributes:
        graph: names and structures of the inputs and outputs.
        target: resolved; its form is fixed, its numbers are arguments of ``run``.
        run: (tensors of the inputs, numbers of the target's parts, one row per sample) -> ``"outputs"`` and
            ``"relevance"``, a list each, ``"score"`` and ``"base"`` of shape (batch,), and ``"chosen"``, a list of what
            was explained per part of the target. Holds for every batch size; methods that look at many points compute
            one of every sample at a time, in a loop.
        layers: what relevance belongs to, if not to the inputs: layers, as the user named them.
    """

    graph: Graph
    target: Target
    run: Callable[[list[Any], list[Any]], dict[str, Any]]
    layers: tuple[str, ...] = ()
