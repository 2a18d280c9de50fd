"""Is it an analyzer? ``check_analyzer`` runs it on models of every structure and looks for what must not happen."""

from __future__ import annotations

import gc
import inspect
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kxai import backend, nest
from kxai.analyzers import Analyzer
from kxai.errors import KxaiError, KxaiWarning
from kxai.explanation import Explanation
from kxai.loading import load
from kxai.testing.compare import another, during, require, require_close, require_finite
from kxai.testing.models import CORE, TWINS, Builder, Case
from kxai.testing.snapshot import Snapshot, name_counters

Factory = Callable[[keras.Model], Analyzer]

# Arguments that may change the time that is needed, and nothing else.
_SPEED = frozenset({"jit", "batch_size", "verbose"})


def check_analyzer(
    factory: Factory,
    *,
    cases: Sequence[Builder] = CORE,
    twins: Sequence[tuple[Builder, Builder]] = TWINS,
    alternatives: Mapping[str, Any] | None = None,
    argument_cases: Sequence[Builder] | None = None,
    fit: Callable[[Analyzer], Any] | None = None,
    tolerance: float = 1e-4,
) -> None:
    """Check an analyzer.

    On every model: relevance is structured like the inputs, shaped as the analyzer's ``granularity`` says, float32 and
    finite, also for zero inputs and zero weights; the outputs are the model's; a second call, a batch and its samples
    alone, and another order give the same; the model is left untouched; one trace serves all batch sizes and weights.
    On the first model: changed weights count at once; compiled equals step by step; four threads equal one; a saved and
    reloaded model gives the same numbers, and ``bind`` the same analysis; the model can be garbage-collected; Keras'
    names are counted as if nothing had happened; every constructor argument is reported by ``hyperparameters()`` and
    changes the result or is refused. On the twins: nested equals inlined, a shared layer equals copies of it.

    Args:
        factory: model -> analyzer.
        cases: builders of models that it must explain, see :mod:`kxai.testing.models`.
        twins: pairs of builders whose models compute the same from the same inputs.
        alternatives: a second value per constructor argument, by name; booleans and numbers need none.
        argument_cases: builders of models on which arguments have an effect; default ``cases``.
        fit: for a method that is fitted to data: called with every analyzer that is made. Weights that change are then
            to be refused until it is called again. Default None.
        tolerance: largest relative difference between results that should be equal.

    Raises:
        AssertionError: a check fails; the message names check, model, expected and received.

    Example:
        >>> import kxai
        >>> from kxai.testing import models
        >>> check_analyzer(kxai.Gradient, cases=[models.mlp], twins=[])
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KxaiWarning)  # a warning that a score is not positive, say, is no failure
        make = _fitting(factory, fit)
        for build in cases:
            _check_case(make, build(), fit, tolerance)
        first = cases[0]
        with during(_check_weights.__doc__ or "", first().name):
            _check_weights(make, first(), fit, tolerance)
        for check in (_check_eager, _check_threads, _check_saved, _check_names):
            case = first()
            with during(check.__doc__ or "", case.name):
                check(make, case, tolerance)
        _check_collected(make, first)
        for left, right in twins:
            _check_twins(make, left(), right(), tolerance)
        _check_arguments(factory, [build() for build in argument_cases or cases], dict(alternatives or {}), fit)


def _fitting(factory: Factory, fit: Callable[[Analyzer], Any] | None) -> Factory:
    """The factory, with each analyzer fitted."""

    def make(model: keras.Model) -> Analyzer:
        analyzer = factory(model)
        if fit is not None:
            fit(analyzer)
        return analyzer

    return make


def _explain(analyzer: Analyzer, case: Case, inputs: Any = None, **options: Any) -> Explanation:
    return analyzer.explain(case.inputs if inputs is None else inputs, case.target, **options)


def _check_case(factory: Factory, case: Case, fit: Callable[[Analyzer], Any] | None, tolerance: float) -> None:
    before = Snapshot.of(case)
    with during("the analyzer explains the model", case.name):
        analyzer = factory(case.model)
        explanation = _explain(analyzer, case)
        before.check(case)
        _check_form(case, explanation, analyzer.granularity)
        traces = backend.trace_count()
        _close("second call = first", case, explanation, _explain(analyzer, case), tolerance)
        _check_parts(analyzer, case, explanation, tolerance)
        _require_traces(case, traces, "other batch sizes")
        zeros = nest.map_leaves(np.zeros_like, case.inputs)
        require_finite("finite at zero inputs", case.name, _explain(analyzer, case, zeros).relevance)
        _check_zero_weights(analyzer, case, fit)


def _require_traces(case: Case, before: int, what: str) -> None:
    traced = backend.trace_count() - before
    require(traced == 0, "one trace serves all", f"{case.name}, {what}", expected="no further trace",
            received=f"{traced}")  # fmt: skip


def _close(check: str, case: Case, expected: Explanation, received: Explanation, tolerance: float) -> None:
    require_close(check, f"{case.name}, relevance", expected.relevance, received.relevance, tolerance)
    require_close(check, f"{case.name}, outputs", expected.outputs, received.outputs, tolerance)
    require_close(check, f"{case.name}, score", expected.score, received.score, tolerance)


def _check_form(case: Case, explanation: Explanation, granularity: str) -> None:
    structures = [nest.describe(nest.map_leaves(lambda _: 0, part)) for part in (case.inputs, explanation.relevance)]
    pairs = zip(nest.leaves(case.inputs), nest.leaves(explanation.relevance), strict=False)
    fits = structures[0] == structures[1] and all(_fits(np.shape(x), r.shape, granularity) for x, r in pairs)
    require(fits, "relevance is structured like the inputs", case.name,
            expected=f"{nest.describe(case.inputs)}, one number per {granularity}",
            received=nest.describe(explanation.relevance))  # fmt: skip
    for array in nest.leaves(explanation.relevance):
        require(array.dtype == np.float32, "dtype of relevance", case.name, expected="float32",
                received=str(array.dtype))  # fmt: skip
    require_finite("finite relevance", case.name, explanation.relevance)
    outputs = nest.map_leaves(np.asarray, case.model(case.inputs, training=False))
    require_close("outputs are the model's", case.name, outputs, explanation.outputs)


def _fits(given: tuple[int, ...], shape: tuple[int, ...], granularity: str) -> bool:
    """Whether relevance of this shape may be that of an input."""
    if given == shape:
        return True
    if granularity == "value" or len(shape) < 3 or (shape[0], shape[-1]) != (given[0], 1):
        return False
    # The input's sizes without those of its channels, wherever they are, if it has any.
    sizes = {given[1:], *(given[1:axis] + given[axis + 1 :] for axis in range(1, len(given)))}
    return granularity == "feature" or shape[1:-1] in sizes


def _check_parts(analyzer: Analyzer, case: Case, whole: Explanation, tolerance: float) -> None:
    count = len(whole)
    single = nest.map_leaves(lambda x: x[count - 1 :], case.inputs)
    part = _explain(analyzer, case, single)
    _close("a batch equals its samples alone", case, whole[count - 1], part, tolerance)
    turned = _explain(analyzer, case, nest.map_leaves(lambda x: x[::-1], case.inputs), batch_size=count - 1)
    _close("the order of samples does not matter", case, whole[::-1], turned, tolerance)


def _check_zero_weights(analyzer: Analyzer, case: Case, fit: Callable[[Analyzer], Any] | None) -> None:
    weights = case.model.get_weights()
    try:
        case.model.set_weights([0 * w for w in weights])
        if fit is not None:
            fit(analyzer)
        require_finite("finite at zero weights", case.name, _explain(analyzer, case).relevance)
    finally:
        case.model.set_weights(weights)


def _check_weights(factory: Factory, case: Case, fit: Callable[[Analyzer], Any] | None, tolerance: float) -> None:
    """weights are read when an explanation is made"""
    analyzer = factory(case.model)
    before = _explain(analyzer, case)
    traces = backend.trace_count()
    random = np.random.default_rng(9)
    case.model.set_weights([w * random.uniform(0.5, 1.5, w.shape) for w in case.model.get_weights()])
    if fit is not None:
        outcome = _outcome(lambda _: analyzer, case)
        require(isinstance(outcome, str), "other weights are refused until it is fitted again", case.name,
                expected="an error", received="relevance")  # fmt: skip
        fit(analyzer)
    after = _explain(analyzer, case)
    if fit is None:
        _require_traces(case, traces, "changed weights")
    same = all(map(np.array_equal, nest.leaves(before.relevance), nest.leaves(after.relevance)))
    require(not same, "weights are read when an explanation is made", case.name, expected="other relevance for other "
            "weights", received="the same")  # fmt: skip
    _close("weights are read when an explanation is made", case, _explain(factory(case.model), case), after, tolerance)


def _check_eager(factory: Factory, case: Case, tolerance: float) -> None:
    """compiled = step by step"""
    compiled = _explain(factory(case.model), case)
    with backend.eagerly():
        _close("compiled = step by step", case, compiled, _explain(factory(case.model), case), tolerance)


def _check_threads(factory: Factory, case: Case, tolerance: float) -> None:
    """four threads = one"""
    inputs = [nest.map_leaves(lambda x, i=i: np.roll(x, i, axis=0), case.inputs) for i in range(4)]
    shared = factory(case.model)

    def work(i: int) -> Explanation:
        # Two threads share an analyzer that has not been used yet, two make their own at the same time.
        return _explain(shared if i < 2 else factory(case.model), case, inputs[i])

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    for i, explanation in enumerate(found):
        _close("four threads = one", case, _explain(shared, case, inputs[i]), explanation, tolerance)


def _check_saved(factory: Factory, case: Case, tolerance: float) -> None:
    """a saved and reloaded model gives the same numbers"""
    analyzer = factory(case.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        case.model.save(path)
        again = analyzer.bind(load(path))
    kept = repr(again.hyperparameters()) == repr(analyzer.hyperparameters())
    require(kept, "bind keeps the hyperparameters", case.name, expected=f"{analyzer.hyperparameters()}",
            received=f"{again.hyperparameters()}")  # fmt: skip
    expected = _explain(analyzer, case)
    _close("a saved and reloaded model gives the same numbers", case, expected, _explain(again, case), tolerance)


def _check_names(factory: Factory, case: Case, tolerance: float) -> None:
    """Keras counts names as if nothing had happened"""
    before, between = name_counters(), name_counters()
    _explain(factory(case.model), case)
    after = name_counters()
    expected = {name: 2 * count - before[name] for name, count in between.items()}
    require(after == expected, "Keras counts names as if nothing had happened", case.name, expected=f"{expected}",
            received=f"{after}")  # fmt: skip


def _check_collected(factory: Factory, build: Builder) -> None:
    def use() -> tuple[str, weakref.ref[keras.Model]]:
        case = build()
        _explain(factory(case.model), case)
        return case.name, weakref.ref(case.model)

    name, reference = use()
    gc.collect()
    require(reference() is None, "an explained model can be garbage-collected", name, expected="no reference to it",
            received="it is still alive")  # fmt: skip


def _check_twins(factory: Factory, left: Case, right: Case, tolerance: float) -> None:
    check = f"{left.name} = {right.name}"
    with during(check, left.name):
        _close(check, left, _explain(factory(right.model), right), _explain(factory(left.model), left), tolerance)


def _check_arguments(
    factory: Factory, cases: list[Case], alternatives: dict[str, Any], fit: Callable[[Analyzer], Any] | None
) -> None:
    """Every constructor argument changes the result or raises."""
    analyzer = factory(cases[0].model)
    given, signature = analyzer.hyperparameters(), inspect.signature(type(analyzer).__init__).parameters
    wanted = [p.name for p in list(signature.values())[2:] if p.kind is not p.VAR_KEYWORD]
    missing = [name for name in wanted if name not in given]
    require(not missing, "hyperparameters() reports every argument", repr(analyzer), expected=", ".join(wanted),
            received=f"without {', '.join(missing)}")  # fmt: skip
    before = [_outcome(_fitting(factory, fit), case) for case in cases]
    for name in sorted({*given, *alternatives} - _SPEED):
        value = given.get(name)
        number = isinstance(value, (bool, int, float))
        require(name in alternatives or number, "every argument has an effect", f"{name} of {analyzer!r}",
                expected=f"alternatives={{{name!r}: ...}}", received="no second value to try")  # fmt: skip
        changed = {**given, name: alternatives[name] if name in alternatives else another(value)}
        other = _fitting(partial(type(analyzer), **changed), fit)
        effect = any(_differs(old, _outcome(other, case)) for case, old in zip(cases, before, strict=True))
        require(effect, "every argument has an effect", f"{name} of {analyzer!r}",
                expected=f"a difference with {name}={changed[name]!r}", received="none on any model")  # fmt: skip


def _outcome(factory: Factory, case: Case) -> list[np.ndarray] | str:
    """Relevance, or the error that refuses."""
    try:
        return nest.leaves(_explain(factory(case.model), case).relevance)
    except KxaiError as error:
        return str(error)


def _differs(one: list[np.ndarray] | str, two: list[np.ndarray] | str) -> bool:
    if isinstance(one, str) or isinstance(two, str):
        return one is not two and one != two
    return not all(map(np.array_equal, one, two))
