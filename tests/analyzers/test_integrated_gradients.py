"""Integrated gradients against closed forms, a slow definition and its axioms."""

from __future__ import annotations

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai.analyzers.sampling.grids import GRIDS, grid
from kxai.errors import ArgumentError, InputError, KxaiWarning, UnknownNameError
from kxai.references import Background, Inputs
from kxai.testing import models
from tests.analyzers import paths

IG = kxai.IntegratedGradients
EVERY_GRID = sorted(GRIDS)

# For n = 3, 10, 50: (second component for (0, 3) from (0, 0), class 0; first for (3, 3) from (0, 3), class 1).
XOR = {
    "left": [(2, 3), (2.4, 2.7), (2.46, 2.52)],
    "right": [(3, 2), (2.7, 2.4), (2.52, 2.46)],
    "midpoint": [None, (2.4, 2.4), (2.52, 2.52)],  # with n = 3 a point falls on the kink
    "trapezoid": [(2.25, 2.25), (2.5, 2.5), (2.4795918367346939, 2.4795918367346939)],
}
# Of the tabulated weights, those of the points before the kink count nothing: 5/9; 0.06667 + 0.14945 + 0.21909; ...
GAUSS = [3 * (1 - 5 / 18), 3 * (1 - (0.0666713443086881 + 0.1494513491505806 + 0.2190863625159820) / 2), 2.51874]


@pytest.mark.parametrize("name", EVERY_GRID)
def test_the_xor_network(name):
    model = paths.xor()
    for i, steps in enumerate((3, 10, 50)):
        expected = (GAUSS[i], GAUSS[i]) if name == "gauss_legendre" else XOR[name][i]
        if expected is None:
            continue
        one = IG(model, num_steps=steps, grid=name).explain(np.array([[0.0, 3.0]]), 0)
        two = IG(model, np.array([0.0, 3.0]), steps, name).explain(np.array([[3.0, 3.0]]), 1)
        tolerance = 1e-5 if name == "gauss_legendre" and steps == 50 else 1e-12  # five decimals are known of it
        np.testing.assert_allclose(one.relevance, [[0, expected[0]]], atol=tolerance)
        np.testing.assert_allclose(two.relevance, [[expected[1], 0]], atol=tolerance)
        # Both logits rise by 2.5: from -1 to 1.5, from -1.5 to 1.
        np.testing.assert_allclose([one.score[0], one.base[0]], [1.5, -1.0])
        np.testing.assert_allclose([two.score[0], two.base[0]], [1.0, -1.5])
        np.testing.assert_allclose(one.residual, 2.5 - one.relevance.sum(axis=1))


@pytest.mark.parametrize("name", EVERY_GRID)
def test_products_and_linear_functions(name):
    n = 7
    explanation = IG(paths.product(), num_steps=n, grid=name).explain(np.array([[3.0, 4.0]]))
    share = {"left": (n - 1) / n, "right": (n + 1) / n}.get(name, 1.0)
    np.testing.assert_allclose(explanation.relevance, [[6 * share, 6 * share]], rtol=1e-14)
    np.testing.assert_allclose(explanation.residual, [12 - 12 * share], atol=1e-13)
    linear = paths.dense([[2.0], [-3.0], [0.5]], [1.0])
    x, r = np.array([[1.0, 2.0, 3.0]]), np.array([0.5, -1.0, 2.0])
    explanation = IG(linear, r, 2, name).explain(x)
    np.testing.assert_allclose(explanation.relevance, [[1.0, -9.0, 0.5]], rtol=1e-14)
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-14)


def smooth():
    random = np.random.default_rng(3)
    kernels = random.normal(size=(4, 6)), random.normal(size=6), random.normal(size=(6, 3)), random.normal(size=3)
    return paths.dense(*kernels, activation="tanh"), random.normal(size=(5, 4)), random.normal(size=4)


@pytest.mark.parametrize("name", EVERY_GRID)
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_equals_the_formula(name, batch_size):
    model, x, r = smooth()
    found = IG(model, r, 6, name).explain(x, [0, 1, 2, 0, 1], batch_size)
    for i, target in enumerate([0, 1, 2, 0, 1]):
        expected = paths.integrated(model, x[i], r, *grid(name, 6), target)
        np.testing.assert_allclose(found.relevance[i], expected, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(found.base[i], np.asarray(model(r[None]))[0, target], rtol=1e-12)


@pytest.mark.parametrize(("name", "order"), [("left", 1), ("right", 1), ("midpoint", 2), ("trapezoid", 2)])
def test_the_residual_shrinks_with_the_order_of_the_grid(name, order):
    model, x, r = smooth()
    # Intervals count: n points of the trapezoid make n - 1 of them.
    steps = [400 + (name == "trapezoid"), 800 + (name == "trapezoid")]
    coarse, fine = (np.abs(IG(model, r, n, name).explain(x, 0).residual) for n in steps)
    assert coarse.min() > 1e-9
    np.testing.assert_allclose(coarse / fine, 2**order, rtol=0.05)  # the next term is smaller by 1 / n
    exact = IG(model, r, 60, "gauss_legendre").explain(x, 0)
    assert np.abs(exact.residual).max() < 1e-9


@pytest.mark.parametrize("name", ["midpoint", "right", "gauss_legendre"])
def test_homogeneous_networks(name):
    """Where f(t x) = t f(x), it is gradient times input, and LRP-0."""
    random = np.random.default_rng(0)
    model = paths.dense(random.normal(size=(5, 8)), None, random.normal(size=(8, 6)), None, random.normal(size=(6, 2)),
                        None)  # fmt: skip
    x = random.normal(size=(4, 5))
    found = IG(model, num_steps=3, grid=name).explain(x, 1)
    np.testing.assert_allclose(found.relevance, kxai.GradientTimesInput(model).explain(x, 1).relevance, rtol=1e-12)
    np.testing.assert_allclose(found.relevance, kxai.LRP(model, "zero").explain(x, 1).relevance, rtol=1e-9)
    # At the zero baseline itself every ReLU has derivative 0.
    left = IG(model, num_steps=10, grid="left").explain(x, 1)
    np.testing.assert_allclose(left.relevance, 0.9 * found.relevance, rtol=1e-12)


@pytest.mark.parametrize("pair", models.TWINS, ids=["nested", "shared"])
def test_implementation_does_not_matter(pair):
    one, two = (IG(case.model, 0.1, 5).explain(case.inputs, 0) for case in (build() for build in pair))
    np.testing.assert_allclose(one.relevance, two.relevance, rtol=1e-5, atol=1e-6)


def test_baselines_of_every_kind():
    model, x, r = smooth()
    own = np.linspace(-1, 1, x.size).reshape(x.shape)

    def run(baseline, **options):
        return IG(model, baseline, 4).explain(x, 0, **options)

    np.testing.assert_array_equal(run(0.5).relevance, run(np.full(4, 0.5)).relevance)
    each = run(own, batch_size=2)
    for i in range(len(x)):
        np.testing.assert_allclose(each.relevance[i], paths.integrated(model, x[i], own[i], *grid("midpoint", 4), 0))
    np.testing.assert_allclose(run(lambda batch: batch / 2).relevance[2],
                               paths.integrated(model, x[2], x[2] / 2, *grid("midpoint", 4), 0))  # fmt: skip
    several = run(Background(np.stack([r, own[0], own[1]])), batch_size=3)
    singles = [run(b) for b in (r, own[0], own[1])]
    np.testing.assert_allclose(several.relevance, np.mean([e.relevance for e in singles], axis=0), rtol=1e-12)
    np.testing.assert_allclose(several.base, np.mean([e.base for e in singles], axis=0), rtol=1e-12)
    np.testing.assert_allclose(several.residual, np.mean([e.residual for e in singles], axis=0), atol=1e-13)
    np.testing.assert_array_equal(run(Inputs(r)).relevance, run(r).relevance)


def test_several_inputs_move_together():
    case = models.list_inputs()
    found = IG(case.model, [0.1, np.full(3, -0.2)], 300).explain(case.inputs, 0)
    assert [part.shape for part in found.relevance] == [(4, 4), (4, 3)]
    # 300 steps over a few kinks of a small network.
    assert np.abs(found.residual).max() < 0.01
    np.testing.assert_allclose(found.base, np.asarray(case.model([np.full((1, 4), 0.1), np.full((1, 3), -0.2)]))[:, 0]
                               .repeat(4), rtol=1e-5)  # fmt: skip


def test_the_target_of_the_input_counts_all_the_way():
    model = paths.dense([[1.0, 0.0]], [0.0, 1.0])  # class 1 below x = 1, class 0 above
    found = IG(model, num_steps=4).explain(np.array([[3.0], [0.5]]))
    np.testing.assert_array_equal(found.target, [0, 1])
    np.testing.assert_allclose(found.relevance, [[3.0], [0.0]])
    np.testing.assert_allclose(found.base, [0.0, 1.0])


def test_targets_of_every_kind():
    model, x, r = smooth()
    ig = IG(model, r, 5)
    one, two = (ig.explain(x, k).relevance for k in (0, 2))
    np.testing.assert_allclose(ig.explain(x, kxai.Contrast(0, 2)).relevance, one - two, rtol=1e-6, atol=1e-9)
    called = ig.explain(x, lambda y: y[:, 0] - y[:, 2])
    np.testing.assert_allclose(called.relevance, one - two, rtol=1e-9, atol=1e-12)
    assert "lambda" in called.target
    np.testing.assert_allclose(called.residual, ig.explain(x, 0).residual - ig.explain(x, 2).residual, atol=1e-9)
    squared = ig.explain(x, lambda y: y[:, 0] ** 2)
    np.testing.assert_allclose(squared.base, np.asarray(model(r[None]))[0, 0] ** 2, rtol=1e-12)
    several = models.multi_output()
    found = IG(several.model, num_steps=4).explain(several.inputs, {"label": 2, "value": 0})
    assert set(found.target) == {"label", "value"}


def test_the_probability_is_explained_on_request():
    case = models.mlp()
    found = IG(case.model, num_steps=200, strip_softmax=False).explain(case.inputs, 1)
    np.testing.assert_allclose(found.score, np.asarray(case.model(case.inputs))[:, 1], rtol=1e-5)
    assert np.abs(found.residual).max() < 2e-3


# At layers.


def test_tokens_at_the_embedding():
    case = models.tokens()
    found = IG(case.model, num_steps=300, layer="embedding*").explain(case.inputs, 1)
    assert found.relevance.shape == (4, 7, 5)
    assert found.heatmap().shape == (4, 7)
    assert np.abs(found.residual).max() < 2e-3  # 300 steps over the kinks of a small network
    table = np.asarray(case.model.layers[0].embeddings)
    rest = keras.Sequential([keras.Input((7, 5)), *case.model.layers[1:]])
    same = IG(rest, num_steps=300).explain(table[case.inputs], 1)
    np.testing.assert_allclose(found.relevance, same.relevance, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.base, same.base, rtol=1e-5)
    np.testing.assert_array_equal(found.outputs, np.asarray(case.model(case.inputs)))

    ids = np.array([3, 3, 3, 3, 3, 3, 3])
    padded = IG(case.model, Inputs(ids), 20, layer=case.model.layers[0]).explain(case.inputs, 1)
    same = IG(rest, table[ids], 20).explain(table[case.inputs], 1)
    np.testing.assert_allclose(padded.relevance, same.relevance, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(padded.base, same.base, rtol=1e-5)
    own = IG(case.model, Inputs(case.inputs[::-1]), 20, layer="embedding*").explain(case.inputs, 1, 3)
    same = IG(rest, table[case.inputs[::-1]], 20).explain(table[case.inputs], 1)
    np.testing.assert_allclose(own.relevance, same.relevance, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(own.base, same.base, rtol=1e-5)


def test_numbers_beside_tokens():
    case = models.dict_inputs()
    embedding = next(layer for layer in case.model.layers if isinstance(layer, layers.Embedding))
    text = IG(case.model, num_steps=50, layer=embedding).explain(case.inputs)
    assert text.relevance.shape == (4, 5, 3)
    # The ages stay as they are, on the way and at the baseline.
    empty = case.model({"text": case.inputs["text"], "age": case.inputs["age"]})
    assert np.abs(text.residual).max() < 1e-5  # nothing but a sigmoid follows the text: linear
    assert text.outputs.shape == empty.shape
    assert len(set(text.base)) == 4
    both = IG(case.model, [0.0, 0.5], 300, layer=[embedding.name, "age"]).explain(case.inputs)
    assert [part.shape for part in both.relevance] == [(4, 5, 3), (4, 2)]
    assert np.abs(both.residual).max() < 2e-3
    assert len(set(both.base)) == 1
    assert both.heatmap(0).shape == (4, 5)


@pytest.mark.parametrize("layer", ["conv", "pool", "hidden"])
def test_inner_layers(layer):
    x = keras.Input((6, 6, 2))
    h = layers.Conv2D(3, 3, activation="relu", name="conv")(x)
    h = layers.MaxPooling2D(name="pool")(h)
    h = layers.Dense(5, "tanh", name="hidden")(layers.Flatten()(h))
    model = models.seeded(keras.Model(x, layers.Dense(2, name="head")(h)))
    inputs = models.numbers(6, 6, 2)
    found = IG(model, 0.1, 60, layer=layer).explain(inputs, 1)
    up = keras.Model(x, model.get_layer(layer).output)
    values = np.asarray(up(inputs))
    assert found.relevance.shape == values.shape
    down = keras.Model(model.get_layer(layer).output, model.output)
    same = IG(down, 0.1, 60).explain(values, 1)
    np.testing.assert_allclose(found.relevance, same.relevance, rtol=1e-4, atol=1e-6)
    assert np.abs(found.residual).max() < 1e-2


def test_layers_in_nested_models():
    case = models.nested()
    found = IG(case.model, num_steps=5, layer="outer/inner").explain(case.inputs, 0)
    assert found.relevance.shape == (4, 5)
    nodes = kxai.plan(case.model, "integrated_gradients")
    assert "outer/inner" in str(nodes)


def test_layers_as_objects_are_found_in_other_models():
    one, two = models.tokens(), models.tokens()
    two.model.set_weights([2 * w for w in two.model.get_weights()])
    bound = IG(one.model, num_steps=3, layer=one.model.layers[0]).bind(two.model)
    # Keras counts its layers: give the second model's embedding the first one's path.
    assert bound.hyperparameters()["layer"] == one.model.layers[0].name
    case = models.dict_inputs()
    age, embedding = case.model.get_layer("age"), next(x for x in case.model.layers if isinstance(x, layers.Embedding))
    ig = IG(case.model, num_steps=3, layer=[embedding, age])
    named = ig.bind(case.model)
    assert named.hyperparameters()["layer"] == [embedding.name, "age"]
    for found, expected in zip(named.explain(case.inputs).relevance, ig.explain(case.inputs).relevance, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_outputs_that_are_no_rows_of_samples():
    inner = layers.Conv2D(2, 3, name="inner")
    stack = [layers.TimeDistributed(inner, name="frames"), layers.Flatten(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((3, 6, 6, 2)), *stack])
    x = models.numbers(3, 6, 6, 2)
    with pytest.raises(ArgumentError, match=r"cannot be changed per sample(.|\n)*one row per sample"):
        IG(model, layer="frames/inner").explain(x)
    assert IG(model, num_steps=2, layer="frames").explain(x).relevance.shape == (4, 3, 4, 4, 2)


def test_float_token_ids_are_token_ids():
    stack = [layers.Embedding(11, 3, name="words"), layers.Flatten(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *stack])  # Keras takes them as float32 unless told otherwise
    with pytest.raises(InputError, match=r'holds token ids(.|\n)*layer="words"'):
        IG(model).explain(np.ones((2, 4)))
    assert IG(model, layer="words", num_steps=2).explain(np.ones((2, 4))).relevance.shape == (2, 4, 3)


def test_integer_images():
    x = keras.Input((4, 4, 1), dtype="uint8")
    h = layers.Flatten()(layers.Rescaling(1 / 255, name="unit")(x))
    model = models.seeded(keras.Model(x, layers.Dense(2)(h)))
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 1), "uint8")
    with pytest.raises(InputError, match=r'layer="unit') as caught:
        IG(model).explain(image)
    layer = str(caught.value).split('layer="')[1].split('"')[0]
    assert np.abs(IG(model, layer=layer, num_steps=3).explain(image).residual).max() < 1e-5


# How it runs.


def test_a_dataset_and_an_array_give_the_same():
    import tensorflow as tf

    case = models.cnn()
    ig = IG(case.model, lambda x: x[:, ::-1], 5)
    whole = ig.explain(case.inputs)
    for dataset in (
        tf.data.Dataset.from_tensor_slices(case.inputs).batch(3),
        tf.data.Dataset.from_tensor_slices(case.inputs),
    ):
        found = ig.explain(dataset, batch_size=2)
        np.testing.assert_allclose(found.relevance, whole.relevance, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found.base, whole.base, rtol=1e-5)


def test_no_more_rows_than_asked_for(monkeypatch):
    """Memory is bounded whatever the number of steps, baselines and samples; and every chunk but the last is full."""
    from kxai import backend

    rows = []
    plain = backend.compile

    def compile(function, signature, jit=False):
        compiled = plain(function, signature, jit)

        def counted(inputs, data):
            rows.append(len(inputs[0]))
            return compiled(inputs, data)

        return counted

    monkeypatch.setattr(backend, "compile", compile)
    case = models.tokens()
    IG(case.model, Inputs(Background(case.inputs)), 7, layer="embedding*").explain(case.inputs, batch_size=3)
    assert max(rows) == 3
    rows.clear()
    case = models.mlp()
    IG(case.model, num_steps=10).explain(case.inputs, batch_size=4)
    # The clean batch, one baseline, and ten full chunks.
    assert rows == [4, 1, *[4] * 10]


def test_one_trace_per_function():
    from kxai import backend

    case = models.cnn()
    ig = IG(case.model, num_steps=3)
    before = backend.trace_count()
    ig.explain(case.inputs)
    assert backend.trace_count() - before == 3  # outputs, slopes, the score at the baseline
    ig.explain(case.inputs[:3], batch_size=2)
    case.model.set_weights([0.5 * w for w in case.model.get_weights()])
    ig.explain(case.inputs)
    assert backend.trace_count() - before == 3


def test_progress_is_shown_per_chunk(monkeypatch):
    from kxai.analyzers import analyzer

    shares = []

    def track(steps, total, description, verbose, share):
        for step in steps:
            shares.append(share(step))
            yield step

    monkeypatch.setattr(analyzer, "track", track)
    case = models.mlp()
    IG(case.model, num_steps=10).explain(case.inputs, batch_size=3)
    assert len(shares) == 10 + 4  # three samples in ten chunks, then one in four
    np.testing.assert_allclose([sum(shares[:10]), sum(shares[10:])], [1, 1])


def test_what_it_says_of_itself():
    case = models.mlp()
    found = IG(case.model, np.zeros(6), 4, "left").explain(case.inputs)
    told = found.config["hyperparameters"]
    assert told["baseline"] == [0.0] * 6
    assert (told["num_steps"], told["grid"], told["layer"]) == (4, "left", None)
    big = models.residual()
    wide = keras.Sequential([keras.Input((2000,)), layers.Dense(1)])
    told = IG(wide, np.zeros(2000), 2).explain(np.ones((1, 2000))).config["hyperparameters"]
    assert re.fullmatch(r"array of shape \(2000,\), fingerprint [0-9a-f]{12}", told["baseline"])
    assert kxai.create_analyzer("integrated_gradients", big.model, num_steps=3).name == "integrated_gradients"


def test_a_sample_that_is_its_own_baseline():
    case = models.mlp()
    inputs = case.inputs.copy()
    inputs[1] = 0
    with pytest.warns(KxaiWarning, match="The baseline of 1 of 4 samples of a batch is the sample itself"):
        found = IG(case.model, num_steps=3).explain(inputs)
    np.testing.assert_array_equal(found.relevance[1], 0)
    assert found.score[1] == found.base[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IG(case.model, num_steps=3).explain(inputs[:1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_steps": 0}, ArgumentError, r"num_steps is out of range(.|\n)*an integer >= 1(.|\n)*0"),
        ({"num_steps": 2.5}, ArgumentError, "num_steps is out of range"),
        ({"grid": "simpson"}, UnknownNameError, "Unknown grid 'simpson'"),
        ({"baseline": np.zeros(5)}, ArgumentError, r"The baseline for input .* has the wrong shape"),
        ({"baseline": np.nan}, ArgumentError, "is not finite"),
        ({"layer": "dens"}, UnknownNameError, "Unknown layer 'dens'"),
        ({"layer": []}, ArgumentError, "layer is an empty list"),
        ({"layer": ["*re_lu*", "*re_lu*"]}, ArgumentError, r"'\*re_lu\*' is the same as '\*re_lu\*'"),
        ({"layer": 3}, ArgumentError, "This is no layer"),
        ({"layer": ["*re_lu*", "logits"]}, ArgumentError, r"'logits' is computed from '\*re_lu\*'"),
        ({"layer": "logits/softmax"}, ArgumentError, r"does not depend on layer(.|\n)*strip_softmax=False"),
        ({"layer": "*re_lu*", "baseline": np.zeros(6)}, ArgumentError, r"baseline for input '\*re_lu\*' has the wrong"),
    ],
)
def test_bad_arguments(options, error, message):
    stack = [layers.Dense(4), layers.ReLU(), layers.Dense(3, "softmax", name="logits")]
    model = keras.Sequential([keras.Input((6,)), *stack])
    if options.get("layer") == ["*re_lu*", "logits"]:
        options = {**options, "strip_softmax": False}
    with pytest.raises(error, match=message):
        IG(model, **options).explain(np.ones((2, 6)))


def test_what_cannot_be_kept_is_refused():
    case = models.mlp()
    with pytest.raises(ArgumentError, match=r"integrated_gradients adds up many explanations(.|\n)*no layers="):
        IG(case.model).explain(case.inputs, layers="*")
    with pytest.raises(ArgumentError, match="no audit="):
        IG(case.model).explain(case.inputs, audit=True)
    with pytest.raises(InputError, match=r'holds token ids(.|\n)*layer=\["embedding.*", "age"\]'):
        IG(models.dict_inputs().model).explain(models.dict_inputs().inputs)


def test_stateful_layers_are_refused():
    stack = [layers.LSTM(3, stateful=True, name="memory"), layers.Dense(2)]
    model = keras.Sequential([keras.Input((5, 3), batch_size=4), *stack])
    with pytest.raises(InputError, match=r"Layer 'memory' is stateful(.|\n)*stateful=False"):
        IG(model).explain(models.numbers(5, 3))


@pytest.mark.parametrize("build", [models.subclassed, models.gru, models.residual, models.vision_transformer])
def test_models_of_other_structures(build):
    case = build()
    # 150 steps over the kinks of a small network; layer normalisation turns quickly near zero.
    found = IG(case.model, 0.2, 150).explain(case.inputs, 1)
    assert np.abs(found.residual).max() < 0.01


def test_xla():
    case = models.mlp()
    plain, fast = (IG(case.model, 0.2, 3, jit=jit).explain(case.inputs, 1) for jit in (False, True))
    np.testing.assert_allclose(fast.relevance, plain.relevance, rtol=1e-4, atol=1e-6)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu", name="h"), layers.Dense(2)])
    finally:
        keras.config.set_dtype_policy("float32")
    models.seeded(model)
    x = models.numbers(3)
    for layer in (None, "h"):
        found = IG(model, num_steps=20, layer=layer).explain(x, 0)
        assert found.relevance.dtype == np.float32
        assert np.abs(found.residual).max() < 0.05  # half precision, and kinks
    assert ops.shape(x) == (4, 3)
