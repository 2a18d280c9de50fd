"""Rules and kinds for layers of one's own: as a decorator, by a call, as a row of a composite."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai.errors import ArgumentError, ModelError, RuleError, UnknownNameError


class Mix(layers.Layer):
    """y = (x + gain * reversed x) ** 3 + x: neither an activation nor a sum."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(), initializer=keras.initializers.Constant(0.5))

    def call(self, x):
        return ops.power(x + self.gain * x[:, ::-1], 3) + x


class Heir(Mix):
    """Leaves call as it is."""


class Rebel(Mix):
    """Has a call of its own."""

    def call(self, x):
        return super().call(x) * 2.0


@dataclass(frozen=True)
class Backwards(kxai.rules.Rule):
    """R_in = share * reversed R_out."""

    share: float = 1.0

    def propagate(self, step, relevance):
        return [self.share * relevance[:, ::-1]]


@pytest.fixture(autouse=True)
def _clean():
    keras.utils.set_random_seed(0)
    yield
    for layer_class in (Mix, Heir, Rebel):
        try:
            kxai.rules.unregister(layer_class)
        except UnknownNameError:
            continue


def network(layer=None):
    return keras.Sequential(
        [layers.Input((4,)), layers.Dense(5, name="low"), layer or Mix(name="mix"), layers.Dense(3)]
    )


def batch():
    return np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


def rules_of(model, method="lrp.epsilon"):
    return {path: rule for path, _, rule in kxai.plan(model, method).rows}


def arriving(model, composite, path="low"):
    """Relevance of the output of the node before the layer, and of the layer's own output."""
    explanation = kxai.LRP(model, composite).explain(batch(), target=1, layers="*")
    return explanation.layers[path], explanation.layers["mix"]


def test_decorated_rule_is_used():
    @kxai.rules.register(Mix)
    @dataclass(frozen=True)
    class Twice(kxai.rules.Rule):
        def propagate(self, step, relevance):
            return [2.0 * relevance[:, ::-1] + 0.0 * step.inputs[0]]

    before, after = arriving(network(), "epsilon")
    assert np.abs(after).max() > 0
    np.testing.assert_array_equal(before, 2.0 * after[:, ::-1])
    assert "Twice" in rules_of(network())["mix"]
    assert Twice() == Twice()  # the decorator returns the class itself


def test_instances_keep_their_fields_and_the_last_one_counts():
    kxai.rules.register(Mix, Backwards(0.5))
    assert rules_of(network())["mix"] == "Backwards(share=0.5)"
    kxai.rules.register(Mix, Backwards(0.25))
    before, after = arriving(network(), "epsilon")
    np.testing.assert_array_equal(before, 0.25 * after[:, ::-1])


@pytest.mark.parametrize("method", ["lrp.epsilon", "lrp.z_plus", "lrp.epsilon_plus_flat", "deep_taylor"])
def test_every_propagation_method_knows_the_rule(method):
    kxai.rules.register(Mix, Backwards())
    assert rules_of(network(), method)["mix"] == "Backwards(share=1.0)"


@pytest.mark.parametrize("method", ["gradient", "guided_backprop"])
def test_gradient_methods_still_take_the_gradient(method):
    model = network()
    expected = kxai.explain(model, batch(), "gradient", target=1).relevance
    kxai.rules.register(Mix, Backwards())
    # The closed layer computes in another order than its opened calls: float32 rounding.
    np.testing.assert_allclose(kxai.explain(model, batch(), method, target=1).relevance, expected, rtol=1e-5)


def test_registered_weights_stay_live():
    model = network()
    kxai.rules.register(Mix, Backwards())
    analyzer = kxai.LRP(model, "epsilon")
    first = analyzer.explain(batch(), target=1)
    model.get_layer("mix").gain.assign(-2.0)
    second = analyzer.explain(batch(), target=1)
    np.testing.assert_allclose(second.score, np.asarray(model(batch()))[:, 1], rtol=1e-5)
    assert np.abs(first.score - second.score).max() > 0.1


@pytest.mark.parametrize("match", ["mix", Mix])
def test_rows_come_first(match):
    kxai.rules.register(Mix, Backwards())
    composite = kxai.preset("epsilon").but((match, Backwards(7.0)))
    before, after = arriving(network(), composite)
    np.testing.assert_array_equal(before, 7.0 * after[:, ::-1])


def test_a_kind_brings_the_rule_of_each_composite():
    kxai.rules.register(Mix, kind=kxai.Kind.ELEMENTWISE)
    before, after = arriving(network(), "epsilon")
    np.testing.assert_array_equal(before, after)
    assert rules_of(network())["mix"] == "Pass()"
    assert rules_of(network(), "gradient")["mix"] == "Gradient()"


def test_a_row_closes_a_layer_that_could_be_opened():
    model = network()
    assert "mix" not in rules_of(model)
    composite = kxai.preset("epsilon").but((Mix, Backwards()))
    assert "Backwards" in {p: r for p, _, r in kxai.LRP(model, composite).plan().rows}["mix"]
    assert "mix" not in rules_of(model)  # other composites open it as before


def test_a_row_with_a_rule_for_other_nodes_says_so():
    composite = kxai.preset("epsilon").but((Mix, kxai.rules.Epsilon()))
    with pytest.raises(RuleError, match=r"(?s)'mix'.*Expected: a node of kind affine.*Received: opaque"):
        kxai.LRP(network(), composite).plan()


def test_a_whole_model_may_have_a_row():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def call(self, x):
            return self.dense(x)

    inner = Net()
    model = keras.Sequential([layers.Input((4,)), inner, layers.Dense(2)])
    composite = kxai.preset("epsilon").but((Net, Backwards()))
    rows = [(kind, rule) for _, kind, rule in kxai.LRP(model, composite).plan().rows]
    assert rows[0] == ("opaque", "Backwards(share=1.0)")
    assert len(rows) == 2


def test_subclasses_count_where_they_leave_call_as_it_is():
    kxai.rules.register(Mix, Backwards())
    assert "Backwards" in rules_of(network(Heir(name="mix")))["mix"]
    assert "mix" not in rules_of(network(Rebel(name="mix")))
    kxai.rules.register(Heir, kind=kxai.Kind.ELEMENTWISE)  # the nearer class wins
    assert rules_of(network(Heir(name="mix")))["mix"] == "Pass()"


def test_heirs_of_keras_classes_may_be_registered():
    class OwnDense(layers.Dense):
        pass

    kxai.rules.register(OwnDense, Backwards())
    model = network(OwnDense(5, name="mix"))
    assert rules_of(model)["mix"] == "Backwards(share=1.0)"
    kxai.rules.unregister(OwnDense)
    assert rules_of(model)["mix"].startswith("Epsilon")


def test_after_unregister_the_layer_is_opened_again():
    kxai.rules.register(Mix, Backwards())
    kxai.rules.unregister(Mix)
    assert "mix" not in rules_of(network())
    with pytest.raises(UnknownNameError, match="Unknown registered layer class 'Mix'"):
        kxai.rules.unregister(Mix)


def test_several_inputs():
    class Join(layers.Layer):
        def call(self, pair):
            return pair[0] * pair[1]

    @dataclass(frozen=True)
    class Halves(kxai.rules.Rule):
        def propagate(self, step, relevance):
            return [0.5 * relevance, 0.5 * relevance]

    kxai.rules.register(Join, Halves())
    a, b = layers.Input((4,)), layers.Input((4,))
    model = keras.Model([a, b], Join()([a, b]))
    got = kxai.LRP(model, "epsilon").explain([batch(), batch() + 1], target=2).relevance
    half = 0.5 * batch()[:, 2] * (batch()[:, 2] + 1)
    for relevance in got:
        np.testing.assert_allclose(relevance[:, 2], half, rtol=1e-6)
    kxai.rules.unregister(Join)


def test_the_registry_keeps_no_class_alive():
    class Passing(layers.Layer):
        pass

    kxai.rules.register(Passing, Backwards())
    gone = weakref.ref(Passing)
    del Passing
    gc.collect()
    assert gone() is None


def test_threads():
    made = [type(f"Own{i}", (layers.Layer,), {}) for i in range(40)]

    def work(some):
        for layer_class in some:
            kxai.rules.register(layer_class, Backwards())
        for layer_class in some:
            kxai.rules.unregister(layer_class)

    threads = [threading.Thread(target=work, args=(made[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for layer_class in made:
        with pytest.raises(UnknownNameError):
            kxai.rules.unregister(layer_class)


@dataclass(frozen=True)
class Needy(kxai.rules.Rule):
    """Has a field without default."""

    share: float

    def propagate(self, step, relevance):
        return [relevance]


WRONG = {
    "no class": (lambda: kxai.rules.register("Mix", Backwards()), "(?s)Only layer classes.*Received: 'Mix'"),
    "a layer": (lambda: kxai.rules.register(Mix(), Backwards()), "(?s)Only layer classes.*Fix: pass the class"),
    "a class of Keras": (
        lambda: kxai.rules.register(layers.Dense, Backwards()),
        r"(?s)Dense is a class of Keras itself.*Fix: .*composite.but\(\(keras.layers.Dense, rule\)\)",
    ),
    "rule and kind": (lambda: kxai.rules.register(Mix, Backwards(), kind=kxai.Kind.SUM), "not with both"),
    "no rule": (lambda: kxai.rules.register(Mix, "epsilon"), "(?s)registered with a rule.*Received: 'epsilon'"),
    "a rule class": (lambda: kxai.rules.register(Mix, Backwards), r"(?s)registered with a rule.*Fix: call it: Back"),
    "a rule of affine nodes": (
        lambda: kxai.rules.register(Mix, kxai.rules.Epsilon()),
        r"(?s)not defined for a layer as a whole.*Received: a rule for affine",
    ),
    "a kind with weights": (
        lambda: kxai.rules.register(Mix, kind=kxai.Kind.AFFINE),
        r"(?s)cannot be registered as this kind.*Received: Kind.AFFINE.*Fix: write the layer's call with keras.ops",
    ),
    "no kind": (lambda: kxai.rules.register(Mix, kind="sum"), "(?s)kind must be a kxai.Kind.*Received: 'sum'"),
    "a decorated function": (lambda: kxai.rules.register(Mix)(lambda step: step), "decorates a rule class"),
    "a decorated class with fields": (
        lambda: kxai.rules.register(Mix)(Needy),
        r"(?s)Needy cannot be made without arguments.*share.*Fix: register an instance",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    function, message = WRONG[case]
    with pytest.raises(ArgumentError, match=message):
        function()
    assert "mix" not in rules_of(network())


def test_a_kind_that_is_not_true_of_the_shapes():
    class Wider(layers.Layer):
        def call(self, x):
            return ops.concatenate([x, x], axis=-1)

    kxai.rules.register(Wider, kind=kxai.Kind.ELEMENTWISE)
    model = network(Wider(name="wider"))
    with pytest.raises(ModelError, match=r"(?s)'wider' is registered as Kind.ELEMENTWISE.*\(2, 5\).*\(2, 10\)"):
        kxai.plan(model, "gradient")
    kxai.rules.unregister(Wider)
