"""Explanations as shap's: what is handed over, and shap's own plots of it where shap is installed."""

from __future__ import annotations

import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from kxai import Explanation, KxaiWarning
from kxai.errors import ArgumentError, MissingDependencyError

RNG = np.random.default_rng(0)


def explanation(relevance, base=0.0):
    """One that conserves: the score is the base plus all relevance."""
    parts = relevance.values() if isinstance(relevance, dict) else relevance
    parts = [relevance] if isinstance(relevance, np.ndarray) else list(parts)
    count = len(parts[0])
    score = sum(part.reshape(count, -1).sum(axis=1) for part in parts) + base
    return Explanation(relevance, np.zeros((count, 2)), np.zeros(count, int), score, base=np.full(count, base))


@pytest.fixture
def shap(monkeypatch):
    """A stand-in that keeps what it is given."""
    module = SimpleNamespace(Explanation=lambda **given: SimpleNamespace(**given))
    monkeypatch.setitem(sys.modules, "shap", module)


@pytest.mark.usefixtures("shap")
def test_all_fields_are_handed_over():
    relevance, data = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3))
    made = explanation(relevance, 0.5).to_shap(data, ["a", "b", "c"], "price")
    np.testing.assert_array_equal(made.values, relevance)
    np.testing.assert_array_equal(made.base_values, [0.5, 0.5])
    np.testing.assert_array_equal(made.data, data)
    assert made.feature_names == ["a", "b", "c"]
    assert made.output_names == "price"
    made.values[:] = 0  # shap's own to change
    made.base_values[:] = 0


@pytest.mark.usefixtures("shap")
def test_nothing_is_made_up():
    made = explanation(RNG.normal(size=(2, 4, 4, 3))).to_shap()
    assert made.data is made.feature_names is made.output_names is None
    np.testing.assert_array_equal(made.base_values, [0, 0])


@pytest.mark.usefixtures("shap")
def test_tables_know_their_columns_and_tokens_are_text():
    class Table:
        columns = ("age", 7)

        def __array__(self, dtype=None, copy=None):
            return np.array([[1.0, 2.0]])

    result = explanation(np.ones((1, 2)))
    assert result.to_shap(Table()).feature_names == ["age", "7"]
    assert result.to_shap(Table(), ["x", "y"]).feature_names == ["x", "y"]
    assert result.to_shap([["good", "film"]]).data.tolist() == [["good", "film"]]


@pytest.mark.usefixtures("shap")
def test_one_per_input():
    a, b = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 2, 2, 1))
    made = explanation({"a": a, "b": b}, 1.0).to_shap({"b": b}, {"a": ["x", "y", "z"]})
    assert list(made) == ["a", "b"]
    np.testing.assert_array_equal(made["a"].values, a)
    np.testing.assert_array_equal(made["b"].data, b)
    assert made["a"].data is made["b"].feature_names is None
    assert made["a"].feature_names == ["x", "y", "z"]
    np.testing.assert_array_equal(made["b"].base_values, [1, 1])
    listed = explanation([a, b]).to_shap([None, b])
    assert isinstance(listed, list)
    np.testing.assert_array_equal(listed[1].data, b)
    assert listed[0].data is None


@pytest.mark.usefixtures("shap")
def test_a_residual_is_said():
    relevance = np.ones((3, 2))
    result = Explanation(relevance, np.zeros((3, 1)), "sum", np.array([2.0, 2.01, 4.0]))
    with pytest.warns(KxaiWarning, match=r"1 of 3 samples this is not the score \(sample 2: 2 instead of 4\)"):
        result.to_shap()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result[:2].to_shap()


@pytest.mark.usefixtures("shap")
@pytest.mark.parametrize(
    ("relevance", "options", "text"),
    [
        (np.ones((2, 3)), {"data": np.ones((2, 4))}, r"data does not fit(.|\n)*\(2, 3\)(.|\n)*\(2, 4\)"),
        (np.ones((2, 3)), {"feature_names": ["a"]}, r"feature_names does not fit(.|\n)*1 names for \(2, 3\)"),
        (np.ones((2, 4, 4, 1)), {"feature_names": list("abcd")}, r"feature_names does not fit"),
        (np.ones((2, 3)), {"output_name": 3}, r"output_name is one text(.|\n)*3"),
        (np.ones((2, 4, 4, 1)), {"output_name": "cat"}, r"takes no output name(.|\n)*labels=\['cat'\] \* batch"),
        ({"a": np.ones((2, 3))}, {"data": {"b": 1}}, r"data is not structured(.|\n)*\['a'\](.|\n)*\['b'\]"),
        ({"a": np.ones((2, 3))}, {"data": np.ones((2, 3))}, r"data is not structured(.|\n)*ndarray"),
        ({"a": np.ones((2, 3))}, {"data": {"a": np.ones(2)}}, r"data\['a'\] does not fit"),
        ([np.ones((2, 3))] * 2, {"feature_names": [["a"]]}, r"feature_names is not structured(.|\n)*a list of 2"),
    ],
)
def test_what_does_not_fit_is_refused(relevance, options, text):
    with pytest.raises(ArgumentError, match=text):
        explanation(relevance).to_shap(**options)


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(MissingDependencyError, match=r'shap cannot be imported(.|\n)*pip install "kxai\[shap\]"'):
        explanation(np.ones((1, 2))).to_shap()


# shap itself, and what it is built on, warn of their own use of NumPy and matplotlib.
@pytest.mark.filterwarnings("ignore")
class TestPlots:
    @pytest.fixture
    def shap(self):
        return pytest.importorskip("shap", reason="shap is not installed (pip install 'kxai[shap]')")

    @pytest.fixture
    def figure(self):
        import matplotlib.pyplot as plt

        plt.switch_backend("agg")
        yield plt
        plt.close("all")

    def test_waterfall_beeswarm_and_bar(self, shap, figure):
        data = RNG.normal(size=(20, 3))
        made = explanation(data * [1.0, -2.0, 0.5], 0.25).to_shap(data, ["a", "b", "c"])
        shap.plots.waterfall(made[3], show=False)
        texts = [text.get_text() for axes in figure.gcf().axes for text in (*axes.texts, *axes.get_yticklabels())]
        assert any("= b" in text for text in texts)
        labels = [text.get_text() for axes in figure.gcf().axes for text in axes.get_xticklabels()]
        assert any("0.25" in text for text in labels)
        assert any(f"{0.25 + (data[3] * [1.0, -2.0, 0.5]).sum():.3f}".lstrip("-") in text for text in labels)
        figure.close("all")
        shap.plots.beeswarm(made, show=False)
        shap.plots.bar(made, show=False)
        shap.plots.scatter(made[:, "b"], show=False)

    def test_image(self, shap, figure):
        images = RNG.uniform(size=(2, 6, 5, 3))
        shap.plots.image(explanation(RNG.normal(size=(2, 6, 5, 3))).to_shap(images), labels=["cat", "dog"], show=False)
        titles = [axes.get_title() for axes in figure.gcf().axes]
        assert "cat" in titles
        assert "dog" in titles

    def test_text(self, shap):
        made = explanation(np.array([[0.5, -1.0, 2.0]])).to_shap([["a ", "good ", "film"]], output_name="positive")
        page = shap.plots.text(made, display=False)
        assert "film" in page
        assert "positive" in page
