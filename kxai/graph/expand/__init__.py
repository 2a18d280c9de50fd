"""Calls that become a few nodes: the affine map apart from its activation, a norm apart from its centring.

Each expansion takes the recorder, the layer (or operation) and the arguments of the call, and returns the symbolic
output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kxai.graph.expand.attention import ATTENTION_EXPANSIONS
from kxai.graph.expand.categories import CATEGORY_LAYERS, CATEGORY_OPERATIONS
from kxai.graph.expand.fourier import FOURIER_EXPANSIONS
from kxai.graph.expand.layers import LAYER_EXPANSIONS, average_of
from kxai.graph.expand.operations import OPERATION_EXPANSIONS
from kxai.graph.expand.recurrent import RECURRENT_EXPANSIONS
from kxai.graph.expand.similarity import SIMILARITY_LAYERS
from kxai.graph.expand.statistics import STATISTICS_EXPANSIONS

EXPANSIONS: dict[type, Callable[..., Any]] = {
    **LAYER_EXPANSIONS,
    **RECURRENT_EXPANSIONS,
    **SIMILARITY_LAYERS,
    **CATEGORY_LAYERS,
}
OP_EXPANSIONS: dict[str, Callable[..., Any]] = {
    **OPERATION_EXPANSIONS,
    **STATISTICS_EXPANSIONS,
    **ATTENTION_EXPANSIONS,
    **FOURIER_EXPANSIONS,
    **CATEGORY_OPERATIONS,
}

__all__ = ["EXPANSIONS", "OP_EXPANSIONS", "average_of"]
