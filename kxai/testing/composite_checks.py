"""Is it a composite? ``check_composite`` runs it on models of every structure."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from kxai import nest
from kxai.analyzers import LRP
from kxai.composites import Composite, first
from kxai.errors import KxaiWarning
from kxai.rules import Flat, Rule
from kxai.targets import Contrast
from kxai.testing.compare import during, require, require_close, require_finite, require_frozen
from kxai.testing.models import CORE, Builder, Case


def check_composite(composite: Composite, *, cases: Sequence[Builder] = CORE, linear: bool = True) -> None:
    """Check a composite.

    It must be a frozen table of (match, rule); every node of every model that relevance reaches must have a rule;
    relevance must be finite, be linear in the target, and add up to the explained score together with what the audit
    reports as absorbed; rows put before it with ``but`` must win.

    Args:
        composite: the composite.
        cases: builders of models that it should explain, see :mod:`kxai.testing.models`.
        linear: False for composites with rules that only scale with relevance. Default True.

    Raises:
        AssertionError: a check fails; the message names check, model, expected and received.

    Example:
        >>> from kxai import preset
        >>> from kxai.testing import models
        >>> check_composite(preset("epsilon"), cases=[models.mlp])
    """
    _check_table(composite)
    for build in cases:
        case = build()
        where = f"{composite.name!r} on {case.name}"
        with during("the composite explains the model", where), warnings.catch_warnings():
            warnings.simplefilter("ignore", KxaiWarning)
            analyzer = LRP(case.model, composite)
            _check_plan(composite, case, where)
            _check_audit(analyzer, case, where)
            if linear:
                _check_target(analyzer, case, where)


def _check_table(composite: Composite) -> None:
    name = repr(composite)
    require_frozen(composite, "name", expected="a frozen Composite")
    require(bool(composite.rows), "rows", name, expected="at least one row", received="none")
    with during("rows are pairs of match and rule", name):
        composite.but(*composite.rows)  # checks each row


def _check_plan(composite: Composite, case: Case, where: str) -> None:
    plan = LRP(case.model, composite).plan(case.inputs)
    require(bool(plan.rules), "nodes have rules", where, expected="one rule at least", received="none")
    for node, rule in plan.rules.items():
        require(isinstance(rule, Rule), "nodes have rules", f"{where}, {node.path}", expected="a Rule",
                received=repr(rule))  # fmt: skip
    changed = LRP(case.model, composite.but((first, Flat(7.0)))).plan(case.inputs)
    for node, rule in changed.rules.items():
        if changed.facts.is_first(node):
            require(rule == Flat(7.0), "rows of but() win", f"{where}, {node.path}", expected=repr(Flat(7.0)),
                    received=repr(rule))  # fmt: skip


def _check_audit(analyzer: LRP, case: Case, where: str) -> None:
    explanation = analyzer.explain(case.inputs, case.target, audit=True)
    require_finite("finite relevance", where, explanation.relevance)
    absorbed = np.sum([np.zeros(len(explanation)), *explanation.absorbed.values()], axis=0)
    given = np.abs(explanation.score) + sum(
        np.abs(r).reshape(len(explanation), -1).sum(axis=1) for r in nest.leaves(explanation.relevance)
    )
    # Relative to all relevance that was moved, since absorbed parts may cancel.
    require_close(
        "score = relevance + absorbed", where, np.ones(len(given)), 1 + (explanation.residual - absorbed) / given, 1e-3
    )


def _check_target(analyzer: LRP, case: Case, where: str) -> None:
    """Nothing comes from nothing, and R(y0 - y1) = R(y0) - R(y1)."""
    outputs = nest.leaves(analyzer.explain(case.inputs, case.target).outputs)
    if len(outputs) > 1 or outputs[0].ndim != 2 or outputs[0].shape[1] < 2:
        return
    nothing = _relevance(analyzer, case, np.zeros(outputs[0].shape[1]))
    quiet = not any(np.any(r) for r in nothing)
    require(quiet, "no relevance from no target", where, expected="0 everywhere", received="other numbers")
    one, other, both = (_relevance(analyzer, case, target) for target in (0, 1, Contrast(0, 1)))
    for a, b, c in zip(one, other, both, strict=True):
        size = max(np.abs(a).max(), np.abs(b).max(), 1e-6)
        require_close("linear in the target", where, 1 + (a - b) / size, 1 + c / size, 1e-3)


def _relevance(analyzer: LRP, case: Case, target: Any) -> list[np.ndarray]:
    return nest.leaves(analyzer.explain(case.inputs, target).relevance)
