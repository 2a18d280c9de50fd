"""The HTML report as a file: what it says, what it must not hold, how large it is."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

import kxai
from kxai import reports
from kxai.errors import ArgumentError, InputError, KxaiWarning, ModelError, UnknownNameError
from kxai.plots.color import diverging
from kxai.reports.columns import Request, columns, named
from kxai.reports.pack import Blobs, maps
from kxai.reports.parts import parts
from kxai.reports.samples import agreement, predictions

RNG = np.random.default_rng(7)
NASTY = "<script>window.pwned = 1</script><!-- \"' & {{title}} \u2028"


def photo_model(units=4, activation="softmax"):
    """A small network for colour images."""
    keras.utils.set_random_seed(3)
    layers = [
        keras.Input((12, 16, 3)),
        keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(units, activation=activation, name="head"),
    ]
    return keras.Sequential(layers, name="photos")


def table_model():
    keras.utils.set_random_seed(4)
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(1)], name="table")


@pytest.fixture(scope="module")
def model():
    return photo_model()


@pytest.fixture(scope="module")
def x():
    return RNG.uniform(size=(3, 12, 16, 3)).astype(np.float32)


def facts(report):
    """The facts of a page, read as its script reads them."""
    text = re.search(r'<script type="application/json" id="facts">(.*?)</script>', report.html, re.DOTALL)[1]
    return json.loads(text)


def array(report, meta):
    """An array of a page, decoded by itself."""
    text = re.search(rf'<script type="text/plain" id="blob{meta["blob"]}">(.*?)</script>', report.html)[1]
    kept = np.frombuffer(base64.b64decode(text), {"f4": "<f4", "f2": "<f2", "u1": "u1"}[meta["type"]])
    return np.ldexp(kept.astype(np.float64), meta.get("shift", 0)).reshape(meta["shape"])


def test_it_says_what_the_explanations_say(model, x):
    names, labels = ["a.png", "b.png", "c.png"], ["cat", "dog", "owl", "fox"]
    settings = {"lrp.epsilon": {"epsilon": 0.1}}
    report = kxai.report(model, x, ["lrp.epsilon", "gradient"], names=names, labels=labels, settings=settings)
    said = facts(report)
    assert [method["name"] for method in said["methods"]] == ["lrp.epsilon", "gradient"]
    assert [sample["name"] for sample in said["samples"]] == names
    for number, (method, options) in enumerate([("lrp.epsilon", {"epsilon": 0.1}), ("gradient", {})]):
        expected = kxai.explain(model, x, method, **options)
        column = said["methods"][number]
        assert [one["score"] for one in column["samples"]] == expected.score.tolist()
        assert [one["residual"] for one in column["samples"]] == expected.residual.tolist()
        assert [one["target"] for one in column["samples"]] == [labels[unit] for unit in expected.target]
        for row in range(3):
            np.testing.assert_array_equal(array(report, said["relevance"][number][row][0]), expected.relevance[row])
    lrp = said["methods"][0]
    assert lrp["plan"] == [list(row) for row in kxai.plan(model, "lrp.epsilon", epsilon=0.1).rows]
    assert lrp["config"]["hyperparameters"]["epsilon"] == 0.1
    assert any("softmax is left out" in note for note in lrp["notes"])
    assert said["versions"] == {"kxai": kxai.__version__, "keras": keras.version()}
    outputs = model.predict(x, verbose=0)
    for row, sample in enumerate(said["samples"]):
        (output,) = sample["outputs"]
        assert output["predicted"] == outputs[row].argmax()
        assert [name for name, _ in output["top"]] == [labels[unit] for unit in np.argsort(-outputs[row])]
        assert output["percent"]
        np.testing.assert_array_equal(array(report, said["values"][row][0]), x[row])
        np.testing.assert_array_equal(array(report, said["pictures"][row][0]), np.rint(255 * x[row].astype(float)))
    np.testing.assert_array_equal(np.reshape(said["colors"], (-1, 3)), diverging(np.linspace(-1, 1, 513)))


def test_the_target_is_that_of_the_methods(model, x):
    said = facts(kxai.report(model, x, "gradient", target=[0, 1, 2]))
    assert [one["target"] for one in said["methods"][0]["samples"]] == ["0", "1", "2"]
    said = facts(kxai.report(model, x, "gradient", target=np.ones(4) / 4))
    assert said["methods"][0]["samples"][0]["target"] == "weights over the outputs"


def test_one_file_without_a_network(model, x, tmp_path):
    report = kxai.report(model, x, ["gradient"], path=tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == report.html.encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    page = report.html
    assert not re.findall(r"(?i)https?:|//[a-z]+\.|@import|url\(|\bsrc\s*=|<link|<iframe|<img|fetch\(|XMLHttp", page)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{hashes[0]}'",
        f"script-src 'sha256-{hashes[1]}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_all_text_is_escaped(x):
    model = photo_model()
    report = kxai.report(
        model, x[:1], {NASTY: "gradient"}, names=[NASTY], labels=[NASTY] * 4, title=NASTY, images=x[:1]
    )
    assert "<script>window" not in report.html
    assert report.html.count("<!--") == 0
    assert "<title>" + html.escape(NASTY) + "</title>" in report.html
    blobs = len(re.findall('id="blob', report.html))
    assert report.html.count("<script") == report.html.count("</script>") == blobs + 2
    said = facts(report)
    assert said["title"] == said["methods"][0]["name"] == said["samples"][0]["name"] == NASTY
    assert said["samples"][0]["outputs"][0]["top"][0][0] == NASTY
    table = kxai.report(table_model(), np.ones((1, 5)), "gradient", feature_names=[NASTY] * 5)
    assert "<script>window" not in table.html


def test_names_that_are_no_text_are_shown(model, x):
    report = kxai.report(model, x[:1], "gradient", names=["bad\udcff.png"], title="bad\udcff")
    report.html.encode("utf-8")
    assert "<title>bad?</title>" in report.html


def test_the_same_arguments_give_the_same_bytes(model, x):
    first, second = (kxai.report(model, x, ["lrp.epsilon", "smoothgrad", "grad_cam"]).html for _ in range(2))
    assert first == second


def test_a_method_that_refuses_is_a_column(model, x):
    report = kxai.report(model, x, ["pattern_net", "gradient", "attention_rollout"])
    assert list(report.errors) == ["pattern_net", "attention_rollout"]
    said = facts(report)
    assert said["methods"][0]["error"].startswith("pattern_net has no patterns.")
    assert said["relevance"][0] == []
    assert said["methods"][0]["samples"] == []
    assert len(said["relevance"][1]) == 3
    assert repr(report) == (
        f"Report({len(report.html) / 1e6:.2f} MB, precision='single', refused by pattern_net, attention_rollout)"
    )


def test_a_method_without_a_plan_says_so(model, x, monkeypatch):
    def refuse(analyzer, inputs=None):
        raise ArgumentError("It gives no rules to the nodes of a model, so it has no plan.", expected="another method")

    monkeypatch.setattr(kxai.LRP, "plan", refuse)
    (column,) = facts(kxai.report(model, x, "lrp.epsilon"))["methods"]
    assert column["plan"] == []
    assert column["withoutPlan"] == "It gives no rules to the nodes of a model, so it has no plan."
    assert column["error"] == ""


def test_warnings_are_notes_and_others_stay_warnings(x):
    model = photo_model(1, None)
    model.get_layer("head").set_weights([-np.ones((4, 1)), -np.ones(1)])
    said = facts(kxai.report(model, x, ["deep_taylor", "gradient"]))
    assert said["methods"][0]["notes"][0].startswith("Deep Taylor explains positive logits; for 3 of 3 samples")
    assert not any("Deep Taylor" in note for note in said["methods"][1]["notes"])

    def target(outputs):
        warnings.warn("something else", UserWarning, stacklevel=2)
        return outputs[:, 0]

    with pytest.warns(UserWarning, match="something else"):
        kxai.report(model, x, ["gradient"], target=target)


def test_analyzers_composites_and_fitted_methods(model, x):
    composite = kxai.preset("epsilon")
    sources = {"mine": kxai.LRP(model, "epsilon"), "table": composite, "fitted": "pattern_attribution"}
    report = kxai.report(model, x, sources, fit=x)
    assert report.errors == {}
    said = facts(report)
    assert [method["name"] for method in said["methods"]] == ["mine", "table", "fitted"]
    assert [method["method"] for method in said["methods"]] == ["lrp.epsilon", "lrp (epsilon)", "pattern_attribution"]
    own, tabled, fitted = (array(report, said["relevance"][i][0][0]) for i in range(3))
    np.testing.assert_array_equal(own, tabled)
    expected = kxai.PatternAttribution(model).fit(x).explain(x).relevance[0]
    np.testing.assert_array_equal(fitted, expected)
    assert [*named([kxai.LRP(model, "epsilon"), composite])] == ["lrp.epsilon", "lrp (epsilon)"]


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e20])
def test_half_precision_is_as_good_as_it_says(scale):
    values = RNG.normal(size=4000) * 10.0 ** RNG.uniform(-8, 0, size=4000) * scale
    blobs = Blobs()
    meta = blobs.numbers(values, 2)
    kept = np.frombuffer(base64.b64decode(blobs.texts[0]), "<f2").astype(float) * 2.0 ** meta["shift"]
    top = np.abs(values).max()
    large = np.abs(values) >= 2.0**-28 * top
    assert large.mean() > 0.9
    assert (np.abs(kept - values) <= 2.0**-11 * np.abs(values))[large].all()
    assert (np.abs(kept - values) <= 1e-11 * top)[~large].all()
    assert blobs.numbers(np.zeros(3), 2)["shape"] == [3]


def test_the_size_is_bounded_and_the_precision_stated(model, x):
    full = kxai.report(model, x, ["gradient"])
    bytes_of = len(full.html)
    assert full.precision == "single"
    half = kxai.report(model, x, ["gradient"], max_megabytes=(bytes_of - 1) / 1e6)
    assert half.precision == "half"
    small = kxai.report(model, x, ["gradient"], max_megabytes=(len(half.html) - 1) / 1e6)
    assert small.precision == "maps"
    assert len(small.html) < len(half.html) < bytes_of
    for report in (full, half, small):
        assert facts(report)["precision"]["name"] == report.precision
    exact = kxai.explain(model, x, "gradient")
    kept = array(half, facts(half)["relevance"][0][1][0])
    np.testing.assert_allclose(kept, exact.relevance[1], rtol=2**-11, atol=1e-9 * np.abs(exact.relevance[1]).max())
    meta = facts(small)["relevance"][0][1][0]
    assert meta["maps"]
    expected = np.stack([exact.heatmap()[1], exact.heatmap(reduce="abs_max")[1]], axis=-1)
    np.testing.assert_allclose(array(small, meta), expected, rtol=2**-11, atol=1e-9 * np.abs(expected).max())
    with pytest.raises(ArgumentError, match=r"(?s)too large.*at most 0\.02 MB.*3 samples and 1 methods.*max_megabytes"):
        kxai.report(model, x, ["gradient"], max_megabytes=0.02)


def test_maps_of_channels():
    relevance = RNG.normal(size=(4, 5, 3)).astype(np.float32)
    explanation = kxai.Explanation(relevance[None], np.zeros((1, 1)), "sum", np.zeros(1))
    found = maps(relevance)
    np.testing.assert_allclose(found[..., 0], explanation.heatmap()[0], rtol=1e-6)  # rounded to float32
    np.testing.assert_array_equal(found[..., 1], explanation.heatmap(reduce="abs_max")[0])


def test_volumes_sequences_and_several_inputs():
    series, volume = keras.Input((9, 2), name="series"), keras.Input((4, 6, 5, 1), name="volume")
    ids = keras.Input((7,), name="ids", dtype="int32")
    merged = keras.layers.Concatenate()(
        [
            keras.layers.Flatten()(keras.layers.Conv1D(3, 3)(series)),
            keras.layers.Flatten()(keras.layers.Conv3D(2, 3)(volume)),
            keras.layers.Flatten()(keras.layers.Embedding(20, 3)(ids)),
        ]
    )
    model = keras.Model({"series": series, "volume": volume, "ids": ids}, keras.layers.Dense(2)(merged))
    x = {
        "volume": RNG.normal(size=(2, 4, 6, 5, 1)),
        "series": RNG.normal(size=(2, 9, 2)),
        "ids": RNG.integers(0, 20, (2, 7)),
    }
    tokens = {"ids": [["a", "##b"], ["c"]]}
    report = kxai.report(model, x, "lrp.epsilon", tokens=tokens)
    said = facts(report)
    kinds = {part["name"]: part["kind"] for part in said["parts"]}
    assert kinds == {"series": "sequence", "volume": "image", "ids": "text"}
    expected = kxai.explain(model, x, "lrp.epsilon").relevance
    for index, part in enumerate(said["parts"]):
        kept = array(report, said["relevance"][0][1][index])
        shape = {"series": (1, 9, 2), "volume": (24, 5, 1), "ids": (1, 7, 1)}[part["name"]]
        np.testing.assert_array_equal(kept, expected[part["name"]][1].reshape(shape))
        if part["kind"] == "image":
            assert part["slices"] == [4]
            assert "pictures show input values from" in part["pictured"]
        if part["kind"] == "text":
            assert part["words"] == [[["a", True], ["b", False]], [["c", True]]]


def test_what_inputs_are():
    given = {"numbers": np.zeros((2, 3)), "ids": np.zeros((2, 3), int), "one": np.zeros(2)}
    assert [part.kind for part in parts(given)] == ["table", "text", "table"]
    assert parts({"ids": np.array([[4, 5]])})[0].words == [[("4", True), ("5", True)]]
    assert parts({"ids": np.array([[4, 5]])}, feature_names=["a", "b"])[0].kind == "table"
    assert parts({"x": np.zeros((2, 3, 4))}, tokens=[["a"], ["b", "c"]])[0].kind == "text"


@pytest.mark.parametrize(
    ("values", "expected", "said"),
    [
        ([0.0, 1.0], [0, 255], "from 0 (black) to 1 (white)"),
        ([0.0, 0.2], [0, 51], "from 0 (black) to 1 (white)"),
        ([0.0, 51.0], [0, 51], "from 0 (black) to 255 (white)"),
        ([-1.0, 1.0], [0, 255], "from -1 (black) to 1 (white)"),
        ([300.0, 300.0], [0, 0], "from 300 (black) to 300 (white)"),
    ],
)
def test_pictures_of_input_values(values, expected, said):
    (part,) = parts({"x": np.array(values).reshape(1, 1, 2, 1)})
    assert part.pictures[0, 0, :, 0].tolist() == expected
    assert said in part.pictured


def test_predictions():
    outputs = {"a": np.array([[0.1, 0.9], [0.9, 0.1]]), "b": np.array([[0.5], [-2.0]]), "c": np.zeros((2, 3, 4))}
    (first, second) = predictions(outputs, ["no", "yes"])
    said = [(one["name"], one["units"], one["predicted"]) for one in first]
    assert said == [("a", 2, 1), ("b", 1, None), ("c", 12, None)]
    assert first[0]["top"] == [["yes", 0.9], ["no", 0.1]]
    assert (first[0]["percent"], first[0]["full"]) == (True, 1.0)
    assert second[1]["top"] == [["", -2.0]]
    assert (second[1]["percent"], second[1]["full"], first[1]["full"]) == (False, 2.0, 2.0)
    assert first[2]["top"] == []
    many = predictions(RNG.normal(size=(1, 9)), None)[0][0]
    assert len(many["top"]) == 5
    independent = predictions(np.array([[0.9, 0.8]]), None)[0][0]
    assert (independent["percent"], independent["full"]) == (False, 1.0)


def test_agreement_is_the_mean_rank_correlation():
    def explanation(values):
        values = np.asarray(values, float)
        return kxai.Explanation(values, np.zeros((len(values), 1)), "sum", np.zeros(len(values)))

    a, b, c = (RNG.normal(size=(2, 6, 3)) for _ in range(3))
    ranks = [one.sum(axis=-1).argsort(axis=1).argsort(axis=1) for one in (a, b, c)]  # no two values are equal
    for row, found in enumerate(agreement([explanation(one) for one in (a, b, c)])):
        matrix = np.corrcoef([one[row] for one in ranks])
        np.testing.assert_allclose(found, matrix[np.triu_indices(3, 1)].mean(), atol=1e-12)  # float64
    constant, other_size = explanation(np.ones((2, 6, 3))), explanation(np.ones((2, 4, 3)))
    assert agreement([explanation(a), constant, other_size]) == [None, None]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"methods": []}, ArgumentError, "There is no method"),
        ({"methods": ["gradient", "gradient"]}, ArgumentError, "cannot be told apart"),
        ({"methods": ["gradiant"]}, UnknownNameError, r"(?s)Unknown method 'gradiant'.*did you mean gradient"),
        ({"settings": {"lrp": {}}}, UnknownNameError, "Unknown method in settings 'lrp'"),
        ({"fit": np.zeros((1, 12, 16, 3))}, ArgumentError, "No method of this report is fitted to data"),
        ({"names": ["a"]}, ArgumentError, r"(?s)names does not fit.*3 names.*1 names"),
        ({"labels": ["a"]}, ArgumentError, r"(?s)labels fit no output.*1 labels"),
        ({"images": np.zeros((3, 9, 9, 3))}, ArgumentError, r"(?s)images does not fit.*\(3, 12, 16\[, 1\|3\]\)"),
        ({"images": np.full((3, 12, 16, 3), np.nan)}, ArgumentError, "The image has"),
        ({"tokens": [["a"]] * 3}, ArgumentError, "tokens fits no input"),
        ({"feature_names": ["a"]}, ArgumentError, "feature_names fits no input"),
        ({"images": {"other": np.zeros((3, 12, 16, 3))}}, UnknownNameError, "Unknown input of images 'other'"),
        ({"max_megabytes": 0}, ArgumentError, "max_megabytes is out of range"),
        ({"max_megabytes": True}, ArgumentError, "max_megabytes is out of range"),
        ({"batch_size": 0}, ArgumentError, "batch_size"),
        ({"methods": None}, ArgumentError, r"(?s)These are no methods.*None"),
        ({"methods": [3]}, ArgumentError, r"(?s)These are no methods.*\[3\]"),
        ({"methods": {"a": 3}}, ArgumentError, "These are no methods"),
        ({"settings": {"gradient": 3}}, ArgumentError, "settings are no hyperparameters"),
        ({"settings": [1]}, ArgumentError, "settings are no hyperparameters"),
        ({"title": 3}, ArgumentError, "title is no text"),
        ({"names": "abc"}, ArgumentError, "names is no list"),
        ({"labels": "abc"}, ArgumentError, "labels is no list"),
        ({"path": "no/such/folder/report.html"}, ArgumentError, "(?s)cannot be written.*no folder no/such/folder"),
        ({"path": "."}, ArgumentError, "(?s)cannot be written.*a folder"),
        ({"path": 3}, ArgumentError, "(?s)report has no place.*path of a file.*3"),
        ({"target": 17}, ArgumentError, r"(?s)No method explains this model.*gradient: .*17"),
    ],
)
def test_wrong_arguments(model, x, options, error, said):
    with pytest.raises(error, match=said):
        kxai.report(model, x, **{"methods": ["gradient"], **options})


@pytest.mark.parametrize("options", [{"labels": ["a"]}, {"path": "."}, {"title": 3}])
def test_mistakes_are_told_before_the_work(model, x, monkeypatch, options):
    monkeypatch.setattr("kxai.reports.build.columns", lambda *_: pytest.fail("the work has begun"))
    with pytest.raises(ArgumentError):
        kxai.report(model, x, ["gradient"], **options)


def test_labels_and_names_may_be_numbers(x):
    said = facts(kxai.report(photo_model(), x, ["gradient"], labels=np.arange(10, 14), names=[7, 8, 9]))
    assert [sample["name"] for sample in said["samples"]] == ["7", "8", "9"]
    assert sorted(name for name, _ in said["samples"][0]["outputs"][0]["top"]) == ["10", "11", "12", "13"]


def test_wrong_inputs(model):
    with pytest.raises(InputError, match="shape"):
        kxai.report(model, np.zeros((3, 5, 5, 3)), ["gradient"])
    with pytest.raises(ModelError, match="Only Keras models"):
        kxai.report("model", np.zeros((3, 5, 5, 3)), ["gradient"])
    import tensorflow as tf

    with pytest.raises(InputError, match="samples, not a dataset"):
        kxai.report(model, tf.data.Dataset.from_tensor_slices(np.zeros((2, 12, 16, 3))), ["gradient"])


def test_wrong_analyzers(model, x):
    other = kxai.LRP(photo_model(), "epsilon")
    with pytest.raises(ArgumentError, match=r"(?s)explains another model.*bind"):
        kxai.report(model, x, [other])
    with pytest.raises(ArgumentError, match="has its hyperparameters already"):
        kxai.report(model, x, {"a": other.bind(model)}, settings={"a": {"epsilon": 1}})


def test_wrong_words_and_features():
    with pytest.raises(ArgumentError, match=r"(?s)tokens do not fit.*2 lists of at most 3.*1 lists"):
        parts({"x": np.zeros((2, 3), int)}, tokens=[["a"]])
    with pytest.raises(ArgumentError, match=r"(?s)feature_names does not fit.*3 names.*1 names"):
        parts({"x": np.zeros((2, 3))}, feature_names=["a"])
    with pytest.raises(ArgumentError, match=r"(?s)fits more than one input.*a dict by input: a, b"):
        parts({"a": np.zeros((2, 3)), "b": np.zeros((2, 3))}, feature_names=["a"] * 3)


def test_the_function_and_the_package_have_names_of_their_own():
    assert kxai.report is reports.report
    assert kxai.Report is reports.Report


def test_subclassed_models(x):
    class Doubled(keras.Model):
        def __init__(self):
            super().__init__(name="doubled")
            self.head = keras.layers.Dense(2)

        def call(self, inputs):
            return self.head(keras.ops.reshape(inputs, (-1, 12 * 16 * 3)))

    model = Doubled()
    model(x)
    assert kxai.report(model, x, ["gradient", "lrp.epsilon"]).errors == {}


def test_nothing_of_a_model_changes(model, x):
    before = [weight.copy() for weight in model.get_weights()]
    config = json.dumps(model.get_config(), default=str)
    kxai.report(model, x, ["gradient", "pattern_attribution"], fit=x)
    assert json.dumps(model.get_config(), default=str) == config
    for weight, same in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, same)


def test_warnings_of_other_threads_are_not_the_methods(model, x, monkeypatch):
    def elsewhere():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(warnings.warn, "of another", KxaiWarning).result()

    explain = kxai.LRP.explain
    monkeypatch.setattr(kxai.LRP, "explain", lambda *given, **options: (elsewhere(), explain(*given, **options))[1])
    with pytest.warns(KxaiWarning, match="of another"):
        (column,) = columns({"lrp.epsilon": "lrp.epsilon"}, {}, Request(model, x, None, None, 32, False))
    assert column.warnings == ()


def test_bugs_are_not_columns(model, x, monkeypatch):
    monkeypatch.setattr(kxai.LRP, "explain", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        columns({"lrp.epsilon": "lrp.epsilon"}, {}, Request(model, x, None, None, 32, False))


def test_errors_of_the_target_name_every_method(model, x):
    with pytest.raises(ArgumentError) as caught:
        kxai.report(model, x, ["gradient", "lrp.epsilon"], target=99)
    assert "gradient: " in str(caught.value)
    assert "lrp.epsilon: " in str(caught.value)
