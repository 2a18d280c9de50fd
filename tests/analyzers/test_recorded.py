"""What is recorded equals what is explained: at every batch size, in one graph."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops, tree

import kxai
from kxai import backend, references
from kxai.analyzers.analyzer import concrete
from kxai.analyzers.inputs import to_arrays
from kxai.analyzers.scores import Explained, input_spec
from kxai.errors import ArgumentError, ExportError, InputError, NumericalError, RuleError
from kxai.references import Background, Blur, Inputs, Uniform
from kxai.testing import models
from tests.analyzers import paths
from tests.test_contract import CAMS, FITTED, METHOD_NAMES, NEEDED, cases_for, fit

# The same float32 numbers in another order, relative to the largest of them.
CLOSE = {"float32": 1e-6, "float64": 1e-12}


def compiled(analyzer, inputs, target=None):
    """The recorded analysis in a function of its own: a batch -> arrays."""
    specs = analyzer._specs(inputs)
    recorded = analyzer.recorded(concrete(specs, to_arrays(inputs, specs)), target)
    explained = Explained(recorded.graph, recorded.target)
    signature = ([input_spec(edge) for edge in recorded.graph.inputs], explained.specs)
    function = backend.compile(lambda x, data: recorded.run(x, data), signature)

    def run(batch):
        arrays = to_arrays(batch, specs)
        data = [part.batch(0, len(arrays[0])) for part in recorded.target.parts]
        return tree.map_structure(backend.to_numpy, function(arrays, data))

    return run


def close(received, expected, tolerance):
    assert received.shape == expected.shape
    assert received.dtype == expected.dtype
    tolerance = tolerance or CLOSE[str(expected.dtype)]
    np.testing.assert_allclose(received, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-30))


def check(analyzer, inputs, target=None, tolerance=None):
    """At batch sizes 1, 3 and 5, by one trace."""
    run, traces = compiled(analyzer, inputs, target), None
    for size in (1, 3, 5):
        batch = tree.map_structure(lambda x, n=size: np.resize(x, (n, *x.shape[1:])), inputs)
        found = run(batch)
        traces = traces or backend.trace_count()
        assert backend.trace_count() == traces
        traces = _compare(found, analyzer.explain(batch, target), tolerance)


def _compare(found, live, tolerance):
    """Returns the number of traces, to which the live analysis may have added its own."""
    for one, two in zip(found["relevance"], tree.flatten(live.relevance), strict=True):
        close(one, two, tolerance)
    for one, two in zip(found["outputs"], tree.flatten(live.outputs), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["score"], live.score, rtol=1e-5, atol=1e-6)
    base = np.broadcast_to(live.base, live.score.shape)
    np.testing.assert_allclose(np.broadcast_to(found["base"], base.shape), base, rtol=1e-5, atol=1e-6)
    chosen = [live.target] if isinstance(live.target, np.ndarray) else list(getattr(live.target, "values", list)())
    for one, two in zip(found["chosen"], chosen, strict=True):
        np.testing.assert_array_equal(one, two)
    return backend.trace_count()


def analyzer_of(name, case):
    needed = dict(NEEDED.get(name, {}))
    if name == "deepshap" and "int" in str(case.model.inputs[0].dtype):
        needed["background"] = 1
    analyzer = kxai.create_analyzer(name, case.model, **needed)
    if name in FITTED:
        fit(analyzer)
    return analyzer


STRUCTURES = (models.cnn, models.list_inputs, models.tokens)
# Methods that are not defined for all of these have models of their own.
OWN = {name for name in METHOD_NAMES if name in CAMS or name.startswith("attention_")} | {"lrp.vgg16_tutorial"}


@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.filterwarnings("ignore::kxai.KxaiWarning")
def test_every_method(name):
    checked = 0
    for build in cases_for(name)[:2] if name in OWN else STRUCTURES:
        case = build()
        try:
            analyzer = analyzer_of(name, case)
            analyzer.explain(case.inputs, case.target)
        except (RuleError, InputError):
            continue  # the method is not defined for that structure
        check(analyzer, case.inputs, case.target)
        checked += 1
    assert checked >= 1


def halved(x):
    return tree.map_structure(lambda one: one / 2, x)


def several(x):
    return ops.stack([x / 2, x - 1.0], axis=1)


class TestReferences:
    """Of path methods and of DeepLIFT."""

    @pytest.mark.parametrize(
        "reference",
        [0.25, Background(models.numbers(9, 9, 2, seed=5, samples=3)), Blur(1.0), Uniform(-1, 1, 2), halved, several],
        ids=["number", "background", "blur", "uniform", "one", "several"],
    )
    def test_of_a_picture(self, reference):
        case = models.averaged()
        check(kxai.IntegratedGradients(case.model, reference, 3), case.inputs)
        check(kxai.DeepLIFT(case.model, reference), case.inputs)
        check(kxai.ExpectedGradients(case.model, reference, 4, seed=2**70), case.inputs)

    def test_of_several_inputs(self):
        case = models.list_inputs()
        background = Background([models.numbers(4, seed=7), models.numbers(3, seed=8)])
        check(kxai.IntegratedGradients(case.model, background, 3), case.inputs, 0)
        check(kxai.IntegratedGradients(case.model, halved, 3), case.inputs, 0)
        check(kxai.DeepLIFT(case.model, Uniform(0, 2, 3, seed=1)), case.inputs, 0)
        check(kxai.DeepSHAP(case.model, background), case.inputs)

    def test_of_maxima_of_what_loops_return(self):
        x = keras.Input((4, 2))
        steps = keras.layers.GlobalMaxPooling1D()(keras.layers.SimpleRNN(3, return_sequences=True)(x))
        largest = keras.layers.Maximum()([steps, keras.layers.SimpleRNN(3)(x)])
        model = models.seeded(keras.Model(x, keras.layers.Dense(2)(largest)))
        check(kxai.DeepLIFT(model, 0.0), models.numbers(4, 2), 0)

    def test_of_tokens(self):
        case = models.tokens()
        padding = Inputs(Background(case.inputs[:3]))
        for analyzer in (
            kxai.IntegratedGradients(case.model, padding, 3, layer="embedding*"),
            kxai.ExpectedGradients(case.model, padding, 5, layer="embedding*"),
            kxai.IntegratedGradients(case.model, Inputs(lambda ids: ids * 0 + 1), 3, layer="embedding*"),
            kxai.SmoothGrad(case.model, num_samples=3, layer="embedding*"),
            kxai.InternalInfluence(case.model, "embedding*", Background(case.inputs)),
        ):
            check(analyzer, case.inputs)
        assert analyzer.recorded(analyzer._specs(None)).layers == ("embedding*",)
        check(kxai.DeepSHAP(case.model, case.inputs[:3]), case.inputs)

    @pytest.mark.parametrize("reference", [
        (lambda x: np.zeros((len(x), 6)), r"cannot be part of a graph(.|\n)*TypeError: len is not"),
        (lambda x: np.zeros((2, 6), "float32"), r"it returned an array of shape \(2, 6\)"),
        (lambda x: ops.zeros((2, 6)), r"it returned a tensor of shape \(2, 6\)"),
        (lambda x: x[:, :3], r"it returned a tensor of shape \(None, 3\)"),
        (references.DinucleotideShuffle(), "DinucleotideShuffle(.|\n)*random numbers outside of TensorFlow"),
        (models.mlp().inputs, r"for input .* is one per sample, and a graph does not know its samples"),
    ], ids=["numpy", "array", "constant", "shape", "shuffle", "per_sample"])  # fmt: skip
    def test_that_cannot_be_recorded(self, reference):
        case = models.mlp()
        value, message = reference
        for analyzer in (kxai.IntegratedGradients(case.model, value), kxai.DeepLIFT(case.model, value)):
            with pytest.raises(ExportError, match=message):
                analyzer.recorded(analyzer._specs(None))

    @pytest.mark.parametrize(
        ("dtype", "reference", "message"),
        [
            ("int32", Uniform(0, 9), "the reference for input '?x'? must be integers"),
            ("int32", lambda x: x / 2, "the reference for input '?x'? must be integers"),
            ("float32", lambda x: x / 0, "the reference for input '?x'? is not finite"),
        ],
        ids=["uniform", "fractions", "infinite"],
    )
    def test_that_do_not_fit_fail_as_they_do_at_once(self, dtype, reference, message):
        x = keras.Input((4,), dtype=dtype, name="x")
        analyzer = kxai.DeepLIFT(keras.Model(x, keras.layers.Dense(2)(ops.cast(x, "float32"))), reference)
        batch = np.arange(1, 9, dtype=dtype).reshape(2, 4)
        with np.errstate(divide="ignore"), pytest.raises(ArgumentError, match=message.capitalize()):
            analyzer.explain(batch, 0)
        run = compiled(analyzer, batch, 0)
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            run(batch)

    def test_with_wrong_shapes(self):
        analyzer = kxai.IntegratedGradients(models.mlp().model, np.zeros(5))
        with pytest.raises(ArgumentError, match="wrong shape"):
            analyzer.recorded(analyzer._specs(None))


BASES = {
    "gradient_x_input": lambda model: kxai.GradientTimesInput(model),
    "lrp": lambda model: kxai.LRP(model),
    "integrated_gradients": lambda model: kxai.IntegratedGradients(model, 0.1, 3),
    "deeplift": lambda model: kxai.DeepSHAP(model, models.numbers(9, 9, 2, samples=2)),
    "score_cam": lambda model: kxai.ScoreCAM(model),
    "grad_cam": lambda model: kxai.GradCAM(model, resize=False),
    "smoothgrad": lambda model: kxai.SmoothGrad(model, num_samples=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_noise_around_any_method(base):
    case = models.averaged()
    analyzer = kxai.VarGrad(BASES[base](case.model), 0.1, 3, seed=4)
    # A variance is a difference of results that are nearly equal: float32 leaves it fewer digits.
    check(analyzer, case.inputs, tolerance=1e-5)
    check(kxai.SmoothGradSquared(BASES[base](case.model), 0.1, 3), case.inputs, 1)


def test_a_base_that_cannot_be_recorded_says_so():
    class Steps(kxai.Analyzer):
        name = "steps"

        def _prepare(self, *arguments):
            raise NotImplementedError

    analyzer = kxai.SmoothGrad(Steps(models.mlp().model))
    with pytest.raises(ExportError, match="steps takes steps outside of TensorFlow"):
        analyzer.recorded(analyzer._specs(None))


def test_double_precision():
    random = np.random.default_rng(0)
    model = paths.dense(random.normal(size=(4, 6)), random.normal(size=6), random.normal(size=(6, 3)), np.zeros(3),
                        activation="tanh")  # fmt: skip
    x = random.normal(size=(4, 4))
    for analyzer in (
        kxai.IntegratedGradients(model, 0.5, 7, grid="gauss_legendre"),
        kxai.ExpectedGradients(model, x, 9),
        kxai.SmoothGrad(model, num_samples=4),
        kxai.VarGrad(kxai.GradientTimesInput(model), num_samples=4),
        kxai.LayerConductance(model, "hidden_0", num_steps=4),
        kxai.DeepSHAP(model, x),
    ):
        check(analyzer, x)


@pytest.mark.parametrize(
    "target", [1, kxai.Contrast(0, 2), lambda y: y[:, 1] ** 2, np.array([1.0, -2.0, 0.5])],
    ids=["class", "contrast", "callable", "weights"],
)  # fmt: skip
def test_targets(target):
    case = models.mlp()
    ig = kxai.IntegratedGradients(case.model, Background(case.inputs), 3)
    for analyzer in (ig, kxai.SmoothGrad(case.model, num_samples=3), kxai.SmoothGrad(ig, num_samples=2),
                     kxai.DeepSHAP(case.model, case.inputs)):  # fmt: skip
        check(analyzer, case.inputs, target)


def test_several_outputs():
    case = models.multi_output()
    for target in ({"value": 0, "label": None}, "label"):
        for analyzer in (kxai.IntegratedGradients(case.model, 0.1, 3), kxai.DeepLIFT(case.model),
                         kxai.SmoothGrad(kxai.Gradient(case.model), num_samples=3)):  # fmt: skip
            check(analyzer, case.inputs, target)


def test_the_target_is_that_of_the_clean_input():
    model = paths.dense([[1.0, 0.0]], [0.0, 0.01])  # class 1 just below 0.01
    for base in (model, kxai.Gradient(model)):
        found = compiled(kxai.SmoothGrad(base, 5.0, 20, absolute=True), np.array([[0.0]]))(np.array([[0.0], [0.1]]))
        np.testing.assert_array_equal(found["chosen"][0], [1, 0])
        assert found["relevance"][0][0, 0] == 0  # class 1 depends on nothing
        assert found["relevance"][0][1, 0] != 0


@pytest.mark.parametrize("make", [
    lambda model, count: kxai.IntegratedGradients(model, num_steps=count),
    lambda model, count: kxai.SmoothGrad(model, num_samples=count),
    lambda model, count: kxai.DeepSHAP(model, models.numbers(6, samples=count)),
    lambda model, count: kxai.ExpectedGradients(model, models.numbers(6, samples=count)),
])  # fmt: skip
def test_a_graph_does_not_grow_with_the_points(make):
    case = models.mlp()

    def size(count):
        analyzer = make(case.model, count)
        recorded = analyzer.recorded(analyzer._specs(None), 0)
        traced = tf.function(lambda x: recorded.run([x], [tf.zeros(tf.shape(x)[:1], tf.int32)]), autograph=False)
        graph = traced.get_concrete_function(tf.TensorSpec([None, 6])).graph.as_graph_def()
        return sum(len(function.node_def) for function in graph.library.function) + len(graph.node)

    assert size(2) == size(200)


def test_a_score_of_zero_fails_as_it_does_live():
    case = models.pooled()
    live = kxai.AblationCAM(case.model, relu=False)
    assert np.isfinite(compiled(live, case.inputs, 0)(case.inputs)["relevance"][0]).all()
    # Cancelling contributions: the score is 0, and without a channel it is not.
    case.model.set_weights([case.model.get_weights()[0], np.array([[1.0], [-1.0]])])
    with pytest.raises(NumericalError, match=r"divides by the score, which is 0"):
        live.explain(np.ones_like(case.inputs), 0)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"divides by the score, which is 0\. explain another"):
        compiled(live, case.inputs, 0)(np.ones_like(case.inputs))


def test_patterns_that_were_not_fitted():
    analyzer = kxai.PatternNet(models.mlp().model)
    with pytest.raises(ArgumentError, match="pattern_net has no patterns"):
        analyzer.recorded(analyzer._specs(None))


@pytest.mark.parametrize("rate", [0.1, 30.0])
def test_opti_cam_stops_for_each_sample_alone(rate):
    case = models.averaged()
    # The loss of some samples rises early at the large rate, so that they stop apart from others.
    check(kxai.OptiCAM(case.model, num_steps=20, learning_rate=rate), case.inputs)


@pytest.mark.parametrize("make", [
    lambda model: kxai.IntegratedGradients(model, num_steps=2, layer="embedding*"),
    lambda model: kxai.SmoothGrad(model, num_samples=2, layer="embedding*"),
    lambda model: kxai.DeepLIFT(model, 1),
])  # fmt: skip
def test_ids_without_a_row_fail_as_they_do_live(make):
    case = models.tokens()
    analyzer, wrong = make(case.model), np.full_like(case.inputs, 1000)
    run = compiled(analyzer, case.inputs)
    with pytest.raises(InputError):
        analyzer.explain(wrong)
    with pytest.raises(tf.errors.InvalidArgumentError, match="an id is not in the vocabulary"):
        run(wrong)


def test_references_without_a_row():
    case = models.tokens()
    analyzer = kxai.DeepLIFT(case.model, 1000)
    with pytest.raises(InputError):
        analyzer.recorded(analyzer._specs(None))
    run = compiled(kxai.DeepLIFT(case.model, lambda ids: ids + 1000), case.inputs)
    with pytest.raises(tf.errors.InvalidArgumentError, match="an id is not in the vocabulary"):
        run(case.inputs)
