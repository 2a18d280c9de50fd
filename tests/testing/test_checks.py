"""Every check fails on something that is broken in just that way."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import kxai
from kxai import Composite, Kind, preset
from kxai.errors import ArgumentError
from kxai.nest import map_leaves
from kxai.rules import Epsilon, Pass, Rule
from kxai.testing import check_analyzer, check_composite, check_rule, composite_checks, models
from kxai.testing.compare import during, require_close, require_finite

# --- comparison


def test_a_difference_is_located():
    with pytest.raises(AssertionError, match=r"sum \[case\]\n  Expected: 2 at \(1,\).*\n  Received: 3"):
        require_close("sum", "case", np.array([1.0, 2.0]), np.array([1.0, 3.0]))


@pytest.mark.parametrize("received", [np.array([1.0, np.nan]), np.array([1.0]), [np.array([1.0, 2.0])]])
def test_other_shapes_and_nan_are_differences(received):
    with pytest.raises(AssertionError):
        require_close("sum", "case", np.array([1.0, 2.0]), received)


def test_infinity_is_not_finite():
    with pytest.raises(AssertionError, match="1 of 2 are not"):
        require_finite("finite", "case", {"a": np.array([1.0, np.inf])})


def test_any_exception_becomes_a_failure():
    with pytest.raises(AssertionError, match=r"explain \[toy\](.|\n)*ZeroDivisionError"), during("explain", "toy"):
        1 / 0  # noqa: B018


# --- rules


class Broken(Rule):
    """The gradient at affine nodes, with ``change`` to break it."""

    kinds: ClassVar = frozenset({Kind.AFFINE})

    def propagate(self, step, relevance):
        return [self.change(step, relevance, step.pullback(relevance)[0])]

    def change(self, step, relevance, sent):
        return sent


class NotFrozen(Broken):
    pass


@dataclass
class Mutable(Broken):
    pass


@dataclass(frozen=True, repr=False)
class NoRepr(Broken):
    pass


@dataclass(frozen=True, eq=False)
class NotEqual(Broken):
    pass


@dataclass(frozen=True)
class UnusedArgument(Broken):
    sharpness: float = 1.0


@dataclass(frozen=True)
class UntestedArgument(Broken):
    mode: str = "soft"


@dataclass(frozen=True)
class OutputShaped(Broken):
    def change(self, step, relevance, sent):
        return relevance


@dataclass(frozen=True)
class HalfPrecision(Broken):
    def change(self, step, relevance, sent):
        return ops.cast(sent, "float16")


@dataclass(frozen=True)
class TwoForOneInput(Broken):
    def propagate(self, step, relevance):
        return [step.pullback(relevance)[0]] * 2


@dataclass(frozen=True)
class Unguarded(Broken):
    def change(self, step, relevance, sent):
        return step.inputs[0] * step.pullback(relevance / step.outputs[0])[0]


@dataclass(frozen=True)
class UnguardedInput(Broken):
    def change(self, step, relevance, sent):
        return sent * step.inputs[0] / step.inputs[0]


@dataclass(frozen=True)
class OutOfNothing(Broken):
    def change(self, step, relevance, sent):
        return sent + 1


@dataclass(frozen=True)
class Quadratic(Broken):
    def change(self, step, relevance, sent):
        return sent * ops.abs(sent)


@dataclass(frozen=True)
class Rectifying(Broken):
    def change(self, step, relevance, sent):
        return ops.relu(sent)


@dataclass(frozen=True)
class MixingSamples(Broken):
    def change(self, step, relevance, sent):
        return sent - ops.mean(sent, axis=0, keepdims=True)


@dataclass(frozen=True)
class StaticBatch(Broken):
    def change(self, step, relevance, sent):
        return sent if step.inputs[0].shape[0] is None else 2 * sent


@dataclass(frozen=True)
class WithoutNodes(Broken):
    kinds: ClassVar = frozenset()


@dataclass(frozen=True)
class Raising(Broken):
    def change(self, step, relevance, sent):
        raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (NotFrozen(), "frozen value"),
        (Mutable(), "frozen value"),
        (NoRepr(), "repr rebuilds the rule"),
        (NotEqual(), "equality of equal rules"),
        (UnusedArgument(), "every argument has an effect"),
        (UntestedArgument(), "alternatives={'mode': ...}"),
        (OutputShaped(), "shape and dtype of the input"),
        (HalfPrecision(), "shape and dtype of the input"),
        (TwoForOneInput(), "one entry per input"),
        (Unguarded(), "finite at zero weights"),
        (UnguardedInput(), "finite at zero input"),
        (OutOfNothing(), "no relevance from no relevance"),
        (Quadratic(), "relevance scales with what arrives"),
        (Rectifying(), "linear in relevance"),
        (MixingSamples(), "a batch equals its samples alone"),
        (StaticBatch(), "compiled equals step by step"),
        (WithoutNodes(), "the rule is defined for some node"),
        (Raising(), "RuntimeError: out of order"),
    ],
)
def test_broken_rules_are_seen(rule, message):
    with pytest.raises(AssertionError) as failure:
        check_rule(rule)
    assert message in str(failure.value)


def gradient(x, W, b, R):
    return W @ R


def test_a_rule_that_scales_only_is_allowed_to():
    check_rule(Rectifying(), linear=False)


@dataclass(frozen=True)
class Sound(Broken):
    pass


@dataclass(frozen=True)
class TrustsSignsTooMuch(Broken):
    def change(self, step, relevance, sent):
        return 2 * sent if step.nonnegative[0] else sent


@dataclass(frozen=True)
class TrustsReLUTooMuch(Broken):
    def change(self, step, relevance, sent):
        return 2 * sent if step.rectified else sent


def test_a_sound_rule_passes():
    check_rule(Sound(), naive=gradient)


@pytest.mark.parametrize(
    ("rule", "naive", "message"),
    [
        (Sound(), lambda x, W, b, R: 1.001 * W @ R, "signed inputs"),
        (TrustsSignsTooMuch(), gradient, "non-negative inputs"),
        (TrustsReLUTooMuch(), gradient, "before a ReLU"),
    ],
)
def test_other_formulas_are_seen(rule, naive, message):
    with pytest.raises(AssertionError, match=f"equals the naive definition.*{message}"):
        check_rule(rule, naive=naive)


def test_lost_relevance_is_seen():
    with pytest.raises(AssertionError, match="conserves relevance"):
        check_rule(Sound(), conserves=True)


# --- composites


def table(*rows):
    return Composite("broken", rows)


COMMON = preset("epsilon").rows


@pytest.mark.parametrize(
    ("composite", "message"),
    [
        (table(), "at least one row"),
        (table((Kind.AFFINE, "epsilon")), "rows are pairs of match and rule"),
        (table((Kind.AFFINE, Epsilon())), "'re_lu"),
        (table(("no_such_layer", Epsilon()), *COMMON), "no_such_layer"),
        (table((Kind.AFFINE, Rectifying()), *COMMON), "linear in the target"),
        (table((Kind.AFFINE, OutOfNothing()), *COMMON), "no relevance from no target"),
        (table((Kind.AFFINE, Pass()), *COMMON), "does not apply to node"),
    ],
)
def test_broken_composites_are_seen(composite, message):
    with pytest.raises(AssertionError) as failure:
        check_composite(composite, cases=[models.mlp])
    assert message in str(failure.value)


class Leaking(kxai.LRP):
    def explain(self, *arguments, **options):
        explanation = super().explain(*arguments, **options)
        return dataclasses.replace(explanation, relevance=explanation.relevance * 1.1)


def test_relevance_that_the_audit_does_not_account_for_is_seen(monkeypatch):
    monkeypatch.setattr(composite_checks, "LRP", Leaking)
    with pytest.raises(AssertionError, match=r"score = relevance \+ absorbed"):
        check_composite(preset("epsilon"), cases=[models.mlp])


def test_rows_put_after_the_table_are_seen(monkeypatch):
    monkeypatch.setattr(
        Composite, "but", lambda self, *rows: Composite(self.name, (*self.rows, *rows)) if rows else self
    )
    with pytest.raises(AssertionError, match=r"rows of but\(\) win"):
        check_composite(preset("epsilon"), cases=[models.mlp])


# --- analyzers


class Sick(kxai.Analyzer):
    """The gradient, with something done ``before`` it and ``after``."""

    name = "sick"

    def __init__(self, model):
        super().__init__(model)
        self._inner = kxai.Gradient(model)

    def explain(self, x, target=None, batch_size=32, **options):
        self.before()
        return self.after(self._inner.explain(x, target, batch_size, **options))

    def _prepare(self, *arguments):
        raise NotImplementedError

    def before(self):
        pass

    def after(self, explanation):
        changed = self.relevance(explanation.relevance)
        return explanation if changed is explanation.relevance else dataclasses.replace(explanation, relevance=changed)

    def relevance(self, relevance):
        return relevance


class Listed(Sick):
    def relevance(self, relevance):
        return [relevance]


class Summed(Sick):
    """One number per row, called one per position."""

    granularity = "position"

    def relevance(self, relevance):
        return relevance.sum(axis=-1, keepdims=True)


class Double(Sick):
    def relevance(self, relevance):
        return relevance.astype("float64")


class OtherOutputs(Sick):
    def after(self, explanation):
        return dataclasses.replace(explanation, outputs=explanation.outputs * 1.1)


class OtherScore(Sick):
    calls = 0

    def after(self, explanation):
        self.calls += 1
        return dataclasses.replace(explanation, score=explanation.score + self.calls)


class Forgetful(Sick):
    calls = 0

    def relevance(self, relevance):
        self.calls += 1
        return relevance * np.float32(self.calls)


class Mixing(Sick):
    def relevance(self, relevance):
        return relevance - relevance.mean(axis=0)


class Ordered(Sick):
    def relevance(self, relevance):
        weight = np.where(np.arange(len(relevance)) == 1, 2, 1).astype("float32")
        return relevance * weight[:, None]


class Infinite(Sick):
    def relevance(self, relevance):
        return relevance if np.any(self.model.get_weights()[0]) else np.full_like(relevance, np.nan)


class InfiniteAtZero(Sick):
    def explain(self, x, target=None, batch_size=32, **options):
        explanation = super().explain(x, target, batch_size, **options)
        return explanation if np.any(x) else self.nan(explanation)

    def nan(self, explanation):
        return dataclasses.replace(explanation, relevance=np.full_like(explanation.relevance, np.nan))


class TouchesWeights(Sick):
    def before(self):
        bias = self.model.weights[-1]
        bias.assign(bias + 1e-3)


class TouchesConfiguration(Sick):
    def before(self):
        self.model.layers[0].activation = keras.activations.relu6


class TouchesGraph(Sick):
    def before(self):
        self.model(keras.Input((6,)))


class TouchesTrainable(Sick):
    def before(self):
        self.model.trainable = False


class Compiles(Sick):
    def before(self):
        self.model.compile("sgd", "mse")


class ReordersVariables(Sick):
    def before(self):
        self.model.layers[0]._trainable_variables.reverse()


class Retracing(Sick):
    def before(self):
        self._inner = kxai.Gradient(self.model)


class Stale(Sick):
    def __init__(self, model):
        super().__init__(model)
        self._first = [w.copy() for w in model.get_weights()]

    def explain(self, x, target=None, batch_size=32, **options):
        now = self.model.get_weights()
        if not any(map(np.any, now)):
            return super().explain(x, target, batch_size, **options)
        self.model.set_weights(self._first)
        try:
            return super().explain(x, target, batch_size, **options)
        finally:
            self.model.set_weights(now)


class OtherWhenEager(Sick):
    def relevance(self, relevance):
        return 2 * relevance if tf.config.functions_run_eagerly() else relevance


class SharesState(Sick):
    meeting = threading.Barrier(4, timeout=60)  # of the check's threads

    def explain(self, x, target=None, batch_size=32, **options):
        self._x = x
        if threading.current_thread() is not threading.main_thread():
            self.meeting.wait()
        return super().explain(self._x, target, batch_size, **options)


class Unbound(Sick):
    def bind(self, model):
        return Double2(model)


class Double2(Sick):
    def relevance(self, relevance):
        return 2 * relevance


class CountsNames(Sick):
    def __init__(self, model):
        super().__init__(model)
        keras.layers.Dense(1)


class Keeps(Sick):
    kept: ClassVar[list[Any]] = []

    def __init__(self, model):
        super().__init__(model)
        self.kept.append(model)


class Failing(Sick):
    def before(self):
        raise RuntimeError("out of order")


class Ineffective(Sick):
    def __init__(self, model, sharpness=1.0):
        super().__init__(model)
        self._sharpness = sharpness


class Unreported(Sick):
    def __init__(self, model, sharpness=1.0):
        super().__init__(model)
        self.factor = sharpness


class Untested(Sick):
    def __init__(self, model, mode="soft"):
        super().__init__(model)
        self._mode = mode


class Unkept(Sick):
    def __init__(self, model, factor=1.0):
        super().__init__(model)
        self._factor = factor

    def bind(self, model):
        return Unkept(model, self._factor + 1)

    def relevance(self, relevance):
        return relevance * np.float32(self._factor)


@pytest.mark.parametrize(
    ("sick", "message"),
    [
        (Listed, "relevance is structured like the inputs"),
        (Summed, "relevance is structured like the inputs"),
        (Double, "dtype of relevance"),
        (OtherOutputs, "outputs are the model's"),
        (OtherScore, "second call = first [mlp, score]"),
        (Forgetful, "second call = first [mlp, relevance]"),
        (Mixing, "a batch equals its samples alone"),
        (Ordered, "the order of samples does not matter"),
        (Infinite, "relevance is not finite"),
        (InfiniteAtZero, "relevance is not finite"),
        (TouchesWeights, "the model is untouched [mlp, weights]"),
        (TouchesConfiguration, "the model is untouched [mlp, configuration]"),
        (TouchesGraph, "the model is untouched [mlp, calls that Keras has recorded]"),
        (TouchesTrainable, "the model is untouched [mlp, configuration]"),
        (Compiles, "the model is untouched [mlp, compiled]"),
        (ReordersVariables, "the model is untouched [mlp, variables (as objects)]"),
        (Retracing, "one trace serves all [mlp, other batch sizes]"),
        (Stale, "weights are read when an explanation is made"),
        (OtherWhenEager, "compiled = step by step"),
        (SharesState, "four threads = one"),
        (Unbound, "a saved and reloaded model gives the same numbers"),
        (Unkept, "bind keeps the hyperparameters"),
        (CountsNames, "Keras counts names as if nothing had happened"),
        (Keeps, "an explained model can be garbage-collected"),
        (Failing, "RuntimeError: out of order"),
        (Ineffective, "every argument has an effect [sharpness"),
        (Unreported, "hyperparameters() reports every argument"),
        (Untested, "alternatives={'mode': ...}"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:keras.*")
def test_sick_analyzers_are_seen(sick, message):
    with pytest.raises(AssertionError) as failure:
        check_analyzer(sick, cases=[models.mlp], twins=[])
    assert message in str(failure.value)


def test_a_fitted_analyzer_must_refuse_other_weights():
    fitted = []
    with pytest.raises(AssertionError, match="other weights are refused until it is fitted again"):
        check_analyzer(Sick, cases=[models.mlp], twins=[], fit=fitted.append)
    assert fitted


def test_an_analyzer_without_rules_has_no_plan():
    with pytest.raises(ArgumentError, match="sick gives no rules to the nodes of a model"):
        Sick(models.mlp().model).plan()


def test_the_analyzer_that_they_are_made_of_is_well():
    check_analyzer(Sick, cases=[models.mlp])


class CountsLayers(Sick):
    def relevance(self, relevance):
        return map_leaves(lambda r: r * np.float32(len(self.model.layers)), relevance)


def test_a_dependence_on_the_way_a_model_is_written_is_seen():
    with pytest.raises(AssertionError, match="nested = inlined"):
        check_analyzer(CountsLayers, cases=[models.mlp])


def test_twins_compute_the_same():
    for left, right in models.TWINS:
        one, two = left(), right()
        np.testing.assert_allclose(one.model(one.inputs), two.model(two.inputs), rtol=1e-5)


@pytest.mark.parametrize("build", [*models.ALL, models.gated, models.vgg])
def test_models_are_the_same_each_time(build):
    one, two = build(), build()
    assert all(map(np.array_equal, one.model.get_weights(), two.model.get_weights()))
    assert one.name == two.name
