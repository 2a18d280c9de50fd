"""What an export says of itself: ``assets/explanation.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keras import tree

from kxai.analyzers import Analyzer
from kxai.backend.saved_model import Concrete, TensorFacts
from kxai.errors import ArgumentError
from kxai.exporting.explaining import TARGET, Explaining
from kxai.exporting.interface import Interface
from kxai.files import json_copy
from kxai.targets import PREDICTED
from kxai.version import __version__

FORMAT = "kxai.export"
FORMAT_VERSION = 1


def facts_of(interface: Interface, signatures: Mapping[str, Concrete], explained: Mapping[str, Any]) -> str:
    """The text of the asset.

    Args:
        interface: of the model.
        signatures: by name.
        explained: per signature that explains, what :func:`method_facts` says of it.
    """
    text = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "kxai": __version__,
        "model": interface.model.name,
        "signatures": {
            name: {"inputs": _tensors(one.inputs), "outputs": _tensors(one.outputs), **explained.get(name, {})}
            for name, one in signatures.items()
        },
    }
    return json.dumps(json_copy(text), indent=1) + "\n"


def method_facts(analyzer: Analyzer, explaining: Explaining, target: Any) -> dict[str, Any]:
    """Method, hyperparameters, rules, plan, names, and how the target is given."""
    graph, parts = explaining.recorded.graph, explaining.recorded.target.parts
    refers = [graph.output_names[part.output] for part in parts] or list(graph.output_names)
    given = {"input": TARGET, "predicted": PREDICTED} if explaining.asked else {"fixed": _shown(target)}
    return {
        **analyzer.config(),
        **_plan(analyzer, explaining.interface),
        "target": {**given, "outputs": refers},
        "model_outputs": dict(zip(explaining.output_names, graph.output_names, strict=True)),
        "relevance": dict(zip(explaining.relevance_names, explaining.explained_names, strict=True)),
    }


def _plan(analyzer: Analyzer, interface: Interface) -> dict[str, Any]:
    try:
        plan = analyzer.plan(tree.pack_sequence_as(interface.specs, list(interface.zeros().values())))
    except ArgumentError:  # a method without one
        return {}
    return {"plan": [list(row) for row in plan.rows], "notes": list(plan.notes)}


def _tensors(facts: Mapping[str, TensorFacts]) -> dict[str, Any]:
    return {name: {"shape": list(fact.shape), "dtype": fact.dtype} for name, fact in facts.items()}


def _shown(target: Any) -> Any:
    try:
        return json_copy({"target": target})["target"]
    except ArgumentError:
        return repr(target)
