"""Is it a rule? ``check_rule`` tries everything that kxai relies on, on nodes of every kind the rule is defined for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from kxai import backend
from kxai.analyzers.scores import Spec
from kxai.composites import Plan
from kxai.errors import KxaiError
from kxai.rules import Rule, Step
from kxai.testing.compare import another, during, require, require_close, require_finite, require_frozen
from kxai.testing.nodes import AFFINE, OTHER, SLOW, Tiny, plan_of, run_of, sent, steps, tiny, values

# (x, W, b, R) of one sample, flattened, float64: inputs (n,), map (n, m), bias (m,), relevance (m,) -> (n,)
Naive = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def check_rule(
    rule: Rule,
    *,
    naive: Naive | None = None,
    conserves: bool = False,
    linear: bool = True,
    domain: tuple[float, float] = (-1.0, 1.0),
    alternatives: Mapping[str, Any] | None = None,
) -> None:
    """Check a propagation rule.

    It must be a frozen value that its ``repr`` rebuilds; each hyperparameter must have an effect or be refused; on tiny
    nodes of all kinds that it is defined for, relevance must keep shape and dtype, be finite at zero inputs and zero
    weights, be 0 where none arrives, be linear in what arrives, be the same for a batch and for its samples alone, and
    the same compiled as step by step. Rules that compare with a reference get one that is fixed.

    Args:
        rule: the rule.
        naive: its definition in NumPy: (x, W, b, R) of one sample -> relevance of the inputs. Compared in float64 on
            dense, convolutional, depthwise and transposed layers, for signed and for non-negative inputs.
        conserves: whether relevance is conserved where an output has contributions of both signs and no bias.
        linear: False for rules that only scale with relevance (that cut off negative signals). Default True.
        domain: range of the inputs to try.
        alternatives: for hyperparameters that are neither numbers nor booleans: a second value by name.

    Raises:
        AssertionError: a check fails; the message names check, node, expected and received.

    Example:
        >>> from kxai import rules
        >>> check_rule(rules.Epsilon(0.1), alternatives={"relative": "rms"})
    """
    _check_value(rule)
    found = 0
    for name in (*AFFINE, *OTHER):
        found += _check_node(rule, name, domain, linear)
    require(found > 0, "the rule is defined for some node", repr(rule), expected="one node at least", received="none")
    _check_arguments(rule, domain, dict(alternatives or {}))
    if naive is not None:
        for name in AFFINE:
            _check_naive(rule, tiny(name, "float64"), naive, domain)
    if conserves:
        for name in AFFINE.keys() - SLOW:
            _check_conservation(rule, tiny(name, "float64"), domain)


def _check_value(rule: Rule) -> None:
    name = repr(rule)
    require(dataclasses.is_dataclass(rule), "frozen value", name, expected="a dataclass", received=str(type(rule)))
    require_frozen(rule, "anything", expected="@dataclass(frozen=True)")
    with during("repr rebuilds the rule", name):
        rebuilt = eval(name, {**vars(np), type(rule).__name__: type(rule)})
    require(rebuilt == rule, "equality of equal rules", name, expected=name, received=repr(rebuilt))
    require(
        hash(rebuilt) == hash(rule), "hash of equal rules", name, expected="equal hashes", received="different ones"
    )


def _relevance(step: Step, seed: int = 5) -> np.ndarray:
    output = step.outputs[0]
    return np.random.default_rng(seed).normal(size=tuple(output.shape)).astype(output.dtype.name)


def _check_node(rule: Rule, name: str, domain: tuple[float, float], linear: bool) -> int:
    """All checks on one tiny model; how many of its nodes the rule serves."""
    model, case = tiny(name), f"{rule!r} on {name}"
    with during("propagate", case):
        plan, inputs = plan_of(rule, model), values(model, *domain)
        served = list(steps(rule, plan, inputs))
        for step in served:
            _check_form(case, step, sent(rule, step, _relevance(step)))
        if not served or name in SLOW:
            return len(served)
        _check_zeros(rule, model, plan, domain)
        if name in AFFINE:  # without rounding to speak of
            model = tiny(name, "float64")
            plan, inputs = plan_of(rule, model), values(model, *domain)
        for index, step in enumerate(steps(rule, plan, inputs)):
            arriving = _relevance(step)
            received = sent(rule, step, arriving)
            _check_linear(rule, case, step, arriving, received, linear)
            _check_parts(rule, case, plan, index, inputs, arriving, received)
            if name in ("Dense", "Conv2D same dilated", *OTHER):
                _check_compiled(rule, case, plan, index, inputs, arriving, received)
    return len(served)


def _check_form(case: str, step: Step, received: list[Any]) -> None:
    count = len(step.inputs)
    require(
        len(received) == count, "one entry per input", case, expected=f"{count}", received=f"{len(received)} entries"
    )
    for x, r in zip(step.inputs, received, strict=True):
        if r is not None:
            wanted, got = f"{tuple(x.shape)} {x.dtype.name}", f"{r.shape} {r.dtype.name}"
            require(wanted == got, "shape and dtype of the input", case, expected=wanted, received=got)
            require_finite("finite relevance", case, r)


def _check_linear(rule: Rule, case: str, step: Step, arriving: np.ndarray, received: list[Any], linear: bool) -> None:
    nothing = sent(rule, step, np.zeros_like(arriving))
    require(
        not any(np.any(r) for r in nothing if r is not None),
        "no relevance from no relevance", case, expected="0 for R = 0", received="other numbers",
    )  # fmt: skip
    _compare(
        "relevance scales with what arrives", case, [_times(2.5, r) for r in received], sent(rule, step, 2.5 * arriving)
    )
    if linear:
        other = _relevance(step, seed=6)
        sums = [None if a is None else a + b for a, b in zip(received, sent(rule, step, other), strict=True)]
        _compare("linear in relevance", case, sums, sent(rule, step, arriving + other))


def _times(factor: float, r: np.ndarray | None) -> np.ndarray | None:
    return None if r is None else factor * r


def _compare(check: str, case: str, expected: list[Any], received: list[Any], tolerance: float = 1e-4) -> None:
    for e, r in zip(expected, received, strict=True):
        same = (e is None) == (r is None)
        require(same, check, case, expected="None for the same inputs", received="None elsewhere")
        if e is not None:
            require_close(check, case, e, r, tolerance)


def _check_parts(
    rule: Rule, case: str, plan: Plan, index: int, inputs: list[Any], arriving: np.ndarray, received: list[Any]
) -> None:
    for i in range(len(arriving)):
        one = slice(i, i + 1)
        step = list(steps(rule, plan, [x[one] for x in inputs]))[index]
        expected = [None if r is None else r[one] for r in received]
        _compare("a batch equals its samples alone", case, expected, sent(rule, step, arriving[one]))


def _check_compiled(
    rule: Rule, case: str, plan: Plan, index: int, inputs: list[Any], arriving: np.ndarray, received: list[Any]
) -> None:
    node = [node for node, given in plan.rules.items() if given is rule][index]

    def run(tensors: list[Any], relevance: Any) -> list[Any]:
        result = rule.propagate(run_of(rule, plan, tensors).steps[node], relevance)
        return [r for r in result if r is not None]

    specs = [Spec((None, *x.shape[1:]), x.dtype.name) for x in inputs]
    compiled = backend.compile(run, (specs, Spec((None, *arriving.shape[1:]), arriving.dtype.name)))
    expected = [r for r in received if r is not None]
    _compare("compiled equals step by step", case, expected, [backend.to_numpy(r) for r in compiled(inputs, arriving)])


def _check_zeros(rule: Rule, model: Tiny, plan: Plan, domain: tuple[float, float]) -> None:
    """Zero inputs, zero weights, both."""
    weights = model.model.get_weights()
    inputs = values(model, *domain)
    nothing = [np.zeros_like(x) + np.clip(0, *domain).astype(x.dtype) for x in inputs]
    try:
        for what, x, w in (("input", nothing, 1), ("weights", inputs, 0), ("input and weights", nothing, 0)):
            model.model.set_weights([w * value for value in weights])
            for step in steps(rule, plan, x):
                received = [r for r in sent(rule, step, _relevance(step)) if r is not None]
                require_finite(f"finite at zero {what}", f"{rule!r} on {model.name}", received)
    finally:
        model.model.set_weights(weights)


def _check_arguments(rule: Rule, domain: tuple[float, float], alternatives: dict[str, Any]) -> None:
    """Each hyperparameter changes what the rule does, or is refused."""
    before = _behaviour(rule, domain)
    value: Any = rule  # a dataclass, as was checked
    for name in [field.name for field in dataclasses.fields(value)]:
        case, first = f"{name} of {rule!r}", getattr(rule, name)
        known = name in alternatives or isinstance(first, (bool, int, float))
        require(known, "every argument has an effect", case, expected=f"alternatives={{{name!r}: ...}}",
                received="no second value to try")  # fmt: skip
        try:
            changed = dataclasses.replace(
                value, **{name: alternatives[name] if name in alternatives else another(first)}
            )
        except KxaiError:
            continue
        effect = not _same(before, _behaviour(changed, domain))
        require(effect, "every argument has an effect", case, expected=f"a difference to {changed!r}", received="none")


def _behaviour(rule: Rule, domain: tuple[float, float]) -> dict[str, list[Any]]:
    """What the rule sends, node by node; nothing where it is not defined."""
    found = {}
    names = [(name, "float64") for name in ("Dense", "Conv2D same dilated")] + [(name, "float32") for name in OTHER]
    for name, dtype in names:
        model = tiny(name, dtype)
        try:
            served = list(steps(rule, plan_of(rule, model), values(model, *domain)))
        except KxaiError:
            continue
        found[name] = [r for step in served for r in sent(rule, step, _relevance(step)) if r is not None]
    return found


def _same(one: dict[str, list[Any]], two: dict[str, list[Any]]) -> bool:
    return one.keys() == two.keys() and all(
        len(one[name]) == len(two[name])
        and all(np.array_equal(a, b) for a, b in zip(one[name], two[name], strict=True))
        for name in one
    )


def _unrolled(model: Tiny) -> tuple[np.ndarray, np.ndarray]:
    """(W, b) of an affine layer, by what the layer itself makes of unit vectors."""
    (shape,) = model.shapes
    size = int(np.prod(shape))
    bias = backend.to_numpy(model.model(np.zeros((1, *shape)))).ravel()
    kernel = backend.to_numpy(model.model(np.eye(size).reshape(size, *shape))).reshape(size, -1) - bias
    # (w + b) - b is not exactly w, but an input that is not connected gives exactly 0.
    return kernel, bias


def _views(step: Step, rule: Rule, plan: Plan, inputs: list[Any], domain: tuple[float, float]) -> Iterator[Any]:
    """(name, step, mask of relevance) as a network would present the node: after anything, and between ReLUs."""
    yield "signed inputs", step, None
    if domain[1] > 0:
        positive = [np.clip(np.abs(x), max(domain[0], 0), domain[1]) for x in inputs]
        [step] = steps(rule, plan, positive)
        step = dataclasses.replace(step, nonnegative=(True,))
        yield "non-negative inputs", step, None
        yield "before a ReLU", dataclasses.replace(step, rectified=True), backend.to_numpy(step.outputs[0]) > 0


def _check_naive(rule: Rule, model: Tiny, naive: Naive, domain: tuple[float, float]) -> None:
    plan, inputs = plan_of(rule, model), values(model, *domain)
    W, b = _unrolled(model)
    for step in steps(rule, plan, inputs):
        for view, seen, mask in _views(step, rule, plan, inputs, domain):
            if view != "signed inputs" and model.name in SLOW:
                break
            arriving = _relevance(seen) if mask is None else np.where(mask, _relevance(seen), 0)
            x = backend.to_numpy(seen.inputs[0])
            flat = zip(x.reshape(len(x), -1), arriving.reshape(len(x), -1), strict=True)
            expected = np.stack([naive(one, W, b, r) for one, r in flat]).reshape(x.shape)
            case = f"{rule!r} on {model.name}, {view}"
            require_close("equals the naive definition", case, expected, sent(rule, seen, arriving)[0], 1e-8)


def _check_conservation(rule: Rule, model: Tiny, domain: tuple[float, float]) -> None:
    weights = model.model.get_weights()
    try:
        model.model.set_weights([w if w.ndim > 1 else 0 * w for w in weights])
        plan, inputs = plan_of(rule, model), values(model, *domain)
        W, _ = _unrolled(model)
        for step in steps(rule, plan, inputs):
            x = backend.to_numpy(step.inputs[0]).reshape(len(inputs[0]), -1)
            contributions = x[:, :, None] * W
            parts = np.maximum(contributions, 0).sum(1), np.minimum(contributions, 0).sum(1)
            safe = (parts[0] > 1e-2) & (parts[1] < -1e-2) & (np.abs(parts[0] + parts[1]) > 1e-2)
            arriving = _relevance(step) * safe.reshape(step.outputs[0].shape)
            handed = sent(rule, step, arriving)[0]
            received = np.zeros(len(x)) if handed is None else handed.reshape(len(x), -1).sum(1)
            total = arriving.reshape(len(x), -1).sum(1)
            require_close("conserves relevance", f"{rule!r} on {model.name}", total, received, 1e-2)
    finally:
        model.model.set_weights(weights)
